package adapter

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/pickle"
)

func TestSaveAndOpen(t *testing.T) {
	from, err := Open(golden + "/models/lora2")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "out")
	if err := from.Save(dir, SaveOptions{Files: map[string][]byte{"README.md": []byte("hello")}, Copies: map[string]string{"tokenizer.json": golden + "/models/base/tokenizer.json"}}); err != nil {
		t.Fatal(err)
	}
	back, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(back.Keys()) != fmt.Sprint(from.Keys()) {
		t.Fatal("other keys")
	}
	for k, v := range from.Tensors {
		if fmt.Sprint(v) != fmt.Sprint(back.Tensors[k]) {
			t.Errorf("%s differs", k)
		}
	}
	c, err := tensors.Open(filepath.Join(dir, WeightsName))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if m := c.Metadata(); len(m) != 1 || m["format"] != "pt" {
		t.Errorf("metadata %v", m)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if fmt.Sprint(names) != "[README.md adapter_config.json adapter_model.safetensors tokenizer.json]" {
		t.Errorf("files %v", names)
	}
	// An output that exists is not replaced unless asked for.
	if err := from.Save(dir, SaveOptions{}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("%v", err)
	}
	if err := from.Save(dir, SaveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "README.md")); err == nil {
		t.Error("the replaced adapter's file is still there")
	}
}

