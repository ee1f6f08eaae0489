package adapter

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

// tiny is an adapter for one 2×2 linear map, as in the specification's golden values.
func tiny(dora bool) (*Adapter, []Module) {
	c := Defaults()
	c.R, c.Alpha, c.DoRA = 1, 2, dora
	c.Targets.Names = []string{"w"}
	a := &Adapter{Config: c, Tensors: map[string]Tensor{
		"base_model.model.l.w.lora_A.weight": {[]int{1, 2}, []float32{.5, -1}},
		"base_model.model.l.w.lora_B.weight": {[]int{2, 1}, []float32{2, 1}},
	}}
	if dora {
		a.Tensors["base_model.model.l.w.lora_magnitude_vector"] = Tensor{[]int{2}, []float32{2, 6}}
	}
	return a, []Module{{Path: "l.w", Kind: Linear, In: 2, Out: 2, Weight: "l.w.weight", Shape: []int{2, 2}}}
}

func near(t *testing.T, what string, got []float32, want ...float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	for i := range want {
		if math.Abs(float64(got[i])-want[i]) > 1e-6*max(1, math.Abs(want[i])) {
			t.Errorf("%s: %v, want %v", what, got, want)
			return
		}
	}
}

// fuse applies an only delta to a base in memory.
func fuse(t *testing.T, a *Adapter, modules []Module, base []float32) []float32 {
	t.Helper()
	deltas, err := a.Bind(modules)
	if err != nil {
		t.Fatal(err)
	}
	if len(deltas) != 1 {
		t.Fatalf("%d deltas", len(deltas))
	}
	return apply(t, &deltas[0], base)
}

func apply(t *testing.T, d *Delta, base []float32) []float32 {
	t.Helper()
	if err := d.Prepare(func(w []float32, off int64) error {
		copy(w, base[off:])
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w := slices.Clone(base)
	if d.From == "" {
		w = make([]float32, d.Elems())
	}
	if err := d.Apply(w, 0); err != nil {
		t.Fatal(err)
	}
	// Every cut of the tensor must give the same bits.
	for _, step := range []int{1, 3, 7, len(w)/2 + 1} {
		v := make([]float32, len(w))
		if d.From != "" {
			copy(v, base)
		}
		for off := 0; off < len(v); off += step {
			if err := d.Apply(v[off:min(off+step, len(v))], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		if fmt.Sprint(v) != fmt.Sprint(w) {
			t.Fatalf("%s in pieces of %d differs", d.Tensor, step)
		}
	}
	return w
}

func TestGoldenValues(t *testing.T) {
	base := []float32{1, 2, 3, 4}
	a, m := tiny(false)
	near(t, "LoRA", fuse(t, a, m, base), 3, -2, 4, 2)
	a, m = tiny(true)
	got := fuse(t, a, m, base)
	near(t, "DoRA", got, 1.6641006, -1.1094004, 5.3665631, 2.6832816)
	near(t, "DoRA forward", []float32{got[0] + got[1], got[2] + got[3]}, .5547002, 8.0498447)

	// The same stored transposed.
	m[0].Kind = Conv1D
	near(t, "DoRA of Conv1D", fuse(t, a, m, []float32{1, 3, 2, 4}), 1.6641006, 5.3665631, -1.1094004, 2.6832816)

	// An embedding of two tokens: ΔE = s·(B·A)ᵀ.
	m[0].Kind = Embedding
	a.Config.DoRA = false
	a.Tensors = map[string]Tensor{
		"base_model.model.l.w.lora_embedding_A": {[]int{1, 2}, []float32{.5, -1}},
		"base_model.model.l.w.lora_embedding_B": {[]int{2, 1}, []float32{2, 1}},
	}
	near(t, "embedding", fuse(t, a, m, base), 1+2, 2+1, 3-4, 4-2)
}

// fuseModel fuses an adapter with a golden base, tensor by tensor, and returns the bytes in the base's dtype.
func fuseModel(t *testing.T, base, dir string, tie Tie) map[string]tensors.View {
	t.Helper()
	ckpt, err := tensors.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ckpt.Close() })
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(base, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	modules, err := Modules(ckpt, raw)
	if err != nil {
		t.Fatal(err)
	}
	deltas, err := a.BindTied(modules, tie)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]tensors.View{}
	for _, name := range ckpt.Names() {
		v, err := ckpt.View(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = v
	}
	for i := range deltas {
		d := &deltas[i]
		v := out[d.From]
		if err := d.Prepare(func(w []float32, off int64) error {
			s := int64(v.DType.Size())
			return tensors.DecodeFloat32(w, v.Data[off*s:(off+int64(len(w)))*s], v.DType)
		}); err != nil {
			t.Fatal(err)
		}
		to := v.DType
		if to == 0 {
			to = tensors.F32
		}
		dst := make([]byte, d.Elems()*int64(to.Size()))
		if err := d.Fuse(dst, to, v.Data, v.DType, 0); err != nil {
			t.Fatal(err)
		}
		out[d.Tensor] = tensors.View{Info: tensors.Info{Name: d.Tensor, DType: to, Shape: d.Shape}, Data: dst}
	}
	return out
}

// TestFuseAsPeft compares with peft's merge_and_unload: Llama with LoRA, DoRA, rsLoRA and all linear modules, Qwen2 with
// patterns, Gemma 2, GPT-2. The difference is one unit in the last place of float32 at most.
func TestFuseAsPeft(t *testing.T) {
	dirs, err := filepath.Glob(golden + "/train/*/expected-merged")
	if err != nil || len(dirs) < 7 {
		t.Fatalf("%d cases, %v", len(dirs), err)
	}
	for _, merged := range dirs {
		dir := filepath.Dir(merged)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			got := fuseModel(t, dir+"/base", dir+"/expected", Refuse)
			want, err := tensors.Open(merged)
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			exact := !strings.HasSuffix(dir, "dora") // its row norms are summed in another order
			for _, name := range want.Names() {
				v, err := want.View(name)
				if err != nil {
					t.Fatal(err)
				}
				compare(t, name, got[name], v, exact)
			}
		})
	}
}

func compare(t *testing.T, name string, got, want tensors.View, exact bool) {
	t.Helper()
	if got.DType != want.DType || fmt.Sprint(got.Shape) != fmt.Sprint(want.Shape) {
		t.Errorf("%s: %s %v, want %s %v", name, got.DType, got.Shape, want.DType, want.Shape)
		return
	}
	if string(got.Data) == string(want.Data) {
		return
	}
	g, err := decode(got)
	if err != nil {
		t.Fatal(err)
	}
	w, err := decode(want)
	if err != nil {
		t.Fatal(err)
	}
	worst, differ := 0.0, 0
	for i := range w.Data {
		if g.Data[i] != w.Data[i] {
			differ++
			worst = max(worst, math.Abs(float64(g.Data[i])-float64(w.Data[i])))
		}
	}
	limit := 1e-6
	if exact {
		limit = 0
	}
	if !(worst <= limit) {
		t.Errorf("%s: %d of %d values differ, by up to %g", name, differ, len(w.Data), worst)
	}
}
