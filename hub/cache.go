package hub

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// cached is a repository's directory in one cache, laid out as Hugging Face's tools do:
//
//	models--org--name/blobs/<etag>
//	models--org--name/refs/<revision>            the commit, as text
//	models--org--name/snapshots/<commit>/<file>  a link to ../../blobs/<etag>
type cached struct {
	root string // the cache
	dir  string // the repository's directory in it
}

func cachedRepo(root, repo string) cached {
	return cached{root, filepath.Join(root, "models--"+strings.ReplaceAll(repo, "/", "--"))}
}

func (c cached) blob(etag string) string { return filepath.Join(c.dir, "blobs", etag) }

func (c cached) snapshot(commit string) string { return filepath.Join(c.dir, "snapshots", commit) }

// lock is the file that Python's tools lock while they write a blob.
func (c cached) lock(etag string) string {
	return filepath.Join(c.root, ".locks", filepath.Base(c.dir), etag+".lock")
}

// commit returns what a revision was when it was last asked for; a commit whose snapshot is here stands for itself.
func (c cached) commit(revision string) (string, bool) {
	if !plainPath(revision) {
		return "", false
	}
	const longest = 256
	if b, err := os.ReadFile(filepath.Join(c.dir, "refs", filepath.FromSlash(revision))); err == nil && len(b) < longest {
		commit := strings.TrimSpace(string(b))
		return commit, plainPath(commit) && !strings.Contains(commit, "/")
	}
	if strings.Contains(revision, "/") {
		return "", false
	}
	if st, err := os.Stat(c.snapshot(revision)); err == nil && st.IsDir() {
		return revision, true
	}
	return "", false
}

// setRef records which commit a revision is. A commit needs no record.
func (c cached) setRef(revision, commit string) error {
	if revision == commit {
		return nil
	}
	path := filepath.Join(c.dir, "refs", filepath.FromSlash(revision))
	if b, err := os.ReadFile(path); err == nil && string(b) == commit {
		return nil
	}
	return writeFile(path, []byte(commit))
}

// Cached returns the directory (or file) of a name's snapshot in the caches of this machine, without asking anybody: of the
// commit that the revision was when it was last asked for. ok is false if there is none. Whether the snapshot has all files
// is another matter.
func (s Settings) Cached(n Name) (dir string, ok bool) {
	pl := &place{name: n}
	for _, root := range s.roots() {
		pl.caches = append(pl.caches, cachedRepo(root, n.Repo))
	}
	return pl.cached()
}

// filesOf lists the files of a directory below it, with their sizes; links count as what they lead to, broken ones not at all.
func filesOf(dir string) ([]File, error) {
	var out []File
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Stat(path)
		if err != nil || !st.Mode().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err == nil {
			out = append(out, File{Path: filepath.ToSlash(rel), Size: st.Size()})
		}
		return err
	})
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out, err
}

// brokenLinks lists the links below a directory that lead to nothing, as they do after blobs were removed by hand. Their size is -1.
func brokenLinks(dir string) ([]File, error) {
	var out []File
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Type()&fs.ModeSymlink == 0 {
			return err
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		out = append(out, File{Path: filepath.ToSlash(rel), Size: -1})
		return err
	})
	return out, err
}

// lacking lists the files that a merge needs and a snapshot directory lacks: shards that its index names, and what broken links were for.
// What it lacks beside, nobody knows without asking the hub.
func lacking(dir string) ([]string, error) {
	st, err := os.Stat(dir)
	if err != nil || !st.IsDir() {
		return nil, err
	}
	have, err := filesOf(dir)
	if err != nil {
		return nil, err
	}
	cut, err := brokenLinks(dir)
	if err != nil {
		return nil, err
	}
	if len(cut) > 0 {
		var needed []string
		chosen, err := choose(append(cut, have...), true, func(f File) ([]byte, error) {
			return os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Path)))
		})
		var gone *fs.PathError
		switch {
		case errors.As(err, &gone) && errors.Is(err, fs.ErrNotExist): // the index or the configuration itself
			rel, relErr := filepath.Rel(dir, gone.Path)
			return []string{filepath.ToSlash(rel)}, relErr
		case err == nil:
			for _, f := range chosen {
				if f.Size < 0 {
					needed = append(needed, f.Path)
				}
			}
		}
		if len(needed) > 0 {
			return needed, nil
		}
	}
	_, err = choose(have, true, func(f File) ([]byte, error) {
		return os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Path)))
	})
	var lacks *lackingError
	if errors.As(err, &lacks) {
		return lacks.files, nil
	}
	var several *Error // that is for who opens the directory to explain
	if errors.As(err, &several) {
		return nil, nil
	}
	return nil, err
}

// link makes path lead to a blob, by a relative link as Python's tools do; where there are no links, by a copy.
func (c cached) link(path, etag string) error {
	blob := c.blob(etag)
	if a, err := os.Stat(path); err == nil {
		if b, err := os.Stat(blob); err == nil && os.SameFile(a, b) {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	target, err := filepath.Rel(filepath.Dir(path), blob)
	if err != nil {
		return err
	}
	temporary := path + "." + rand.Text() + ".link" // processes of two machines that share a cache may have one number
	if err := os.Symlink(target, temporary); err != nil {
		if err := os.Link(blob, temporary); err != nil {
			if err := copyFile(temporary, blob); err != nil {
				_ = os.Remove(temporary)
				return err
			}
		}
	}
	if err := os.Rename(temporary, path); err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return nil
}

// writeFile makes a small file appear whole.
func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "."+rand.Text()+".tmp"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = dst.ReadFrom(src)
	return errors.Join(err, dst.Close())
}

// Origin returns the repository and the commit that a directory of a cache is a snapshot of.
func Origin(dir string) (repo, commit string, ok bool) {
	parts := strings.Split(filepath.ToSlash(filepath.Clean(dir)), "/")
	for i := len(parts) - 3; i >= 0; i-- {
		name, marked := strings.CutPrefix(parts[i], "models--")
		if marked && parts[i+1] == "snapshots" && commitForm.MatchString(parts[i+2]) {
			return strings.Replace(name, "--", "/", 1), parts[i+2], true
		}
	}
	return "", "", false
}
