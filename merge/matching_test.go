package merge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// copyOf writes a golden model under a random map and returns the directory of the copy.
func copyOf(t *testing.T, dir, kinds string, scales bool) string {
	t.Helper()
	spec, err := align.SpecFor(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	choice := symmetry.AllGroups()
	if spec, err = spec.Restrict(kinds, choice); err != nil {
		t.Fatal(err)
	}
	m, err := align.Random(spec, 21, align.RandomOptions{Scales: scales, Gains: scales})
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "copy of "+filepath.Base(dir))
	if _, err := align.Write(context.Background(), m, openDir(t, dir), dir, out, align.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return out
}

// sameFiles wants files of two directories to have the same bytes.
func sameFiles(t *testing.T, a, b string, names ...string) {
	t.Helper()
	for _, name := range names {
		x, errX := os.ReadFile(filepath.Join(a, name))
		y, errY := os.ReadFile(filepath.Join(b, name))
		if err := errors.Join(errX, errY); err != nil {
			t.Error(err)
		} else if !bytes.Equal(x, y) {
			t.Errorf("%s differs", name)
		}
	}
}

// TestAlignThenMerge: `align:` in a recipe gives the bytes of `mergekit align` followed by the same recipe without.
func TestAlignThenMerge(t *testing.T) {
	mlp := absolute(t, "../model/testdata/plain/mlp")
	other := filepath.Join(t.TempDir(), "other")
	otherMLP(t, mlp, other)
	for _, c := range []struct {
		name, reference, model string
		align                  func(a *recipe.Align)
		keys                   string
	}{
		{"llama", smallModels + "/base", copyOf(t, smallModels+"/ft1", "full", true), nil, "{}"},
		{"llama-bf16 permuted", smallModels + "/base-bf16", copyOf(t, smallModels+"/ft1-bf16", "permutation", false), func(a *recipe.Align) { a.Symmetry = "permutation" }, "{symmetry: permutation}"},
		{"tied untied", smallModels + "/tied", copyOf(t, smallModels+"/tied-ft1", "full", true), func(a *recipe.Align) { a.Symmetry = "full" }, "{symmetry: full}"},
		{"tied", smallModels + "/tied", copyOf(t, smallModels+"/tied-ft1", "signed", false), func(a *recipe.Align) { a.Seed = 3 }, "{seed: 3}"},
		{"mlp", mlp, copyOf(t, other, "full", true), nil, "{}"},
		{"gpt2", smallModels + "/gpt2", copyOf(t, smallModels+"/gpt2-ft1", "full", true), nil, "{}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			reference, model := absolute(t, c.reference), absolute(t, c.model)
			aligned := filepath.Join(dir, "aligned")
			a := recipe.DefaultAlign()
			if c.align != nil {
				c.align(a)
			}
			list, err := merge.Align(context.Background(), []string{reference, model}, aligned, a, merge.AlignOptions{Options: merge.Options{Backend: goBackend(t), Verify: true}, Save: filepath.Join(dir, "map.safetensors")})
			if err != nil {
				t.Fatal(err)
			}
			if r := list[0]; r.Matched == nil || r.Matched.After < r.Matched.Before || r.Matched.After < 0.85 || r.Output != aligned || r.Changed == 0 {
				t.Errorf("%+v %+v", r, r.Matched)
			}
			methods := []string{
				"merge_method: linear\nmodels: [{model: %s, parameters: {weight: 0.3}}, {model: %q, parameters: {weight: 0.7}}]\n",
				"merge_method: slerp\nbase_model: %s\nmodels: [{model: %[1]s}, {model: %[2]q}]\nparameters: {t: 0.4}\n",
				"merge_method: ties\nbase_model: %s\nmodels: [{model: %q, parameters: {weight: 1, density: 0.5}}]\n",
			}
			if c.name != "llama" && c.name != "mlp" {
				methods = methods[:1]
			}
			for _, method := range methods {
				one, two, three := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "out")
				s := mustMerge(t, fmt.Sprintf(method, reference, model)+"align: "+c.keys+"\n", one, merge.Options{})
				mustMerge(t, fmt.Sprintf(method, reference, aligned), two, merge.Options{})
				mustMerge(t, fmt.Sprintf(method, reference, model)+"align: {map: "+filepath.Join(dir, "map.safetensors")+"}\n", three, merge.Options{Threads: 1})
				sameFiles(t, one, two, "model.safetensors", "config.json")
				sameFiles(t, one, three, "model.safetensors", "config.json")
				if len(s.Aligned) != 1 || s.Aligned[0].Matched == nil || s.Aligned[0].Matched.After != list[0].Matched.After {
					t.Errorf("%+v", s.Aligned)
				}
			}
		})
	}
}

