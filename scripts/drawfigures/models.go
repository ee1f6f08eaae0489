package main

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge/connect"
)

// manyModels shows the mean of two to five networks, aligned to the first one or to a consensus.
func manyModels(ctx context.Context, j *job) (*section, error) {
	s := &section{figure: &report.Figure{Title: "The mean of several networks of width 512, on the test set"},
		alt: "Rise of the loss of the mean of two to five networks: as given, aligned to the first, and aligned to a consensus"}
	variants := []struct {
		name, variant string
		flags         []string
		tone          report.Tone
	}{
		{"as given", "as given", nil, report.Second},
		{"to the first", "weight", []string{"--align", "weight"}, report.First},
		{"to a consensus", "weight", []string{"--align", "weight", "--universe"}, report.Third},
	}
	const w, most = 512, 5
	for _, t := range tasks {
		panel := report.Panel{Title: t.title, X: "networks", Y: "rise of the loss", Zero: true}
		table := report.Table{Title: "The mean of several networks, " + t.title, Text: 2, Note: "Rise of the test loss of the mean above the mean of the losses, the largest barrier between two of the networks, and the test accuracy of the mean.",
			Head: []string{"networks", "alignment", "rise of the loss", "largest barrier of a pair", "accuracy of the mean"}}
		rises := make([][]float64, len(variants))
		for n := 2; n <= most; n++ {
			panel.Names = append(panel.Names, fmt.Sprint(n))
			for i, v := range variants {
				r, err := j.barrier(ctx, t, j.networks(t, w, n), append([]string{"--points", "5", "--samples", "16"}, v.flags...)...)
				if err != nil {
					return nil, err
				}
				rise, worst, wrong, err := mean(r, v.variant, "test")
				if err != nil {
					return nil, err
				}
				rises[i] = append(rises[i], rise)
				table.Rows = append(table.Rows, []string{fmt.Sprint(n), v.name, number(rise), number(worst), percent(1 - wrong)})
			}
		}
		for i, v := range variants {
			panel.Lines = append(panel.Lines, report.Line{Name: v.name, X: report.Over(most - 1), Y: rises[i], Tone: v.tone, Bars: true})
		}
		s.figure.Panels = append(s.figure.Panels, panel)
		s.tables = append(s.tables, table)
	}
	return s, nil
}

// mean is what the mean of all models measures: of two it is the middle of their path.
func mean(r *connect.Report, variant, set string) (rise, worst, wrong float64, err error) {
	for _, v := range r.Variants {
		if v.Name != variant {
			continue
		}
		for _, p := range v.Paths {
			for _, c := range p.Curves {
				if c.Set == set {
					worst = max(worst, c.LossBarrier.Chord)
					rise, wrong = *c.LossBarrier.Middle-(c.LossBarrier.Start+c.LossBarrier.End)/2, *c.ErrorBarrier.Middle
				}
			}
		}
		if v.Simplex == nil {
			return rise, worst, wrong, nil
		}
		for _, c := range v.Simplex.Curves {
			if c.Set == set {
				return c.CentroidExcess, worst, *c.CentroidError, nil
			}
		}
	}
	return 0, 0, 0, fmt.Errorf("the measurement has no %s on %s", variant, set)
}
