package plan

import (
	"fmt"
	"sort"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/tensors"
)

// enumerate lists the output's tensors: of every module the ones before the layers, the layers of all slices numbered
// through, and the ones after.
func (b *builder) enumerate() error {
	seen := map[string]bool{}
	from, length := b.stacks()
	for i := range b.modules {
		m := &b.modules[i]
		total := m.layers()
		first, last := &m.slices[0], &m.slices[len(m.slices)-1]
		for k := range m.desc.Pre {
			if err := b.tensor(seen, m, first, m.desc.Pre[k], b.outside(m.desc.Pre[k], false), total, -1, 0); err != nil {
				return err
			}
		}
		layer := 0
		for j := range m.slices {
			s := &m.slices[j]
			for k := 0; k < s.sources[0].layers; k++ {
				for _, w := range m.desc.LayerAt(s.sources[0].from + k) {
					if err := b.tensor(seen, m, s, w, depthOf(from[i]+layer, length[i]), total, layer, k); err != nil {
						return err
					}
				}
				layer++
			}
		}
		for k := range m.desc.Post {
			if err := b.tensor(seen, m, last, m.desc.Post[k], b.outside(m.desc.Post[k], true), total, -1, 0); err != nil {
				return err
			}
		}
	}
	if len(b.Tasks) == 0 {
		return b.errorf(b.Recipe.Pos, "the recipe yields no tensor at all")
	}
	return nil
}

// tensor plans one output tensor. layer is the output layer's index (-1 outside layers), depth its place among all layers, and k that
// in the slice.
func (b *builder) tensor(seen map[string]bool, m *module, s *slice, w arch.Weight, depth float64, total, layer, k int) error {
	out := w.Expand(max(layer, 0), total)
	p := &place{module: m, slice: s, output: out.Name, base: -1}
	if layer >= 0 {
		p.t = 1
		if n := s.sources[0].layers; n > 1 {
			p.t = float64(k) / float64(n-1)
		}
	}
	t := &Task{Name: out.Name, Base: -1, depth: depth, vocabulary: w.VocabAxis >= 0}
	own := false // some input has the tensor under its own name, not through a tie
	base := s.baseIndex(b.Method)
	var missing []string
	for i := range s.sources {
		src := &s.sources[i]
		layers, err := m.desc.Layers(src.model.Config)
		if err != nil {
			return err
		}
		sw := w.Expand(src.from+k, layers)
		if layer < 0 {
			sw = w.Expand(0, layers)
		}
		pieces, tied, err := b.find(src.model, sw)
		if err != nil {
			return fmt.Errorf("%s: %w", src.model.Name(), err)
		}
		if pieces == nil {
			missing = append(missing, src.model.Name())
			if !w.Optional {
				return fmt.Errorf("%s: %s does not have this tensor, which a %s model needs (looked for %s); the checkpoint is incomplete, or its config.json names the wrong architecture",
					sw.Name, src.model.Name(), b.Arch.Name, strings.Join(lookedFor(sw), ", "))
			}
			continue
		}
		own = own || !tied
		info, err := b.inputInfo(src.model, sw.Name, pieces)
		if err != nil {
			return err
		}
		if i == base {
			p.base = len(p.used)
			t.Base = p.base
		}
		p.used = append(p.used, i)
		p.inputs = append(p.inputs, sw.Name)
		t.Inputs = append(t.Inputs, Input{Model: src.model, Pieces: pieces, DType: info.DType, fused: sw.Name, shape: info.Shape})
		if err := b.matchShape(t, info, src.model, w); err != nil {
			return err
		}
		t.order = max(t.order, sw.Name)
	}
	if len(t.Inputs) == 0 || w.Optional && !own {
		return nil // optional and nobody has it, or everybody ties it to another tensor
	}
	if seen[out.Name] {
		return fmt.Errorf("%s: the architecture %s names this tensor twice", out.Name, b.Arch.Name)
	}
	seen[out.Name] = true
	if b.Vocabulary != nil && w.VocabAxis == 0 {
		if err := b.gather(t, m, s, w); err != nil {
			return err
		}
	}
	return b.finish(t, p, w, missing)
}

func lookedFor(w arch.Weight) []string {
	names := append([]string{w.Name}, w.Aliases...)
	return append(names, w.Tied...)
}

// find returns the pieces under which a model has a weight: its name, an alias, the expert tensors that make it up, or a
// tensor it is tied to.
func (b *builder) find(m *Model, w arch.Weight) (pieces []string, tied bool, err error) {
	has := func(name string) bool { _, ok := m.Lookup(name); return ok }
	names := append([]string{w.Name}, w.Aliases...)
	for _, name := range names {
		if has(name) {
			return []string{name}, false, nil
		}
	}
	for _, name := range names {
		p, ok, err := b.Arch.Pieces(name, has)
		if err == nil && ok {
			err = arch.CheckExperts(m.Config, name, p)
		}
		if ok || err != nil {
			return p, false, err
		}
	}
	for _, name := range w.Tied {
		if has(name) {
			return []string{name}, true, nil
		}
	}
	return nil, false, nil
}

