package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// transfer brings one blob.
type transfer struct {
	c      *Client
	repo   string // as the user wrote it
	at     func(context.Context) (address string, err error)
	header http.Header // of every request
	file   File
	slots  chan struct{} // one for each request that may be under way, shared by all transfers
	p      *partFile
	moved  func(int64)
	keyed  *atomic.Bool // an answer said that the store encrypts the object under a key: its etag looks like an MD5 and is none
}

// keyed tells whether an object is kept encrypted under a key that is not the store's default. The etags of such objects are no hashes of
// what is sent.
func keyed(h http.Header) bool {
	return strings.HasPrefix(h.Get("X-Amz-Server-Side-Encryption"), "aws:kms") || h.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != "" ||
		h.Get("X-Goog-Encryption-Kms-Key-Name") != "" || h.Get("X-Goog-Encryption-Algorithm") != ""
}

// opaque tells whether there is no hash to compare the content with. Nobody is asked for an empty object, and it is as it must be.
func (t *transfer) opaque() bool {
	return unknownHash(t.file.Etag) || md5Form.MatchString(t.file.Etag) && (t.file.Size == 0 || t.keyed.Load())
}

// errRangesIgnored says that the server sends whole files whatever range it is asked for.
var errRangesIgnored = errors.New("the server ignores ranges")

// fetch brings a file of a commit into the cache as a blob, unless it is there.
func (c *Client) fetch(ctx context.Context, pl *place, commit string, f File, slots chan struct{}, moved func(int64)) error {
	n, repo := pl.name, pl.repo
	blob := repo.blob(f.Etag)
	if haveBlob(blob, f) {
		return nil
	}
	unlock, err := lockFile(ctx, repo.lock(f.Etag), func() { c.warn("%s: %s: another process is downloading it; waiting", n.Written, f.Path) })
	if err != nil {
		return err
	}
	defer unlock()
	if haveBlob(blob, f) { // the other process was done first
		moved(f.Size - partReceived(blob, f.Etag, f.Size))
		return nil
	}
	t := pl.transfer(c, commit, f, slots, moved)
	for tries := 1; ; tries++ {
		err := t.once(ctx, blob)
		var wrong *wrongContent
		if !errors.As(err, &wrong) {
			return c.explainDisk(err, blob, n, f)
		}
		// A disk that lost what a kill left behind, or a proxy with a stale or cut copy. Once more from the start.
		moved(-f.Size)
		if tries == 2 {
			return &TransferError{Repo: n.Written, File: f.Path, Msg: wrong.Error(), Hint: "the content was thrown away; a proxy may change it, or the repository is damaged: try again, or another network"}
		}
		c.warn("%s: %s: %s; downloading it again", n.Written, f.Path, wrong)
	}
}

func haveBlob(path string, f File) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Size() == f.Size
}

func (c *Client) moved(n int64) {
	if c.s.Moved != nil && n != 0 {
		c.s.Moved(n)
	}
}

// explainDisk adds to an error of the disk which file it hit.
func (c *Client) explainDisk(err error, blob string, n Name, f File) error {
	var path *os.PathError
	var link *os.LinkError
	if !errors.As(err, &path) && !errors.As(err, &link) {
		return err
	}
	msg := fmt.Sprintf("cannot be written to the cache: %s", plain(err.Error()))
	if free, ok := freeBytes(blob[:strings.LastIndex(blob, string(os.PathSeparator))]); ok {
		msg += fmt.Sprintf(" (%d bytes are free)", free)
	}
	return &TransferError{Repo: n.Written, File: f.Path, Msg: msg, Hint: "free some space, or choose another cache with --transformers-cache; what has been received is kept", Err: err}
}

// once brings, verifies and names the blob.
func (t *transfer) once(ctx context.Context, blob string) error {
	segment := t.c.s.segment
	if segment <= 0 {
		segment = segmentFor(t.file.Size)
	}
	p, err := openPart(blob, t.file.Etag, t.file.Size, segment)
	if err != nil {
		return err
	}
	t.p = p
	err = t.segments(ctx)
	if errors.Is(err, errRangesIgnored) && ctx.Err() == nil {
		err = t.whole(ctx)
	}
	if err == nil && !t.opaque() {
		err = verify(ctx, p.path, t.file)
	}
	var wrong *wrongContent
	switch {
	case errors.As(err, &wrong):
		p.discard()
	case err == nil:
		if err = p.finish(blob); err != nil {
			p.close()
		}
	default:
		p.close()
	}
	return err
}

