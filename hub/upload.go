package hub

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

func gitHash(data []byte) string {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", len(data))
	_, _ = h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// action is where the hub's store takes or checks an object (Git LFS batch API).
type action struct {
	Href   string            `json:"href"`
	Header map[string]string `json:"header"`
}

// object is one answer of the batch API.
type object struct {
	OID     string `json:"oid"`
	Size    int64  `json:"size"`
	Actions struct {
		Upload *action `json:"upload"`
		Verify *action `json:"verify"`
	} `json:"actions"`
	Error *struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// uploadLarge sends the large files that the hub's store does not have, a few at a time, and returns the bytes sent.
func (c *Client) uploadLarge(ctx context.Context, n Name, files []*local) (int64, error) {
	byHash := map[string]*local{}
	var large []File
	for _, f := range files {
		if !f.large {
			continue
		}
		file, err := os.Open(f.disk)
		if err != nil {
			return 0, err
		}
		f.Etag, err = hashOf(ctx, file, strings.Repeat("0", 64), f.Size)
		_ = file.Close()
		if err != nil {
			return 0, err
		}
		if byHash[f.Etag] == nil {
			byHash[f.Etag] = f
			large = append(large, f.File)
		}
	}
	if len(large) == 0 {
		return 0, nil
	}
	objects, err := c.offer(ctx, n, large)
	if err != nil {
		return 0, err
	}
	var wanted []File
	total := int64(0)
	for _, f := range large {
		if objects[f.Etag].Actions.Upload != nil {
			wanted = append(wanted, f)
			total += f.Size
		}
	}
	if len(wanted) == 0 {
		return 0, nil
	}
	if c.s.Started != nil {
		c.s.Started("uploading "+n.Repo, total)
	}
	if c.s.Finished != nil {
		defer c.s.Finished()
	}
	// Parts of one file share the connections with other files.
	slots := make(chan struct{}, c.s.Connections)
	err = c.each(ctx, wanted, func(ctx context.Context, f File) error {
		u := &upload{c: c, repo: n.Written, file: byHash[f.Etag], slots: slots}
		return u.run(ctx, n, objects[f.Etag])
	})
	return total, err
}

// offer asks the hub's store which objects it wants, and where.
func (c *Client) offer(ctx context.Context, n Name, files []File) (map[string]*object, error) {
	out := map[string]*object{}
	org, name, _ := strings.Cut(n.Repo, "/")
	address := c.address(org, name+".git", "info", "lfs", "objects", "batch")
	for from := 0; from < len(files); from += batch {
		type entry struct {
			OID  string `json:"oid"`
			Size int64  `json:"size"`
		}
		ask := struct {
			Operation string   `json:"operation"`
			Transfers []string `json:"transfers"`
			Objects   []entry  `json:"objects"`
			Hash      string   `json:"hash_algo"`
		}{"upload", []string{"basic", "multipart"}, nil, "sha256"}
		for _, f := range files[from:min(from+batch, len(files))] {
			ask.Objects = append(ask.Objects, entry{f.Etag, f.Size})
		}
		body, err := json.Marshal(ask)
		if err != nil {
			return nil, err
		}
		header := http.Header{"Content-Type": {"application/vnd.git-lfs+json"}, "Accept": {"application/vnd.git-lfs+json"}}
		var said struct {
			Objects []*object `json:"objects"`
		}
		if _, err := c.call(ctx, question{method: http.MethodPost, address: address, body: body, header: header, repo: n.Written}, &said); err != nil {
			return nil, err
		}
		for _, o := range said.Objects {
			if o != nil {
				out[o.OID] = o
			}
		}
	}
	for _, f := range files {
		o := out[f.Etag]
		switch {
		case o == nil:
			return nil, &TransferError{Repo: n.Written, File: f.Path, Msg: "the hub's store does not say where it is to be sent", Hint: "try again"}
		case o.Error != nil:
			return nil, &TransferError{Repo: n.Written, File: f.Path, Msg: fmt.Sprintf("the hub's store refuses it (%d): %s", o.Error.Code, plain(o.Error.Message)), Hint: "check the repository's limits"}
		}
	}
	return out, nil
}

// upload sends one object.
type upload struct {
	c     *Client
	repo  string
	file  *local
	store *bucket // nil: the hub's own
	slots chan struct{}
}

func (u *upload) failure(format string, args ...any) error {
	return &TransferError{Repo: u.repo, File: u.file.Path, Msg: fmt.Sprintf(format, args...), Hint: "the same command goes on after the files that were sent"}
}

// run sends the object where the store wants it. Addresses are signed for a while: when they are refused, new ones are asked for.
func (u *upload) run(ctx context.Context, n Name, o *object) error {
	for tries := 1; ; tries++ {
		err := u.send(ctx, o)
		var expired *expiredError
		if !errors.As(err, &expired) {
			return err
		}
		if tries == 3 {
			return expired.err
		}
		again, err := u.c.offer(ctx, n, []File{u.file.File})
		if err != nil {
			return err
		}
		if o = again[u.file.Etag]; o.Actions.Upload == nil { // another process has sent it
			return nil
		}
	}
}

// expiredError says that the store no longer takes an address.
type expiredError struct{ err error }

func (e *expiredError) Error() string { return e.err.Error() }

func (u *upload) send(ctx context.Context, o *object) error {
	file, err := os.Open(u.file.disk)
	if err != nil {
		return err
	}
	defer file.Close()
	up := o.Actions.Upload
	if err := u.c.sameProtection(up.Href); err != nil {
		return u.failure("%s", err)
	}
	if size, ok := up.Header["chunk_size"]; ok {
		err = u.parts(ctx, file, up, size)
	} else {
		_, err = u.put(ctx, up.Href, up.Header, io.NewSectionReader(file, 0, u.file.Size))
	}
	if err != nil || o.Actions.Verify == nil {
		return err
	}
	return u.verify(ctx, o)
}

// sameProtection refuses to send in the clear what was asked for under https.
func (c *Client) sameProtection(address string) error {
	to, err := url.Parse(address)
	if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Host == "" {
		return fmt.Errorf("the hub names an address that is none")
	}
	if c.endpoint.Scheme == "https" && to.Scheme != "https" {
		return fmt.Errorf("the hub wants it sent to %s without encryption", plain(to.Host))
	}
	return nil
}

// parts sends an object in numbered parts and then says that they are all there.
func (u *upload) parts(ctx context.Context, file *os.File, up *action, chunk string) error {
	size, err := strconv.ParseInt(chunk, 10, 64)
	if err != nil || size <= 0 {
		return u.failure("the hub's store wants parts of %q bytes", plain(chunk))
	}
	count := int(segmentCount(u.file.Size, size))
	addresses := map[int]string{}
	for k, v := range up.Header {
		if i, err := strconv.Atoi(k); err == nil {
			addresses[i] = v
		}
	}
	if len(addresses) != count {
		return u.failure("the hub's store names %d places for %d parts", len(addresses), count)
	}
	type part struct {
		Number int    `json:"partNumber"`
		Etag   string `json:"etag"`
	}
	done := make([]part, count)
	_, err = u.eachPart(ctx, file, size, func(ctx context.Context, i int, data *io.SectionReader) error {
		etag, err := "", u.c.sameProtection(addresses[i+1])
		if err == nil {
			etag, err = u.put(ctx, addresses[i+1], nil, data)
		}
		if err == nil && etag == "" {
			err = u.failure("the hub's store does not confirm part %d", i+1)
		}
		done[i] = part{i + 1, etag}
		return err
	})
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"oid": u.file.Etag, "parts": done})
	if err != nil {
		return err
	}
	_, err = u.c.call(ctx, question{method: http.MethodPost, address: up.Href, body: body, repo: u.repo,
		header: http.Header{"Content-Type": {"application/vnd.git-lfs+json"}, "Accept": {"application/vnd.git-lfs+json"}}}, nil)
	return err
}

