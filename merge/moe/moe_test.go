package moe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/moe"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const golden = "../../testdata/golden"

// goBackend opens the backend that is always there.
func goBackend() (compute.Backend, func(), error) {
	b, _, err := backend.OpenModel("go")
	if err != nil {
		return nil, nil, err
	}
	return b, b.Finalize, nil
}

// parse reads a configuration whose paths are relative to the golden folder.
func parse(t *testing.T, text string) *moe.Config {
	t.Helper()
	c, err := moe.Parse(filepath.Join(golden, "moe.yml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func planOptions() moe.PlanOptions {
	return moe.PlanOptions{Models: plan.Options{OpenAdapter: merge.OpenAdapter}}
}

func options() moe.Options {
	return moe.Options{Plan: planOptions(), Gate: moe.GateOptions{Backend: goBackend}, CopyTokenizer: true, ModelCard: true}
}

// build plans a configuration.
func build(t *testing.T, text string, o moe.PlanOptions) *moe.Plan {
	t.Helper()
	p, err := moe.Build(parse(t, text), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// assemble writes a configuration's mixture.
func assemble(t *testing.T, text string, o moe.Options) (string, *moe.Summary) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	s, err := moe.Assemble(context.Background(), build(t, text, o.Plan), out, o)
	if err != nil {
		t.Fatal(err)
	}
	return out, s
}

// values reads a tensor of a checkpoint.
func values(t *testing.T, dir, name string) []float32 {
	t.Helper()
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v, err := c.View(name)
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float32, v.Elems())
	if err := tensors.DecodeFloat32(x, v.Data, v.DType); err != nil {
		t.Fatal(err)
	}
	return x
}

func largest(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	d := 0.0
	for i := range a {
		d = max(d, math.Abs(float64(a[i]-b[i])))
	}
	return d
}

// TestGates: routers are those of Python's mergekit-moe with its forward pass in float32. As it is, its forward pass is in bfloat16, whose
// rounding the golden file shows too: it is the larger difference by far.
// TestLayouts: the layout changes names and no value; neither do threads.
func TestLayouts(t *testing.T) {
	o := options()
	one, _ := assemble(t, random, o)
	o.Threads = 1
	again, _ := assemble(t, random, o)
	a, _ := os.ReadFile(filepath.Join(one, "model.safetensors"))
	b, _ := os.ReadFile(filepath.Join(again, "model.safetensors"))
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Error("one thread writes other bytes than several")
	}
	o.Plan.Layout = moe.LayoutFused
	fused, _ := assemble(t, random, o)
	for layer := range 4 {
		stem := fmt.Sprintf("model.layers.%d.", layer)
		var both, down []float32
		for e := range 3 {
			w := func(name string) []float32 {
				return values(t, one, fmt.Sprintf("%sblock_sparse_moe.experts.%d.%s.weight", stem, e, name))
			}
			both = append(append(both, w("w1")...), w("w3")...)
			down = append(down, w("w2")...)
		}
		for name, want := range map[string][]float32{"mlp.experts.gate_up_proj": both, "mlp.experts.down_proj": down, "mlp.gate.weight": values(t, one, stem+"block_sparse_moe.gate.weight")} {
			if got := values(t, fused, stem+name); !slices.Equal(got, want) {
				t.Errorf("%s%s differs from the tensors of single experts", stem, name)
			}
		}
	}
}

// TestValues: what is not an expert is the base's, bit for bit; experts are their models', scaled and with noise of the right size.
func TestValues(t *testing.T) {
	out, s := assemble(t, random, options())
	for _, name := range []string{"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.2.self_attn.q_proj.weight", "model.layers.1.input_layernorm.weight"} {
		if !slices.Equal(values(t, out, name), values(t, filepath.Join(golden, "models/base"), name)) {
			t.Errorf("%s is not the base's", name)
		}
	}
	expert := func(e int, w string) []float32 {
		return values(t, out, fmt.Sprintf("model.layers.1.block_sparse_moe.experts.%d.%s.weight", e, w))
	}
	dense := func(model, projection string) []float32 {
		return values(t, filepath.Join(golden, "models", model), "model.layers.1.mlp."+projection+".weight")
	}
	if !slices.Equal(expert(2, "w1"), dense("ft3", "gate_proj")) || !slices.Equal(expert(2, "w3"), dense("ft3", "up_proj")) || !slices.Equal(expert(2, "w2"), dense("ft3", "down_proj")) {
		t.Error("the third expert is not ft3's block")
	}
	half := dense("ft2", "down_proj")
	for i := range half {
		half[i] *= 0.5
	}
	if !slices.Equal(expert(1, "w2"), half) || !slices.Equal(expert(1, "w1"), dense("ft2", "gate_proj")) {
		t.Error("residual_scale must halve the down projection and nothing else")
	}
	var noise []float64
	for _, p := range [][2]string{{"w1", "gate_proj"}, {"w3", "up_proj"}, {"w2", "down_proj"}} {
		a, b := expert(0, p[0]), dense("ft1", p[1])
		for i := range a {
			noise = append(noise, float64(a[i])-float64(b[i]))
		}
	}
	mean, deviation := moments(noise)
	if n := float64(len(noise)); math.Abs(mean) > 4*0.01/math.Sqrt(n) || math.Abs(deviation-0.01) > 4*0.01/math.Sqrt(2*n) {
		t.Errorf("noise has mean %g and deviation %g, want 0 and 0.01", mean, deviation)
	}
	for i := 1; i < 3; i++ { // three matrices of one size have noise of their own
		n := len(noise) / 3
		if slices.Equal(noise[:n], noise[i*n:(i+1)*n]) {
			t.Error("two matrices have the same noise")
		}
	}
	if s.Tensors != 3+4*(6+1+9) || s.Experts != 3 || s.Parameters != 3*32*300-32*300+32+4*(2*32+2*32*32+2*16*32+3*32+9*32*72) {
		t.Errorf("%+v", s)
	}
	if want := s.Parameters - 4*3*32*72; s.Active != want { // one of three experts sleeps
		t.Errorf("a token meets %d parameters, want %d", s.Active, want)
	}
}

// TestDrawn: random routers have the promised distribution, depend on the seed, and their experts draw apart.
// TestAdapterExperts: an expert that is base+adapter is the fused model's.
func TestAdapterExperts(t *testing.T) {
	base, lora := "train/llama-lora-all-cosine/base", "train/llama-lora-all-cosine/expected"
	fused := filepath.Join(t.TempDir(), "fused")
	if _, err := adapter.Fuse(context.Background(), filepath.Join(golden, base), filepath.Join(golden, lora), fused, adapter.FuseOptions{}); err != nil {
		t.Fatal(err)
	}
	out, _ := assemble(t, "base_model: "+base+"\ngate_mode: random\nexperts:\n  - source_model: "+base+"+"+lora+"\n  - source_model: "+base+"\n", options())
	for _, p := range [][2]string{{"w1", "gate_proj"}, {"w3", "up_proj"}, {"w2", "down_proj"}} {
		name := "model.layers.1.block_sparse_moe.experts.0." + p[0] + ".weight"
		got, want := values(t, out, name), values(t, fused, "model.layers.1.mlp."+p[1]+".weight")
		if !slices.Equal(got, want) || slices.Equal(got, values(t, filepath.Join(golden, base), "model.layers.1.mlp."+p[1]+".weight")) {
			t.Errorf("%s is not the fused model's", name)
		}
	}
}

// TestPromptsAlone: a prompt's states do not depend on the prompts that are computed with it, longer or shorter.
// TestConfig: what config.json says, by family.
func TestConfig(t *testing.T) {
	mistral := filepath.Join(golden, "forward/mistral-window")
	qwen3 := filepath.Join(golden, "forward/qwen3")
	for name, test := range map[string]struct {
		text string
		want map[string]any
	}{
		"mixtral": {random, map[string]any{"architectures": []any{"MixtralForCausalLM"}, "model_type": "mixtral", "num_local_experts": 3.0, "num_experts_per_tok": 2.0, "sliding_window": nil, "tie_word_embeddings": false, "dtype": "float32", "intermediate_size": 72.0}},
		"mixtral of mistral": {"base_model: " + mistral + "\ngate_mode: random\ndtype: bfloat16\nexperts_per_token: 1\nexperts: [{source_model: " + mistral + "}, {source_model: " + mistral + "}]\n",
			map[string]any{"model_type": "mixtral", "sliding_window": 8.0, "dtype": "bfloat16", "num_experts_per_tok": 1.0}},
		"qwen2": {"base_model: models/qwen\ngate_mode: random\nexperts: [{source_model: models/qwen}, {source_model: models/qwen-ft1}]\nshared_experts: [{source_model: models/qwen}]\n",
			map[string]any{"architectures": []any{"Qwen2MoeForCausalLM"}, "model_type": "qwen2_moe", "num_experts": 2.0, "norm_topk_prob": true, "moe_intermediate_size": 64.0, "shared_expert_intermediate_size": 64.0, "decoder_sparse_step": 1.0, "tie_word_embeddings": true}},
		"qwen2 of mistral": {"base_model: " + mistral + "\ngate_mode: random\narchitecture: Qwen\nexperts: [{source_model: " + mistral + "}, {source_model: " + mistral + "}]\nshared_experts: [{source_model: " + mistral + "}]\n",
			map[string]any{"model_type": "qwen2_moe", "use_sliding_window": true, "sliding_window": 8.0, "max_window_layers": 0.0, "layer_types": []any{"sliding_attention", "sliding_attention", "sliding_attention"}}},
		"qwen3": {"base_model: " + qwen3 + "\ngate_mode: random\nexperts: [{source_model: " + qwen3 + "}, {source_model: " + qwen3 + "}]\n",
			map[string]any{"architectures": []any{"Qwen3MoeForCausalLM"}, "model_type": "qwen3_moe", "num_experts": 2.0, "mlp_only_layers": []any{}}},
		"deepseek": {"base_model: models/base\ngate_mode: random\narchitecture: deepseek\nexperts: [{source_model: models/ft1}, {source_model: models/ft2}]\nshared_experts: [{source_model: models/ft3}]\n",
			map[string]any{"architectures": []any{"DeepseekForCausalLM"}, "model_type": "deepseek", "n_routed_experts": 2.0, "n_shared_experts": 1.0, "first_k_dense_replace": 0.0, "rope_theta": 10000.0, "scoring_func": "softmax"}},
	} {
		var c map[string]any
		if err := json.Unmarshal(build(t, test.text, planOptions()).JSON, &c); err != nil {
			t.Fatal(name, err)
		}
		for key, want := range test.want {
			if got, ok := c[key]; !ok || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %s is %v, want %v", name, key, got, want)
			}
		}
	}
}

