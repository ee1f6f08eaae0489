package llamacpp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/gguf"
)

const golden = "../../testdata/golden/gguf/ft1-q8_0.gguf"

var le = binary.LittleEndian

// setting is a key of a GGUF file's metadata: an uint32, a float32, a string, a list of strings or of float32.
type setting struct {
	key   string
	value any
}

func (s setting) append(b []byte) []byte {
	text := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	float := func(b []byte, x float32) []byte { return le.AppendUint32(b, math.Float32bits(x)) }
	b = text(b, s.key)
	switch v := s.value.(type) {
	case uint32:
		return le.AppendUint32(le.AppendUint32(b, 4), v)
	case float32:
		return float(le.AppendUint32(b, 6), v)
	case string:
		return text(le.AppendUint32(b, 8), v)
	case []string:
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, 9), 8), uint64(len(v)))
		for _, t := range v {
			b = text(b, t)
		}
	case []float32:
		b = le.AppendUint64(le.AppendUint32(le.AppendUint32(b, 9), 6), uint64(len(v)))
		for _, x := range v {
			b = float(b, x)
		}
	default:
		panic("a setting of another kind")
	}
	return b
}

// with puts settings in front of those of a file. They fill whole units of alignment, so that the tensors stay where the table has them.
func with(file []byte, settings ...setting) []byte {
	const start, alignment = 24, 32
	var more []byte
	for _, s := range settings {
		more = s.append(more)
	}
	key := fmt.Sprint("filling.", len(file)) // of which a file may have some
	filling := len(setting{key, ""}.append(nil))
	more = setting{key, strings.Repeat(".", alignment-(len(more)+filling)%alignment)}.append(more)
	out := le.AppendUint64(append([]byte(nil), file[:16]...), le.Uint64(file[16:])+uint64(len(settings))+1)
	return append(append(out, more...), file[start:]...)
}

// small is a model of one layer, small enough for fuzzing to be fast.
func small() []byte {
	data := append([]byte("GGUF\x03\x00\x00\x00"), make([]byte, 16)...)
	layer := map[string][]int{"attn_norm": {4}, "ffn_norm": {4}, "attn_q": {4, 4}, "attn_k": {4, 4}, "attn_v": {4, 4}, "attn_output": {4, 4}, "ffn_gate": {4, 4}, "ffn_up": {4, 4}, "ffn_down": {4, 4}}
	shapes := map[string][]int{"token_embd": {4, 4}, "output_norm": {4}}
	for name, shape := range layer {
		shapes["blk.0."+name] = shape
	}
	le.PutUint64(data[8:], uint64(len(shapes)))
	at := uint64(0)
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		data = append(le.AppendUint64(data, uint64(len(name+".weight"))), name+".weight"...)
		data = le.AppendUint32(data, uint32(len(shapes[name])))
		elems := uint64(1)
		for _, n := range shapes[name] {
			data = le.AppendUint64(data, uint64(n))
			elems *= uint64(n)
		}
		data = le.AppendUint64(le.AppendUint32(data, 0), at) // F32
		at += (4*elems + 31) / 32 * 32
	}
	data = append(data, make([]byte, (32-len(data)%32)%32+int(at))...)
	return with(data, setting{"general.architecture", "llama"}, setting{"llama.context_length", uint32(8)}, setting{"llama.embedding_length", uint32(4)},
		setting{"llama.block_count", uint32(1)}, setting{"llama.feed_forward_length", uint32(4)}, setting{"llama.attention.head_count", uint32(2)}, setting{"llama.attention.layer_norm_rms_epsilon", float32(1e-5)})
}

func write(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// Positions are scaled as llama.cpp scales them, and what transformers' classes cannot do is refused.
func TestScaling(t *testing.T) {
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	const prefix = "llama.rope.scaling."
	kind := func(s string) setting { return setting{prefix + "type", s} }
	factor := setting{prefix + "factor", float32(4)}
	linear := map[string]any{"rope_type": "linear", "factor": 4.0}
	for _, c := range []struct {
		what     string
		settings []setting
		want     map[string]any
		says     string
	}{
		{what: "nothing"},
		{what: "a kind without factor", settings: []setting{kind("linear")}},
		{what: "a factor of none", settings: []setting{kind("none"), factor}},
		{what: "linear", settings: []setting{kind("linear"), factor}, want: linear},
		{what: "a factor alone", settings: []setting{factor}, want: linear},
		{what: "an old file's factor", settings: []setting{{"llama.rope.scale_linear", float32(4)}}, want: linear},
		{what: "yarn", settings: []setting{kind("yarn"), factor, {prefix + "yarn_beta_fast", float32(16)}, {prefix + "yarn_beta_slow", float32(2)}, {prefix + "attn_factor", float32(1)}},
			want: map[string]any{"rope_type": "yarn", "factor": 4.0, "beta_fast": 16.0, "beta_slow": 2.0}},
		{what: "yarn with another factor of attention", settings: []setting{kind("yarn"), factor, {prefix + "attn_factor", float32(0.5)}}, says: "llama.rope.scaling.attn_factor of 0.5, which cannot be converted"},
		{what: "yarn with turns of none", settings: []setting{kind("yarn"), factor, {prefix + "yarn_beta_fast", float32(math.NaN())}}, says: "yarn_beta_fast is NaN"},
		{what: "a factor that is no number", settings: []setting{{prefix + "factor", float32(math.NaN())}}, says: "scaled by NaN"},
		{what: "another kind", settings: []setting{kind("longrope"), factor}, says: `scales its rotary embedding by "longrope"`},
	} {
		c1, m, err := Open(write(t, with(data, c.settings...)))
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		files, err := m.Files(m.DType())
		_ = c1.Close()
		if c.says != "" {
			if !errors.As(err, new(*tensors.FormatError)) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, want %q", c.what, err, c.says)
			}
			continue
		}
		var config struct {
			Scaling map[string]any `json:"rope_scaling"`
		}
		if err == nil {
			err = json.Unmarshal(files["config.json"], &config)
		}
		if err != nil || !reflect.DeepEqual(config.Scaling, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.what, config.Scaling, err, c.want)
		}
	}
}

