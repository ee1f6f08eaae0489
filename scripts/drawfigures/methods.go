package main

import (
	"context"

	"github.com/mergekit/mergekit/internal/report"
)

// methods compares the ways of matching: the whole path between the first two digits networks of width 32, and figures of all widths.
func methods(ctx context.Context, j *job) (*section, error) {
	ways := []way{given, {"weight", "weight", report.First}, {"activation", "activation", report.Third}, {"straight-through", "ste", report.Fourth}}
	const flags = "weight,activation,ste"
	t := tasks[0]
	s := &section{figure: &report.Figure{Title: "Ways of matching: the path between two networks of width 32 on digits"},
		alt: "Test loss and error over t for networks as given, and after weight, activation and straight-through matching"}
	loss := report.Panel{Title: "Test loss", X: "t", Y: "loss", Zero: true}
	wrong := report.Panel{Title: "Test error", X: "t", Y: "share of wrong answers", Zero: true}
	r, err := j.barrier(ctx, t, j.networks(t, widths[0], 2), "--align", flags)
	if err != nil {
		return nil, err
	}
	for _, w := range ways {
		p, c, err := path(r, w.variant, "test")
		if err != nil {
			return nil, err
		}
		loss.Lines = append(loss.Lines, report.Line{Name: w.name, X: p.T, Y: c.Loss, Tone: w.tone})
		wrong.Lines = append(wrong.Lines, report.Line{Name: w.name, X: p.T, Y: c.Error, Tone: w.tone})
	}
	table := pairTable("Ways of matching, " + t.title)
	for _, w := range widths {
		found, err := j.measurePairs(ctx, t, w, ways, flags)
		if err != nil {
			return nil, err
		}
		for i := range ways {
			table.Rows = append(table.Rows, found[i].row(w, ways[i].name))
		}
	}
	s.figure.Panels = []report.Panel{loss, wrong}
	s.tables = []report.Table{table}
	return s, nil
}