// TestQwen2Biases: a base without biases on queries, keys and values gets zeros, since the family's class has them.
func TestQwen2Biases(t *testing.T) {
	out, _ := assemble(t, "base_model: models/base\ngate_mode: random\nexperts: [{source_model: models/ft1}, {source_model: models/ft2}]\nshared_experts: [{source_model: models/ft3, residual_scale: 2}]\narchitecture: qwen\n", options())
	if b := values(t, out, "model.layers.3.self_attn.k_proj.bias"); len(b) != 16 || slices.Max(b) != 0 || slices.Min(b) != 0 {
		t.Error(b)
	}
	want := values(t, filepath.Join(golden, "models/ft3"), "model.layers.0.mlp.down_proj.weight")
	for i := range want {
		want[i] *= 2
	}
	if !slices.Equal(values(t, out, "model.layers.0.mlp.shared_expert.down_proj.weight"), want) || len(values(t, out, "model.layers.0.mlp.shared_expert_gate.weight")) != 32 {
		t.Error("the shared expert is not what was asked for")
	}
}

// TestTied: a base whose head is its embedding has none afterwards either.
func TestTied(t *testing.T) {
	p := build(t, "base_model: models/tied\ngate_mode: random\nexperts: [{source_model: models/tied}, {source_model: models/tied-ft1}]\n", planOptions())
	for _, task := range p.Tasks {
		if task.Name == "lm_head.weight" {
			t.Error("a head is written")
		}
	}
	if !strings.Contains(string(p.JSON), `"tie_word_embeddings": true`) {
		t.Error("the head is not tied")
	}
}

