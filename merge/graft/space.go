package graft

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/tensors"
)

// Space is what a mask ranges over.
type Space struct {
	Total int64 // elements
	Moved int64 // elements in which base and fine-tune differ, known after the first ranking
	Notes []string

	base, tuned *tensors.Checkpoint
	pairs       []pair
	at          map[string]int // place in pairs
	threads     int
}

// pair is a tensor of the space.
type pair struct {
	name        string
	shape       []int
	n           int64
	base, tuned tensors.View
	raw         bool // both have one dtype, so that bits tell whether an element differs
}

// NewSpace lists the tensors over which masks range, in the order of names, in which ties are broken. exclude is as merge method graft
// has it; whole are patterns of tensors that are not masked but taken over.
func NewSpace(base, tuned *tensors.Checkpoint, exclude string, whole []string, threads int) (*Space, error) {
	if err := method.CheckExclude(exclude); err != nil {
		return nil, &tensors.FormatError{Msg: err.Error()}
	}
	s := &Space{base: base, tuned: tuned, at: map[string]int{}, threads: max(threads, 1)}
	names := base.Names()
	slices.Sort(names)
	for _, name := range names {
		b, _ := base.Lookup(name)
		t, ok := tuned.Lookup(name)
		bad := func(format string, args ...any) error {
			return &tensors.FormatError{File: tuned.Path(), Tensor: name, Msg: fmt.Sprintf(format, args...), Hint: "a graft needs a base and a fine-tune of it"}
		}
		switch {
		case matches(whole, name), !b.DType.IsFloat():
			continue
		case method.Excludes(exclude, name, plan.Table(name, b.Shape)):
			continue
		case !ok:
			return nil, bad("is in %s, but not in the fine-tune", base.Path())
		case !t.DType.IsFloat():
			return nil, bad("holds %s in the fine-tune", t.DType)
		case !slices.Equal(b.Shape, t.Shape):
			return nil, bad("has the shape %v, and %v in %s", t.Shape, b.Shape, base.Path())
		}
		p := pair{name: name, shape: b.Shape, n: b.Elems(), raw: b.DType == t.DType}
		var err error
		if p.base, err = base.View(name); err != nil {
			return nil, err
		}
		if p.tuned, err = tuned.View(name); err != nil {
			return nil, err
		}
		s.at[name] = len(s.pairs)
		s.pairs = append(s.pairs, p)
		s.Total += p.n
	}
	if s.Total == 0 {
		return nil, &tensors.FormatError{File: base.Path(), Msg: "has no tensor that a mask could range over", Hint: "exclude less (--exclude)"}
	}
	return s, s.others(whole)
}

// others notes what of the fine-tune a graft leaves behind.
func (s *Space) others(whole []string) error {
	var added []string
	for _, name := range s.tuned.Names() {
		if _, ok := s.base.Lookup(name); !ok && !matches(whole, name) {
			added = append(added, name)
		}
	}
	if len(added) > 0 {
		slices.Sort(added)
		s.Notes = append(s.Notes, fmt.Sprintf("%d tensors of the fine-tune are not in the base and stay behind: %s", len(added), strings.Join(added[:min(3, len(added))], ", ")))
	}
	return nil
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return method.Excludes(p, name, false) })
}

// chunk is how many elements are read at a time.
const chunk = 64 << 10

// read decodes elements of a pair from off on; either may be nil.
func (p *pair) read(base, tuned []float32, off int64) error {
	for _, x := range []struct {
		dst []float32
		v   *tensors.View
	}{{base, &p.base}, {tuned, &p.tuned}} {
		if x.dst == nil {
			continue
		}
		size := int64(x.v.DType.Size())
		if err := tensors.DecodeFloat32(x.dst, x.v.Data[off*size:(off+int64(len(x.dst)))*size], x.v.DType); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// differs tells whether element i is another one in the fine-tune, by its bits where both have one dtype.
func (p *pair) differs(i int64, base, tuned float32) bool {
	if p.raw {
		size := int64(p.base.DType.Size())
		return !bytes.Equal(p.base.Data[i*size:(i+1)*size], p.tuned.Data[i*size:(i+1)*size])
	}
	return math.Float32bits(base) != math.Float32bits(tuned)
}

// magnitude is the key by which an element ranks: the bits of |tuned - base|, 0 only for elements that do not differ.
func (p *pair) magnitude(i int64, base, tuned float32) uint32 {
	key := math.Float32bits(tuned-base) &^ (1 << 31)
	if key == 0 && p.differs(i, base, tuned) {
		return 1
	}
	return key
}

// infinite is the key from which on a difference is no number.
const infinite = 0x7f800000
