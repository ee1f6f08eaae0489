package learn

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/match"
	"github.com/mergekit/mergekit/model"
)

// STE moves permutations by the loss (Ainsworth et al., 2022, "Git Re-Basin", section 3.3): free weights T begin as A, and B is matched
// with T anew in every step, from the last map on. The loss is that of the midpoint of A and the aligned B, and its gradient goes to T as
// if the midpoint were made of T: the projection onto the permutations is passed straight through. T follows it by SGD with momentum.
//
// Of all maps on the way, the one whose midpoint is best on the held-out examples is taken, the first included: the loss of a training
// batch, which the reference goes by, is noisy.
func STE(ctx context.Context, spec *symmetry.Spec, a, b align.Weights, obj Objective, o Options) (*Result, error) {
	o = o.fill(300)
	p, err := newPair(spec, a, b, obj)
	if err != nil {
		return nil, err
	}
	now, err := p.start(ctx, a, o)
	if err != nil {
		return nil, err
	}
	if err := p.hold(); err != nil {
		return nil, err
	}
	mapped, err := p.read(align.Aligned(p.b, now))
	if err != nil {
		return nil, err
	}
	if err := p.check(mapped); err != nil {
		return nil, err
	}
	r := &Result{Map: now, Steps: o.Steps}
	if err := p.ends(ctx, mapped, r); err != nil {
		return nil, err
	}
	best := r.HeldOut.Before
	r.Trace = append(r.Trace, Point{0, best})
	free, speed, seen := map[string]model.Tensor{}, Values{}, Values{}
	for name, v := range p.a {
		info, ok := a.Lookup(name)
		if !ok {
			return nil, &align.Error{Tensor: name, Msg: "the reference has no such tensor"}
		}
		free[name] = model.Tensor{Shape: info.Shape, Data: append([]float32(nil), v...)}
		speed[name] = make([]float32, len(v))
	}
	look := func(step int) error {
		if same(seen, mapped) {
			return nil
		}
		seen = mapped
		l, err := p.mean(ctx, p.between(mapped, 0.5), true)
		if err != nil {
			return err
		}
		r.Trace = append(r.Trace, Point{step, l})
		if l < best {
			best, r.Best, r.Map = l, step, now
		}
		return nil
	}
	seen = mapped
	again := o.Matching
	again.Init, again.Restarts, again.NoReport, again.Progress = match.Identity, 0, true, nil
	for step := range o.Steps {
		loss, grad, err := obj.Gradient(ctx, p.between(mapped, 0.5), o.Seed, step)
		if err != nil {
			return nil, err
		}
		if !finite(loss) {
			return nil, &align.Error{Msg: fmt.Sprintf("the loss of the midpoint is %v after %d steps", loss, step), Hint: "lower learn.lr"}
		}
		for name, t := range free {
			v, g := speed[name], grad[name]
			for i := range v {
				v[i] = float32(o.Momentum)*v[i] + g[i]/2 // half of the midpoint is T
				t.Data[i] -= float32(o.Rate) * v[i]
			}
		}
		further, err := match.Pair(ctx, spec, align.OfTensors(free), align.Aligned(p.b, now), again)
		if err != nil {
			return nil, err
		}
		if now, err = align.Compose(further.Map, now); err != nil {
			return nil, err
		}
		if mapped, err = p.read(align.Aligned(p.b, now)); err != nil {
			return nil, err
		}
		o.Progress(step+1, o.Steps, fmt.Sprintf("loss of the midpoint %.4g", loss))
		if (step+1)%o.Every == 0 || step+1 == o.Steps {
			if err := look(step + 1); err != nil {
				return nil, err
			}
		}
	}
	if r.Best == 0 {
		return r, nil
	}
	if mapped, err = p.read(align.Aligned(p.b, r.Map)); err != nil {
		return nil, err
	}
	return r, p.finish(ctx, mapped, r)
}

// same reports whether two sets of tensors have the same values.
func same(a, b Values) bool {
	for name, v := range a {
		w := b[name]
		if len(v) != len(w) {
			return false
		}
		for i := range v {
			if v[i] != w[i] {
				return false
			}
		}
	}
	return len(a) == len(b)
}
