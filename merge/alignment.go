package merge

import (
	"fmt"
	"slices"
	"sync"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/tensors"
)

// alignment is a map on a model: plan.Alignment, and where the aligned tensors come from.
type alignment struct {
	m     *align.Map
	model *plan.Model
	ready *align.Prepared
	added map[string]string // tensors that the map adds, and what they are made from
	exact bool              // the map only moves values and flips signs
	cache *blockCache
}

// newAlignment gets a map ready for a model. Gains are read here; everything else is read when it is merged.
func newAlignment(m *align.Map, model *plan.Model, cache *blockCache) (*alignment, error) {
	a := &alignment{m: m, model: model, added: m.Untied(), exact: m.Exact(), cache: cache}
	var own align.OwnGains
	if m.AnyTurned() {
		var err error
		if own, err = align.ReadGains(m.Spec, modelWeights{model}); err != nil {
			return nil, fmt.Errorf("%s: %w", model.Name(), err)
		}
	}
	var err error
	if a.ready, err = m.Prepare(own); err != nil {
		return nil, fmt.Errorf("%s: %w", model.Name(), err)
	}
	for _, name := range m.Untied() {
		if _, ok := model.Own(name); !ok {
			return nil, fmt.Errorf("%s: %s: the model does not have this tensor, which its spec says is shared", model.Name(), name)
		}
	}
	return a, nil
}

// Info is a tensor as the merge sees it: floating point tensors are float32 unless the map is exact, so that all of a model meets the
// others with one rounding.
func (a *alignment) Info(name string, own tensors.Info, ok bool) (tensors.Info, bool) {
	if from, is := a.added[name]; is && !ok {
		own, ok = a.model.Own(from)
		own.Name = name
	}
	if ok && own.DType.IsFloat() && !a.exact {
		own.DType = tensors.F32
	}
	return own, ok
}

