package main

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/internal/report"
)

// width shows the barrier between networks of seeds 1 and 2 against their width, with and without matching and repair.
func width(ctx context.Context, j *job) (*section, error) {
	s := &section{figure: &report.Figure{Title: "Loss barrier on the test set against the width of the layers"},
		alt: "Bars of the loss barrier for widths 32, 128 and 512: matching lowers it at every width"}
	variants := []struct {
		name, variant string
		tone          report.Tone
	}{{"as given", "as given", report.Second}, {"weight matching", "weight", report.First}, {"activation matching", "activation", report.Third}}
	for _, t := range tasks {
		panel := report.Panel{Title: t.title, X: "width", Y: "barrier", Zero: true}
		table := report.Table{Title: "Midpoint of two networks, " + t.title, Text: 2,
			Note: "Test loss barrier; test accuracy of both ends and of the midpoint, with and without repair of its activations (on training images).",
			Head: []string{"width", "alignment", "barrier", "accuracy of A", "of B", "of the midpoint", "repaired"}}
		bars := make([][]float64, len(variants))
		for _, w := range widths {
			panel.Names = append(panel.Names, fmt.Sprint(w))
			plain, err := j.barrier(ctx, t, j.networks(t, w, 2), "--align", "weight,activation")
			if err != nil {
				return nil, err
			}
			repaired, err := j.barrier(ctx, t, j.networks(t, w, 2), "--align", "weight,activation", "--repair", "activations", "--points", "3")
			if err != nil {
				return nil, err
			}
			for i, v := range variants {
				_, c, err := path(plain, v.variant, "test")
				if err != nil {
					return nil, err
				}
				_, r, err := path(repaired, v.variant, "test")
				if err != nil {
					return nil, err
				}
				bars[i] = append(bars[i], c.LossBarrier.Chord)
				e := c.ErrorBarrier
				table.Rows = append(table.Rows, []string{fmt.Sprint(w), v.name, four(c.LossBarrier.Chord), percent(1 - e.Start), percent(1 - e.End), percent(1 - *e.Middle), percent(1 - *r.ErrorBarrier.Middle)})
			}
		}
		for i, v := range variants {
			panel.Lines = append(panel.Lines, report.Line{Name: v.name, X: report.Over(len(widths)), Y: bars[i], Tone: v.tone, Bars: true})
		}
		s.figure.Panels = append(s.figure.Panels, panel)
		s.tables = append(s.tables, table)
	}
	return s, nil
}
