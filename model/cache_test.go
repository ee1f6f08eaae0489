package model_test

import (
	"context"
	"testing"

	"github.com/mergekit/mergekit/model"
)

// TestCacheGrows lets texts grow until the cache has grown twice, and then as many texts as rows make another batch: every token
// is still the one that a full pass chooses.
func TestCacheGrows(t *testing.T) {
	for backend, b := range backends(t) {
		t.Run(backend, func(t *testing.T) {
			m := load(t, b, goldenForward+"llama", model.Options{})
			for _, list := range [][][]int32{prompts(m.D.Vocab)[:1], prompts(m.D.Vocab)[1:3]} {
				const n = 400 // columns: room for 128, for 256, for 512
				got, _, err := m.Generate(context.Background(), list, model.GenerateOptions{MaxTokens: n, EOS: []int{}})
				if err != nil {
					t.Fatal(err)
				}
				checkGreedy(t, m, list, got, n)
			}
		})
	}
}
