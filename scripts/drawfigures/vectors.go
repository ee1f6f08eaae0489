package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/mergekit/mergekit/internal/report"
)

// vectors shows how the singular vectors of two networks lie to each other before and after weight matching.
func vectors(ctx context.Context, j *job) (*section, error) {
	s := &section{figure: &report.Figure{Title: "Singular vectors of two networks before and after weight matching"},
		alt: "R of 0.3 by layer for widths 32, 128 and 512, before and after weight matching"}
	tones := []report.Tone{report.First, report.Third, report.Fourth}
	for _, t := range tasks {
		panel := report.Panel{Title: t.title, X: "layer", Y: "R(0.3)"}
		table := report.Table{Title: "Singular vectors, " + t.title, Note: "Over all layers. The energy is the share of what layers read that lies along their large singular vectors, beside what inputs without direction would have.",
			Head: []string{"width", "spectra differ", "R(0) before", "after", "R(0.3) before", "after", "weighted before", "after", "distance after/before", "input energy", "by chance"}}
		for i, w := range widths {
			r, err := j.vectors(ctx, j.network(t, w, 1), j.network(t, w, 2), "--align", "weight", "--data", j.data(t, "test"))
			if err != nil {
				return nil, err
			}
			var before, after []float64
			panel.Names = nil
			for _, l := range r.Layers {
				panel.Names = append(panel.Names, strings.TrimSuffix(l.Tensor, ".weight"))
				before, after = append(before, l.Before.R[1]), append(after, l.After.R[1])
			}
			x := report.Over(len(before))
			panel.Lines = append(panel.Lines, report.Line{Name: fmt.Sprintf("width %d, before", w), X: x, Y: before, Tone: tones[i], Dashed: true, Dots: true},
				report.Line{Name: fmt.Sprintf("width %d, after", w), X: x, Y: after, Tone: tones[i], Dots: true})
			table.Rows = append(table.Rows, []string{fmt.Sprint(w), percent(r.Spectra), number(r.Before.R[0]), number(r.After.R[0]), number(r.Before.R[1]), number(r.After.R[1]),
				number(r.Before.Weighted), number(r.After.Weighted), number(*r.L2Ratio), percent(r.Energy.Share), percent(r.Energy.Chance)})
		}
		s.figure.Panels = append(s.figure.Panels, panel)
		s.tables = append(s.tables, table)
	}
	return s, nil
}
