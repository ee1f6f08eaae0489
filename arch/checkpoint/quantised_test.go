package checkpoint

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

const golden = "../../testdata/golden/"

// same compares a checkpoint with the safetensors file at want, tensor by tensor, whole and in random pieces.
func same(t *testing.T, path, want string) {
	t.Helper()
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := tensors.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	have, wanted := slices.Sorted(slices.Values(c.Names())), slices.Sorted(slices.Values(w.Names()))
	if !slices.Equal(have, wanted) {
		t.Fatalf("tensors %v, want %v", have, wanted)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range wanted {
		b, err := w.View(name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.View(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a.DType != b.DType || !slices.Equal(a.Shape, b.Shape) {
			t.Errorf("%s is %s %v, want %s %v", name, a.DType, a.Shape, b.DType, b.Shape)
			continue
		}
		size := a.DType.Size()
		if !bytes.Equal(a.Data, b.Data) {
			n := 0
			for i := 0; i < len(a.Data); i += size {
				if !bytes.Equal(a.Data[i:i+size], b.Data[i:i+size]) {
					if n++; n == 1 {
						t.Errorf("%s: element %d is %x, want %x", name, i/size, a.Data[i:i+size], b.Data[i:i+size])
					}
				}
			}
			t.Errorf("%s: %d of %d elements differ", name, n, len(a.Data)/size)
			continue
		}
		r, err := c.Reader(name)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			lo := rng.IntN(len(b.Data)/size+1) * size
			n := rng.IntN((len(b.Data)-lo)/size+1) * size
			r.WillNeed(int64(lo), int64(n))
			got, err := r.Bytes(int64(lo), int64(n), nil)
			if err != nil || !bytes.Equal(got, b.Data[lo:lo+n]) {
				t.Errorf("%s: bytes %d to %d: %v, or other values", name, lo, lo+n, err)
				break
			}
			r.Release(int64(lo), int64(n))
		}
	}
}

// The weights are, bit for bit, those that the schemes' own programs make of the codes.
func TestQuantised(t *testing.T) {
	dirs, err := filepath.Glob(golden + "quantised/*")
	if err != nil || len(dirs) < 30 {
		t.Fatalf("%d checkpoints, %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			same(t, filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "expected.safetensors"))
			raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := PlainConfig(raw)
			if err != nil || strings.Contains(string(plain), "quantization") || !strings.Contains(string(plain), `"hidden_size": 8`) {
				t.Errorf("%s, %v", plain, err)
			}
		})
	}
}

// copyModel copies a checkpoint with another configuration.
func copyModel(t *testing.T, name, config string) string {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(golden + "quantised/" + name + "/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{"model.safetensors": data, "config.json": []byte(config)} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Schemes that are not read are refused by name, and codes that do not fit what is said of them with the tensor's.
func TestQuantisedRefusals(t *testing.T) {
	for _, c := range []struct{ model, config, says string }{
		{"awq", `{"quantization_config":{"quant_method":"aqlm"}}`, `the method "aqlm", which is not read`},
		{"awq", `{"quantization_config":{"quant_method":"hqq","weights":{}}}`, `the method "hqq"`},
		{"awq", `{"quantization_config":{}}`, `the method ""`},
		{"awq", `{"quantization_config":{"quant_method":"awq","bits":4,"version":"gemv","group_size":16}}`, `AWQ in the layout "gemv"`},
		{"awq", `{"quantization_config":{"quant_method":"awq","bits":3}}`, "AWQ in 3 bits"},
		{"awq", `{"quantization_config":{"quant_method":"awq","bits":4,"group_size":32}}`, "do not belong together in 4 bits and groups of 32"},
		{"awq", `{"quantization_config":{"quant_method":"awq","bits":4,"group_size":-7}}`, "groups of -7"},
		{"awq", `{"quantization_config":{"quant_method":"awq","bits":"four"}}`, "quantization_config that cannot be read"},
		{"awq", `{"quantization_config":[]}`, "quantization_config that cannot be read"},
		{"gptq-4", `{"quantization_config":{"quant_method":"gptq","bits":3,"group_size":16}}`, "GPTQ in 3 bits"},
		{"gptq-4", `{"quantization_config":{"quant_method":"gptq","bits":8,"group_size":16}}`, "do not belong together in 8 bits"},
		{"gptq-4", `{"quantization_config":{"quant_method":"gptq","bits":4,"group_size":16,"checkpoint_format":"marlin"}}`, `GPTQ in the layout "marlin"`},
		{"ct-w4-group", `{"quantization_config":{"quant_method":"compressed-tensors","format":"marlin-24"}}`, `the format "marlin-24"`},
		{"ct-w4-group", `{"quantization_config":{"quant_method":"compressed-tensors","format":"mixed-precision","config_groups":{"a":{"format":"mxfp6-pack-quantized"}}}}`, `the format "mxfp6-pack-quantized"`},
		{"ct-w4-group", `{"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","sparsity_config":{"format":"sparse-24-bitmask"}}}`, `the sparse format "sparse-24-bitmask"`},
		{"ct-w4-group", `{"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"a":{"weights":{"num_bits":6}}}}}`, "words in a row for"},
		{"ct-w4-group", `{"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"a":{"weights":{"num_bits":-1}}}}}`, "weights of -1 bits"},
		{"gptq-4", `{"quantization_config":{"quant_method":"gptq","bits":4,"group_size":16,"is_marlin_format":true}}`, `GPTQ in the layout "marlin"`},
		{"ct-w4-group", `{"quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","transform_config":{"config_groups":{"R1":{"type":"hadamard"}}}}}`, "with rotations"},
	} {
		dir := copyModel(t, c.model, c.config)
		_, err := Open(dir)
		var bad *tensors.FormatError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), dir) || bad.Hint == "" {
			t.Errorf("%s: %v, want %q", c.config, err, c.says)
		}
	}
}

// A model that says it is quantised and is not, and one whose configuration cannot be read, are read as they are.
func TestNotQuantised(t *testing.T) {
	for _, config := range []string{`{"quantization_config":{"quant_method":"fp8"}}`, `{"quantization_config":null}`, `{"quantization_config"`} {
		dir := copyModel(t, "awq", config)
		c, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info, ok := c.Lookup("model.layers.0.self_attn.q_proj.qweight"); !ok || info.DType != tensors.I32 {
			t.Errorf("%s: %v", config, info)
		}
		_ = c.Close()
	}
}

// Parts that change what codes stand for, and scales that could belong to them in several ways, are refused and not passed over.
func TestQuantisedParts(t *testing.T) {
	const fp8, ct, bnb, modelopt = `{"quant_method":"fp8"}`, `{"quant_method":"compressed-tensors","format":"int-quantized"}`, `{"quant_method":"bitsandbytes","load_in_8bit":true}`, `{"quant_method":"modelopt","quant_algo":"NVFP4_AWQ"}`
	type tensor struct {
		name  string
		dtype tensors.DType
		shape []int
		first byte
	}
	for _, c := range []struct {
		what, config, says string
		list               []tensor
	}{
		{"one scale a row", fp8, "", []tensor{{"a.weight", tensors.F8E4M3, []int{6, 4}, 0}, {"a.weight_scale", tensors.F32, []int{6}, 0}}},
		{"a scale for each of three joined projections", fp8, "has shape [3] for weights of shape [6 4]", []tensor{{"a.weight", tensors.F8E4M3, []int{6, 4}, 0}, {"a.weight_scale", tensors.F32, []int{3}, 0}}},
		{"blocks of another size than the configuration's", `{"quant_method":"fp8","weight_block_size":[4,4]}`, "has shape [4 1]", []tensor{{"a.weight", tensors.F8E4M3, []int{8, 4}, 0}, {"a.weight_scale_inv", tensors.F32, []int{4, 1}, 0}}},
		{"codes of a dtype that no scheme has", fp8, "codes of F8_E4M3FNUZ", []tensor{{"a.weight", tensors.F8E4M3FNUZ, []int{6, 4}, 0}, {"a.weight_scale", tensors.F32, []int{1}, 0}}},
		{"packed integers of modelopt", modelopt, "codes of U8", []tensor{{"a.weight", tensors.U8, []int{6, 4}, 0}, {"a.weight_scale", tensors.F32, []int{6, 1}, 0}}},
		{"a plain weight beside a scale", fp8, "", []tensor{{"a.weight", tensors.BF16, []int{6, 4}, 0}, {"a.weight_scale", tensors.F32, []int{6}, 0}}},
		{"activation order beside bytes", ct, "has a.weight_g_idx", []tensor{{"a.weight", tensors.I8, []int{6, 4}, 0}, {"a.weight_scale", tensors.F32, []int{6, 2}, 0}, {"a.weight_g_idx", tensors.I32, []int{4}, 0}}},
		{"a scale of the input", modelopt, "has a.pre_quant_scale", []tensor{{"a.weight", tensors.F8E4M3, []int{6, 4}, 0}, {"a.weight_scale", tensors.F32, []int{1}, 0}, {"a.pre_quant_scale", tensors.F32, []int{4}, 0}}},
		{"a scale of the input of four-bit floats", modelopt, "has a.pre_quant_scale", []tensor{{"a.weight", tensors.U8, []int{6, 8}, 0}, {"a.weight_scale", tensors.F8E4M3, []int{6, 1}, 0}, {"a.weight_scale_2", tensors.F32, []int{1}, 0}, {"a.pre_quant_scale", tensors.F32, []int{16}, 0}}},
		{"LLM.int8 in rows", bnb, "", []tensor{{"a.weight", tensors.I8, []int{6, 4}, 0}, {"a.SCB", tensors.F32, []int{6}, 0}, {"a.weight_format", tensors.U8, nil, 0}}},
		{"LLM.int8 in tiles", bnb, "an order for a device", []tensor{{"a.weight", tensors.I8, []int{6, 4}, 0}, {"a.SCB", tensors.F32, []int{6}, 0}, {"a.weight_format", tensors.U8, nil, 3}}},
	} {
		dir := t.TempDir()
		var infos []tensors.Info
		var data [][]byte
		for _, x := range c.list {
			info := tensors.Info{Name: x.name, DType: x.dtype, Shape: x.shape}
			infos = append(infos, info)
			b := make([]byte, info.Bytes())
			b[0] = x.first
			data = append(data, b)
		}
		if err := tensors.SaveFile(filepath.Join(dir, "model.safetensors"), infos, data, nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"quantization_config":`+c.config+`}`), 0o666); err != nil {
			t.Fatal(err)
		}
		m, err := Open(dir)
		var bad *tensors.FormatError
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.says != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), c.says) || bad.Tensor != "a.weight"):
			t.Errorf("%s: %v, want %q", c.what, err, c.says)
		}
		if err == nil {
			_ = m.Close()
		}
	}
}

// A list of groups is read with the weight, and one that leads out of the scales is the file's fault.
func TestGroupsOutside(t *testing.T) {
	config, err := os.ReadFile(golden + "quantised/gptq-4-order/config.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(golden + "quantised/gptq-4-order/model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	weight, infos, data := "", []tensors.Info(nil), [][]byte(nil)
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		b := slices.Clone(v.Data)
		if stem, ok := strings.CutSuffix(name, ".g_idx"); ok && weight == "" {
			weight = stem + ".weight"
			b[0] = 100
		}
		infos, data = append(infos, v.Info), append(data, b)
	}
	dir := t.TempDir()
	if err := errors.Join(tensors.SaveFile(filepath.Join(dir, "model.safetensors"), infos, data, nil), os.WriteFile(filepath.Join(dir, "config.json"), config, 0o666)); err != nil {
		t.Fatal(err)
	}
	m, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.View(weight); !errors.As(err, new(*tensors.FormatError)) || !strings.Contains(err.Error(), "g_idx") || !strings.Contains(err.Error(), "places column 0 in group 100 of") {
		t.Error(err)
	}
}
