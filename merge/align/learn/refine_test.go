package learn

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const golden = "../../../testdata/golden/"

func goBackend(t *testing.T) compute.Backend {
	t.Helper()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

// transformer opens a golden checkpoint with its spec.
func transformer(t *testing.T, dir, kinds string) (*model.Description, *tensors.Checkpoint, *symmetry.Spec) {
	t.Helper()
	d, config, err := model.ReadDescription(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := symmetry.Of(config, c)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = s.Restrict(kinds, symmetry.AllGroups()); err != nil {
		t.Fatal(err)
	}
	return d, c, s
}

// texts are rows of token ids.
func texts(vocab, rows, length int, seed uint64) [][]int32 {
	out := make([][]int32, rows)
	for r := range out {
		for i := range length {
			out[r] = append(out[r], int32(number(seed, uint64(r), uint64(i))%uint64(vocab)))
		}
	}
	return out
}

// network makes an objective of a golden transformer on random rows.
func network(t *testing.T, d *model.Description, c *tensors.Checkpoint, untied bool) *Network {
	t.Helper()
	var batches []Batch
	for i := range uint64(4) {
		if d.Image == nil {
			batches = append(batches, NextTokens(texts(d.Vocab, 4, 12, i)))
			continue
		}
		in := model.Input{Rows: 3, Length: d.Image.Count() + 1, Pixels: make([]float32, 3*d.Image.Pixels())}
		for k := range in.Pixels {
			in.Pixels[k] = float32(share(i, uint64(k)) - 0.5)
		}
		batches = append(batches, Batch{in, d.ClassTargets(in, []int32{0, 1, 2}, []float32{1, 1, 1})})
	}
	n, err := NewNetwork(context.Background(), d, c, batches[:3], batches[3:], NetworkOptions{Backend: goBackend(t), Untied: untied})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// disturbed returns tensors with noise, so that a second model is near the first one but not it.
func disturbed(t *testing.T, w align.Weights, noise float64) map[string]model.Tensor {
	t.Helper()
	out := map[string]model.Tensor{}
	for k, name := range w.Names() {
		info, _ := w.Lookup(name)
		v, err := w.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range v {
			v[i] += float32(noise * (2*share(uint64(k), uint64(i)) - 1))
		}
		out[name] = model.Tensor{Shape: info.Shape, Data: v}
	}
	return out
}

var refined = []struct {
	dir, kinds string
	groups     []string
}{
	{"llama", symmetry.Auto, []string{Residual, Phases, VO}},
	{"llama-tied-bias", symmetry.Full, []string{Residual, Phases, VO}},
	{"llama-tied-bias", symmetry.Auto, []string{Phases}},
	{"qwen2", symmetry.Auto, []string{Residual, Phases, VO}},
	{"vit", symmetry.Auto, []string{QK, VO}},
	{"gpt2", symmetry.Auto, []string{QK, VO}},
}

// TestGradientByDifference compares the gradient by every kind of group with differences of losses, at a point away from where
// learning begins.
func TestGradientByDifference(t *testing.T) {
	ctx := context.Background()
	for _, c := range refined {
		t.Run(c.dir+" "+c.kinds, func(t *testing.T) {
			d, ckpt, spec := transformer(t, golden+"forward/"+c.dir, c.kinds)
			obj := network(t, d, ckpt, c.kinds == symmetry.Full)
			a := align.OfCheckpoint(ckpt)
			other := disturbed(t, a, 0.05)
			first, err := align.Random(spec, 3, align.RandomOptions{Gains: true})
			if err != nil {
				t.Fatal(err)
			}
			gains, err := align.ReadGains(spec, a)
			if err != nil {
				t.Fatal(err)
			}
			own, err := align.ReadGains(spec, align.OfTensors(other))
			if err != nil {
				t.Fatal(err)
			}
			first = first.WithGains(own, gains)
			p, err := newPair(spec, a, align.OfTensors(other), obj)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.hold(); err != nil {
				t.Fatal(err)
			}
			tn, err := newTurner(p, a, first, Options{Groups: c.groups})
			if err != nil {
				t.Fatal(err)
			}
			// Away from the identity, in all groups at once.
			direction := make([][]float64, len(tn.groups))
			for k, l := range tn.groups {
				n := l.group.Size * l.group.Size
				if l.phases != nil {
					n = l.group.Size
				}
				v := make([]float64, n)
				for i := range v {
					v[i] = 2*share(7, uint64(k), uint64(i)) - 1
				}
				if l.matrix != nil {
					v = skew(v, l.group.Size)
				}
				direction[k] = v
				put(t, l, v, 0.1)
			}
			const s = 0.3
			loss := func() float64 {
				now, err := tn.weights()
				if err != nil {
					t.Fatal(err)
				}
				l, err := p.mean(ctx, p.between(now, s), false)
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			now, err := tn.weights()
			if err != nil {
				t.Fatal(err)
			}
			sums := make([][]float64, len(tn.groups))
			for step := range obj.Steps() { // the mean over all batches, which have as many targets each
				_, grad, err := obj.Gradient(ctx, p.between(now, s), 0, step)
				if err != nil {
					t.Fatal(err)
				}
				for k, l := range tn.groups {
					for i, g := range l.gradient(now, grad, tn.to, 1) {
						if sums[k] == nil {
							sums[k] = make([]float64, len(direction[k]))
						}
						sums[k][i] += (1 - s) * g / float64(obj.Steps())
					}
				}
			}
			var steepest float64
			for k, l := range tn.groups {
				// Along the gradient itself, in which the loss moves most.
				var norm float64
				for _, g := range sums[k] {
					norm += g * g
				}
				norm = math.Sqrt(norm)
				steepest = max(steepest, norm)
				if norm < 1e-5 {
					continue // what float32 losses cannot tell
				}
				unit := slices.Clone(sums[k])
				for i := range unit {
					unit[i] /= norm
				}
				matrix, phases := slices.Clone(l.matrix), slices.Clone(l.phases)
				at := func(h float64) float64 {
					l.matrix, l.phases = slices.Clone(matrix), slices.Clone(phases)
					put(t, l, unit, h)
					return loss()
				}
				h := 0.05
				slope := (8*(at(h)-at(-h)) - (at(2*h) - at(-2*h))) / (12 * h)
				l.matrix, l.phases = matrix, phases
				if math.Abs(slope-norm) > 0.01*norm+5e-5 { // losses in float32 are exact to 1e-6 or so
					t.Errorf("%s: the loss falls by %.5g along a gradient of %.5g", l.group.ID, slope, norm)
				}
			}
			if steepest < 1e-3 {
				t.Errorf("no gradient is larger than %.3g", steepest)
			}
		})
	}
}

// put moves a group along a direction.
func put(t *testing.T, l *learned, direction []float64, h float64) {
	t.Helper()
	for j := range l.phases {
		l.phases[j] += h * direction[j]
	}
	if l.matrix == nil {
		return
	}
	d := slices.Clone(direction)
	for i := range d {
		d[i] *= h
	}
	q, err := rotation(d, l.group.Size)
	if err != nil {
		t.Fatal(err)
	}
	l.matrix = turn(q, l.matrix, l.group.Size)
}

// TestRefine begins with the map that undoes a random one, turned away from it, and learns back: the loss between the models falls
// on rows that were not learned from, the map is exact, and a second run has the same bits.
func TestRefine(t *testing.T) {
	ctx := context.Background()
	d, ckpt, spec := transformer(t, golden+"forward/llama", symmetry.Auto)
	obj := network(t, d, ckpt, false)
	a := align.OfCheckpoint(ckpt)
	gains, err := align.ReadGains(spec, a)
	if err != nil {
		t.Fatal(err)
	}
	turned, err := align.Random(spec, 5, align.RandomOptions{Kind: func(g *symmetry.Group) symmetry.Kind {
		if g.ID == "res" {
			return symmetry.Orthogonal
		}
		return ""
	}})
	if err != nil {
		t.Fatal(err)
	}
	// A rotation by little, so that there is a way back for few steps.
	l := &learned{group: &spec.Groups[0], matrix: unit(d.Hidden)}
	v := make([]float64, d.Hidden*d.Hidden)
	for i := range v {
		v[i] = 2*share(9, uint64(i)) - 1
	}
	put(t, l, skew(v, d.Hidden), 0.1)
	turned.Elements["res"] = align.Element{Kind: symmetry.Orthogonal, Matrix: l.matrix}
	turned = turned.WithGains(gains, gains)
	b := align.OfTensors(disturbed(t, align.Aligned(a, turned), 0))
	run := func() *Result {
		r, err := Refine(ctx, spec, a, b, obj, Options{Start: align.Identity(spec), Steps: 40, Rate: 5e-3, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := run()
	before, after := r.HeldOut.Barriers()
	t.Logf("held out: barrier %.4f to %.4f, at step %d; train %.4f to %.4f", before, after, r.Best, r.Train.Before, r.Train.After)
	if !(after < before/2) || !(r.Train.After < r.Train.Before) {
		t.Errorf("held out: barrier %.4f to %.4f; train %.4f to %.4f", before, after, r.Train.Before, r.Train.After)
	}
	if r.HeldOut.After != r.Trace[slices.IndexFunc(r.Trace, func(p Point) bool { return p.Step == r.Best })].HeldOut {
		t.Errorf("the map that was taken has the loss %v, the trace %v", r.HeldOut.After, r.Trace)
	}
	p, err := newPair(spec, a, align.Aligned(b, r.Map), obj)
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.read(b)
	if err != nil {
		t.Fatal(err)
	}
	y, err := p.read(align.Aligned(b, r.Map))
	if err != nil {
		t.Fatal(err)
	}
	was, err := p.mean(ctx, x, true)
	if err != nil {
		t.Fatal(err)
	}
	if is, err := p.mean(ctx, y, true); err != nil || math.Abs(was-is) > 1e-5 {
		t.Errorf("the aligned model has the loss %v, the model %v (%v)", is, was, err)
	}
	if err := r.Map.Validate(); err != nil {
		t.Error(err)
	}
	if again := run(); !slices.Equal(again.Map.Elements["res"].Matrix, r.Map.Elements["res"].Matrix) || !slices.Equal(again.Trace, r.Trace) {
		t.Error("a second run found another map")
	}
}

// TestNothingToLearn names the group and says what to do where only permutations and signs are allowed.
func TestNothingToLearn(t *testing.T) {
	for _, c := range []struct {
		dir, kinds string
		groups     []string
		want       string
	}{
		{"llama", symmetry.Permutation, nil, "group res: there is nothing to learn: its maps are perm"},
		{"llama", symmetry.Signed, []string{Residual, Phases}, "there is nothing to learn: its maps are signed_perm, rope_plane"},
		{"llama-tied-bias", symmetry.Auto, nil, "symmetry: full turns the stream where the architecture allows it (a head that is the embedding becomes its own)"},
		{"gpt2", symmetry.Auto, nil, "there is nothing to learn"},
		{"llama", symmetry.Auto, []string{"resid"}, "has no group that resid means"},
	} {
		d, ckpt, spec := transformer(t, golden+"forward/"+c.dir, c.kinds)
		obj := network(t, d, ckpt, false)
		a := align.OfCheckpoint(ckpt)
		_, err := Refine(context.Background(), spec, a, a, obj, Options{Start: align.Identity(spec), Groups: c.groups})
		var bad *align.Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %s", c.dir, c.kinds, err, c.want)
		}
	}
}

func TestMain(m *testing.M) {
	if _, err := os.Stat(filepath.Join(golden, "forward")); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