// TestAlignUndoes merges with a permuted copy as with the model itself, bit for bit.
func TestAlignUndoes(t *testing.T) {
	dir := t.TempDir()
	shuffled := copyOf(t, smallModels+"/ft1-bf16", "permutation", false)
	text := "merge_method: %s\nmodels: [{model: $M/base-bf16}, {model: %q}]\n%s"
	mustMerge(t, fmt.Sprintf(text, "weight_matching", shuffled, "align: {symmetry: permutation}\n"), filepath.Join(dir, "a"), merge.Options{})
	mustMerge(t, fmt.Sprintf(text, "linear", absolute(t, smallModels+"/ft1-bf16"), "parameters: {weight: 0.5, normalize: false}\n"), filepath.Join(dir, "b"), merge.Options{})
	sameFiles(t, filepath.Join(dir, "a"), filepath.Join(dir, "b"), "config.json")
	a, b := openDir(t, filepath.Join(dir, "a")), openDir(t, filepath.Join(dir, "b"))
	for _, name := range b.Names() {
		x, errX := a.View(name)
		y, errY := b.View(name)
		if errX != nil || errY != nil || !bytes.Equal(x.Data, y.Data) {
			t.Errorf("%s differs: %v %v", name, errX, errY)
		}
	}
}

// TestSameBase says of fine-tunes of one base that there is nothing to align, and leaves them alone if asked to.
func TestSameBase(t *testing.T) {
	for _, c := range []struct {
		mode  string
		warns bool
	}{{"warn", true}, {"skip", false}, {"force", false}} {
		var warnings []string
		out := filepath.Join(t.TempDir(), "out")
		s := mustMerge(t, "merge_method: uniform_soup\nmodels: [{model: $M/base}, {model: $M/ft1}]\nalign: {on_same_base: "+c.mode+"}\n", out, merge.Options{Warn: func(m string) { warnings = append(warnings, m) }})
		if warned := slices.ContainsFunc(warnings, func(m string) bool { return strings.Contains(m, "shares its base") }); warned != c.warns {
			t.Errorf("%s: warnings %q", c.mode, warnings)
		}
		if r := s.Aligned[0]; !r.Same || (r.Skipped != "") != (c.mode == "skip") {
			t.Errorf("%s: %+v", c.mode, r)
		}
		if c.mode == "skip" {
			plain := filepath.Join(t.TempDir(), "plain")
			mustMerge(t, "merge_method: uniform_soup\nmodels: [{model: $M/base}, {model: $M/ft1}]\n", plain, merge.Options{})
			sameFiles(t, out, plain, "model.safetensors", "config.json")
		}
	}
}

// TestAlignToAdapter aligns to a base with an adapter as to the fused model.
func TestAlignToAdapter(t *testing.T) {
	dir := t.TempDir()
	fused := filepath.Join(dir, "fused")
	mustMerge(t, "merge_method: passthrough\nmodels: [{model: $M/base+$M/lora1}]\n", fused, merge.Options{})
	turned := copyOf(t, smallModels+"/ft2", "full", true)
	text := "merge_method: weight_matching\nmodels: [{model: %s}, {model: %q}]\n"
	mustMerge(t, fmt.Sprintf(text, "$M/base+$M/lora1", turned), filepath.Join(dir, "a"), merge.Options{})
	mustMerge(t, fmt.Sprintf(text, fused, turned), filepath.Join(dir, "b"), merge.Options{})
	sameFiles(t, filepath.Join(dir, "a"), filepath.Join(dir, "b"), "model.safetensors", "config.json")
}

