package graft

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// Tensors are the mask's elements with the fine-tune's values, bit for bit.
func (m *Mask) Tensors() (list []sparse.Tensor) {
	for t, words := range m.words {
		p := &m.s.pairs[t]
		n := 0
		for _, w := range words {
			n += bits.OnesCount64(w)
		}
		if n == 0 {
			continue
		}
		size := int64(p.tuned.DType.Size())
		x := sparse.Tensor{Name: p.name, Shape: p.shape, DType: p.tuned.DType, Index: make([]int64, 0, n), Raw: make([]byte, 0, int64(n)*size)}
		for k, w := range words {
			for ; w != 0; w &= w - 1 {
				at := int64(k)*64 + int64(bits.TrailingZeros64(w))
				x.Index = append(x.Index, at)
				x.Raw = append(x.Raw, p.tuned.Data[at*size:(at+1)*size]...)
			}
		}
		list = append(list, x)
	}
	return list
}

// Wholes are the fine-tune's tensors that patterns choose.
func (s *Space) Wholes(patterns []string) (list []tensors.View, err error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	names := s.tuned.Names()
	slices.Sort(names)
	for _, name := range names {
		if !matches(patterns, name) {
			continue
		}
		v, err := s.tuned.View(name)
		if err != nil {
			return nil, err
		}
		bad := func(format string, args ...any) error {
			return &tensors.FormatError{File: s.tuned.Path(), Tensor: name, Msg: "cannot be taken over whole: " + fmt.Sprintf(format, args...), Hint: "choose other tensors (--whole)"}
		}
		b, ok := s.base.Lookup(name)
		switch {
		case !v.DType.IsFloat():
			continue
		case !ok:
			return nil, bad("the base does not have it")
		case !slices.Equal(b.Shape, v.Shape):
			return nil, bad("it has the shape %v, and %v in the base", v.Shape, b.Shape)
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		return nil, &tensors.FormatError{File: s.tuned.Path(), Msg: fmt.Sprintf("has no tensor to take over whole that %q names", patterns), Hint: "`mergekit inspect` lists the tensors"}
	}
	return list, nil
}
