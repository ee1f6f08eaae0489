package merge

import (
	"fmt"
	"math"
	"strings"

	"github.com/mergekit/mergekit/merge/evaluation"
)

// Table is the figures of a set: the head, then a row for the merge, for every parent and for the ensemble.
func (e *EvaluatedOn) Table() [][]string {
	lines := []*evaluation.Score{e.Merged}
	names := []string{"the merge"}
	flips := []*evaluation.FlipReport{nil}
	for i := range e.Parents {
		p := &e.Parents[i]
		names, lines, flips = append(names, p.Model), append(lines, p.Score), append(flips, p.Flips)
	}
	if e.Ensemble != nil {
		names, lines, flips = append(names, "ensemble of the parents"), append(lines, e.Ensemble), append(flips, nil)
	}
	classes, tokens, flipped := e.Merged.Classes(), e.Merged.Tokens > 0, false
	for _, f := range flips {
		flipped = flipped || f != nil
	}
	head := []string{"model"}
	if classes {
		head = append(head, "accuracy", "macro-F1", "ECE", "Brier")
	}
	head = append(head, "loss")
	if tokens && !classes {
		head = append(head, "perplexity", "token accuracy")
	}
	if flipped {
		head = append(head, "negative flips", "positive flips")
	}
	out := [][]string{head}
	for i, s := range lines {
		row := []string{names[i]}
		if classes {
			row = append(row, figure(s.Accuracy), figure(s.MacroF1), figure(s.ECE), figure(s.Brier))
		}
		row = append(row, figure(s.Loss))
		if tokens && !classes {
			row = append(row, figure(s.Perplexity), figure(s.Accuracy))
		}
		if f := flips[i]; f != nil {
			row = append(row, flipText(f.Negative, f.NegativeRate), flipText(f.Positive, f.PositiveRate))
		} else if flipped {
			row = append(row, "–", "–")
		}
		out = append(out, row)
	}
	return out
}

// Heading names a set: which data, how many rows.
func (e *EvaluatedOn) Heading() string {
	rows := "rows"
	if e.Merged.Rows == 1 {
		rows = "row"
	}
	return fmt.Sprintf("%s (%s, %d %s)", e.Set, strings.Join(e.Data, ", "), e.Merged.Rows, rows)
}

// Note is what a temperature changes, "" without one.
func (e *EvaluatedOn) Note() string {
	c := e.Calibration
	if c == nil {
		return ""
	}
	return fmt.Sprintf("temperature %.3f, fitted on held_out: ECE %.4f before, %.4f after; cross-entropy %.4f before, %.4f after", c.Temperature, c.ECEBefore, c.ECEAfter, c.LossBefore, c.LossAfter)
}

func figure(x float64) string {
	switch {
	case math.IsNaN(x):
		return "–"
	case math.Abs(x) >= 1000:
		return fmt.Sprintf("%.4g", x)
	}
	return fmt.Sprintf("%.4f", x)
}

func flipText(n int, rate float64) string { return fmt.Sprintf("%d (%.2f %%)", n, 100*rate) }

// evaluatedText is what a model card says about what was measured.
func evaluatedText(e *Evaluated) string {
	var b strings.Builder
	for i, set := range e.Sets() {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "On %s:\n\n", set.Heading())
		for k, row := range set.Table() {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
			if k == 0 {
				b.WriteString("|" + strings.Repeat(" --- |", len(row)) + "\n")
			}
		}
		if note := set.Note(); note != "" {
			fmt.Fprintf(&b, "\n%s.\n", strings.ToUpper(note[:1])+note[1:])
		}
	}
	return strings.TrimRight(b.String(), "\n")
}
