package soup

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/tensors"
)

// Ingredient is a model of a soup. All ingredients have the same tensors under the same names.
type Ingredient struct {
	Name    string
	Weights align.Weights
}

// Set are ingredients that can be mixed.
type Set struct {
	List []Ingredient
	// Tensors are what a mix consists of: names, shapes, and the dtypes in which it will be stored.
	Tensors []tensors.Info
	at      map[string]int
}

// NewSet looks at every ingredient's tensors.
func NewSet(list []Ingredient, infos []tensors.Info) (*Set, error) {
	s := &Set{List: list, Tensors: infos, at: map[string]int{}}
	for i, t := range infos {
		s.at[t.Name] = i
		for _, g := range list {
			have, ok := g.Weights.Lookup(t.Name)
			if !ok {
				return nil, &align.Error{File: g.Name, Tensor: t.Name, Msg: "no such tensor"}
			}
			if have.Elems() < t.Elems() { // a vocabulary that is narrowed is the first rows of a longer one
				return nil, &align.Error{File: g.Name, Tensor: t.Name, Msg: fmt.Sprintf("has shape %v, the soup's is %v", have.Shape, t.Shape)}
			}
		}
	}
	return s, nil
}

// Share is how much of each ingredient a tensor of a mix has. The sum of shares times tensors is divided by Over, so that counts of
// copies stay whole numbers.
type Share struct {
	Of   []float64
	Over float64
}

// Mix is a sum of ingredients. It implements align.Weights.
type Mix struct {
	set   *Set
	share func(tensor string) Share
	exact bool
}

// Mix makes a mix. With exact its values are what float32 makes of them; else they are rounded to the dtypes in which they are stored,
// so that what is measured is what will be written.
func (s *Set) Mix(share func(tensor string) Share, exact bool) *Mix { return &Mix{s, share, exact} }

// Lookup implements align.Weights. A mix is float32.
func (m *Mix) Lookup(name string) (tensors.Info, bool) {
	i, ok := m.set.at[name]
	if !ok {
		return tensors.Info{}, false
	}
	return tensors.Info{Name: name, DType: tensors.F32, Shape: m.set.Tensors[i].Shape}, true
}

// Names implements align.Weights.
func (m *Mix) Names() []string {
	names := make([]string, len(m.set.Tensors))
	for i, t := range m.set.Tensors {
		names[i] = t.Name
	}
	slices.Sort(names)
	return names
}

// Read implements align.Weights.
func (m *Mix) Read(name string) ([]float32, error) {
	info, ok := m.Lookup(name)
	if !ok {
		return nil, &align.Error{Tensor: name, Msg: "no such tensor"}
	}
	x := make([]float32, info.Elems())
	return x, m.ReadAt(name, x, 0)
}

// pieceElems is how much of a tensor is summed at a time.
const pieceElems = 1 << 16

// ReadAt computes elements of a tensor from off on. Sums are float64, in the order of the ingredients, and rounded once.
func (m *Mix) ReadAt(name string, dst []float32, off int64) error {
	i, ok := m.set.at[name]
	if !ok {
		return &align.Error{Tensor: name, Msg: "no such tensor"}
	}
	info, share := m.set.Tensors[i], m.share(name)
	if off < 0 || off > info.Elems()-int64(len(dst)) {
		return fmt.Errorf("%s: elements %d to %d are outside of the tensor", name, off, off+int64(len(dst)))
	}
	pieces := (len(dst) + pieceElems - 1) / pieceElems
	return parallel(pieces, func() func(k int) error {
		n := min(len(dst), pieceElems)
		sum, part := make([]float64, n), make([]float32, n)
		var stored []byte
		if !m.exact && info.DType != tensors.F32 && info.DType != tensors.F64 {
			stored = make([]byte, n*info.DType.Size())
		}
		return func(k int) error {
			from := k * pieceElems
			return m.piece(info, share, dst[from:min(from+pieceElems, len(dst))], off+int64(from), sum, part, stored)
		}
	})
}

// piece computes elements of a tensor, few enough for the buffers.
func (m *Mix) piece(info tensors.Info, share Share, dst []float32, off int64, sum []float64, part []float32, stored []byte) error {
	n := len(dst)
	sum, part = sum[:n], part[:n]
	clear(sum)
	for k, f := range share.Of {
		if f == 0 {
			continue
		}
		if err := align.ReadAt(m.set.List[k].Weights, info.Name, part, off); err != nil {
			return err
		}
		for e, x := range part {
			sum[e] += f * float64(x)
		}
	}
	for e := range dst {
		dst[e] = float32(sum[e] / share.Over)
	}
	if stored == nil {
		return nil
	}
	b := stored[:n*info.DType.Size()]
	if err := tensors.EncodeFloat32(b, info.DType, dst); err != nil {
		return fmt.Errorf("%s: %w", info.Name, err)
	}
	if err := tensors.DecodeFloat32(dst, b, info.DType); err != nil {
		return fmt.Errorf("%s: %w", info.Name, err)
	}
	return nil
}

// Counted is the mean of ingredients, each counted so many times, as it will be stored.
func (s *Set) Counted(counts []int) *Mix {
	share := CountShare(counts)
	return s.Mix(func(string) Share { return share }, false)
}
