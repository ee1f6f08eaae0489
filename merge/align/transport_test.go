package align

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const llamaConfig = `{"architectures": ["%s"], "model_type": "%s", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 20, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "max_position_embeddings": 64,
"hidden_act": "silu", "torch_dtype": "float32", "tie_word_embeddings": %v}`

// llama writes a small model of random weights: Llama, or Qwen2 with its biases.
func llama(t *testing.T, class, kind string, tied bool) string {
	t.Helper()
	w := map[string]model.Tensor{}
	put := func(name string, shape ...int) {
		x := make([]float32, shape[0]*shape[len(shape)-1])
		if len(shape) == 1 {
			x = x[:shape[0]]
		}
		if linalg.Normal(x, 1, name); strings.Contains(name, "norm") {
			linalg.Uniform(x, 1, name)
			for i := range x {
				x[i] += 0.5
			}
		}
		w[name] = model.Tensor{Shape: shape, Data: x}
	}
	put("model.embed_tokens.weight", 20, 16)
	put("model.norm.weight", 16)
	if !tied {
		put("lm_head.weight", 20, 16)
	}
	for l := range 2 {
		p := fmt.Sprintf("model.layers.%d.", l)
		put(p+"input_layernorm.weight", 16)
		put(p+"post_attention_layernorm.weight", 16)
		for name, rows := range map[string]int{"q": 16, "k": 8, "v": 8} {
			put(p+"self_attn."+name+"_proj.weight", rows, 16)
			if kind == "qwen2" {
				put(p+"self_attn."+name+"_proj.bias", rows)
			}
		}
		put(p+"self_attn.o_proj.weight", 16, 16)
		put(p+"mlp.gate_proj.weight", 24, 16)
		put(p+"mlp.up_proj.weight", 24, 16)
		put(p+"mlp.down_proj.weight", 16, 24)
	}
	dir, _ := checkpointIn(t, w, tensors.F32, fmt.Sprintf(llamaConfig, class, kind, tied))
	return dir
}

