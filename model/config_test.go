package model_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
)

// small has the keys that every decoder needs; more are added in front of the closing brace.
const small = `"hidden_size": 32, "vocab_size": 96, "num_attention_heads": 4, "intermediate_size": 72, "num_hidden_layers": 4`

func describe(t *testing.T, kind, more string) *model.Description {
	t.Helper()
	d, err := model.Describe([]byte(fmt.Sprintf(`{"model_type": %q, %s%s}`, kind, small, more)))
	if err != nil {
		t.Fatalf("%s %s: %v", kind, more, err)
	}
	return d
}

// windows returns the layers' windows.
func windows(d *model.Description) (out []int) {
	for _, l := range d.Layers {
		out = append(out, l.Window)
	}
	return out
}

// TestFamilyDefaults has what a class of transformers takes for a key that config.json does not have.
func TestFamilyDefaults(t *testing.T) {
	for _, c := range []struct {
		kind                    string
		tied                    bool
		eps                     float64
		headDim                 int
		window                  []int
		scale, cap, finalCap    float64
		activation              string
		qkNorm, sandwich, gated bool
	}{
		{"llama", false, 1e-6, 8, []int{0, 0, 0, 0}, 1 / math.Sqrt(8), 0, 0, "silu", false, false, true},
		{"mistral", false, 1e-6, 8, []int{4096, 4096, 4096, 4096}, 1 / math.Sqrt(8), 0, 0, "silu", false, false, true},
		{"qwen2", false, 1e-6, 8, []int{0, 0, 0, 0}, 1 / math.Sqrt(8), 0, 0, "silu", false, false, true},
		{"qwen3", false, 1e-6, 128, []int{0, 0, 0, 0}, 1 / math.Sqrt(128), 0, 0, "silu", true, false, true},
		{"gemma", true, 1e-6, 256, []int{0, 0, 0, 0}, 1.0 / 16, 0, 0, "gelu_pytorch_tanh", false, false, true},
		{"gemma2", true, 1e-6, 256, []int{4096, 0, 4096, 0}, 1.0 / 16, 50, 30, "gelu_pytorch_tanh", false, true, true},
		{"gemma3_text", true, 1e-6, 256, []int{4096, 4096, 4096, 4096}, 1.0 / 16, 0, 0, "gelu_pytorch_tanh", true, true, true},
		{"bert", false, 1e-12, 8, []int{0, 0, 0, 0}, 1 / math.Sqrt(8), 0, 0, "gelu", false, false, false},
	} {
		d := describe(t, c.kind, "")
		if d.Head == model.HeadLM && d.Tied != c.tied {
			t.Errorf("%s: tied %v", c.kind, d.Tied)
		}
		if d.Norm.Eps != c.eps || d.HeadDim != c.headDim || !slices.Equal(windows(d), c.window) || math.Abs(d.Scale-c.scale) > 1e-12 ||
			d.AttnSoftcap != c.cap || d.FinalSoftcap != c.finalCap || d.Activation != c.activation || d.QKNorm != c.qkNorm || d.SandwichNorms != c.sandwich || d.Gated != c.gated {
			t.Errorf("%s: %+v", c.kind, d)
		}
	}
	d, err := model.Describe([]byte(`{"model_type": "gpt2", "n_embd": 32, "vocab_size": 96, "n_head": 4, "n_layer": 2}`))
	if err != nil {
		t.Fatal(err)
	}
	if !d.Tied || d.Norm.Eps != 1e-5 || d.FFN != 128 || d.LearnedPositions != 1024 || !d.Conv1D || d.Activation != "gelu_new" {
		t.Errorf("gpt2: %+v", d)
	}
}

