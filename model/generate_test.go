package model_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/model"
)

const goldenForward = "../testdata/golden/forward/"

// decoders lists the golden models that can continue a text: every family, with and without window.
var decoders = []string{"gemma2", "gemma3", "gpt2", "llama", "llama-linear-rope", "llama-tied-bias", "llama-yarn-rope", "llama3-rope", "mistral-window", "phi3", "qwen2", "qwen3"}

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
