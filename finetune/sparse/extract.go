package sparse

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"

	"github.com/mergekit/mergekit/tensors"
	files "github.com/mergekit/mergekit/tensors/sparse"
)

// ExtractOptions say which part of a fine-tune is kept.
type ExtractOptions struct {
	Count int64   // entries; 0: by Share
	Share float64 // of those that are candidates
	// Exclude are patterns of names, as path.Match has them, of tensors that are left as the base has them.
	Exclude []string
	Force   bool
	// Progress is told of the tensors that are read, three times each. It may be nil.
	Progress func(done, total int)
}

// Extracted says what Extract wrote.
type Extracted struct {
	Output     string `json:"output"`
	Entries    int64  `json:"entries"`
	Candidates int64  `json:"candidates"`
	Differing  int64  `json:"differing"` // candidates that are not the base's
	// Kept is the share of the squared length of the whole difference that the entries hold.
	Kept float64 `json:"kept_of_square"`
}

// Extract keeps the entries of a fine-tune that moved most. Nothing is trained and nothing rewound: the values are those that learnt
// together with all the others, which sparse fine-tuning does not leave it at. The file calls itself a difference and says
// "mask: magnitude".
func Extract(base, tuned *tensors.Checkpoint, out string, o ExtractOptions) (*Extracted, error) {
	if err := files.CheckOutput(out, o.Force); err != nil {
		return nil, err
	}
	names, err := candidates(base, tuned, o.Exclude)
	if err != nil {
		return nil, err
	}
	r := &Extracted{Output: out}
	for _, name := range names {
		info, _ := base.Lookup(name)
		r.Candidates += info.Elems()
	}
	k := o.Count
	if k == 0 {
		k = max(1, int64(math.Round(o.Share*float64(r.Candidates))))
	}
	done, total := 0, 3*len(names)
	read := func(name string, do func([]float32) error) error {
		x, err := decoded(tuned, name)
		if err != nil {
			return err
		}
		b, err := decoded(base, name)
		if err != nil {
			return err
		}
		for i := range x {
			x[i] = float32(math.Abs(float64(x[i] - b[i])))
			if math.IsNaN(float64(x[i])) || math.IsInf(float64(x[i]), 0) {
				return &tensors.FormatError{File: tuned.Path(), Tensor: name, Msg: fmt.Sprintf("differs from the base by %v at element %d, which has no rank", x[i], i), Hint: "leave the tensor out with --exclude, or give another checkpoint"}
			}
		}
		if done++; o.Progress != nil {
			o.Progress(done, total)
		}
		return do(x)
	}
	var all, kept float64
	first := len(names) // tensors of the first pass, which also counts
	chosen, err := Largest(k, names, func(name string, do func([]float32) error) error {
		return read(name, func(x []float32) error {
			if first > 0 {
				first--
				for _, v := range x {
					all += float64(v) * float64(v)
					if v != 0 {
						r.Differing++
					}
				}
			}
			return do(x)
		})
	})
	var few *CountError
	if errors.As(err, &few) {
		return nil, &tensors.FormatError{File: tuned.Path(), Msg: few.Error()}
	} else if err != nil {
		return nil, err
	}
	var changed []files.Tensor
	for _, name := range names {
		list := chosen[name]
		if len(list) == 0 {
			continue
		}
		v, err := tuned.View(name)
		if err != nil {
			return nil, err
		}
		b, err := decoded(base, name)
		if err != nil {
			return nil, err
		}
		x, err := decoded(tuned, name)
		if err != nil {
			return nil, err
		}
		size := int64(v.DType.Size())
		t := files.Tensor{Name: name, Shape: v.Shape, DType: v.DType, Index: list, Raw: make([]byte, 0, size*int64(len(list)))}
		for _, at := range list {
			t.Raw = append(t.Raw, v.Data[at*size:(at+1)*size]...)
			d := float64(x[at] - b[at])
			kept += d * d
		}
		r.Entries += int64(len(list))
		changed = append(changed, t)
	}
	if all > 0 {
		r.Kept = kept / all
	}
	h := files.Header{Kind: files.Difference, Meta: map[string]string{"mask": "magnitude", "count": strconv.FormatInt(k, 10)}}
	if h.Base, err = files.Hash(base); err != nil {
		return nil, err
	}
	return r, files.Write(out, h, changed, nil, o.Force)
}

// candidates lists the tensors that both have and that hold floating-point values, sorted.
func candidates(base, tuned *tensors.Checkpoint, exclude []string) ([]string, error) {
	for _, p := range exclude {
		if _, err := path.Match(p, ""); err != nil {
			return nil, &tensors.FormatError{File: p, Msg: "is no pattern of names", Hint: "use patterns such as *.norm.weight"}
		}
	}
	excluded := func(name string) bool {
		return slices.ContainsFunc(exclude, func(p string) bool { ok, _ := path.Match(p, name); return ok })
	}
	var names []string
	for _, name := range tuned.Names() {
		t, _ := tuned.Lookup(name)
		b, ok := base.Lookup(name)
		switch {
		case excluded(name) || !t.DType.IsFloat() && ok:
		case !ok:
			return nil, &tensors.FormatError{File: tuned.Path(), Tensor: name, Msg: "is in the fine-tune and not in " + base.Path(), Hint: "leave it out with --exclude, or give the base that it was tuned from"}
		case !slices.Equal(t.Shape, b.Shape):
			return nil, &tensors.FormatError{File: tuned.Path(), Tensor: name, Msg: fmt.Sprintf("has the shape %v, and %v in %s", t.Shape, b.Shape, base.Path()), Hint: "leave it out with --exclude, or give the base that it was tuned from"}
		case t.DType.Size() == 0 || b.DType.Size() == 0:
			return nil, &tensors.FormatError{File: tuned.Path(), Tensor: name, Msg: fmt.Sprintf("has values of less than a byte (%s), of which no single ones can be changed", t.DType), Hint: "leave it out with --exclude"}
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
