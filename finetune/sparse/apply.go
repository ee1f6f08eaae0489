package sparse

import (
	"bytes"
	"context"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/tensors"
	files "github.com/mergekit/mergekit/tensors/sparse"
)

// ApplyOptions say how files are added to a checkpoint.
type ApplyOptions struct {
	OnOverlap OnOverlap // Sum if empty
	// Origin is the checkpoint from which the files are differences, where that is not the one that they are added to: files are taken
	// away from, or added to, what was made of it. nil: it is.
	Origin     *tensors.Checkpoint
	AnyBase    bool
	Force      bool
	Threads    int
	ShardBytes int64 // 0: the writer's; negative: one file
	Started    func(total int64)
	Written    func(n int64)
}

// Applied says what Apply wrote.
type Applied struct {
	Output  string   `json:"output"`
	Tensors int      `json:"tensors"`
	Changed int      `json:"changed_tensors"`
	Entries int64    `json:"entries"`
	Bytes   int64    `json:"bytes"`
	Left    []string `json:"left_out,omitempty"` // tensors that a file replaces as a whole and that its weight leaves out
}

// Apply writes a checkpoint with sparse files added, in its dtypes, with the files beside it. What no file changes keeps its bytes. A
// weight of -1 takes a file away: where that finds the very value of the file, the origin's comes back bit for bit.
func Apply(ctx context.Context, dir, out string, parts []Part, o ApplyOptions) (*Applied, error) {
	if o.OnOverlap == "" {
		o.OnOverlap = Sum
	}
	if tensors.Holds(out, dir) {
		return nil, &tensors.FormatError{File: out, Msg: "the output is the directory of the checkpoint, or holds it", Hint: "choose another output directory"}
	}
	c, err := checkpoint.Open(dir)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	origin := o.Origin
	if origin != nil && tensors.Holds(out, origin.Path()) {
		return nil, &tensors.FormatError{File: out, Msg: "the output is the directory of the base, or holds it", Hint: "choose another output directory"}
	}
	if origin == nil {
		origin = c
	}
	var list []*files.File
	for _, p := range parts {
		list = append(list, p.File)
	}
	if err := fitAll(list, origin, o.AnyBase); err != nil {
		return nil, err
	}
	if origin != c {
		if err := fitAll(list, c, true); err != nil {
			return nil, err
		}
	}
	a := &application{parts: parts, way: o.OnOverlap, to: c, origin: origin}
	if err := a.plan(); err != nil {
		return nil, err
	}
	copied, err := adapter.SideFiles(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range copied {
		names = append(names, name)
	}
	w, err := tensors.Create(out, a.infos, tensors.WriteOptions{ShardBytes: o.ShardBytes, Force: o.Force, Files: names, Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Discard() }()
	err = w.Fill(ctx, tensors.Filling{Threads: o.Threads, Started: o.Started, Written: o.Written, Cut: a.cut,
		Worker: func() func(i int, lo, hi int64) (int64, error) {
			return func(i int, lo, hi int64) (int64, error) { return a.piece(w, i, lo, hi) }
		}})
	if err != nil {
		return nil, err
	}
	for name, path := range copied {
		if err := checkpoint.CopyFile(w, name, path); err != nil {
			return nil, err
		}
	}
	r := &Applied{Output: out, Tensors: len(a.infos), Changed: len(a.changed), Entries: a.entries, Bytes: a.bytes, Left: a.left}
	return r, w.Commit()
}

// application is the work of Apply.
type application struct {
	parts      []Part
	way        OnOverlap
	to, origin *tensors.Checkpoint
	infos      []tensors.Info
	whole      map[string]*tensors.View
	changed    map[string]bool
	entries    int64
	bytes      int64
	left       []string
}

func (a *application) plan() error {
	a.whole, a.changed = map[string]*tensors.View{}, map[string]bool{}
	for _, name := range allNames(a.parts) {
		v, err := wholeOf(a.parts, name)
		if err != nil {
			return err
		}
		for _, p := range a.parts {
			if e, ok := p.File.Entries(name); ok {
				a.changed[name] = true
				a.entries += int64(e.Len())
			} else if v == nil {
				if _, ok, err := p.File.Whole(name); err != nil {
					return err
				} else if ok {
					a.left = append(a.left, name)
				}
			}
		}
		if v != nil {
			a.whole[name], a.changed[name] = v, true
		}
	}
	for _, name := range a.to.Names() {
		info, _ := a.to.Lookup(name)
		a.infos = append(a.infos, info)
		a.bytes += info.Bytes()
	}
	return nil
}

// cut cuts tensors into runs of elements; types of less than a byte are copied whole.
func (a *application) cut(i int) tensors.Pieces {
	const step = 1 << 20
	info := a.infos[i]
	if info.DType.Size() == 0 {
		return tensors.Pieces{Units: info.Elems(), Step: info.Elems()}
	}
	return tensors.Pieces{Units: info.Elems(), Step: step}
}

// piece writes elements lo to hi of a tensor.
func (a *application) piece(w *tensors.Writer, i int, lo, hi int64) (int64, error) {
	info := a.infos[i]
	bits := int64(info.DType.BitSize())
	from, to := lo*bits/8, hi*bits/8
	if v := a.whole[info.Name]; v != nil {
		size := int64(v.DType.Size())
		dst := make([]byte, to-from)
		if err := tensors.Convert(dst, info.DType, v.Data[lo*size:hi*size], v.DType); err != nil {
			return 0, err
		}
		return to - from, w.WriteAt(i, dst, from)
	}
	view, err := a.to.View(info.Name)
	if err != nil {
		return 0, err
	}
	data := view.Data[from:to]
	if a.changed[info.Name] {
		list, err := cursors(a.parts, info.Name, lo, hi)
		if err != nil {
			return 0, err
		}
		if len(list) > 0 {
			if data, err = a.change(list, info, bytes.Clone(data), lo); err != nil {
				return 0, err
			}
		}
	}
	err = w.WriteAt(i, data, from)
	a.to.Release(info.Name, from, to-from)
	return to - from, err
}

// change puts new values into the bytes of elements from lo on.
func (a *application) change(list []cursor, info tensors.Info, data []byte, lo int64) ([]byte, error) {
	size := int64(info.DType.Size())
	of := func(raw []byte, dtype tensors.DType) (float32, error) {
		var x [1]float32
		err := tensors.DecodeFloat32(x[:], raw, dtype)
		return x[0], err
	}
	source, err := a.origin.View(info.Name)
	if err != nil {
		return nil, err
	}
	width := int64(source.DType.Size())
	coded := make([]byte, size)
	err = each(list, func(at int64, claims []claim) error {
		here := data[(at-lo)*size : (at-lo+1)*size]
		raw := source.Data[at*width : (at+1)*width]
		origin, err := of(raw, source.DType)
		if err != nil {
			return err
		}
		now, err := of(here, info.DType)
		if err != nil {
			return err
		}
		c := claims[0]
		alone := len(claims) == 1 && !c.part.File.Delta
		if alone && c.part.Weight == -1 && a.origin != a.to {
			// The file's value is there, rounded as it was when it was written: the origin's takes its place.
			if err := tensors.Convert(coded, info.DType, c.raw, c.dtype); err != nil {
				return err
			}
			if bytes.Equal(coded, here) {
				return tensors.Convert(here, info.DType, raw, source.DType)
			}
		}
		if alone && c.part.Weight == 1 && now == origin { // the file's own bits, also those that float32 does not hold
			return tensors.Convert(here, info.DType, c.raw, c.dtype)
		}
		x := float32(float64(now) + a.way.difference(claims, origin))
		return tensors.EncodeFloat32(here, info.DType, []float32{x})
	})
	return data, err
}