// adapterFor trains nothing: it draws an adapter for a base, all of it random.
func adapterFor(t *testing.T, base, text string) string {
	t.Helper()
	c := openIn(t, base)
	raw, err := os.ReadFile(filepath.Join(base, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	modules, err := adapter.Modules(c, raw)
	if err != nil {
		t.Fatal(err)
	}
	config, _, err := adapter.ParseConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	targets, err := adapter.Select(config, modules)
	if err != nil {
		t.Fatal(err)
	}
	config.Init = "false"
	values, err := adapter.Init(config, targets, 3, func(m adapter.Module) ([]float32, error) { return OfCheckpoint(c).Read(m.Weight) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range targets {
		if name := targets[i].Magnitude; name != "" {
			linalg.Uniform(values[name].Data, 4, name)
		}
	}
	whole, err := adapter.SelectWhole(config, modules, targets)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range whole {
		x := adapter.Tensor{Shape: w.Shape}
		x.Data = make([]float32, x.Elems())
		linalg.Normal(x.Data, 5, w.Key)
		values[w.Key] = x
	}
	config.Init = "true"
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := (&adapter.Adapter{Config: config, Tensors: values}).Save(dir, adapter.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func fused(t *testing.T, base, dir string, tie adapter.Tie) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "fused")
	if _, err := adapter.Fuse(context.Background(), base, dir, out, adapter.FuseOptions{Tie: tie}); err != nil {
		t.Fatal(err)
	}
	return out
}

const (
	plainLoRA = `{"peft_type": "LORA", "r": 3, "lora_alpha": 5, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}`
	dora      = `{"peft_type": "LORA", "r": 3, "lora_alpha": 5, "target_modules": "all-linear", "use_dora": true, "task_type": "CAUSAL_LM"}`
	stabilise = `{"peft_type": "LORA", "r": 4, "lora_alpha": 5, "use_rslora": true, "target_modules": ["q_proj", "v_proj", "down_proj", "embed_tokens"], "bias": "all", "task_type": "CAUSAL_LM"}`
	saved     = `{"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["k_proj", "o_proj"], "lora_bias": true, "modules_to_save": ["lm_head", "embed_tokens"], "task_type": "CAUSAL_LM"}`
	head      = `{"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["lm_head", "up_proj"], "task_type": "CAUSAL_LM"}`
	norms     = `{"peft_type": "LORA", "r": 2, "lora_alpha": 1, "target_modules": ["up_proj"], "modules_to_save": ["input_layernorm"], "task_type": "CAUSAL_LM"}`
)

// TestTransport: fusing the adapter that was carried over into the aligned base gives what aligning the fused base gives.
func TestTransport(t *testing.T) {
	cases := []struct {
		name, kind, adapter string
		tied, exactOnly     bool
		tie                 adapter.Tie
	}{
		{name: "lora", kind: "llama", adapter: plainLoRA},
		{name: "lora tied", kind: "llama", adapter: plainLoRA, tied: true},
		{name: "rslora, biases, embedding", kind: "qwen2", adapter: stabilise},
		{name: "modules_to_save", kind: "llama", adapter: strings.Replace(saved, `"lora_bias": true, `, "", 1)},
		{name: "lora_bias", kind: "qwen2", adapter: strings.Replace(saved, `"o_proj"`, `"v_proj"`, 1)},
		{name: "head of a shared matrix", kind: "llama", adapter: head, tied: true, tie: adapter.Untie},
		{name: "dora", kind: "llama", adapter: dora, exactOnly: true},
		{name: "gains", kind: "llama", adapter: norms, exactOnly: true},
	}
	classes := map[string]string{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
	for _, c := range cases {
		base := llama(t, classes[c.kind], c.kind, c.tied)
		dir := adapterFor(t, base, c.adapter)
		s, err := SpecFor(base, "")
		if err != nil {
			t.Fatal(err)
		}
		for i, res := range []symmetry.Kind{symmetry.Perm, symmetry.SignedPerm, symmetry.Orthogonal} {
			exact := res != symmetry.Orthogonal
			m := mustRandom(t, s, uint64(i), RandomOptions{Scales: true, Gains: true, Kind: func(g *symmetry.Group) symmetry.Kind {
				switch {
				case g.ID == "res":
					return res
				case c.exactOnly && g.Kind == symmetry.ScaledPerm:
					return symmetry.SignedPerm
				case c.exactOnly && g.Kind != symmetry.HeadGroup:
					return ""
				}
				return g.Kind
			}})
			aligned, carried := filepath.Join(t.TempDir(), "aligned"), filepath.Join(t.TempDir(), "carried")
			from := openIn(t, base)
			if _, err := Write(context.Background(), m, from, base, aligned, WriteOptions{}); err != nil {
				t.Fatal(c.name, err)
			}
			_, err := TransportAdapter(m, base, dir, carried, TransportOptions{NewBase: aligned})
			if c.exactOnly && !exact {
				var e *Error
				if !errors.As(err, &e) || e.Hint == "" || e.File != dir || e.Tensor == "" {
					t.Errorf("%s, residual %s: %v", c.name, res, err)
				}
				continue
			}
			if err != nil {
				t.Fatal(c.name, res, err)
			}
			tie := c.tie
			if !exact {
				tie = adapter.Refuse // the aligned base is not tied any more
			}
			got := openIn(t, fused(t, aligned, carried, tie))
			whole := openIn(t, fused(t, base, dir, c.tie))
			want := aligning(t, m, from, whole)
			d := worst(t, want, floats(got))
			if !(d < 1e-5) {
				t.Errorf("%s, residual %s: off by %.1e", c.name, res, d)
			}
			if r, err := adapter.Open(carried); err != nil || r.Config.BaseModel != aligned || r.Config.R != mustOpen(t, dir).Config.R {
				t.Errorf("%s: configuration %+v, %v", c.name, r, err)
			}
		}
	}
}

func mustOpen(t *testing.T, dir string) *adapter.Adapter {
	a, err := adapter.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// aligning applies a map to a fused checkpoint with the gains of its base; a head that fusing untied is its own tensor.
func aligning(t *testing.T, m *Map, base, whole *tensors.Checkpoint) Weights {
	t.Helper()
	own, err := ReadGains(m.Spec, OfCheckpoint(base))
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Prepare(own)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]model.Tensor{}
	names := floats(whole).Names()
	for to := range m.Untied() {
		if !slices.Contains(names, to) {
			names = append(names, to)
		}
	}
	for _, name := range names {
		from := name
		if _, there := whole.Lookup(name); !there {
			from = m.Untied()[name]
		}
		x, err := OfCheckpoint(whole).Read(from)
		if err != nil {
			t.Fatal(err)
		}
		info, _ := whole.Lookup(from)
		tr, err := p.Transform(name, info.Shape)
		if err != nil {
			t.Fatal(err)
		}
		if tr != nil {
			if x, err = tr.All(x); err != nil {
				t.Fatal(err)
			}
		}
		out[name] = model.Tensor{Shape: info.Shape, Data: x}
	}
	return OfTensors(out)
}

// TestTransportRefuses: an adapter for another base, and one whose matrix the map splits in two.
func TestTransportRefuses(t *testing.T) {
	base := llama(t, "LlamaForCausalLM", "llama", true)
	s, err := SpecFor(base, "")
	if err != nil {
		t.Fatal(err)
	}
	m := mustRandom(t, s, 1, RandomOptions{Kind: func(g *symmetry.Group) symmetry.Kind {
		if g.ID == "res" {
			return symmetry.Orthogonal
		}
		return g.Kind
	}})
	tied := adapterFor(t, base, `{"peft_type": "LORA", "r": 2, "target_modules": ["embed_tokens"], "ensure_weight_tying": true, "task_type": "CAUSAL_LM"}`)
	var e *Error
	if _, err := TransportAdapter(m, base, tied, filepath.Join(t.TempDir(), "out"), TransportOptions{}); !errors.As(err, &e) || !strings.Contains(err.Error(), "signed") {
		t.Errorf("shared matrix: %v", err)
	}
	other := adapterFor(t, llama(t, "Qwen2ForCausalLM", "qwen2", false), stabilise)
	var bad *adapter.Error
	if _, err := TransportAdapter(m, base, other, filepath.Join(t.TempDir(), "out"), TransportOptions{}); !errors.As(err, &bad) {
		t.Errorf("another base: %v", err)
	}
	if _, err := TransportAdapter(m, base, tied, tied, TransportOptions{Force: true}); err == nil {
		t.Error("the adapter's own directory was written to")
	}
}

// TestFits: a map of a model with fewer layers, or without a head of its own, would leave a part of the other one in other coordinates.
func TestFits(t *testing.T) {
	two, tied := llama(t, "LlamaForCausalLM", "llama", false), llama(t, "LlamaForCausalLM", "llama", true)
	spec, err := SpecFor(tied, "")
	if err != nil {
		t.Fatal(err)
	}
	if spec, err = spec.Restrict("signed", symmetry.Choice{Residual: "auto", MLP: true, Heads: true, QK: true, VO: "orthogonal"}); err != nil {
		t.Fatal(err)
	}
	m := mustRandom(t, spec, 1, RandomOptions{})
	fits := func(dir string, m *Map) error {
		config, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := tensors.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return m.Fits(config, c)
	}
	if err := fits(tied, m); err != nil {
		t.Errorf("its own model: %v", err)
	}
	var e *Error
	if err := fits(two, m); !errors.As(err, &e) || e.Group != "res" || e.Tensor != "lm_head.weight" {
		t.Errorf("a model with a head of its own: %v", err)
	}
	if err := fits(two, Identity(spec)); err != nil {
		t.Errorf("a map that does nothing: %v", err)
	}
	res, err := SpecFor(two, "")
	if err != nil {
		t.Fatal(err)
	}
	g, _ := res.Group("res")
	g.Refs = slices.DeleteFunc(slices.Clone(g.Refs), func(r symmetry.Ref) bool { return strings.Contains(r.Tensor, "layers.1.") })
	for i := range res.Groups {
		if res.Groups[i].ID == "res" {
			res.Groups[i].Refs = g.Refs
		}
	}
	res.Norms = slices.DeleteFunc(slices.Clone(res.Norms), func(n symmetry.Norm) bool { return strings.Contains(n.Gain, "layers.1.") })
	if err := fits(two, mustRandom(t, res, 1, RandomOptions{})); !errors.As(err, &e) || e.Group != "res" || !strings.Contains(e.Tensor, "layers.1.") {
		t.Errorf("a further layer: %v", err)
	}
}

// TestTransportSharedHead: the map of an untied copy carries adapters of the model that shares its head, unless they change the shared
// matrix, which the copy has twice.
func TestTransportSharedHead(t *testing.T) {
	tied, untied := llama(t, "LlamaForCausalLM", "llama", true), llama(t, "LlamaForCausalLM", "llama", false)
	s, err := SpecFor(untied, "")
	if err != nil {
		t.Fatal(err)
	}
	m := mustRandom(t, s, 1, RandomOptions{Scales: true})
	if !m.AnyTurned() {
		t.Fatal("the map turns nothing")
	}
	dir := adapterFor(t, tied, plainLoRA)
	var got [2]map[string]adapter.Tensor
	for i, base := range []string{tied, untied} {
		out := filepath.Join(t.TempDir(), "out")
		if _, err := TransportAdapter(m, base, dir, out, TransportOptions{}); err != nil {
			t.Fatal(err)
		}
		got[i] = mustOpen(t, out).Tensors
	}
	if len(got[0]) == 0 || !reflect.DeepEqual(got[0], got[1]) {
		t.Error("the adapter depends on whether the base shares its head")
	}
	embedding := adapterFor(t, tied, `{"peft_type": "LORA", "r": 2, "target_modules": ["embed_tokens"], "task_type": "CAUSAL_LM"}`)
	_, err = TransportAdapter(m, tied, embedding, filepath.Join(t.TempDir(), "out"), TransportOptions{})
	if err == nil || !strings.Contains(err.Error(), "lm_head.weight") {
		t.Errorf("an adapter of the shared matrix: %v", err)
	}
}
