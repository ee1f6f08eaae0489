package align

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/tensors"
)

// TransportOptions say how an adapter is carried over.
type TransportOptions struct {
	// NewBase is what the adapter's configuration names as its base afterwards; "": no base.
	NewBase string
	Compat  string // adapter.Full (also "") or adapter.Minimal
	Force   bool   // replace an existing output
}

// TransportReport says what carrying an adapter over did.
type TransportReport struct {
	Output  string `json:"output"`
	Tensors int    `json:"tensors"`
	Changed int    `json:"changed"`
	Exact   bool   `json:"exact"` // values were only moved and signs flipped
}

// TransportAdapter carries an adapter of the model in base, the one that the map m was made for, over to the aligned model: a change ΔW of
// a weight becomes L·ΔW·R where the weight W becomes L·W·R, with the gains of the base folded in as they are folded into W. A takes the
// reader's side and B the writer's, so ranks and scales stay. Fusing the result into the aligned base gives what aligning the fused base
// gives.
//
// What has no such image is refused with the reason: DoRA's magnitudes under a map that changes the lengths of rows, gains of a turned
// stream, and heads that the spec does not know.
func TransportAdapter(m *Map, base, dir, out string, o TransportOptions) (*TransportReport, error) {
	if tensors.Holds(out, dir) {
		return nil, &tensors.FormatError{File: out, Msg: "the output is the adapter's own directory, or holds it", Hint: "choose another output directory"}
	}
	if tensors.Holds(out, base) {
		return nil, &tensors.FormatError{File: out, Msg: "the output is the base's directory, or holds it", Hint: "choose another output directory"}
	}
	a, err := adapter.Open(dir)
	if err != nil {
		return nil, err
	}
	c, err := checkpoint.Open(base)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_, config, err := arch.ReadConfigFile(filepath.Dir(c.Files()[0]))
	if err != nil {
		return nil, err
	}
	if err := m.Fits(config, sharing(c, config, nil)); err != nil {
		return nil, fmt.Errorf("%s: %w", base, err)
	}
	modules, err := adapter.Modules(c, config)
	if err != nil {
		return nil, err
	}
	parts, err := a.Parts(modules)
	if err != nil {
		return nil, err
	}
	if err := m.Fits(config, sharing(c, config, parts)); err != nil {
		return nil, fmt.Errorf("%s: %w", base, err)
	}
	own := OwnGains{}
	if m.AnyTurned() {
		if own, err = ReadGains(m.Spec, OfCheckpoint(c)); err != nil {
			return nil, err
		}
	}
	p, err := m.Prepare(own)
	if err != nil {
		return nil, err
	}
	t := &transport{a: a, modules: modules, m: m, p: p, r: &TransportReport{Output: out, Tensors: len(parts), Exact: true}}
	carried := &adapter.Adapter{Dir: dir, Config: t.config(o), Tensors: map[string]adapter.Tensor{}}
	for _, part := range parts {
		x, err := t.carry(part)
		if err != nil {
			return nil, t.locate(part, err)
		}
		carried.Tensors[part.Key] = x
	}
	if err := carried.CheckFinite(); err != nil {
		return nil, err
	}
	return t.r, carried.Save(out, adapter.SaveOptions{Compat: o.Compat, Force: o.Force, Copies: adapter.TokenizerFiles(dir)})
}

// sharing is the base as a map sees it that was made for an untied copy of it, such as a turned one: the head that the base shares is
// there. What the adapter does elsewhere is the same with both; an adapter of the embedding or the head itself changes two tensors of
// the copy, so for one of those the head stays missing.
func sharing(c *tensors.Checkpoint, config []byte, parts []adapter.Part) symmetry.Source {
	own, err := SpecOf(config, c, "")
	if err != nil || len(own.Untie) == 0 {
		return c
	}
	for _, part := range parts {
		for _, shared := range own.Untie {
			if part.New || part.Module.Tied || part.Module.Weight == shared {
				return c
			}
		}
	}
	return sharedHead{c, own.Untie}
}

// sharedHead answers for the names of shared tensors too.
type sharedHead struct {
	*tensors.Checkpoint
	shared map[string]string
}

// Lookup finds a tensor, or the one that is shared under its name.
func (s sharedHead) Lookup(name string) (tensors.Info, bool) {
	info, ok := s.Checkpoint.Lookup(name)
	if from := s.shared[name]; !ok && from != "" {
		return s.Checkpoint.Lookup(from)
	}
	return info, ok
}

// transport carries one adapter over.
type transport struct {
	a       *adapter.Adapter
	modules []adapter.Module
	m       *Map
	p       *Prepared
	r       *TransportReport
}

// config is the adapter's configuration with another base.
func (t *transport) config(o TransportOptions) *adapter.Config {
	c := *t.a.Config
	c.BaseModel, c.Revision = o.NewBase, ""
	c.Other = maps.Clone(c.Other)
	return &c
}

// locate puts the adapter's file and the tensor into an error.
func (t *transport) locate(part adapter.Part, err error) error {
	if e, ok := err.(*Error); ok { //nolint:errorlint // only errors made here lack the tensor
		e.File, e.Tensor = t.a.Dir, part.Key
	}
	return err
}

