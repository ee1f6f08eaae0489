package tensors

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// target is the output directory and its siblings.
type target struct {
	given   string // as the user wrote it, for messages
	path    string // absolute, without symbolic links
	parent  string
	partial string // the output while it is being written
	aside   string // what the output replaces, during the exchange
}

func newTarget(dir string) (*target, error) {
	if dir == "" {
		return nil, &FormatError{Msg: "no output directory", Hint: "name one"}
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSymlink != 0 {
		return nil, &FormatError{File: dir, Msg: "is a symbolic link to nothing", Hint: "remove it or choose another directory"}
	}
	parent, base := filepath.Dir(path), filepath.Base(path)
	if parent == path {
		return nil, &FormatError{File: dir, Msg: "is the root of a file system", Hint: "choose a directory below it"}
	}
	return &target{
		given: dir, path: path, parent: parent,
		partial: filepath.Join(parent, "."+base+".partial"),
		aside:   filepath.Join(parent, "."+base+".replaced"),
	}, nil
}

// CheckOutput says what Create would refuse about a place, before there is anything to write, so that long preparations are not made
// in vain.
func CheckOutput(dir string, force, resume bool) error {
	t, err := newTarget(dir)
	if err != nil {
		return err
	}
	st, err := os.Lstat(t.partial)
	interrupted := err == nil && st.IsDir()
	if interrupted {
		if empty, err := emptyDir(t.partial); err == nil && empty {
			interrupted = false
		}
	}
	if err := t.check(force, resume, interrupted); err != nil {
		return err
	}
	if interrupted && !resume && !force {
		return t.bad("an interrupted merge is in "+filepath.Base(t.partial), "use --resume to finish it or --force to start again", nil)
	}
	return nil
}

// PartialFile is where a side file of an interrupted output is, if there is one. What a resumed run needs of it must be read before
// Create, which removes side files: they are written anew.
func PartialFile(dir, name string) (string, error) {
	t, err := newTarget(dir)
	if err != nil {
		return "", err
	}
	return filepath.Join(t.partial, name), nil
}

// where names the output in messages.
func (t *target) where() string { return strings.TrimRight(t.given, `/\`) + "/" }

func (t *target) bad(msg, hint string, err error) error {
	return &FormatError{File: t.where(), Msg: msg, Hint: hint, Err: err}
}

// check says whether the output may be written at its place.
func (t *target) check(force, resume, interrupted bool) error {
	st, err := os.Stat(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return t.bad("cannot be looked at: "+cause(err), "choose another directory", err)
	}
	if !st.IsDir() {
		return t.bad("exists and is not a directory", "choose another name", fs.ErrExist)
	}
	if mountPoint(t.path, t.parent) {
		return t.bad("is where a disk is mounted, so nothing can appear there at once", "choose a directory below it", nil)
	}
	empty, err := emptyDir(t.path)
	if err != nil {
		return t.bad("cannot be looked at: "+cause(err), "choose another directory", err)
	}
	switch {
	case empty:
		return t.replaceable()
	case !force && resume && interrupted:
		return t.bad("exists and is not empty", "use --force with --resume to replace it by the finished merge", fs.ErrExist)
	case !force && resume:
		return t.bad("exists and is not empty, and there is no interrupted merge to resume", "use --force to replace it", fs.ErrExist)
	case !force:
		return t.bad("exists and is not empty", "use --force to replace it", fs.ErrExist)
	}
	if err := t.replaceable(); err != nil {
		return err
	}
	if known, err := holdsCheckpoint(t.path); err != nil {
		return t.bad("cannot be looked at: "+cause(err), "choose another directory", err)
	} else if !known {
		return t.bad("holds no checkpoint, so --force does not remove what is there", "choose another directory, or empty this one first", fs.ErrExist)
	}
	return nil
}

// holdsCheckpoint reports whether a directory has what an earlier output has: a mistyped path must not cost other files.
func holdsCheckpoint(path string) (bool, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case e.IsDir():
		case name == "config.json", name == "model_index.json", name == "mergekit_config.yml", strings.HasSuffix(name, ".safetensors"), strings.HasSuffix(name, indexSuffix):
			return true, nil
		}
	}
	return false, nil
}

// replaceable refuses to remove what is certainly no output, whatever --force says, and directories that someone is in.
func (t *target) replaceable() error {
	for _, get := range []func() (string, error){os.Getwd, os.UserHomeDir} {
		dir, err := get()
		if err != nil {
			continue
		}
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		if rel, err := filepath.Rel(t.path, dir); err == nil && filepath.IsLocal(rel) {
			return t.bad("holds the working directory or the home directory and is not replaced", "choose another directory", fs.ErrExist)
		}
	}
	if _, err := os.Lstat(filepath.Join(t.path, ".git")); err == nil {
		return t.bad("is a git repository and is not replaced", "choose another directory", fs.ErrExist)
	}
	return nil
}

// recover puts things right after a kill within the exchange of an old output by a new one.
func (t *target) recover() error {
	if _, err := os.Lstat(t.aside); err != nil {
		return nil
	}
	if _, err := os.Lstat(t.path); errors.Is(err, fs.ErrNotExist) {
		return os.Rename(t.aside, t.path)
	}
	return os.RemoveAll(t.aside)
}

func emptyDir(path string) (bool, error) {
	d, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, err := d.Readdirnames(1)
	if len(names) > 0 {
		return false, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return true, nil
}

// wipe removes all that is in the partial directory but the names to keep.
func (t *target) wipe(keep map[string]bool) error {
	entries, err := os.ReadDir(t.partial)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !keep[e.Name()] {
			if err := os.RemoveAll(filepath.Join(t.partial, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// SameDir reports whether two paths mean the same directory: by what they lead to when both exist, else by their absolute
// names with the symbolic links of their existing parents resolved.
func SameDir(a, b string) bool {
	sa, errA := os.Stat(a)
	sb, errB := os.Stat(b)
	if errA == nil && errB == nil {
		return os.SameFile(sa, sb)
	}
	if (errA == nil) != (errB == nil) {
		return false
	}
	return resolve(a) == resolve(b)
}

// Holds reports whether what is at path in is the directory out or lies below it, so that an output that replaces out would remove it.
func Holds(out, in string) bool {
	if SameDir(in, out) {
		return true
	}
	rel, err := filepath.Rel(resolve(out), resolve(in))
	return err == nil && filepath.IsLocal(rel)
}

// resolve makes a path absolute and resolves the symbolic links in as much of it as exists.
func resolve(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return filepath.Clean(path)
	}
	rest := ""
	for dir := path; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if filepath.Dir(dir) == dir {
			return path
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}
