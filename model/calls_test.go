package model

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/tensors"
)

// BenchmarkCalls measures what executions cost beside their work: a pass there and back over 30 blocks that have almost nothing to
// compute, with 24 chunks of targets, as many as a batch of 32 x 1024 tokens has on a card.
func BenchmarkCalls(b *testing.B) {
	for _, c := range []struct {
		name  string
		group int
	}{{"go", 1}, {"xla:cpu", 1}, {"xla:cpu", 5}} {
		b.Run(fmt.Sprint(c.name, "/group=", c.group), func(b *testing.B) {
			back, _, err := backend.OpenModel(c.name)
			if err != nil {
				b.Skip(err)
			}
			defer back.Finalize()
			const config = `{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 30,
				"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000, "tie_word_embeddings": true}`
			dir := b.TempDir()
			path := filepath.Join(dir, "config.json")
			if err := os.WriteFile(path, []byte(config), 0o666); err != nil {
				b.Fatal(err)
			}
			out := filepath.Join(dir, "model")
			if _, err := Create(path, out, 1, false); err != nil {
				b.Fatal(err)
			}
			d, _, err := ReadDescription(out)
			if err != nil {
				b.Fatal(err)
			}
			ckpt, err := tensors.Open(out)
			if err != nil {
				b.Fatal(err)
			}
			defer ckpt.Close()
			n, over := noise(1), newOverlay()
			for i := range d.Layers {
				for _, l := range d.BlockLinears() {
					n.adapt(over, d.LayerName(i, l.Name), l, Adaption{Rank: 2})
				}
			}
			m, err := LoadFrom(context.Background(), d, ckpt, Options{Backend: back, Compute: dtypes.Float32, Overlay: over, Group: c.group})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			const chunks = 24
			in, t := Input{Rows: 1, Length: chunks, IDs: make([]int32, chunks)}, Targets{}
			for i := range in.IDs {
				in.IDs[i] = int32(i)
				t.Rows, t.IDs, t.Weights = append(t.Rows, int32(i)), append(t.IDs, 1), append(t.Weights, 1)
			}
			g, err := m.NewGradients()
			if err != nil {
				b.Fatal(err)
			}
			defer g.Free()
			pass := func() {
				if _, err := m.Backward(in, t, g, PassOptions{Factor: 1, Chunk: 1}); err != nil {
					b.Fatal(err)
				}
			}
			pass()
			for b.Loop() {
				pass()
			}
		})
	}
}
