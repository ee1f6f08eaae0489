package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// Want says which files of a repository are brought. The zero value wants what a merge needs.
type Want struct {
	All     bool     // every file
	Beside  bool     // only what stands beside the weights: configuration, tokenizer, chat template, card
	Include []string // patterns of paths (path.Match, also on the last element alone); with any, nothing else is brought
	Exclude []string // patterns of paths that are not brought
	Verify  bool     // read what is in the cache already, and bring again what is not as the hub promises
}

// Snapshot is a commit of a repository on this machine.
type Snapshot struct {
	Name    string `json:"name"`   // as the user wrote it
	Dir     string `json:"path"`   // directory or file
	Commit  string `json:"commit"` // "" when only the cache was asked
	Files   []File `json:"-"`
	Fetched int64  `json:"bytes_received"` // bytes that were not here before
	Bytes   int64  `json:"bytes"`
}

// Bring is Snapshot for names of every kind: of a repository, and of a place in an object store (see IsBucket).
func (c *Client) Bring(ctx context.Context, name, revision string, want Want) (*Snapshot, error) {
	pl, err := c.placeOf(name, revision)
	if err != nil {
		return nil, err
	}
	return c.bringTo(ctx, pl, want)
}

// Find returns the directory of org/name, at a revision if one is given: brought here if need be. It is Snapshot for callers that
// want nothing but the files for a merge, with the weights or those beside them alone.
func (c *Client) Find(ctx context.Context, name, revision string, weights bool) (string, error) {
	s, err := c.Bring(ctx, name, revision, Want{Beside: !weights})
	if err != nil {
		return "", err
	}
	return s.Dir, nil
}

// Snapshot brings the files of a name that are wanted into the cache, those that are not there yet, and returns the directory of its
// snapshot. Offline, or where the hub cannot be reached, it is what the cache has, if that is complete.
func (c *Client) Snapshot(ctx context.Context, n Name, want Want) (*Snapshot, error) {
	pl, err := c.place(n)
	if err != nil {
		return nil, err
	}
	return c.bringTo(ctx, pl, want)
}

// place is where the files of a model are, and where in the cache they come.
type place struct {
	name   Name
	repo   cached   // where they are written to
	caches []cached // where they may be
	object string   // the file that the name means if a snapshot has it; "": the name tells
	list   func(ctx context.Context, attempts int) (*Listing, error)
	at     func(ctx context.Context, commit string, f File) (address string, err error)
	header func(f File) http.Header
}

// transfer is how one of the files comes.
func (pl *place) transfer(c *Client, commit string, f File, slots chan struct{}, moved func(int64)) *transfer {
	t := &transfer{c: c, repo: pl.name.Written, file: f, slots: slots, moved: moved, keyed: new(atomic.Bool)}
	t.at = func(ctx context.Context) (string, error) { return pl.at(ctx, commit, f) }
	if pl.header != nil {
		t.header = pl.header(f)
	}
	return t
}

// place is where a repository of the hub is.
func (c *Client) place(n Name) (*place, error) {
	roots := c.s.roots()
	if len(roots) == 0 {
		return nil, &Error{Repo: n.Written, Msg: "there is no place for a cache: neither a home directory nor HF_HOME", Hint: "set HF_HUB_CACHE or --transformers-cache to a directory"}
	}
	pl := &place{name: n, repo: cachedRepo(roots[0], n.Repo)}
	for _, root := range roots {
		pl.caches = append(pl.caches, cachedRepo(root, n.Repo))
	}
	pl.list = func(ctx context.Context, attempts int) (*Listing, error) { return c.list(ctx, n, attempts) }
	pl.at = func(_ context.Context, commit string, f File) (string, error) {
		return c.fileAddress(n.Repo, commit, f.Path), nil
	}
	return pl, nil
}

