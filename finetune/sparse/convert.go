package sparse

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/pickle"
	files "github.com/mergekit/mergekit/tensors/sparse"
)

// torchName is the file in which composable-sft keeps a sparse fine-tune.
const torchName = "pytorch_diff.bin"

// Converted says what a conversion wrote.
type Converted struct {
	Output  string   `json:"output"`
	Entries int64    `json:"entries"`
	Tensors int      `json:"tensors"`
	Wholes  []string `json:"replaced_tensors,omitempty"`
}

// FromTorch converts a sparse fine-tune of composable-sft: pytorch_diff.bin, or the directory that it lies in. The places in it count
// with the first axis running fastest and are written as steps; read in 64 bits, also where composable-sft itself would overflow. The
// result holds differences, as the file does, since it does not know its base.
func FromTorch(path, out string, force bool) (*Converted, error) {
	if err := files.CheckOutput(out, force); err != nil {
		return nil, err
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, torchName)
	}
	f, err := pickle.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r := &torchReader{path: path, taken: map[string]bool{}}
	if err := r.read(f.Root()); err != nil {
		return nil, err
	}
	c := &Converted{Output: out, Tensors: len(r.changed)}
	for _, t := range r.changed {
		c.Entries += int64(len(t.Index))
	}
	for _, v := range r.whole {
		c.Wholes = append(c.Wholes, v.Name)
	}
	h := files.Header{Kind: files.LTSFT, Delta: true, Meta: map[string]string{"converted_from": "composable-sft"}}
	return c, files.Write(out, h, r.changed, r.whole, force)
}

type torchReader struct {
	path    string
	taken   map[string]bool
	changed []files.Tensor
	whole   []tensors.View
}

func (r *torchReader) bad(name, format string, args ...any) error {
	return &tensors.FormatError{File: r.path, Tensor: name, Msg: fmt.Sprintf(format, args...), Hint: "give a pytorch_diff.bin that composable-sft wrote"}
}

func (r *torchReader) read(root any) error {
	top, ok := root.(*pickle.Dict)
	if !ok || top.Values["diffs"] == nil && top.Values["abs"] == nil {
		return r.bad("", "has neither diffs nor abs")
	}
	if v := top.Values["diffs"]; v != nil {
		diffs, ok := v.(*pickle.Dict)
		if !ok {
			return r.bad("", "has diffs that are no dictionary")
		}
		for _, name := range diffs.Keys {
			if err := r.difference(name, diffs.Values[name]); err != nil {
				return err
			}
		}
	}
	if v := top.Values["abs"]; v != nil {
		abs, ok := v.(*pickle.Dict)
		if !ok {
			return r.bad("", "has abs that is no dictionary")
		}
		for _, name := range abs.Keys {
			t, ok := abs.Values[name].(*pickle.Tensor)
			switch {
			case !ok:
				return r.bad(name, "is to be a tensor, and is something else")
			case r.taken[name]:
				return r.bad(name, "is both changed in places and replaced as a whole")
			}
			data, err := t.Data()
			if err != nil {
				return err
			}
			r.whole = append(r.whole, tensors.View{Info: tensors.Info{Name: name, DType: t.DType, Shape: t.Shape}, Data: data})
		}
	}
	slices.SortFunc(r.changed, func(a, b files.Tensor) int { return natural(a.Name, b.Name) })
	return nil
}

// difference reads {size, index_steps, values}.
func (r *torchReader) difference(name string, v any) error {
	d, ok := v.(*pickle.Dict)
	if !ok {
		return r.bad(name, "is to be a dictionary of size, index_steps and values")
	}
	size, ok1 := d.Values["size"].(pickle.Tuple)
	steps, ok2 := d.Values["index_steps"].(*pickle.List)
	values, ok3 := d.Values["values"].(*pickle.Tensor)
	if !ok1 || !ok2 || !ok3 || steps.Items != nil || len(values.Shape) != 1 || values.Shape[0] != steps.Len() {
		return r.bad(name, "has no size, index_steps and values that belong together")
	}
	r.taken[name] = true
	t := files.Tensor{Name: name, DType: values.DType, Shape: make([]int, len(size))}
	for i, x := range size {
		n, ok := x.(int64)
		if !ok || n < 0 || int64(int(n)) != n {
			return r.bad(name, "has the impossible size %v", size)
		}
		t.Shape[i] = int(n)
	}
	elems := tensors.Info{Shape: t.Shape}.Elems()
	if elems < 0 || !values.DType.IsFloat() || values.DType.Size() == 0 {
		return r.bad(name, "has the size %v and values of dtype %s", size, values.DType)
	}
	data, err := values.Data()
	if err != nil {
		return err
	}
	order := make([]int, steps.Len())
	t.Index = make([]int64, steps.Len())
	at := int64(0)
	for i, step := range steps.Ints {
		if at += step; step < 0 || i > 0 && step == 0 || at >= elems || at < 0 {
			return r.bad(name, "has a place outside of the %d elements, or one twice", elems)
		}
		t.Index[i], order[i] = rowMajor(at, t.Shape), i
	}
	slices.SortFunc(order, func(a, b int) int { return int(min(max(t.Index[a]-t.Index[b], -1), 1)) })
	width := t.DType.Size()
	sorted := make([]int64, len(order))
	for i, k := range order {
		sorted[i] = t.Index[k]
		t.Raw = append(t.Raw, data[k*width:(k+1)*width]...)
	}
	t.Index = sorted
	if t.Raw == nil {
		t.Raw = []byte{}
	}
	r.changed = append(r.changed, t)
	return nil
}