// Added lists the tensors that the model gets by the map.
func (a *alignment) Added() []string {
	names := make([]string, 0, len(a.added))
	for name := range a.added {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// source is an aligned tensor, computed where it is read.
func (a *alignment) source(name string) (part, error) {
	origin := name
	if _, ok := a.model.Own(name); !ok {
		origin = a.added[name]
	}
	own, _ := a.model.Own(origin)
	inner, err := ownSource(a.model, origin)
	if err != nil {
		return nil, err
	}
	info, _ := a.Info(name, own, true)
	t, err := a.ready.Transform(name, own.Shape)
	if err != nil {
		return nil, err
	}
	if t == nil && info.DType == own.DType {
		return inner, nil
	}
	s := &alignedSource{part: inner, name: name, dtype: info.DType, t: t, cache: a.cache, cols: 1}
	if t == nil {
		return s, nil
	}
	for _, n := range own.Shape[min(1, len(own.Shape)):] {
		s.cols *= int64(n)
	}
	s.rows = t.RowsWithin(a.cache.block())
	return s, nil
}

// alignedSource is a tensor with a map applied: moved bytes in the tensor's own dtype if the map only moves values, else float32.
type alignedSource struct {
	part  // the tensor itself, with what an adapter does to it
	name  string
	dtype tensors.DType
	t     *align.Transform // nil: the values stay and become float32
	cache *blockCache
	cols  int64 // elements of a row
	rows  int   // of a block
}

func (s *alignedSource) DType() tensors.DType { return s.dtype }
func (s *alignedSource) String() string       { return s.part.String() + ", aligned" }

// Bytes computes elements [off, off+n). What costs more than moving is computed in blocks of rows that are kept for a while: methods
// read a tensor several times, in pieces that begin within rows.
func (s *alignedSource) Bytes(off, n int64, scratch []byte) ([]byte, error) {
	if off < 0 || off+n > s.elems() {
		return nil, fmt.Errorf("%s: elements %d to %d are outside the tensor", s, off, off+n)
	}
	size := int64(s.dtype.Size())
	if int64(len(scratch)) < n*size {
		scratch = make([]byte, n*size)
	}
	dst := scratch[:n*size]
	if s.t == nil {
		values := make([]float32, n)
		if err := s.read(values, off); err != nil {
			return nil, err
		}
		return dst, tensors.EncodeFloat32(dst, s.dtype, values)
	}
	if s.dtype == s.part.DType() && s.t.Exact() {
		return dst, s.move(dst, off)
	}
	span := int64(s.rows) * s.cols
	for at := off; at < off+n; {
		k := at / span
		block, err := s.cache.get(blockKey{s, k}, func() ([]byte, error) { return s.compute(int(k)) })
		if err != nil {
			return nil, err
		}
		from := at - k*span
		m := min(off+n-at, span-from)
		if m == n {
			return block[from*size : (from+n)*size], nil
		}
		copy(dst[(at-off)*size:], block[from*size:(from+m)*size])
		at += m
	}
	return dst, nil
}

// move moves the bytes of the rows that hold dst, which begins at element off.
func (s *alignedSource) move(dst []byte, off int64) error {
	if len(dst) == 0 {
		return nil
	}
	row := s.cols * int64(s.dtype.Size())
	begin := off * int64(s.dtype.Size())
	r0, r1 := begin/row, (begin+int64(len(dst))+row-1)/row
	if r0*row == begin && r1*row == begin+int64(len(dst)) {
		return s.t.MoveBytes(dst, s.dtype, int(r0), int(r1), s.readBytes)
	}
	whole := make([]byte, (r1-r0)*row)
	if err := s.t.MoveBytes(whole, s.dtype, int(r0), int(r1), s.readBytes); err != nil {
		return err
	}
	copy(dst, whole[begin-r0*row:])
	return nil
}

// compute makes a block of rows.
func (s *alignedSource) compute(k int) ([]byte, error) {
	total := 1
	if s.cols > 0 && s.elems() > 0 {
		total = int(s.elems() / s.cols)
	}
	r0 := k * s.rows
	r1 := min(total, r0+s.rows)
	values := make([]float32, int64(r1-r0)*s.cols)
	if err := s.t.Rows(values, r0, r1, s.read); err != nil {
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	out := make([]byte, len(values)*s.dtype.Size())
	return out, tensors.EncodeFloat32(out, s.dtype, values)
}

var byteBuffers = sync.Pool{New: func() any { return new([]byte) }}

// read gives the tensor's own values as float32.
func (s *alignedSource) read(dst []float32, off int64) error {
	return readFloat32(s.part, dst, off)
}

// readBytes gives the tensor's own bytes from byte off on.
func (s *alignedSource) readBytes(dst []byte, off int64) error {
	size := int64(s.part.DType().Size())
	b, err := s.part.Bytes(off/size, int64(len(dst))/size, dst)
	if err != nil {
		return err
	}
	copy(dst, b)
	return nil
}

func (s *alignedSource) WillNeed(off, n int64) {
	if s.t == nil {
		s.part.WillNeed(off, n)
	}
}

// Release is called when the tensor is done.
func (s *alignedSource) Release(off, n int64) {
	s.cache.drop(s)
	s.part.Release(off, n)
}

// readPiece is how many elements are decoded at once.
const readPiece = 1 << 20

// readFloat32 reads elements of a source from off on.
func readFloat32(src part, dst []float32, off int64) error {
	buf := byteBuffers.Get().(*[]byte)
	defer byteBuffers.Put(buf)
	size := src.DType().Size()
	for len(dst) > 0 {
		n := min(readPiece, len(dst))
		if cap(*buf) < n*size {
			*buf = make([]byte, n*size)
		}
		b, err := src.Bytes(off, int64(n), (*buf)[:n*size])
		if err != nil {
			return err
		}
		if err := tensors.DecodeFloat32(dst[:n], b, src.DType()); err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
		dst, off = dst[n:], off+int64(n)
	}
	return nil
}

// modelWeights are a model's own tensors, as an adapter leaves them, for matching.
type modelWeights struct{ m *plan.Model }

// Lookup returns a tensor's dtype and shape.
func (w modelWeights) Lookup(name string) (tensors.Info, bool) { return w.m.Own(name) }

// Names lists all tensors.
func (w modelWeights) Names() []string { return w.m.Checkpoint.Names() }

// Read returns a tensor's values.
func (w modelWeights) Read(name string) ([]float32, error) {
	info, ok := w.m.Own(name)
	if !ok {
		return nil, &align.Error{File: w.m.Name(), Tensor: name, Msg: "no such tensor"}
	}
	x := make([]float32, info.Elems())
	return x, w.ReadAt(name, x, 0)
}

// ReadAt reads a part of a tensor.
func (w modelWeights) ReadAt(name string, dst []float32, off int64) error {
	src, err := ownSource(w.m, name)
	if err != nil {
		return err
	}
	if !src.DType().IsFloat() {
		return &align.Error{File: w.m.Name(), Tensor: name, Msg: fmt.Sprintf("has dtype %s and holds no weights", src.DType())}
	}
	return readFloat32(src, dst, off)
}

// renamed are weights under the names that another model gives them.
type renamed struct {
	align.Weights
	names map[string]string // of the other model, to the ones here
}

func (w renamed) own(name string) string {
	if own, ok := w.names[name]; ok {
		return own
	}
	return name
}

// Lookup returns a tensor's dtype and shape.
func (w renamed) Lookup(name string) (tensors.Info, bool) {
	info, ok := w.Weights.Lookup(w.own(name))
	info.Name = name
	return info, ok
}

// Read returns a tensor's values.
func (w renamed) Read(name string) ([]float32, error) { return w.Weights.Read(w.own(name)) }

// ReadAt reads a part of a tensor.
func (w renamed) ReadAt(name string, dst []float32, off int64) error {
	return align.ReadAt(w.Weights, w.own(name), dst, off)
}

// Names lists all tensors: those that have another name here go by the other model's.
func (w renamed) Names() []string {
	var names []string
	taken := map[string]bool{}
	for other, own := range w.names {
		names = append(names, other)
		taken[own] = true
	}
	for _, own := range w.Weights.Names() {
		if _, shadowed := w.names[own]; !taken[own] && !shadowed {
			names = append(names, own)
		}
	}
	slices.Sort(names)
	return names
}
