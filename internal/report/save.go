package report

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Save writes a file that appears whole or not at all.
func Save(path string, write func(w io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
			os.Remove(f.Name())
		}
	}()
	if err = write(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// SaveAll writes findings into a folder, which it makes if there is none: name.html, name.png and name.svg. The two drawings are of
// the first figure.
func (f *Findings) SaveAll(dir, name string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	if len(f.Figures) > 0 {
		if err := f.Figures[0].Save(path); err != nil {
			return err
		}
	}
	return Save(path+".html", f.Page)
}

// Save writes the figure as path.png and path.svg.
func (f *Figure) Save(path string) error {
	if err := Save(path+".png", f.PNG); err != nil {
		return err
	}
	return Save(path+".svg", f.SVG)
}