// TestAlignResumed interrupts a merge after the matching: the map is taken over.
func TestAlignResumed(t *testing.T) {
	turned := copyOf(t, smallModels+"/ft1", "full", true)
	dir := t.TempDir()
	file := filepath.Join(dir, "recipe.yml")
	text := fmt.Sprintf("merge_method: weight_matching\nmodels: [{model: %s/base}, {model: %q}]\nsave_alignment: map.safetensors\n", absolute(t, smallModels), turned)
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	b := goBackend(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := filepath.Join(dir, "out")
	written := 0
	_, err := merge.Run(ctx, file, out, merge.Options{Backend: b, Threads: 1, Written: func(int64) {
		if written++; written > 5 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".out.partial", "map.safetensors")); err != nil {
		t.Fatal(err)
	}
	matched := false
	s, err := merge.Run(context.Background(), file, out, merge.Options{Backend: b, Resume: true, Matching: func(int, int, string) { matched = true }})
	if err != nil {
		t.Fatal(err)
	}
	if matched || !s.Aligned[0].Resumed || s.Resumed == 0 {
		t.Errorf("matched %v, %+v, %d tensors taken over", matched, s.Aligned[0], s.Resumed)
	}
	if _, err := merge.Run(context.Background(), file, filepath.Join(dir, "again"), merge.Options{Backend: b}); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, out, filepath.Join(dir, "again"), "model.safetensors", "config.json", "map.safetensors")
}

// TestWeightMatchingBase: t goes from the base to the other model, listed or not.
func TestWeightMatchingBase(t *testing.T) {
	file, _ := someMap(t, filepath.Join(smallModels, "ft1"), "permutation")
	for _, models := range []string{"base_model: $M/base\nmodels: [{model: $M/ft1}]", "base_model: $M/base\nmodels: [{model: $M/base}, {model: $M/ft1}]", "models: [{model: $M/base}, {model: $M/ft1}]"} {
		out := filepath.Join(t.TempDir(), "out")
		mustMerge(t, "merge_method: weight_matching\n"+models+"\nparameters: {t: 0}\nalign: {map: "+file+"}\n", out, merge.Options{})
		got, want := openDir(t, out), openDir(t, smallModels+"/base")
		for _, name := range want.Names() {
			x, errX := got.View(name)
			y, errY := want.View(name)
			if errX != nil || errY != nil || !bytes.Equal(x.Data, y.Data) {
				t.Fatalf("%s: %s is not the base's", models, name)
			}
		}
	}
}

// TestMatchingRefuses has models that no matching can bring together.
func TestMatchingRefuses(t *testing.T) {
	c := openDir(t, smallModels+"/base")
	nan := filepath.Join(t.TempDir(), "nan")
	var infos []tensors.Info
	var data [][]byte
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(v.Data)
		if name == "model.layers.2.mlp.up_proj.weight" {
			copy(b, []byte{0, 0, 0xc0, 0x7f})
		}
		infos, data = append(infos, v.Info), append(data, b)
	}
	if err := os.MkdirAll(nan, 0o777); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(smallModels + "/base/config.json")
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(nan, "config.json"), config, 0o666), tensors.SaveFile(filepath.Join(nan, "model.safetensors"), infos, data, nil))
	}
	if err != nil {
		t.Fatal(err)
	}
	unheard := filepath.Join(t.TempDir(), "unheard")
	if err := os.MkdirAll(unheard, 0o777); err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile(smallModels + "/ft1/model.safetensors")
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(unheard, "model.safetensors"), weights, 0o666),
			os.WriteFile(filepath.Join(unheard, "config.json"), bytes.Replace(config, []byte(`"model_type": "llama"`), []byte(`"model_type": "unheard"`), 1), 0o666))
	}
	if err != nil {
		t.Fatal(err)
	}
	spec := filepath.Join(t.TempDir(), "spec.yml")
	if err := os.WriteFile(spec, []byte("model_type: llama\nvars: {d: hidden_size}\ngroups:\n  res:\n    kind: [perm]\n    size: d\n    refs:\n      - model.embed_tokens.weight[1] write\n      - model.nothing.weight[0] read\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, want string }{
		{fmt.Sprintf("models: [{model: $M/base}, {model: %q}]\nalign: {}\n", nan), "model.layers.2.mlp.up_proj.weight"},
		{"models: [{model: $M/base}, {model: $M/ft1}]\nalign: {spec: " + spec + "}\n", "model.nothing.weight"},
		{"models: [{model: $M/bert/model.safetensors}, {model: $M/bert-ft1/model.safetensors}]\nalign: {}\n", "config.json"},
		{fmt.Sprintf("models: [{model: $M/base}, {model: %q}]\nalign: {}\n", unheard), "spec: FILE"},
		{"models: [{model: $M/base}, {model: $M/ft1}]\nalign: {groups: {residual: orthogonal}, symmetry: permutation}\n", "group res"},
	} {
		_, err := mergeText(t, "merge_method: uniform_soup\n"+c.text, filepath.Join(t.TempDir(), "out"), merge.Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, new(*merge.InputError)) && !errors.As(err, new(*recipe.Error)) {
			t.Errorf("%s\n got %v\nwant %s", c.text, err, c.want)
		}
	}
}