// inputInfo is the shape and dtype of a weight as one tensor.
func (b *builder) inputInfo(m *Model, name string, pieces []string) (tensors.Info, error) {
	first, _ := m.Lookup(pieces[0])
	if len(pieces) == 1 && !b.isPiece(name, pieces[0]) {
		return first, nil
	}
	shapes := make([][]int, len(pieces))
	for i, p := range pieces {
		info, _ := m.Lookup(p)
		if info.DType != first.DType {
			return first, fmt.Errorf("%s: %s holds %s as %s and %s as %s; expert tensors that are merged as one must have one dtype", name, m.Name(), pieces[0], first.DType, p, info.DType)
		}
		shapes[i] = info.Shape
	}
	shape, err := arch.FusedShape(name, shapes)
	if err != nil {
		return first, fmt.Errorf("%s of %s: %w", name, m.Name(), err)
	}
	return tensors.Info{Name: name, DType: first.DType, Shape: shape}, nil
}

// isPiece tells whether the only tensor found for a fused one is a single expert's.
func (b *builder) isPiece(name, found string) bool {
	p, ok, err := b.Arch.Pieces(name, func(n string) bool { return n == found })
	return err == nil && ok && len(p) == 1
}

// matchShape checks an input's shape against the ones before it, or narrows the vocabulary where that was asked for.
func (b *builder) matchShape(t *Task, info tensors.Info, m *Model, w arch.Weight) error {
	if b.Vocabulary != nil && w.VocabAxis == 0 && len(info.Shape) > 0 {
		return b.widen(t, info, m)
	}
	if len(t.Inputs) == 1 {
		t.Shape = append([]int(nil), info.Shape...)
		return nil
	}
	if fmt.Sprint(t.Shape) == fmt.Sprint(info.Shape) {
		return nil
	}
	vocabulary := w.VocabAxis == 0 && len(t.Shape) == len(info.Shape) && len(info.Shape) > 0 && fmt.Sprint(t.Shape[1:]) == fmt.Sprint(info.Shape[1:])
	if vocabulary && b.Options.TruncateVocabulary {
		t.Shape[0] = min(t.Shape[0], info.Shape[0])
		t.rows = t.Shape[0]
		b.warnf("%s: narrowed to %d rows, the smallest vocabulary among the models; tokens beyond are lost", t.Name, t.rows)
		return nil
	}
	hint := "the models have different sizes; align or resize first"
	if vocabulary {
		hint = "the models have different vocabularies; tokenizer_source: union (or base, or a model) brings their rows together, --unsafe-truncate-embeddings narrows them to the smallest"
	}
	return fmt.Errorf("%s: %v in %s, %v in %s: %s", info.Name, t.Shape, t.Inputs[0].Model.Name(), info.Shape, m.Name(), hint)
}

// partial refuses values of less than a byte, of which no part can be copied.
func partial(name string, dtype tensors.DType) error {
	return fmt.Errorf("%s: holds values of less than a byte (%s), which merges do not read; convert it first", name, dtype)
}

// finish decides dtypes, parameters and what to do about inputs that lack the tensor.
func (b *builder) finish(t *Task, p *place, w arch.Weight, missing []string) error {
	floats := 0
	for _, in := range t.Inputs {
		if graphFloat(in.DType) {
			floats++
		}
	}
	if w.ForceDType != "" && floats == 0 {
		// A buffer of positions: integers stay what they are.
		floats = 0
	}
	if floats == 0 {
		t.Copy, t.Check = true, len(t.Inputs) > 1
		t.DType = t.Inputs[0].DType
		for _, in := range t.Inputs[1:] {
			if in.DType != t.DType {
				return fmt.Errorf("%s: %s in %s and %s in %s: a buffer that is not floating point must be the same in all models", t.Name, t.DType, t.Inputs[0].Model.Name(), in.DType, in.Model.Name())
			}
		}
		if t.DType.Size() == 0 {
			return partial(t.Name, t.DType)
		}
		b.add(t)
		return nil
	}
	if floats < len(t.Inputs) {
		return fmt.Errorf("%s: floating point in some models and %s in others; convert it first", t.Name, nonFloat(t))
	}
	if len(missing) > 0 {
		// Without a base in the recipe none can be missing.
		none := b.Method.Base == method.BaseIgnored || b.Method.Base == method.BaseOptional && p.slice.base == nil
		switch b.Method.MissingAction(len(t.Inputs), t.Base >= 0 || none) {
		case method.ActCopy:
			t.Copy = true
		case method.ActDrop:
			b.warnf("%s: left out, because %s does not have it and %s needs more inputs", t.Name, strings.Join(missing, ", "), b.Method.Name)
			return nil
		case method.ActFail:
			return fmt.Errorf("%s: %s does not have this optional tensor, and %s cannot merge it without; add it to that model or leave it out of the others", t.Name, strings.Join(missing, ", "), b.Method.Name)
		default:
			if b.Options.Raw == "" { // else rawArch has told
				b.warnf("%s: %s does not have it; merged over the others", t.Name, strings.Join(missing, ", "))
			}
		}
	}
	var err error
	if t.Shared, t.PerInput, err = b.resolve(p); err != nil {
		return err
	}
	b.dtypes(t)
	b.gatherDTypes(t)
	if !t.Copy && b.Method.Check != nil {
		mt := t.MethodTask(b.Plan)
		if err := b.Method.Check(&mt); err != nil {
			return b.placed(err, p)
		}
	}
	b.add(t)
	return nil
}

