package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
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

// Find returns the directory of org/name, at a revision if one is given: brought here if need be. It is Snapshot for callers that
// want nothing but the files for a merge, with the weights or those beside them alone.
func (c *Client) Find(ctx context.Context, name, revision string, weights bool) (string, error) {
	n, err := ParseName(name, revision)
	if err != nil {
		return "", err
	}
	s, err := c.Snapshot(ctx, n, Want{Beside: !weights})
	if err != nil {
		return "", err
	}
	return s.Dir, nil
}

// Snapshot brings the files of a name that are wanted into the cache, those that are not there yet, and returns the directory of its
// snapshot. Offline, or where the hub cannot be reached, it is what the cache has, if that is complete.
func (c *Client) Snapshot(ctx context.Context, n Name, want Want) (*Snapshot, error) {
	if c.s.Offline {
		return c.fromCache(n, want, nil)
	}
	plainWant := !want.All && !want.Beside && !want.Verify && len(want.Include)+len(want.Exclude) == 0
	if plainWant && commitForm.MatchString(n.Revision) {
		if s, ok := c.complete(n); ok {
			return s, nil
		}
	}
	repo, err := c.repo(n)
	if err != nil {
		return nil, err
	}
	attempts := callAttempts
	if _, ok := c.s.Cached(n); ok {
		attempts = askAttempts
	}
	l, err := c.list(ctx, n, attempts)
	if err != nil {
		if unreachable(err) && ctx.Err() == nil {
			return c.fromCache(n, want, err)
		}
		return nil, err
	}
	slots := make(chan struct{}, c.s.Connections)
	chosen, err := c.chosen(ctx, repo, n, l, want, slots)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Name: n.Written, Commit: l.Commit, Dir: filepath.Join(repo.snapshot(l.Commit), filepath.FromSlash(n.Sub)), Files: chosen}
	if err := c.bring(ctx, repo, n, s, want, slots); err != nil {
		return nil, err
	}
	for _, f := range chosen {
		if err := repo.link(filepath.Join(repo.snapshot(l.Commit), filepath.FromSlash(f.Path)), f.Etag); err != nil {
			return nil, c.explainDisk(err, repo.blob(f.Etag), n, f)
		}
	}
	if plainWant {
		if err := writeFile(repo.mark(l.Commit, n.Sub), nil); err != nil {
			return nil, c.explainDisk(err, repo.blob("mark"), n, File{})
		}
	}
	return s, repo.setRef(n.revision(), l.Commit)
}

// mark is a file that says that all of a commit that a merge needs is here.
func (c cached) mark(commit, sub string) string {
	name := commit
	if sub != "" {
		name += "-" + strings.ReplaceAll(sub, "/", "--")
	}
	return filepath.Join(c.dir, "mergekit", name)
}

// repo is where a repository is written to.
func (c *Client) repo(n Name) (cached, error) {
	roots := c.s.roots()
	if len(roots) == 0 {
		return cached{}, &Error{Repo: n.Written, Msg: "there is no place for a cache: neither a home directory nor HF_HOME", Hint: "set HF_HUB_CACHE or --transformers-cache to a directory"}
	}
	return cachedRepo(roots[0], n.Repo), nil
}

// complete returns the snapshot of a commit all of whose files are known to be here: a commit does not change, so nobody needs to
// be asked.
func (c *Client) complete(n Name) (*Snapshot, bool) {
	for _, root := range c.s.roots() {
		repo := cachedRepo(root, n.Repo)
		dir := filepath.Join(repo.snapshot(n.Revision), filepath.FromSlash(n.Sub))
		if _, err := os.Stat(repo.mark(n.Revision, n.Sub)); err != nil {
			continue
		}
		if missing, err := lacking(dir); err == nil && len(missing) == 0 {
			return &Snapshot{Name: n.Written, Dir: dir, Commit: n.Revision}, true
		}
	}
	return nil, false
}

// fromCache returns what the cache has of a name. cause says why the hub was not asked, nil when that was the user's wish.
func (c *Client) fromCache(n Name, want Want, cause error) (*Snapshot, error) {
	dir, ok := c.s.Cached(n)
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
func (c *Client) chosen(ctx context.Context, repo cached, n Name, l *Listing, want Want, slots chan struct{}) ([]File, error) {
	picked, err := c.pick(ctx, repo, n, l, want, slots)
	if err != nil {
		return nil, err
	}
	if len(picked) == 0 {
		return nil, &Error{Repo: n.Written, Msg: "has no file that is wanted", Hint: "look at its page; mergekit download --all brings everything"}
	}
	for i := range picked {
		if picked[i], err = c.describe(ctx, n, l.Commit, picked[i]); err != nil {
			return nil, err
		}
	}
	return picked, nil
}

func (c *Client) pick(ctx context.Context, repo cached, n Name, l *Listing, want Want, slots chan struct{}) ([]File, error) {
	all := l.Files
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
		f, err := c.describe(ctx, n, l.Commit, f)
		if err != nil {
			return nil, err
		}
		if f.Size > maxSide {
			return nil, &Error{Repo: n.Written, File: f.Path, Msg: fmt.Sprintf("has %d bytes, which is too many for what it should be", f.Size), Hint: "tell the repository's owners"}
		}
		if err := c.fetch(ctx, repo, n, l.Commit, f, slots, func(int64) {}); err != nil {
			return nil, err
		}
		return os.ReadFile(repo.blob(f.Etag))
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
	return filter(chosen.files, want)
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
func (c *Client) bring(ctx context.Context, repo cached, n Name, s *Snapshot, want Want, slots chan struct{}) error {
	if err := c.checkCached(ctx, repo, n, s.Files, want); err != nil {
		return err
	}
	var todo []File
	seen := map[string]bool{}
	for _, f := range s.Files {
		s.Bytes += f.Size
		if seen[f.Etag] || haveBlob(repo.blob(f.Etag), f) {
			continue
		}
		seen[f.Etag] = true
		todo = append(todo, f)
		s.Fetched += f.Size - partReceived(repo.blob(f.Etag), f.Etag, f.Size)
	}
	if len(todo) == 0 {
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
	return c.each(ctx, todo, func(ctx context.Context, f File) error {
		return c.fetch(ctx, repo, n, s.Commit, f, slots, c.moved)
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
