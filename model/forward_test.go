package model_test

import (
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// rowsOf cuts an output [B,S,W] into its positions.
func rowsOf(out *model.Output) [][]float32 {
	w := out.Shape[len(out.Shape)-1]
	var list [][]float32
	for at := 0; at < len(out.Data); at += w {
		list = append(list, out.Data[at:at+w])
	}
	return list
}

// near reports whether two rows agree within a share of the largest magnitude.
func near(a, b []float32, tolerance float64) bool {
	var worst, largest float64
	for i := range a {
		worst = max(worst, math.Abs(float64(a[i]-b[i])))
		largest = max(largest, math.Abs(float64(b[i])))
	}
	return worst <= tolerance*largest
}

func forward(t *testing.T, m *model.Model, in model.Input) [][]float32 {
	t.Helper()
	out, err := m.Forward(in)
	if err != nil {
		t.Fatal(err)
	}
	return rowsOf(out)
}

// TestPackedAndPadded puts texts into one row behind each other, and one text behind padding on the left and before padding on
// the right: every token has the states that it has alone.
func TestPackedAndPadded(t *testing.T) {
	for backend, b := range backends(t) {
		for _, name := range []string{"gemma2", "gemma3", "gpt2", "llama", "mistral-window", "qwen3", "bert"} {
			if backend != "go" && name != "gemma2" && name != "bert" {
				continue // the masks are the same graphs
			}
			t.Run(backend+"/"+name, func(t *testing.T) {
				m := load(t, b, filepath.Join(goldenForward, name), model.Options{})
				texts := prompts(m.D.Vocab) // of 3, 19, 1 and 11 tokens
				packed := model.Input{Rows: 1}
				for i, text := range texts {
					for k, id := range text {
						packed.IDs, packed.Segments, packed.Positions = append(packed.IDs, id), append(packed.Segments, int32(i+1)), append(packed.Positions, int32(k))
					}
				}
				packed.Length = len(packed.IDs)
				together := forward(t, m, packed)
				for i, text := range texts {
					alone := forward(t, m, model.Input{Rows: 1, Length: len(text), IDs: text})
					for k := range alone {
						if !near(together[k], alone[k], 1e-4) {
							t.Errorf("text %d, token %d: packed differs from alone", i, k)
							break
						}
					}
					together = together[len(text):]
					if i != 3 {
						continue
					}
					left, right := model.Input{Rows: 1, Length: 24}, model.Input{Rows: 1, Length: 24}
					for c := range 24 {
						add := func(in *model.Input, k int) {
							if k < 0 || k >= len(text) {
								in.IDs, in.Segments, in.Positions = append(in.IDs, 2), append(in.Segments, 0), append(in.Positions, 0)
								return
							}
							in.IDs, in.Segments, in.Positions = append(in.IDs, text[k]), append(in.Segments, 1), append(in.Positions, int32(k))
						}
						add(&left, c-(24-len(text)))
						add(&right, c)
					}
					l, r := forward(t, m, left), forward(t, m, right)
					for k := range alone {
						if !near(l[24-len(text)+k], alone[k], 1e-4) || !near(r[k], alone[k], 1e-4) {
							t.Errorf("text %d, token %d: padded differs from alone", i, k)
							break
						}
					}
				}
			})
		}
	}
}

// TestPackedLongRope packs texts into a row that is longer than what short factors are for: tables follow the longest text, not
// the row, so that every token has the states that it has alone.
func TestPackedLongRope(t *testing.T) {
	dir := withConfig(t, "phi3", `"rope_type": "default"`, `"rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1.5, 3, 8, 20]`,
		`"original_max_position_embeddings": 4096`, `"original_max_position_embeddings": 20`)
	m := load(t, backends(t)["go"], dir, model.Options{})
	packed := model.Input{Rows: 1}
	texts := prompts(m.D.Vocab)
	for i, text := range texts {
		for k, id := range text {
			packed.IDs, packed.Segments, packed.Positions = append(packed.IDs, id), append(packed.Segments, int32(i+1)), append(packed.Positions, int32(k))
		}
	}
	// Padding counts on, and belongs to no text.
	for range 6 {
		packed.IDs, packed.Segments, packed.Positions = append(packed.IDs, 0), append(packed.Segments, 0), append(packed.Positions, int32(len(packed.IDs)))
	}
	packed.Length = len(packed.IDs)
	together := forward(t, m, packed)
	for i, text := range texts {
		for k, alone := range forward(t, m, model.Input{Rows: 1, Length: len(text), IDs: text}) {
			if !near(together[k], alone, 1e-4) {
				t.Errorf("text %d, token %d: packed differs from alone", i, k)
				break
			}
		}
		together = together[len(text):]
	}
}

// TestScoreOfPaddedRows sees that a reward is read at the last token of a text, wherever its padding is.
func TestScoreOfPaddedRows(t *testing.T) {
	for backend, b := range backends(t) {
		t.Run(backend, func(t *testing.T) {
			m := load(t, b, goldenForward+"llama-reward", model.Options{})
			text := prompts(m.D.Vocab)[3]
			alone := forward(t, m, model.Input{Rows: 1, Length: len(text), IDs: text})
			pad := make([]int32, 5)
			one := slices.Repeat([]int32{1}, len(text))
			both := forward(t, m, model.Input{Rows: 2, Length: len(text) + 5,
				IDs:      slices.Concat(pad, text, text, pad),
				Segments: slices.Concat(pad, one, one, pad)})
			if !near(both[0], alone[0], 1e-4) || !near(both[1], alone[0], 1e-4) {
				t.Errorf("left-padded %v, right-padded %v, alone %v", both[0], both[1], alone[0])
			}
		})
	}
}

// inBF16 writes a copy of a checkpoint with all weights in bfloat16.
func inBF16(t *testing.T, dir string) string {
	t.Helper()
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var infos []tensors.Info
	var data [][]byte
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		half := make([]byte, 2*v.Elems())
		if err := tensors.Convert(half, tensors.BF16, v.Data, v.DType); err != nil {
			t.Fatal(err)
		}
		infos, data = append(infos, tensors.Info{Name: name, DType: tensors.BF16, Shape: v.Shape}), append(data, half)
	}
	out := t.TempDir()
	if err := tensors.SaveFile(filepath.Join(out, "model.safetensors"), infos, data, nil); err != nil {
		t.Fatal(err)
	}
	copyFile(t, filepath.Join(dir, "config.json"), filepath.Join(out, "config.json"))
	return out
}

