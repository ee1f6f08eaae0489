package merge

import (
	"fmt"
	"sort"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// fileSource is a tensor of a checkpoint: mapped, or made by a source where it is read.
type fileSource struct {
	model *plan.Model
	r     *tensors.Reader
}

// newSource makes a task's input: one tensor, or several read as one.
func newSource(in plan.Input) (stream.Source, error) {
	var parts []part
	for k := range in.Pieces {
		p, err := inputSource(in, k)
		if err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	if len(parts) == 1 {
		return parts[0], nil
	}
	j := &joinedSource{parts: parts, starts: make([]int64, len(parts)+1)}
	for i, p := range parts {
		j.starts[i+1] = j.starts[i] + p.elems()
	}
	return j, nil
}

// inputSource is a piece of an input as the merge reads it.
func inputSource(in plan.Input, k int) (part, error) {
	if in.Gather != nil {
		return newGathered(in.Gather)
	}
	return modelSource(in.Model, in.Pieces[k])
}

// piece is one of the tensors that make up an input.
type piece struct {
	in *plan.Input // of the plan: a soup of many models has very many pieces
	k  int
}

// name is what the model calls it.
func (p piece) name() string { return p.in.Pieces[p.k] }

func (p piece) source() (part, error) { return inputSource(*p.in, p.k) }

// modelSource is a tensor of a model in the coordinates of the merge.
func modelSource(m *plan.Model, name string) (part, error) {
	if a, ok := m.Alignment.(interface {
		source(name string) (part, error)
	}); ok {
		return a.source(name)
	}
	return ownSource(m, name)
}

// ownSource is a tensor of a model as an adapter leaves it, before any alignment.
func ownSource(m *plan.Model, name string) (part, error) {
	r, err := m.Checkpoint.Reader(name)
	if err != nil {
		return nil, err
	}
	file := &fileSource{m, r}
	if m.Adapter == nil {
		return file, nil
	}
	if d, ok := m.Adapter.Delta(name); ok {
		info, _ := m.Own(name)
		return &fusedSource{file, d, info.Elems()}, nil
	}
	return file, nil
}

func (s *fileSource) elems() int64         { return s.r.Elems() }
func (s *fileSource) DType() tensors.DType { return s.r.DType }
func (s *fileSource) String() string       { return s.r.Name + " of " + s.model.Name() }

func (s *fileSource) Bytes(off, n int64, scratch []byte) ([]byte, error) {
	if off < 0 || n < 0 || off+n > s.elems() {
		return nil, fmt.Errorf("%s: elements %d to %d are outside the tensor", s, off, off+n)
	}
	size := int64(s.r.DType.Size())
	return s.r.Bytes(off*size, n*size, scratch)
}

func (s *fileSource) WillNeed(off, n int64) {
	size := int64(s.r.DType.Size())
	s.r.WillNeed(off*size, n*size)
}

func (s *fileSource) Release(off, n int64) {
	size := int64(s.r.DType.Size())
	s.r.Release(off*size, n*size)
}

// joinedSource reads several tensors as one, in order.
type joinedSource struct {
	parts  []part
	starts []int64 // first element of each part, and the total
}

func (s *joinedSource) DType() tensors.DType { return s.parts[0].DType() }
func (s *joinedSource) String() string {
	return fmt.Sprintf("%s and %d more", s.parts[0], len(s.parts)-1)
}

// find returns the part that holds element off.
func (s *joinedSource) find(off int64) int {
	return sort.Search(len(s.parts)-1, func(i int) bool { return s.starts[i+1] > off })
}

func (s *joinedSource) Bytes(off, n int64, scratch []byte) ([]byte, error) {
	i := s.find(off)
	if off+n <= s.starts[i+1] {
		return s.parts[i].Bytes(off-s.starts[i], n, scratch)
	}
	size := int64(s.DType().Size())
	at := int64(0) // in scratch
	for ; n > 0; i++ {
		m := min(n, s.starts[i+1]-off)
		// A part that computes its bytes puts them where they are to be; the copy then moves nothing.
		b, err := s.parts[i].Bytes(off-s.starts[i], m, scratch[at:])
		if err != nil {
			return nil, err
		}
		copy(scratch[at:], b)
		at, off, n = at+m*size, off+m, n-m
	}
	return scratch[:at], nil
}

func (s *joinedSource) each(off, n int64, do func(p part, off, n int64)) {
	n = min(n, s.starts[len(s.parts)]-off)
	for i := s.find(off); n > 0; i++ {
		m := min(n, s.starts[i+1]-off)
		do(s.parts[i], off-s.starts[i], m)
		off, n = off+m, n-m
	}
}

func (s *joinedSource) WillNeed(off, n int64) { s.each(off, n, part.WillNeed) }
func (s *joinedSource) Release(off, n int64)  { s.each(off, n, part.Release) }

// sink writes a task's output into its pieces.
type sink struct {
	w      *tensors.Writer
	first  int
	starts []int64 // first byte of each piece, and the total
}

func newSink(w *tensors.Writer, first int, pieces []tensors.Info) *sink {
	s := &sink{w: w, first: first, starts: make([]int64, len(pieces)+1)}
	for i, p := range pieces {
		s.starts[i+1] = s.starts[i] + p.Bytes()
	}
	return s
}

// WriteAt writes p at byte off of the output tensor.
func (s *sink) WriteAt(p []byte, off int64) error {
	i := sort.Search(len(s.starts)-2, func(i int) bool { return s.starts[i+1] > off })
	for len(p) > 0 {
		n := min(int64(len(p)), s.starts[i+1]-off)
		if err := s.w.WriteAt(s.first+i, p[:n], off-s.starts[i]); err != nil {
			return err
		}
		p, off, i = p[n:], off+n, i+1
	}
	return nil
}
