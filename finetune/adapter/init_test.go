package adapter

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
)

// weightOf is a full-rank weight of the module.
func weightOf(m Module) ([]float32, error) {
	w := make([]float32, m.In*m.Out)
	linalg.Normal(w, 3, m.Path)
	return w, nil
}

func initFor(t *testing.T, method, dir string, names ...string) (*Config, []Target, map[string]Tensor) {
	t.Helper()
	c := Defaults()
	c.R, c.Alpha, c.Init = 4, 6, method
	c.Targets.Names = names
	targets, err := Select(c, modulesOf(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	x, err := Init(c, targets, 11, weightOf)
	if err != nil {
		t.Fatal(err)
	}
	return c, targets, x
}

func moments(x []float32) (low, high, std float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, v := range x {
		low, high = min(low, float64(v)), max(high, float64(v))
		std += float64(v) * float64(v)
	}
	return low, high, math.Sqrt(std / float64(len(x)))
}

func TestInit(t *testing.T) {
	_, targets, x := initFor(t, "true", "models/base", "down_proj", "embed_tokens")
	for _, g := range targets {
		low, high, std := moments(x[g.A].Data)
		_, most, _ := moments(x[g.B].Data)
		if g.Kind == Embedding {
			_, _, b := moments(x[g.B].Data)
			if low != 0 || high != 0 || math.Abs(b-1) > 0.2 {
				t.Errorf("embedding: A within [%v, %v], B's deviation %v", low, high, b)
			}
			continue
		}
		bound := 1 / math.Sqrt(float64(g.In))
		if low < -bound || high > bound || high < 0.9*bound || math.Abs(std-bound/math.Sqrt(3)) > 0.1*bound || most != 0 {
			t.Errorf("%s: A within [%v, %v], deviation %v, bound %v; B up to %v", g.Path, low, high, std, bound, most)
		}
	}
	if x[targets[0].A].Data[0] == x[targets[1].A].Data[0] {
		t.Error("two modules begin with the same numbers")
	}
	_, again, y := initFor(t, "true", "models/base", "down_proj", "embed_tokens")
	if fmt.Sprint(x[targets[0].A]) != fmt.Sprint(y[again[0].A]) {
		t.Error("the same seed gives other numbers")
	}
	_, targets, x = initFor(t, "gaussian", "models/base", "down_proj")
	all := []float32{}
	for _, g := range targets {
		all = append(all, x[g.A].Data...)
	}
	if _, _, std := moments(all); math.Abs(std-1.0/4) > 0.02 {
		t.Errorf("gaussian: deviation %v", std)
	}
}

// delta is s·B·A [out, in].
func deltaOf(g *Target, x map[string]Tensor) []float32 {
	d := make([]float32, g.In*g.Out)
	m := g.Module
	m.Kind = Linear
	newLowRank(m, x[g.A].Data, x[g.B].Data, x[g.A].Shape[0], g.Scale).add(d, 0)
	return d
}

func largest(x []float32) float64 {
	low, high, _ := moments(x)
	return max(-low, high)
}

func TestInitOrthogonal(t *testing.T) {
	_, targets, x := initFor(t, "orthogonal", "models/base", "q_proj")
	g := &targets[0]
	if largest(x[g.A].Data) == 0 || largest(x[g.B].Data) == 0 || largest(deltaOf(g, x)) > 1e-6 {
		t.Errorf("A up to %v, B up to %v, product up to %v", largest(x[g.A].Data), largest(x[g.B].Data), largest(deltaOf(g, x)))
	}
	c := Defaults()
	c.R, c.Init = 3, "orthogonal"
	if _, err := Init(c, []Target{newTarget(c, g.Module)}, 0, weightOf); err == nil || !strings.Contains(err.Error(), "even rank") {
		t.Errorf("odd rank: %v", err)
	}
}

// TestInitFromWeight: PiSSA takes the weight's principal part, OLoRA a part with orthonormal columns; what is left plus the
// delta is the weight, also for transposed modules, and the converted adapter does to the original base what the trained
// one does to what is left.
func TestInitFromWeight(t *testing.T) {
	for _, method := range []string{"pissa", "pissa_niter_8", "olora"} {
		for _, dir := range []string{"models/base", "models/gpt2"} {
			t.Run(method+" "+dir, func(t *testing.T) {
				name := "down_proj"
				if dir == "models/gpt2" {
					name = "c_fc"
				}
				c, targets, x := initFor(t, method, dir, name)
				g := targets[0]
				w, _ := weightOf(g.Module)
				left := append([]float32(nil), w...)
				Residual(c, g, x, left)
				sum := append([]float32(nil), left...)
				newLowRank(g.Module, x[g.A].Data, x[g.B].Data, g.Rank, g.Scale).add(sum, 0)
				for i := range w {
					if math.Abs(float64(sum[i]-w[i])) > 1e-5 {
						t.Fatalf("the weight is not put together again: %v, want %v", sum[i], w[i])
					}
				}
				if strings.HasPrefix(method, "pissa") {
					s, err := linalg.Truncated(g.stored(w), 12, linalg.Options{ExactUpTo: 1 << 20})
					if err != nil {
						t.Fatal(err)
					}
					want := s.Frobenius
					for _, v := range s.S[:g.Rank] {
						want -= v * v
					}
					_, _, dev := moments(left)
					if got := dev * dev * float64(len(left)); math.Abs(got-want) > 1e-2*want {
						t.Errorf("what is left has squared norm %v, the best is %v", got, want)
					}
				}
				// Train a little, convert, compare.
				trained := map[string]Tensor{}
				for k, v := range x {
					d := append([]float32(nil), v.Data...)
					for i := range d {
						d[i] += float32(i%5) / 50
					}
					trained[k] = Tensor{v.Shape, d}
				}
				want := append([]float32(nil), left...)
				newLowRank(g.Module, trained[g.A].Data, trained[g.B].Data, g.Rank, g.Scale).add(want, 0)
				n, y, err := Converted(c, targets, x, trained)
				if err != nil {
					t.Fatal(err)
				}
				if n.R != 8 || n.Alpha != 12 || n.Init != "true" {
					t.Errorf("converted to r %d, alpha %v, init %s", n.R, n.Alpha, n.Init)
				}
				h := newTarget(n, g.Module)
				got := append([]float32(nil), w...)
				newLowRank(h.Module, y[h.A].Data, y[h.B].Data, h.Rank, h.Scale).add(got, 0)
				for i := range want {
					if math.Abs(float64(got[i]-want[i])) > 2e-5 {
						t.Fatalf("converted: %v, want %v", got[i], want[i])
					}
				}
			})
		}
	}
}

func TestInitDoRA(t *testing.T) {
	c := Defaults()
	c.DoRA, c.R = true, 2
	m := Module{Path: "w", Kind: Conv1D, In: 2, Out: 3, Shape: []int{2, 3}}
	x, err := Init(c, []Target{newTarget(c, m)}, 0, func(Module) ([]float32, error) { return []float32{3, 0, 1, 4, 2, 1}, nil })
	if err != nil {
		t.Fatal(err)
	}
	near(t, "magnitudes", x["base_model.model.w.lora_magnitude_vector"].Data, 5, 2, math.Sqrt2)
}

func TestInitRefuses(t *testing.T) {
	for _, method := range []string{"loftq", "eva", "corda", "lora_ga", "mica", "nonsense", "pissa_niter_0", "pissa_niter_x"} {
		c := Defaults()
		c.Init = method
		if _, err := Init(c, nil, 0, nil); err == nil || !strings.Contains(err.Error(), "init_lora_weights") {
			t.Errorf("%s: %v", method, err)
		}
	}
	c := Defaults()
	c.Init, c.R = "pissa", 9
	if _, err := Init(c, []Target{newTarget(c, Module{Path: "w", In: 8, Out: 20})}, 0, weightOf); err == nil || !strings.Contains(err.Error(), "smaller side") {
		t.Errorf("%v", err)
	}
}
