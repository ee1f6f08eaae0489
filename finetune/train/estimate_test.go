package train

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/model"
)

// smolLM2 writes the headers of SmolLM2-135M in bfloat16: the file has its size, and holes where the weights are.
func smolLM2(t *testing.T) string {
	t.Helper()
	const text = `{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "rope_theta": 100000,
"rms_norm_eps": 1e-05, "tie_word_embeddings": true, "hidden_act": "silu"}`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	d, err := model.Describe([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	shapes := d.Shapes()
	var names []string
	for name := range shapes {
		names = append(names, name)
	}
	slices.Sort(names)
	header, at := map[string]any{}, 0
	for _, name := range names {
		n := 2
		for _, k := range shapes[name] {
			n *= k
		}
		header[name] = map[string]any{"dtype": "BF16", "shape": shapes[name], "data_offsets": []int{at, at + n}}
		at += n
	}
	raw, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	for len(raw)%8 != 0 {
		raw = append(raw, ' ')
	}
	path := filepath.Join(dir, "model.safetensors")
	if err := os.WriteFile(path, append(binary.LittleEndian.AppendUint64(nil, uint64(len(raw))), raw...), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(8+len(raw)+at)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestEstimate compares the estimate with what runs took: peaks of resident memory of SmolLM2-135M in bfloat16 files, computed in
// float32 on XLA CPU, LoRA of rank 16 on all linear maps or all weights, four steps, nothing cached (2 cores, glibc 2.41, XLA
// plugin 0.115).
func TestEstimate(t *testing.T) {
	base := smolLM2(t)
	for _, c := range []struct {
		rows, length int
		tune, remat  string
		measured     int64 // MiB
	}{
		{1, 64, "lora", "none", 1065},
		{4, 64, "lora", "none", 1261},
		{4, 256, "lora", "none", 2054},
		{4, 256, "lora", "block", 1245},
		{1, 64, "full", "none", 3914},
	} {
		t.Run(fmt.Sprintf("%d x %d %s %s", c.rows, c.length, c.tune, c.remat), func(t *testing.T) {
			text := fmt.Sprintf("version: 1\nmodel: {base: %q}\ntune: %s\nlora: {r: 16}\ndata: {train: [rows.jsonl]}\ntrain: {gradient_checkpointing: %s}\n", base, c.tune, c.remat)
			cfg, err := config.Parse("c.yml", []byte(text), nil)
			if err != nil {
				t.Fatal(err)
			}
			s, err := open(cfg, true)
			if err != nil {
				t.Fatal(err)
			}
			defer s.ckpt.Close()
			e := s.estimate(cfg, c.rows, c.length, true, dtypes.Float32)
			if got := e.Total >> 20; got < c.measured*88/100 || got > c.measured*112/100 {
				t.Errorf("%d MiB, measured %d: %+v", got, c.measured, e)
			}
			// Six operations a weight and token for all weights, four and what the adapter needs for LoRA; the embedding counts as the head.
			perToken := e.Flops / float64(e.Tokens) / float64(e.Parameters)
			if want := map[string]float64{"full": 6, "lora": 4.2}[c.tune]; c.length == 64 && (perToken < want || perToken > want*1.05) {
				t.Errorf("%.3g operations for each weight and token, want %v", perToken, want)
			}
		})
	}
}