// placeOf is where a model is that a user names.
func (c *Client) placeOf(name, revision string) (*place, error) {
	if IsBucket(name) {
		return c.bucketPlace(name, revision)
	}
	n, err := ParseName(name, revision)
	if err != nil {
		return nil, err
	}
	return c.place(n)
}

// cached returns the directory of the snapshot that a place has in the caches.
func (pl *place) cached() (dir string, ok bool) {
	for _, repo := range pl.caches {
		commit, ok := repo.commit(pl.name.revision())
		if !ok {
			continue
		}
		dir := filepath.Join(repo.snapshot(commit), filepath.FromSlash(pl.name.Sub))
		if st, err := os.Stat(filepath.Join(dir, pl.object)); err == nil && pl.object != "" && st.Mode().IsRegular() {
			return filepath.Join(dir, pl.object), true
		}
		if _, err := os.Stat(dir); err == nil {
			return dir, true
		}
	}
	return "", false
}

// bringTo is Snapshot for any place.
func (c *Client) bringTo(ctx context.Context, pl *place, want Want) (*Snapshot, error) {
	n, repo := pl.name, pl.repo
	if c.s.Offline {
		return c.fromCache(pl, want, nil)
	}
	plainWant := !want.All && !want.Beside && !want.Verify && len(want.Include)+len(want.Exclude) == 0
	if plainWant && commitForm.MatchString(n.Revision) {
		if s, ok := pl.complete(); ok {
			return s, nil
		}
	}
	attempts := callAttempts
	if _, ok := pl.cached(); ok {
		attempts = askAttempts
	}
	l, err := pl.list(ctx, attempts)
	if err != nil {
		if unreachable(err) && ctx.Err() == nil {
			return c.fromCache(pl, want, err)
		}
		return nil, err
	}
	n = pl.name // the listing may have told that it is a file
	slots := make(chan struct{}, c.s.Connections)
	chosen, err := c.chosen(ctx, pl, l, want, slots)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Name: n.Written, Commit: l.Commit, Dir: filepath.Join(repo.snapshot(l.Commit), filepath.FromSlash(n.Sub)), Files: chosen}
	if err := c.bring(ctx, pl, s, want, slots); err != nil {
		return nil, err
	}
	for _, f := range chosen {
		if err := repo.link(filepath.Join(repo.snapshot(l.Commit), filepath.FromSlash(f.Path)), f.Etag); err != nil {
			return nil, c.explainDisk(err, repo.blob(f.Etag), n, f)
		}
	}
	if plainWant {
		repo.setMark(l.Commit, n.Sub, chosen)
	}
	if err := repo.setRef(n.revision(), l.Commit); err != nil {
		return nil, c.explainDisk(err, repo.blob("ref"), n, File{})
	}
	return s, nil
}

// mark is a file that lists what a merge needs of a commit, all of which was here once.
func (c cached) mark(commit, sub string) string {
	name := commit
	if sub != "" {
		name += "-" + strings.ReplaceAll(sub, "/", "--")
	}
	return filepath.Join(c.dir, "mergekit", name)
}

// setMark writes a mark. It spares a question to the hub and no more, so that a cache that cannot be written to does without.
func (c cached) setMark(commit, sub string, files []File) {
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "%d %s\n", f.Size, f.Path)
	}
	path := c.mark(commit, sub)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, b.Bytes()) {
		return
	}
	_ = writeFile(path, b.Bytes())
}

