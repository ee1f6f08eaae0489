package merge_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/tensors"
)

// A vocabulary of its own goes together with everything else that a recipe can ask for.

// TestVocabularyAligned: a copy of a model with other units and another order of tokens merges with it as the model itself does.
func TestVocabularyAligned(t *testing.T) {
	ft1 := absolute(t, smallModels+"/ft1")
	for _, c := range []struct {
		name, kinds, align string
	}{{"moved", "permutation", "{symmetry: permutation}"}, {"turned", "full", "{symmetry: full}"}} {
		t.Run(c.name, func(t *testing.T) {
			other := otherVocabulary(t, copyOf(t, smallModels+"/ft1", c.kinds, false))
			for _, more := range []string{"", "repair: {mode: norms}\n"} {
				out := filepath.Join(t.TempDir(), "out")
				mustMerge(t, fmt.Sprintf("merge_method: linear\nmodels: [{model: %q, parameters: {weight: 1}}, {model: %q, parameters: {weight: 1}}]\ntokenizer_source: base\nalign: %s\n%s", ft1, other, c.align, more), out, merge.Options{})
				got, want := floats(t, out), floats(t, ft1)
				for name, x := range want {
					worst := 0.0
					for i := range x {
						worst = max(worst, math.Abs(float64(x[i]-got[name][i])))
					}
					if worst > 1e-5 || len(got[name]) != len(x) {
						t.Errorf("%s%s is off by %g", more, name, worst)
					}
				}
			}
		})
	}
}

// TestVocabularyEvaluated: what is measured is read with the output's tokenizer, the parents with their own.
func TestVocabularyEvaluated(t *testing.T) {
	cached(t)
	rows := someText(t)
	out := filepath.Join(t.TempDir(), "out")
	text := "merge_method: linear\nmodels: [{model: $M/ft1, parameters: {weight: 1}}, {model: $M/OTHER, parameters: {weight: 1}}]\ntokenizer_source: SOURCE\ndtype: float32\nevaluate: {held_out: {data: " + rows + "}MORE}\n"
	for _, c := range []struct{ other, source, more string }{{"vocabC", "base", ""}, {"vocabC", "$M/vocabC", ""}, {"vocabC", "union", ""}, {"vocabB", "union", ", flips: true"}} {
		s := mustMerge(t, strings.NewReplacer("OTHER", c.other, "SOURCE", c.source, "MORE", c.more).Replace(text), out, merge.Options{CopyTokenizer: true, Force: true})
		set := s.Evaluated.HeldOut
		if want := outcomesOf(t, out, rows).Score(); set.Merged.Loss != want.Loss || set.Merged.Tokens != want.Tokens {
			t.Errorf("%v: loss %v on %d tokens, and of the output by itself %v on %d", c, set.Merged.Loss, set.Merged.Tokens, want.Loss, want.Tokens)
		}
		for i, p := range set.Parents {
			if want := outcomesOf(t, smallModels+"/"+[]string{"ft1", "vocabB"}[i], rows).Score(); p.Score.Loss != want.Loss {
				t.Errorf("%v: the loss of %s is %v, by itself %v", c, p.Model, p.Score.Loss, want.Loss)
			}
		}
		if c.more != "" && len(set.Parents) != 2 {
			t.Errorf("%d parents are measured", len(set.Parents))
		}
	}
	// Rows of other lengths cannot be compared, which shows before the merge.
	new := filepath.Join(t.TempDir(), "new")
	_, err := mergeText(t, strings.NewReplacer("OTHER", "vocabC", "SOURCE", "union", "MORE", ", flips: true").Replace(text), new, merge.Options{})
	if err == nil || !strings.Contains(err.Error(), "their tokenizers differ") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(new); err == nil {
		t.Error("an output appeared")
	}
}

// TestVocabularySoup: soups mix rows that belong together, and are measured as they are written.
func TestVocabularySoup(t *testing.T) {
	cached(t)
	rows := someText(t)
	models := "models: [{model: $M/ft1}, {model: $M/vocabB}, {model: $M/vocabC}]\n"
	out := filepath.Join(t.TempDir(), "soup")
	mustMerge(t, "merge_method: greedy_soup\n"+models+"parameters: {min_gain: 0}\ntokenizer: {source: union, pad_to_multiple_of: 16}\ndtype: float32\nevaluate: {held_out: {data: "+rows+"}}\n", out, merge.Options{CopyTokenizer: true})
	var report struct {
		Greedy struct {
			Weights []struct {
				Name   string
				Weight float64
			}
			Score struct{ Value float64 }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, out, "soup.json")), &report); err != nil {
		t.Fatal(err)
	}
	weights := map[string]float64{"ft1": 0, "vocabB": 0, "vocabC": 0}
	for _, w := range report.Greedy.Weights {
		weights[filepath.Base(w.Name)] = w.Weight
	}
	same := filepath.Join(t.TempDir(), "linear")
	mustMerge(t, fmt.Sprintf("merge_method: linear\nmodels: [{model: $M/ft1, parameters: {weight: %v}}, {model: $M/vocabB, parameters: {weight: %v}}, {model: $M/vocabC, parameters: {weight: %v}}]\ntokenizer: {source: union, pad_to_multiple_of: 16}\ndtype: float32\n",
		weights["ft1"], weights["vocabB"], weights["vocabC"]), same, merge.Options{CopyTokenizer: true})
	near(t, out, same, 1e-6)
	sameFiles(t, out, same, "tokenizer.json", "config.json")
	if o := outcomesOf(t, out, rows).Score(); math.Abs(o.Value-report.Greedy.Score.Value) > 1e-6 {
		t.Errorf("measured %v while it was cooked, %v as it is written", report.Greedy.Score.Value, o.Value)
	}
}