func TestConfigKeys(t *testing.T) {
	for _, c := range []struct {
		kind, more string
		ok         func(d *model.Description) bool
	}{
		{"mistral", `, "sliding_window": null`, func(d *model.Description) bool { return slices.Equal(windows(d), []int{0, 0, 0, 0}) }},
		{"qwen2", `, "use_sliding_window": false, "sliding_window": 8`, func(d *model.Description) bool { return slices.Equal(windows(d), []int{0, 0, 0, 0}) }},
		{"qwen2", `, "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1`, func(d *model.Description) bool { return slices.Equal(windows(d), []int{0, 8, 8, 8}) }},
		{"qwen2", ``, func(d *model.Description) bool { return d.Bias["self_attn.q_proj"] && !d.Bias["self_attn.o_proj"] }},
		{"gemma2", `, "layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"], "sliding_window": 8`, func(d *model.Description) bool { return slices.Equal(windows(d), []int{0, 0, 8, 0}) }},
		{"gemma2", `, "attn_logit_softcapping": null`, func(d *model.Description) bool { return d.AttnSoftcap == 0 && d.FinalSoftcap == 30 }},
		{"gemma3_text", `, "sliding_window_pattern": 2, "sliding_window": 8`, func(d *model.Description) bool { return slices.Equal(windows(d), []int{8, 0, 8, 0}) }},
		{"gemma3_text", `, "use_bidirectional_attention": true, "sliding_window": 8`, func(d *model.Description) bool { return !d.Layers[0].Causal && d.Layers[0].Window == 5 }},
		{"gemma3_text", `, "rope_scaling": {"rope_type": "linear", "factor": 8}`, func(d *model.Description) bool {
			return d.Ropes[0].Type == "linear" && d.Ropes[0].Theta == 1e6 && d.Ropes[1].Type == "default" && d.Ropes[1].Theta == 1e4
		}},
		// The old and the new form of rotary settings.
		{"llama", `, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}`, func(d *model.Description) bool {
			return d.Ropes[0].Theta == 5e5 && d.Ropes[0].Type == "linear" && d.Ropes[0].Factor == 4
		}},
		{"llama", `, "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}`, func(d *model.Description) bool {
			return d.Ropes[0].Theta == 5e5 && d.Ropes[0].Type == "llama3" && d.Ropes[0].Original == 64
		}},
		{"llama", `, "rope_theta": 7e4, "rope_parameters": {"rope_type": "default"}`, func(d *model.Description) bool { return d.Ropes[0].Theta == 7e4 }},
		{"llama", `, "partial_rotary_factor": 0.5`, func(d *model.Description) bool { return d.Ropes[0].Dim == 4 }},
		{"phi3", `, "original_max_position_embeddings": 32, "max_position_embeddings": 128, "rope_scaling": {"type": "su", "short_factor": [1, 1, 1, 1], "long_factor": [2, 2, 2, 2]}`, func(d *model.Description) bool {
			return d.Ropes[0].Type == "longrope" && d.Ropes[0].Original == 32 && d.Ropes[0].Factor == 4
		}},
		{"llama", `, "architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "bad", "1": "so", "2": "good"}, "tie_word_embeddings": true`, func(d *model.Description) bool {
			return d.Head == model.HeadScore && d.NumLabels == 3 && !d.Tied && slices.Equal(d.Labels, []string{"bad", "so", "good"})
		}},
		{"bert", `, "architectures": ["BertForSequenceClassification"]`, func(d *model.Description) bool {
			return d.Head == model.HeadClassifier && d.NumLabels == 2 && d.Names.Embed == "bert.embeddings.word_embeddings"
		}},
		{"llama", `, "eos_token_id": [2, 7], "bos_token_id": null`, func(d *model.Description) bool { return slices.Equal(d.EOS, []int{2, 7}) && d.BOS == -1 }},
	} {
		if d := describe(t, c.kind, c.more); !c.ok(d) {
			t.Errorf("%s%s: %+v", c.kind, c.more, d)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	dir := t.TempDir()
	for i, c := range []struct{ config, want string }{
		{``, "is not a JSON object"},
		{`[1]`, "is not a JSON object"},
		{`{}`, `model_type "" cannot be computed here; these can: bert, deepseek, gemma`},
		{`{"model_type": "mamba"}`, `"mamba"`},
		{`{"model_type": "llama"}`, `"hidden_size" is missing`},
		{`{"model_type": "llama", "hidden_size": "x", "vocab_size": 3}`, `"hidden_size" must be a number`},
		{`{"model_type": "llama", ` + small + `, "num_key_value_heads": 3}`, "not a multiple of 3 key/value heads"},
		{`{"model_type": "llama", ` + small + `, "hidden_act": "maxout"}`, `activation "maxout" is not known; silu`},
		{`{"model_type": "llama", ` + small + `, "rope_scaling": {"type": "spiral"}}`, `rope scaling "spiral" is not known`},
		{`{"model_type": "llama", ` + small + `, "rope_scaling": {"type": "longrope", "short_factor": [1]}}`, "needs 4 of each"},
		{`{"model_type": "llama", ` + small + `, "head_dim": 7}`, "rotary width 7 must be even"},
		{`{"model_type": "llama", ` + small + `, "partial_rotary_factor": 1.5}`, "12 of the 8 entries of a head rotate"},
		{`{"model_type": "gemma2", ` + small + `, "layer_types": ["full_attention"]}`, "lists 1 layers, num_hidden_layers says 4"},
		{`{"model_type": "llama", ` + small + `, "max_position_embeddings": -1}`, `"max_position_embeddings" must be a whole number`},
		{`{"model_type": "mixtral", ` + small + `}`, `"num_local_experts" is missing`},
		{`{"model_type": "mixtral", ` + small + `, "num_local_experts": 2, "num_experts_per_tok": 3}`, "num_experts_per_tok is 3 of 2 experts"},
		{`{"model_type": "mixtral", ` + small + `, "num_local_experts": 1000000}`, "1000000 experts of width"},
		{`{"model_type": "qwen2_moe", ` + small + `, "decoder_sparse_step": 2}`, "decoder_sparse_step is 2; models of which some layers are dense"},
		{`{"model_type": "qwen3_moe", ` + small + `, "mlp_only_layers": [0]}`, "mlp_only_layers names 1 layers"},
		{`{"model_type": "qwen3_moe", ` + small + `, "moe_intermediate_size": 0}`, "128 experts of width 0"},
		{`{"model_type": "deepseek", ` + small + `, "first_k_dense_replace": 1}`, "first_k_dense_replace is 1"},
		{`{"model_type": "deepseek", ` + small + `, "scoring_func": "sigmoid"}`, `scoring_func "sigmoid" is not supported`},
		{`{"model_type": "llama", "hidden_size": 1e30, "vocab_size": 96}`, `"hidden_size" must be a whole number`},
	} {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.MkdirAll(path, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(path, "config.json"), []byte(c.config), 0o666); err != nil {
			t.Fatal(err)
		}
		_, _, err := model.ReadDescription(path)
		var bad *model.ConfigError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", c.config, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: error %q, want %q", c.config, err, c.want)
		}
	}
	if _, _, err := model.ReadDescription(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "config.json: is missing") {
		t.Errorf("no config.json: %v", err)
	}
}

