package symmetry_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/tensors"
)

// source is tensors by name.
type source map[string][]int

func (s source) Lookup(name string) (tensors.Info, bool) {
	shape, ok := s[name]
	return tensors.Info{Name: name, DType: tensors.F32, Shape: shape}, ok
}

// golden opens one of the small models that the forward passes are tested with.
func golden(t *testing.T, name string) (config []byte, src source) {
	t.Helper()
	dir := filepath.Join("../../testdata/golden/forward", name)
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	src = source{}
	for _, n := range c.Names() {
		info, _ := c.Lookup(n)
		src[n] = info.Shape
	}
	return config, src
}

// summary counts a spec's groups by sort: "mlp 3 scaled_perm of 72".
func summary(s *symmetry.Spec) string {
	var order []string
	count := map[string]int{}
	for _, g := range s.Groups {
		sort, _, _ := strings.Cut(g.ID, ".")
		key := fmt.Sprintf("%s %s of %d", sort, g.Kind, g.Size)
		if count[key]++; count[key] == 1 {
			order = append(order, key)
		}
	}
	for i, key := range order {
		sort, rest, _ := strings.Cut(key, " ")
		order[i] = fmt.Sprintf("%s %d %s", sort, count[key], rest)
	}
	return strings.Join(order, ", ")
}