// A vocabulary that nobody has would take hours to find the merges of, or more warnings than there is memory.
func TestHostileVocabulary(t *testing.T) {
	tokenizer := func(tokens ...string) (*Model, error) {
		empty := append([]byte("GGUF\x03\x00\x00\x00"), make([]byte, 16)...)
		f, err := gguf.Open(write(t, with(empty, setting{"tokenizer.ggml.model", "llama"}, setting{"tokenizer.ggml.tokens", tokens}, setting{"tokenizer.ggml.scores", make([]float32, len(tokens))})))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		m := &Model{f: f, arch: "llama", vocab: int64(len(tokens))}
		return m, m.writeTokenizer(map[string][]byte{})
	}
	if m, err := tokenizer("a", "b", strings.Repeat("x", maxToken)); err != nil || len(m.warnings) > 0 {
		t.Errorf("%v, warnings %v", err, m.warnings)
	}
	if _, err := tokenizer("a", strings.Repeat("x", maxToken+1)); !errors.As(err, new(*tensors.FormatError)) || !strings.Contains(err.Error(), "token 1 of the vocabulary has 1025 bytes") {
		t.Error(err)
	}
	m, err := tokenizer(make([]string, 1000)...)
	if err != nil || len(m.warnings) != maxTold+1 || !strings.Contains(m.warnings[maxTold], "989 more") {
		t.Errorf("%v, %d warnings: %v", err, len(m.warnings), m.warnings)
	}
}

// A text ends with EOS, and in chat models also with what ends a turn or a message.
func TestEnds(t *testing.T) {
	for _, c := range []struct {
		eos, eot, eom uint32
		want          any
	}{{1, 1, 1, 1.0}, {1, 2, 1, []any{1.0, 2.0}}, {1, 2, 3, []any{1.0, 2.0, 3.0}}, {1, 1, 3, []any{1.0, 3.0}}, {1, 2, 99, []any{1.0, 2.0}}} {
		k, m, err := Open(write(t, with(small(), setting{"tokenizer.ggml.eos_token_id", c.eos}, setting{"tokenizer.ggml.eot_token_id", c.eot}, setting{"tokenizer.ggml.eom_token_id", c.eom})))
		if err != nil {
			t.Fatal(err)
		}
		files, err := m.Files(m.DType())
		_ = k.Close()
		var generation map[string]any
		if err == nil {
			err = json.Unmarshal(files["generation_config.json"], &generation)
		}
		if err != nil || !reflect.DeepEqual(generation["eos_token_id"], c.want) {
			t.Errorf("%v: %v, %v", c, generation, err)
		}
	}
}

// The seeds of fuzzing are models.
func TestSmall(t *testing.T) {
	c, m, err := Open(write(t, with(small(), setting{"tokenizer.ggml.model", "llama"}, setting{"tokenizer.ggml.tokens", []string{"a", "aa"}}, setting{"tokenizer.ggml.scores", []float32{0, -1}})))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if files, err := m.Files(m.DType()); err != nil || !strings.Contains(string(files["tokenizer.json"]), `"a"`) || len(c.Names()) != 11 {
		t.Errorf("%v, %d tensors, %v", files, len(c.Names()), err)
	}
}

// FuzzOpen wants of any bytes a *tensors.FormatError, or a model whose tensors can be read to their ends and whose files are JSON.
func FuzzOpen(f *testing.F) {
	data := small()
	tokens := []string{"<unk>", "<s>", "a", "aa"}
	f.Add(data)
	f.Add(with(data, setting{"llama.rope.scaling.type", "yarn"}, setting{"llama.rope.scaling.factor", float32(4)}))
	f.Add(with(data, setting{"tokenizer.ggml.model", "llama"}, setting{"tokenizer.ggml.tokens", tokens}, setting{"tokenizer.ggml.scores", []float32{0, 0, -1, -2}}, setting{"tokenizer.ggml.bos_token_id", uint32(1)}))
	f.Add(with(data, setting{"tokenizer.ggml.model", "gpt2"}, setting{"tokenizer.ggml.tokens", tokens}, setting{"tokenizer.ggml.merges", []string{"a a"}}, setting{"tokenizer.ggml.pre", "llama-bpe"}))
	path := filepath.Join(f.TempDir(), "m.gguf")
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<18 {
			return
		}
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		c, m, err := Open(path)
		if err != nil {
			if !errors.As(err, new(*tensors.FormatError)) {
				t.Errorf("%T is no format error: %v", err, err)
			}
			return
		}
		defer c.Close()
		files, err := m.Files(m.DType())
		if err != nil && !errors.As(err, new(*tensors.FormatError)) {
			t.Errorf("%T is no format error: %v", err, err)
		}
		for name, text := range files {
			if err == nil && !json.Valid(text) {
				t.Errorf("%s is no JSON", name)
			}
		}
		for _, name := range c.Names() {
			info, _ := c.Lookup(name)
			if info.Bytes() > 64*int64(len(data)) {
				t.Fatalf("%q is %v of a file of %d bytes", name, info, len(data))
			}
			if _, err := c.View(name); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}
