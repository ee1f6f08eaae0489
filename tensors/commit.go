package tensors

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// checkName refuses names of side files that are not plain or that the writer uses itself.
func (w *Writer) checkName(name string) error {
	used := name == journalName || name == w.layout.index() || name == partName
	for _, s := range w.layout.shards {
		used = used || name == s.name
	}
	if !plainName(name) || used {
		return &FormatError{File: w.target.where(), Msg: "no file " + show(name) + " can be written beside the weights", Hint: "choose another name"}
	}
	return nil
}

// WriteFile writes a small file of the output, such as config.json. A second call with the same name replaces it.
func (w *Writer) WriteFile(name string, data []byte) error {
	return w.side(name, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// CopyFile copies the regular file src into the output as name.
func (w *Writer) CopyFile(name, src string) error {
	st, err := os.Stat(src)
	if err != nil {
		return unreadable(src, err)
	}
	if !st.Mode().IsRegular() {
		return &FormatError{File: src, Msg: "is not a regular file", Hint: "check the path"}
	}
	in, err := os.Open(src)
	if err != nil {
		return unreadable(src, err)
	}
	defer in.Close()
	return w.side(name, func(f *os.File) error {
		_, err := io.Copy(f, in)
		return err
	})
}

func (w *Writer) side(name string, fill func(*os.File) error) error {
	if err := w.checkName(name); err != nil {
		return err
	}
	if err := w.failed(); err != nil {
		return err
	}
	if err := w.put(name, fill); err != nil {
		return w.explain("writing "+name, err)
	}
	return nil
}

// put writes a file beside the shards; Commit brings it to the disk.
func (w *Writer) put(name string, fill func(*os.File) error) error {
	f, err := os.OpenFile(filepath.Join(w.target.partial, name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	err = fill(f)
	if e := f.Close(); err == nil {
		err = e
	}
	w.mu.Lock()
	w.files[name] = true
	w.mu.Unlock()
	return err
}

// SideFiles lists the files beside the weights, by name. The index of a sharded output comes with Commit and is none of them.
func (w *Writer) SideFiles() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.files))
}

// RemoveFile takes back a file that WriteFile or CopyFile wrote: one that only an interrupted output has.
func (w *Writer) RemoveFile(name string) error {
	if err := w.checkName(name); err != nil {
		return err
	}
	if err := w.failed(); err != nil {
		return err
	}
	w.mu.Lock()
	delete(w.files, name)
	w.mu.Unlock()
	if err := os.Remove(filepath.Join(w.target.partial, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w.explain("removing "+name, err)
	}
	return nil
}

// Commit makes the output appear: it brings everything to the disk, writes the index of a sharded output, and renames the
// partial directory. A part it makes ready to be joined. It fails when a tensor is not finished. After an error the interrupted output can be resumed; Close
// is still needed then.
func (w *Writer) Commit() error {
	if err := w.failed(); err != nil {
		return err
	}
	for i := range w.state {
		if w.state[i].Load() == unfinished {
			return fmt.Errorf("%s: committed without %s", w.target.where(), show(w.infos[i].Name))
		}
	}
	w.flusher.stop()
	if err := w.failed(); err != nil {
		return err
	}
	if w.options.Part.Of > 0 {
		return w.commitPart()
	}
	if len(w.layout.shards) > 1 {
		text, err := w.layout.renderIndex(w.infos, w.options.IndexMetadata)
		if err != nil {
			return err
		}
		err = w.put(w.layout.index(), func(f *os.File) error {
			_, err := f.Write(text)
			return err
		})
		if err != nil {
			return w.explain("writing the index", err)
		}
	}
	if err := w.syncAll(); err != nil {
		return err
	}
	for _, s := range w.shards {
		if err := s.close(); err != nil {
			return w.fail("closing a shard", err)
		}
	}
	appeared, err := w.appear()
	if appeared {
		w.mu.Lock()
		w.closed = true
		w.mu.Unlock()
		w.release()
	}
	return w.explain("putting the output in its place", err)
}

// syncAll brings all files and then their names to the disk. Files sync side by side: the file system then writes its own
// journal once for many.
func (w *Writer) syncAll() error {
	limit := make(chan struct{}, 8)
	var wait sync.WaitGroup
	var mu sync.Mutex
	var first error
	side := func(do func() error) {
		wait.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			if err := do(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				first = cmp.Or(first, err)
			}
		})
	}
	for i := range w.shards {
		side(func() error { return w.syncShard(i) })
	}
	for name := range w.files {
		side(func() error {
			f, err := os.Open(filepath.Join(w.target.partial, name))
			if err != nil {
				return w.explain("opening "+name, err)
			}
			defer f.Close()
			if err := w.disk.datasync(f); err != nil {
				return w.fail("bringing "+name+" to the disk", err)
			}
			return nil
		})
	}
	wait.Wait()
	if first != nil {
		return first
	}
	if err := syncDir(w.target.partial); err != nil {
		return w.fail("syncing the output's directory", err)
	}
	return nil
}

