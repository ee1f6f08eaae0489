package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge/graft"
)

// grafts lists what scripts/graft-study has measured by 'mergekit graft --json', a file for each graft.
func grafts(s *study) (map[string][]report.Table, error) {
	table := report.Table{Title: "Grafts of SmolLM2-135M", Note: "Test rows, which chose nothing. Gain kept: of the fine-tune's accuracy over the base's.", Text: 2,
		Head: []string{"share of the model", "mask", "entries", "file", "accuracy", "gain kept", "loss", "ECE"}}
	for _, name := range []string{"magnitude-0.001", "magnitude-0.01", "learned-0.01"} {
		text, err := os.ReadFile(filepath.Join(s.from, name+".json"))
		if err != nil {
			return nil, err
		}
		var r graft.Result
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		m := r.Measured[len(r.Measured)-1]
		if m.Set != "test" || m.Kept == nil {
			return nil, fmt.Errorf("%s: has no gain on test rows", name)
		}
		if len(table.Rows) == 0 {
			for _, end := range []struct {
				title string
				of    int
			}{{"base", 0}, {"fine-tune", 1}} {
				score, kept, entries := m.Base, "0%", "–"
				if end.of == 1 {
					score, kept, entries = m.Tuned, "100%", fmt.Sprint(r.Moved)
				}
				table.Rows = append(table.Rows, []string{end.title, "", entries, "–", percent(score.Accuracy), kept, fmt.Sprintf("%.3f", score.Loss), fmt.Sprintf("%.3f", score.ECE)})
			}
		}
		table.Rows = append(table.Rows, []string{fmt.Sprintf("%.3g%%", 100*r.Share), r.Mask, fmt.Sprint(r.Entries), fmt.Sprintf("%.1f MB", float64(r.Bytes)/1e6),
			percent(m.Graft.Accuracy), fmt.Sprintf("%.0f%%", 100**m.Kept), fmt.Sprintf("%.3f", m.Graft.Loss), fmt.Sprintf("%.3f", m.Graft.ECE)})
	}
	return map[string][]report.Table{"grafts": {table}}, nil
}
