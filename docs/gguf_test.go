package docs_test

import (
	"encoding/binary"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/tensors"
)

func open(t *testing.T, path string) *tensors.Checkpoint {
	t.Helper()
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func data(t *testing.T, c *tensors.Checkpoint, name string) []byte {
	t.Helper()
	v, err := c.View(name)
	if err != nil {
		t.Fatal(err)
	}
	return v.Data
}

// ggufNames are the names of a Llama's tensors in GGUF files.
var ggufNames = strings.NewReplacer("model.embed_tokens", "token_embd", "model.norm", "output_norm", "lm_head", "output",
	"model.layers.", "blk.", "input_layernorm", "attn_norm", "post_attention_layernorm", "ffn_norm",
	"self_attn.q_proj", "attn_q", "self_attn.k_proj", "attn_k", "self_attn.v_proj", "attn_v", "self_attn.o_proj", "attn_output",
	"mlp.gate_proj", "ffn_gate", "mlp.up_proj", "ffn_up", "mlp.down_proj", "ffn_down")

// writeGGUF writes the float32 Llama checkpoint in dir as a GGUF file without a tokenizer, in the layout of llama.cpp's
// converter: the rows of q and k are reordered within each head, so that the pairs of the rotary embedding are neighbours.
func writeGGUF(t *testing.T, dir, file string) {
	t.Helper()
	config, err := arch.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	number := func(key string) uint32 {
		n, ok := config.Int(key)
		if !ok {
			t.Fatal(key, "is missing")
		}
		return uint32(n)
	}
	c := open(t, dir)
	le := binary.LittleEndian
	text := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	var settings []byte
	count := uint64(0)
	set := func(key string, kind uint32) {
		count++
		settings = le.AppendUint32(text(settings, key), kind)
	}
	set("general.architecture", 8)
	settings = text(settings, "llama")
	for key, value := range map[string]uint32{
		"block_count": number("num_hidden_layers"), "embedding_length": number("hidden_size"), "feed_forward_length": number("intermediate_size"),
		"context_length": number("max_position_embeddings"), "attention.head_count": number("num_attention_heads"),
		"attention.head_count_kv": number("num_key_value_heads"),
	} {
		set("llama."+key, 4)
		settings = le.AppendUint32(settings, value)
	}
	set("llama.attention.layer_norm_rms_epsilon", 6)
	settings = le.AppendUint32(settings, math.Float32bits(1e-6))

	var infos, weights []byte
	for _, name := range c.Names() {
		info, _ := c.Lookup(name)
		infos = le.AppendUint32(text(infos, ggufNames.Replace(name)), uint32(len(info.Shape)))
		for i := len(info.Shape) - 1; i >= 0; i-- {
			infos = le.AppendUint64(infos, uint64(info.Shape[i]))
		}
		infos = le.AppendUint32(infos, 0) // F32
		infos = le.AppendUint64(infos, uint64(len(weights)))
		b := data(t, c, name)
		if strings.HasSuffix(name, "q_proj.weight") || strings.HasSuffix(name, "k_proj.weight") {
			b = pairRows(b, info.Shape[0], int(number("head_dim")))
		}
		weights = pad(append(weights, b...))
	}
	out := le.AppendUint32([]byte("GGUF"), 3)
	out = le.AppendUint64(out, uint64(len(c.Names())))
	out = le.AppendUint64(out, count)
	out = append(pad(append(append(out, settings...), infos...)), weights...)
	if err := os.WriteFile(file, out, 0o666); err != nil {
		t.Fatal(err)
	}
}

// pairRows puts row i of a head's first half before row i of its second.
func pairRows(b []byte, rows, head int) []byte {
	size := len(b) / rows
	out := make([]byte, 0, len(b))
	for h := 0; h < rows; h += head {
		for i := range head / 2 {
			for _, r := range []int{h + i, h + head/2 + i} {
				out = append(out, b[r*size:(r+1)*size]...)
			}
		}
	}
	return out
}

func pad(b []byte) []byte {
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	return b
}
