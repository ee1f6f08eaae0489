package sparse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/tensors"
)

// Format is the value of the metadata key "format" by which a sparse difference is known.
const Format = "mergekit.sparse"

// The kinds of files.
const (
	Graft      = "graft"      // entries of a fine-tune that carry its skill (Panigrahi et al., 2023)
	LTSFT      = "lt_sft"     // a sparse fine-tuning (Ansell et al., 2022)
	Difference = "difference" // anything else, such as the largest entries of a task vector
)

// The metadata keys that the format itself uses.
const (
	formatKey   = "format"
	versionKey  = "version"
	kindKey     = "kind"
	valuesKey   = "values"
	baseKey     = "base"
	shapePrefix = "shape."

	version  = "1"
	absolute = "absolute"
	delta    = "delta"
)

const (
	indexEnd = ".indices"
	valueEnd = ".values"
)

// maxRank bounds the dimensions that a shape may claim; no tensor library has more.
const maxRank = 64

// Header is what a file says about itself.
type Header struct {
	Kind  string            // Graft, LTSFT or Difference
	Base  string            // content hash of the base; "": not known
	Delta bool              // the values are differences from the base; false: what the entries become
	Meta  map[string]string // whatever else the writer keeps; no key of the format's own
}

// Tensor is a changed tensor in memory.
type Tensor struct {
	Name   string
	Shape  []int
	DType  tensors.DType // of the values in the file
	Index  []int64       // flat row-major positions, strictly ascending
	Values []float32     // one for each index
	// Raw holds the values as the file has them, len(Index) little-endian elements of DType. Written files take it where it is not
	// nil, so that float64 values keep all their bits.
	Raw []byte
}

// File is an open sparse difference. Its methods are safe for concurrent use; Close is not.
type File struct {
	Header
	path    string
	c       *tensors.Checkpoint
	names   []string
	entries map[string]*Entries
	wholes  []string
	count   int64
}

// Is tells whether a file is a sparse difference by its header, without checking the rest.
func Is(path string) bool {
	if !strings.HasSuffix(strings.ToLower(filepath.Ext(path)), "safetensors") {
		return false
	}
	c, err := tensors.Open(path)
	if err != nil {
		return false
	}
	defer c.Close()
	return c.Metadata()[formatKey] == Format
}

// Open opens a sparse difference and checks all of it but the values. Errors about the file are *tensors.FormatError.
func Open(path string) (*File, error) {
	c, err := tensors.Open(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, c: c, entries: map[string]*Entries{}}
	if err := f.read(); err != nil {
		_ = c.Close()
		var e *tensors.FormatError
		if errors.As(err, &e) && e.File == "" {
			e.File = path
		}
		return nil, err
	}
	return f, nil
}

const damaged = "the file is damaged; make it again"

func bad(tensor, format string, args ...any) *tensors.FormatError {
	return &tensors.FormatError{Tensor: tensor, Msg: fmt.Sprintf(format, args...), Hint: damaged}
}

func (f *File) read() error {
	meta := f.c.Metadata()
	switch {
	case meta[formatKey] != Format:
		return &tensors.FormatError{Msg: "is no sparse difference: its header does not say so", Hint: "give a file that `mergekit graft` or `tune: sparse` wrote"}
	case meta[versionKey] != version:
		return &tensors.FormatError{Msg: fmt.Sprintf("is a sparse difference of version %s, and this program reads version %s", strconv.Quote(clip(meta[versionKey])), version), Hint: "use the program that wrote it, or a newer one"}
	}
	f.Kind, f.Base = meta[kindKey], meta[baseKey]
	switch f.Kind {
	case Graft, LTSFT, Difference:
	default:
		return bad("", "has the kind %s, which is none of graft, lt_sft and difference", strconv.Quote(clip(f.Kind)))
	}
	switch meta[valuesKey] {
	case delta:
		f.Delta = true
	case absolute:
	default:
		return bad("", "says %s of its values, which is neither absolute nor delta", strconv.Quote(clip(meta[valuesKey])))
	}
	if f.Base != "" && !isHash(f.Base) {
		return bad("", "names its base by %s, which is no SHA-256", strconv.Quote(clip(f.Base)))
	}
	f.Meta = map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		name, isShape := strings.CutPrefix(key, shapePrefix)
		if !isShape {
			if !own(key) {
				f.Meta[key] = meta[key]
			}
			continue
		}
		if err := f.pair(name, meta[key]); err != nil {
			return err
		}
	}
	return f.order()
}

