package model_test

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/model"
)

// logSoftmax is the logarithm of the probability of one entry, in float64.
func logSoftmax(row []float32, id int32) float64 {
	top := float64(slices.Max(row))
	var sum float64
	for _, v := range row {
		sum += math.Exp(float64(v) - top)
	}
	return float64(row[id]) - top - math.Log(sum)
}

// TestRows compares logits and probabilities of single positions with those of the full output.
func TestRows(t *testing.T) {
	for backend, b := range backends(t) {
		t.Run(backend, func(t *testing.T) {
			m := load(t, b, goldenForward+"gemma2", model.Options{})
			in, _, _ := readGolden(t, goldenForward+"gemma2")
			batch := in.input()
			all := forward(t, m, batch)
			targets := model.Targets{}
			for r, row := range []int32{0, 20, 21, 30, 35, 7, 7} {
				id := int32(11*r + 3)
				if r%3 == 1 { // the largest
					id = int32(slices.Index(all[row], slices.Max(all[row])))
				}
				targets.Rows, targets.IDs = append(targets.Rows, row), append(targets.IDs, id)
				targets.Weights = append(targets.Weights, 0.5)
			}
			out, err := m.RowLogits(batch, targets.Rows, nil)
			if err != nil {
				t.Fatal(err)
			}
			ids := []int32{95, 0, 7}
			few, err := m.RowLogits(batch, targets.Rows, ids)
			if err != nil {
				t.Fatal(err)
			}
			logs, first, err := m.LogProbs(batch, targets)
			if err != nil {
				t.Fatal(err)
			}
			loss, err := m.Loss(batch, targets, 3)
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Data) != 7*96 || len(few.Data) != 7*3 || len(logs) != 7 {
				t.Fatalf("%v, %v, %d", out.Shape, few.Shape, len(logs))
			}
			var want float64
			for i, row := range targets.Rows {
				full := all[row]
				if !near(out.Data[i*96:][:96], full, 1e-5) {
					t.Errorf("position %d: logits differ", row)
				}
				for k, id := range ids {
					if few.Data[i*3+k] != out.Data[i*96+int(id)] {
						t.Errorf("position %d, token %d: %v, want %v", row, id, few.Data[i*3+k], out.Data[i*96+int(id)])
					}
				}
				p := logSoftmax(full, targets.IDs[i])
				if math.Abs(float64(logs[i])-p) > 1e-4 {
					t.Errorf("position %d: log probability %v, want %v", row, logs[i], p)
				}
				if best := full[targets.IDs[i]] == slices.Max(full); first[i] != best {
					t.Errorf("position %d: is first %v, want %v", row, first[i], best)
				}
				want -= 0.5 * p
			}
			if math.Abs(loss.Loss-want) > 1e-3 || loss.Weight != 3.5 || math.Abs(loss.Perplexity()-math.Exp(want/3.5)) > 1e-2*loss.Perplexity() {
				t.Errorf("loss %+v, want %v", loss, want)
			}
		})
	}
}

func TestRowErrors(t *testing.T) {
	b := backends(t)["go"]
	m := load(t, b, goldenForward+"llama", model.Options{})
	in := model.Input{Rows: 1, Length: 2, IDs: []int32{1, 2}}
	if _, err := m.RowLogits(in, []int32{2}, nil); err == nil || !strings.Contains(err.Error(), "position 2 of a batch of 2") {
		t.Errorf("a position outside: %v", err)
	}
	var vocabulary *model.VocabularyError
	if _, err := m.RowLogits(in, []int32{1}, []int32{96}); !errors.As(err, &vocabulary) {
		t.Errorf("a token outside: %v", err)
	}
	if _, _, err := m.LogProbs(in, model.Targets{Rows: []int32{1}, IDs: []int32{-1}}); !errors.As(err, &vocabulary) {
		t.Errorf("a target outside: %v", err)
	}
	if out, err := m.RowLogits(in, nil, nil); err != nil || len(out.Data) != 0 {
		t.Errorf("no position: %v, %v", out, err)
	}
	bert := load(t, b, goldenForward+"bert", model.Options{})
	if logs, first, err := m.LogProbs(in, model.Targets{}); err != nil || len(logs) != 0 || len(first) != 0 {
		t.Errorf("no target: %v, %v", logs, err)
	}
	if _, err := bert.RowLogits(in, []int32{1}, nil); err == nil {
		t.Error("an encoder has logits of tokens")
	}
}