func TestDescribeClassifier(t *testing.T) {
	for _, c := range []struct{ kind, class, want string }{
		{"llama", "LlamaForCausalLM", "LlamaForSequenceClassification"},
		{"bert", "BertModel", "BertForSequenceClassification"},
		{"bert", "BertForMaskedLM", "BertForSequenceClassification"},
	} {
		config := fmt.Sprintf(`{"model_type": %q, "architectures": [%q], "id2label": {"0": "a", "1": "b"}, %s}`, c.kind, c.class, small)
		d, err := model.DescribeClassifier([]byte(config), 5)
		if err != nil {
			t.Fatal(err)
		}
		if d.Architecture != c.want || d.NumLabels != 5 || (d.Head != model.HeadScore && d.Head != model.HeadClassifier) {
			t.Errorf("%s: %+v", c.class, d)
		}
	}
	config := fmt.Sprintf(`{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "id2label": {"0": "ham", "1": "spam"}, %s}`, small)
	if d, err := model.DescribeClassifier([]byte(config), 2); err != nil || !slices.Equal(d.Labels, []string{"ham", "spam"}) {
		t.Errorf("label names %v, %v", d.Labels, err)
	}
}

// FuzzDescribe feeds hostile configurations: they are refused or described, and a description of bounded size comes back.
func FuzzDescribe(f *testing.F) {
	files, err := filepath.Glob(goldenForward + "*/config.json")
	if err != nil || len(files) == 0 {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, hostile := range []string{
		`{"model_type": "llama", ` + small + `, "num_hidden_layers": 1e9}`,
		`{"model_type": "gpt2", "n_embd": 1, "vocab_size": 1, "n_head": 1, "n_layer": 1099511627776}`,
		`{"model_type": "llama", ` + small + `, "head_dim": 268435456}`,
		`{"model_type": "phi3", ` + small + `, "rope_scaling": {"type": "longrope", "short_factor": [0, 0, 0, 0], "long_factor": [1, 1, 1, 1]}}`,
		`{"model_type": "llama", ` + small + `, "rope_scaling": {"type": "yarn", "factor": 1e308, "beta_fast": 0}}`,
		`{"model_type": "gemma3", "text_config": {"model_type": 3}, ` + small + `}`,
		`{"model_type": "bert", ` + small + `, "num_attention_heads": 33}`,
		`{"model_type": "mistral", ` + small + `, "sliding_window": 0, "layer_types": ["sliding_attention", "sliding_attention", "", ""]}`,
	} {
		f.Add([]byte(hostile))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := model.Describe(data)
		if err != nil {
			var bad *model.ConfigError
			if !errors.As(err, &bad) {
				t.Fatalf("%v is no ConfigError", err)
			}
			return
		}
		if len(d.Layers) == 0 || len(d.Layers) > 1<<14 {
			t.Fatalf("%d layers", len(d.Layers))
		}
		for _, r := range d.Ropes {
			if r.Dim > 1<<16 {
				continue // the table of a head that wide would be large, and is not made before there are weights of that width
			}
			for _, length := range []int{1, 1 << 20} {
				r.Inverse(length)
			}
		}
		for _, l := range d.Layers {
			if l.Window < 0 || l.Rope >= len(d.Ropes) {
				t.Fatalf("layer %+v of a model with %d rotary tables", l, len(d.Ropes))
			}
		}
		d.BlockTensors()
		d.StemTensors()
		d.HeadTensors()
		d.Parameters()
	})
}

