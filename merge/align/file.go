package align

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/tensors"
)

// A map's file is one safetensors file. For every group that the map changes it has ID.index (int64), ID.scale (float64), ID.matrix
// (float64, square) or ID.plane (float64, real and imaginary part of each plane); for every gain that was folded "gain NAME.from" and
// "gain NAME.to" (float64). The header's metadata holds the rest.
const (
	formatKey   = "alignment" // version of the format
	specKey     = "spec"      // the symmetry spec, as JSON
	hashKey     = "spec_hash"
	kindsKey    = "kinds" // of the elements, as JSON: id to kind
	seedKey     = "seed"
	noteKey     = "note" // as JSON
	formatValue = "1"

	gainPrefix = "gain "
)

// The ends of the names of tensors.
const (
	endIndex  = ".index"
	endScale  = ".scale"
	endMatrix = ".matrix"
	endPlane  = ".plane"
	endFrom   = ".from"
	endTo     = ".to"
)

// Save writes the map as a file, which appears whole or not at all and takes the place of one that is there.
func (m *Map) Save(path string) error {
	if err := m.Validate(); err != nil {
		return err
	}
	var infos []tensors.Info
	var data [][]byte
	put := func(name string, dtype tensors.DType, b []byte, shape ...int) {
		infos, data = append(infos, tensors.Info{Name: name, DType: dtype, Shape: shape}), append(data, b)
	}
	kinds := map[string]symmetry.Kind{}
	for i := range m.Spec.Groups {
		id := m.Spec.Groups[i].ID
		e, ok := m.Elements[id]
		if !ok || e.Kind == "" {
			continue
		}
		if strings.HasPrefix(id, gainPrefix) {
			return &Error{Group: id, Msg: "a map with a group of this name cannot be saved", Hint: "rename the group in the spec"}
		}
		kinds[id] = e.Kind
		if e.Index != nil {
			b := make([]byte, 0, 8*len(e.Index))
			for _, p := range e.Index {
				b = binary.LittleEndian.AppendUint64(b, uint64(p))
			}
			put(id+endIndex, tensors.I64, b, len(e.Index))
		}
		if e.Scale != nil {
			put(id+endScale, tensors.F64, doubles(e.Scale), len(e.Scale))
		}
		if e.Matrix != nil {
			put(id+endMatrix, tensors.F64, doubles(e.Matrix), m.Spec.Groups[i].Size, m.Spec.Groups[i].Size)
		}
		if e.Plane != nil {
			flat := make([]float64, 0, 2*len(e.Plane))
			for _, c := range e.Plane {
				flat = append(flat, real(c), imag(c))
			}
			put(id+endPlane, tensors.F64, doubles(flat), len(e.Plane), 2)
		}
	}
	for _, name := range sortedKeys(m.Gains) {
		if g := m.Gains[name]; g.From != nil {
			put(gainPrefix+name+endFrom, tensors.F64, doubles(g.From), len(g.From))
		}
		if g := m.Gains[name]; g.To != nil {
			put(gainPrefix+name+endTo, tensors.F64, doubles(g.To), len(g.To))
		}
	}
	meta := map[string]string{formatKey: formatValue, hashKey: m.Spec.Hash(), seedKey: strconv.FormatUint(m.Seed, 10)}
	for key, v := range map[string]any{specKey: m.Spec, kindsKey: kinds, noteKey: m.Note} {
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		meta[key] = string(text)
	}
	return tensors.SaveFile(path, infos, data, meta)
}

// CheckSave says, before the work that finds a map, whether Save can put one into a file: a map may take the place of a map and of nothing
// else, and the file's directory is there already, or is one of outs, which will be.
func CheckSave(path string, outs ...string) error {
	if st, err := os.Stat(path); err == nil {
		switch {
		case st.IsDir():
			return &Error{File: path, Msg: "the map cannot be saved: this is a directory", Hint: "name a file, such as alignment.safetensors"}
		case !isMap(path):
			return &Error{File: path, Msg: "the map cannot be saved: there is a file that is no map", Hint: "choose another name, or remove the file"}
		}
		return nil
	}
	dir := filepath.Dir(path)
	for _, out := range outs {
		if filepath.Clean(out) == dir {
			return nil
		}
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return &Error{File: path, Msg: "the map cannot be saved: its directory is not there", Hint: "make the directory, or choose another one"}
	}
	return nil
}

