package main

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/internal/report"
)

// way is a way of bringing networks together, and the name that the program has for it.
type way struct {
	name, variant string
	tone          report.Tone
}

var given = way{"as given", "as given", report.Second}

// spread is a mean with the range that it comes from.
type spread struct{ sum, low, high, n float64 }

func (s *spread) add(x float64) {
	if s.n == 0 {
		s.low, s.high = x, x
	}
	s.sum, s.low, s.high, s.n = s.sum+x, min(s.low, x), max(s.high, x), s.n+1
}

func (s *spread) mean() float64 { return s.sum / s.n }

// pairsOf are the pairs of networks next to each other in the circle of the five seeds.
func (j *job) pairsOf(t task, width int) (list [][]string) {
	const seeds = 5
	for s := range seeds {
		list = append(list, []string{j.network(t, width, s+1), j.network(t, width, (s+1)%seeds+1)})
	}
	return list
}

// middles are the barrier of pairs and the accuracy in their middles, for every way of matching.
type middles struct{ barrier, ends, middle, repaired spread }

// measurePairs measures all pairs of a width.
func (j *job) measurePairs(ctx context.Context, t task, width int, ways []way, methods string) ([]middles, error) {
	out := make([]middles, len(ways))
	for _, pair := range j.pairsOf(t, width) {
		plain, err := j.barrier(ctx, t, pair, "--align", methods)
		if err != nil {
			return nil, err
		}
		repaired, err := j.barrier(ctx, t, pair, "--align", methods, "--repair", "activations", "--points", "3")
		if err != nil {
			return nil, err
		}
		for i, w := range ways {
			_, c, err := path(plain, w.variant, "test")
			if err != nil {
				return nil, err
			}
			_, r, err := path(repaired, w.variant, "test")
			if err != nil {
				return nil, err
			}
			m := &out[i]
			m.barrier.add(c.LossBarrier.Chord)
			m.ends.add(1 - (c.ErrorBarrier.Start+c.ErrorBarrier.End)/2)
			m.middle.add(1 - *c.ErrorBarrier.Middle)
			m.repaired.add(1 - *r.ErrorBarrier.Middle)
		}
	}
	return out, nil
}

// pairTable is the table of measured pairs.
func pairTable(title string) report.Table {
	return report.Table{Title: title, Text: 2, Note: "Means over five pairs of networks: test loss barrier, with the lowest and the highest; test accuracy of the networks, of the midpoint, and of the midpoint with repaired activations (on training images).",
		Head: []string{"width", "alignment", "barrier", "from", "to", "accuracy of the networks", "of the midpoint", "repaired"}}
}

func (m *middles) row(width int, name string) []string {
	return []string{fmt.Sprint(width), name, number(m.barrier.mean()), number(m.barrier.low), number(m.barrier.high), percent(m.ends.mean()), percent(m.middle.mean()), percent(m.repaired.mean())}
}

// width shows the barrier between networks against their width, with and without matching and repair.
func width(ctx context.Context, j *job) (*section, error) {
	s := &section{figure: &report.Figure{Title: "Loss barrier on the test set against the width of the layers, means over five pairs"},
		alt: "Bars of the loss barrier for widths 32, 128 and 512: it falls with the width, and matching lowers it at every width"}
	ways := []way{given, {"weight matching", "weight", report.First}, {"activation matching", "activation", report.Third}}
	for _, t := range tasks {
		panel := report.Panel{Title: t.title, X: "width", Y: "barrier", Zero: true}
		table := pairTable("Barrier and width, " + t.title)
		bars := make([][]float64, len(ways))
		for _, w := range widths {
			panel.Names = append(panel.Names, fmt.Sprint(w))
			found, err := j.measurePairs(ctx, t, w, ways, "weight,activation")
			if err != nil {
				return nil, err
			}
			for i := range ways {
				bars[i] = append(bars[i], found[i].barrier.mean())
				table.Rows = append(table.Rows, found[i].row(w, ways[i].name))
			}
		}
		for i, v := range ways {
			panel.Lines = append(panel.Lines, report.Line{Name: v.name, X: report.Over(len(widths)), Y: bars[i], Tone: v.tone, Bars: true})
		}
		s.figure.Panels = append(s.figure.Panels, panel)
		s.tables = append(s.tables, table)
	}
	return s, nil
}
