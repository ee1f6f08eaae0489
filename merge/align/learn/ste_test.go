package learn

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/finetune/plain"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
)

// TestSTE trains two small perceptrons apart on handwritten digits, and aligns them: the midpoint is better on held-out images than
// after weight matching, both before it; the map is a permutation that changes nothing; a second run has the same bits.
func TestSTE(t *testing.T) {
	ctx, b := context.Background(), goBackend(t)
	d := describe(t, `{"model_type": "mlp", "input_shape": [784], "layers": [{"type": "linear", "name": "a", "out": 24}, {"type": "relu"},
		{"type": "linear", "name": "b", "out": 24}, {"type": "relu"}, {"type": "linear", "name": "c", "out": 10}]}`)
	train, heldOut := images(t, d, 2000)
	var nets []map[string]model.Tensor
	for seed := range uint64(2) {
		m, err := model.NewPlain(d, d.Initial(seed), b, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if _, err := plain.Train(ctx, m, train, plain.Options{Epochs: 6, Batch: 50, Rate: 3e-3, Seed: seed}); err != nil {
			t.Fatal(err)
		}
		w, err := m.Tensors()
		if err != nil {
			t.Fatal(err)
		}
		nets = append(nets, w)
	}
	spec, err := d.Symmetry()
	if err != nil {
		t.Fatal(err)
	}
	if spec, err = spec.Restrict(symmetry.Permutation, symmetry.AllGroups()); err != nil {
		t.Fatal(err)
	}
	obj, err := NewPlain(d, train, heldOut, 250, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Close()
	first, second := align.OfTensors(nets[0]), align.OfTensors(nets[1])
	run := func() *Result {
		r, err := STE(ctx, spec, first, second, obj, Options{Steps: 60, Every: 5, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := run()
	naive, err := (&pair{o: obj, a: valuesOf(nets[0])}).mean(ctx, (&pair{a: valuesOf(nets[0])}).between(valuesOf(nets[1]), 0.5), true)
	if err != nil {
		t.Fatal(err)
	}
	before, after := r.HeldOut.Barriers()
	t.Logf("held out: naive %.3f, weight matching %.3f (barrier %.3f), STE %.3f (barrier %.3f) at step %d; train %.3f to %.3f", naive, r.HeldOut.Before, before, r.HeldOut.After, after, r.Best,
		r.Train.Before, r.Train.After)
	if !(r.HeldOut.Before < naive && r.HeldOut.After < r.HeldOut.Before-0.1*before) {
		t.Errorf("held out: naive %.3f, matched %.3f, STE %.3f", naive, r.HeldOut.Before, r.HeldOut.After)
	}
	if !r.Map.Exact() {
		t.Error("the map does more than exchange units")
	}
	if k := slices.IndexFunc(r.Trace, func(p Point) bool { return p.Step == r.Best }); k < 0 || r.Trace[k].HeldOut != r.HeldOut.After {
		t.Errorf("the map that was taken has the loss %v, the trace %v", r.HeldOut.After, r.Trace)
	}
	p, err := newPair(spec, second, second, obj)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := p.read(align.Aligned(second, r.Map))
	if err != nil {
		t.Fatal(err)
	}
	was, err := p.mean(ctx, p.a, true)
	if err != nil {
		t.Fatal(err)
	}
	if is, err := p.mean(ctx, mapped, true); err != nil || is-was > 1e-6 || was-is > 1e-6 {
		t.Errorf("the aligned network has the loss %v, the network %v (%v)", is, was, err)
	}
	again := run()
	for _, id := range slices.Sorted(maps.Keys(r.Map.Elements)) {
		if !slices.Equal(again.Map.Elements[id].Index, r.Map.Elements[id].Index) {
			t.Errorf("%s: a second run found another map", id)
		}
	}
	if !slices.Equal(again.Trace, r.Trace) {
		t.Errorf("a second run went another way: %v, %v", again.Trace, r.Trace)
	}
}
