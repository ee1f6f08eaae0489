package schedule

import (
	"math"
	"strings"
	"testing"
)

// close compares relatively, and near 0 absolutely.
func closeTo(got, want, tolerance float64) bool {
	return math.Abs(got-want) <= tolerance*max(math.Abs(want), 1e-9)
}

func curve(t *testing.T, kind string, p Params) Curve {
	t.Helper()
	c, err := New(kind, p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFormulas has the values of the literature's formulas at chosen steps.
func TestFormulas(t *testing.T) {
	inf := Params{LR: 3e-4, ConstLR: 1.65e-4, MinLR: 3e-5, Warmup: 10, CooldownSteps: 100, DecaySteps: 100, Total: 600}
	infSqrt := inf
	infSqrt.Cooldown = "inv_sqrt"
	wsdOf := func(decay string) Params {
		return Params{LR: 1e-3, Warmup: 10, DecaySteps: 20, Total: 100, Decay: decay}
	}
	for _, test := range []struct {
		name, kind string
		p          Params
		at         []int
		want       []float64
	}{
		{"cosine as transformers", "cosine", Params{LR: 1, Warmup: 2, Total: 6, Offset: HF}, []int{1, 2, 3, 4, 5, 6}, []float64{0, .5, 1, .853553391, .5, .146446609}},
		{"cosine", "cosine", Params{LR: 1, Warmup: 2, Total: 6}, []int{1, 2, 3, 6}, []float64{.5, 1, .853553391, 0}},
		{"linear", "linear", Params{LR: 1, Warmup: 2, Total: 6}, []int{1, 2, 3, 4, 6, 9}, []float64{.5, 1, .75, .5, 0, 0}},
		{"linear to a tenth", "linear", Params{LR: 1, MinLR: .1, Total: 9}, []int{3, 9}, []float64{.7, .1}},
		{"constant", "constant", Params{LR: 2, Warmup: 4, Total: 6}, []int{1, 4, 6}, []float64{.5, 2, 2}},
		{"inverse root", "inv_sqrt", Params{LR: 1, Warmup: 4, Total: 100}, []int{2, 4, 16, 64}, []float64{.5, 1, .5, .25}},
		{"inverse root without a warm-up", "inv_sqrt", Params{LR: 1, Total: 30000}, []int{30000}, []float64{.5}},
		{"inverse root, floor", "inv_sqrt", Params{LR: 1, MinLR: .3, Warmup: 4, Total: 100}, []int{64}, []float64{.3}},
		{"wsd linear", "wsd", wsdOf("linear"), []int{5, 10, 80, 85, 90, 100}, []float64{5e-4, 1e-3, 1e-3, 7.5e-4, 5e-4, 0}},
		{"wsd 1-sqrt", "wsd", wsdOf("1-sqrt"), []int{85, 90}, []float64{5e-4, 2.9289322e-4}},
		{"wsd cosine", "wsd", wsdOf("cosine"), []int{85, 90}, []float64{8.5355339e-4, 5e-4}},
		{"infinite", "infinite", inf, []int{0, 5, 10, 35, 60, 110, 300, 500, 550, 600, 700},
			[]float64{0, 1.5e-4, 3e-4, 2.8022971e-4, 2.325e-4, 1.65e-4, 1.65e-4, 1.65e-4, 7.0356236e-5, 3e-5, 3e-5}},
		{"infinite, inverse root", "infinite", infSqrt, []int{10, 35, 60, 110}, []float64{3e-4, 2.100351e-4, 1.8562952e-4, 1.65e-4}},
		{"rewarm", "rewarm", Params{LR: 3e-4, MinLR: 3e-5, Warmup: 10, Total: 1000}, []int{0, 5, 10, 100, 505, 1000},
			[]float64{0, 1.5e-4, 3e-4, 2.9453155e-4, 1.65e-4, 3e-5}},
	} {
		c := curve(t, test.kind, test.p)
		for i, at := range test.at {
			if got := c(at); !closeTo(got, test.want[i], 1e-7) {
				t.Errorf("%s at %d: %.9g, want %.9g", test.name, at, got, test.want[i])
			}
		}
	}
}

// TestLateDecay has the learning rates of golden/train/llama-lora-all-cosine, whose loop warms up from its first step on and holds the
// highest rate for the step in which the decay begins.
func TestLateDecay(t *testing.T) {
	want := []float64{0.0016666666666666666, 0.003333333333333333, 0.005, 0.005, 0.0048492315519647715, 0.004415111107797445, 0.00375,
		0.0029341204441673263, 0.0020658795558326742, 0.0012500000000000007, 0.0005848888922025552, 0.00015076844803522921}
	c := curve(t, "cosine", Params{LR: 0.005, Warmup: 3, Total: 12, Offset: LateDecay})
	for i, w := range want {
		if got := c(i + 1); !closeTo(got, w, 1e-12) {
			t.Errorf("step %d: %.17g, want %.17g", i+1, got, w)
		}
	}
}

// TestEveryKind wants of every curve in every run, also tiny ones: finite values between 0 and the highest, the warm-up's line, and
// the last value held.
func TestEveryKind(t *testing.T) {
	for _, kind := range Names() {
		for _, total := range []int{1, 2, 3, 10, 1000} {
			for _, warm := range []int{0, 1, 2, 10, 2000} {
				for _, offset := range []string{None, HF, LateDecay} {
					c := curve(t, kind, Params{LR: 1, MinLR: .1, ConstLR: .5, Total: total, Warmup: warm, DecaySteps: total / 5, CooldownSteps: total / 2, Offset: offset})
					for s := 1; s <= total+3; s++ {
						v := c(s)
						if math.IsNaN(v) || v < 0 || v > 1 {
							t.Fatalf("%s, %d of %d, warm-up %d, %s: %v", kind, s, total, warm, offset, v)
						}
						if s < warm && s <= total && offset != HF && !closeTo(v, float64(s)/float64(warm), 1e-12) {
							t.Fatalf("%s, %d of %d, warm-up %d: %v", kind, s, total, warm, v)
						}
					}
					if c(total+2) != c(total+3) {
						t.Errorf("%s moves behind its end", kind)
					}
				}
			}
		}
	}
}

func TestWarmupSteps(t *testing.T) {
	for _, test := range []struct {
		ratio float64
		total int
		want  int
	}{{0, 100, 0}, {0.03, 100, 3}, {0.03, 101, 4}, {0.01, 3, 1}, {1, 7, 7}} {
		if got := WarmupSteps(test.ratio, test.total); got != test.want {
			t.Errorf("%v of %d: %d, want %d", test.ratio, test.total, got, test.want)
		}
	}
}

func TestErrors(t *testing.T) {
	good := Params{LR: 1, Total: 10}
	with := func(f func(p *Params)) Params { p := good; f(&p); return p }
	for _, test := range []struct {
		kind string
		p    Params
		want string
	}{
		{"cosin", good, `unknown schedule "cosin"; it is one of linear, cosine, constant, inv_sqrt, wsd, infinite, rewarm`},
		{"linear", with(func(p *Params) { p.LR = 0 }), "schedule linear: the learning rate must be above 0; here is 0"},
		{"linear", with(func(p *Params) { p.LR = math.NaN() }), "schedule linear: the learning rate must be above 0; here is NaN"},
		{"linear", with(func(p *Params) { p.MinLR = 2 }), "schedule linear: the lowest learning rate must be from 0 to the highest, 1; here is 2"},
		{"linear", with(func(p *Params) { p.Total = 0 }), "schedule linear: a run needs at least one step; here are 0"},
		{"linear", with(func(p *Params) { p.Warmup = -1 }), "schedule linear: steps must not be below 0; here are -1 of warm-up, 0 of cooldown and 0 of decay"},
		{"linear", with(func(p *Params) { p.Offset = "late" }), `schedule linear: unknown offset "late"; it is one of none, hf and late_decay`},
		{"wsd", with(func(p *Params) { p.Decay = "root" }), `schedule wsd: unknown shape "root" of the decay; it is one of linear, 1-sqrt and cosine`},
		{"infinite", good, "schedule infinite: it wants 0 < lowest <= constant <= highest learning rate; here are 0, 0 and 1"},
		{"infinite", with(func(p *Params) { p.MinLR, p.ConstLR, p.Cooldown = .1, .5, "x" }), `schedule infinite: unknown shape "x" of the cooldown; it is one of cosine, inv_sqrt and linear`},
	} {
		if _, err := New(test.kind, test.p); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, want %s", test.kind, err, test.want)
		}
	}
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if seen[k.Name] || strings.TrimSpace(k.Summary) == "" {
			t.Errorf("%s stands twice or says nothing", k.Name)
		}
		seen[k.Name] = true
	}
}
