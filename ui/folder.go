package ui

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mergekit/mergekit/tensors"
)

// folder is the directory that the server shows, and the named models beside it.
type folder struct {
	root string // real path

	mu     sync.Mutex
	named  []string // real paths
	list   []Entry  // the models, as they were found when listed
	listed time.Time
}

func openFolder(dir string) (*folder, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil, &tensors.FormatError{File: dir, Msg: "cannot be opened: " + cause(err), Hint: "give a directory with checkpoints or recipes", Err: err}
	}
	if st, err := os.Stat(abs); err != nil || !st.IsDir() {
		return nil, &tensors.FormatError{File: dir, Msg: "is no directory", Hint: "give the directory that the page is to show", Err: err}
	}
	return &folder{root: abs}, nil
}

// PathError says that a request leads to where it may not.
type PathError struct {
	Path string
	Msg  string
	Err  error // of the file system, if it is one's
}

// Error names the path.
func (e *PathError) Error() string {
	if e.Err != nil {
		return e.Path + ": " + e.Msg + ": " + cause(e.Err)
	}
	return e.Path + ": " + e.Msg
}

// Unwrap returns the cause.
func (e *PathError) Unwrap() error { return e.Err }

// cause is what an error of the file system says beyond the path.
func cause(err error) string {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}

// find returns where a path of a request is. It must be there, inside of the folder or of a named model.
func (f *folder) find(p string) (string, error) {
	if filepath.IsAbs(filepath.FromSlash(p)) {
		real, err := filepath.EvalSymlinks(filepath.FromSlash(p))
		if err == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			if slices.ContainsFunc(f.named, func(n string) bool { return within(n, real) }) {
				return real, nil
			}
		}
		return "", &PathError{Path: p, Msg: "is neither in the folder of this page nor named by a recipe that was opened here"}
	}
	local, err := f.local(p)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(f.root, local))
	if err != nil {
		return "", &PathError{Path: p, Msg: "cannot be opened", Err: err}
	}
	if !within(f.root, real) {
		return "", &PathError{Path: p, Msg: "is a link that leads out of the folder of this page; start 'mergekit ui' in a folder that holds both"}
	}
	return real, nil
}

// place returns where a file or a directory is to be made. Its parent must be there, and it must be no link.
func (f *folder) place(p string) (string, error) {
	local, err := f.local(p)
	if err != nil {
		return "", err
	}
	if local == "." {
		return "", &PathError{Path: p, Msg: "is the folder of this page itself; give a name in it"}
	}
	parent, err := f.find(filepath.ToSlash(filepath.Dir(local)))
	if err != nil {
		return "", err
	}
	if st, err := os.Stat(parent); err != nil || !st.IsDir() {
		return "", &PathError{Path: p, Msg: "its parent is no directory", Err: err}
	}
	full := filepath.Join(parent, filepath.Base(local))
	if st, err := os.Lstat(full); err == nil && st.Mode()&fs.ModeSymlink != 0 {
		return "", &PathError{Path: p, Msg: "is a link, and nothing is written through links; choose another name"}
	}
	return full, nil
}

// local is a path in the system's spelling, if it cannot leave the folder by its words.
func (f *folder) local(p string) (string, error) {
	if strings.ContainsRune(p, 0) || len(p) > 4096 {
		return "", &PathError{Path: fmt.Sprintf("%.40q", p), Msg: "is no path"}
	}
	local, err := filepath.Localize(path.Clean("./" + p))
	if err != nil || strings.HasPrefix(p, "/") {
		return "", &PathError{Path: p, Msg: "leads out of the folder of this page"}
	}
	return local, nil
}

// within says whether a real path is a directory, or in it.
func within(dir, p string) bool {
	rel, err := filepath.Rel(dir, p)
	return err == nil && filepath.IsLocal(rel)
}

// name is how requests call a real path: relative to the folder, or absolute if it is beside it.
func (f *folder) name(p string) string {
	if rel, err := filepath.Rel(f.root, p); err == nil && filepath.IsLocal(rel) {
		return filepath.ToSlash(rel)
	}
	return filepath.ToSlash(p)
}

// real is where a directory that a plan has opened is.
func (f *folder) real(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// allow makes a directory that a recipe names one that may be looked at.
func (f *folder) allow(dir string) {
	real, err := f.real(dir)
	if err != nil || within(f.root, real) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dirs := []string{real}
	if up := filepath.Dir(real); filepath.Base(up) == "snapshots" { // of a hub's cache, whose files are links to ones beside it
		dirs = append(dirs, filepath.Join(filepath.Dir(up), "blobs"))
	}
	for _, d := range dirs {
		if !slices.Contains(f.named, d) {
			f.named = append(f.named, d)
		}
	}
}

// inside sees that files of a directory that was found do not lie elsewhere, as the targets of links.
func (f *folder) inside(dir string, files ...string) error {
	for _, file := range files {
		if _, err := f.find(f.name(filepath.Join(dir, file))); err != nil {
			return err
		}
	}
	return nil
}

// shorten takes the folder out of a message, which then reads as the command's does in that directory.
func (f *folder) shorten(message string) string {
	return strings.ReplaceAll(message, f.root+string(filepath.Separator), "")
}
