package merge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// words is a model whose rows can be told: the value of a row is that of its model and its token.
type words struct {
	name   string
	tokens []string // "*" before special ones
	rows   int      // 0: as many as tokens
	tied   bool
	dtype  tensors.DType // F32 if zero
	config map[string]any
	files  map[string]string
}

const wordCols = 4

// worth is the value that a model's row of a token has in a column of a tensor.
func worth(name, token, tensor string, col int) float64 {
	h := fnv.New32a()
	fmt.Fprint(h, name, "|", token, "|", tensor)
	return float64(h.Sum32()%64)/8 + float64(col)/8 - 4
}

// write makes a Llama of one layer.
func (w words) write(t *testing.T, dir string) {
	t.Helper()
	dtype := w.dtype
	if dtype == 0 {
		dtype = tensors.F32
	}
	rows := w.rows
	if rows == 0 {
		rows = len(w.tokens)
	}
	shapes := map[string][]int{"model.embed_tokens.weight": {rows, wordCols}, "model.norm.weight": {wordCols}}
	if !w.tied {
		shapes["lm_head.weight"] = []int{rows, wordCols}
	}
	for name, shape := range map[string][]int{"input_layernorm": {wordCols}, "post_attention_layernorm": {wordCols}, "self_attn.q_proj": {wordCols, wordCols}, "self_attn.k_proj": {wordCols, wordCols},
		"self_attn.v_proj": {wordCols, wordCols}, "self_attn.o_proj": {wordCols, wordCols}, "mlp.gate_proj": {8, wordCols}, "mlp.up_proj": {8, wordCols}, "mlp.down_proj": {wordCols, 8}} {
		shapes["model.layers.0."+name+".weight"] = shape
	}
	var infos []tensors.Info
	for name, shape := range shapes {
		infos = append(infos, tensors.Info{Name: name, DType: dtype, Shape: shape})
	}
	slices.SortFunc(infos, func(a, b tensors.Info) int { return strings.Compare(a.Name, b.Name) })
	out, err := tensors.Create(dir, infos, tensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, info := range infos {
		x := make([]float32, info.Elems())
		for k := range x {
			token := fmt.Sprint(k / wordCols)
			if info.Shape[0] == rows && len(info.Shape) == 2 && k/wordCols < len(w.tokens) {
				token = strings.TrimPrefix(w.tokens[k/wordCols], "*")
			}
			x[k] = float32(worth(w.name, token, info.Name, k%wordCols))
		}
		b := make([]byte, info.Bytes())
		err := tensors.EncodeFloat32(b, dtype, x)
		if err == nil {
			err = out.WriteAt(i, b, 0)
		}
		if err == nil {
			err = out.Finish(i)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	config := map[string]any{"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_size": wordCols, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
		"num_key_value_heads": 2, "vocab_size": rows, "tie_word_embeddings": w.tied, "dtype": map[tensors.DType]string{tensors.F32: "float32", tensors.BF16: "bfloat16", tensors.F16: "float16"}[dtype], "rms_norm_eps": 1e-6, "max_position_embeddings": 64}
	for key, value := range w.config {
		config[key] = value
	}
	vocab := map[string]int{}
	added := []map[string]any{}
	for id, text := range w.tokens {
		if special, ok := strings.CutPrefix(text, "*"); ok {
			added = append(added, map[string]any{"id": id, "content": special, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
			text = special
		}
		vocab[text] = id
	}
	for name, value := range map[string]any{"config.json": config, "tokenizer.json": map[string]any{"version": "1.0", "added_tokens": added, "pre_tokenizer": map[string]any{"type": "WhitespaceSplit"}, "model": map[string]any{"type": "WordLevel", "vocab": vocab, "unk_token": "u"}}} {
		text, err := json.Marshal(value)
		if err == nil {
			err = out.WriteFile(name, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range w.files {
		if err := out.WriteFile(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Commit(); err != nil {
		t.Fatal(err)
	}
}

// rowOf is the row that a token has in a tensor of an output.
func rowOf(t *testing.T, dir, tensor, token string) []float64 {
	t.Helper()
	tok, err := tokenizer.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, ok := tok.ID(token)
	if !ok {
		t.Fatalf("the output has no token %q", token)
	}
	return rowAt(t, dir, tensor, id)
}

func rowAt(t *testing.T, dir, tensor string, row int) []float64 {
	t.Helper()
	x := floats(t, dir)[tensor]
	out := make([]float64, wordCols)
	for c := range out {
		out[c] = float64(x[row*wordCols+c])
	}
	return out
}

func wantRow(t *testing.T, dir, tensor, token string, want func(col int) float64) {
	t.Helper()
	got := rowOf(t, dir, tensor, token)
	for c, x := range got {
		if math.Abs(x-want(c)) > 1e-6 {
			t.Errorf("%s: the row of %q is %v, want %v in column %d", tensor, token, got, want(c), c)
			return
		}
	}
}

// wordModels makes three models: b has the words of a in another order, one less and two more; c is tied and in bfloat16.
func wordModels(t *testing.T) string {
	dir := t.TempDir()
	words{name: "a", tokens: []string{"u", "red", "green", "blue", "*<s>", "*</s>"}, config: map[string]any{"bos_token_id": 4, "eos_token_id": []int{5, 3}, "pad_token_id": nil},
		files: map[string]string{"tokenizer_config.json": `{"bos_token":"<s>","eos_token":"</s>","chat_template":"{{ messages[0].content }}, and a's own way"}`,
			"generation_config.json": `{"bos_token_id": 4, "eos_token_id": 5, "top_p": 0.9, "suppress_tokens": [1, 2, 3], "bad_words_ids": [[1, 2], [3, 1]],
				"begin_suppress_tokens": [2], "force_words_ids": [[3], [1], [[2], [1, 3]], [[2]]]}`}}.write(t, filepath.Join(dir, "a"))
	words{name: "b", tokens: []string{"u", "*</s>", "*<s>", "blue", "red", "pink", "*<x>"}, config: map[string]any{"bos_token_id": 2, "eos_token_id": 1},
		files: map[string]string{"tokenizer_config.json": `{"bos_token":"<s>","eos_token":"</s>"}`, "chat_template.jinja": "{{ messages[0].content }}, as b has it"}}.write(t, filepath.Join(dir, "b"))
	words{name: "c", tokens: []string{"u", "red", "blue", "pink", "*<s>", "*<y>"}, tied: true, dtype: tensors.BF16,
		files: map[string]string{"tokenizer_config.json": `{"chat_template":"{{ messages[0].content }}, as b has it\n"}`}}.write(t, filepath.Join(dir, "c"))
	return dir
}

func mergeWords(t *testing.T, dir, text string, o merge.Options) (string, *merge.Summary, []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	file := filepath.Join(dir, "recipe.yml")
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	if o.Backend == nil {
		o.Backend = goBackend(t)
	}
	var warnings []string
	o.CopyTokenizer, o.Warn = true, func(s string) { warnings = append(warnings, s) }
	s, err := merge.Run(context.Background(), file, out, o)
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return out, s, warnings
}

const wordHead, wordEmbedding = "lm_head.weight", "model.embed_tokens.weight"

// TestVocabularyRows: what every token's row is, for every setting.
func TestVocabularyRows(t *testing.T) {
	dir := wordModels(t)
	abc := "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 0.5}}\n- {model: b, parameters: {weight: 0.25}}\n- {model: c, parameters: {weight: 0.25}}\ndtype: float32\n"
	of := func(model, token, tensor string, c int) float64 {
		if model == "c" && tensor == wordHead { // its head is its embedding
			tensor = wordEmbedding
		}
		return worth(model, token, tensor, c)
	}
	type origin struct {
		model, token string
		weight       float64
	}
	sum := func(tensor string, list ...origin) func(c int) float64 {
		return func(c int) float64 {
			x := 0.0
			for _, o := range list {
				x += o.weight * of(o.model, o.token, tensor, c)
			}
			return x
		}
	}
	for _, c := range []struct {
		name, more string
		rows       map[string][]origin
		size       int
	}{
		{"union", "tokenizer_source: union\n", map[string][]origin{
			"red":   {{"a", "red", .5}, {"b", "red", .25}, {"c", "red", .25}},
			"green": {{"a", "green", 1}},
			"</s>":  {{"a", "</s>", .5 + .125}, {"b", "</s>", .25 + .125}}, // c gets the mean
			"pink":  {{"b", "pink", .25 + .25}, {"c", "pink", .25 + .25}},  // a gets the mean
			"<x>":   {{"b", "<x>", 1}},
			"<y>":   {{"c", "<y>", 1}},
		}, 9},
		{"union with a base", "tokenizer: {source: union}\nbase_model: b\n", map[string][]origin{
			"</s>": {{"a", "</s>", .5}, {"b", "</s>", .25 + .25}}, // c gets the base's
			"pink": {{"b", "pink", .25 + .5}, {"c", "pink", .25}},
			"<y>":  {{"c", "<y>", 1}},
		}, 9},
		{"base", "tokenizer_source: base\n", map[string][]origin{
			"green": {{"a", "green", 1}},
			"blue":  {{"a", "blue", .5}, {"b", "blue", .25}, {"c", "blue", .25}},
		}, 6},
		{"a model", "tokenizer_source: b\n", map[string][]origin{
			"</s>": {{"a", "</s>", .5 + .125}, {"b", "</s>", .25 + .125}},
			"<x>":  {{"b", "<x>", 1}},
		}, 7},
		{"rules", "tokenizer:\n  source: union\n  tokens:\n    red: {source: c, force: true}\n    pink: {source: {kind: zero}}\n    \"<x>\": {source: {kind: model_token, model: a, token: \"<s>\"}}\n    \"<y>\": {source: {kind: model_token, model: b, token_id: 3}, force: true}\n    new: {source: {kind: model_token, model: c, token: blue}}\n", map[string][]origin{
			"red":  {{"c", "red", 1}},
			"pink": {{"b", "pink", .25}, {"c", "pink", .25}},
			"<x>":  {{"a", "<s>", .75}, {"b", "<x>", .25}},
			"<y>":  {{"b", "blue", 1}},
			"new":  {{"c", "blue", 1}},
		}, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, _, _ := mergeWords(t, dir, abc+c.more, merge.Options{})
			if n := readJSON(t, filepath.Join(out, "config.json"))["vocab_size"]; n != float64(c.size) {
				t.Errorf("vocab_size is %v, want %d", n, c.size)
			}
			for token, list := range c.rows {
				for _, tensor := range []string{wordEmbedding, wordHead} {
					wantRow(t, out, tensor, token, sum(tensor, list...))
				}
			}
		})
	}
}

// TestVocabularyAlone: passthrough puts a model's rows in another order, and every backend and arithmetic does the same.
func TestVocabularyAlone(t *testing.T) {
	dir := wordModels(t)
	text := "merge_method: passthrough\nmodels: [{model: a}]\ntokenizer_source: b\n"
	for name, b := range testBackends(t) {
		for _, arith := range []method.Arith{method.Wide, method.Native} {
			out, _, _ := mergeWords(t, dir, text, merge.Options{Backend: b, Plan: plan.Options{Arith: arith}})
			for _, token := range []string{"red", "blue", "<s>", "</s>"} {
				wantRow(t, out, wordHead, token, func(c int) float64 { return worth("a", token, wordHead, c) })
			}
			wantRow(t, out, wordHead, "pink", func(int) float64 { return 0 }) // a does not have it
			if n := len(tokensOf(t, out)); n != 7 {
				t.Errorf("%s: %d tokens", name, n)
			}
		}
	}
}

// TestVocabularyPadding: rows beyond the tokens are the mean of the others, and the tokenizer knows nothing of them.
func TestVocabularyPadding(t *testing.T) {
	dir := wordModels(t)
	out, _, _ := mergeWords(t, dir, "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0}\ntokenizer: {source: base, pad_to_multiple_of: 8}\n", merge.Options{})
	if n := readJSON(t, filepath.Join(out, "config.json"))["vocab_size"]; n != 8.0 || len(tokensOf(t, out)) != 6 {
		t.Errorf("vocab_size %v, %d tokens", n, len(tokensOf(t, out)))
	}
	for c := range wordCols {
		want := 0.0
		for _, token := range []string{"u", "red", "green", "blue", "<s>", "</s>"} {
			want += worth("a", token, wordHead, c) / 6
		}
		for _, row := range []int{6, 7} {
			if got := rowAt(t, out, wordHead, row)[c]; math.Abs(got-want) > 1e-6 {
				t.Errorf("row %d, column %d is %v, want the mean %v", row, c, got, want)
			}
		}
	}
}

// TestVocabularyDTypes: without dtype in the recipe the output has the inputs' common dtype, whatever rows were computed in.
func TestVocabularyDTypes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		words{name: name, tokens: []string{"u", name, "both"}, dtype: tensors.BF16, tied: true}.write(t, filepath.Join(dir, name))
	}
	for _, arith := range []method.Arith{method.Wide, method.Native} {
		out, _, _ := mergeWords(t, dir, "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\ntokenizer: {pad_to_multiple_of: 16}\n", merge.Options{Plan: plan.Options{Arith: arith}})
		c := openDir(t, out)
		info, _ := c.Lookup(wordEmbedding)
		if info.DType != tensors.BF16 || info.Shape[0] != 16 || len(c.Names()) != 11 {
			t.Errorf("%v, %d tensors", info, len(c.Names()))
		}
		if config := readJSON(t, filepath.Join(out, "config.json")); config["dtype"] != "bfloat16" || config["tie_word_embeddings"] != true {
			t.Errorf("config %v", config)
		}
		wantRow(t, out, wordEmbedding, "a", func(c int) float64 { return worth("a", "a", wordEmbedding, c) })
	}
}

// TestVocabularyConfigurations: ids of tokens that moved are corrected in all files, names of tokens and templates are coherent.
func TestVocabularyConfigurations(t *testing.T) {
	dir := wordModels(t)
	ab := "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n"
	out, _, warnings := mergeWords(t, dir, ab+"tokenizer_source: b\nchat_template: auto\n", merge.Options{})
	config := readJSON(t, filepath.Join(out, "config.json"))
	if config["bos_token_id"] != 2.0 || fmt.Sprint(config["eos_token_id"]) != "[1 3]" || config["pad_token_id"] != nil {
		t.Errorf("config.json: bos %v, eos %v, pad %v", config["bos_token_id"], config["eos_token_id"], config["pad_token_id"])
	}
	generation := readJSON(t, filepath.Join(out, "generation_config.json"))
	if generation["bos_token_id"] != 2.0 || generation["eos_token_id"] != 1.0 || generation["top_p"] != 0.9 {
		t.Errorf("generation_config.json: %v", generation)
	}
	// Red is 4 and blue 3 in b, which has no green.
	for key, want := range map[string]string{"suppress_tokens": "[4 3]", "bad_words_ids": "[[3 4]]", "begin_suppress_tokens": "<nil>",
		"force_words_ids": "[[3] [4] [[4 3]]]"} {
		if got := fmt.Sprint(generation[key]); got != want {
			t.Errorf("generation_config.json: %s is %s, want %s", key, got, want)
		}
	}
	told := strings.Join(warnings, "\n")
	for _, part := range []string{"bos_token_id is 2 instead of 4", "eos_token_id is [1 3] instead of [5 3]"} {
		if !strings.Contains(told, part) {
			t.Errorf("nothing tells that %s:\n%s", part, told)
		}
	}
	if got := readFile(t, out, "chat_template.jinja"); got != "{{ messages[0].content }}, and a's own way" {
		t.Errorf("of two equally common templates the first is taken; this is %q", got)
	}
	// With c, b's template is the most common one.
	out, _, _ = mergeWords(t, dir, ab[:len(ab)-2]+", {model: c, parameters: {weight: 1}}]\nchat_template: auto\ntokenizer_source: union\ndtype: float32\n", merge.Options{})
	if got := readFile(t, out, "chat_template.jinja"); got != "{{ messages[0].content }}, as b has it" {
		t.Errorf("the template is %q", got)
	}
	if config := readJSON(t, filepath.Join(out, "tokenizer_config.json")); config["chat_template"] != nil || config["bos_token"] != "<s>" {
		t.Errorf("tokenizer_config.json: %v", config)
	}
	if config := readJSON(t, filepath.Join(out, "config.json")); config["bos_token_id"] != 4.0 || config["tie_word_embeddings"] != false {
		t.Errorf("config.json: %v", config)
	}
	// A template alone changes nothing else.
	out, _, _ = mergeWords(t, dir, "merge_method: passthrough\nmodels: [{model: a}]\nchat_template: llama3\n", merge.Options{})
	compareFile(t, out, filepath.Join(dir, "a"), "tokenizer.json")
	compareFile(t, out, filepath.Join(dir, "a"), "generation_config.json")
	if got := readFile(t, out, "chat_template.jinja"); !strings.Contains(got, "<|eot_id|>") {
		t.Errorf("the template is %q", got)
	}
	if config := readJSON(t, filepath.Join(out, "tokenizer_config.json")); config["chat_template"] != nil || config["eos_token"] != "</s>" {
		t.Errorf("tokenizer_config.json: %v", config)
	}
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestVocabularyCut: tokens of the base without rows leave every file, so that nobody adds them again.
func TestVocabularyCut(t *testing.T) {
	dir := t.TempDir()
	words{name: "a", tokens: []string{"u", "red", "*<s>", "*<pad>", "*<far>"}, rows: 3, config: map[string]any{"pad_token_id": 3}, files: map[string]string{
		"tokenizer_config.json":   `{"bos_token": "<s>", "pad_token": "<pad>", "additional_special_tokens": ["<far>", "<s>"], "added_tokens_decoder": {"2": {"content": "<s>", "special": true}, "3": {"content": "<pad>", "special": true}}}`,
		"special_tokens_map.json": `{"bos_token": {"content": "<s>"}, "pad_token": {"content": "<pad>"}}`, "vocab.txt": "u\nred\n"}}.write(t, filepath.Join(dir, "a"))
	words{name: "b", tokens: []string{"u", "red", "*<s>", "*<x>"}}.write(t, filepath.Join(dir, "b"))
	out, _, warnings := mergeWords(t, dir, "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\ntokenizer_source: union\n", merge.Options{})
	list := tokensOf(t, out)
	if len(list) != 4 || list["<x>"].ID != 3 {
		t.Errorf("%v", list)
	}
	config := readJSON(t, filepath.Join(out, "tokenizer_config.json"))
	if config["pad_token"] != nil || fmt.Sprint(config["additional_special_tokens"]) != "[<s>]" {
		t.Errorf("%v", config)
	}
	if decoder, _ := config["added_tokens_decoder"].(map[string]any); decoder["3"] == nil || decoder["3"].(map[string]any)["content"] != "<x>" || decoder["2"] == nil {
		t.Errorf("added_tokens_decoder %v", config["added_tokens_decoder"])
	}
	if names := readJSON(t, filepath.Join(out, "special_tokens_map.json")); names["pad_token"] != nil || names["bos_token"] == nil {
		t.Errorf("special_tokens_map %v", names)
	}
	if _, err := os.Stat(filepath.Join(out, "vocab.txt")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a list of words whose ids are gone is copied")
	}
	if told := strings.Join(warnings, "\n"); !strings.Contains(told, "pad_token_id is of a token") {
		t.Errorf("nothing tells about pad_token_id:\n%s", told)
	}
}

// TestVocabularySlow: what other readers take beside tokenizer.json says the same.
func TestVocabularySlow(t *testing.T) {
	dir := t.TempDir()
	words{name: "a", tokens: []string{"u", "red", "*<s>"}, files: map[string]string{"tokenizer.model": "pieces"}}.write(t, filepath.Join(dir, "a"))
	words{name: "b", tokens: []string{"u", "red", "*<s>", "*<x>"}}.write(t, filepath.Join(dir, "b"))
	text := "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]\n"
	out, _, _ := mergeWords(t, dir, text+"tokenizer_source: union\n", merge.Options{})
	if readFile(t, out, "tokenizer.model") != "pieces" || fmt.Sprint(readJSON(t, filepath.Join(out, "added_tokens.json"))) != "map[<x>:3]" {
		t.Error("tokenizer.model and added_tokens.json do not belong together")
	}
	out, _, _ = mergeWords(t, dir, text+"tokenizer_source: b\n", merge.Options{})
	if _, err := os.Stat(filepath.Join(out, "tokenizer.model")); !errors.Is(err, os.ErrNotExist) {
		t.Error("another model's tokenizer.model is copied")
	}
}

// TestVocabularyRefused: errors come before anything is written, and name the token and its place.
func TestVocabularyRefused(t *testing.T) {
	dir := wordModels(t)
	head := "merge_method: linear\nmodels:\n- {model: a, parameters: {weight: 1}}\n- {model: b, parameters: {weight: 1}}\n"
	for _, c := range []struct {
		more string
		want []string
	}{
		{"tokenizer: {tokens: {green: {}}}\n", []string{"recipe.yml:5:", `token "green"`, "b does not have it", "source"}},
		{"tokenizer: {tokens: {green: {source: b}}}\n", []string{"recipe.yml:5:", `token "green"`, "b does not have it"}},
		{"tokenizer: {tokens: {green: {source: c}}}\n", []string{"recipe.yml:5:", `token "green"`, "c is none of the recipe's models, which are a, b"}},
		{"tokenizer_source: nowhere\n", []string{"recipe.yml:5:", "nowhere", "not found"}},
		{"chat_template: '{% for m in messages %}{{ m.content }'\n", []string{"recipe.yml:5:", "chat_template"}},
		{"", []string{"model.embed_tokens.weight", "different vocabularies", "tokenizer_source: union"}},
	} {
		file := filepath.Join(dir, "recipe.yml")
		if err := os.WriteFile(file, []byte(head+c.more), 0o666); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out")
		_, err := merge.Run(context.Background(), file, out, merge.Options{Backend: goBackend(t), CopyTokenizer: true})
		var bad *merge.InputError
		if !errors.As(err, &bad) {
			var place *recipe.Error
			if !errors.As(err, &place) {
				t.Errorf("%s: %v", c.more, err)
				continue
			}
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s%q does not name %q", c.more, err, part)
			}
		}
		if _, err := os.Stat(out); err == nil {
			t.Error("an output directory appeared")
		}
	}
}