// TestSideFiles: tokenizer as it was, configuration and card.
func TestSideFiles(t *testing.T) {
	out, _ := assemble(t, random, options())
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json", "generation_config.json"} {
		a, _ := os.ReadFile(filepath.Join(golden, "models/base", name))
		if b, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(out, "mergekit_moe_config.yml")); string(b) != random {
		t.Error("the configuration is not kept as it was")
	}
	if b, _ := os.ReadFile(filepath.Join(out, "README.md")); !strings.Contains(string(b), "A mixture of 3 experts (Mixtral)") || !strings.Contains(string(b), "* expert: models/ft1, noise 0.01") {
		t.Errorf("%s", b)
	}
}

func TestErrors(t *testing.T) {
	two := "gate_mode: random\nexperts: [{source_model: models/ft1}, {source_model: models/ft2}]\n"
	for name, test := range map[string]struct {
		text, want string
		change     func(o *moe.PlanOptions)
	}{
		"no such model":  {text: "base_model: models/none\n" + two, want: ":1:13: model models/none: not found"},
		"no such family": {text: "base_model: models/base\narchitecture: gpt\n" + two, want: `:2:15: architecture: there is none whose name begins with "gpt"; there are Mixtral, DeepSeek MoE, Qwen2 MoE, Qwen3 MoE`},
		"reasons":        {text: "base_model: models/base\n" + two + "shared_experts: [{source_model: models/ft1}, {source_model: models/ft2}]\n", want: "Mixtral: it has no shared experts; remove shared_experts\n  DeepSeek MoE: it has at most 1 shared expert, and 2 are listed\n  Qwen2 MoE: it has at most 1 shared expert, and 2 are listed\n  Qwen3 MoE: its experts are qwen3 models"},
		"qwen2 alone":    {text: "base_model: models/qwen\ngate_mode: random\nexperts: [{source_model: models/qwen}, {source_model: models/qwen-ft1}]\n", want: "Qwen2 MoE: it needs exactly one shared expert, which sees every token"},
		"ungated":        {text: "base_model: models/base\ngate_mode: cheap_embed\narchitecture: qwen\nexperts: [{source_model: models/ft1, positive_prompts: [a]}, {source_model: models/ft2, positive_prompts: [b]}]\nshared_experts: [{source_model: models/base}]\n", want: "its shared expert is weighed by a gate, which is made from prompts; add positive_prompts"},
		"gated":          {text: "base_model: models/base\ngate_mode: cheap_embed\narchitecture: deepseek\nexperts: [{source_model: models/ft1, positive_prompts: [a]}, {source_model: models/ft2, positive_prompts: [b]}]\nshared_experts: [{source_model: models/base, positive_prompts: [c]}]\n", want: "its shared expert has no gate"},
		"other kind":     {text: "base_model: models/base\ngate_mode: random\nexperts: [{source_model: models/gpt2}, {source_model: models/ft1}]\n", want: `models/gpt2 is of model_type "gpt2"; mixtures can be made of llama, mistral, qwen2 and qwen3 models`},
		"other type":     {text: "base_model: models/base\ngate_mode: random\nexperts: [{source_model: models/qwen}, {source_model: models/ft1}]\n", want: "models/qwen is a qwen2 model and the base models/base is llama"},
		"other depth":    {text: "base_model: models/base\ngate_mode: random\nexperts: [{source_model: models/deep}, {source_model: models/ft1}]\n", want: ":3:26: models/deep does not fit the base models/base: num_hidden_layers is 6 there and 4 in the base"},
		"biases":         {text: "base_model: forward/llama-tied-bias\ngate_mode: random\nexperts: [{source_model: forward/llama-tied-bias}, {source_model: forward/llama-tied-bias}]\n", want: "has model.layers.0.mlp.gate_proj.bias; experts of these architectures have no biases"},
		"all one":        {text: "base_model: models/base\ngate_mode: cheap_embed\nexperts: [{source_model: models/ft1, positive_prompts: [a]}, {source_model: ./models/ft1, positive_prompts: [b]}]\n", want: ":3:11: all experts are models/ft1, so a mixture of them computes what that model does"},
		"layout":         {text: "base_model: models/base\narchitecture: deepseek\n" + two, change: func(o *moe.PlanOptions) { o.Layout = moe.LayoutFused }, want: "DeepSeek MoE has no fused layout"},
	} {
		o := planOptions()
		if test.change != nil {
			test.change(&o)
		}
		_, err := moe.Build(parse(t, test.text), o)
		var e *recipe.Error
		if err == nil || !strings.Contains(err.Error(), test.want) || !errors.As(err, &e) {
			t.Errorf("%s: %v\nwant %q", name, err, test.want)
		}
	}
	o := planOptions()
	o.Useless = true
	build(t, "base_model: models/base\ngate_mode: cheap_embed\nexperts: [{source_model: models/ft1, positive_prompts: [a]}, {source_model: models/ft1, positive_prompts: [b]}]\n", o)
}