// own says whether the format uses a metadata key.
func own(key string) bool {
	switch key {
	case formatKey, versionKey, kindKey, valuesKey, baseKey:
		return true
	}
	return strings.HasPrefix(key, shapePrefix)
}

// pair reads the two tensors of a changed one.
func (f *File) pair(name, text string) error {
	shape, err := parseShape(text)
	if err != nil {
		return bad(name, "%s", err)
	}
	n := tensors.Info{Shape: shape}.Elems()
	if n < 0 {
		return bad(name, "has the impossible shape %v", shape)
	}
	index, ok := f.c.Lookup(name + indexEnd)
	values, also := f.c.Lookup(name + valueEnd)
	if !ok || !also {
		return bad(name, "has a shape in the header, but not both %s and %s", indexEnd[1:], valueEnd[1:])
	}
	switch {
	case index.DType != tensors.I32 && index.DType != tensors.I64:
		return bad(name+indexEnd, "holds %s, not I32 or I64", index.DType)
	case !values.DType.IsFloat():
		return bad(name+valueEnd, "holds %s, which are no floating-point values", values.DType)
	case len(index.Shape) != 1 || len(values.Shape) != 1 || index.Shape[0] != values.Shape[0]:
		return bad(name, "has indices of shape %v and values of shape %v, not two lists of one length", index.Shape, values.Shape)
	case int64(index.Shape[0]) > n:
		return bad(name, "has %d entries, and its shape %v has room for %d", index.Shape[0], shape, n)
	}
	at, err := f.c.View(name + indexEnd)
	if err != nil {
		return err
	}
	data, err := f.c.View(name + valueEnd)
	if err != nil {
		return err
	}
	e := &Entries{Name: name, Shape: shape, DType: values.DType, elems: n, n: index.Shape[0], wide: index.DType == tensors.I64, index: at.Data, values: data.Data}
	if err := e.check(); err != nil {
		return err
	}
	f.entries[name] = e
	f.count += int64(e.n)
	return nil
}

// order sorts the file's tensors into changed and replaced ones, and finds what belongs to neither.
func (f *File) order() error {
	for _, name := range f.c.Names() {
		if stem, ok := strings.CutSuffix(name, indexEnd); ok {
			if f.entries[stem] == nil {
				return bad(stem, "has indices, but no shape in the header")
			}
			f.names = append(f.names, stem)
			continue
		}
		if stem, ok := strings.CutSuffix(name, valueEnd); ok {
			if f.entries[stem] == nil {
				return bad(stem, "has values, but no shape in the header")
			}
			continue
		}
		if f.entries[name] != nil {
			return bad(name, "is both changed in places and replaced as a whole")
		}
		if info, _ := f.c.Lookup(name); !info.DType.IsFloat() {
			return bad(name, "holds %s, which are no floating-point values", info.DType)
		}
		f.wholes = append(f.wholes, name)
	}
	return nil
}

// parseShape reads "4096,11008"; "" is a scalar.
func parseShape(text string) ([]int, error) {
	if text == "" {
		return []int{}, nil
	}
	parts := strings.SplitN(text, ",", maxRank+1)
	if len(parts) > maxRank {
		return nil, fmt.Errorf("has a shape of more than %d dimensions", maxRank)
	}
	shape := make([]int, len(parts))
	for i, p := range parts {
		d, err := strconv.ParseInt(p, 10, 64)
		if err != nil || d < 0 || int64(int(d)) != d || strconv.FormatInt(d, 10) != p {
			return nil, fmt.Errorf("has the shape %s, which is no list of sizes", strconv.Quote(clip(text)))
		}
		shape[i] = int(d)
	}
	return shape, nil
}