// marked tells whether all files of a mark are here still: somebody may have removed blobs to win room.
func (c cached) marked(commit, sub string) bool {
	path := c.mark(commit, sub)
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() || st.Size() > maxSide {
		return false
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for _, line := range lines {
		size, name, ok := strings.Cut(line, " ")
		if !ok || !filePath(name) {
			return false
		}
		st, err := os.Stat(filepath.Join(c.snapshot(commit), filepath.FromSlash(name)))
		if err != nil || fmt.Sprint(st.Size()) != size {
			return false
		}
	}
	return true
}

// complete returns the snapshot of a commit all of whose files are known to be here: a commit does not change, so nobody needs to
// be asked.
func (pl *place) complete() (*Snapshot, bool) {
	n := pl.name
	for _, repo := range pl.caches {
		dir := filepath.Join(repo.snapshot(n.Revision), filepath.FromSlash(n.Sub))
		if repo.marked(n.Revision, n.Sub) {
			return &Snapshot{Name: n.Written, Dir: dir, Commit: n.Revision}, true
		}
	}
	return nil, false
}

// fromCache returns what the cache has of a name. cause says why the hub was not asked, nil when that was the user's wish.
func (c *Client) fromCache(pl *place, want Want, cause error) (*Snapshot, error) {
	n := pl.name
	dir, ok := pl.cached()
	how := "--offline (or HF_HUB_OFFLINE) forbids to ask the hub"
	if cause != nil {
		how = cause.Error()
	}
	fail := func(msg string) error {
		if cause != nil {
			return &TransferError{Repo: n.Written, Msg: msg + ", and the hub was not to be reached: " + strings.TrimPrefix(how, n.Written+": "), Err: cause}
		}
		return &Error{Repo: n.Written, Msg: msg + ", and " + how, Hint: "download it where there is a network: mergekit download " + n.String()}
	}
	if !ok {
		return nil, fail("is not in the cache")
	}
	missing, err := lacking(dir)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 && !want.Beside {
		return nil, fail("is not whole in the cache: it lacks " + some(missing))
	}
	if cause != nil {
		c.warn("%s; using the copy in the cache, %s", how, dir)
	}
	return &Snapshot{Name: n.Written, Dir: dir}, nil
}

// chosen picks the wanted files of a listing, with sizes and hashes. Small files that decide what else is needed are brought now.
func (c *Client) chosen(ctx context.Context, pl *place, l *Listing, want Want, slots chan struct{}) ([]File, error) {
	n := pl.name
	picked, err := c.pick(ctx, pl, l, want, slots)
	if err != nil {
		return nil, err
	}
	if len(picked) == 0 {
		return nil, &Error{Repo: n.Written, Msg: "has no file that is wanted", Hint: "look at its page; mergekit download --all brings everything"}
	}
	for i := range picked {
		if picked[i], err = c.describe(ctx, pl, l.Commit, picked[i]); err != nil {
			return nil, err
		}
	}
	return picked, nil
}

func (c *Client) pick(ctx context.Context, pl *place, l *Listing, want Want, slots chan struct{}) ([]File, error) {
	n, all := pl.name, l.Files
	if n.Sub != "" {
		var below []File
		for _, f := range all {
			if f.Path == n.Sub {
				return []File{f}, nil
			}
			if strings.HasPrefix(f.Path, n.Sub+"/") {
				below = append(below, f)
			}
		}
		if len(below) == 0 {
			return nil, &Error{Repo: n.Written, File: n.Sub, Msg: "the repository has no such file or directory", Hint: "check its name"}
		}
		all = below
	}
	if want.All || len(want.Include) > 0 {
		return filter(all, want)
	}
	read := func(f File) ([]byte, error) {
		f, err := c.describe(ctx, pl, l.Commit, f)
		if err != nil {
			return nil, err
		}
		if f.Size > maxSide {
			return nil, &Error{Repo: n.Written, File: f.Path, Msg: fmt.Sprintf("has %d bytes, which is too many for what it should be", f.Size), Hint: "tell the repository's owners"}
		}
		if err := c.fetch(ctx, pl, l.Commit, f, slots, func(int64) {}); err != nil {
			return nil, err
		}
		return os.ReadFile(pl.repo.blob(f.Etag))
	}
	prefix := ""
	if n.Sub != "" {
		prefix = n.Sub + "/"
	}
	chosen, err := chooseBelow(all, prefix, !want.Beside, read)
	if err != nil {
		var lacks *lackingError
		if errors.As(err, &lacks) {
			return nil, &Error{Repo: n.Written, Msg: lacks.Error(), Hint: "the repository is damaged; tell its owners"}
		}
		var bad *Error
		if errors.As(err, &bad) && bad.Repo == "" {
			bad.Repo = n.Written
		}
		return nil, err
	}
	return filter(chosen, want)
}

// filter applies a user's patterns.
func filter(all []File, want Want) ([]File, error) {
	match := func(patterns []string, f File) (bool, error) {
		for _, p := range patterns {
			for _, text := range []string{f.Path, path.Base(f.Path)} {
				ok, err := path.Match(p, text)
				if err != nil {
					return false, &Error{Msg: fmt.Sprintf("%q is no pattern", plain(p)), Hint: "write for example '*.json'"}
				}
				if ok {
					return true, nil
				}
			}
		}
		return false, nil
	}
	var out []File
	for _, f := range all {
		in, err := match(want.Include, f)
		if err != nil {
			return nil, err
		}
		not, err := match(want.Exclude, f)
		if err != nil {
			return nil, err
		}
		if (in || len(want.Include) == 0) && !not {
			out = append(out, f)
		}
	}
	return out, nil
}

// bring downloads the blobs that are missing, a few files at a time, the earliest first.
func (c *Client) bring(ctx context.Context, pl *place, s *Snapshot, want Want, slots chan struct{}) error {
	n, repo := pl.name, pl.repo
	if err := c.checkCached(ctx, repo, n, s.Files, want); err != nil {
		return err
	}
	var missing []File
	seen := map[string]bool{}
	for _, f := range s.Files {
		s.Bytes += f.Size
		if seen[f.Etag] || haveBlob(repo.blob(f.Etag), f) {
			continue
		}
		seen[f.Etag] = true
		missing = append(missing, f)
		s.Fetched += f.Size - partReceived(repo.blob(f.Etag), f.Etag, f.Size)
	}
	if len(missing) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(repo.dir, "blobs"), 0o777); err != nil {
		return c.explainDisk(err, repo.blob("x"), n, File{})
	}
	if free, ok := freeBytes(repo.dir); ok && free < s.Fetched {
		return &TransferError{Repo: n.Written, Msg: fmt.Sprintf("%d bytes are still to come, and the disk of %s has room for %d", s.Fetched, repo.root, free), Hint: "free some space, choose another cache with --transformers-cache, or let a merge read it remotely with --stream"}
	}
	if c.s.Started != nil {
		c.s.Started("downloading "+n.Repo, s.Fetched)
	}
	if c.s.Finished != nil {
		defer c.s.Finished()
	}
	return c.each(ctx, missing, func(ctx context.Context, f File) error {
		return c.fetch(ctx, pl, s.Commit, f, slots, c.moved)
	})
}

// each runs do for all files, a few at a time and begun in order, and ends with the first error.
func (c *Client) each(ctx context.Context, all []File, do func(context.Context, File) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	running := make(chan struct{}, c.s.Connections)
	for _, f := range all {
		select {
		case running <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		workers.Add(1)
		go func() {
			defer workers.Done()
			if err := do(ctx, f); err != nil {
				cancel(err)
			}
			<-running
		}()
	}
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// checkCached reads the wanted blobs that are in the cache and removes those that are not what the hub promises, when that is wanted.
func (c *Client) checkCached(ctx context.Context, repo cached, n Name, all []File, want Want) error {
	if !want.Verify {
		return nil
	}
	for _, f := range all {
		blob := repo.blob(f.Etag)
		if _, err := os.Stat(blob); errors.Is(err, os.ErrNotExist) {
			continue
		}
		err := verify(ctx, blob, f)
		var wrong *wrongContent
		if errors.As(err, &wrong) {
			c.warn("%s: %s: in the cache: %s; downloading it again", n.Written, f.Path, wrong)
			err = os.Remove(blob)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