// segments brings what is missing, several segments at a time once the server has shown that it serves ranges.
func (t *transfer) segments(ctx context.Context) error {
	var missing []int
	for i := range t.p.have {
		if from, to := t.p.rest(i); from < to {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	run := func(i int, ranged func()) {
		defer workers.Done()
		if err := t.segmentAt(ctx, i, ranged); err != nil {
			cancel(err)
		}
	}
	ranges := make(chan struct{})
	var once sync.Once
	workers.Add(1)
	first := make(chan struct{})
	go func() {
		defer close(first)
		run(missing[0], func() { once.Do(func() { close(ranges) }) })
	}()
	select {
	case <-ranges:
	case <-first:
		select {
		case <-ranges:
		default: // the whole file came with the first answer, or nothing did
			missing = missing[:1]
		}
	}
	for _, i := range missing[1:] {
		workers.Add(1)
		go run(i, func() {})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if left := t.file.Size - t.p.received(); left != 0 {
		return &TransferError{Repo: t.repo, File: t.file.Path, Msg: fmt.Sprintf("%d bytes did not come", left), Hint: "try again"}
	}
	return nil
}

// segmentAt brings segment i, on as many connections one after the other as it takes. ranged is called when the server has
// answered with a range.
func (t *transfer) segmentAt(ctx context.Context, i int, ranged func()) error {
	attempt := 0
	for {
		before, _ := t.p.rest(i)
		err := t.piece(ctx, i, ranged)
		if err == nil {
			return nil
		}
		if errors.Is(err, errRangesIgnored) {
			return err
		}
		if now, _ := t.p.rest(i); now > before {
			attempt = 0
		}
		attempt++
		if err := t.c.pause(ctx, attempt, mostAttempts, err); err != nil {
			return err
		}
	}
}

// acquire waits for a slot.
func (t *transfer) acquire(ctx context.Context) (release func(), err error) {
	select {
	case t.slots <- struct{}{}:
		return func() { <-t.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// answer is a response whose body is watched: a server that is silent for too long is given up.
type answer struct {
	*http.Response
	ctx   context.Context
	alive func()
	done  func() // to be called when nothing more is wanted
}

// Read reads the body.
func (a *answer) Read(b []byte) (int, error) {
	n, err := a.Body.Read(b)
	a.alive()
	return n, err
}

// open sends one request for the bytes from a position on, up to (not including) to; to < 0 asks for the whole file without a range.
func (t *transfer) open(ctx context.Context, from, to int64) (*answer, error) {
	release, err := t.acquire(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	idle := t.c.s.idle
	dog := time.AfterFunc(idle, func() { cancel(&transient{err: t.failure("nothing came for %v", idle)}) })
	a := &answer{ctx: ctx, alive: func() { dog.Reset(idle) }}
	a.done = func() {
		dog.Stop()
		if a.Response != nil {
			_ = a.Body.Close()
		}
		cancel(nil)
		release()
	}
	address, err := t.at(ctx)
	var req *http.Request
	if err == nil {
		req, err = t.c.request(ctx, http.MethodGet, address, nil)
	}
	if err == nil {
		for k := range t.header {
			req.Header.Set(k, t.header.Get(k))
		}
		if to >= 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
		}
		a.Response, err = t.c.do(req, t.repo, t.file.Path)
	}
	if err == nil && keyed(a.Header) {
		t.keyed.Store(true)
	}
	if err != nil {
		a.done()
		return nil, err
	}
	return a, nil
}

func (t *transfer) failure(format string, args ...any) error {
	return &TransferError{Repo: t.repo, File: t.file.Path, Msg: fmt.Sprintf(format, args...), Hint: "the same command goes on with what has been received"}
}

// piece sends one request for what is missing of segment i and writes what comes.
func (t *transfer) piece(ctx context.Context, i int, ranged func()) error {
	from, to := t.p.rest(i)
	all := from == 0 && to == t.file.Size
	ask := to
	if all {
		ask = -1
	}
	resp, err := t.open(ctx, from, ask)
	if err != nil {
		return err
	}
	defer resp.done()
	switch {
	case resp.StatusCode == http.StatusPartialContent && !all:
		if err := checkRange(resp.Response, from, to, t.file.Size); err != nil {
			return &transient{err: t.failure("%s", err)}
		}
		ranged()
	case resp.StatusCode == http.StatusOK && all:
		if n := resp.ContentLength; n >= 0 && n != t.file.Size {
			return &transient{err: t.failure("the server sends %d bytes of a file that has %d", n, t.file.Size)}
		}
	case resp.StatusCode == http.StatusOK:
		return errRangesIgnored
	default:
		return t.refused(resp.Response)
	}
	return t.receive(resp, to-from, func(b []byte) error { return t.p.add(i, b) })
}

// refused explains an answer that is neither the file nor a range of it.
func (t *transfer) refused(resp *http.Response) error {
	if resp.StatusCode == http.StatusPreconditionFailed {
		return t.failure("it has changed since it was listed")
	}
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return t.failure("the server does not have the bytes that the hub's listing promises (%d in all)", t.file.Size)
	}
	if !t.c.own(resp.Request.URL) && resp.StatusCode >= 400 && resp.StatusCode < 500 {
		// Addresses in the hub's store are signed for a while; the next attempt asks the hub for a new one.
		return &transient{err: t.failure("the hub's store answers %s", statusText(resp.StatusCode)), after: parseRetryAfter(resp.Header)}
	}
	if resp.StatusCode < 400 {
		return &transient{err: t.failure("the server answers %s instead of the file", statusText(resp.StatusCode))}
	}
	return refusal(resp, t.repo, t.file.Path, resp.Request.Header.Get("Authorization") != "")
}

// checkRange compares Content-Range with what was asked for.
func checkRange(resp *http.Response, from, to, size int64) error {
	var a, b, total int64
	text := resp.Header.Get("Content-Range")
	if n, err := fmt.Sscanf(text, "bytes %d-%d/%d", &a, &b, &total); err != nil || n != 3 {
		return fmt.Errorf("the server answers with the range %q", plain(text))
	}
	if total != size {
		return fmt.Errorf("the server has %d bytes of a file that has %d", total, size)
	}
	if a != from || b != to-1 {
		return fmt.Errorf("the server sends bytes %d to %d, asked for %d to %d", a, b, from, to-1)
	}
	if n := resp.ContentLength; n >= 0 && n != to-from {
		return fmt.Errorf("the server sends %d bytes of %d asked for", n, to-from)
	}
	return nil
}

// receive copies n bytes of a body and refuses more or fewer.
func (t *transfer) receive(from *answer, n int64, put func([]byte) error) error {
	version := func(s string) string { return strings.Trim(strings.TrimPrefix(s, "W/"), `"`) }
	if want, is := version(t.header.Get("If-Match")), version(from.Header.Get("Etag")); want != "" && is != "" && want != is {
		return t.failure("it has changed since it was listed") // a store that does not know If-Match
	}
	if e := from.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return t.failure("the server sends it compressed (%s) though it was asked not to", plain(e))
	}
	const most = 256 << 10
	b := make([]byte, min(n+1, most))
	got := int64(0)
	for {
		k, err := io.ReadFull(from, b[:min(int64(len(b)), n-got+1)])
		if got+int64(k) > n {
			return &transient{err: t.failure("the server sends more than the %d bytes asked for", n)}
		}
		if k > 0 {
			if err := put(b[:k]); err != nil {
				return err
			}
			got += int64(k)
			t.moved(int64(k))
		}
		switch {
		case err == nil:
		case got == n: // also if the server never closed the answer, or broke it off after the last byte
			return nil
		case from.ctx.Err() != nil:
			return context.Cause(from.ctx)
		default:
			return &transient{err: t.failure("the connection broke off after %d of %d bytes: %s", got, n, plain(err.Error()))}
		}
	}
}

// whole brings the file in one piece from its beginning, from a server that serves no ranges; a drop begins again.
func (t *transfer) whole(ctx context.Context) error {
	attempt := func() error {
		t.moved(-t.p.received())
		if err := t.p.reset(); err != nil {
			return err
		}
		resp, err := t.open(ctx, 0, -1)
		if err != nil {
			return err
		}
		defer resp.done()
		if resp.StatusCode != http.StatusOK {
			return t.refused(resp.Response)
		}
		if n := resp.ContentLength; n >= 0 && n != t.file.Size {
			return &transient{err: t.failure("the server sends %d bytes of a file that has %d", n, t.file.Size)}
		}
		put := int64(0)
		return t.receive(resp, t.file.Size, func(b []byte) error {
			for len(b) > 0 {
				i := int(put / t.p.segment)
				from, to := t.p.rest(i)
				k := min(int64(len(b)), to-from)
				if err := t.p.add(i, b[:k]); err != nil {
					return err
				}
				b = b[k:]
				put += k
			}
			return nil
		})
	}
	return t.c.retry(ctx, mostAttempts, attempt)
}
