package tensors

import (
	"fmt"
	"unicode/utf8"
)

// Source is a tensor that no file has as it is: dequantised, gathered along strides, fetched from elsewhere. Its methods are called by
// several goroutines at once.
type Source interface {
	// ReadAt fills dst with the tensor's bytes from byte off on. Range and element borders have been checked.
	ReadAt(dst []byte, off int64) error
	// WillNeed and Release are hints about n bytes from byte off, as those of a Checkpoint.
	WillNeed(off, n int64)
	Release(off, n int64)
}

// Listing is a tensor of a checkpoint that is put together by Assemble or Relist, and where it comes from: one of three places.
type Listing struct {
	Info
	Of     string // the name that a tensor of the checkpoint had so far; Info is then its own but for the name
	File   int    // which of the files has its bytes, little-endian and row-major,
	Offset int64  // and where
	Source Source // who makes it; nil: a file has it
}

// Assemble makes a checkpoint of tensors that are in files of any format, or made by sources. The checkpoint closes the files, and those
// sources that have a method Close() error; where Assemble fails, it closes neither. Errors are *FormatError.
func Assemble(path string, files []*File, parts []Listing, metadata map[string]string) (*Checkpoint, error) {
	c := &Checkpoint{path: path, at: make(map[string]location, len(parts)), metadata: metadata}
	for _, p := range parts {
		l := location{Info: p.Info, file: p.File, off: p.Offset, source: p.Source}
		if p.Source == nil && (p.File < 0 || p.File >= len(files)) {
			return nil, &FormatError{File: path, Tensor: p.Name, Msg: "is in no file"}
		}
		if err := c.list(l); err != nil {
			return nil, err
		}
		if n := c.at[p.Name].n; p.Source == nil && !files[p.File].has(p.Offset, n) {
			return nil, &FormatError{File: files[p.File].path, Tensor: p.Name,
				Msg: fmt.Sprintf("is truncated: the tensor's %s bytes at %s are outside of the file's %s", group(n), group(p.Offset), group(files[p.File].size)), Hint: downloadAgain}
		}
	}
	for _, f := range files {
		c.files = append(c.files, f.path)
		c.maps = append(c.maps, f.m)
	}
	return c, nil
}

// Relist gives the checkpoint another list of tensors: of its own under any name (Of), and of sources that compute from Readers that were
// taken before. It must be called before others use the checkpoint. Where it fails, the checkpoint is as it was.
func (c *Checkpoint) Relist(parts []Listing) error {
	made := &Checkpoint{path: c.path, at: make(map[string]location, len(parts))}
	for _, p := range parts {
		l := location{Info: p.Info, source: p.Source}
		if p.Source == nil {
			own, ok := c.at[p.Of]
			if !ok {
				return &FormatError{File: c.path, Tensor: p.Of, Msg: "no such tensor"}
			}
			own.Name = p.Name
			l = own
		}
		if err := made.list(l); err != nil {
			return err
		}
	}
	for _, l := range c.at { // what is no longer listed is closed with the checkpoint all the same
		if l.source != nil {
			c.hidden = append(c.hidden, l.source)
		}
	}
	c.names, c.at, c.bytes = made.names, made.at, made.bytes
	return nil
}

// list adds a tensor.
func (c *Checkpoint) list(l location) error {
	bad := func(msg, hint string) error {
		return &FormatError{File: c.path, Tensor: l.Name, Msg: msg, Hint: hint}
	}
	n, err := l.bytes()
	switch _, twice := c.at[l.Name]; {
	case err != nil:
		return bad("a tensor that "+err.Error(), downloadAgain)
	case len(l.Shape) > maxRank:
		return bad(fmt.Sprintf("has %d dimensions, at most %d are allowed", len(l.Shape), maxRank), downloadAgain)
	case twice:
		return bad("there are two tensors of this name", downloadAgain)
	case !utf8.ValidString(l.Name) || l.Name == metadataKey:
		return bad("is no name that a tensor can have", "rename it")
	}
	l.n = n
	c.at[l.Name] = l
	c.names = append(c.names, l.Name)
	c.bytes += n
	return nil
}

// Reader reads one tensor of a checkpoint in pieces. It keeps what it reads when the checkpoint gets another list of tensors.
type Reader struct {
	Info
	c *Checkpoint
	l location
}

// Reader returns a reader of a tensor; no byte is read yet.
func (c *Checkpoint) Reader(name string) (*Reader, error) {
	l, ok := c.at[name]
	if !ok {
		return nil, &FormatError{File: c.path, Tensor: name, Msg: "no such tensor"}
	}
	return &Reader{l.Info, c, l}, nil
}

// Stored reports whether the tensor's bytes are a piece of a file as they are, so that Bytes costs nothing.
func (r *Reader) Stored() bool { return r.l.source == nil }

// Bytes returns n bytes from byte off of the tensor: the mapped file itself, read-only, or what a source makes of it or a file that is not
// mapped gives, in scratch if that has the room.
func (r *Reader) Bytes(off, n int64, scratch []byte) ([]byte, error) {
	if off < 0 || n < 0 || off > r.l.n || n > r.l.n-off {
		return nil, fmt.Errorf("%s: bytes %s to %s are outside the tensor's %s", show(r.Name), group(off), group(off+n), group(r.l.n))
	}
	if r.l.source == nil {
		if n == 0 {
			return []byte{}, nil
		}
		m := r.c.maps[r.l.file]
		if c, ok := m.(copied); ok && int64(len(scratch)) >= n {
			return scratch[:n], c.into(scratch[:n], r.l.off+off)
		}
		return m.bytes(r.l.off+off, n)
	}
	if int64(len(scratch)) < n {
		scratch = make([]byte, n)
	}
	dst := scratch[:n]
	if n == 0 {
		return dst, nil
	}
	if err := r.l.source.ReadAt(dst, off); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", r.c.path, show(r.Name), err)
	}
	return dst, nil
}

// WillNeed is a hint that n bytes from byte off are read soon.
func (r *Reader) WillNeed(off, n int64) {
	if n = min(n, r.l.n-off); off < 0 || n <= 0 {
		return
	}
	if r.l.source != nil {
		r.l.source.WillNeed(off, n)
		return
	}
	r.c.maps[r.l.file].willNeed(r.l.off+off, n)
}

// Release is a hint that n bytes from byte off are not needed for now.
func (r *Reader) Release(off, n int64) {
	if n = min(n, r.l.n-off); off < 0 || n <= 0 {
		return
	}
	if r.l.source != nil {
		r.l.source.Release(off, n)
		return
	}
	r.c.maps[r.l.file].release(r.l.off+off, n)
}