// TestGateErrors: what shows when prompts are looked at.
// TestResume: an assembly that was stopped is finished by the next, byte for byte; one of other options is not.
func TestResume(t *testing.T) {
	whole, _ := assemble(t, random, options())
	o := options()
	o.Threads = 1
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancel(context.Background())
	o.Written = func(int64) { cancel() }
	if _, err := moe.Assemble(ctx, build(t, random, o.Plan), out, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Fatal("an unfinished output is there")
	}
	o.Written, o.Resume = nil, true
	other := o
	other.Plan.Seed = 7
	var format *tensors.FormatError
	if _, err := moe.Assemble(context.Background(), build(t, random, other.Plan), out, other); !errors.As(err, &format) {
		t.Errorf("resumed with another seed: %v", err)
	}
	if _, err := moe.Assemble(context.Background(), build(t, random, o.Plan), out, o); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(filepath.Join(whole, "model.safetensors"))
	b, _ := os.ReadFile(filepath.Join(out, "model.safetensors"))
	if !bytes.Equal(a, b) {
		t.Error("the finished output differs from one made at once")
	}
	o.Resume = false
	if _, err := moe.Assemble(context.Background(), build(t, random, o.Plan), out, o); !errors.As(err, &format) {
		t.Errorf("wrote over an output: %v", err)
	}
	if _, err := moe.Assemble(context.Background(), build(t, random, o.Plan), filepath.Join(golden, "models/ft1"), options()); !errors.As(err, &format) || !strings.Contains(err.Error(), "is a directory of the input models/ft1") {
		t.Errorf("wrote over an input: %v", err)
	}
}

