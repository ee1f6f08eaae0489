package adapter

import (
	"context"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/tensors"
)

// writeMatrices writes a checkpoint of float32 matrices.
func writeMatrices(t *testing.T, list map[string]Tensor) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	var infos []tensors.Info
	for name, x := range list {
		infos = append(infos, tensors.Info{Name: name, DType: tensors.F32, Shape: x.Shape})
	}
	slices.SortFunc(infos, func(a, b tensors.Info) int { return strings.Compare(a.Name, b.Name) })
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, info := range infos {
		raw := make([]byte, info.Bytes())
		if err := tensors.EncodeFloat32(raw, tensors.F32, list[info.Name].Data); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteAt(i, raw, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestExtractNearOptimal takes the hardest difference there is, noise, whose spectrum is flat, at the largest rank that is still projected:
// the error is within a hundredth of the best approximation's, which an exact decomposition gives.
func TestExtractNearOptimal(t *testing.T) {
	const out, in, rank = 560, 640, 70
	zero, noise := Tensor{[]int{out, in}, make([]float32, out*in)}, Tensor{[]int{out, in}, make([]float32, out*in)}
	linalg.Normal(noise.Data, 1, "noise")
	base, tuned := writeMatrices(t, map[string]Tensor{"l.w.weight": zero}), writeMatrices(t, map[string]Tensor{"l.w.weight": noise})
	_, near := extract(t, base, tuned, ExtractOptions{Rank: rank})
	_, best := extract(t, base, tuned, ExtractOptions{Rank: rank, Exact: true})
	ratio := float64(near.Error / best.Error)
	if !(ratio > 1 && ratio < 1.01) { // equal errors would mean that nothing was projected
		t.Errorf("the error is %v times the best one, %v", ratio, best.Error)
	}
	full, _ := extract(t, base, tuned, ExtractOptions{Rank: out})
	fused, _ := fuseTo(t, base, saved(t, full), FuseOptions{})
	if d := differ(t, fused, tuned); d > 1e-5 {
		t.Errorf("at full rank the model differs from the tuned one by up to %v", d)
	}
}

// TestExtractChoice: patterns, modules to save, a floor and the side that holds the singular values.
func TestExtractChoice(t *testing.T) {
	base, tuned := golden+"/models/base", golden+"/models/ft1"
	kept := func(r *ExtractReport, what string) []string {
		var out []string
		for _, m := range r.Modules {
			if m.What == what {
				out = append(out, m.Module)
			}
		}
		return out
	}
	a, r := extract(t, base, tuned, ExtractOptions{Rank: 2, Include: []string{`layers\.1\.self_attn`}, Exclude: []string{"[kv]_proj"}})
	if got := strings.Join(kept(r, "low rank"), " "); got != "model.layers.1.self_attn.o_proj model.layers.1.self_attn.q_proj" {
		t.Errorf("low rank: %s", got)
	}
	// Embeddings are saved whole whatever is included, and other parts need a pattern.
	if got := strings.Join(a.Config.ModulesToSave, " "); got != "embed_tokens lm_head" {
		t.Errorf("saved: %s", got)
	}
	a, r = extract(t, base, tuned, ExtractOptions{Rank: 2, Exclude: []string{"embed|lm_head|norm"}, Whole: []string{"q_proj"}})
	if got := strings.Join(a.Config.ModulesToSave, " "); got != "q_proj" || slices.Contains(a.Config.Targets.Names, "q_proj") {
		t.Errorf("saved %s beside targets %v", got, a.Config.Targets.Names)
	}
	if len(kept(r, "low rank")) != 24 {
		t.Errorf("%v", kept(r, "low rank"))
	}

	a, r = extract(t, base, tuned, ExtractOptions{Rank: 8, OneSided: true, Embeddings: Skip, Others: Skip})
	for _, m := range r.Modules[:3] {
		if m.What != "low rank" {
			continue
		}
		b := a.Tensors[prefix+m.Module+endB]
		g := make([]float64, m.Rank*m.Rank)
		gramOf(g, linalg.Of(b.Data, b.Shape[0], m.Rank).T())
		for i := range g {
			want := 0.0
			if i%(m.Rank+1) == 0 {
				want = 1
			}
			if math.Abs(g[i]-want) > 1e-5 {
				t.Fatalf("%s: BᵀB is %v at %d", m.Module, g[i], i)
			}
		}
	}
	// A floor between the third and the fourth value of a module keeps three.
	p := slices.IndexFunc(r.Modules, func(m ModuleReport) bool { return m.What == "low rank" })
	name := r.Modules[p].Module
	first := a.Tensors[prefix+name+endA]
	length := func(k int) float64 {
		sum := 0.0
		for _, v := range first.Data[k*first.Shape[1]:][:first.Shape[1]] {
			sum += float64(v) * float64(v)
		}
		return math.Sqrt(sum)
	}
	_, r = extract(t, base, tuned, ExtractOptions{Rank: 8, Floor: (length(2) + length(3)) / 2, Embeddings: Skip, Others: Skip})
	p = slices.IndexFunc(r.Modules, func(m ModuleReport) bool { return m.Module == name })
	if r.Modules[p].Rank != 3 {
		t.Errorf("%+v: rank 3 is above the floor %v", r.Modules[p], (length(2)+length(3))/2)
	}
	for want, o := range map[string]ExtractOptions{
		"no module is called": {Rank: 1, Whole: []string{"wq"}}, "is no regular expression": {Rank: 1, Include: []string{"("}},
		"look-around": {Rank: 1, Exclude: []string{"(?!x)"}}, "leave for factors": {Rank: 1, Exclude: []string{"."}},
		"is no bound": {Rank: 1, Floor: math.NaN()},
	} {
		if _, _, err := Extract(context.Background(), base, tuned, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestSaveDType: in bfloat16 the adapter has the rounded values, and half the bytes.
func TestSaveDType(t *testing.T) {
	base, tuned := golden+"/models/base-bf16", golden+"/models/ft1-bf16"
	dtype, err := StoredDType(tuned)
	if err != nil || dtype != tensors.BF16 {
		t.Fatal(dtype, err)
	}
	a, _ := extract(t, base, tuned, ExtractOptions{Rank: 4})
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := a.Save(dir, SaveOptions{DType: dtype}); err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(filepath.Join(dir, WeightsName))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		if v.DType != tensors.BF16 {
			t.Errorf("%s is %s", name, v.DType)
		}
	}
	got, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for key, x := range a.Tensors {
		for i, v := range got.Tensors[key].Data {
			if math.Abs(float64(v-x.Data[i])) > math.Abs(float64(x.Data[i]))/256 {
				t.Fatalf("%s[%d]: %v, was %v", key, i, v, x.Data[i])
			}
		}
	}
	if err := a.Save(dir, SaveOptions{DType: tensors.I8, Force: true}); err == nil {
		t.Error("saved as I8")
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
