package sparse

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/tensors"
	files "github.com/mergekit/mergekit/tensors/sparse"
)

// ComposeOptions say how files become one.
type ComposeOptions struct {
	OnOverlap OnOverlap // Sum if empty
	// Base is the checkpoint that the files belong to. It is needed where a difference must be known: of absolute values, where several
	// files change an entry or one has a weight. It may be nil.
	Base    *tensors.Checkpoint
	AnyBase bool // also files for different bases
	Force   bool // replace an existing output
}

// Composed says what Compose wrote.
type Composed struct {
	Output   string  `json:"output"`
	Entries  int64   `json:"entries"`
	Overlap  int64   `json:"overlap"`   // entries that more than one file changes
	Share    float64 `json:"share"`     // of the entries
	Conflict int64   `json:"conflicts"` // of the overlap, where the differences have different signs
	Wholes   int     `json:"replaced_tensors"`
	Delta    bool    `json:"delta"`
	// Left are tensors that a file replaces as a whole and that its weight leaves out.
	Left []string `json:"left_out,omitempty"`
}

// Compose makes one file of several. Where one file alone changes an entry, with a weight of 1, its value is kept bit for bit.
func Compose(out string, parts []Part, o ComposeOptions) (*Composed, error) {
	if o.OnOverlap == "" {
		o.OnOverlap = Sum
	}
	if err := files.CheckOutput(out, o.Force); err != nil {
		return nil, err
	}
	h, err := sameBase(parts, &o)
	if err != nil {
		return nil, err
	}
	r := &Composed{Output: out, Delta: h.Delta}
	var changed []files.Tensor
	var whole []tensors.View
	for _, name := range allNames(parts) {
		for _, p := range parts {
			if _, ok, err := p.File.Whole(name); err != nil {
				return nil, err
			} else if ok && p.Weight != 1 {
				r.Left = append(r.Left, name)
			}
		}
		v, err := wholeOf(parts, name)
		if err != nil {
			return nil, err
		}
		if v != nil {
			whole = append(whole, *v)
			continue
		}
		t, err := compose(parts, name, &o, r)
		if err != nil {
			return nil, err
		}
		if t != nil {
			changed = append(changed, *t)
		}
	}
	r.Wholes = len(whole)
	if r.Entries > 0 {
		r.Share = float64(r.Overlap) / float64(r.Entries)
	}
	h.Meta = map[string]string{"composed_of": fmt.Sprint(len(parts)), "on_overlap": string(o.OnOverlap)}
	return r, files.Write(out, h, changed, whole, o.Force)
}

// compose makes one tensor of the result.
func compose(parts []Part, name string, o *ComposeOptions, r *Composed) (*files.Tensor, error) {
	t := &files.Tensor{Name: name, DType: tensors.F32}
	for _, p := range parts {
		if e, ok := p.File.Entries(name); ok {
			if t.Shape != nil && !slices.Equal(t.Shape, e.Shape) {
				return nil, &tensors.FormatError{File: p.File.Path(), Tensor: name, Msg: fmt.Sprintf("has the shape %v, and another file gives it %v", e.Shape, t.Shape), Hint: "the files are for different models"}
			}
			t.Shape = e.Shape
		}
	}
	list, err := cursors(parts, name, 0, tensors.Info{Shape: t.Shape}.Elems())
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var base []float32 // of the tensor, read when it is needed
	value := func(at int64) (float32, error) {
		if base == nil {
			if o.Base == nil {
				return 0, &tensors.FormatError{File: parts[0].File.Path(), Tensor: name, Msg: fmt.Sprintf("element %d needs the base: these files hold what entries become, and a difference is asked for", at), Hint: "give --base"}
			}
			if base, err = decoded(o.Base, name); err != nil {
				return 0, err
			}
		}
		return base[at], nil
	}
	err = each(list, func(at int64, claims []claim) error {
		r.Entries++
		absolute := slices.ContainsFunc(claims, func(c claim) bool { return !c.part.File.Delta })
		alone := len(claims) == 1 && claims[0].part.Weight == 1 && claims[0].part.File.Delta == r.Delta
		b := float32(0)
		if !alone && (absolute || !r.Delta) {
			if b, err = value(at); err != nil {
				return err
			}
		}
		if len(claims) > 1 {
			r.Overlap++
			if conflicting(claims, b) {
				r.Conflict++
			}
		}
		x := claims[0].value
		switch {
		case alone:
		case r.Delta:
			x = float32(o.OnOverlap.difference(claims, b))
		default:
			x = o.OnOverlap.become(claims, b)
		}
		t.Index, t.Values = append(t.Index, at), append(t.Values, x)
		return nil
	})
	return t, err
}

// conflicting says whether differences have different signs.
func conflicting(claims []claim, base float32) bool {
	up, down := false, false
	for _, c := range claims {
		phi := Sum.difference([]claim{c}, base)
		up, down = up || phi > 0, down || phi < 0
	}
	return up && down
}

// sameBase checks that files belong together and says what their composition is. It holds differences if all of them do.
func sameBase(parts []Part, o *ComposeOptions) (h files.Header, err error) {
	h.Delta = true
	var list []*files.File
	for i, p := range parts {
		f := p.File
		list = append(list, f)
		h.Delta = h.Delta && f.Delta
		switch {
		case i == 0:
			h.Kind, h.Base = f.Kind, f.Base
		case f.Kind != h.Kind:
			h.Kind = files.Difference
		}
		switch {
		case h.Base == "":
			h.Base = f.Base
		case f.Base != "" && f.Base != h.Base && !o.AnyBase:
			return h, &tensors.FormatError{File: f.Path(), Msg: "is a difference from another base than " + parts[0].File.Path(), Hint: "differences from different bases do not add up; use --any-base to add them all the same"}
		case f.Base != "" && f.Base != h.Base:
			h.Base = ""
		}
	}
	if o.Base != nil {
		err = fitAll(list, o.Base, o.AnyBase)
	}
	return h, err
}

// allNames lists what any of the files changes or replaces, sorted.
func allNames(parts []Part) []string {
	var names []string
	for _, p := range parts {
		names = append(append(names, p.File.Names()...), p.File.Wholes()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// decoded reads a tensor of a checkpoint in float32.
func decoded(c *tensors.Checkpoint, name string) ([]float32, error) {
	v, err := c.View(name)
	if err != nil {
		return nil, err
	}
	x := make([]float32, v.Elems())
	if err := tensors.DecodeFloat32(x, v.Data, v.DType); err != nil {
		return nil, &tensors.FormatError{File: c.Path(), Tensor: name, Msg: err.Error()}
	}
	c.Release(name, 0, int64(len(v.Data)))
	return x, nil
}

// OpenAll opens sparse files; the caller closes them.
func OpenAll(paths []string) ([]*files.File, error) {
	var list []*files.File
	for _, path := range paths {
		f, err := files.Open(path)
		if err != nil {
			CloseAll(list)
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
}

// CloseAll closes files.
func CloseAll(list []*files.File) {
	for _, f := range list {
		_ = f.Close()
	}
}

// label names a file for people: by the run that it lies in, where its own name is that of every run.
func label(path string) string {
	stem := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	if dir := filepath.Base(filepath.Dir(path)); stem == "sparse" && dir != "." && dir != string(filepath.Separator) {
		return dir
	}
	return stem
}
