package merge

import (
	"context"
	"fmt"
	"math"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/activation"
	"github.com/mergekit/mergekit/merge/align/learn"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/repair"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// matchData is what methods need that look at data: a backend for forward passes, opened when it is needed.
type matchData struct {
	k       *matcher
	backend compute.Backend
	done    func()
}

func (d *matchData) open() error {
	if d.backend != nil {
		return nil
	}
	var err error
	d.backend, d.done, err = d.k.o.modelBackend()
	return err
}

func (d *matchData) close() {
	if d.done != nil {
		d.done()
	}
}

// sameText refuses models that read texts differently.
func sameText(tokens *tokenPairs, method string) error {
	if tokens == nil {
		return nil
	}
	return &align.Error{Msg: "the models have different vocabularies, and method " + method + " shows both the same tokens", Hint: "use method: weight, which pairs the vocabularies by their tokens"}
}

// plainValues are a plain network's tensors.
func plainValues(d *model.PlainDescription, w align.Weights) (map[string]model.Tensor, error) {
	values := map[string]model.Tensor{}
	for _, s := range append(d.Tensors(), d.Statistics()...) {
		x, err := w.Read(s.Name)
		if err != nil {
			return nil, err
		}
		values[s.Name] = model.Tensor{Shape: s.Shape, Data: x}
	}
	return values, nil
}

// scores compares the features of two models on the calibration data.
func (d *matchData) scores(ctx context.Context, spec *symmetry.Spec, a, b *plan.Model, tokens *tokenPairs) (*activation.Scores, error) {
	if err := sameText(tokens, d.k.a.Method); err != nil {
		return nil, err
	}
	if err := d.open(); err != nil {
		return nil, err
	}
	o := activation.Options{Gram: d.k.gram, Progress: d.k.progress("activations of " + b.Name())}
	samples := d.k.p.Recipe.Calibration.Samples
	if model.IsPlain(b.RawConfig) {
		desc, err := model.DescribePlain(b.RawConfig)
		if err != nil {
			return nil, err
		}
		data := calibrationOptions(d.k.p, samples)
		data.Unlabelled = true
		set, err := calibration.Plain(desc, data)
		if err != nil {
			return nil, err
		}
		var nets []*model.PlainModel
		for _, m := range []*plan.Model{a, b} {
			values, err := plainValues(desc, modelWeights{m})
			if err != nil {
				return nil, err
			}
			net, err := model.NewPlain(desc, values, d.backend, 0)
			if err != nil {
				return nil, err
			}
			defer net.Close()
			nets = append(nets, net)
		}
		return activation.Plain(ctx, spec, nets[0], nets[1], set.X, set.N, o)
	}
	var nets []*model.Model
	for _, m := range []*plan.Model{a, b} {
		net, err := d.transformer(ctx, m)
		if err != nil {
			return nil, err
		}
		defer net.Close()
		nets = append(nets, net)
	}
	batches, err := calibration.Inputs(ctx, a.TokenizerDir(), nets[0].D, calibrationOptions(d.k.p, samples))
	if err != nil {
		return nil, err
	}
	return activation.Transformer(ctx, spec, nets[0], nets[1], batches, o)
}

// transformer loads a model, with what its adapter changes.
func (d *matchData) transformer(ctx context.Context, m *plan.Model) (*model.Model, error) {
	net, err := model.Load(ctx, m.Dir, model.Options{Backend: d.backend, Widen: m.Adapter != nil})
	if err != nil || m.Adapter == nil {
		return net, err
	}
	if err := net.Refill(ctx, repair.Values(net.D, modelWeights{m})); err != nil {
		net.Close()
		return nil, err
	}
	return net, nil
}

// learn goes on from a map by the loss on the calibration data.
func (d *matchData) learn(ctx context.Context, spec *symmetry.Spec, a align.Weights, ref, m *plan.Model, start *align.Map, tokens *tokenPairs) (*align.Map, *Learned, error) {
	if err := sameText(tokens, d.k.a.Method); err != nil {
		return nil, nil, err
	}
	if err := d.open(); err != nil {
		return nil, nil, err
	}
	obj, err := d.objective(ctx, m, start)
	if err != nil {
		return nil, nil, err
	}
	defer obj.Close()
	l := d.k.a.Learn
	o := learn.Options{Start: start, Steps: l.Steps, Rate: l.LR, Lambda: l.Lambda, Groups: l.Groups, Seed: d.k.a.Seed, Threads: d.k.o.Threads,
		Progress: d.k.progress("learning the map of " + m.Name()), Matching: d.k.options(nil, "")}
	o.Matching.Progress = nil
	by := learn.Refine
	if d.k.a.Method == recipe.AlignSTE {
		by = learn.STE
	}
	r, err := by(ctx, spec, a, modelWeights{m}, obj, o)
	if err != nil {
		return nil, nil, err
	}
	return r.Map, &Learned{LossReference: r.HeldOut.A, LossModel: r.HeldOut.B, HeldOutBefore: r.HeldOut.Before, HeldOutAfter: r.HeldOut.After,
		TrainBefore: r.Train.Before, TrainAfter: r.Train.After, Steps: r.Steps, Best: r.Best}, nil
}

// objective is the loss of a model as a function of its weights.
func (d *matchData) objective(ctx context.Context, m *plan.Model, start *align.Map) (learn.Objective, error) {
	l := d.k.a.Learn
	o := calibrationOptions(d.k.p, d.k.p.Recipe.Calibration.Samples)
	if model.IsPlain(m.RawConfig) {
		desc, err := model.DescribePlain(m.RawConfig)
		if err != nil {
			return nil, err
		}
		set, err := calibration.Plain(desc, o)
		if err != nil {
			return nil, err
		}
		train, held, err := learn.HoldOut(set, l.HeldOut, d.k.a.Seed)
		if err != nil {
			return nil, err
		}
		return learn.NewPlain(desc, train, held, l.Batch, d.backend, 0)
	}
	desc, _, err := model.ReadDescription(m.Dir)
	if err != nil {
		return nil, err
	}
	if desc.Head != model.HeadLM {
		return nil, &model.InputError{File: m.Dir, Msg: fmt.Sprintf("method %s learns from the next tokens of texts, and this model predicts none; use weight, activation or dual", d.k.a.Method)}
	}
	o.Batch = l.Batch
	inputs, err := calibration.Inputs(ctx, m.TokenizerDir(), desc, o)
	if err != nil {
		return nil, err
	}
	// Whole batches are held out: their rows are of about one length, so taking them at random keeps both sides alike.
	order := samples.Shuffle(len(inputs), d.k.a.Seed)
	n := int(math.Ceil(l.HeldOut * float64(len(inputs))))
	if n >= len(inputs) {
		return nil, &model.InputError{Msg: fmt.Sprintf("the calibration data makes %d batches of %d rows, of which some must be held out and some stay to learn from; give more rows, or a smaller learn: {batch: N}", len(inputs), l.Batch)}
	}
	var train, held []learn.Batch
	for i, at := range order {
		b := learn.Batch{Input: inputs[at], Targets: nextTokens(&inputs[at])}
		if len(b.Targets.IDs) == 0 {
			continue
		}
		if i < n {
			held = append(held, b)
		} else {
			train = append(train, b)
		}
	}
	return learn.NewNetwork(ctx, desc, m.Checkpoint, train, held, learn.NetworkOptions{Backend: d.backend, Untied: len(start.Untied()) > 0, Recompute: true})
}

// nextTokens are the tokens that each position has to predict: the next one of the same text.
func nextTokens(in *model.Input) model.Targets {
	var t model.Targets
	for r := range in.Rows {
		for i := 1; i < in.Length; i++ {
			at := r*in.Length + i
			if in.Segments != nil && (in.Segments[at] == 0 || in.Segments[at] != in.Segments[at-1]) {
				continue
			}
			t.Rows = append(t.Rows, int32(at-1))
			t.IDs = append(t.IDs, in.IDs[at])
			t.Weights = append(t.Weights, 1)
		}
	}
	return t
}

// agreement is the cosine of the tensors of a spec, taken as one vector, and their distance.
func agreement(spec *symmetry.Spec, a, b align.Weights) (cosine, distance float64, err error) {
	var aa, bb, ab float64
	seen := map[string]bool{}
	for i := range spec.Groups {
		for _, r := range spec.Groups[i].Refs {
			if seen[r.Tensor] || r.Silent {
				continue
			}
			seen[r.Tensor] = true
			x, err := a.Read(r.Tensor)
			if err != nil {
				return 0, 0, err
			}
			y, err := b.Read(r.Tensor)
			if err != nil {
				return 0, 0, err
			}
			for j := range min(len(x), len(y)) {
				u, v := float64(x[j]), float64(y[j])
				aa, bb, ab = aa+u*u, bb+v*v, ab+u*v
			}
		}
	}
	return ab / math.Sqrt(aa*bb), math.Sqrt(max(0, aa+bb-2*ab)), nil
}
