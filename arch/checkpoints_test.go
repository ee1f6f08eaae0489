package arch

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCheckpoints matches descriptions with checkpoints that transformers wrote: nothing is missing, nothing is left over.
func TestCheckpoints(t *testing.T) {
	families := map[string]string{
		"base": "llama", "deep": "llama", "tied": "llama", "llama-tied-bias": "llama", "llama-reward": "llama-sequence-classification",
		"gpt2": "gpt2", "bert": "bert", "bert-classifier": "bert-sequence-classification", "qwen": "qwen2", "qwen3": "qwen3",
		"gemma2": "gemma2", "gemma3": "gemma3", "mistral-window": "mistral", "phi3": "phi3",
	}
	dirs, err := os.ReadDir("testdata/checkpoints")
	if err != nil || len(dirs) != len(families) {
		t.Fatalf("%d checkpoints, want %d (%v)", len(dirs), len(families), err)
	}
	for _, d := range dirs {
		t.Run(d.Name(), func(t *testing.T) {
			dir := filepath.Join("testdata/checkpoints", d.Name())
			c, err := ReadConfig(dir)
			if err != nil {
				t.Fatal(err)
			}
			list, err := os.ReadFile(filepath.Join(dir, "names.txt"))
			if err != nil {
				t.Fatal(err)
			}
			names := strings.Fields(string(list))
			a, ok := Lookup(c)
			if !ok || a.Name != families[d.Name()] {
				t.Fatalf("described by %v, want %s", a, families[d.Name()])
			}
			wantComplete(t, a, c, names)
			inferredCovers(t, []Config{c}, names)
			if k := LayerCountKey(c); !strings.HasPrefix(k, "n") {
				t.Errorf("layer count key %q", k)
			}
		})
	}
}

// wantComplete fails where the description misses or leaves over a tensor.
func wantComplete(t *testing.T, a *Arch, c Config, names []string) {
	t.Helper()
	missing, undescribed, err := a.Match(c, names)
	if err != nil || len(missing) > 0 || len(undescribed) > 0 {
		t.Errorf("%s: missing %q, undescribed %q, error %v", a.Name, missing, undescribed, err)
	}
}

// saved is a model of testdata/transformers.txt.
type saved struct {
	name   string
	config Config
	names  []string
}

func savedModels(t *testing.T) []saved {
	t.Helper()
	b, err := os.ReadFile("testdata/transformers.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []saved
	for _, section := range strings.Split("\n"+strings.TrimSpace(string(b)), "\n== ")[1:] {
		lines := strings.Split(section, "\n")
		c, err := ParseConfig(lines[0], []byte(lines[1]))
		if err != nil {
			t.Fatal(err)
		}
		s := saved{name: lines[0], config: c}
		for _, l := range lines[2:] {
			head, rest, ok := strings.Cut(l, "[")
			if !ok {
				s.names = append(s.names, l)
				continue
			}
			layers, tail, _ := strings.Cut(rest, "]")
			for _, i := range strings.Fields(layers) {
				s.names = append(s.names, head+i+tail)
			}
		}
		out = append(out, s)
	}
	return out
}

func TestSavedByTransformers(t *testing.T) {
	models := savedModels(t)
	if len(models) < 60 {
		t.Fatalf("only %d models", len(models))
	}
	builtin := map[string]bool{}
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			a, ok := Lookup(m.config)
			if want := !slices.Contains([]string{"exaone4", "qwen2moe"}, m.name); ok != want {
				t.Fatalf("built in: %v, want %v", ok, want)
			}
			if ok {
				builtin[a.Name] = true
				wantComplete(t, a, m.config, m.names)
			}
			inferredCovers(t, []Config{m.config}, m.names)
		})
	}
	// What transformers 5.23 has no class for is known from its checkpoints alone.
	var unchecked []string
	for _, a := range All() {
		if !builtin[a.Name] {
			unchecked = append(unchecked, a.Name)
		}
	}
	want := []string{"baichuan", "chatglm", "exaone", "internlm2", "jais", "phi-1", "phi2-old", "phi3-small", "qwen", "solar", "stablelm"}
	if !slices.Equal(unchecked, want) {
		t.Errorf("families that no model here has: %q, want %q", unchecked, want)
	}
}

// TestV5Prefixes accepts vision-language checkpoints under the names that transformers 5 has in memory.
func TestV5Prefixes(t *testing.T) {
	inMemory := strings.NewReplacer(
		"language_model.model.", "model.language_model.", "language_model.lm_head.", "lm_head.", "vision_tower.", "model.vision_tower.",
		"multi_modal_projector.", "model.multi_modal_projector.", "vision_model.", "model.vision_model.", "visual.", "model.visual.", "model.", "model.language_model.")
	for _, m := range savedModels(t) {
		if !slices.Contains([]string{"gemma3vl", "llama4", "mistral3", "qwen2vl", "qwen25vl"}, m.name) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			a, ok := Lookup(m.config)
			if !ok {
				t.Fatal("not built in")
			}
			renamed := make([]string, len(m.names))
			for i, n := range m.names {
				renamed[i] = n
				for _, from := range []string{"language_model.model.", "language_model.lm_head.", "vision_tower.", "multi_modal_projector.", "vision_model.", "visual.", "model."} {
					if strings.HasPrefix(n, from) {
						renamed[i] = inMemory.Replace(from) + n[len(from):]
						break
					}
				}
				if renamed[i] == n && n != "lm_head.weight" {
					t.Errorf("%s has no other name", n)
				}
			}
			wantComplete(t, a, m.config, renamed)
			if m.name == "gemma3vl" { // the hub's files, from before transformers 5
				for i, n := range m.names {
					renamed[i] = strings.Replace(n, "vision_tower.", "vision_tower.vision_model.", 1)
				}
				wantComplete(t, a, m.config, renamed)
			}
		})
	}
}
