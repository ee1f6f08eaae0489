package moe

import (
	"fmt"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/tensors"
)

// tasks lists the output's tensors in the order of the base's description, a layer's router and experts in the place of its feed-forward
// block.
func (b *builder) tasks(p *Plan) ([]*Task, error) {
	var list []*Task
	used := map[string]bool{}
	dense := func(w arch.Weight, layer int) error {
		names, ok, err := b.arch.Resolve(w, has(b.base))
		switch {
		case err != nil:
			return b.c.errorf(b.c.Base.Pos, "%s: %s", b.base.Name(), err)
		case !ok && w.Optional:
			return nil
		case !ok:
			return b.c.errorf(b.c.Base.Pos, "%s has no tensor %s; is a shard missing?", b.base.Name(), w.Name)
		}
		name := names[0]
		if used[name] { // a head that is the embedding
			return nil
		}
		used[name] = true
		info, _ := b.base.Lookup(name)
		if w.Name == embedName {
			p.embed = name
		}
		out := tensors.Info{Name: w.Name, DType: info.DType, Shape: info.Shape}
		if info.DType.IsFloat() {
			out.DType = p.DType
		}
		list = append(list, &Task{Info: out, Layer: layer, Parts: []Part{{Model: b.base, Tensor: name, Expert: -1, Scale: 1, elems: info.Elems()}}})
		return nil
	}
	for _, w := range b.module.Pre {
		if err := dense(w.Expand(0, b.layers), -1); err != nil {
			return nil, err
		}
	}
	for i := range b.layers {
		prefix := fmt.Sprintf("model.layers.%d.", i)
		mixed := false
		for _, w := range b.module.LayerAt(i) {
			w = w.Expand(i, b.layers)
			if strings.HasPrefix(w.Name, prefix+"mlp.") {
				if !mixed {
					list = append(list, b.mixture(p, i, prefix)...)
					mixed = true
				}
				continue
			}
			if err := dense(w, i); err != nil {
				return nil, err
			}
		}
		for _, n := range b.family.zeroBias {
			if has(b.base)(prefix + n) {
				continue
			}
			of, ok := b.base.Lookup(prefix + strings.TrimSuffix(n, "bias") + "weight")
			if !ok {
				continue // reported above
			}
			list = append(list, &Task{Info: tensors.Info{Name: prefix + n, DType: p.DType, Shape: of.Shape[:1]}, Layer: i, Parts: []Part{{Expert: -1, Scale: 1, elems: int64(of.Shape[0])}}})
		}
	}
	for _, w := range b.module.Post {
		if err := dense(w.Expand(0, b.layers), -1); err != nil {
			return nil, err
		}
	}
	if p.embed == "" {
		return nil, b.c.errorf(b.c.Base.Pos, "%s has no tensor %s", b.base.Name(), embedName)
	}
	b.leftOut(used)
	return list, nil
}

const embedName = "model.embed_tokens.weight"

// leftOut warns of tensors of the base that nobody asked for.
func (b *builder) leftOut(used map[string]bool) {
	var left []string
	for _, n := range b.base.Checkpoint.Names() {
		if !used[n] && !arch.Recomputed(n) && !strings.Contains(n, ".mlp.") {
			left = append(left, n)
		}
	}
	if len(left) > 0 {
		b.warnf("%d tensors of %s are not part of its architecture and are left out: %s", len(left), b.base.Name(), firstFew(left))
	}
}

func firstFew(names []string) string {
	const few = 4
	if len(names) > few {
		return strings.Join(names[:few], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}

// mixture lists router and experts of a layer.
func (b *builder) mixture(p *Plan, layer int, prefix string) []*Task {
	f := b.family
	experts := len(b.c.Experts)
	task := func(name string, shape []int, parts ...Part) *Task {
		return &Task{Info: tensors.Info{Name: prefix + name, DType: p.DType, Shape: shape}, Layer: layer, Parts: parts}
	}
	router := f.router
	fused := b.o.Layout == LayoutFused
	if fused {
		router = "mlp.gate.weight"
	}
	list := []*Task{task(router, []int{experts, b.hidden}, Part{Router: true, Expert: -1, Scale: 1, elems: int64(experts) * int64(b.hidden)})}
	if fused {
		var both, down []Part
		for e := range b.c.Experts {
			both = append(both, b.part(layer, prefix, e, false, 0), b.part(layer, prefix, e, false, 1))
			down = append(down, b.part(layer, prefix, e, false, 2))
		}
		list = append(list, task("mlp.experts.gate_up_proj", []int{experts, 2 * b.width, b.hidden}, both...), task("mlp.experts.down_proj", []int{experts, b.hidden, b.width}, down...))
	} else {
		for e := range b.c.Experts {
			for k, name := range f.projections {
				list = append(list, task(fmt.Sprintf(f.expert, e, name), b.shape(k), b.part(layer, prefix, e, false, k)))
			}
		}
	}
	for e := range b.c.Shared {
		for k, name := range f.projections {
			list = append(list, task(fmt.Sprintf(f.shared, name), b.shape(k), b.part(layer, prefix, e, true, k)))
		}
		if f.gatedShared {
			list = append(list, task(f.sharedGate, []int{1, b.hidden}, Part{Router: true, Shared: true, Expert: e, Scale: 1, elems: int64(b.hidden)}))
		}
	}
	return list
}

// part is a matrix of an expert.
func (b *builder) part(layer int, prefix string, e int, shared bool, projection int) Part {
	list, kind := b.c.Experts, "expert"
	if shared {
		list, kind = b.c.Shared, "shared"
	}
	x := &list[e]
	s := Part{Model: b.of(x.Model), Tensor: prefix + "mlp." + projectionNames[projection] + ".weight", Expert: e, Shared: shared, Scale: 1, Noise: x.Noise, elems: int64(b.hidden) * int64(b.width)}
	s.stream = fmt.Sprintf("noise of %s %d, layer %d, %s", kind, e, layer, projectionNames[projection])
	if projection == 2 {
		s.Scale = x.Residual
	}
	return s
}

// Source says in words where a part comes from.
func (s *Part) Source() string {
	switch {
	case s.Router && s.Shared:
		return "gate of the shared expert"
	case s.Router:
		return "router"
	case s.Model == nil:
		return "zeros"
	}
	return s.Model.Name() + ":" + s.Tensor
}
