package merge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/merge/vocabulary"
	"github.com/mergekit/mergekit/tensors"
)

// memoryPart is a tensor in memory that says what was asked of it.
type memoryPart struct {
	stream.Memory
	reads, released, announced int64
}

func (m *memoryPart) WillNeed(_, n int64) { m.announced += n }

func (m *memoryPart) elems() int64 { return int64(len(m.Data)) / int64(m.Type.Size()) }

func (m *memoryPart) Bytes(off, n int64, scratch []byte) ([]byte, error) {
	m.reads++
	return m.Memory.Bytes(off, n, scratch)
}

func (m *memoryPart) Release(_, n int64) { m.released += n }

// someVocabulary plans the union of three vocabularies that share some words in other orders, padded to a multiple of 8.
func someVocabulary(t *testing.T) (*vocabulary.Vocabulary, []vocabulary.Input) {
	t.Helper()
	lists := [][]string{{"u", "a", "b", "c", "d", "e"}, {"u", "e", "d", "x", "y", "a"}, {"u", "b", "y", "z", "c"}}
	return vocabularyOf(t, lists, recipe.Tokenizer{Source: recipe.TokenizerUnion, PadToMultipleOf: 8, Tokens: []recipe.TokenRule{{Token: "z", Kind: recipe.TokenZero, FromID: -1}}})
}