func nonFloat(t *Task) string {
	for _, in := range t.Inputs {
		if !graphFloat(in.DType) {
			return in.DType.String()
		}
	}
	return ""
}

// dtypes chooses the dtype of the arithmetic's rounding (D) and of the output.
func (b *builder) dtypes(t *Task) {
	t.D = t.Inputs[0].DType
	for _, in := range t.Inputs[1:] {
		t.D = promote(t.D, in.DType)
	}
	if d, ok := parseDType(b.Recipe.DType); ok && d.IsFloat() {
		t.D = d
	}
	t.DType = t.D
	if d, ok := parseDType(b.Recipe.OutDType); ok && d.IsFloat() {
		t.DType = d
	}
}

// promote returns the dtype in which two stored dtypes meet.
func promote(a, c tensors.DType) tensors.DType {
	switch {
	case a == c:
		return a
	case a == tensors.F64 || c == tensors.F64:
		return tensors.F64
	}
	return tensors.F32
}

// add appends a task, split into the pieces that are written.
func (b *builder) add(t *Task) {
	t.Pieces = []tensors.Info{{Name: t.Name, DType: t.DType, Shape: t.Shape}}
	if pieces := t.Inputs[0].Pieces; len(pieces) > 1 && !b.Options.FuseExperts {
		// The maths saw one tensor; on disk the experts keep the layout that they came in.
		t.Pieces = nil
		for i, name := range arch.PiecesFor(t.Name, t.Inputs[0].fused, pieces) {
			info, _ := t.Inputs[0].Model.Lookup(pieces[i])
			t.Pieces = append(t.Pieces, tensors.Info{Name: name, DType: t.DType, Shape: info.Shape})
		}
	}
	if t.order == "" {
		t.order = t.Name
	}
	b.Tasks = append(b.Tasks, t)
}

// MethodTask is the task as the method sees it.
func (t *Task) MethodTask(p *Plan) method.Task {
	mt := method.Task{Name: t.Name, Shape: t.Shape, N: t.Elems(), Inputs: len(t.Inputs), Base: t.Base,
		D: GraphDType(t.D), Arith: p.Options.Arith, RNG: p.Options.RNG, Seed: p.Options.Seed,
		Shared: t.Shared, PerInput: t.PerInput, Depth: t.depth, Threads: 1}
	mt.Table, mt.Stacked, mt.Turned = p.kind(t)
	mt.Out = GraphDType(t.DType)
	return mt
}

// undescribed lists the checkpoints' tensors that no task reads, and copies the donor's where that was asked for.
func (b *builder) undescribed() error {
	if b.Options.Raw != "" {
		return nil // rawArch has told
	}
	used := map[*Model]map[string]bool{}
	names := map[string]bool{}
	for _, t := range b.Tasks {
		for _, p := range t.Pieces {
			names[p.Name] = true
		}
		for _, in := range t.Inputs {
			if used[in.Model] == nil {
				used[in.Model] = map[string]bool{}
			}
			for _, p := range in.Pieces {
				used[in.Model][p] = true
			}
		}
	}
	stacked := false
	for _, m := range b.modules {
		stacked = stacked || m.stack
	}
	for _, m := range b.Models {
		if used[m] == nil || stacked { // with slices, unused layers are the point
			continue
		}
		var left []string
		for _, n := range m.Checkpoint.Names() {
			// What the output has from other models (another module of a recipe) is described, if not used.
			if !used[m][n] && !names[n] {
				left = append(left, n)
			}
		}
		if len(left) == 0 {
			continue
		}
		sort.Strings(left)
		if m == b.Donor && b.Options.KeepUndescribed {
			for _, n := range left {
				info, _ := m.Lookup(n)
				if info.DType.Size() == 0 {
					return partial(n, info.DType)
				}
				b.add(&Task{Name: n, Shape: info.Shape, Base: -1, Copy: true, DType: info.DType, D: info.DType, Inputs: []Input{{Model: m, Pieces: []string{n}, DType: info.DType}}})
			}
			continue
		}
		show := left
		if len(show) > 5 {
			show = append(append([]string{}, show[:5]...), "…")
		}
		b.warnf("%s: %d tensors are not part of the architecture %s and are left out: %s (--keep-undescribed copies the ones of the first model)", m.Name(), len(left), b.Arch.Name, strings.Join(show, ", "))
	}
	return nil
}
