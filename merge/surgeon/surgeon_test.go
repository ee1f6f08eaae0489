package surgeon

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/text/tokenizer"
)

const golden = "../../testdata/golden/models/"

// operated runs an operation and opens what it wrote.
func operated(t *testing.T, model, donor string, o Options) (string, *Report) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	r, err := Run(context.Background(), model, donor, out, o)
	if err != nil {
		t.Fatal(err)
	}
	return out, r
}

func open(t *testing.T, path string) *tensors.Checkpoint {
	t.Helper()
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// matrixOf decodes a tensor.
func matrixOf(t *testing.T, c *tensors.Checkpoint, name string) ([]float32, []int) {
	t.Helper()
	v, err := c.View(name)
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float32, v.Elems())
	if err := tensors.DecodeFloat32(x, v.Data, v.DType); err != nil {
		t.Fatal(err)
	}
	return x, v.Shape
}

// TestPeer compares the rows of new tokens with those that Python's mergekit makes, method by method.
func TestPeer(t *testing.T) {
	peer := open(t, "testdata/peer/tiny.safetensors")
	ci := func(scheme string, cosine bool) Options {
		return Options{Method: "common_interpolation", Scheme: scheme, K: 5, Cosine: cosine}
	}
	for name, c := range map[string]struct {
		model, donor string
		o            Options
	}{
		"omp8":        {"base", "vocabC", Options{K: 8}},
		"ci-distance": {"base", "vocabC", ci("", false)}, "ci-distance-cosine": {"base", "vocabC", ci("", true)},
		"ci-barycentric": {"base", "vocabC", ci("barycentric", false)}, "ci-barycentric-cosine": {"base", "vocabC", ci("barycentric", true)},
		"ci-least-squares": {"base", "vocabC", ci("least_squares", false)}, "ci-least-squares-cosine": {"base", "vocabC", ci("least_squares", true)},
		"sub-mean": {"base", "vocabC", Options{Method: "subword"}}, "sub-sum": {"base", "vocabC", Options{Method: "subword", Subword: "sum"}},
		"sub-weighted":   {"base", "vocabC", Options{Method: "subword", Subword: "weighted_mean"}},
		"sub-first-last": {"base", "vocabC", Options{Method: "subword", Subword: "first_last"}},
		"mean":           {"base", "vocabC", Options{Method: "mean"}}, "prefix": {"base", "vocabC", Options{Method: "mean", PrefixMatch: "yes"}},
		"tied": {"tied", "vocabC", Options{K: 8}}, "from-tied": {"vocabC", "tied", Options{K: 8}},
	} {
		t.Run(name, func(t *testing.T) {
			out, _ := operated(t, golden+c.model, golden+c.donor, c.o)
			got := open(t, out)
			ids, err := peer.View(name + "/ids")
			if err != nil {
				t.Fatal(err)
			}
			compared := 0
			for _, tensor := range []string{"model.embed_tokens.weight", "lm_head.weight"} {
				if _, ok := peer.Lookup(name + "/" + tensor); !ok {
					if _, ok := got.Lookup(tensor); ok {
						t.Errorf("%s is written, and the peer has none", tensor)
					}
					continue
				}
				want, shape := matrixOf(t, peer, name+"/"+tensor)
				x, _ := matrixOf(t, got, tensor)
				d := shape[1]
				for i := range shape[0] {
					id := int(binary.LittleEndian.Uint32(ids.Data[4*i:]))
					for j := range d {
						compared++
						// The peer solves its small systems in float32.
						if e := math.Abs(float64(x[id*d+j] - want[i*d+j])); !(e < 1e-5) {
							t.Fatalf("%s: token %d, value %d: %v, the peer has %v", tensor, id, j, x[id*d+j], want[i*d+j])
						}
					}
				}
			}
			if compared == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

// TestCopies: what both vocabularies have keeps its row, bit for bit, and everything that is no vocabulary its bytes; the tokenizer is the
// donor's, and the configuration fits it.
func TestCopies(t *testing.T) {
	for _, c := range []struct{ model, donor string }{{"base", "vocabC"}, {"base", "vocabB"}, {"tied", "vocabC"}, {"base-bf16", "vocabC"}, {"gpt2", "vocabC"}, {"qwen", "vocabB"}} {
		t.Run(c.model+" "+c.donor, func(t *testing.T) {
			out, r := operated(t, golden+c.model, golden+c.donor, Options{K: 4})
			got, model := open(t, out), open(t, golden+c.model)
			ours, err := tokenizer.Open(golden + c.model)
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := tokenizer.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			donor, err := tokenizer.Open(golden + c.donor)
			if err != nil {
				t.Fatal(err)
			}
			sites := map[string]Site{}
			for _, s := range r.Sites {
				sites[s.Tensor] = s
			}
			if len(got.Names()) != len(model.Names()) {
				t.Errorf("%d tensors of %d", len(got.Names()), len(model.Names()))
			}
			for _, name := range model.Names() {
				a, err := model.View(name)
				if err != nil {
					t.Fatal(err)
				}
				b, err := got.View(name)
				if err != nil {
					t.Fatal(err)
				}
				s, table := sites[name]
				if !table {
					if string(a.Data) != string(b.Data) || a.DType != b.DType {
						t.Errorf("%s has changed", name)
					}
					continue
				}
				if b.Shape[0] != donor.Size() || b.Shape[1] != a.Shape[1] || b.DType != a.DType {
					t.Fatalf("%s: %s %v", name, b.DType, b.Shape)
				}
				size := a.Shape[1] * a.DType.Size()
				copies := 0
				for _, tok := range donor.Vocabulary() {
					own, ok := ours.ID(tok.Text)
					if !ok {
						continue
					}
					copies++
					if string(a.Data[own*size:][:size]) != string(b.Data[tok.ID*size:][:size]) {
						t.Fatalf("%s: %q has another row", name, tok.Text)
					}
				}
				if copies != s.Copied || s.Copied+s.Approximated != len(donor.Vocabulary()) || s.Landmarks != s.Copied {
					t.Errorf("%+v of %d tokens, %d shared", s, len(donor.Vocabulary()), copies)
				}
			}
			if text := "The lambda mingling <extra_b1>"; len(theirs.Encode(text, true)) == 0 || strings.Join(pieces(theirs, text), "|") != strings.Join(pieces(donor, text), "|") {
				t.Errorf("%v, the donor has %v", pieces(theirs, text), pieces(donor, text))
			}
			var config map[string]any
			raw, err := os.ReadFile(filepath.Join(out, "config.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(raw, &config); err != nil {
				t.Fatal(err)
			}
			if config["vocab_size"] != float64(donor.Size()) || config["bos_token_id"] != 0. {
				t.Errorf("vocab_size %v, bos_token_id %v", config["vocab_size"], config["bos_token_id"])
			}
		})
	}
}

func pieces(t *tokenizer.Tokenizer, text string) (out []string) {
	for _, id := range t.Encode(text, false) {
		s, _ := t.Token(id)
		out = append(out, s)
	}
	return out
}

// TestDeterministic: bytes do not depend on threads or on how rows are batched.
func TestDeterministic(t *testing.T) {
	for _, method := range Methods() {
		var first string
		for _, o := range []Options{{Threads: 1, Batch: 7}, {Threads: 3, Batch: 64}} {
			o.Method, o.K, o.Seed, o.Noise = method, 4, 5, 0.1
			out, _ := operated(t, golden+"base", golden+"vocabC", o)
			sum, err := tensors.SHA256(filepath.Join(out, "model.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			if first == "" {
				first = sum
			} else if first != sum {
				t.Errorf("%s: the bytes depend on threads or batches", method)
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	for want, f := range map[string]func() error{
		`approximation-method: "guess" is unknown; use omp`: func() error {
			_, err := Run(t.Context(), golden+"base", golden+"vocabC", out, Options{Method: "guess"})
			return err
		},
		"between 1 and": func() error {
			_, err := Run(t.Context(), golden+"base", golden+"vocabC", out, Options{K: -1})
			return err
		},
		"is not possible": func() error {
			_, err := Run(t.Context(), golden+"base", golden+"vocabC", out, Options{Noise: math.NaN()})
			return err
		},
		"is the directory of": func() error {
			_, err := Run(t.Context(), golden+"base", golden+"vocabC", golden+"base", Options{})
			return err
		},
		"no config.json": func() error { _, err := Run(t.Context(), golden+"base", golden+"lora1", out, Options{}); return err },
		"has no tensors": func() error {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"), 0o666); err != nil {
				return err
			}
			_, err := Run(t.Context(), dir, golden+"base", out, Options{})
			if bad := (*Error)(nil); !errors.As(err, &bad) {
				t.Errorf("%T is no mistake of the user", err)
			}
			return err
		},
		"no tokenizer": func() error {
			_, err := Run(t.Context(), golden+"base", "../../testdata/golden/forward/vit", out, Options{})
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a refused operation left an output")
	}
}
