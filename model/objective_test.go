package model

import (
	"fmt"
	"math"
	"slices"
	"testing"

	gt "github.com/gomlx/gomlx/core/tensors"
)

// objectives are what passes can go backwards from beside the plain loss.
var objectives = []PassOptions{
	{Objective: ObjectiveEntropy, Factor: 1},
	{Objective: ObjectiveEntropy, Factor: 1, Scale: 1.7},
	{Objective: ObjectiveLoss, Factor: 1, Scale: 0.6},
}

// valueOf computes an objective from logits in float64.
func valueOf(o PassOptions, logits []float32, target int) float64 {
	scale := 1.0
	if o.Scale != 0 {
		scale = float64(o.Scale)
	}
	top := float64(slices.Max(logits)) * scale
	var sum float64
	for _, z := range logits {
		sum += math.Exp(float64(z)*scale - top)
	}
	lse := top + math.Log(sum)
	if o.Objective == ObjectiveLoss {
		return lse - scale*float64(logits[target])
	}
	var h float64
	for _, z := range logits {
		log := float64(z)*scale - lse
		h -= math.Exp(log) * log
	}
	return h
}

// TestObjectives compares values with ones from logits, and gradients with differences along themselves, for a decoder, an encoder
// that tells classes, and images.
func TestObjectives(t *testing.T) {
	b := goBackend(t)
	for _, name := range []string{"llama", "gemma2", "bert that tells classes", "vit"} {
		c := trainable[slices.IndexFunc(trainable, func(c struct {
			name, dir string
			change    map[string]any
		}) bool {
			return c.name == name
		})]
		for _, o := range objectives {
			t.Run(fmt.Sprintf("%s/%v times %v", name, o.Objective, o.Scale), func(t *testing.T) {
				m := tuned(t, b, changed(t, c.dir, c.change), func(_ *testing.T, _ *Description, base map[string]Tensor) *Overlay { return &Overlay{Tensors: base} })
				in, targets := packedBatch(m.D)
				value := func() (float64, [][]float32) { return backward(t, m, in, targets, o) }
				got, grads := value()
				var want float64
				if m.D.Head == HeadLM {
					out, err := m.RowLogits(in, targets.Rows, nil)
					if err != nil {
						t.Fatal(err)
					}
					for i, w := range targets.Weights {
						want += float64(w) * valueOf(o, out.Data[i*m.D.Vocab:(i+1)*m.D.Vocab], int(targets.IDs[i]))
					}
				} else {
					out, err := m.Forward(in)
					if err != nil {
						t.Fatal(err)
					}
					n := m.D.NumLabels
					length := in.Length
					for i, w := range targets.Weights {
						row := int(targets.Rows[i]) / length
						want += float64(w) * valueOf(o, out.Data[row*n:(row+1)*n], int(targets.IDs[i]))
					}
				}
				if math.Abs(got-want) > 2e-5*math.Abs(want) {
					t.Errorf("%v, want %v", got, want)
				}
				k := 0
				for _, v := range m.Vectors {
					if v == nil {
						continue
					}
					values, err := gt.CopyFlatData[float32](v.Value)
					if err != nil {
						t.Fatal(err)
					}
					slopes(t, v.Prefix, values, grads[k], func(x []float32) float64 {
						if err := m.SetVector(v, x); err != nil {
							t.Fatal(err)
						}
						at, _ := value()
						return at
					})
					k++
				}
			})
		}
	}
}

// slopes compares the norm of a gradient with the slope of f along it.
func slopes(t *testing.T, what string, at, gradient []float32, f func(x []float32) float64) {
	t.Helper()
	var square float64
	for _, g := range gradient {
		square += float64(g) * float64(g)
	}
	norm := math.Sqrt(square)
	if norm == 0 {
		t.Errorf("%s has no gradient", what)
		return
	}
	step := min(0.05/norm, 0.01)
	side := func(sign float64) float64 {
		moved := slices.Clone(at)
		for i, g := range gradient {
			moved[i] += float32(sign * step * float64(g) / norm)
		}
		return f(moved)
	}
	slope := (side(1) - side(-1)) / (2 * step)
	f(at)
	// Values are exact to about 1e-5.
	if d := math.Abs(slope - norm); d > 3e-3*norm+1e-5/step {
		t.Errorf("%s: slope %.6g, gradient %.6g", what, slope, norm)
	}
}

// TestPlainObjectives is TestObjectives for plain networks, whose labels may be missing for the entropy.
func TestPlainObjectives(t *testing.T) {
	b := goBackend(t)
	d, err := DescribePlain([]byte(`{"model_type": "mlp", "input_shape": [5], "layers": [{"type": "linear", "name": "a", "out": 7}, {"type": "tanh"}, {"type": "linear", "name": "b", "out": 4}]}`))
	if err != nil {
		t.Fatal(err)
	}
	n := noise(3)
	values := map[string]Tensor{}
	for _, s := range d.Tensors() {
		values[s.Name] = n.tensor(1, s.Shape...)
	}
	m, err := NewPlain(d, values, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	const rows = 6
	x := n.tensor(2, rows, 5).Data
	labels := Labels{Classes: []int32{0, 3, 1, 2, 2, 0}}
	logits, err := m.Forward(x, rows)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objectives {
		l := labels
		if o.Objective == ObjectiveEntropy {
			l = Labels{}
		}
		value := func() (float64, []float32) {
			g, err := m.NewGradients()
			if err != nil {
				t.Fatal(err)
			}
			defer g.Free()
			r, err := m.BackwardOf(x, l, rows, g, PlainPass{Objective: o.Objective, Scale: o.Scale, Factor: 1})
			if err != nil {
				t.Fatal(err)
			}
			flat, err := gt.CopyFlatData[float32](g.Sums[0])
			if err != nil {
				t.Fatal(err)
			}
			return r.Loss, flat
		}
		got, gradient := value()
		want := 0.0
		for i := range rows {
			want += valueOf(o, logits.Data[4*i:4*i+4], int(labels.Classes[i]))
		}
		if math.Abs(got-want) > 2e-5*want {
			t.Errorf("%v times %v: %v, want %v", o.Objective, o.Scale, got, want)
		}
		at, err := gt.CopyFlatData[float32](m.Weights.Value)
		if err != nil {
			t.Fatal(err)
		}
		slopes(t, fmt.Sprint(o.Objective, " times ", o.Scale), at, gradient, func(x []float32) float64 {
			if err := m.SetVector(m.Weights, x); err != nil {
				t.Fatal(err)
			}
			v, _ := value()
			return v
		})
	}
	d.Loss = SquaredError
	if _, err := m.BackwardOf(x, Labels{}, rows, &Gradients{}, PlainPass{Objective: ObjectiveEntropy}); err == nil {
		t.Error("a network of values has an entropy")
	}
}
