package calibration_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/model"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// tokens counts those that are no padding.
func tokens(list []model.Input) (n, rows int) {
	for _, in := range list {
		rows += in.Rows
		for _, s := range in.Segments {
			if s != 0 {
				n++
			}
		}
	}
	return n, rows
}

func TestInputs(t *testing.T) {
	ctx := context.Background()
	dir := "../../testdata/golden/forward/llama"
	d, _, err := model.ReadDescription(dir)
	if err != nil {
		t.Fatal(err)
	}
	rows := write(t, "rows.jsonl", `{"input_ids": [1, 2, 3, 4]}
{"input_ids": [5, 6, 7, 8, 9, 10, 11, 12, 13]}
{"input_ids": [1, 2]}
{"input_ids": [4, 3, 2]}
`)
	for _, c := range []struct {
		o            calibration.Options
		tokens, rows int
	}{
		{calibration.Options{Files: []string{rows}}, 18, 4},
		{calibration.Options{Files: []string{rows}, SeqLen: 5}, 14, 4},
		{calibration.Options{Files: []string{rows, rows}, Batch: 3}, 36, 9}, // the last batch is filled up
	} {
		got, err := calibration.Inputs(ctx, dir, d, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if n, rows := tokens(got); n != c.tokens || rows < c.rows-1 {
			t.Errorf("%+v: %d tokens in %d rows", c.o, n, rows)
		}
	}
	seeds := map[uint64][]model.Input{}
	for seed := range uint64(6) {
		for range 2 {
			got, err := calibration.Inputs(ctx, dir, d, calibration.Options{Files: []string{rows}, Samples: 2, Seed: seed})
			if err != nil {
				t.Fatal(err)
			}
			if before, ok := seeds[seed]; ok && !reflect.DeepEqual(before, got) {
				t.Error("the same seed chose other rows")
			}
			seeds[seed] = got
		}
	}
	other := false
	for seed := range seeds {
		other = other || !reflect.DeepEqual(seeds[seed], seeds[0])
	}
	if !other {
		t.Error("every seed chooses the same rows")
	}
	var vocabulary *model.VocabularyError
	if _, err := calibration.Inputs(ctx, dir, d, calibration.Options{Files: []string{write(t, "x.jsonl", `{"input_ids": [1, 99999]}`)}}); !errors.As(err, &vocabulary) {
		t.Errorf("a token outside: %v", err)
	}
	if _, err := calibration.Inputs(ctx, dir, d, calibration.Options{}); err == nil {
		t.Error("no file is no error")
	}
}

// TestText cuts plain text into pieces, and reads another key of rows.
func TestText(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	source := "../../testdata/golden/text/tokenizers/"
	list, err := os.ReadDir(source)
	if err != nil || len(list) == 0 {
		t.Fatal("no tokenizer", err)
	}
	data, err := os.ReadFile(filepath.Join(source, list[0].Name(), "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o666); err != nil {
		t.Fatal(err)
	}
	d, _, err := model.ReadDescription("../../testdata/golden/forward/llama")
	if err != nil {
		t.Fatal(err)
	}
	d.Vocab = 1 << 20
	words := strings.Repeat("func main() { return x + 1 }\n", 40)
	whole, err := calibration.Inputs(ctx, dir, d, calibration.Options{Files: []string{write(t, "a.txt", words)}, SeqLen: 16})
	if err != nil {
		t.Fatal(err)
	}
	row, err := calibration.Inputs(ctx, dir, d, calibration.Options{Files: []string{write(t, "a.jsonl", `{"content": "func main() { return x + 1 }", "text": 3}`)}, SeqLen: 16, Field: "content"})
	if err != nil {
		t.Fatal(err)
	}
	n, rows := tokens(whole)
	k, one := tokens(row)
	if rows < n/16 || n < 40 || one != 1 || k < 2 || k > 16 {
		t.Errorf("%d tokens in %d rows of the text, %d in %d of the row", n, rows, k, one)
	}
	if _, err := calibration.Inputs(ctx, dir, d, calibration.Options{Files: []string{write(t, "a.jsonl", `{"text": "x"}`)}, Field: "content"}); err == nil || !strings.Contains(err.Error(), `"content" is missing`) {
		t.Errorf("another key: %v", err)
	}
}

func TestPlain(t *testing.T) {
	d, err := model.DescribePlain([]byte(`{"model_type": "mlp", "input_shape": [2], "layers": [{"type": "linear", "name": "a", "out": 2}]}`))
	if err != nil {
		t.Fatal(err)
	}
	a, b := write(t, "a.csv", "0,255,1\n51,0,0\n"), write(t, "b.csv", "1,2\n")
	s, err := calibration.Plain(d, calibration.Options{Files: []string{a}, Divide: 255})
	if err != nil || s.N != 2 || s.X[1] != 1 || !s.Labelled {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = calibration.Plain(d, calibration.Options{Files: []string{a, b}}); err != nil || s.N != 3 || s.Labelled || s.Labels.Classes != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err = calibration.Plain(d, calibration.Options{Files: []string{a, b}, Samples: 1}); err != nil || s.N != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	vit, _, err := model.ReadDescription("../../testdata/golden/forward/vit")
	if err != nil {
		t.Fatal(err)
	}
	pixels := write(t, "a.csv", strings.Repeat(strings.Repeat("1,", vit.Image.Pixels()-1)+"2\n", 5))
	got, err := calibration.Inputs(context.Background(), "", vit, calibration.Options{Files: []string{pixels}, Batch: 2})
	if err != nil || len(got) != 3 || got[2].Rows != 1 || len(got[0].Pixels) != 2*vit.Image.Pixels() {
		t.Errorf("%d batches, %v", len(got), err)
	}
}
