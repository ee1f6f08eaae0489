package train

import (
	"context"
	"math"
	"testing"

	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
)

// TestMaskedUpdate compares three updates with pull, mask and decay with the formulas in float64: what is not in the mask keeps its
// bits and its moments stay 0, and the norm by which is clipped is that of what learns.
func TestMaskedUpdate(t *testing.T) {
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	const dir = "../../testdata/golden/train/llama-lora-qv/base"
	const name = "model.layers.0.self_attn.q_proj.weight"
	d, _, err := model.ReadDescription(dir)
	if err != nil {
		t.Fatal(err)
	}
	shape := d.Shapes()[name]
	n := shape[0] * shape[1]
	w := make([]float64, n)
	values := make([]float32, n)
	mask := make([]bool, n)
	for i := range w {
		values[i] = float32(math.Sin(float64(i)))
		w[i], mask[i] = float64(values[i]), i%3 == 1
	}
	m, err := model.Load(context.Background(), dir, model.Options{Backend: b, Overlay: &model.Overlay{Tensors: map[string]model.Tensor{name: {Shape: shape, Data: values}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	a := AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Clip: 0.5}
	e, err := NewEngine(a, m)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const at = 1 // the vector of the first block
	if err := e.keepStart(); err != nil {
		t.Fatal(err)
	}
	masks := make([][]bool, len(m.Vectors))
	masks[at] = mask
	if err := e.setMask(masks); err != nil {
		t.Fatal(err)
	}
	const pull, lr = 3e-3, 0.05
	if err := e.begin(true, pull); err != nil {
		t.Fatal(err)
	}
	opt := e.replicas[0].opt
	start := append([]float64(nil), w...)
	m1, m2 := make([]float64, n), make([]float64, n)
	for step := 1; step <= 3; step++ {
		gradient, g := make([]float32, n), make([]float64, n)
		norm, distance := 0.0, 0.0
		for i := range g {
			gradient[i] = float32(math.Cos(float64(i*step)) / 16)
			distance += math.Abs(w[i] - start[i])
			if !mask[i] {
				continue
			}
			g[i] = float64(gradient[i])
			if d := w[i] - start[i]; d != 0 {
				g[i] += math.Copysign(pull, d)
			}
			norm += g[i] * g[i]
		}
		norm = math.Sqrt(norm)
		clip := min(1, a.Clip/(norm+1e-6))
		c1, c2 := 1-math.Pow(a.Beta1, float64(step)), 1-math.Pow(a.Beta2, float64(step))
		for i := range w {
			if !mask[i] {
				continue
			}
			x := g[i] * clip
			w[i] *= 1 - lr*a.WeightDecay
			m1[i] = a.Beta1*m1[i] + (1-a.Beta1)*x
			m2[i] = a.Beta2*m2[i] + (1-a.Beta2)*x*x
			w[i] -= lr / c1 * m1[i] / (math.Sqrt(m2[i])/math.Sqrt(c2) + a.Eps)
		}
		grads := e.replicas[0].grads
		_ = grads.Sums[at].FinalizeAll()
		if grads.Sums[at], err = m.Put(gradient, n); err != nil {
			t.Fatal(err)
		}
		pulled, err := opt.focus(grads)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(pulled-pull*distance) > 1e-5*pull*distance {
			t.Errorf("step %d: the pull adds %v, want %v", step, pulled, pull*distance)
		}
		got, err := opt.norm(grads)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got-norm) > 1e-6*norm {
			t.Errorf("step %d: norm %v, want %v", step, got, norm)
		}
		if err := opt.update(grads, step, lr, min(1, a.Clip/(got+1e-6))); err != nil {
			t.Fatal(err)
		}
		now, err := gt.CopyFlatData[float32](m.Vectors[at].Value)
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range now {
			if !mask[i] && math.Float32bits(x) != math.Float32bits(values[i]) {
				t.Fatalf("step %d: element %d is not in the mask and went from %v to %v", step, i, values[i], x)
			}
			if math.Abs(float64(x)-w[i]) > 1e-6 {
				t.Fatalf("step %d: element %d is %v, want %v", step, i, x, w[i])
			}
		}
		for _, s := range []*gt.Tensor{opt.state[at].m, opt.state[at].v} {
			f, err := gt.CopyFlatData[float32](s)
			if err != nil {
				t.Fatal(err)
			}
			for i, x := range f {
				if !mask[i] && x != 0 {
					t.Fatalf("step %d: the moment of element %d, which is not in the mask, is %v", step, i, x)
				}
			}
		}
	}
}