// appear puts the complete partial directory in the output's place. appeared says that it is there, whatever the error.
func (w *Writer) appear() (appeared bool, err error) {
	t := w.target
	if err := t.check(w.options.Force, false, false); err != nil {
		return false, err // something came there meanwhile
	}
	replaced := false
	switch empty, err := emptyDir(t.path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case empty:
		if err := os.Remove(t.path); err != nil {
			return false, err
		}
	default:
		if err := w.disk.rename(t.path, t.aside); err != nil {
			return false, err
		}
		replaced = true
	}
	if err = os.Remove(filepath.Join(t.partial, journalName)); err == nil {
		err = w.disk.rename(t.partial, t.path)
	}
	if err != nil {
		// Back to what it was, so that it can be resumed.
		if replaced {
			err = errors.Join(err, w.disk.rename(t.aside, t.path))
		}
		return false, errors.Join(err, w.rejournal())
	}
	_ = w.journal.f.Close()
	if replaced {
		if err := os.RemoveAll(t.aside); err != nil {
			msg := fmt.Sprintf("%s: the output is complete, but what it replaced is still in %s: %s; remove it", t.where(), filepath.Base(t.aside), cause(err))
			return true, &outputError{msg: msg, cause: err}
		}
	}
	return true, syncDir(t.parent)
}

// rejournal writes the journal of a complete output anew.
func (w *Writer) rejournal() error {
	all := make([]int, len(w.infos))
	for i := range all {
		all[i] = i
	}
	j, err := newJournal(w.target.partial, w.head(), all)
	if err == nil {
		_ = w.journal.f.Close()
		w.journal = j
	}
	return err
}

// Close ends the writing. After Commit it does nothing. Without, it brings the journal up to date and leaves the partial
// directory to be resumed, or removes it when no tensor was finished.
func (w *Writer) Close() error {
	w.mu.Lock()
	before, closed := w.err, w.closed
	w.closed = true
	w.mu.Unlock()
	if closed {
		return nil
	}
	w.flusher.stop()
	err := w.flusher.flush()
	if before != nil {
		err = nil // the caller has it already
	}
	for _, s := range w.shards {
		err = errors.Join(err, s.close())
	}
	worth := false
	for i := range w.state {
		s := w.state[i].Load()
		worth = worth || s == recorded || s == resumed
	}
	if w.journal != nil {
		_ = w.journal.f.Close()
	}
	if !worth || w.discard {
		err = errors.Join(err, os.RemoveAll(w.target.partial))
	}
	w.release()
	return err
}

// Discard is Close for programs that cannot resume: without a Commit before, nothing of the output is left.
func (w *Writer) Discard() error {
	w.discard = true
	return w.Close()
}

// release lets other processes write the output.
func (w *Writer) release() {
	if w.lock != nil {
		_ = w.lock.Close()
		w.lock = nil
	}
}
