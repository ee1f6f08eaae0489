package soup_test

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/soup"
	"github.com/mergekit/mergekit/model"
)

// TestGradientOfMix compares the gradient by mixing weights, computed from inner products with the gradient of one model, with what
// GoMLX finds by going back through the mix itself, softmax and all.
func TestGradientOfMix(t *testing.T) {
	const k, n = 5, 40
	s := networks(t, k, 0.3)
	file, x, classes := rows(t, n)
	_, l := learner(t, network, "", file, s)
	for _, granularity := range []string{soup.ByModel, soup.ByLayer, soup.ByTensor} {
		groups := soup.GroupTensors(s, granularity)
		b := &soup.Blend{Set: s, Groups: groups, Form: soup.Softmax{}}
		r := newNoise(11)
		var flat []float64
		for range groups.Names {
			one := make([]float64, k)
			for i, v := range r.vector(k) {
				one[i] = float64(v)
			}
			b.N, flat = append(b.N, one), append(flat, one...)
		}
		const temperature = 0.7
		l.Temper(temperature)
		got, gradient, err := b.Gradient(context.Background(), l, all(n), model.ObjectiveLoss)
		if err != nil {
			t.Fatal(err)
		}
		loss, want := throughMix(t, s, granularity, flat, len(groups.Names), x, classes, temperature)
		if math.Abs(got.MeanLoss()-loss) > 1e-5*loss {
			t.Errorf("%s: loss %v, through the mix %v", granularity, got.MeanLoss(), loss)
		}
		largest := 0.0
		for _, w := range want {
			largest = max(largest, math.Abs(w))
		}
		for g := range gradient {
			for i, d := range gradient[g] {
				if math.Abs(d-want[g*k+i]) > 1e-5*largest {
					t.Errorf("%s: group %d, ingredient %d: %v, through the mix %v", granularity, g, i, d, want[g*k+i])
				}
			}
		}
	}
}