// TestGolden fills the specs in for models of transformers' own making.
func TestGolden(t *testing.T) {
	dirs, err := filepath.Glob("../../testdata/golden/forward/*")
	if err != nil || len(dirs) < 15 {
		t.Fatal(dirs, err)
	}
	gqa := "mlp 3 scaled_perm of 72, kv 3 head_group of 2, qh 6 head_group of 2, vo 6 invertible of 8, qk 6 rope_plane of 4"
	wide := "mlp 3 scaled_perm of 72, kv 3 head_group of 2, qh 6 head_group of 2, vo 6 invertible of 16, qk 6 rope_plane of 8"
	want := map[string]string{
		"llama": "res 1 orthogonal of 32, " + gqa, "llama-linear-rope": "res 1 orthogonal of 32, " + gqa, "llama-yarn-rope": "res 1 orthogonal of 32, " + gqa,
		"llama-reward": "res 1 orthogonal of 32, " + gqa, "llama-tied-bias": "res 1 signed_perm of 32, " + gqa,
		"llama3-rope": "res 1 orthogonal of 32, mlp 3 scaled_perm of 72, qh 3 head_group of 4, vo 3 invertible of 8, qk 3 rope_plane of 4",
		"gemma":       "res 1 signed_perm of 32, mlp 3 scaled_perm of 72, qh 3 head_group of 4, vo 3 invertible of 16, qk 3 rope_plane of 8",
		"gemma2":      "res 1 signed_perm of 32, " + wide, "mistral-window": "res 1 orthogonal of 32, " + wide,
		"qwen3": "res 1 orthogonal of 32, " + wide + ", qk_norm 3 rope_plane of 8", "gemma3": "res 1 signed_perm of 32, " + wide + ", qk_norm 3 rope_plane of 8",
		"qwen2": "res 1 signed_perm of 32, " + gqa, "phi3": "res 1 orthogonal of 32, " + gqa,
		"gpt2":            "res 1 perm of 32, mlp 3 perm of 128, kv 3 head_group of 4, vo 12 invertible of 8, qk 12 invertible of 8",
		"bert":            "res 1 perm of 32, mlp 3 perm of 64, kv 3 head_group of 4, vo 12 invertible of 8, qk 12 invertible of 8",
		"bert-classifier": "res 1 perm of 32, mlp 3 perm of 64, kv 3 head_group of 4, vo 12 invertible of 8, qk 12 invertible of 8, pooled 1 signed_perm of 32",
		"vit":             "res 1 perm of 32, mlp 2 perm of 64, kv 2 head_group of 4, vo 8 invertible of 8, qk 8 invertible of 8",
		"vit-encoder":     "res 1 perm of 32, mlp 2 perm of 64, kv 2 head_group of 4, vo 8 invertible of 8, qk 8 invertible of 8",
	}
	// What no group may touch: biases of outputs, gains of heads (but for Qwen3's, whose scales move).
	left := map[string]string{"bert": "pooler.dense.bias", "bert-classifier": "classifier.bias", "vit": "classifier.bias", "vit-encoder": "pooler.dense.bias"}
	// Mixtures of experts have no spec: their experts could be permuted as well as what is in them.
	without := []string{"mixtral", "mixtral-fused", "qwen2-moe", "qwen3-moe"}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		t.Run(name, func(t *testing.T) {
			config, src := golden(t, name)
			s, err := symmetry.Of(config, src)
			if slices.Contains(without, name) {
				if err == nil || !strings.Contains(err.Error(), "there is no symmetry spec for model_type") {
					t.Errorf("a mixture of experts is not refused: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(s); got != want[name] {
				t.Errorf("%s\nwant %s", got, want[name])
			}
			seen := map[string]bool{}
			for _, g := range s.Groups {
				for _, r := range g.Refs {
					seen[r.Tensor] = true
				}
			}
			for n := range src {
				if !seen[n] && left[name] != n {
					t.Errorf("no group has %s", n)
				}
			}
			if err := s.Validate(src); err != nil {
				t.Error(err)
			}
			// The same model saved without its prefix, or with another one, has the same groups.
			for _, p := range []string{"model.", "transformer.", "bert.", "vit."} {
				bare := source{}
				for n, shape := range src {
					bare[strings.TrimPrefix(n, p)] = shape
				}
				again, err := symmetry.Of(config, bare)
				if err != nil {
					t.Fatal(err)
				}
				if summary(again) != summary(s) {
					t.Errorf("without %s: %s", p, summary(again))
				}
				for _, g := range again.Groups {
					for _, r := range g.Refs {
						if _, ok := bare[r.Tensor]; !ok && again.Untie[r.Tensor] == "" {
							t.Fatalf("without %s: %s is no tensor", p, r.Tensor)
						}
					}
				}
			}
		})
	}
}

func TestFamilies(t *testing.T) {
	want := []string{"bert", "gemma", "gemma2", "gemma3_text", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3", "vit"}
	if got := symmetry.Families(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// TestSharedHead: the head that is the embedding appears where the stream can be turned, and nowhere else.
func TestSharedHead(t *testing.T) {
	reads := func(s *symmetry.Spec, tensor string) bool {
		g, ok := s.Group("res")
		if !ok {
			t.Fatal("no stream")
		}
		return slices.ContainsFunc(g.Refs, func(r symmetry.Ref) bool { return r.Tensor == tensor && r.Role == symmetry.Read })
	}
	for name, want := range map[string]string{"llama-tied-bias": "model.embed_tokens.weight", "qwen2": "model.embed_tokens.weight", "gemma": "model.embed_tokens.weight",
		"llama": "", "gemma2": "", "gpt2": ""} {
		config, src := golden(t, name)
		s, err := symmetry.Of(config, src)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Untie["lm_head.weight"]; got != want {
			t.Errorf("%s: lm_head.weight is %q", name, got)
		}
		if reads(s, "lm_head.weight") != (want != "" || src["lm_head.weight"] != nil) {
			t.Errorf("%s: the stream is read by lm_head.weight: %v", name, reads(s, "lm_head.weight"))
		}
	}
	// A copy of the embedding that the file holds beside it moves along.
	config, src := golden(t, "gpt2")
	src["lm_head.weight"] = src["transformer.wte.weight"]
	s, err := symmetry.Of(config, src)
	if err != nil || s.Untie != nil || !reads(s, "lm_head.weight") {
		t.Errorf("%v, %v", s.Untie, err)
	}
	// A classifier has a head of its own, whatever config.json says of the embedding.
	config, src = golden(t, "llama-reward")
	s, err = symmetry.Of([]byte(strings.Replace(string(config), `"tie_word_embeddings": false`, `"tie_word_embeddings": true`, 1)), src)
	if err != nil || s.Untie != nil || !reads(s, "score.weight") {
		t.Errorf("%v, %v", s.Untie, err)
	}
}

// TestOldNames: BERT files of TensorFlow's time.
func TestOldNames(t *testing.T) {
	config, src := golden(t, "bert-classifier")
	old := source{}
	for n, shape := range src {
		n = strings.ReplaceAll(strings.ReplaceAll(n, "LayerNorm.weight", "LayerNorm.gamma"), "LayerNorm.bias", "LayerNorm.beta")
		old[n] = shape
	}
	s, err := symmetry.Of(config, old)
	if err != nil {
		t.Fatal(err)
	}
	g, _ := s.Group("res")
	if !slices.ContainsFunc(g.Refs, func(r symmetry.Ref) bool {
		return r.Tensor == "bert.embeddings.LayerNorm.gamma" && r.Role == symmetry.Gain
	}) {
		t.Error("the gain is missing")
	}
}

// TestDamagedModel: of a model that is not what its family's spec says, one fault is told, with what to do, and no line of a file that
// the user does not have.
func TestDamagedModel(t *testing.T) {
	config, src := golden(t, "llama")
	gone := source{}
	for n, shape := range src {
		if n != "model.layers.1.mlp.up_proj.weight" {
			gone[n] = shape
		}
	}
	heads := []byte(strings.Replace(string(config), `"num_attention_heads": 4`, `"num_attention_heads": 0`, 1))
	for _, c := range []struct {
		config []byte
		src    source
		want   string
	}{{config, gone, "no tensor model.layers.1.mlp.up_proj.weight"}, {heads, src, "group kv.0"}} {
		_, err := symmetry.Of(c.config, c.src)
		var e *symmetry.Error
		if !errors.As(err, &e) || !strings.Contains(e.Error(), c.want) || !strings.Contains(e.Error(), "--spec") || strings.ContainsAny(e.Error(), "\n") || strings.Contains(e.Error(), ".yml") {
			t.Errorf("%v", err)
		}
	}
}

// TestCopiedHead: a checkpoint that stores its shared head a second time has the copy moved along, whatever symmetry is used; a model
// without a copy still fits.
func TestCopiedHead(t *testing.T) {
	config, bare := golden(t, "llama-tied-bias")
	src := source{"lm_head.weight": bare["model.embed_tokens.weight"]}
	for n, shape := range bare {
		src[n] = shape
	}
	whole, err := symmetry.Of(config, src)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{symmetry.Permutation, symmetry.Signed, symmetry.Auto, symmetry.Full} {
		s, err := whole.Restrict(kind, symmetry.AllGroups())
		if err != nil {
			t.Fatal(err)
		}
		g, _ := s.Group("res")
		i := slices.IndexFunc(g.Refs, func(r symmetry.Ref) bool { return r.Tensor == "lm_head.weight" })
		if i < 0 || g.Refs[i].Silent != (kind != symmetry.Full) || !slices.Equal(s.Copies, []string{"lm_head.weight"}) {
			t.Errorf("%s: ref %d of %v, copies %v", kind, i, g.Refs, s.Copies)
		}
		if err := s.Validate(bare); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	g, _ := whole.Group("res")
	if i := slices.IndexFunc(g.Refs, func(r symmetry.Ref) bool { return r.Tensor == "lm_head.weight" }); g.Refs[i].Silent {
		t.Error("Restrict changed the spec that it was given")
	}
	if s, err := symmetry.Of(config, bare); err != nil || s.Copies != nil {
		t.Errorf("without a copy: %v %v", s.Copies, err)
	}
}