// eachPart sends the parts of a file, begun in order and as many at once as there are connections, and ends with the first error. send
// gets the number of a part, from 0, and its bytes. It returns how many parts there are.
func (u *upload) eachPart(ctx context.Context, file *os.File, size int64, send func(ctx context.Context, i int, data *io.SectionReader) error) (int, error) {
	count := int(segmentCount(u.file.Size, size))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	var next atomic.Int64
	for range min(count, u.c.s.Connections) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := next.Add(1) - 1; i < int64(count) && ctx.Err() == nil; i = next.Add(1) - 1 {
				from := i * size
				if err := send(ctx, int(i), io.NewSectionReader(file, from, min(size, u.file.Size-from))); err != nil {
					cancel(err)
				}
			}
		}()
	}
	workers.Wait()
	if ctx.Err() != nil {
		return count, context.Cause(ctx)
	}
	return count, nil
}

// verify asks the hub whether it has the object.
func (u *upload) verify(ctx context.Context, o *object) error {
	body, err := json.Marshal(map[string]any{"oid": u.file.Etag, "size": u.file.Size})
	if err != nil {
		return err
	}
	v := o.Actions.Verify
	if err := u.c.sameProtection(v.Href); err != nil {
		return u.failure("%s", err)
	}
	header := http.Header{"Content-Type": {"application/vnd.git-lfs+json"}}
	for k, value := range v.Header {
		header.Set(k, value)
	}
	_, err = u.c.call(ctx, question{method: http.MethodPost, address: v.Href, body: body, header: header, repo: u.repo}, nil)
	return err
}

