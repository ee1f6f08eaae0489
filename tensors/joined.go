package tensors

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrJoined says that an output is there and was put together from the parts that are left beside it. RemoveParts ends such a join.
var ErrJoined = errors.New("joined before")

// joinedBefore reports whether a join has made the output that is there and was killed when it had only to remove the parts. What is left of
// them then holds nothing else: its shards are second names of the output's, or were moved there.
func (w *Writer) joinedBefore() bool {
	t, n := w.target, w.options.Join.Parts
	left := false
	for i := 1; i <= n; i++ {
		dir := t.partDir(i, n)
		if _, err := os.Lstat(dir); err != nil {
			continue
		}
		left = true
		if _, err := os.Lstat(filepath.Join(dir, partName)); errors.Is(err, fs.ErrNotExist) {
			continue // its shards tell
		}
		if _, err := w.readPart(i); err != nil {
			return false
		}
	}
	owner := w.layout.owners(n)
	for i, s := range w.layout.shards {
		there, err := os.Lstat(filepath.Join(t.path, s.name))
		if err != nil || !there.Mode().IsRegular() || there.Size() != s.size {
			return false
		}
		part, err := os.Lstat(filepath.Join(t.partDir(owner[i], n), s.name))
		if err == nil && !os.SameFile(there, part) || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return left
}