// TestEmbed compares the ways of pooling with the same sums over the hidden states on the host.
func TestEmbed(t *testing.T) {
	in, hidden, shape := readGolden(t, goldenForward+"bert")
	s, w := shape[1], shape[2]
	// pool combines the states of a text with a weight for each column.
	pool := func(r int, weight func(i, n int) float64) []float32 {
		n := 0
		for _, v := range in.Mask[r] {
			n += int(v)
		}
		out := make([]float64, w)
		for i := range n { // the padding is on the right
			for k := range out {
				out[k] += weight(i, n) * float64(hidden[(r*s+i)*w+k])
			}
		}
		f := make([]float32, w)
		for k := range f {
			f[k] = float32(out[k])
		}
		return f
	}
	largest := func(r int) []float32 {
		out := slices.Repeat([]float32{float32(math.Inf(-1))}, w)
		for i, v := range in.Mask[r] {
			for k := range out {
				if v != 0 {
					out[k] = max(out[k], hidden[(r*s+i)*w+k])
				}
			}
		}
		return out
	}
	unit := func(x []float32) []float32 {
		var sum float64
		for _, v := range x {
			sum += float64(v) * float64(v)
		}
		out := make([]float32, len(x))
		for i := range x {
			out[i] = float32(float64(x[i]) / math.Sqrt(sum))
		}
		return out
	}
	mean := func(r int) []float32 { return pool(r, func(_, n int) float64 { return 1 / float64(n) }) }
	first := func(r int) []float32 {
		return pool(r, func(i, _ int) float64 { return map[bool]float64{true: 1}[i == 0] })
	}
	for backend, b := range backends(t) {
		m := load(t, b, goldenForward+"bert", model.Options{})
		for _, c := range []struct {
			pooling model.Pooling
			want    func(r int) []float32
		}{
			{model.Pooling{Modes: []model.PoolMode{model.PoolMean}}, mean},
			{model.Pooling{Modes: []model.PoolMode{model.PoolMean}, Normalize: true}, func(r int) []float32 { return unit(mean(r)) }},
			{model.Pooling{Modes: []model.PoolMode{model.PoolFirst}}, first},
			{model.Pooling{Modes: []model.PoolMode{model.PoolLast}}, func(r int) []float32 {
				return pool(r, func(i, n int) float64 { return map[bool]float64{true: 1}[i == n-1] })
			}},
			{model.Pooling{Modes: []model.PoolMode{model.PoolMax}}, largest},
			{model.Pooling{Modes: []model.PoolMode{model.PoolMeanSqrt}}, func(r int) []float32 {
				return pool(r, func(_, n int) float64 { return 1 / math.Sqrt(float64(n)) })
			}},
			{model.Pooling{Modes: []model.PoolMode{model.PoolWeighted}}, func(r int) []float32 {
				return pool(r, func(i, n int) float64 { return float64(i+1) / float64(n*(n+1)/2) })
			}},
			{model.Pooling{Modes: []model.PoolMode{model.PoolFirst, model.PoolMean}}, func(r int) []float32 { return slices.Concat(first(r), mean(r)) }},
		} {
			if backend != "go" && !c.pooling.Normalize && len(c.pooling.Modes) == 1 && c.pooling.Modes[0] != model.PoolMax {
				continue // each is compiled, and their graphs differ in a line
			}
			out, err := m.Embed(in.input(), &c.pooling)
			if err != nil {
				t.Fatal(err)
			}
			for r, got := range rowsOf(out) {
				if want := c.want(r); !near(got, want, 1e-4) {
					t.Errorf("%s, %v, text %d: %v, want %v", backend, c.pooling, r, got[:4], want[:4])
				}
			}
		}
	}
}

func TestReadPooling(t *testing.T) {
	write := func(files map[string]string) string {
		dir := t.TempDir()
		for name, text := range files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	const transformer, pooling, normalize = `{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}`,
		`{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}`, `{"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}`
	mean := `{"word_embedding_dimension": 384, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}`
	miniLM := write(map[string]string{"modules.json": "[" + transformer + "," + pooling + "," + normalize + "]", "1_Pooling/config.json": mean, "sentence_bert_config.json": `{"max_seq_length": 256, "do_lower_case": false}`})
	inFolder := write(map[string]string{"modules.json": "[" + strings.Replace(transformer, `"path": ""`, `"path": "0_Transformer"`, 1) + "," + pooling + "]",
		"1_Pooling/config.json": `{"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true}`, "0_Transformer/sentence_bert_config.json": `{"do_lower_case": true}`})
	none := t.TempDir()
	for dir, want := range map[string]*model.Pooling{
		miniLM:   {Modes: []model.PoolMode{model.PoolMean}, Normalize: true, MaxLength: 256, Model: miniLM},
		inFolder: {Modes: []model.PoolMode{model.PoolFirst, model.PoolMax}, LowerCase: true, Model: filepath.Join(inFolder, "0_Transformer")},
		none:     {Modes: []model.PoolMode{model.PoolMean}, Model: none},
	} {
		if got, err := model.ReadPooling(dir); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	for want, files := range map[string]map[string]string{
		"cannot be read":                   {"modules.json": "{"},
		`"a.Dense" cannot be computed`:     {"modules.json": `[{"type": "a.Dense"}]`},
		"leads out of the checkpoint":      {"modules.json": `[{"type": "a.Transformer", "path": "../x"}]`},
		"is missing; modules.json":         {"modules.json": "[" + pooling + "]"},
		"switches no way of pooling on":    {"modules.json": "[" + pooling + "]", "1_Pooling/config.json": "{}"},
		`"max_seq_length" must be positiv`: {"modules.json": "[" + transformer + "]", "sentence_bert_config.json": `{"max_seq_length": 0}`},
	} {
		var config *model.ConfigError
		if _, err := model.ReadPooling(write(files)); !errors.As(err, &config) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", files, err, want)
		}
	}
}

// TestScoreClasses has a case worked out by hand: classes a (3 rows), b (2), c (1); c is never chosen, d only wrongly.
func TestScoreClasses(t *testing.T) {
	s := model.ScoreClasses([]int{0, 0, 0, 1, 1, 2}, []int{0, 0, 1, 1, 3, 1})
	// a: precision 1, recall 2/3, F1 .8; b: precision 1/3, recall 1/2, F1 .4; c and d: 0.
	want := model.ClassScore{Rows: 6, Accuracy: 0.5, MacroF1: 0.3, Majority: 0.5}
	if math.Abs(s.Accuracy-want.Accuracy)+math.Abs(s.MacroF1-want.MacroF1)+math.Abs(s.Majority-want.Majority) > 1e-12 || s.Rows != 6 {
		t.Errorf("%+v, want %+v", s, want)
	}
	if s := model.ScoreClasses(nil, nil); s != (model.ClassScore{}) {
		t.Errorf("of nothing: %+v", s)
	}
}
