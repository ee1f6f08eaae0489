package adapter

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

// writeMLX writes an adapter as mlx-lm does.
func writeMLX(t *testing.T, config string, list map[string]Tensor) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mlx")
	var infos []tensors.Info
	for n, x := range list {
		infos = append(infos, tensors.Info{Name: n, DType: tensors.F32, Shape: x.Shape})
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{FileName: mlxWeights})
	if err != nil {
		t.Fatal(err)
	}
	for i, info := range infos {
		b := make([]byte, info.Bytes())
		if err := tensors.EncodeFloat32(b, tensors.F32, list[info.Name].Data); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteAt(i, b, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteFile(ConfigName, []byte(config)); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMLX: y += scale·(x·a)·b with a [in, r] and b [r, out].
func TestMLX(t *testing.T) {
	dir := writeMLX(t, `{"fine_tune_type":"lora","num_layers":1,"lora_parameters":{"rank":1,"scale":20.0,"dropout":0.0},"model":"base","iters":600}`, map[string]Tensor{
		"model.layers.3.self_attn.q_proj.lora_a": {[]int{2, 1}, []float32{.5, -1}},
		"model.layers.3.self_attn.q_proj.lora_b": {[]int{1, 2}, []float32{2, 1}},
	})
	a, err := OpenMLX(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := a.Config
	if c.R != 1 || c.Alpha != 20 || fmt.Sprint(c.Targets.Names, c.LayersToTransform) != "[q_proj] [3]" || c.BaseModel != "base" {
		t.Errorf("%+v", c)
	}
	m := Module{Path: "model.layers.3.self_attn.q_proj", Kind: Linear, In: 2, Out: 2, Weight: "w", Shape: []int{2, 2}}
	near(t, "delta", fuse(t, a, []Module{m}, make([]float32, 4)), 20, -40, 10, -20)

	back := filepath.Join(t.TempDir(), "back")
	if err := a.SaveMLX(back, 4, SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	again, err := OpenMLX(back)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(again.Tensors) != fmt.Sprint(a.Tensors) {
		t.Error("the tensors changed on the way")
	}
	var cfg map[string]any
	raw, err := os.ReadFile(filepath.Join(back, ConfigName))
	if err != nil || json.Unmarshal(raw, &cfg) != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(cfg["lora_parameters"]) != "map[dropout:0 keys:[self_attn.q_proj] rank:1 scale:20]" || cfg["num_layers"] != 1.0 || cfg["fine_tune_type"] != "lora" {
		t.Errorf("%s", raw)
	}
	r, err := Inspect(back)
	if err != nil || r.Format != "mlx" || len(r.Modules) != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestMLXModels: a DoRA adapter of the golden Llama to mlx and back.
func TestMLXModels(t *testing.T) {
	a, err := Open(golden + "/train/llama-dora/expected")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "mlx")
	if err := a.SaveMLX(dir, 0, SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := OpenMLX(dir)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(a.Tensors) != fmt.Sprint(b.Tensors) || !b.Config.DoRA {
		t.Error("the tensors changed on the way")
	}
	if _, err := b.Bind(modulesOf(t, "train/llama-dora/base")); err != nil {
		t.Error(err)
	}
}

func TestMLXRefuses(t *testing.T) {
	one := map[string]Tensor{"model.layers.0.w.lora_a": {[]int{2, 1}, make([]float32, 2)}, "model.layers.0.w.lora_b": {[]int{1, 2}, make([]float32, 2)}}
	for want, dir := range map[string]string{
		`"full" is no adapter`: writeMLX(t, `{"fine_tune_type":"full","lora_parameters":{"rank":1,"scale":1}}`, one),
		"is no rank":           writeMLX(t, `{"lora_parameters":{"scale":1}}`, one),
		"has rank 1, the conf": writeMLX(t, `{"lora_parameters":{"rank":2,"scale":1}}`, one),
		"is no tensor of an":   writeMLX(t, `{"lora_parameters":{"rank":1,"scale":1}}`, map[string]Tensor{"x.weight": {[]int{1}, []float32{1}}}),
		"a matrix is expected": writeMLX(t, `{"lora_parameters":{"rank":1,"scale":1}}`, map[string]Tensor{"x.lora_a": {[]int{1}, []float32{1}}}),
		"is no configuration":  writeMLX(t, `{"lora_parameters":1}`, one),
	} {
		if _, err := OpenMLX(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for want, set := range map[string]func(*Config){
		"mlx-lm has one of each": func(c *Config) { c.RankPattern = []Pattern{{"layers.1.self_attn.q_proj", 3}} },
		"is a whole tensor":      func(c *Config) { c.ModulesToSave = []string{"norm"} },
		"is in no layer":         func(c *Config) { c.Targets.Names = []string{"lm_head"} },
		"is changed in 2 of":     func(c *Config) { c.Targets.Names, c.LayersToTransform = []string{"q_proj"}, []int{1, 3} },
		"changes layers up to 2": func(c *Config) { c.Targets.Names, c.LayersToTransform = []string{"q_proj"}, []int{1, 2} },
	} {
		a, _ := llamaAdapter(t, "models/base", set)
		if err := a.SaveMLX(filepath.Join(t.TempDir(), "x"), 4, SaveOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestInspect(t *testing.T) {
	r, err := Inspect(golden + "/models/lora2")
	if err != nil {
		t.Fatal(err)
	}
	if r.Kind != "rsLoRA" || r.Rank != 6 || len(r.Modules) != 12 || r.Parameters == 0 || r.NonFinite != 0 || r.DTypes["F32"] != 24 || r.Idle != 0 {
		t.Errorf("%+v", r)
	}
	m := r.Modules[0]
	a, err := Open(golden + "/models/lora2")
	if err != nil {
		t.Fatal(err)
	}
	d := make([]float32, m.In*m.Out)
	newLowRank(Module{Kind: Linear, In: m.In, Out: m.Out}, a.Tensors[prefix+m.Module+endA].Data, a.Tensors[prefix+m.Module+endB].Data, m.Rank, m.Scale).add(d, 0)
	want, _ := size(d)
	near(t, "norm", []float32{float32(m.Norm)}, want)
	if err := r.Against(golden + "/models/base"); err != nil || r.Modules[0].Share <= 0 {
		t.Errorf("%v %v", err, r.Modules[0])
	}
	if err := r.Against(golden + "/models/gpt2"); err == nil || !strings.Contains(err.Error(), "would change nothing") {
		t.Errorf("%v", err)
	}
	fresh, _ := llamaAdapter(t, "models/base", func(c *Config) { c.Init = "true" })
	r, err = Inspect(saved(t, fresh))
	if err != nil || r.Idle != len(r.Modules) || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "changes nothing") {
		t.Errorf("%+v %v", r, err)
	}
}