// rowMajor turns a place that counts with the first axis fastest into one that counts with the last.
func rowMajor(at int64, shape []int) int64 {
	flat := int64(0)
	step := tensors.Info{Shape: shape}.Elems()
	for _, n := range shape {
		step /= int64(n)
		flat += at % int64(n) * step
		at /= int64(n)
	}
	return flat
}

// firstFastest is the other way round.
func firstFastest(at int64, shape []int) int64 {
	out, step := int64(0), tensors.Info{Shape: shape}.Elems()
	for k := len(shape) - 1; k >= 0; k-- {
		n := int64(shape[k])
		step /= n
		out += at % n * step
		at /= n
	}
	return out
}

// ToTorch writes a sparse file as composable-sft reads it, with differences: of a file that holds what entries become, those from base,
// which may be nil otherwise.
func ToTorch(path, out string, base *tensors.Checkpoint, force bool) (*Converted, error) {
	if st, err := os.Stat(out); err == nil && (st.IsDir() || !force) {
		return nil, &tensors.FormatError{File: out, Msg: "exists", Hint: "use --force to replace a file, or choose another name"}
	}
	f, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if base == nil && !f.Delta {
		return nil, &tensors.FormatError{File: path, Msg: "holds what entries become, and composable-sft keeps differences", Hint: "give --base"}
	}
	if base != nil {
		if err := Fits([]*files.File{f}, base); err != nil {
			return nil, err
		}
	}
	c := &Converted{Output: out}
	diffs, abs := &pickle.Dict{Values: map[string]any{}}, &pickle.Dict{Values: map[string]any{}}
	for _, name := range f.Names() {
		t, _, err := f.Tensor(name)
		if err != nil {
			return nil, err
		}
		var b []float32
		if !f.Delta {
			if b, err = decoded(base, name); err != nil {
				return nil, err
			}
		}
		d, err := encode(t, b)
		if err != nil {
			return nil, err
		}
		diffs.Keys, diffs.Values[name] = append(diffs.Keys, name), d
		c.Entries += int64(len(t.Index))
		c.Tensors++
	}
	for _, name := range f.Wholes() {
		v, _, err := f.Whole(name)
		if err != nil {
			return nil, err
		}
		abs.Keys, abs.Values[name] = append(abs.Keys, name), v
		c.Wholes = append(c.Wholes, name)
	}
	return c, pickle.Write(out, &pickle.Dict{Keys: []string{"diffs", "abs"}, Values: map[string]any{"diffs": diffs, "abs": abs}})
}

// encode writes {size, index_steps, values} of differences in float32.
func encode(t *files.Tensor, base []float32) (*pickle.Dict, error) {
	size := make(pickle.Tuple, len(t.Shape))
	for i, n := range t.Shape {
		size[i] = int64(n)
	}
	place := make([]int64, len(t.Index))
	order := make([]int, len(t.Index))
	for i, at := range t.Index {
		place[i], order[i] = firstFastest(at, t.Shape), i
	}
	slices.SortFunc(order, func(a, b int) int { return int(min(max(place[a]-place[b], -1), 1)) })
	steps := &pickle.List{Ints: make([]int64, len(order))}
	values := make([]float32, len(order))
	last := int64(0)
	for i, k := range order {
		steps.Ints[i], last = place[k]-last, place[k]
		if values[i] = t.Values[k]; base != nil {
			values[i] -= base[t.Index[k]]
		}
	}
	raw := make([]byte, 4*len(values))
	if err := tensors.EncodeFloat32(raw, tensors.F32, values); err != nil {
		return nil, err
	}
	v := tensors.View{Info: tensors.Info{Name: t.Name, DType: tensors.F32, Shape: []int{len(values)}}, Data: raw}
	return &pickle.Dict{Keys: []string{"size", "index_steps", "values"}, Values: map[string]any{"size": size, "index_steps": steps, "values": v}}, nil
}