// TestNotFinite: values that are no numbers are refused with the tensor and where they come from, unless they are wanted.
func TestNotFinite(t *testing.T) {
	text := func(change string) string {
		return "base_model: models/base\ngate_mode: random\ndtype: float16\nexperts: [{source_model: models/ft1, " + change + "}, {source_model: models/ft2}]\n"
	}
	for change, want := range map[string]string{
		"residual_scale: 1e30": "model.layers.0.block_sparse_moe.experts.0.w2.weight: values are NaN or infinite: noise_scale, residual_scale or dtype float16 make them too large",
		"noise_scale: 1e6":     "model.layers.0.block_sparse_moe.experts.0.w",
	} {
		o := options()
		o.Threads = 1
		out := filepath.Join(t.TempDir(), "out")
		_, err := moe.Assemble(context.Background(), build(t, text(change), o.Plan), out, o)
		var bad *merge.InputError
		if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &bad) {
			t.Errorf("%s: %v", change, err)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: there is an output", change)
		}
		o.AllowNonFinite = true
		if _, err := moe.Assemble(context.Background(), build(t, text(change), o.Plan), out+"2", o); err != nil {
			t.Errorf("%s: %v", change, err)
		}
	}
	dir := t.TempDir() // an expert that holds them, copied as it is
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(golden, "models", "ft1"))); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "model.safetensors")
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	const name = "model.layers.1.mlp.up_proj.weight"
	r, err := c.Reader(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Bytes(0, 4, make([]byte, 4))
	if err != nil {
		t.Fatal(err)
	}
	was := bytes.Clone(b)
	c.Close()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, was)
	copy(data[at:], []byte{0, 0, 0xc0, 0x7f})
	if err := os.WriteFile(file, data, 0o666); err != nil {
		t.Fatal(err)
	}
	o := options()
	_, err = moe.Assemble(context.Background(), build(t, "base_model: models/base\ngate_mode: random\nexperts: [{source_model: "+dir+"}, {source_model: models/ft2}]\n", o.Plan), filepath.Join(t.TempDir(), "out"), o)
	if err == nil || !strings.Contains(err.Error(), "experts.0.w3.weight: values are NaN or infinite: "+dir+":"+name+" already holds such values") {
		t.Error(err)
	}
}

