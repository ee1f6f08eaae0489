package main

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/internal/report"
)

// methods compares the ways of matching on the narrowest digits networks: the whole path, and figures of all widths.
func methods(ctx context.Context, j *job) (*section, error) {
	list := []struct {
		name, variant string
		tone          report.Tone
	}{{"as given", "as given", report.Second}, {"weight", "weight", report.First}, {"activation", "activation", report.Third}, {"straight-through", "ste", report.Fourth}}
	t := tasks[0]
	s := &section{figure: &report.Figure{Title: "Ways of matching, on the path between two networks of width 32"},
		alt: "Test loss and error over t for networks as given, and after weight, activation and straight-through matching"}
	loss := report.Panel{Title: "Test loss", X: "t", Y: "loss", Zero: true}
	wrong := report.Panel{Title: "Test error", X: "t", Y: "share of wrong answers", Zero: true}
	table := report.Table{Title: "Ways of matching, " + t.title, Text: 2, Note: "Test loss barrier, accuracy of the midpoint, and the same with repaired activations.",
		Head: []string{"width", "matching", "barrier", "accuracy of the midpoint", "repaired"}}
	for i, w := range widths {
		models := j.networks(t, w, 2)
		r, err := j.barrier(ctx, t, models, "--align", "weight,activation,ste")
		if err != nil {
			return nil, err
		}
		repaired, err := j.barrier(ctx, t, models, "--align", "weight,activation,ste", "--repair", "activations", "--points", "3")
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			p, c, err := path(r, m.variant, "test")
			if err != nil {
				return nil, err
			}
			_, again, err := path(repaired, m.variant, "test")
			if err != nil {
				return nil, err
			}
			if i == 0 {
				loss.Lines = append(loss.Lines, report.Line{Name: m.name, X: p.T, Y: c.Loss, Tone: m.tone})
				wrong.Lines = append(wrong.Lines, report.Line{Name: m.name, X: p.T, Y: c.Error, Tone: m.tone})
			}
			table.Rows = append(table.Rows, []string{fmt.Sprint(w), m.name, four(c.LossBarrier.Chord), percent(1 - *c.ErrorBarrier.Middle), percent(1 - *again.ErrorBarrier.Middle)})
		}
	}
	s.figure.Panels = []report.Panel{loss, wrong}
	s.tables = []report.Table{table}
	return s, nil
}