// compareChoice sees that rounding changes the outputs little, and what is chosen from them hardly ever: another entry may become
// the largest only where the reference itself prefers its own by less than the margin. Both are shares of a row's largest
// magnitude.
func compareChoice(t *testing.T, in goldenInput, want, got []float32, shape []int, tolerance, most float64) {
	t.Helper()
	w := shape[len(shape)-1]
	same, n := 0, 0
	for r := range len(want) / w {
		if in.Mask != nil && len(shape) == 3 && in.Mask[r/shape[1]][r%shape[1]] == 0 {
			continue // padding
		}
		a, b := want[r*w:(r+1)*w], got[r*w:(r+1)*w]
		if !near(b, a, tolerance) {
			t.Errorf("row %d: differs by more than %v of its largest magnitude", r, tolerance)
		}
		first, second := slices.Index(a, slices.Max(a)), slices.Index(b, slices.Max(b))
		if n++; first == second {
			same++
			continue
		}
		var largest float64
		for _, v := range a {
			largest = max(largest, math.Abs(float64(v)))
		}
		if margin := float64(a[first] - a[second]); margin > most*largest {
			t.Errorf("row %d: chooses %d instead of %d, which is larger by %.3g", r, second, first, margin)
		}
	}
	if share := float64(same) / float64(n); share < 0.9 {
		t.Errorf("the same choice in %.3f of the rows only", share)
	}
}

// TestBF16 runs every golden model with its weights rounded to bfloat16 and compares with the float32 outputs of transformers;
// then with the arithmetic in bfloat16 as well, and compares with the rounded weights in float32. The golden models are random,
// so that their two largest logits are sometimes closer to each other than bfloat16 can tell.
func TestBF16(t *testing.T) {
	cases, err := filepath.Glob(goldenForward + "*")
	if err != nil || len(cases) < 15 {
		t.Fatalf("%d golden cases, %v", len(cases), err)
	}
	for backend, b := range backends(t) {
		for _, dir := range cases {
			t.Run(backend+"/"+filepath.Base(dir), func(t *testing.T) {
				in, want, shape := readGolden(t, dir)
				half := inBF16(t, dir)
				run := func(dtype dtypes.DType) []float32 {
					out, err := load(t, b, half, model.Options{Compute: dtype}).Forward(in.input())
					if err != nil {
						t.Fatal(err)
					}
					return out.Data
				}
				rounded, all := run(dtypes.Float32), run(dtypes.BFloat16)
				compareChoice(t, in, want, rounded, shape, 0.05, 0.02)
				compareChoice(t, in, rounded, all, shape, 0.1, 0.03)
			})
		}
	}
}

func TestForwardErrors(t *testing.T) {
	b := backends(t)["go"]
	gpt2 := load(t, b, goldenForward+"gpt2", model.Options{})
	bert := load(t, b, goldenForward+"bert", model.Options{})
	var input *model.InputError
	var vocabulary *model.VocabularyError
	for name, c := range map[string]struct {
		m    *model.Model
		in   model.Input
		as   any
		want string
	}{
		"no token":       {gpt2, model.Input{}, &input, "has 0 tokens"},
		"too few":        {gpt2, model.Input{Rows: 2, Length: 2, IDs: []int32{1, 2, 3}}, &input, "has 3 tokens"},
		"vocabulary":     {gpt2, model.Input{Rows: 1, Length: 1, IDs: []int32{96}}, &vocabulary, "token id 96 is outside of the model's embedding of 96 rows"},
		"negative":       {gpt2, model.Input{Rows: 1, Length: 1, IDs: []int32{-1}}, &vocabulary, "token id -1"},
		"too long":       {gpt2, model.Input{Rows: 1, Length: 129, IDs: make([]int32, 129)}, &input, "more than 128 tokens"},
		"positions":      {gpt2, model.Input{Rows: 1, Length: 2, IDs: make([]int32, 2), Positions: []int32{1}}, &input, "positions, segments or types for 1"},
		"token type":     {bert, model.Input{Rows: 1, Length: 1, IDs: []int32{1}, Types: []int32{2}}, &input, "types from 0 to 1"},
		"before a text":  {bert, model.Input{Rows: 1, Length: 1, IDs: []int32{1}, Positions: []int32{-1}}, &input, "count from 0"},
		"beyond a table": {bert, model.Input{Rows: 1, Length: 1, IDs: []int32{1}, Positions: []int32{512}}, &input, "more than 512 tokens"},
	} {
		_, err := c.m.Forward(c.in)
		if err == nil || !errors.As(err, c.as) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}
