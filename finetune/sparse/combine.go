package sparse

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/internal/strictyaml"
	"github.com/mergekit/mergekit/tensors"
	files "github.com/mergekit/mergekit/tensors/sparse"
)

// OnOverlap says what becomes of an entry that several files change. The differences phi are already multiplied by their weights. It is
// what the merge method compose_sparse calls on_overlap.
type OnOverlap string

// The ways.
const (
	Sum       OnOverlap = "sum"        // as the paper has it
	Mean      OnOverlap = "mean"       // over the files that change the entry
	SignElect OnOverlap = "sign_elect" // the sum of those that have the sign of the sum of all (Yadav et al., 2023, "TIES-merging")
)

// ParseOnOverlap reads a way by its name.
func ParseOnOverlap(text string) (OnOverlap, error) {
	all := []string{string(Sum), string(Mean), string(SignElect)}
	if !slices.Contains(all, text) {
		return "", fmt.Errorf("%q is no way to treat overlaps; it is one of %s", text, strictyaml.Listed(all))
	}
	return OnOverlap(text), nil
}

// Part is a sparse file with the factor of its differences. The zero weight is a weight of 0.
type Part struct {
	File   *files.File
	Weight float64
}

// Parts are files with a factor of 1.
func Parts(list []*files.File) []Part {
	out := make([]Part, len(list))
	for i, f := range list {
		out[i] = Part{f, 1}
	}
	return out
}

// cursor walks entries of a tensor in one file.
type cursor struct {
	part    Part
	entries *files.Entries
	values  []float32 // from entry first on
	first   int
	i, end  int
}

// cursors opens elements lo to hi of a tensor in all files that change them.
func cursors(parts []Part, name string, lo, hi int64) ([]cursor, error) {
	var list []cursor
	for _, p := range parts {
		e, ok := p.File.Entries(name)
		if !ok {
			continue
		}
		c := cursor{part: p, entries: e, i: e.Search(lo), end: e.Search(hi)}
		if c.i == c.end {
			continue
		}
		c.first, c.values = c.i, make([]float32, c.end-c.i)
		if err := e.Read(c.values, c.i); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// claim is what a file says of an entry.
type claim struct {
	part  *Part
	value float32
	raw   []byte // the same as the file has it
	dtype tensors.DType
}

// each walks the places that any of the cursors is at, ascending.
func each(list []cursor, do func(at int64, claims []claim) error) error {
	claims := make([]claim, 0, len(list))
	for {
		at := int64(-1)
		for k := range list {
			if c := &list[k]; c.i < c.end {
				if here := c.entries.At(c.i); at < 0 || here < at {
					at = here
				}
			}
		}
		if at < 0 {
			return nil
		}
		claims = claims[:0]
		for k := range list {
			if c := &list[k]; c.i < c.end && c.entries.At(c.i) == at {
				claims = append(claims, claim{&c.part, c.values[c.i-c.first], c.entries.Raw(c.i, c.i+1), c.entries.DType})
				c.i++
			}
		}
		if err := do(at, claims); err != nil {
			return err
		}
	}
}

// difference is what the claims add to a base that is base, in float64.
func (way OnOverlap) difference(claims []claim, base float32) float64 {
	phi := func(c claim) float64 {
		if c.part.File.Delta {
			return c.part.Weight * float64(c.value)
		}
		return c.part.Weight * (float64(c.value) - float64(base))
	}
	sum := 0.0
	for _, c := range claims {
		sum += phi(c)
	}
	switch way {
	case Mean:
		return sum / float64(len(claims))
	case SignElect:
		elected := 0.0
		for _, c := range claims {
			if p := phi(c); p*sum > 0 {
				elected += p
			}
		}
		return elected
	}
	return sum
}

// become is what an entry of a base becomes. Where one file alone claims it, whole and with absolute values, that is the file's value
// bit for bit.
func (way OnOverlap) become(claims []claim, base float32) float32 {
	if c := claims[0]; len(claims) == 1 && c.part.Weight == 1 && !c.part.File.Delta {
		return c.value
	}
	return float32(float64(base) + way.difference(claims, base))
}

// Add adds sparse files to a tensor of their base, in place: dst holds all of it. A file that replaces the tensor as a whole wins, if
// it is the only one.
func Add(dst []float32, name string, list []*files.File, way OnOverlap) error {
	return add(dst, name, Parts(list), way)
}

func add(dst []float32, name string, parts []Part, way OnOverlap) error {
	whole, err := wholeOf(parts, name)
	if err != nil {
		return err
	}
	if whole != nil {
		return tensors.DecodeFloat32(dst, whole.Data, whole.DType)
	}
	list, err := cursors(parts, name, 0, int64(len(dst)))
	if err != nil {
		return err
	}
	return each(list, func(at int64, claims []claim) error {
		dst[at] = way.become(claims, dst[at])
		return nil
	})
}

// wholeOf is what a tensor is replaced by, nil if no file replaces it. A file with another weight than 1 replaces nothing: there is no
// part of a replacement, and none to take away.
func wholeOf(parts []Part, name string) (*tensors.View, error) {
	var found *tensors.View
	var from string
	for _, p := range parts {
		v, ok, err := p.File.Whole(name)
		if err != nil {
			return nil, err
		}
		_, places := p.File.Entries(name)
		ok = ok && p.Weight == 1
		if !ok && !places {
			continue
		}
		if found != nil || (ok && from != "") {
			return nil, &tensors.FormatError{File: p.File.Path(), Tensor: name, Msg: "is replaced as a whole by one file and changed by another, " + from, Hint: "use one of the two, such as the task's, whose head it is"}
		}
		from = p.File.Path()
		if ok {
			found = &v
		}
	}
	return found, nil
}

// Fits checks that files belong to the shapes of a checkpoint, and to it by content where they name it.
func Fits(list []*files.File, base *tensors.Checkpoint) error { return fitAll(list, base, false) }

// fitAll is Fits; anyBase leaves the content out.
func fitAll(list []*files.File, base *tensors.Checkpoint, anyBase bool) error {
	hash := ""
	for _, f := range list {
		if f.Base != "" && !anyBase {
			if hash == "" {
				var err error
				if hash, err = files.Hash(base); err != nil {
					return err
				}
			}
			if f.Base != hash {
				return &tensors.FormatError{File: f.Path(), Msg: fmt.Sprintf("is a difference from another base: it names one with the content %.12s, %s has %.12s", f.Base, base.Path(), hash), Hint: "give the base that it was trained from, or --any-base to use it here all the same"}
			}
		}
		if err := fits(f, base); err != nil {
			return err
		}
	}
	return nil
}

// fits checks names and shapes.
func fits(f *files.File, base *tensors.Checkpoint) error {
	bad := func(name, format string, args ...any) error {
		return &tensors.FormatError{File: f.Path(), Tensor: name, Msg: fmt.Sprintf(format, args...), Hint: "the file belongs to another model"}
	}
	for _, name := range slices.Concat(f.Names(), f.Wholes()) {
		info, ok := base.Lookup(name)
		if !ok {
			return bad(name, "is changed by the file, and %s does not have it", base.Path())
		}
		shape := []int(nil)
		if e, ok := f.Entries(name); ok {
			shape = e.Shape
		} else if v, _, err := f.Whole(name); err == nil {
			shape = v.Shape
		}
		if !slices.Equal(shape, info.Shape) {
			return bad(name, "has the shape %v in the file and %v in %s", shape, info.Shape, base.Path())
		}
		if !info.DType.IsFloat() {
			return bad(name, "holds %s in %s, which are no floating-point values", info.DType, base.Path())
		}
	}
	return nil
}
