package merge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

const golden = "../testdata/golden"

// goldenCase is a case.json; see testdata/golden/README.md.
type goldenCase struct {
	Kind      string
	Arith     string
	PeerError string `json:"peer_error"`
	Seed      uint64
}

// testBackends opens the backends that the golden cases run on: ours, GoMLX's own as a cross-check, XLA where it is installed.
func testBackends(t *testing.T) map[string]compute.Backend {
	t.Helper()
	out := map[string]compute.Backend{}
	for _, name := range []string{"go", "gomlx", "xla:cpu"} {
		b, _, err := backend.Open(name)
		if err != nil {
			if name == "xla:cpu" {
				t.Logf("XLA CPU is not checked here: %v", err)
				continue
			}
			t.Fatal(err)
		}
		out[name] = b
		t.Cleanup(b.Finalize)
	}
	return out
}

// goldenRecipe makes a case's recipe in the folder of the models, to which its paths are relative.
func goldenRecipe(t *testing.T, name string) *recipe.Recipe {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(golden, "cases", name, "recipe.yml"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Parse(filepath.Join(golden, "models", name+".yml"), text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readCase(t *testing.T, name string) goldenCase {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(golden, "cases", name, "case.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c goldenCase
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGolden(t *testing.T) {
	dirs, err := os.ReadDir(filepath.Join(golden, "cases"))
	if err != nil {
		t.Fatal(err)
	}
	backends := testBackends(t)
	ran := 0
	for _, d := range dirs {
		c := readCase(t, d.Name())
		if c.Kind == "error" {
			t.Run(d.Name(), func(t *testing.T) { checkRefused(t, d.Name()) })
			ran++
			continue
		}
		for name, b := range backends {
			t.Run(d.Name()+"/"+name, func(t *testing.T) { checkCase(t, d.Name(), c, name, b) })
			ran++
		}
	}
	if ran < 80 {
		t.Fatalf("only %d cases ran", ran)
	}
}

func mergeCase(t *testing.T, name string, b compute.Backend, o plan.Options, threads int) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	_, err := merge.RunRecipe(context.Background(), goldenRecipe(t, name), out, merge.Options{Plan: o, Backend: b, Threads: threads, CopyTokenizer: true, ModelCard: true})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func checkCase(t *testing.T, name string, c goldenCase, kind string, b compute.Backend) {
	o := plan.Options{Seed: c.Seed}
	if c.Arith == "native" {
		o.Arith = method.Native
	}
	if c.Kind == "stat" {
		o.RNG = method.Peer
	}
	out := mergeCase(t, name, b, o, 2)
	want := filepath.Join(golden, "cases", name, "expected")
	if name == "arcee_fusion" {
		compareChoices(t, out, want, filepath.Join(golden, "models", "base"), filepath.Join(golden, "models", "ft1"))
		return
	}
	exactBits := c.Arith == "native" && kind == "go"
	compareCheckpoints(t, out, want, exactBits, kind == "xla:cpu")
	compareConfig(t, out, want)
	sameText(t, out, want)
}

// compareCheckpoints applies the tolerances of the golden cases' README: float32 within 1e-5 of the tensor's largest
// magnitude; 16-bit dtypes within 2 units in the last place, one more on XLA, which fuses multiply and add.
func compareCheckpoints(t *testing.T, got, want string, bits, fused bool) {
	t.Helper()
	g, err := tensors.Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	w, err := tensors.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if len(g.Names()) != len(w.Names()) {
		t.Errorf("%d tensors, want %d", len(g.Names()), len(w.Names()))
	}
	rows := tokenRows(t, got, want)
	for _, name := range w.Names() {
		wi, _ := w.Lookup(name)
		gi, ok := g.Lookup(name)
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		if gi.DType != wi.DType || fmt.Sprint(gi.Shape) != fmt.Sprint(wi.Shape) {
			t.Errorf("%s: %s %v, want %s %v", name, gi.DType, gi.Shape, wi.DType, wi.Shape)
			continue
		}
		gv, err := g.View(name)
		if err != nil {
			t.Fatal(err)
		}
		wv, err := w.View(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(name, "embed_tokens") || strings.Contains(name, "lm_head") {
			gv = byToken(gv, rows)
		}
		if bits {
			if string(gv.Data) != string(wv.Data) {
				t.Errorf("%s: not bit for bit the expected values: %s", name, firstDifference(t, gv, wv))
			}
			continue
		}
		compareValues(t, name, gv, wv, fused)
	}
}

func floatsOf(t *testing.T, v tensors.View) []float32 {
	t.Helper()
	x := make([]float32, v.Elems())
	if err := tensors.DecodeFloat32(x, v.Data, v.DType); err != nil {
		t.Fatal(err)
	}
	return x
}

func firstDifference(t *testing.T, a, b tensors.View) string {
	x, y := floatsOf(t, a), floatsOf(t, b)
	n, first := 0, -1
	for i := range x {
		if math.Float32bits(x[i]) != math.Float32bits(y[i]) {
			if n++; first < 0 {
				first = i
			}
		}
	}
	return fmt.Sprintf("%d of %d differ, first element %d: %v, want %v", n, len(x), first, x[first], y[first])
}

func compareValues(t *testing.T, name string, got, want tensors.View, fused bool) {
	t.Helper()
	if !want.DType.IsFloat() {
		if string(got.Data) != string(want.Data) {
			t.Errorf("%s: integers differ", name)
		}
		return
	}
	g, w := floatsOf(t, got), floatsOf(t, want)
	largest := 0.0
	for _, x := range w {
		largest = max(largest, math.Abs(float64(x)))
	}
	ulps := 2.0
	if fused {
		ulps = 3
	}
	mantissa := map[tensors.DType]int{tensors.BF16: 7, tensors.F16: 10}[want.DType]
	for i := range w {
		d := math.Abs(float64(g[i]) - float64(w[i]))
		limit := 1e-5 * largest
		if mantissa > 0 {
			_, e := math.Frexp(max(math.Abs(float64(g[i])), math.Abs(float64(w[i]))))
			limit = ulps * math.Ldexp(1, e-1-mantissa)
		}
		if !(d <= limit) {
			t.Errorf("%s: element %d is %v, want %v (limit %g)", name, i, g[i], w[i], limit)
			return
		}
	}
}

// compareChoices is for arcee_fusion, which gives each element one of two values. Its importance is a divergence that nearly
// cancels: the peer's float32 softmax leaves it with errors of up to 4%, which differ between CPUs (the expected values are
// those of AVX-512; the same peer chooses otherwise for 22 of the 59,424 elements with AVX2 and for 34 without vectors).
// Ours is summed in float64, which differs from them in 23. So up to one element in a thousand may be the other choice, but
// every element must be one of the two.
func compareChoices(t *testing.T, got, want, base, other string) {
	t.Helper()
	open := func(dir string) *tensors.Checkpoint {
		c, err := tensors.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	values := func(c *tensors.Checkpoint, name string) []float32 {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		return floatsOf(t, v)
	}
	g, w, b, o := open(got), open(want), open(base), open(other)
	all, differ := 0, 0
	for _, name := range w.Names() {
		gv, wv, bv, ov := values(g, name), values(w, name), values(b, name), values(o, name)
		for i := range wv {
			all++
			if math.Abs(float64(gv[i])-float64(wv[i])) > 1e-6 {
				differ++
			}
			if gv[i] != bv[i] && gv[i] != ov[i] {
				t.Errorf("%s: element %d is %v, neither the base's %v nor the other model's %v", name, i, gv[i], bv[i], ov[i])
				return
			}
		}
	}
	if differ*1000 > all {
		t.Errorf("%d of %d elements are another choice than expected", differ, all)
	}
}

// compareConfig checks the keys of config.json that a merge determines.
func compareConfig(t *testing.T, got, want string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(want, "config.json")); errors.Is(err, os.ErrNotExist) {
		return // the expected tensors were computed without a checkpoint around them
	}
	g, w := readJSON(t, filepath.Join(got, "config.json")), readJSON(t, filepath.Join(want, "config.json"))
	for _, key := range []string{"architectures", "model_type", "num_hidden_layers", "n_layer", "vocab_size", "hidden_size", "tie_word_embeddings"} {
		if !reflect.DeepEqual(g[key], w[key]) {
			t.Errorf("config.json: %s is %v, want %v", key, g[key], w[key])
		}
	}
	dtype := func(m map[string]any) any {
		if d, ok := m["dtype"]; ok {
			return d
		}
		return m["torch_dtype"]
	}
	if dtype(g) != dtype(w) {
		t.Errorf("config.json: dtype is %v, want %v", dtype(g), dtype(w))
	}
}

func readJSON(t *testing.T, file string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func compareFile(t *testing.T, got, want, name string) {
	t.Helper()
	w, err := os.ReadFile(filepath.Join(want, name))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	g, err2 := os.ReadFile(filepath.Join(got, name))
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	if string(g) != string(w) {
		t.Errorf("%s differs", name)
	}
}

// refusals says what each error case's message must name: the place, and the remedy.
var refusals = map[string][]string{
	"err_arch_mismatch":  {"gpt2", "llama", "--allow-crimes"},
	"err_layer_range":    {"recipe.yml:", "layer_range [0, 9]", "4 layers"},
	"err_missing_base":   {"base_model", "ties"},
	"err_missing_model":  {"no-such-model", "not found"},
	"err_missing_weight": {"weight", "ft1", "parameters"},
	"err_two_forms":      {"models", "slices", "one"},
	"err_unknown_method": {"linearr", "did you mean \"linear\""},
}

func checkRefused(t *testing.T, name string) {
	text, err := os.ReadFile(filepath.Join(golden, "cases", name, "recipe.yml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(golden, "models", "recipe.yml") // need not exist: paths are relative to its folder
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	r, err := recipe.Parse(file, text)
	if err == nil {
		_, err = merge.RunRecipe(context.Background(), r, out, merge.Options{Backend: b})
	}
	if err == nil {
		t.Fatal("the recipe was accepted")
	}
	want := append([]string{"recipe.yml:"}, refusals[name]...)
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the message %q does not name %q", err, part)
		}
	}
	if refusals[name] == nil {
		t.Errorf("no expectation for %s; its message is %q", name, err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("an output directory appeared")
	}
}

// TestRandomMethods checks what holds whatever the generator: the kept fraction, the rescaling, and that a seed decides
// every bit whatever the number of threads.
func TestRandomMethods(t *testing.T) {
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	for _, name := range []string{"dare_linear", "dare_ties", "della", "della_linear"} {
		t.Run(name, func(t *testing.T) {
			first := mergeCase(t, name, b, plan.Options{Seed: 7}, 1)
			for _, threads := range []int{2, 4} {
				compareFile(t, mergeCase(t, name, b, plan.Options{Seed: 7}, threads), first, "model.safetensors")
			}
			other, err := os.ReadFile(filepath.Join(mergeCase(t, name, b, plan.Options{Seed: 8}, 2), "model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			same, err := os.ReadFile(filepath.Join(first, "model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			if string(other) == string(same) {
				t.Error("another seed gives the same bytes")
			}
		})
	}
}