// TestConfigs assembles the configurations of configs/moe.
func TestConfigs(t *testing.T) {
	files, err := filepath.Glob("../../configs/moe/*.yml")
	if err != nil || len(files) < 4 {
		t.Fatal(len(files), "configurations", err)
	}
	for _, f := range files {
		out := filepath.Join(t.TempDir(), "out")
		s, err := moe.Run(context.Background(), f, out, options())
		if err != nil {
			t.Error(err)
			continue
		}
		c, err := tensors.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(c.Names()); n != s.Tensors || n == 0 {
			t.Errorf("%s: %d tensors written, %d reported", f, n, s.Tensors)
		}
		c.Close()
	}
}

// TestForward: what is assembled computes what transformers computes with it, in either layout, and a single token goes to the experts that it
// goes to among others.
func TestForward(t *testing.T) {
	for _, name := range []string{"mixtral-cheap-embed", "mixtral-hidden", "qwen2-hidden"} {
		for _, layout := range []string{moe.LayoutExperts, moe.LayoutFused} {
			dir, out := filepath.Join(golden, "moe", name), filepath.Join(t.TempDir(), "out")
			o := options()
			o.Plan.Layout = layout
			if _, err := moe.Run(context.Background(), filepath.Join(dir, "moe.yml"), out, o); err != nil {
				t.Fatal(err)
			}
			b, done, err := goBackend()
			if err != nil {
				t.Fatal(err)
			}
			m, err := model.Load(context.Background(), out, model.Options{Backend: b})
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(dir, "input.json"))
			if err != nil {
				t.Fatal(err)
			}
			in, err := model.ParseInput(text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Forward(in)
			if err != nil {
				t.Fatal(err)
			}
			want := values(t, filepath.Join(dir, "expected.safetensors"), "output")
			magnitude := largest(want, make([]float32, len(want)))
			if d := largest(got.Data, want); d > 2e-4*magnitude {
				t.Errorf("%s, %s: logits differ by %g of %g", name, layout, d, magnitude)
			}
			one, err := m.Forward(model.Input{Rows: 1, Length: 1, IDs: in.IDs[:1]})
			if err != nil {
				t.Fatal(err)
			}
			if d := largest(one.Data, want[:len(one.Data)]); d > 2e-4*magnitude {
				t.Errorf("%s, %s: logits of one token differ by %g of %g", name, layout, d, magnitude)
			}
			m.Close()
			done()
		}
	}
}

// TestBlockStates: block by block, padded and in batches, a text's states are those of the whole model on the text alone.