// transform returns what the map does to a tensor of the base, as the module that is changed sees it: a head that leaves a shared matrix
// is another tensor than the embedding.
func (t *transport) transform(part adapter.Part, tensor string, shape []int) (*Transform, error) {
	if part.Module.Tied {
		for to, from := range t.p.untied {
			if from == tensor {
				tensor = to
			}
		}
	}
	return t.p.Transform(tensor, shape)
}

// carry maps one tensor.
func (t *transport) carry(part adapter.Part) (adapter.Tensor, error) {
	x := t.a.Tensors[part.Key]
	mod := part.Module
	if part.New {
		return x, t.head()
	}
	if t.a.Config.EnsureWeightTying && len(t.p.untied) > 0 && (mod.Tied || mod.Kind == adapter.Embedding) {
		return x, &Error{Msg: "changes the matrix that embedding and head share, and the map makes them two", Hint: signedHint}
	}
	switch part.Role {
	case adapter.FactorBias, adapter.WholeBias:
		if mod.BiasName == "" {
			return x, nil
		}
		if t.folded(mod.BiasName) {
			return x, errFolded()
		}
		return t.whole(x, func(shape []int) (*Transform, error) { return t.transform(part, mod.BiasName, shape) })
	case adapter.WholeWeight:
		if t.folded(mod.Weight) {
			return x, errFolded()
		}
		return t.whole(x, func(shape []int) (*Transform, error) { return t.transform(part, mod.Weight, shape) })
	}
	w, err := t.transform(part, mod.Weight, mod.Shape)
	if err != nil || w == nil {
		return x, err
	}
	if len(w.axes) != 2 {
		return x, &Error{Msg: fmt.Sprintf("is a factor of %s, which has shape %v", show(mod.Weight), mod.Shape)}
	}
	out, in := 0, 1 // axes of the weight
	if mod.Kind != adapter.Linear {
		out, in = 1, 0
	}
	var f Transform
	switch part.Role {
	case adapter.FactorA:
		f = Transform{Shape: x.Shape, axes: []action{{n: x.Shape[0]}, w.axes[in]}}
	case adapter.FactorB:
		f = Transform{Shape: x.Shape, axes: []action{w.axes[out], {n: x.Shape[1]}}}
	case adapter.RowsOfTokens:
		if len(w.axes[in].stages) > 0 {
			return x, &Error{Msg: "are rows of a matrix whose rows the map moves", Hint: "fuse the adapter into its base and align the result"}
		}
		f = Transform{Shape: x.Shape, axes: []action{{n: x.Shape[0]}, w.axes[out]}}
	case adapter.Magnitude:
		if !w.Exact() {
			return x, &Error{Msg: "is a DoRA magnitude, which gives a row its length, and the map mixes or scales rows", Hint: "fuse the adapter into its base and align the result, or align with symmetry: permutation or signed"}
		}
		f = Transform{Shape: x.Shape, axes: []action{lengths(w.axes[out])}}
	}
	return t.whole(x, func([]int) (*Transform, error) { return &f, nil })
}

// lengths is what an exact action does to the lengths of rows: signs do not count.
func lengths(a action) action {
	out := action{n: a.n}
	for _, s := range a.stages {
		out.stages = append(out.stages, stage{index: s.index})
	}
	return out
}

// whole maps a tensor by a transform of its own shape.
func (t *transport) whole(x adapter.Tensor, of func(shape []int) (*Transform, error)) (adapter.Tensor, error) {
	f, err := of(x.Shape)
	if err != nil || f == nil {
		return x, err
	}
	for i, n := range x.Shape {
		if len(f.axes) > i && len(f.axes[i].stages) > 0 && f.axes[i].n != n {
			return x, &Error{Msg: fmt.Sprintf("has shape %v, and the map acts on %d entries of axis %d", x.Shape, f.axes[i].n, i), Hint: "the adapter is for another base"}
		}
	}
	y, err := f.All(x.Data)
	if err != nil {
		return x, err
	}
	t.r.Changed++
	t.r.Exact = t.r.Exact && f.Exact()
	return adapter.Tensor{Shape: slices.Clone(x.Shape), Data: y}, nil
}

// folded says whether a tensor is a gain that the map folds.
func (t *transport) folded(tensor string) bool {
	for _, n := range t.m.Spec.Norms {
		if n.Gain == tensor && t.m.Turned(n.Group) {
			return true
		}
	}
	return false
}

func errFolded() error {
	return &Error{Msg: "is the gain of a norm, and a turned stream has it folded into the maps that read it", Hint: "fuse the adapter into its base and align the result, or " + signedHint}
}

// head says whether a head that the spec does not know stays as it is: only when the stream, which embeddings write, is not changed.
func (t *transport) head() error {
	for i := range t.m.Spec.Groups {
		g := &t.m.Spec.Groups[i]
		stream := slices.ContainsFunc(t.modules, func(m adapter.Module) bool {
			return m.Kind == adapter.Embedding && slices.ContainsFunc(g.Refs, func(r symmetry.Ref) bool { return r.Tensor == m.Weight })
		})
		if stream && !t.m.Elements[g.ID].Identity() {
			return &Error{Group: g.ID, Msg: "is a head that the base lacks, so the spec does not say how it reads the stream", Hint: "fuse the adapter into its base and align the result with a spec that names the head"}
		}
	}
	return nil
}
