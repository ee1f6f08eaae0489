package gguf

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/mergekit/mergekit/tensors"
)

// Tensor is one entry of the table. Its data are read through the File that lists it.
type Tensor struct {
	Name  string
	Type  Type
	Shape []int // torch's order: the axis that is contiguous in memory last; empty for a scalar

	part   int   // which file of a split GGUF holds it
	offset int64 // in that file
}

// Elems is the number of elements.
func (t Tensor) Elems() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n
}

// Bytes is the number of bytes that the tensor takes in the file.
func (t Tensor) Bytes() int64 {
	return t.Elems() / int64(t.Type.BlockElems()) * int64(t.Type.BlockBytes())
}

// rowElems is the length of the contiguous axis.
func (t Tensor) rowElems() int64 {
	if len(t.Shape) == 0 {
		return 1
	}
	return int64(t.Shape[len(t.Shape)-1])
}

// File is an opened GGUF. Its methods may be used by several goroutines at once.
type File struct {
	path    string
	version uint32
	keys    []string
	meta    map[string]value
	tensors []Tensor
	index   map[string]int
	parts   []*tensors.File
	headers []int64 // bytes before the data, per part
}

// splitName is how llama.cpp names the parts of a split model.
var splitName = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// Split says of a file's name whether it is a part of a split model: first is the path of part 1 (of a model that is not split the path
// itself), later whether this is another part than that.
func Split(path string) (first string, later bool) {
	m := splitName.FindStringSubmatch(filepath.Base(path))
	if m == nil {
		return path, false
	}
	return filepath.Join(filepath.Dir(path), fmt.Sprintf("%s-00001-of-%s.gguf", m[1], m[3])), m[2] != "00001"
}

// Open opens a GGUF file and checks its header. Given any part of a split model, it opens all of them; the metadata are
// those of the first. A malformed file is a *tensors.FormatError.
func Open(path string) (*File, error) {
	f := &File{path: path, index: map[string]int{}}
	if err := f.open(path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *File) open(path string) error {
	h, err := f.openPart(path)
	if err != nil {
		return err
	}
	count := int64(1)
	if v, ok := h.meta["split.count"]; ok && !v.array {
		if n, ok := v.integer(0); ok && n > 1 {
			count = n
		}
	}
	if count == 1 {
		return f.addPart(path, h, 0)
	}
	m := splitName.FindStringSubmatch(filepath.Base(path))
	if m == nil || m[3] != fmt.Sprintf("%05d", count) {
		return &tensors.FormatError{File: path, Msg: fmt.Sprintf("is one of %d parts, but its name does not end in -00001-of-%05d.gguf", count, count),
			Hint: "keep the names that the parts were published under"}
	}
	// Reopen in order, so that the metadata of the first part are the file's.
	if err := f.Close(); err != nil {
		return err
	}
	f.parts, f.headers = nil, nil
	for i := range count {
		part := filepath.Join(filepath.Dir(path), fmt.Sprintf("%s-%05d-of-%s.gguf", m[1], i+1, m[3]))
		h, err := f.openPart(part)
		if errors.Is(err, os.ErrNotExist) {
			return &tensors.FormatError{File: path, Msg: fmt.Sprintf("part %d of %d is missing: %s", i+1, count, part), Hint: "download all parts into one directory"}
		}
		if err != nil {
			return err
		}
		if v, ok := h.meta["split.no"]; ok && !v.array {
			if n, ok := v.integer(0); ok && n != i {
				return &tensors.FormatError{File: part, Msg: "says that it is part " + strconv.FormatInt(n+1, 10), Hint: "keep the names that the parts were published under"}
			}
		}
		if err := f.addPart(part, h, int(i)); err != nil {
			return err
		}
	}
	return nil
}

// openPart opens one file and parses its header; the file joins f.parts at once, so that Close finds it.
func (f *File) openPart(path string) (*header, error) {
	file, err := tensors.OpenFile(path)
	if err != nil {
		return nil, err
	}
	f.parts = append(f.parts, file)
	h, err := parseHeader(path, io.NewSectionReader(file, 0, file.Size()), file.Size())
	if err != nil {
		return nil, err
	}
	f.headers = append(f.headers, h.data)
	return h, nil
}

// addPart takes over what a header says.
func (f *File) addPart(path string, h *header, part int) error {
	if part == 0 {
		f.version, f.keys, f.meta = h.version, h.keys, h.meta
	}
	for _, t := range h.tensors {
		if _, twice := f.index[t.Name]; twice {
			return &tensors.FormatError{File: path, Tensor: t.Name, Msg: "is in an earlier part too", Hint: "download or convert it again"}
		}
		t.part = part
		f.index[t.Name] = len(f.tensors)
		f.tensors = append(f.tensors, t)
	}
	return nil
}

// Close closes the file and its parts.
func (f *File) Close() error {
	var errs []error
	for _, p := range f.parts {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// Path is the path given to Open.
func (f *File) Path() string { return f.path }

// Files lists the paths of all parts.
func (f *File) Files() []string {
	var out []string
	for _, p := range f.parts {
		out = append(out, p.Path())
	}
	return out
}

// Parts are the open files. Whoever closes them closes the File.
func (f *File) Parts() []*tensors.File { return slices.Clone(f.parts) }

// Begin is the place of a tensor's bytes: in which part, and where.
func (t Tensor) Begin() (part int, off int64) { return t.part, t.offset }

// HeaderBytes is how many bytes come before the data in part i; with the file's size they identify what was read.
func (f *File) HeaderBytes(i int) int64 { return f.headers[i] }

// Version is the format's version, 2 or 3.
func (f *File) Version() uint32 { return f.version }

// Tensors lists the table in file order.
func (f *File) Tensors() []Tensor { return slices.Clone(f.tensors) }

// Tensor finds a tensor by name.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.index[name]
	if !ok {
		return Tensor{}, false
	}
	return f.tensors[i], true
}

// ReadAt fills p with the stored bytes of a tensor from byte off of it on.
func (f *File) ReadAt(t Tensor, p []byte, off int64) error {
	if off < 0 || off > t.Bytes() || int64(len(p)) > t.Bytes()-off || t.part < 0 || t.part >= len(f.parts) {
		return fmt.Errorf("tensor %q: bytes %d to %d are outside the tensor's %d", t.Name, off, off+int64(len(p)), t.Bytes())
	}
	if _, err := f.parts[t.part].ReadAt(p, t.offset+off); err != nil {
		return fmt.Errorf("%s: tensor %q: cannot read %d bytes at %d: %w", f.parts[t.part].Path(), t.Name, len(p), t.offset+off, err)
	}
	return nil
}

// ReadFloat32 decodes elements elem to elem+len(dst) of a tensor; both must fall on block borders (any number for plain
// types). scratch, if it is large enough for the stored bytes, spares an allocation.
func (f *File) ReadFloat32(t Tensor, dst []float32, elem int64, scratch []byte) error {
	block := int64(t.Type.BlockElems())
	if block == 0 || elem%block != 0 || int64(len(dst))%block != 0 {
		return fmt.Errorf("tensor %q: elements %d to %d do not fall on %s blocks", t.Name, elem, elem+int64(len(dst)), t.Type)
	}
	n := len(dst) / int(block) * t.Type.BlockBytes()
	if cap(scratch) < n {
		scratch = make([]byte, n)
	}
	raw := scratch[:n]
	if err := f.ReadAt(t, raw, elem/block*int64(t.Type.BlockBytes())); err != nil {
		return err
	}
	if err := Dequantize(dst, t.Type, raw); err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	return nil
}