// otherVocabulary writes a model with its tokens in another order and some more of them.
func otherVocabulary(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "other words")
	if err := os.MkdirAll(to, 0o777); err != nil {
		t.Fatal(err)
	}
	const rows, more = 300, 10
	place := func(id int) int { return (id*7 + 5) % (rows + more) } // 310 has no factor 7
	c := openDir(t, from)
	var infos []tensors.Info
	var data [][]byte
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		info, b := v.Info, v.Data
		if len(info.Shape) == 2 && info.Shape[0] == rows {
			row := len(b) / rows
			b = make([]byte, (rows+more)*row)
			for id := range rows {
				copy(b[place(id)*row:(place(id)+1)*row], v.Data[id*row:])
			}
			info.Shape = []int{rows + more, info.Shape[1]}
		}
		infos, data = append(infos, info), append(data, b)
	}
	if err := tensors.SaveFile(filepath.Join(to, "model.safetensors"), infos, data, nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.json", "tokenizer.json"} {
		raw, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		var file map[string]any
		if err := json.Unmarshal(raw, &file); err != nil {
			t.Fatal(err)
		}
		if name == "config.json" {
			file["vocab_size"] = rows + more
		} else {
			vocab := file["model"].(map[string]any)["vocab"].(map[string]any)
			for token, id := range vocab {
				vocab[token] = place(int(id.(float64)))
			}
			for _, added := range file["added_tokens"].([]any) {
				one := added.(map[string]any)
				one["id"] = place(int(one["id"].(float64)))
			}
		}
		if raw, err = json.Marshal(file); err == nil {
			err = os.WriteFile(filepath.Join(to, name), raw, 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// TestAlignOtherVocabulary anchors the stream by tokens, where their numbers say nothing.
func TestAlignOtherVocabulary(t *testing.T) {
	other := otherVocabulary(t, copyOf(t, smallModels+"/ft1", "permutation", false))
	out := filepath.Join(t.TempDir(), "aligned")
	a := recipe.DefaultAlign()
	a.Symmetry = "permutation"
	list, err := merge.Align(context.Background(), []string{absolute(t, smallModels+"/base"), other}, out, a, merge.AlignOptions{Options: merge.Options{Backend: goBackend(t)}})
	if err != nil {
		t.Fatal(err)
	}
	if list[0].Anchors < 290 {
		t.Errorf("%d anchors", list[0].Anchors)
	}
	got, want := openDir(t, out), openDir(t, smallModels+"/ft1")
	for _, name := range want.Names() {
		x, errX := got.View(name)
		y, errY := want.View(name)
		if err := errors.Join(errX, errY); err != nil {
			t.Fatal(err)
		}
		if same := bytes.Equal(x.Data, y.Data); same != strings.HasPrefix(name, "model.layers.") && name != "model.norm.weight" {
			t.Errorf("%s is as in ft1: %v", name, same)
		}
	}
	if info, _ := got.Lookup("model.embed_tokens.weight"); info.Shape[0] != 310 {
		t.Errorf("the aligned model has %d tokens, and had 310", info.Shape[0])
	}
	// Without a tokenizer nothing says which rows belong together.
	if err := os.Remove(filepath.Join(other, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	_, err = merge.Align(context.Background(), []string{absolute(t, smallModels+"/base"), other}, out+"2", a, merge.AlignOptions{Options: merge.Options{Backend: goBackend(t)}})
	if err == nil || !strings.Contains(err.Error(), "without both tokenizers it is not known which belong together") || !errors.As(err, new(*merge.InputError)) {
		t.Errorf("got %v", err)
	}
}