// TestOpenDTypes: adapters in half precision are read, and whole matrices too.
func TestOpenDTypes(t *testing.T) {
	for _, d := range []tensors.DType{tensors.BF16, tensors.F16, tensors.F32} {
		dir := filepath.Join(t.TempDir(), "a")
		w, err := tensors.Create(dir, []tensors.Info{{Name: "base_model.model.w.lora_A.weight", DType: d, Shape: []int{1, 2}}, {Name: "base_model.model.big.weight", DType: d, Shape: []int{1100, 1000}}}, tensors.WriteOptions{FileName: WeightsName})
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range []int{2, 1100 * 1000} {
			x := make([]float32, n)
			for j := range x {
				x[j] = 1.5
			}
			b := make([]byte, n*d.Size())
			if err := tensors.EncodeFloat32(b, d, x); err != nil {
				t.Fatal(err)
			}
			if err := w.WriteAt(i, b, 0); err != nil {
				t.Fatal(err)
			}
			if err := w.Finish(i); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.WriteFile(ConfigName, []byte(`{"peft_type":"LORA"}`)); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		a, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if x := a.Tensors["base_model.model.w.lora_A.weight"]; x.Data[1] != 1.5 {
			t.Errorf("%s: %v", d, x)
		}
		m, err := OpenMapped(dir)
		if err != nil {
			t.Fatal(err)
		}
		left := 1 // in the file, to be converted piece by piece
		if d == tensors.F32 {
			left = 0 // usable as it is
		}
		if len(m.views) != left || len(m.Keys()) != 2 {
			t.Errorf("%s: %d tensors are in the file", d, len(m.views))
		}
		part := make([]float32, 3)
		if err := m.whole("base_model.model.big.weight").read(part, 1_000_000); err != nil || part[2] != 1.5 {
			t.Errorf("%v %v", part, err)
		}
		// What was left in the file is written too.
		again := filepath.Join(t.TempDir(), "b")
		if err := m.Save(again, SaveOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if b, err := Open(again); err != nil || b.Tensors["base_model.model.big.weight"].Data[1099_999] != 1.5 {
			t.Errorf("%v", err)
		}
	}
}

func TestDiskKey(t *testing.T) {
	for in, want := range map[string]string{
		"base_model.model.q.lora_A.default.weight":                        "base_model.model.q.lora_A.weight",
		"base_model.model.q.lora_B.my-name.weight":                        "base_model.model.q.lora_B.weight",
		"base_model.model.q.lora_B.default.bias":                          "base_model.model.q.lora_B.bias",
		"base_model.model.q.lora_A.weight":                                "base_model.model.q.lora_A.weight",
		"base_model.model.e.lora_embedding_A.default":                     "base_model.model.e.lora_embedding_A",
		"base_model.model.e.lora_embedding_B":                             "base_model.model.e.lora_embedding_B",
		"base_model.model.q.lora_magnitude_vector.default.weight":         "base_model.model.q.lora_magnitude_vector",
		"base_model.model.q.lora_magnitude_vector.default":                "base_model.model.q.lora_magnitude_vector",
		"base_model.model.q.lora_magnitude_vector.weight":                 "base_model.model.q.lora_magnitude_vector",
		"base_model.model.score.modules_to_save.default.weight":           "base_model.model.score.weight",
		"base_model.model.score.modules_to_save.weight":                   "base_model.model.score.weight",
		"base_model.model.e.token_adapter.trainable_tokens_delta.default": "base_model.model.e.token_adapter.trainable_tokens_delta",
		"base_model.model.score.weight":                                   "base_model.model.score.weight",
	} {
		if got := diskKey(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestOpenResized: where the vocabulary was resized peft writes a matrix up to three times.
func TestOpenResized(t *testing.T) {
	const at = "base_model.model.lm_head."
	write := func(last string) string {
		dir := t.TempDir()
		file := tensorFile(map[string][]int{at + "weight": {2, 1}, at + "modules_to_save.weight": {2, 1}, at + "original_module.weight": {2, 1}})
		copy(file[len(file)-4:], last)
		for n, b := range map[string][]byte{ConfigName: []byte("{}"), WeightsName: file} {
			if err := os.WriteFile(filepath.Join(dir, n), b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	a, err := Open(write("\x00\x00\x00\x00"))
	if err != nil || fmt.Sprint(a.Keys()) != "["+at+"weight]" {
		t.Fatalf("%v", err)
	}
	if _, err := Open(write("\x00\x00\x80\x3f")); err == nil || !strings.Contains(err.Error(), "is there twice") {
		t.Errorf("%v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(files map[string]string) string {
		dir := t.TempDir()
		for n, s := range files {
			if err := os.WriteFile(filepath.Join(dir, n), []byte(s), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	for want, dir := range map[string]string{
		"is no adapter":                      write(nil),
		"adapter_model.bin: is no file of t": write(map[string]string{ConfigName: "{}", "adapter_model.bin": "x"}),
		"has no adapter_model.safetensors":   write(map[string]string{ConfigName: "{}"}),
		"adapter_model.safetensors: is no s": write(map[string]string{ConfigName: "{}", WeightsName: "x"}),
		"adapter_config.json: r: 0":          write(map[string]string{ConfigName: `{"r":0}`, WeightsName: "x"}),
	} {
		_, err := Open(dir)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		var e *Error
		var f *tensors.FormatError
		if !errors.As(err, &e) && !errors.As(err, &f) {
			t.Errorf("%T is no error of the input", err)
		}
	}
}

func TestCheckFinite(t *testing.T) {
	a, _ := tiny(false)
	if err := a.CheckFinite(); err != nil {
		t.Error(err)
	}
	a.Tensors["base_model.model.l.w.lora_B.weight"].Data[1] = float32(math.NaN())
	if err := a.CheckFinite(); err == nil || !strings.Contains(err.Error(), "lora_B") {
		t.Errorf("%v", err)
	}
}

// FuzzOpen opens hostile files and matches what comes of them with a base.
func FuzzOpen(f *testing.F) {
	good, err := os.ReadFile(golden + "/models/lora1/" + WeightsName)
	if err != nil {
		f.Fatal(err)
	}
	config, err := os.ReadFile(golden + "/models/lora1/" + ConfigName)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(config, good)
	f.Add([]byte(`{"r":4,"target_modules":["q_proj"],"use_dora":true}`), good[:4000])
	f.Add([]byte(`{"r":1,"trainable_token_indices":[1]}`), tensorFile(map[string][]int{"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": {1, 32}}))
	f.Add([]byte(`{"r":1}`), tensorFile(map[string][]int{"base_model.model.lm_head.weight": {301, 32}, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": {1, 32}}))
	f.Add([]byte(`{"r":1}`), tensorFile(map[string][]int{"base_model.model.model.norm.lora_A.weight": {1, 0}, "base_model.model.model.norm.lora_B.weight": {32}}))
	f.Add([]byte(`{"r":1}`), tensorFile(map[string][]int{"base_model.model.model.embed_tokens.lora_embedding_A": {1, 300}, "base_model.model.model.embed_tokens.lora_embedding_B": {32, 1}, "base_model.model.model.embed_tokens.base_layer.weight": {4, 32}}))
	lists := [][]Module{modulesOf(f, "models/base"), modulesOf(f, "models/gpt2"), modulesOf(f, "models/tied")}
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		dir := t.TempDir()
		for n, b := range map[string][]byte{ConfigName: config, WeightsName: weights} {
			if err := os.WriteFile(filepath.Join(dir, n), b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		a, err := Open(dir)
		if err != nil {
			return
		}
		for _, modules := range lists {
			for _, tie := range []Tie{Refuse, Untie, Keep} {
				deltas, err := a.BindTied(modules, tie)
				if err != nil {
					continue
				}
				for i := range deltas {
					d := &deltas[i]
					if d.Elems() > 1<<20 {
						continue
					}
					w := make([]float32, d.Elems())
					if err := d.Prepare(func([]float32, int64) error { return nil }); err != nil {
						continue
					}
					if err := d.Apply(w, 0); err != nil {
						t.Fatal(err)
					}
					d.Norm()
				}
			}
		}
	})
}

// tensorFile is a safetensors file of zeros.
func tensorFile(shapes map[string][]int) []byte {
	var head []string
	at := 0
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		n := 4
		for _, d := range shapes[name] {
			n *= d
		}
		head = append(head, fmt.Sprintf(`%q:{"dtype":"F32","shape":%s,"data_offsets":[%d,%d]}`, name, strings.ReplaceAll(fmt.Sprint(shapes[name]), " ", ","), at, at+n))
		at += n
	}
	text := "{" + strings.Join(head, ",") + "}"
	out := make([]byte, 8, 8+len(text)+at)
	for i := range 8 {
		out[i] = byte(len(text) >> (8 * i))
	}
	return append(append(out, text...), make([]byte, at)...)
}

// An adapter that peft wrote as a pickle is the same as safetensors, and one that would run something is refused by what it asks for.
func TestOpenPickle(t *testing.T) {
	const lora = "../../testdata/golden/models/lora1"
	want, err := Open(lora)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(filepath.Join(lora, WeightsName))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	state := &pickle.Dict{Values: map[string]any{}}
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		state.Keys, state.Values[name] = append(state.Keys, name), v
	}
	config, err := os.ReadFile(filepath.Join(lora, ConfigName))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := errors.Join(pickle.Write(filepath.Join(dir, "adapter_model.bin"), state), os.WriteFile(filepath.Join(dir, ConfigName), config, 0o666)); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(string) (*Adapter, error){"open": Open, "mapped": OpenMapped} {
		got, err := open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got.File() != filepath.Join(dir, "adapter_model.bin") || !slices.Equal(got.Keys(), want.Keys()) {
			t.Errorf("%s: %s has %v", name, got.File(), got.Keys())
		}
		for key, x := range want.Tensors {
			if y := got.Tensors[key]; !slices.Equal(x.Shape, y.Shape) || !slices.Equal(x.Data, y.Data) {
				t.Errorf("%s: %s differs", name, key)
			}
		}
		_ = got.Close()
	}
	if r, err := Inspect(dir); err != nil || r.Format != "peft" {
		t.Errorf("%+v, %v", r, err)
	}
	evil, err := os.ReadFile("../../testdata/golden/torch/evil/os-system.bin")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "adapter_model.bin"), evil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.As(err, new(*tensors.FormatError)) || !strings.Contains(err.Error(), `refers to "posix.system"`) {
		t.Error(err)
	}
}
