package evaluation_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/merge/evaluation"
)

// FuzzCache reads files that may hold anything: there is a score or none, and what is read can be written again.
func FuzzCache(f *testing.F) {
	dir := f.TempDir()
	c, err := evaluation.OpenCache(dir)
	if err != nil {
		f.Fatal(err)
	}
	if err := c.Put("key", &evaluation.Score{Task: evaluation.TaskLM, Metric: evaluation.MetricLoss, Value: -2, Rows: 3, Tokens: 9, Loss: 2}); err != nil {
		f.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) != 1 {
		f.Fatal(files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, s := range []string{"", "{}", "[]", `{"key": "key", "sum": "", "score": null}`, `{"value": "NaN", "loss": "-Inf", "rows": 1e99}`, `{"value": "Infinity"}`, `{"value": {"a": []}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(files[0], text, 0o666); err != nil {
			t.Fatal(err)
		}
		c.Get("key")
		var s, again evaluation.Score
		if json.Unmarshal(text, &s) != nil {
			return
		}
		once, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(once, &again); err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice, err := json.Marshal(again); err != nil || string(twice) != string(once) {
			t.Errorf("%s became %s, %v", once, twice, err)
		}
	})
}
