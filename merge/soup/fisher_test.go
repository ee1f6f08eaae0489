package soup_test

import (
	"context"
	"math"
	"testing"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/soup"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// TestFisher: of a linear map with softmax the gradient of a row's log likelihood is (onehot - p) times the input, so its Fisher
// information and the merge are known in closed form.
func TestFisher(t *testing.T) {
	ctx := context.Background()
	const config = `{"model_type": "mlp", "input_shape": [4], "layers": [{"type": "linear", "name": "fc", "out": 3}]}`
	const n = 25
	file, x, classes := rows(t, n)
	r := newNoise(8)
	infos := []tensors.Info{{Name: "fc.bias", DType: tensors.F32, Shape: []int{3}}, {Name: "fc.weight", DType: tensors.F32, Shape: []int{3, 4}}}
	j, err := evaluation.Open(ctx, []byte(config), "", evaluation.Options{Data: calibration.Options{Files: []string{file}}, Backend: goBackend(t)})
	if err != nil {
		t.Fatal(err)
	}
	var list []soup.Ingredient
	var importance []soup.Importance
	weight := []float64{1, 0.5}
	num, den := map[string][]float64{"fc.weight": make([]float64, 12), "fc.bias": make([]float64, 3)}, map[string][]float64{"fc.weight": make([]float64, 12), "fc.bias": make([]float64, 3)}
	for k := range 2 {
		w, b := r.vector(12), r.vector(3)
		values := map[string]model.Tensor{"fc.weight": {Shape: []int{3, 4}, Data: w}, "fc.bias": {Shape: []int{3}, Data: b}}
		one := soup.Ingredient{Name: string(rune('a' + k)), Weights: align.OfTensors(values)}
		list = append(list, one)
		l, err := j.Learner(ctx, one.Weights, func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		sum := map[string][]float32{}
		norm, err := soup.EstimateFisher(ctx, soup.Of(l), n, sum, nil)
		l.Close()
		if err != nil {
			t.Fatal(err)
		}
		want := map[string][]float64{"fc.weight": make([]float64, 12), "fc.bias": make([]float64, 3)}
		for i := range n {
			var z [3]float64
			total := 0.0
			for c := range z {
				z[c] = float64(b[c])
				for d := range 4 {
					z[c] += float64(w[4*c+d]) * float64(x[4*i+d])
				}
				z[c] = math.Exp(z[c])
				total += z[c]
			}
			for c := range z {
				g := z[c] / total
				if c == classes[i] {
					g--
				}
				want["fc.bias"][c] += g * g / n
				for d := range 4 {
					v := g * float64(x[4*i+d])
					want["fc.weight"][4*c+d] += v * v / n
				}
			}
		}
		square := 0.0
		fisher := map[string]model.Tensor{}
		for name, f := range want {
			for e, v := range f {
				if math.Abs(float64(sum[name][e])-v) > 1e-5*v+1e-8 {
					t.Errorf("model %d: %s[%d] is %v, want %v", k, name, e, sum[name][e], v)
				}
				square += v * v
				num[name][e] += weight[k] * math.Max(v, soup.FisherFloor) * float64(values[name].Data[e])
				den[name][e] += weight[k] * math.Max(v, soup.FisherFloor)
			}
			fisher[name] = model.Tensor{Shape: values[name].Shape, Data: sum[name]}
		}
		if math.Abs(norm-math.Sqrt(square)) > 1e-5*norm {
			t.Errorf("norm %v, want %v", norm, math.Sqrt(square))
		}
		importance = append(importance, soup.Importance{Fisher: align.OfTensors(fisher), Scale: 1, Weight: func(string) float64 { return weight[k] }})
	}
	s, err := soup.NewSet(list, infos)
	if err != nil {
		t.Fatal(err)
	}
	mix := s.Fisher(importance)
	for _, name := range mix.Names() {
		got, err := mix.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		for e := range got {
			if want := num[name][e] / den[name][e]; math.Abs(float64(got[e])-want) > 1e-5 {
				t.Errorf("merged %s[%d] is %v, want %v", name, e, got[e], want)
			}
		}
	}
	// What no row depends on is averaged.
	none := soup.Importance{Fisher: align.OfTensors(nil), Scale: 1, Weight: func(string) float64 { return 1 }}
	got, err := s.Fisher([]soup.Importance{none, none}).Read("fc.bias")
	if err != nil {
		t.Fatal(err)
	}
	mean, err := s.Counted([]int{1, 1}).Read("fc.bias")
	if err != nil || math.Abs(float64(got[1]-mean[1])) > 1e-7 {
		t.Errorf("%v, want the mean %v, %v", got, mean, err)
	}
}

// TestFisherOfTexts: the log likelihood of a text is the sum over its tokens, so that a long row tells more than a short one.
func TestFisherOfTexts(t *testing.T) {
	s, config, dir, file := llamas(t, 1)
	ctx := context.Background()
	j, err := evaluation.Open(ctx, []byte(config), dir, evaluation.Options{Data: calibration.Options{Files: []string{file}}, Backend: goBackend(t)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := j.Learner(ctx, s.List[0].Weights, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	want, lengths := map[string][]float64{}, map[float64]bool{}
	for row := range j.Rows() {
		r, err := l.Gradient(ctx, []int{row}, model.ObjectiveLoss)
		if err != nil {
			t.Fatal(err)
		}
		lengths[r.Weight] = true
		err = l.Visit(func(name string, g []float32) error {
			if want[name] == nil {
				want[name] = make([]float64, len(g))
			}
			for i, x := range g {
				sum := r.Weight * float64(x) // the gradient is of the mean over the row's tokens
				want[name][i] += sum * sum / float64(j.Rows())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(lengths) < 2 || lengths[1] {
		t.Fatalf("the rows teach %v tokens: the test needs several lengths above 1", lengths)
	}
	got := map[string][]float32{}
	if _, err := soup.EstimateFisher(ctx, soup.Of(l), j.Rows(), got, nil); err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		for i, x := range w {
			if math.Abs(float64(got[name][i])-x) > 1e-4*x+1e-9 {
				t.Fatalf("%s[%d] is %v, want %v", name, i, got[name][i], x)
			}
		}
	}
	if _, err := soup.Of(l).Targets(j.Rows()); err == nil {
		t.Error("targets of a row that there is not")
	}
}