// throughMix differentiates the loss of the mixed network by the numbers in one graph, in float64.
func throughMix(t *testing.T, s *soup.Set, granularity string, numbers []float64, groups int, x []float32, classes []int, temperature float64) (loss float64, gradient []float64) {
	t.Helper()
	k := len(s.List)
	at := map[string]int{"first.weight": 0, "first.bias": 0, "last.weight": 0, "last.bias": 0}
	switch granularity {
	case soup.ByLayer:
		at["last.weight"], at["last.bias"] = 1, 1
	case soup.ByTensor:
		for i, info := range s.Tensors {
			at[info.Name] = i
		}
	}
	args := []any{gt.FromFlatDataAndDimensions(numbers, groups, k)}
	var names []string
	for _, info := range s.Tensors {
		var stack []float64
		for _, one := range s.List {
			v, err := one.Weights.Read(info.Name)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range v {
				stack = append(stack, float64(f))
			}
		}
		names = append(names, info.Name)
		args = append(args, gt.FromFlatDataAndDimensions(stack, append([]int{k}, info.Shape...)...))
	}
	wide := make([]float64, len(x))
	for i, v := range x {
		wide[i] = float64(v)
	}
	labels := make([]int32, len(classes))
	for i, c := range classes {
		labels[i] = int32(c)
	}
	args = append(args, gt.FromFlatDataAndDimensions(wide, len(classes), 4), gt.FromFlatDataAndDimensions(labels, len(classes)))
	e, err := NewExec(goBackend(t), func(in []*Node) []*Node {
		shares := Softmax(in[0], 1)
		w := map[string]*Node{}
		for i, name := range names {
			share := Reshape(SliceAxis(shares, 0, AxisElem(at[name])), k)
			w[name] = DotGeneral(share, []int{0}, nil, in[1+i], []int{0}, nil)
		}
		h := Tanh(Add(DotGeneral(in[len(in)-2], []int{1}, nil, w["first.weight"], []int{1}, nil), InsertAxes(w["first.bias"], 0)))
		z := Add(DotGeneral(h, []int{1}, nil, w["last.weight"], []int{1}, nil), InsertAxes(w["last.bias"], 0))
		z = DivScalar(z, temperature)
		logs := Sub(z, InsertAxes(Log(ReduceSum(Exp(z), 1)), -1))
		loss := Neg(ReduceAllMean(ReduceSum(Mul(logs, OneHot(in[len(in)-1], 3, dtypes.Float64)), 1)))
		return append([]*Node{loss}, Gradient(loss, in[0])...)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Finalize()
	out, err := e.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	l, err := gt.CopyFlatData[float64](out[0])
	if err != nil {
		t.Fatal(err)
	}
	if gradient, err = gt.CopyFlatData[float64](out[1]); err != nil {
		t.Fatal(err)
	}
	return l[0], gradient
}

// TestGradientByDifference compares gradients by the numbers with differences, for a decoder and a network, the loss and the entropy,
// soups and task vectors.
func TestGradientByDifference(t *testing.T) {
	type bed struct {
		s *soup.Set
		l soup.Learner
		n int
	}
	plain := networks(t, 4, 0.5)
	file, _, _ := rows(t, 30)
	_, pl := learner(t, network, "", file, plain)
	deep, config, dir, file := llamas(t, 3)
	_, dl := learner(t, config, dir, file, deep)
	for name, bed := range map[string]bed{"network": {plain, pl, 30}, "decoder": {deep, dl, 9}} {
		k := len(bed.s.List)
		for form, f := range map[string]soup.Form{"softmax": soup.Softmax{}, "task vectors": soup.TaskVectors{}} {
			for _, objective := range []model.Objective{model.ObjectiveLoss, model.ObjectiveEntropy} {
				groups := soup.GroupTensors(bed.s, soup.ByLayer)
				b := &soup.Blend{Set: bed.s, Groups: groups, Form: f}
				r := newNoise(2)
				width := k
				if form == "task vectors" {
					width--
				}
				for range groups.Names {
					one := make([]float64, width)
					for i, v := range r.vector(width) {
						one[i] = 0.3 + 0.2*float64(v)
					}
					b.N = append(b.N, one)
				}
				value := func() (float64, soup.Numbers) {
					res, g, err := b.Gradient(context.Background(), bed.l, all(bed.n), objective)
					if err != nil {
						t.Fatal(err)
					}
					return res.Loss / res.Weight, g
				}
				_, gradient := value()
				norm := 0.0
				for g := range gradient {
					for _, d := range gradient[g] {
						norm += d * d
					}
				}
				norm = math.Sqrt(norm)
				if norm == 0 {
					t.Fatalf("%s, %s, %v: no gradient", name, form, objective)
				}
				start := b.N
				side := func(step float64) float64 {
					b.N = nil
					for g := range start {
						one := slices.Clone(start[g])
						for i := range one {
							one[i] += step * gradient[g][i] / norm
						}
						b.N = append(b.N, one)
					}
					v, _ := value()
					return v
				}
				const step = 0.02
				slope := (side(step) - side(-step)) / (2 * step)
				if math.Abs(slope-norm) > 5e-3*norm+1e-5 {
					t.Errorf("%s, %s, %v: slope %v, gradient %v", name, form, objective, slope, norm)
				}
			}
		}
	}
}

// TestGradientStreams: gradients that are shown block by block and those that are summed over batches are the same.
func TestGradientStreams(t *testing.T) {
	s, config, dir, file := llamas(t, 1)
	ctx := context.Background()
	gradient := func(batch int, stream bool) map[string][]float32 {
		t.Helper()
		j, err := evaluation.Open(ctx, []byte(config), dir, evaluation.Options{Data: calibration.Options{Files: []string{file}, Batch: batch}, Backend: goBackend(t)})
		if err != nil {
			t.Fatal(err)
		}
		l, err := j.Learner(ctx, s.List[0].Weights, func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out := map[string][]float32{}
		see := func(name string, g []float32) error {
			if out[name] != nil {
				t.Errorf("%s is shown twice", name)
			}
			out[name] = slices.Clone(g)
			return nil
		}
		if stream {
			_, err = l.GradientTo(ctx, all(8), model.ObjectiveLoss, see)
		} else if _, err = l.Gradient(ctx, all(8), model.ObjectiveLoss); err == nil {
			err = l.Visit(see)
		}
		if err != nil || len(out) != len(s.Tensors) {
			t.Fatalf("%d of %d tensors, %v", len(out), len(s.Tensors), err)
		}
		return out
	}
	want := gradient(8, false)
	for _, got := range []map[string][]float32{gradient(8, true), gradient(3, true), gradient(3, false)} {
		for name, w := range want {
			largest := 0.0
			for _, x := range w {
				largest = max(largest, math.Abs(float64(x)))
			}
			for i, x := range w {
				if math.Abs(float64(x-got[name][i])) > 1e-5*largest {
					t.Fatalf("%s[%d] is %v, want %v", name, i, got[name][i], x)
				}
			}
		}
	}
}