// vocabularyOf plans the vocabulary of models with these words.
func vocabularyOf(t *testing.T, lists [][]string, source recipe.Tokenizer) (*vocabulary.Vocabulary, []vocabulary.Input) {
	t.Helper()
	var models []vocabulary.Model
	var inputs []vocabulary.Input
	for i, list := range lists {
		dir := t.TempDir()
		ids := map[string]int{}
		for id, text := range list {
			ids[text] = id
		}
		data, err := json.Marshal(map[string]any{"model": map[string]any{"type": "WordLevel", "vocab": ids, "unk_token": "u"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o666); err != nil {
			t.Fatal(err)
		}
		models = append(models, vocabulary.Model{Name: fmt.Sprint("m", i), Dir: dir, Rows: len(list)})
		inputs = append(inputs, vocabulary.Input{Model: i, Rows: len(list)})
	}
	v, err := vocabulary.New(models, vocabulary.Options{Source: source})
	if err != nil {
		t.Fatal(err)
	}
	return v, inputs
}

// TestGatheredRows reads every range of every input in every dtype, and compares with rows put together by the definition.
func TestGatheredRows(t *testing.T) {
	v, inputs := someVocabulary(t)
	list, _, _, err := v.Gather(inputs, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, cols := range []int{1, 5} {
		for _, dtypes := range [][]tensors.DType{{tensors.F32, tensors.F32, tensors.F32}, {tensors.BF16, tensors.F16, tensors.F32}, {tensors.F64, tensors.F64, tensors.F64}} {
			var parts []part
			values := make([][]float64, len(inputs))
			r := rand.New(rand.NewPCG(1, uint64(cols)))
			for i, in := range inputs {
				x := make([]float64, in.Rows*cols)
				for k := range x {
					x[k] = float64(r.IntN(64)) / 8
				}
				values[i] = x
				data := make([]byte, len(x)*dtypes[i].Size())
				if err := encodeFloat64(data, dtypes[i], x); err != nil {
					t.Fatal(err)
				}
				parts = append(parts, &memoryPart{Memory: stream.Memory{Name: fmt.Sprint(i), Type: dtypes[i], Data: data}})
			}
			out := tensors.F32
			if dtypes[0] == tensors.F64 {
				out = tensors.F64
			}
			for i, rows := range list {
				s := &gatheredSource{rows: rows, parts: parts, own: i, dtype: out, cols: int64(cols)}
				want := make([]byte, s.elems()*int64(out.Size()))
				if err := encodeFloat64(want, out, defined(rows, values, i, cols)); err != nil {
					t.Fatal(err)
				}
				size := int64(out.Size())
				for off := int64(0); off <= s.elems(); off++ {
					for n := int64(0); off+n <= s.elems(); n++ {
						got, err := s.Bytes(off, n, make([]byte, n*size))
						if err != nil || !bytes.Equal(got, want[off*size:(off+n)*size]) {
							t.Fatalf("input %d of %v, %d columns, elements %d to %d: %v\n got %v\nwant %v", i, dtypes, cols, off, off+n, err, got, want[off*size:(off+n)*size])
						}
					}
				}
				if _, err := s.Bytes(0, s.elems()+1, nil); err == nil {
					t.Error("elements outside are given")
				}
			}
		}
	}
}

// defined puts the rows of an input together as the package vocabulary's documentation says.
func defined(rows *vocabulary.Rows, values [][]float64, own, cols int) []float64 {
	out := make([]float64, rows.Len()*cols)
	mean := make([]float64, cols)
	for row := range rows.Len() {
		to := out[row*cols : (row+1)*cols]
		switch {
		case rows.Padding(row):
			continue
		case rows.Own(row) >= 0:
			copy(to, values[own][rows.Own(row)*cols:])
		default:
			for _, o := range rows.Common(row) {
				for c := range to {
					to[c] += values[o.Input][o.Row*cols+c]
				}
			}
			for c := range to {
				to[c] /= float64(max(1, len(rows.Common(row))))
			}
		}
		for c := range to {
			mean[c] += to[c]
		}
	}
	for c := range mean {
		mean[c] /= float64(rows.Tokens())
	}
	for row := range rows.Len() {
		if rows.Padding(row) {
			copy(out[row*cols:], mean)
		}
	}
	return out
}

// TestGatheredRuns: rows that follow each other in a file are one read, and a range that is one run is a view of the file.
func TestGatheredRuns(t *testing.T) {
	v, inputs := someVocabulary(t)
	list, _, _, err := v.Gather(inputs, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	const cols = 4
	data := make([]byte, 6*cols*4)
	own := &memoryPart{Memory: stream.Memory{Type: tensors.F32, Data: data}}
	s := &gatheredSource{rows: list[0], parts: []part{own, own, own}, dtype: tensors.F32, cols: cols}
	b, err := s.Bytes(2, 20, make([]byte, 80))
	if err != nil || own.reads != 1 || &b[0] != &data[8] {
		t.Errorf("%d reads, %v: not a view of the file", own.reads, err)
	}
	s.Release(0, s.elems())
	if own.released != 6*cols {
		t.Errorf("%d elements are given back, want the whole file's", own.released)
	}
	s.Release(cols, 2*cols)
	if own.released != 8*cols {
		t.Errorf("%d elements are given back, want two rows more", own.released)
	}
}

// TestGatheredHints: rows in order are announced as they come, rows in disorder once with all others.
func TestGatheredHints(t *testing.T) {
	const rows = 2 * mostHints
	forth, back := []string{"u"}, []string{"u"}
	for i := 1; i < rows; i++ {
		forth, back = append(forth, fmt.Sprint("w", i)), append(back, fmt.Sprint("w", rows-i))
	}
	v, inputs := vocabularyOf(t, [][]string{forth, back}, recipe.Tokenizer{Source: recipe.TokenizerBase})
	list, _, _, err := v.Gather(inputs, 0, nil)
	if err != nil || list[0] != nil {
		t.Fatal(err)
	}
	own := &memoryPart{Memory: stream.Memory{Type: tensors.F32, Data: make([]byte, 4*rows)}}
	s := &gatheredSource{rows: list[1], parts: []part{own, own}, own: 1, dtype: tensors.F32, cols: 1}
	s.WillNeed(1, 3)
	if own.announced != 3 {
		t.Errorf("%d elements are announced, want 3", own.announced)
	}
	for range 2 {
		s.WillNeed(0, rows)
	}
	if own.announced != 3+rows {
		t.Errorf("%d elements are announced, want the tensor once", own.announced-3)
	}
}

// TestGatheredNative: arithmetic in the storage dtype rounds a mean after every addition, other arithmetic once.
func TestGatheredNative(t *testing.T) {
	v, inputs := someVocabulary(t)
	list, _, _, err := v.Gather(inputs, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := -1
	for row := range list[2].Len() { // a word that the first two have
		if !list[2].Padding(row) && list[2].Own(row) < 0 && len(list[2].Common(row)) == 2 {
			at = row
		}
	}
	if at < 0 {
		t.Fatal("no row is a mean")
	}
	var parts []part
	for i, in := range inputs { // 257 is no bfloat16: 256 + 1 is rounded to 256
		x := make([]float64, in.Rows)
		for k := range x {
			x[k] = []float64{256, 1, 0}[i]
		}
		b := make([]byte, 2*len(x))
		if err := encodeFloat64(b, tensors.BF16, x); err != nil {
			t.Fatal(err)
		}
		parts = append(parts, &memoryPart{Memory: stream.Memory{Type: tensors.BF16, Data: b}})
	}
	for _, c := range []struct {
		dtype  tensors.DType
		native bool
		want   float64
	}{{tensors.BF16, true, 128}, {tensors.F32, false, 128.5}} {
		s := &gatheredSource{rows: list[2], parts: parts, own: 2, dtype: c.dtype, cols: 1, native: c.native}
		b, err := s.Bytes(int64(at), 1, make([]byte, c.dtype.Size()))
		if err != nil {
			t.Fatal(err)
		}
		x := make([]float64, 1)
		if err := decodeFloat64(x, b, c.dtype); err != nil || x[0] != c.want {
			t.Errorf("%v: the mean is %v, want %v", c, x[0], c.want)
		}
	}
}