func formatShape(shape []int) string {
	parts := make([]string, len(shape))
	for i, d := range shape {
		parts[i] = strconv.Itoa(d)
	}
	return strings.Join(parts, ",")
}

// clip shortens text out of a file for a message.
func clip(s string) string {
	const longest = 80
	if len(s) > longest {
		return s[:longest] + "..."
	}
	return s
}

func isHash(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// Path returns the path given to Open.
func (f *File) Path() string { return f.path }

// Names lists the tensors that are changed in places, in file order.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Wholes lists the tensors that are replaced, in file order.
func (f *File) Wholes() []string { return slices.Clone(f.wholes) }

// Count returns how many entries the file changes, without the tensors that it replaces.
func (f *File) Count() int64 { return f.count }

// Entries returns the changed places of a tensor without copying them; they are valid until Close.
func (f *File) Entries(name string) (*Entries, bool) {
	e, ok := f.entries[name]
	return e, ok
}

// Tensor reads a changed tensor into memory; ok is false where the file does not change it in places.
func (f *File) Tensor(name string) (t *Tensor, ok bool, err error) {
	e, ok := f.entries[name]
	if !ok {
		return nil, false, nil
	}
	t = &Tensor{Name: name, Shape: slices.Clone(e.Shape), DType: e.DType, Index: make([]int64, e.n), Values: make([]float32, e.n), Raw: slices.Clone(e.values)}
	for i := range t.Index {
		t.Index[i] = e.At(i)
	}
	return t, true, tensors.DecodeFloat32(t.Values, e.values, e.DType)
}

// Whole returns a tensor that the file replaces; its data is valid until Close. ok is false where there is none of the name.
func (f *File) Whole(name string) (v tensors.View, ok bool, err error) {
	if !slices.Contains(f.wholes, name) {
		return tensors.View{}, false, nil
	}
	v, err = f.c.View(name)
	return v, true, err
}

// Close lets go of the file. Entries and views must not be used afterwards.
func (f *File) Close() error { return f.c.Close() }

// Entries are the changed places of a tensor, as they lie in the file.
type Entries struct {
	Name  string
	Shape []int
	DType tensors.DType // of the values

	elems         int64
	n             int
	wide          bool // I64 indices
	index, values []byte
}

// check sees that the indices ascend and lie in the tensor.
func (e *Entries) check() error {
	last := int64(-1)
	for i := 0; i < e.n; i++ {
		at := e.At(i)
		switch {
		case at < 0 || at >= e.elems:
			return bad(e.Name+indexEnd, "has %d at place %d, outside the %d elements of the tensor", at, i, e.elems)
		case at <= last:
			return bad(e.Name+indexEnd, "has %d after %d at place %d; indices ascend", at, last, i)
		}
		last = at
	}
	return nil
}

// Len returns the number of entries.
func (e *Entries) Len() int { return e.n }

// Elems returns the number of elements of the tensor.
func (e *Entries) Elems() int64 { return e.elems }

// At returns the i-th changed place.
func (e *Entries) At(i int) int64 {
	if e.wide {
		return int64(binary.LittleEndian.Uint64(e.index[8*i:]))
	}
	return int64(int32(binary.LittleEndian.Uint32(e.index[4*i:])))
}

// Search returns the first i whose place is not before at; Len when there is none.
func (e *Entries) Search(at int64) int {
	return sort.Search(e.n, func(i int) bool { return e.At(i) >= at })
}

// Raw returns the values from entry i to entry j as little-endian elements of DType.
func (e *Entries) Raw(i, j int) []byte {
	size := e.DType.Size()
	return e.values[i*size : j*size]
}

// Read decodes the values from entry i on into dst.
func (e *Entries) Read(dst []float32, i int) error {
	return tensors.DecodeFloat32(dst, e.Raw(i, i+len(dst)), e.DType)
}
