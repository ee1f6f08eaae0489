package tensors

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Collection is an output of several checkpoints, each in a directory of its own, with files beside them. Like the output of a Writer it
// comes to be in a hidden directory and appears when it is complete. Its checkpoints are written by Writers of their own.
type Collection struct {
	target *target
	force  bool
	lock   *os.File
}

// finishedEnd ends the name of the file that says that a checkpoint of a collection is complete, and by what.
const finishedEnd = ".finished"

// CreateCollection begins a collection, or goes on with an interrupted one (resume). Errors about the place are *FormatError.
func CreateCollection(dir string, force, resume bool) (*Collection, error) {
	if err := CheckOutput(dir, force, resume); err != nil {
		return nil, err
	}
	t, err := newTarget(dir)
	if err != nil {
		return nil, err
	}
	fail := func(err error) error { return t.bad("cannot be written: "+cause(err), "choose another directory", err) }
	if err := errors.Join(t.recover(), os.MkdirAll(t.partial, 0o777)); err != nil {
		return nil, fail(err)
	}
	lock, busy, err := LockDir(t.partial)
	if err != nil {
		return nil, fail(err)
	}
	if busy {
		return nil, t.bad("is being written by another process", "wait for it, or choose another directory", nil)
	}
	c := &Collection{t, force, lock}
	_, other := os.Lstat(filepath.Join(t.partial, journalName))
	switch {
	case resume && other == nil:
		return nil, errors.Join(t.bad("was begun as one checkpoint, not as several", "use --force to start again", nil), lock.Close())
	case !resume:
		if err := t.wipe(nil); err != nil {
			return nil, errors.Join(fail(err), lock.Close())
		}
	}
	return c, nil
}

// Dir is where the checkpoint of that name is to be written.
func (c *Collection) Dir(name string) string { return filepath.Join(c.target.partial, name) }

// Finished reports whether the checkpoint is there already, made by what key identifies. One that was made by something else is removed.
func (c *Collection) Finished(name, key string) (bool, error) {
	have, err := os.ReadFile(c.mark(name))
	if err == nil && string(have) == key {
		return true, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err == nil {
		err = os.Remove(c.mark(name))
	} else {
		err = nil
	}
	return false, errors.Join(err, os.RemoveAll(c.Dir(name)))
}

// Finish notes that the checkpoint is complete.
func (c *Collection) Finish(name, key string) error {
	return c.put(c.mark(name), strings.NewReader(key))
}

func (c *Collection) mark(name string) string {
	return filepath.Join(c.target.partial, "."+name+finishedEnd)
}

// WriteFile writes a file of the collection; its path is relative to it.
func (c *Collection) WriteFile(path string, data []byte) error {
	return c.put(filepath.Join(c.target.partial, path), strings.NewReader(string(data)))
}

// CopyFile copies a regular file into the collection.
func (c *Collection) CopyFile(path, src string) error {
	f, _, err := openRegular(src)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.put(filepath.Join(c.target.partial, path), f)
}

func (c *Collection) put(path string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), syncDir(filepath.Dir(path)))
}

// Commit puts the collection in its place. What it replaces is renamed aside first and removed last.
func (c *Collection) Commit() error {
	t := c.target
	if err := t.check(c.force, false, false); err != nil {
		return err
	}
	entries, err := os.ReadDir(t.partial)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, ".") && strings.HasSuffix(name, finishedEnd) {
			if err := os.Remove(filepath.Join(t.partial, name)); err != nil {
				return err
			}
		}
	}
	replaced := false
	switch empty, err := emptyDir(t.path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case empty:
		if err := os.Remove(t.path); err != nil {
			return err
		}
	default:
		if err := os.Rename(t.path, t.aside); err != nil {
			return err
		}
		replaced = true
	}
	if err := os.Rename(t.partial, t.path); err != nil {
		if replaced {
			err = errors.Join(err, os.Rename(t.aside, t.path))
		}
		return fmt.Errorf("%s: putting the output in its place: %w", t.where(), err)
	}
	if replaced {
		if err := os.RemoveAll(t.aside); err != nil {
			return fmt.Errorf("%s: the output is complete, but what it replaced is still in %s: %w; remove it", t.where(), filepath.Base(t.aside), err)
		}
	}
	return syncDir(t.parent)
}

// Close lets other processes write the output. What is unfinished stays to be resumed; nothing stays of a collection without any
// checkpoint.
func (c *Collection) Close() error {
	if entries, err := os.ReadDir(c.target.partial); err == nil && len(entries) == 0 {
		_ = os.Remove(c.target.partial)
	}
	if c.lock == nil {
		return nil
	}
	err := c.lock.Close()
	c.lock = nil
	return err
}
