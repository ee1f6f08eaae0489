package tensors

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// View is a tensor with its data.
type View struct {
	Info
	// Data is the mapped file, little-endian, row-major: read-only (a write is a fault), valid until Checkpoint.Close, and no
	// longer than the file keeps its length. It may have any alignment. Of a tensor that no file has as it is (Source) it is a copy.
	Data []byte
}

// Checkpoint is an open checkpoint: the tensors of one file, or of the shards that an index lists. Open reads safetensors, Assemble makes
// one of any format. Tensors are read lazily, when their bytes are touched. Its methods are safe for concurrent use; Relist and Close are
// not.
type Checkpoint struct {
	path     string
	files    []string
	maps     []mapping
	names    []string
	at       map[string]location
	metadata map[string]string
	bytes    int64
	hidden   []Source // sources that are no longer listed
}

// location is a tensor's place in its file.
type location struct {
	Info
	file   int
	off, n int64
	source Source // who makes the tensor; nil: the file has it
}

// Open opens the checkpoint at path: a .safetensors file, an index file, or a directory. In a directory it takes, in this
// order, model.safetensors.index.json, model.safetensors, the same of diffusion_pytorch_model (diffusers), the only other
// index, the only other .safetensors file, or a complete set of numbered shards without an index.
//
// All headers are read and checked, no weights: lengths and offsets against the files' sizes, shapes against bytes, the
// index against the shards. Errors about the files are *FormatError.
func Open(path string) (*Checkpoint, error) {
	found, err := Safetensors.Find(path)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{path: path, at: map[string]location{}}
	for i, name := range found.Files {
		if err := c.addFile(found, i, name); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	if err := found.Check(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// addFile reads the header of the i-th file and maps it.
func (c *Checkpoint) addFile(in *Found, i int, name string) error {
	path := filepath.Join(in.Dir, name)
	what := in.What(i)
	explain := func(err error) error {
		var f *FormatError
		if !errors.As(err, &f) {
			f = unreadable(path, err)
		}
		if errors.Is(err, os.ErrNotExist) {
			f.Msg, f.Hint = "is missing", downloadAgain
		}
		f.File = path
		if f.Tensor == "" {
			f.Msg = what + f.Msg
		}
		return f
	}
	m, h, err := openHeader(path)
	if err != nil {
		return explain(err)
	}
	c.files = append(c.files, path)
	c.maps = append(c.maps, m)
	if i == 0 {
		c.metadata = h.metadata
	}
	for _, e := range h.tensors {
		// A shard may hold tensors that the index takes from another, or not at all; the index decides.
		if !in.InIndex(e.Name, name) {
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
func openHeader(path string) (mapping, *header, error) {
	if r, ok := mounted(path); ok {
		h, err := readHeader(r, r.Size())
		if err != nil && !errors.As(err, new(*FormatError)) {
			err = &FormatError{Msg: "cannot be read where it is: " + err.Error(), Err: err}
		}
		return away{r}, h, err
	}
	f, size, err := openRegular(path)
	if err != nil {
		return nil, nil, err
	}
	h, err := readHeader(f, size)
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return openMapping(f, size), h, nil
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

// View returns a tensor with its data; no byte is read yet. Where files cannot be mapped, and where a source makes the tensor, it is read
// into memory: who holds many tensors at once, or wants parts of them, takes a Reader.
func (c *Checkpoint) View(name string) (View, error) {
	r, err := c.Reader(name)
	if err != nil {
		return View{}, err
	}
	data, err := r.Bytes(0, r.l.n, nil)
	return View{Info: r.Info, Data: data}, err
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
	if r, err := c.Reader(name); err == nil {
		r.WillNeed(off, n)
	}
}

// Release takes the whole pages among n bytes of the tensor, from byte off of it, out of the process's resident memory; the
// page cache keeps them, and touching them again brings them back. It is a hint, as WillNeed is.
func (c *Checkpoint) Release(name string, off, n int64) {
	if r, err := c.Reader(name); err == nil {
		r.Release(off, n)
	}
}

// Close unmaps the files. Views must not be used afterwards.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, l := range c.at {
		c.hidden = append(c.hidden, l.source)
	}
	for _, s := range c.hidden {
		if closer, ok := s.(io.Closer); ok {
			errs = append(errs, closer.Close())
		}
	}
	for _, m := range c.maps {
		errs = append(errs, m.close())
	}
	c.maps, c.at, c.names, c.hidden = nil, nil, nil, nil
	return errors.Join(errs...)
}
