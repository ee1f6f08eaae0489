package convert

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

// sample writes a checkpoint with floats, integers and a tensor of more than one piece, and files beside it.
func sample(t *testing.T) (dir string, big []float32) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "model")
	big = make([]float32, pieceBytes/4+1000)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range big {
		big[i] = float32(rng.NormFloat64())
	}
	infos := []tensors.Info{{Name: "big", DType: tensors.F32, Shape: []int{len(big)}}, {Name: "half", DType: tensors.BF16, Shape: []int{2, 3}},
		{Name: "ids", DType: tensors.I64, Shape: []int{4}}, {Name: "none", DType: tensors.F32, Shape: []int{0, 8}}}
	data := make([][]byte, len(infos))
	for i, info := range infos {
		data[i] = make([]byte, info.Bytes())
		for k := range data[i] {
			data[i][k] = byte(k % 61)
		}
	}
	if err := tensors.EncodeFloat32(data[0], tensors.F32, big); err != nil {
		t.Fatal(err)
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{Metadata: map[string]string{"made": "here"}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range infos {
		if err := errors.Join(w.WriteAt(i, data[i], 0), w.Finish(i)); err != nil {
			t.Fatal(err)
		}
	}
	config := "{\n  \"hidden_size\": 8,\n  \"rope\": Infinity,\n  \"torch_dtype\": \"float32\"\n}\n"
	if err := errors.Join(w.WriteFile("config.json", []byte(config)), w.WriteFile("tokenizer.json", []byte("{}")), w.WriteFile("LICENSE", []byte("free")), w.WriteFile("pytorch_model.bin", []byte("no")), w.Commit()); err != nil {
		t.Fatal(err)
	}
	return dir, big
}

func view(t *testing.T, dir, name string) tensors.View {
	t.Helper()
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	v, err := c.View(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSafetensors(t *testing.T) {
	dir, big := sample(t)
	for _, d := range []tensors.DType{tensors.BF16, tensors.F16, tensors.F64, tensors.F32, tensors.F8E4M3} {
		t.Run(d.String(), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			total, done := int64(0), int64(0)
			r, err := Checkpoint(context.Background(), dir, out, Options{DType: &d, ShardBytes: 3 << 20, Start: func(n int64) { total = n }})
			if err != nil || r.Tensors != 4 || total == 0 || done != 0 {
				t.Fatalf("%+v, %v, %d", r, err, total)
			}
			want := make([]byte, len(big)*d.Size())
			if err := tensors.EncodeFloat32(want, d, big); err != nil {
				t.Fatal(err)
			}
			if v := view(t, out, "big"); v.DType != d || !bytes.Equal(v.Data, want) {
				t.Errorf("big is %s, or other values", v.DType)
			}
			if v, was := view(t, out, "ids"), view(t, dir, "ids"); v.DType != tensors.I64 || !bytes.Equal(v.Data, was.Data) {
				t.Errorf("integers are %s, or other values", v.DType)
			}
			if v := view(t, out, "half"); v.DType != d || !slices.Equal(v.Shape, []int{2, 3}) {
				t.Errorf("half is %s %v", v.DType, v.Shape)
			}
			config := read(t, out, "config.json")
			if !strings.Contains(config, `"torch_dtype": "`+d.TorchName()+`"`) || !strings.Contains(config, `"rope": Infinity`) {
				t.Error(config)
			}
			if read(t, out, "LICENSE") != "free" || read(t, out, "tokenizer.json") != "{}" {
				t.Error("files beside the weights are not copied")
			}
			if _, err := os.Stat(filepath.Join(out, "pytorch_model.bin")); err == nil {
				t.Error("weights of another format are copied")
			}
		})
	}
}

func TestSafetensorsAsStored(t *testing.T) {
	dir, _ := sample(t)
	out := filepath.Join(t.TempDir(), "out")
	if _, err := Checkpoint(context.Background(), dir, out, Options{}); err != nil {
		t.Fatal(err)
	}
	if read(t, out, "model.safetensors") != read(t, dir, "model.safetensors") || read(t, out, "config.json") != read(t, dir, "config.json") {
		t.Error("a copy differs")
	}
	// One file under a name of its own has nothing beside it.
	if err := os.Rename(filepath.Join(dir, "model.safetensors"), filepath.Join(dir, "mine.safetensors")); err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(t.TempDir(), "alone")
	if _, err := Checkpoint(context.Background(), filepath.Join(dir, "mine.safetensors"), alone, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(alone, "config.json")); err == nil {
		t.Error("another model's configuration is copied")
	}
}

func TestRefuses(t *testing.T) {
	dir, _ := sample(t)
	int8s := tensors.I8
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "config.json"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	before := read(t, dir, "model.safetensors")
	for _, c := range []struct {
		src, out, says string
		o              Options
	}{
		{dir, filepath.Join(t.TempDir(), "out"), "weights cannot become I8", Options{DType: &int8s}},
		{dir, dir, "the output is the directory of the input", Options{Force: true}},
		{dir, filepath.Dir(dir), "the output holds the input", Options{Force: true}},
		{filepath.Join(dir, "none"), filepath.Join(t.TempDir(), "out"), "does not exist", Options{}},
		{dir, full, "exists and is not empty", Options{}},
	} {
		_, err := Checkpoint(context.Background(), c.src, c.out, c.o)
		if !errors.As(err, new(*tensors.FormatError)) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
	if read(t, dir, "model.safetensors") != before {
		t.Error("the input was touched")
	}
}

// A conversion that is cancelled leaves no output, and resumed gives the bytes of an undisturbed one.
func TestCancelAndResume(t *testing.T) {
	dir, _ := sample(t)
	bf16 := tensors.BF16
	whole := filepath.Join(t.TempDir(), "whole")
	if _, err := Checkpoint(context.Background(), dir, whole, Options{DType: &bf16}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Checkpoint(ctx, dir, out, Options{DType: &bf16, Progress: func(int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want the cancellation", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Fatal("an output is there")
	}
	if _, err := Checkpoint(context.Background(), dir, out, Options{DType: &bf16, Resume: true}); err != nil {
		t.Fatal(err)
	}
	if read(t, out, "model.safetensors") != read(t, whole, "model.safetensors") {
		t.Error("the resumed output differs")
	}
}

func TestPatchDType(t *testing.T) {
	for text, want := range map[string]string{
		`{"torch_dtype": "float32", "a": 1}`:                     `{"torch_dtype": "bfloat16", "a": 1}`,
		`{"dtype":null,"text_config":{"torch_dtype":"float16"}}`: `{"dtype":"bfloat16","text_config":{"torch_dtype":"bfloat16"}}`,
		`{"a": NaN}`: "{\n  \"torch_dtype\": \"bfloat16\",\"a\": NaN}",
		`{}`:         "{\n  \"torch_dtype\": \"bfloat16\"}",
		`no JSON`:    `no JSON`,
	} {
		if got := string(patchDType([]byte(text), tensors.BF16)); got != want {
			t.Errorf("%s becomes %s, want %s", text, got, want)
		}
	}
}

// file builds GGUF bytes.
type file struct {
	settings, infos, data []byte
	keys, count           uint64
}

var le = binary.LittleEndian

func text(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }

func (f *file) set(key string, value any) *file {
	f.keys++
	f.settings = text(f.settings, key)
	one := func(kind uint32, b []byte) { f.settings = append(le.AppendUint32(f.settings, kind), b...) }
	list := func(kind uint32, n int, b []byte) {
		f.settings = le.AppendUint64(le.AppendUint32(le.AppendUint32(f.settings, 9), kind), uint64(n))
		f.settings = append(f.settings, b...)
	}
	switch v := value.(type) {
	case int:
		one(4, le.AppendUint32(nil, uint32(v)))
	case float32:
		one(6, le.AppendUint32(nil, math.Float32bits(v)))
	case bool:
		b := byte(0)
		if v {
			b = 1
		}
		one(7, []byte{b})
	case string:
		one(8, text(nil, v))
	case []string:
		var b []byte
		for _, s := range v {
			b = text(b, s)
		}
		list(8, len(v), b)
	case []int:
		var b []byte
		for _, n := range v {
			b = le.AppendUint32(b, uint32(n))
		}
		list(5, len(v), b)
	case []float32:
		var b []byte
		for _, x := range v {
			b = le.AppendUint32(b, math.Float32bits(x))
		}
		list(6, len(v), b)
	default:
		panic("no such kind")
	}
	return f
}

// tensor adds an F32 tensor whose values count up from base.
func (f *file) tensor(name string, base float32, shape ...int) *file {
	f.count++
	f.infos = le.AppendUint32(text(f.infos, name), uint32(len(shape)))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		f.infos = le.AppendUint64(f.infos, uint64(shape[i]))
		n *= shape[i]
	}
	f.infos = le.AppendUint64(le.AppendUint32(f.infos, 0), uint64(len(f.data)))
	for i := range n {
		f.data = le.AppendUint32(f.data, math.Float32bits(base+float32(i)))
	}
	for len(f.data)%32 != 0 {
		f.data = append(f.data, 0)
	}
	return f
}

func (f *file) save(t *testing.T) string {
	t.Helper()
	b := le.AppendUint64(le.AppendUint64(le.AppendUint32([]byte("GGUF"), 3), f.count), f.keys)
	b = append(append(b, f.settings...), f.infos...)
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, append(b, f.data...), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	hidden, heads, kvHeads, headSize, inner, vocab = 8, 2, 1, 4, 6, 12
)

// tiny is a model of one layer, complete but for a tokenizer.
func tiny(arch string) *file {
	f := new(file).set("general.architecture", arch).set(arch+".block_count", 1).set(arch+".embedding_length", hidden).set(arch+".feed_forward_length", inner).
		set(arch+".attention.head_count", heads).set(arch+".attention.head_count_kv", kvHeads).set(arch+".context_length", 64).
		set(arch+".attention.layer_norm_rms_epsilon", float32(1e-5)).set(arch+".rope.freq_base", float32(50000))
	f.tensor("token_embd.weight", 0, vocab, hidden).tensor("output_norm.weight", 1, hidden)
	f.tensor("blk.0.attn_q.weight", 1000, heads*headSize, hidden).tensor("blk.0.attn_k.weight", 2000, kvHeads*headSize, hidden).tensor("blk.0.attn_v.weight", 3000, kvHeads*headSize, hidden)
	f.tensor("blk.0.attn_output.weight", 4000, hidden, heads*headSize).tensor("blk.0.attn_norm.weight", 1, hidden).tensor("blk.0.ffn_norm.weight", 1, hidden)
	f.tensor("blk.0.ffn_gate.weight", 5000, inner, hidden).tensor("blk.0.ffn_up.weight", 6000, inner, hidden).tensor("blk.0.ffn_down.weight", 7000, hidden, inner)
	switch arch {
	case "qwen2":
		f.tensor("blk.0.attn_q.bias", 8000, heads*headSize).tensor("blk.0.attn_k.bias", 8100, kvHeads*headSize).tensor("blk.0.attn_v.bias", 8200, kvHeads*headSize)
	case "qwen3":
		f.tensor("blk.0.attn_q_norm.weight", 9000, headSize).tensor("blk.0.attn_k_norm.weight", 9100, headSize)
	}
	return f
}

func convertGGUF(t *testing.T, f *file, o Options) (string, *Report) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	r, err := FromGGUF(context.Background(), f.save(t), out, o)
	if err != nil {
		t.Fatal(err)
	}
	return out, r
}

func object2(t *testing.T, dir, name string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(read(t, dir, name)), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func floats(t *testing.T, dir, name string) []float32 {
	t.Helper()
	v := view(t, dir, name)
	x := make([]float32, v.Elems())
	if err := tensors.DecodeFloat32(x, v.Data, v.DType); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestFromGGUF(t *testing.T) {
	classes := map[string]string{"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
	for arch, class := range classes {
		t.Run(arch, func(t *testing.T) {
			out, r := convertGGUF(t, tiny(arch), Options{})
			c := object2(t, out, "config.json")
			for key, want := range map[string]any{
				"model_type": arch, "torch_dtype": "float32", "hidden_size": 8.0, "intermediate_size": 6.0, "num_hidden_layers": 1.0, "num_attention_heads": 2.0,
				"num_key_value_heads": 1.0, "head_dim": 4.0, "vocab_size": 12.0, "rms_norm_eps": 1e-05, "rope_theta": 50000.0, "tie_word_embeddings": true, "max_position_embeddings": 64.0,
			} {
				if c[key] != want {
					t.Errorf("%s is %v, want %v", key, c[key], want)
				}
			}
			if list := c["architectures"].([]any); list[0] != class {
				t.Errorf("the class is %v", list)
			}
			if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "no vocabulary") {
				t.Errorf("warnings %q", r.Warnings)
			}
			// Row r of a head is read from where the converter put it: pairs side by side.
			q := floats(t, out, "model.layers.0.self_attn.q_proj.weight")
			order := []int{0, 1, 2, 3, 4, 5, 6, 7}
			if arch == "llama" || arch == "mistral" {
				order = []int{0, 2, 1, 3, 4, 6, 5, 7}
			}
			for r, from := range order {
				for i := range hidden {
					if want := 1000 + float32(from*hidden+i); q[r*hidden+i] != want {
						t.Fatalf("row %d of q has %v at %d, want %v", r, q[r*hidden+i], i, want)
					}
				}
			}
			v := floats(t, out, "model.layers.0.self_attn.v_proj.weight")
			for i := range v {
				if v[i] != 3000+float32(i) {
					t.Fatalf("v has %v at %d", v[i], i)
				}
			}
			if got := view(t, out, "model.layers.0.mlp.down_proj.weight").Shape; !slices.Equal(got, []int{hidden, inner}) {
				t.Errorf("down_proj is %v", got)
			}
			switch arch {
			case "qwen2":
				if b := floats(t, out, "model.layers.0.self_attn.q_proj.bias"); b[3] != 8003 {
					t.Errorf("bias %v", b)
				}
			case "qwen3":
				if b := floats(t, out, "model.layers.0.self_attn.q_norm.weight"); b[3] != 9003 {
					t.Errorf("norm %v", b)
				}
			}
		})
	}
}

func TestFromGGUFOptions(t *testing.T) {
	bf16 := tensors.BF16
	out, _ := convertGGUF(t, tiny("llama").tensor("output.weight", 10, vocab, hidden), Options{DType: &bf16, ShardBytes: 300})
	c := object2(t, out, "config.json")
	if c["torch_dtype"] != "bfloat16" || c["tie_word_embeddings"] != false || view(t, out, "lm_head.weight").DType != tensors.BF16 {
		t.Errorf("%v", c)
	}
	if _, err := os.Stat(filepath.Join(out, "model.safetensors.index.json")); err != nil {
		t.Error(err)
	}
}

func TestRope(t *testing.T) {
	linear, _ := convertGGUF(t, tiny("llama").set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", float32(4)), Options{})
	if s, _ := object2(t, linear, "config.json")["rope_scaling"].(map[string]any); s["rope_type"] != "linear" || s["factor"] != 4.0 {
		t.Errorf("%v", s)
	}
	yarn, _ := convertGGUF(t, tiny("qwen2").set("qwen2.rope.scaling.type", "yarn").set("qwen2.rope.scaling.factor", float32(2)).set("qwen2.rope.scaling.original_context_length", 32), Options{})
	if s, _ := object2(t, yarn, "config.json")["rope_scaling"].(map[string]any); s["rope_type"] != "yarn" || s["original_max_position_embeddings"] != 32.0 {
		t.Errorf("%v", s)
	}
}

func TestFromGGUFRefuses(t *testing.T) {
	missing := func(name string) *file {
		f := tiny("llama")
		f.infos = bytes.Replace(f.infos, text(nil, name), text(nil, "blk.0.attn_x"+name[len("blk.0.attn_x"):]), 1)
		return f
	}
	for _, c := range []struct {
		f    *file
		says string
	}{
		{new(file), "general.architecture is missing"},
		{tiny("mamba"), `has the architecture "mamba"; llama, mistral, qwen2 and qwen3 can be converted`},
		{tiny("llama").set("llama.expert_count", 8), "is a mixture of 8 experts"},
		{tiny("llama").set("llama.rope.scaling.type", "longrope").set("llama.rope.scaling.factor", float32(4)), `scales its rotary embedding by "longrope"`},
		{tiny("llama").set("llama.rope.dimension_count", 2), "rotates 2 of the 4 dimensions"},
		{tiny("llama").tensor("blk.0.attn_extra.weight", 0, 4), `has the tensor "blk.0.attn_extra.weight"`},
		{tiny("llama").tensor("blk.1.attn_norm.weight", 0, hidden), `has the tensor "blk.1.attn_norm.weight"`},
		{tiny("llama").tensor("blk.0.attn_q.bias", 0, heads*headSize), "has biases for some of"},
		{missing("blk.0.attn_norm.weight"), "blk.0.attn_norm.weight is missing"},
		{tiny("llama").set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.tokens", slices.Repeat([]string{"a"}, 13)), "the vocabulary has 13 tokens, token_embd.weight has 12 rows"},
		{tiny("llama").set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.tokens", []string{"a"}), "tokenizer.ggml.merges is missing"},
	} {
		out := filepath.Join(t.TempDir(), "out")
		_, err := FromGGUF(context.Background(), c.f.save(t), out, Options{})
		if !errors.As(err, new(*tensors.FormatError)) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: an output is there", c.says)
		}
	}
}

func TestByteLevelTokenizer(t *testing.T) {
	tokens := []string{"<s>", "</s>", "a", "b", "ab", "Ġ", "Ġab", "<user>", "c", "d", "e", "f"}
	f := tiny("llama").set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", "llama-bpe").set("tokenizer.ggml.tokens", tokens).
		set("tokenizer.ggml.token_type", []int{3, 3, 1, 1, 1, 1, 1, 4, 1, 1, 1, 1}).set("tokenizer.ggml.merges", []string{"a b", "Ġ ab", "x y"}).
		set("tokenizer.ggml.bos_token_id", 0).set("tokenizer.ggml.eos_token_id", 1).set("tokenizer.chat_template", "{{ messages }}")
	out, r := convertGGUF(t, f, Options{})
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "1 merges of the tokenizer") {
		t.Errorf("%q", r.Warnings)
	}
	var tok struct {
		Added []struct {
			ID      int
			Content string
			Special bool
		} `json:"added_tokens"`
		Model struct {
			Vocab  map[string]int
			Merges [][2]string
			Ignore bool `json:"ignore_merges"`
		}
		Post map[string]any `json:"post_processor"`
	}
	if err := json.Unmarshal([]byte(read(t, out, "tokenizer.json")), &tok); err != nil {
		t.Fatal(err)
	}
	if len(tok.Model.Vocab) != 12 || tok.Model.Vocab["Ġab"] != 6 || len(tok.Model.Merges) != 2 || !tok.Model.Ignore || tok.Post["type"] != "TemplateProcessing" {
		t.Errorf("%+v", tok)
	}
	if len(tok.Added) != 3 || tok.Added[2].Content != "<user>" || tok.Added[2].Special || !tok.Added[0].Special {
		t.Errorf("%+v", tok.Added)
	}
	config := object2(t, out, "tokenizer_config.json")
	if config["chat_template"] != "{{ messages }}" || config["bos_token"] != "<s>" || config["add_bos_token"] != true || config["model_max_length"] != 64.0 {
		t.Errorf("%v", config)
	}
	if g := object2(t, out, "generation_config.json"); g["eos_token_id"] != 1.0 || g["bos_token_id"] != 0.0 {
		t.Errorf("%v", g)
	}
}

func TestSentencePieceTokenizer(t *testing.T) {
	tokens := []string{"<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "ab", "▁a", "▁ab", "c", "ba"}
	f := tiny("llama").set("tokenizer.ggml.model", "llama").set("tokenizer.ggml.tokens", tokens).
		set("tokenizer.ggml.token_type", []int{2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1}).
		set("tokenizer.ggml.scores", []float32{0, 0, 0, 0, -1, -2, -3, -4, -5, -6, -7, -0.5}).
		set("tokenizer.ggml.bos_token_id", 1).set("tokenizer.ggml.eos_token_id", 2).set("tokenizer.ggml.unknown_token_id", 0)
	out, _ := convertGGUF(t, f, Options{})
	var tok struct {
		Model struct {
			Unk    string `json:"unk_token"`
			Bytes  bool   `json:"byte_fallback"`
			Merges [][2]string
		}
	}
	if err := json.Unmarshal([]byte(read(t, out, "tokenizer.json")), &tok); err != nil {
		t.Fatal(err)
	}
	// The best score first; of one token, the split with the longer left part.
	want := [][2]string{{"b", "a"}, {"a", "b"}, {"▁", "a"}, {"▁a", "b"}, {"▁", "ab"}}
	if tok.Model.Unk != "<unk>" || !tok.Model.Bytes || !slices.Equal(tok.Model.Merges, want) {
		t.Errorf("%+v", tok.Model)
	}
}