// FuzzParseInput feeds hostile batches.
func FuzzParseInput(f *testing.F) {
	for _, text := range []string{
		`{"input_ids": [[1, 2], [3, 4]], "attention_mask": [[1, 1], [1, 0]], "position_ids": [[0, 1], [0, 1]], "token_type_ids": [[0, 0], [0, 1]]}`,
		`{"input_ids": [[1], []]}`, `{"input_ids": [[-1]]}`, `{"input_ids": [[9223372036854775807]]}`, `{"input_ids": [[1.5]]}`, `{"input_ids": [], "attention_mask": [[1]]}`, `{"input_ids": [null]}`,
		`{"pixel_values": [[[[1, 2]], [[3, 4]]]]}`, `{"pixel_values": [[], [[[1]]]]}`, `{"pixel_values": [[[]], [[[1]]]]}`, `{"pixel_values": [[[[1], []]]]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := model.ParseInput(data)
		if err != nil {
			var bad *model.InputError
			if !errors.As(err, &bad) {
				t.Fatalf("%v is no InputError", err)
			}
			return
		}
		if in.Pixels != nil {
			if len(in.Pixels) == 0 || in.Rows < 1 || len(in.Pixels)%in.Rows != 0 || in.IDs != nil {
				t.Fatalf("%d rows of %d pixels, %d tokens", in.Rows, len(in.Pixels), len(in.IDs))
			}
			return
		}
		n := in.Rows * in.Length
		if n == 0 || len(in.IDs) != n {
			t.Fatalf("%d rows of %d with %d tokens", in.Rows, in.Length, len(in.IDs))
		}
		for _, list := range [][]int32{in.Positions, in.Segments, in.Types} {
			if list != nil && len(list) != n {
				t.Fatalf("a list of %d for %d tokens", len(list), n)
			}
		}
	})
}

// TestImagesThatDoNotFit: images of another size, tokens for a model that reads images, and images for one that reads tokens.
func TestImagesThatDoNotFit(t *testing.T) {
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	for _, c := range []struct{ dir, input, want string }{
		{"vit-encoder", `{"pixel_values": [[[[1, 2], [3, 4]]]]}`, "images are [1 2 2], channels, height and width; the model reads [1 8 16]: resize them first"},
		{"vit-encoder", `{"input_ids": [[1, 2]]}`, `a vit reads images, not tokens: give "pixel_values"`},
		{"llama", `{"pixel_values": [[[[1, 2], [3, 4]]]]}`, `a llama reads tokens, not images: give "input_ids"`},
	} {
		m, err := model.Load(context.Background(), "../testdata/golden/forward/"+c.dir, model.Options{Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		in, err := model.ParseInput([]byte(c.input))
		if err != nil {
			t.Fatal(err)
		}
		var bad *model.InputError
		if _, err := m.Forward(in); !errors.As(err, &bad) || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.dir, err, c.want)
		}
	}
	for _, c := range []struct{ change, want string }{
		{`"patch_size": 5`, `config.json: the height of "image_size" [16 16] is no multiple of that of "patch_size" [5 5]`},
		{`"patch_size": [4, 4, 4]`, `config.json: "patch_size" must be a number, or two: height and width`},
		{`"num_channels": 0`, `config.json: "num_channels" must be positive, not 0`},
	} {
		_, err := model.Describe([]byte(`{"model_type": "vit", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 1, "image_size": 16, "patch_size": 4, ` + c.change + `}`))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.change, err, c.want)
		}
	}
}