// TestVocabularySearched: trials are measured with the output's tokenizer.
func TestVocabularySearched(t *testing.T) {
	cached(t)
	rows := someText(t)
	out := filepath.Join(t.TempDir(), "out")
	s := mustMerge(t, "merge_method: linear\nmodels: [{model: $M/ft1, parameters: {weight: 1}}, {model: $M/vocabC, parameters: {weight: 1}}]\ntokenizer_source: $M/vocabC\ndtype: float32\nevaluate: {held_out: {data: "+rows+"}}\nsearch: {method: random, trials: 3, parameters: [{path: models.0.parameters.weight, range: [0.1, 2]}]}\n", out, merge.Options{CopyTokenizer: true})
	if want := outcomesOf(t, out, rows).Score(); math.Abs(s.Search.Best.Outcome.Value-want.Value) > 1e-9 || s.Evaluated.HeldOut.Merged.Value != want.Value {
		t.Errorf("the best trial has %v, the output %v, by itself %v", s.Search.Best.Outcome.Value, s.Evaluated.HeldOut.Merged.Value, want.Value)
	}
}

// TestVocabularyAdapter: a base with an adapter on it is one more model with rows of its own.
func TestVocabularyAdapter(t *testing.T) {
	out, plain := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "plain")
	list := "models: [{model: $M/base+$M/lora1, parameters: {weight: 1}}, {model: $M/%s, parameters: {weight: 1}}]\n"
	mustMerge(t, "merge_method: linear\n"+fmt.Sprintf(list, "vocabB")+"tokenizer_source: union\n", out, merge.Options{CopyTokenizer: true})
	mustMerge(t, "merge_method: linear\n"+fmt.Sprintf(list, "vocabB")+"tokenizer_source: base\n", plain, merge.Options{CopyTokenizer: true})
	got, want := floats(t, out), floats(t, plain)
	for name, x := range want {
		if y := got[name]; fmt.Sprint(y[:len(x)]) != fmt.Sprint(x) { // two more rows at the end
			t.Errorf("%s differs", name)
		}
	}
	if n, m := len(got["lm_head.weight"]), len(want["lm_head.weight"]); n != m+2*32 {
		t.Errorf("%d values, and %d with the base's tokens", n, m)
	}
}

// TestVocabularySlices: in a stack, embedding and head come of different slices, and each has the rows of its own models.
func TestVocabularySlices(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	mustMerge(t, "merge_method: passthrough\nslices:\n- sources: [{model: $M/ft1, layer_range: [0, 2]}]\n- sources: [{model: $M/vocabC, layer_range: [2, 4]}]\ntokenizer:\n  source: union\n  tokens: {\"<|im_end|>\": {source: $M/vocabC, force: true}}\n", out, merge.Options{CopyTokenizer: true})
	tokens := tokensOf(t, out)
	embedding, head := floats(t, out)["model.embed_tokens.weight"], floats(t, out)["lm_head.weight"]
	row := func(x []float32, id int) string { return fmt.Sprint(x[id*32 : (id+1)*32]) }
	of := func(model, tensor, token string) string {
		return row(floats(t, smallModels+"/"+model)[tensor], tokensOf(t, smallModels+"/"+model)[token].ID)
	}
	for _, token := range []string{"<|endoftext|>", "b", "a"} {
		if row(embedding, tokens[token].ID) != of("ft1", "model.embed_tokens.weight", token) || row(head, tokens[token].ID) != of("vocabC", "lm_head.weight", token) {
			t.Errorf("rows of %q", token)
		}
	}
	// The rule's model is no input of the embedding, and gives its row all the same.
	if row(embedding, tokens["<|im_end|>"].ID) != of("vocabC", "model.embed_tokens.weight", "<|im_end|>") {
		t.Error("the forced row of the embedding is not vocabC's")
	}
	// Tokens that only the other model has: zeros.
	for _, token := range []string{"ken", "iz"} {
		if row(head, tokens[token].ID) != row(make([]float32, 32), 0) {
			t.Errorf("the head's row of %q, which its only model lacks, is not zero", token)
		}
	}
}

// TestVocabularyWhole: methods that see networks as wholes say that they take no tokenizer.
func TestVocabularyWhole(t *testing.T) {
	_, err := mergeText(t, "merge_method: regmean\nmodels: [{model: $M/ft1}, {model: $M/ft2}]\ntokenizer_source: union\ncalibration: "+someText(t)+"\n", filepath.Join(t.TempDir(), "out"), merge.Options{})
	if err == nil || !strings.Contains(err.Error(), "tokenizer: regmean merges networks as wholes") {
		t.Errorf("%v", err)
	}
}

// TestVocabularyResumed: a merge goes on with the vocabulary that it began with, and no other.
func TestVocabularyResumed(t *testing.T) {
	dir := wordModels(t)
	text := "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\ntokenizer_source: union\n"
	whole, _, _ := mergeWords(t, dir, text, merge.Options{})
	for _, threads := range []int{1, 3} {
		again, _, _ := mergeWords(t, dir, text, merge.Options{Threads: threads})
		sameFiles(t, whole, again, "model.safetensors", "tokenizer.json")
	}
	c, err := tensors.Open(whole)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if x, err := align.OfCheckpoint(c).Read("model.embed_tokens.weight"); err != nil || len(x) != 8*wordCols {
		t.Errorf("%d values: %v", len(x), err)
	}
	if _, err := os.Stat(filepath.Join(whole, "added_tokens.json")); err == nil {
		t.Error("added_tokens.json without a vocabulary that needs it")
	}
}