// isMap says whether a file is a saved map, whatever else is in it.
func isMap(path string) bool {
	c, err := tensors.Open(path)
	if err != nil {
		return false
	}
	defer c.Close()
	return c.Metadata()[formatKey] != ""
}

func doubles(x []float64) []byte {
	b := make([]byte, 0, 8*len(x))
	for _, v := range x {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

// Load reads a map and checks all of it: the spec against its hash, every index, number and matrix against its group.
func Load(path string) (*Map, error) {
	c, err := tensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	m, err := load(c)
	if err != nil {
		return nil, inFile(path, err)
	}
	return m, nil
}

// inFile says which file an error is about.
func inFile(path string, err error) error {
	if e, ok := err.(*Error); ok && e.File == "" { //nolint:errorlint // only errors made here lack the file
		e.File = path
	}
	return err
}

const notAMap = "give the file that --save wrote"

// load reads a map from an open file.
func load(c *tensors.Checkpoint) (*Map, error) {
	meta := c.Metadata()
	if v := meta[formatKey]; v != formatValue {
		if v == "" {
			return nil, &Error{Msg: "is no alignment: its header does not say so", Hint: notAMap}
		}
		return nil, &Error{Msg: fmt.Sprintf("is an alignment of format %s, and this program reads format %s", show(v), formatValue)}
	}
	var spec symmetry.Spec
	kinds, note := map[string]symmetry.Kind{}, map[string]string{}
	for key, v := range map[string]any{specKey: &spec, kindsKey: &kinds, noteKey: &note} {
		if err := json.Unmarshal([]byte(meta[key]), v); err != nil {
			return nil, &Error{Msg: fmt.Sprintf("%q in its header cannot be read: %v", key, err), Hint: "the file is damaged"}
		}
	}
	seed, err := strconv.ParseUint(meta[seedKey], 10, 64)
	if err != nil {
		return nil, &Error{Msg: fmt.Sprintf("the seed %s in its header is no number", show(meta[seedKey])), Hint: "the file is damaged"}
	}
	if err := spec.Validate(nil); err != nil {
		return nil, &Error{Msg: "its spec is not valid: " + err.Error(), Err: err, Hint: "the file is damaged"}
	}
	if have := spec.Hash(); have != meta[hashKey] {
		return nil, &Error{Msg: fmt.Sprintf("its spec has the hash %s, but the header says %s", have, show(meta[hashKey])), Hint: "the file is damaged"}
	}
	if _, err := newTree(&spec); err != nil {
		return nil, err
	}
	m := Identity(&spec)
	m.Seed, m.Note = seed, note
	if m.Note == nil {
		m.Note = map[string]string{}
	}
	groups := map[string]*symmetry.Group{}
	for i := range spec.Groups {
		groups[spec.Groups[i].ID] = &spec.Groups[i]
	}
	for _, id := range sortedKeys(kinds) {
		if groups[id] == nil {
			return nil, &Error{Group: id, Msg: "has an element, but is not in the spec", Hint: "the file is damaged"}
		}
		m.Elements[id] = Element{Kind: kinds[id]}
	}
	for _, name := range c.Names() {
		if err := m.take(c, name, groups); err != nil {
			return nil, err
		}
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	for i := range spec.Groups {
		if err := m.Elements[spec.Groups[i].ID].regular(&spec.Groups[i]); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// take reads one tensor of the file. What is read is no longer than the file.
func (m *Map) take(c *tensors.Checkpoint, name string, groups map[string]*symmetry.Group) error {
	v, err := c.View(name)
	if err != nil {
		return err
	}
	stem, end := name, ""
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		stem, end = name[:i], name[i:]
	}
	want := tensors.F64
	if end == endIndex {
		want = tensors.I64
	}
	if v.DType != want {
		return &Error{Tensor: name, Msg: fmt.Sprintf("has dtype %s, not %s", v.DType, want), Hint: "the file is damaged"}
	}
	words := make([]uint64, len(v.Data)/8)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(v.Data[8*i:])
	}
	numbers := func() []float64 {
		x := make([]float64, len(words))
		for i, w := range words {
			x[i] = math.Float64frombits(w)
		}
		return x
	}
	shaped := func(shape ...int) error {
		if !slices.Equal(v.Shape, shape) {
			return &Error{Tensor: name, Msg: fmt.Sprintf("has shape %v, not %v", v.Shape, shape), Hint: "the file is damaged"}
		}
		return nil
	}
	if gain, ok := strings.CutPrefix(stem, gainPrefix); ok && (end == endFrom || end == endTo) {
		g := m.Gains[gain]
		if end == endFrom {
			g.From = numbers()
		} else {
			g.To = numbers()
		}
		m.Gains[gain] = g
		return shaped(len(words))
	}
	g := groups[stem]
	e, has := m.Elements[stem]
	if g == nil || !has {
		return &Error{Tensor: name, Msg: "belongs to no group of the map", Hint: "the file is damaged"}
	}
	switch end {
	case endIndex:
		if err := shaped(g.Size); err != nil {
			return err
		}
		e.Index = make([]int, len(words))
		for i, w := range words {
			if w >= uint64(g.Size) {
				return &Error{Group: g.ID, Tensor: name, Msg: fmt.Sprintf("position %d has %d, and the group has %d features", i, int64(w), g.Size), Hint: "the file is damaged"}
			}
			e.Index[i] = int(w)
		}
	case endScale:
		err, e.Scale = shaped(g.Size), numbers()
	case endMatrix:
		err, e.Matrix = shaped(g.Size, g.Size), numbers()
	case endPlane:
		if err = shaped(g.Size, 2); err == nil {
			x := numbers()
			e.Plane = make([]complex128, g.Size)
			for i := range e.Plane {
				e.Plane[i] = complex(x[2*i], x[2*i+1])
			}
		}
	default:
		err = &Error{Tensor: name, Msg: "is nothing that an alignment has", Hint: "the file is damaged"}
	}
	m.Elements[stem] = e
	return err
}

// regular says whether a matrix is what its kind says: orthogonal, or invertible.
func (e Element) regular(g *symmetry.Group) error {
	switch {
	case e.Matrix == nil:
		return nil
	case e.Kind != symmetry.Orthogonal:
		_, err := inverse(g, e.Matrix)
		return err
	}
	n := g.Size
	q := make([]float32, n*n)
	for i, x := range e.Matrix {
		if math.Abs(x) > 1+orthogonalTolerance {
			return &Error{Group: g.ID, Msg: fmt.Sprintf("its matrix has %v, which no orthogonal one has", x), Hint: "the file is damaged"}
		}
		q[i] = float32(x)
	}
	const rows = 256 // of the product at a time
	out := make([]float32, min(rows, n)*n)
	for r := 0; r < n; r += rows {
		h := min(r+rows, n)
		linalg.Product(out, linalg.Of(q, n, n).Cut(r, h, 0, n), linalg.Of(q, n, n).T(), false, 0)
		for i := r; i < h; i++ {
			for j := range n {
				one := 0.0
				if i == j {
					one = 1
				}
				if !near(float64(out[(i-r)*n+j]), one, orthogonalTolerance) {
					return &Error{Group: g.ID, Msg: fmt.Sprintf("its matrix is not orthogonal: rows %d and %d have the product %v", i, j, out[(i-r)*n+j]), Hint: "the file is damaged"}
				}
			}
		}
	}
	return nil
}
