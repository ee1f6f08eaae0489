package tensors

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// View is a tensor with its data.
type View struct {
	Info
	// Data is the mapped file, little-endian, row-major: read-only (a write is a fault), valid until Checkpoint.Close, and no
	// longer than the file keeps its length. It may have any alignment.
	Data []byte
}

// Checkpoint is an open checkpoint: the tensors of one safetensors file, or of the shards that an index lists. Tensors are
// read lazily, when their bytes are touched. Its methods are safe for concurrent use; Close is not.
type Checkpoint struct {
	path     string
	files    []string
	maps     []mapping
	names    []string
	at       map[string]location
	metadata map[string]string
	bytes    int64
}

// location is a tensor's place in its file.
type location struct {
	Info
	file   int
	off, n int64
}

// Open opens the checkpoint at path: a .safetensors file, an index file, or a directory. In a directory it takes, in this
// order, model.safetensors.index.json, model.safetensors, the same of diffusion_pytorch_model (diffusers), the only other
// index, the only other .safetensors file, or a complete set of numbered shards without an index.
//
// All headers are read and checked, no weights: lengths and offsets against the files' sizes, shapes against bytes, the
// index against the shards. Errors about the files are *FormatError.
func Open(path string) (*Checkpoint, error) {
	found, err := find(path)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{path: path, at: map[string]location{}}
	for i, name := range found.files {
		if err := c.addFile(found, i, name); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	if found.index != nil {
		for _, name := range found.index.names {
			if _, ok := c.at[name]; !ok {
				file := found.index.file[name]
				_ = c.Close()
				return nil, &FormatError{File: filepath.Join(found.dir, file), Tensor: name, Msg: "the index places this tensor here, but the header does not have it", Hint: "download the index and this shard again"}
			}
		}
	}
	return c, nil
}

// addFile reads the header of the i-th file and maps it.
func (c *Checkpoint) addFile(in *found, i int, name string) error {
	path := filepath.Join(in.dir, name)
	what := ""
	if len(in.files) > 1 {
		abs, err := filepath.Abs(in.dir)
		if err != nil {
			abs = in.dir
		}
		what = fmt.Sprintf("shard %d of %d of %s ", i+1, len(in.files), filepath.Base(abs))
	}
	explain := func(err error) error {
		var f *FormatError
		if !errors.As(err, &f) {
			f = unreadable(path, err)
			if errors.Is(err, os.ErrNotExist) {
				f.Msg, f.Hint = "is missing", downloadAgain
			}
		}
		f.File = path
		if f.Tensor == "" {
			f.Msg = what + f.Msg
		}
		return f
	}
	file, h, size, err := openHeader(path)
	if err != nil {
		return explain(err)
	}
	c.files = append(c.files, path)
	c.maps = append(c.maps, openMapping(file, size))
	if i == 0 {
		c.metadata = h.metadata
	}
	for _, e := range h.tensors {
		// A shard may hold tensors that the index takes from another, or not at all; the index decides.
		if in.index != nil && in.index.file[e.Name] != name {
			continue
		}
		if other, twice := c.at[e.Name]; twice {
			return &FormatError{File: path, Tensor: e.Name, Msg: "is in " + filepath.Base(c.files[other.file]) + " too", Hint: downloadAgain}
		}
		c.at[e.Name] = location{Info: e.Info, file: i, off: h.size + e.begin, n: e.end - e.begin}
		c.names = append(c.names, e.Name)
		c.bytes += e.end - e.begin
	}
	return nil
}

// openHeader opens a file and reads its header.
func openHeader(path string) (f *os.File, h *header, size int64, err error) {
	st, err := os.Stat(path) // before opening, which would wait for ever on a pipe
	if err != nil {
		return nil, nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, 0, &FormatError{Msg: "is not a regular file", Hint: "check the path"}
	}
	if f, err = os.Open(path); err != nil {
		return nil, nil, 0, err
	}
	if st, err = f.Stat(); err == nil {
		h, err = readHeader(f, st.Size())
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, 0, err
	}
	return f, h, st.Size(), nil
}

// Path returns the path given to Open.
func (c *Checkpoint) Path() string { return c.path }

// Names returns the tensors' names in file order: shard by shard, by position in the shard.
func (c *Checkpoint) Names() []string { return slices.Clone(c.names) }

// Lookup returns the tensor's dtype and shape. The shape must not be changed.
func (c *Checkpoint) Lookup(name string) (Info, bool) {
	l, ok := c.at[name]
	return l.Info, ok
}

// View returns a tensor with its data; no byte is read yet. Where files cannot be mapped, the tensor is read into memory.
func (c *Checkpoint) View(name string) (View, error) {
	l, ok := c.at[name]
	if !ok {
		return View{}, &FormatError{File: c.path, Tensor: name, Msg: "no such tensor"}
	}
	data, err := c.maps[l.file].bytes(l.off, l.n)
	return View{Info: l.Info, Data: data}, err
}

// Metadata returns a copy of the header metadata of the first file.
func (c *Checkpoint) Metadata() map[string]string { return maps.Clone(c.metadata) }

// Files returns the paths of the weight files, in order.
func (c *Checkpoint) Files() []string { return slices.Clone(c.files) }

// TotalBytes returns the size of all tensors' data.
func (c *Checkpoint) TotalBytes() int64 { return c.bytes }

// WillNeed asks the system to read n bytes of the tensor, from byte off of it, ahead of their use. It is a hint: ranges are
// cut to the tensor, unknown names and failures are ignored.
func (c *Checkpoint) WillNeed(name string, off, n int64) {
	if l, from, n, ok := c.part(name, off, n); ok {
		c.maps[l.file].willNeed(from, n)
	}
}

// Release takes the whole pages among n bytes of the tensor, from byte off of it, out of the process's resident memory; the
// page cache keeps them, and touching them again brings them back. It is a hint, as WillNeed is.
func (c *Checkpoint) Release(name string, off, n int64) {
	if l, from, n, ok := c.part(name, off, n); ok {
		c.maps[l.file].release(from, n)
	}
}

// part cuts a range of a tensor to the tensor and returns it as a range of the file.
func (c *Checkpoint) part(name string, off, n int64) (l location, from, count int64, ok bool) {
	l, ok = c.at[name]
	if !ok || off < 0 || n <= 0 || off >= l.n {
		return l, 0, 0, false
	}
	return l, l.off + off, min(n, l.n-off), true
}

// Close unmaps the files. Views must not be used afterwards.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, m := range c.maps {
		errs = append(errs, m.close())
	}
	c.maps, c.at, c.names = nil, nil, nil
	return errors.Join(errs...)
}
