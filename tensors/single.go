package tensors

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// SaveFile writes tensors that are in memory as one safetensors file, which appears whole or not at all and takes the place of
// one that is there. data[i] are the little-endian bytes of infos[i].
func SaveFile(path string, infos []Info, data [][]byte, metadata map[string]string) error {
	if len(infos) != len(data) {
		return fmt.Errorf("%s: %d tensors and the data of %d", path, len(infos), len(data))
	}
	l, err := plan(infos, -1, metadata)
	if err != nil {
		return err
	}
	for i, d := range data {
		if int64(len(d)) != l.place[i].n {
			return fmt.Errorf("%s: tensor %s has %d bytes, its shape and dtype make %d", path, show(infos[i].Name), len(d), l.place[i].n)
		}
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return &FormatError{File: path, Msg: "is a directory", Hint: "give the name of a file"}
	}
	dir, base := filepath.Split(path)
	// The process's number keeps two runs apart.
	partial := filepath.Join(dir, fmt.Sprintf(".%s.%d.partial", base, os.Getpid()))
	if err := l.writeSingle(partial, data); err != nil {
		_ = os.Remove(partial)
		return fmt.Errorf("writing %s: %w; check that its directory exists, can be written and has room", path, err)
	}
	if err := os.Rename(partial, path); err != nil {
		_ = os.Remove(partial)
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// writeSingle writes the only shard of a layout to a new file, and to the disk.
func (l *layout) writeSingle(path string, data [][]byte) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(l.shards[0].header, 0); err != nil {
		return err
	}
	for i, d := range data {
		if _, err := f.WriteAt(d, l.place[i].off); err != nil {
			return err
		}
	}
	return f.Sync()
}
