package model_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/model"
)

const goldenForward = "../testdata/golden/forward/"

// decoders lists the golden models that can continue a text: every family, with and without window.
var decoders = []string{"gemma2", "gemma3", "gpt2", "llama", "llama-linear-rope", "llama-tied-bias", "llama-yarn-rope", "llama3-rope", "mistral-window", "mixtral", "phi3", "qwen2", "qwen2-moe", "qwen3", "qwen3-moe"}

func load(t *testing.T, b compute.Backend, dir string, o model.Options) *model.Model {
	t.Helper()
	o.Backend = b
	m, err := model.Load(context.Background(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// prompts are texts of different lengths, one of them longer than the windows of 8 of the golden models.
func prompts(vocab int) [][]int32 {
	var list [][]int32
	for i, n := range []int{3, 19, 1, 11} {
		var p []int32
		for k := range n {
			p = append(p, int32((7*k+13*i+5)%(vocab-3)+3))
		}
		list = append(list, p)
	}
	return list
}

// forwardArgmax returns the most probable next token after every position of texts, by one full forward pass.
func forwardArgmax(t *testing.T, m *model.Model, texts [][]int32) [][]int32 {
	t.Helper()
	in := model.Input{Rows: len(texts)}
	for _, text := range texts {
		in.Length = max(in.Length, len(text))
	}
	for _, text := range texts {
		for i := range in.Length {
			if i < len(text) {
				in.IDs, in.Segments = append(in.IDs, text[i]), append(in.Segments, 1)
			} else {
				in.IDs, in.Segments = append(in.IDs, 0), append(in.Segments, 0)
			}
		}
	}
	out, err := m.Forward(in)
	if err != nil {
		t.Fatal(err)
	}
	best := make([][]int32, len(texts))
	for r, text := range texts {
		for i := range text {
			row := out.Data[(r*in.Length+i)*m.D.Vocab:][:m.D.Vocab]
			best[r] = append(best[r], int32(slices.Index(row, slices.Max(row))))
		}
	}
	return best
}

// checkGreedy sees that every new token is the argmax of a full pass over what came before it.
func checkGreedy(t *testing.T, m *model.Model, list [][]int32, got []model.Generated, n int) {
	t.Helper()
	var texts [][]int32
	for i, g := range got {
		if len(g.IDs) != n || g.Reason != model.OutOfRoom {
			t.Fatalf("text %d: %d tokens, ended by %q", i, len(g.IDs), g.Reason)
		}
		texts = append(texts, slices.Concat(list[i], g.IDs))
	}
	for i, best := range forwardArgmax(t, m, texts) {
		for k, id := range got[i].IDs {
			if want := best[len(list[i])-1+k]; id != want {
				t.Errorf("text %d, step %d: token %d, a full pass says %d", i, k, id, want)
				break
			}
		}
	}
}

// TestGenerateGreedy compares the cache with full passes for every family, a batch of texts of different lengths that grow beyond
// every window.
func TestGenerateGreedy(t *testing.T) {
	const n = 14
	for backend, b := range backends(t) {
		for _, name := range decoders {
			if backend != "go" && strings.HasPrefix(name, "llama") && name != "llama" {
				continue // other rotary tables and biases; the cache does not know them, and compiling takes its time
			}
			t.Run(backend+"/"+name, func(t *testing.T) {
				m := load(t, b, filepath.Join(goldenForward, name), model.Options{})
				list := prompts(m.D.Vocab)
				got, stats, err := m.Generate(context.Background(), list, model.GenerateOptions{MaxTokens: n, EOS: []int{}})
				if err != nil {
					t.Fatal(err)
				}
				checkGreedy(t, m, list, got, n)
				if stats.NewTokens != n*len(list) || stats.PromptTokens != 34 {
					t.Errorf("stats %+v", stats)
				}
			})
		}
	}
}

// withConfig copies a golden model with changes to its config.json: pairs of an old text and a new one.
func withConfig(t *testing.T, name string, changes ...string) string {
	t.Helper()
	dir := t.TempDir()
	copyFile(t, filepath.Join(goldenForward, name, "model.safetensors"), filepath.Join(dir, "model.safetensors"))
	data, err := os.ReadFile(filepath.Join(goldenForward, name, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			t.Fatalf("%s: config.json has no %q", name, changes[i])
		}
		text = strings.ReplaceAll(text, changes[i], changes[i+1])
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestGenerateInPieces reads a prompt that takes several pieces, and outgrows the memory that was made at first.
func TestGenerateInPieces(t *testing.T) {
	const n = 100
	for _, b := range backends(t) {
		m := load(t, b, filepath.Join(goldenForward, "mistral-window"), model.Options{})
		long := make([]int32, 1000)
		for i := range long {
			long[i] = int32((i*i + 3*i) % m.D.Vocab)
		}
		list := [][]int32{long[:950], long[300:330]}
		got, _, err := m.Generate(context.Background(), list, model.GenerateOptions{MaxTokens: n, EOS: []int{}})
		if err != nil {
			t.Fatal(err)
		}
		checkGreedy(t, m, list, got, n)
	}
}

// TestGenerateLongRope lets a text grow beyond the length on which its rotary table was trained: from there on every token is
// read with the long factors, as a full pass over the text has it.
func TestGenerateLongRope(t *testing.T) {
	dir := withConfig(t, "phi3", `"rope_type": "default"`, `"rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1.5, 3, 8, 20]`,
		`"original_max_position_embeddings": 4096`, `"original_max_position_embeddings": 24`)
	m := load(t, backends(t)["go"], dir, model.Options{})
	prompt := prompts(m.D.Vocab)[1] // of 19 tokens
	const n = 10
	got, _, err := m.Generate(context.Background(), [][]int32{prompt}, model.GenerateOptions{MaxTokens: n, EOS: []int{}})
	if err != nil {
		t.Fatal(err)
	}
	text := slices.Concat(prompt, got[0].IDs)
	for k := len(prompt); k < len(text); k++ {
		best := forwardArgmax(t, m, [][]int32{text[:k]})[0]
		if best[k-1] != text[k] {
			t.Errorf("after %d tokens: token %d, a full pass says %d", k, text[k], best[k-1])
		}
	}
}

// TestGenerateLongRopeTogether ends the longest text of a batch after it has grown beyond the short factors: the other one goes on
// with the long factors by which all keys were turned, as in a full pass over both.
func TestGenerateLongRopeTogether(t *testing.T) {
	dir := withConfig(t, "phi3", `"rope_type": "default"`, `"rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1.5, 3, 8, 20]`,
		`"original_max_position_embeddings": 4096`, `"original_max_position_embeddings": 24`)
	m := load(t, backends(t)["go"], dir, model.Options{})
	list := prompts(m.D.Vocab)[1:3] // of 19 tokens and of 1
	const ends, n = 8, 20
	told := 0
	stop := func(text int, _ int32) bool {
		if text == 0 {
			told++
		}
		return text == 0 && told == ends
	}
	got, _, err := m.Generate(context.Background(), list, model.GenerateOptions{MaxTokens: n, EOS: []int{}, Token: stop})
	if err != nil {
		t.Fatal(err)
	}
	long, short := slices.Concat(list[0], got[0].IDs), slices.Concat(list[1], got[1].IDs)
	if len(long) != 27 || len(short) != 21 {
		t.Fatalf("texts of %d and %d tokens", len(long), len(short))
	}
	for k := len(list[1]) + ends; k < len(short); k++ {
		if best := forwardArgmax(t, m, [][]int32{long, short[:k]})[1]; best[k-1] != short[k] {
			t.Errorf("after %d tokens: token %d, a full pass says %d", k, short[k], best[k-1])
		}
	}
}

func TestGenerateEnds(t *testing.T) {
	b := backends(t)["go"]
	m := load(t, b, goldenForward+"gpt2", model.Options{})
	ctx := context.Background()
	// The table of positions has 128 rows.
	long := make([]int32, 120)
	got, _, err := m.Generate(ctx, [][]int32{long, long[:5]}, model.GenerateOptions{MaxTokens: 20, EOS: []int{}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got[0].IDs) != 8 || got[0].Reason != model.OutOfTable || len(got[1].IDs) != 20 || got[1].Reason != model.OutOfRoom {
		t.Errorf("%+v", got)
	}
	// Ending tokens and a caller that has enough end one text and leave the other.
	free := got[1].IDs
	stop := func(text int, id int32) bool { return text == 0 && id == got[0].IDs[2] }
	ended, _, err := m.Generate(ctx, [][]int32{long, long[:5]}, model.GenerateOptions{MaxTokens: 20, EOS: []int{int(free[4])}, Token: stop})
	if err != nil {
		t.Fatal(err)
	}
	first := slices.Index(free, free[4])
	if ended[1].Reason != model.EndOfText || !slices.Equal(ended[1].IDs, free[:first]) {
		t.Errorf("ending token %d: %+v, without: %v", free[4], ended[1], free)
	}
	if ended[0].Reason == model.OutOfRoom || len(ended[0].IDs) > 3 {
		t.Errorf("the caller stopped it, or it ended: %+v", ended[0])
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := m.Generate(cancelled, [][]int32{long}, model.GenerateOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestGenerateErrors(t *testing.T) {
	b := backends(t)["go"]
	for _, c := range []struct {
		model  string
		prompt []int32
		o      model.GenerateOptions
		want   string
	}{
		{"bert", []int32{1}, model.GenerateOptions{}, "BertModel has no language-model head"},
		{"llama-reward", []int32{1}, model.GenerateOptions{}, "LlamaForSequenceClassification has no language-model head"},
		{"gpt2", nil, model.GenerateOptions{First: 2}, "prompt 3 has no token"},
		{"gpt2", make([]int32, 128), model.GenerateOptions{}, "table of positions has 128 rows"},
		{"gpt2", []int32{96}, model.GenerateOptions{}, "token id 96 is outside"},
		{"gpt2", []int32{1}, model.GenerateOptions{Sampling: model.Sampling{Temperature: -1}}, "temperature -1"},
		{"gpt2", []int32{1}, model.GenerateOptions{Sampling: model.Sampling{TopP: 2}}, "top-p 2"},
		{"gpt2", []int32{1}, model.GenerateOptions{Sampling: model.Sampling{TopK: -2}}, "top-k -2"},
		{"gpt2", []int32{1}, model.GenerateOptions{Sampling: model.Sampling{RepetitionPenalty: math.NaN()}}, "repetition penalty NaN"},
	} {
		m := load(t, b, filepath.Join(goldenForward, c.model), model.Options{})
		_, _, err := m.Generate(context.Background(), [][]int32{c.prompt}, c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.model, err, c.want)
		}
	}
	look := load(t, b, withConfig(t, "gemma3", `"use_bidirectional_attention": false`, `"use_bidirectional_attention": true`), model.Options{})
	if _, _, err := look.Generate(context.Background(), [][]int32{{1}}, model.GenerateOptions{}); err == nil || !strings.Contains(err.Error(), "looks ahead") {
		t.Errorf("attention in both directions: %v", err)
	}
}

// TestChoose has what transformers' logits processors leave: repetition penalty, temperature, top-k, top-p, in this order.
func TestChoose(t *testing.T) {
	logits := []float32{1, 3, 2, -1, 0}
	draw := func(s model.Sampling, said ...int32) map[int32]float64 {
		share := map[int32]float64{}
		const n = 20000
		for i := range uint64(n) {
			share[s.Choose(slices.Clone(logits), said, i%7, i)] += 1.0 / n
		}
		return share
	}
	softmax := func(keep ...int32) map[int32]float64 {
		want, sum := map[int32]float64{}, 0.0
		for _, id := range keep {
			want[id] = math.Exp(float64(logits[id]))
			sum += want[id]
		}
		for id := range want {
			want[id] /= sum
		}
		return want
	}
	for _, c := range []struct {
		name string
		s    model.Sampling
		said []int32
		want map[int32]float64
	}{
		{"all", model.Sampling{Temperature: 1}, nil, softmax(0, 1, 2, 3, 4)},
		{"top-k", model.Sampling{Temperature: 1, TopK: 2}, nil, softmax(1, 2)},
		// Probabilities .6305, .2320, .0853, .0314, .0116 ... (sorted): 0.7 needs two.
		{"top-p", model.Sampling{Temperature: 1, TopP: 0.7}, nil, softmax(1, 2)},
		{"top-p of the best alone", model.Sampling{Temperature: 1, TopP: 0.01}, nil, softmax(1)},
		{"top-k, then top-p of what it left", model.Sampling{Temperature: 1, TopK: 3, TopP: 0.7}, nil, softmax(1, 2)},
		{"greedy", model.Sampling{}, nil, softmax(1)},
		{"repeated", model.Sampling{RepetitionPenalty: 2}, []int32{1, 1, 3}, softmax(2)},
		{"cold", model.Sampling{Temperature: 0.01}, nil, softmax(1)},
	} {
		got := draw(c.s, c.said...)
		for id := range int32(len(logits)) {
			if math.Abs(got[id]-c.want[id]) > 0.015 {
				t.Errorf("%s: token %d has share %.3f, want %.3f", c.name, id, got[id], c.want[id])
			}
		}
	}
}