// put sends bytes to an address of the store, again after a failure, and returns the etag that it gives them.
func (u *upload) put(ctx context.Context, address string, header map[string]string, data *io.SectionReader) (etag string, err error) {
	err = u.c.retry(ctx, mostAttempts, func() error {
		select {
		case u.slots <- struct{}{}:
			defer func() { <-u.slots }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		dog := time.AfterFunc(u.c.s.idle, func() { cancel(&transient{err: u.failure("nothing went for %v", u.c.s.idle)}) })
		defer dog.Stop()
		var sent atomic.Int64
		body := &counted{r: io.NewSectionReader(data, 0, data.Size()), moved: func(n int64) {
			dog.Reset(u.c.s.idle)
			sent.Add(n)
			u.c.moved(n)
		}}
		req, err := u.c.request(ctx, http.MethodPut, address, body)
		if err != nil {
			return err
		}
		req.ContentLength = data.Size()
		if data.Size() == 0 {
			req.Body = http.NoBody
		}
		for k, v := range header {
			req.Header.Set(k, v)
		}
		resp, err := u.c.do(req, u.repo, u.file.Path)
		if err != nil {
			u.c.moved(-sent.Load())
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 200 && resp.StatusCode < 300 {
			etag = resp.Header.Get("Etag")
			return nil
		}
		u.c.moved(-sent.Load())
		if u.store != nil {
			return u.refused(resp)
		}
		if resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusBadRequest {
			return &expiredError{u.failure("the hub's store answers %s", statusText(resp.StatusCode))}
		}
		return refusal(resp, u.repo, u.file.Path, true)
	})
	return etag, err
}

// refused explains why an object store does not take what was sent.
func (u *upload) refused(resp *http.Response) error {
	const most = 1 << 16
	said, _ := io.ReadAll(io.LimitReader(resp.Body, most)) // what did come tells something
	err := u.store.refused(resp, said)
	var bad *Error
	if errors.As(err, &bad) {
		bad.File = u.file.Path
	}
	if resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusBadRequest {
		return &expiredError{err}
	}
	return err
}

// counted tells how much of a body has been read. net/http may read it while the answer is there already, hence the lock-free count.
type counted struct {
	r     io.Reader
	moved func(int64)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.moved(int64(n))
	return n, err
}
