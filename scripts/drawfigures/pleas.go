package main

import (
	"context"
	"fmt"
	"os"

	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// budgets are the sizes that PLeaS is measured at, over that of one network.
var budgets = []float64{1, 1.2, 1.4, 1.6, 1.8, 2}

// Recipes' blocks.
const (
	matched  = "align: {on_same_base: force}"
	repaired = "repair: {mode: activations, samples: 2048}"
)

// calibrated is the block of a set of images.
func (j *job) calibrated(t task) string {
	return fmt.Sprintf("calibration: {data: %q, samples: 2048}", j.data(t, "train"))
}

// squares is the recipe of PLeaS at a size.
func squares(pair []string, budget float64, inputs string, blocks ...string) string {
	return recipe("pleas", pair, append([]string{fmt.Sprintf("parameters: {budget: %g, least_squares: {inputs: %s}}", budget, inputs)}, blocks...)...)
}

// merging is a way of making one network out of two.
type merging struct {
	name  string
	tone  report.Tone
	bars  bool // in the drawing of what has the size of one network
	merge func(pair []string) string
}

// mergings of a set, at the size of one network.
func (j *job) mergings(t task) []merging {
	data := j.calibrated(t)
	return []merging{
		{"average", report.Second, true, func(p []string) string { return recipe("linear", p) }},
		{"average, repaired", report.Faint, false, func(p []string) string { return recipe("linear", p, repaired, data) }},
		{"RegMean", report.Faint, false, func(p []string) string { return recipe("regmean", p, data) }},
		{"matched", report.Faint, true, func(p []string) string { return recipe("linear", p, matched) }},
		{"matched, RegMean", report.Faint, false, func(p []string) string { return recipe("regmean", p, matched, data) }},
		{"matched, repaired", report.Third, true, func(p []string) string { return recipe("linear", p, matched, repaired, data) }},
	}
}

// pleas shows what partial matching with least squares reaches at sizes from one network to two, beside what else makes one network of
// two, and beside the ensemble.
func pleas(ctx context.Context, j *job) (*section, error) {
	s := &section{figure: &report.Figure{Title: "One network out of two: test accuracy, means over five pairs"},
		alt: "Test accuracy of averages, of matched and repaired ones, of PLeaS at sizes from 1 to 2, and of the ensemble, on digits and MNIST"}
	narrow := widths[:2]
	bars := report.Panel{Title: "Size 1, and the ensemble", X: "width", Y: "accuracy", Zero: true}
	sizes := report.Panel{Title: "PLeaS by size; dashed: the ensemble", X: "size", Y: "accuracy"}
	heights := make(map[string][]float64)
	for at, t := range tasks {
		table := report.Table{Title: "One network out of two, " + t.title, Note: "Test accuracy, means over five pairs, with the lowest and the highest. Size is the cost of an example over that of one network.", Head: []string{"", "size"}}
		rows := make(map[string][]string)
		var order []string
		tell := func(name, size string, v *spread) {
			if rows[name] == nil {
				order = append(order, name)
				rows[name] = []string{name, size}
			}
			rows[name] = append(rows[name], percent(v.mean()), percent(v.low), percent(v.high))
		}
		for i, w := range narrow {
			table.Head = append(table.Head, fmt.Sprintf("width %d", w), "from", "to")
			tone := report.Tone(at*len(narrow) + i)
			bars.Names = append(bars.Names, fmt.Sprintf("%s %d", t.name, w))
			ends, err := j.overPairs(t, w, func(pair []string) (float64, error) {
				a, err := j.score(ctx, pair[0], j.data(t, "test"))
				if err != nil {
					return 0, err
				}
				b, err := j.score(ctx, pair[1], j.data(t, "test"))
				if err != nil {
					return 0, err
				}
				return (a.Class.Accuracy + b.Class.Accuracy) / 2, nil
			})
			if err != nil {
				return nil, err
			}
			tell("the networks", "1", ends)
			for _, m := range j.mergings(t) {
				v, err := j.accuracies(ctx, t, w, m.merge)
				if err != nil {
					return nil, err
				}
				tell(m.name, "1", v)
				heights[m.name] = append(heights[m.name], v.mean())
			}
			for _, inputs := range []string{"merged", "original"} {
				var line []float64
				name := "PLeaS"
				if inputs == "original" {
					name = "PLeaS, own inputs"
				}
				for _, budget := range budgets {
					v, err := j.accuracies(ctx, t, w, func(pair []string) string { return squares(pair, budget, inputs, matched, j.calibrated(t)) })
					if err != nil {
						return nil, err
					}
					tell(fmt.Sprintf("%s, %g", name, budget), fmt.Sprintf("%g", budget), v)
					line = append(line, v.mean())
				}
				heights[name] = append(heights[name], line[0])
				if inputs == "merged" {
					sizes.Lines = append(sizes.Lines, report.Line{Name: fmt.Sprintf("%s, width %d", t.name, w), X: budgets, Y: line, Tone: tone, Dots: true})
				}
			}
			both, err := j.overPairs(t, w, func(pair []string) (float64, error) { return j.ensemble(ctx, t, pair) })
			if err != nil {
				return nil, err
			}
			tell("ensemble (mean of logits)", "2", both)
			sizes.Lines = append(sizes.Lines, report.Line{X: []float64{1, 2}, Y: []float64{both.mean(), both.mean()}, Tone: tone, Dashed: true})
			heights["ensemble"] = append(heights["ensemble"], both.mean())
		}
		for _, name := range order {
			table.Rows = append(table.Rows, rows[name])
		}
		s.tables = append(s.tables, table)
	}
	for _, m := range append(j.mergings(tasks[0]), merging{name: "PLeaS", tone: report.First, bars: true}, merging{name: "ensemble", tone: report.Fourth, bars: true}) {
		if m.bars {
			bars.Lines = append(bars.Lines, report.Line{Name: m.name, X: report.Over(len(bars.Names)), Y: heights[m.name], Tone: m.tone, Bars: true})
		}
	}
	s.figure.Panels = []report.Panel{bars, sizes}
	return s, nil
}

// overPairs takes the mean of a measurement over the pairs of a width.
func (j *job) overPairs(t task, width int, measure func(pair []string) (float64, error)) (*spread, error) {
	out := new(spread)
	for _, pair := range j.pairsOf(t, width) {
		x, err := measure(pair)
		if err != nil {
			return nil, err
		}
		out.add(x)
	}
	return out, nil
}

// accuracies are those of the merges of all pairs.
func (j *job) accuracies(ctx context.Context, t task, width int, merge func(pair []string) string) (*spread, error) {
	return j.overPairs(t, width, func(pair []string) (float64, error) {
		v, err := j.scored(ctx, merge(pair), j.data(t, "test"))
		if err != nil {
			return 0, err
		}
		return v.Class.Accuracy, nil
	})
}

// ensemble is the accuracy of the mean of two networks' logits.
func (j *job) ensemble(ctx context.Context, t task, pair []string) (float64, error) {
	var sum []float32
	for _, dir := range pair {
		one, err := j.logits(ctx, dir, j.data(t, "test"))
		if err != nil {
			return 0, err
		}
		if sum == nil {
			sum = make([]float32, len(one))
		}
		for i, x := range one {
			sum[i] += x
		}
	}
	d, err := model.ReadPlainDescription(pair[0])
	if err != nil {
		return 0, err
	}
	_, n, labels, err := model.ReadExamples(j.data(t, "test"), d)
	if err != nil {
		return 0, err
	}
	classes, right := len(sum)/n, 0
	for i, label := range labels.Classes {
		best := 0
		for c, x := range sum[i*classes : (i+1)*classes] {
			if x > sum[i*classes+best] {
				best = c
			}
		}
		if best == int(label) {
			right++
		}
	}
	return float64(right) / float64(n), nil
}

// logits are what a network computes on a set.
func (j *job) logits(ctx context.Context, dir, data string) ([]float32, error) {
	path := j.hashed("logits", dir, data) + ".safetensors"
	if _, err := os.Stat(path); err != nil {
		if err := j.call(ctx, nil, "logits", dir, "--input", data, "-o", path, "--quiet", "--backend", j.backend); err != nil {
			return nil, err
		}
	}
	c, err := tensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	v, err := c.View("output")
	if err != nil {
		return nil, err
	}
	out := make([]float32, v.Elems())
	return out, tensors.DecodeFloat32(out, v.Data, v.DType)
}
