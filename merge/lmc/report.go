package lmc

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/report"
)

// Report is an analysis with what it is of, as lmc.json has it.
type Report struct {
	A       string `json:"a"`
	B       string `json:"b"`
	Aligned string `json:"aligned,omitempty"` // how B was aligned
	*Analysis
	// Alignment says how B was aligned for it.
	Alignment any    `json:"alignment,omitempty"`
	Version   string `json:"version"`
}

func cell(v float64) string { return fmt.Sprintf("%.4f", v) }

func optional(v *float64) string {
	if v == nil {
		return "–"
	}
	return cell(*v)
}

// Summary is the table over all layers.
func (r *Report) Summary() report.Table {
	t := report.Table{Title: "All layers", Note: "R is 1 where all singular vectors agree and about 0 where none does.", Head: []string{"", "R(0)", "R(0.3)", "weighted", "distance", "ratio"}}
	row := func(name string, a *Alignment, l2 float64, ratio string) {
		t.Rows = append(t.Rows, []string{name, cell(a.R[0]), cell(a.R[1]), cell(a.Weighted), fmt.Sprintf("%.4g", l2), ratio})
	}
	row("before", &r.Before, r.L2Before, "1")
	if r.After != nil {
		row("after", r.After, *r.L2After, optional(r.L2Ratio))
	}
	return t
}

// Table has a row for every layer.
func (r *Report) Table() report.Table {
	t := report.Table{Title: "Layers", Head: []string{"layer", "shape", "values", "spectra differ", "R(0) before", "R(0.3) before", "weighted"}, Text: 2}
	if r.After != nil {
		t.Head = append(t.Head, "R(0) after", "R(0.3) after", "weighted after", "distance after/before")
	}
	energy := r.Energy != nil
	if energy {
		t.Head = append(t.Head, "inputs along large vectors", "by chance")
	}
	for i := range r.Layers {
		l := &r.Layers[i]
		count := fmt.Sprint(min(len(l.A), len(l.B)))
		if !l.Full {
			count = "first " + count
		}
		row := []string{l.Tensor, strings.Trim(fmt.Sprint(l.Shape), "[]"), count, cell(l.Spectra), cell(l.Before.R[0]), cell(l.Before.R[1]), cell(l.Before.Weighted)}
		if l.After != nil {
			row = append(row, cell(l.After.R[0]), cell(l.After.R[1]), cell(l.After.Weighted), cell(ratio(*l.L2After, l.L2Before)))
		}
		switch {
		case l.Energy != nil:
			row = append(row, cell(l.Energy.Share), cell(l.Energy.Chance))
		case energy:
			row = append(row, "–", "–")
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// short drops what all names of layers have in common, and the ending.
func short(name string) string {
	return strings.TrimPrefix(strings.TrimSuffix(name, ".weight"), "model.")
}

// Figure draws R by layer, and singular values.
func (r *Report) Figure() report.Figure {
	var names []string
	for i := range r.Layers {
		names = append(names, short(r.Layers[i].Tensor))
	}
	x := report.Over(len(names))
	aligned := report.Panel{Title: "Alignment of singular vectors", X: "layer", Y: "R", Names: names}
	line := func(name string, tone report.Tone, dashed bool, of func(l *Layer) float64) report.Line {
		y := make([]float64, len(names))
		for i := range r.Layers {
			y[i] = of(&r.Layers[i])
		}
		return report.Line{Name: name, X: x, Y: y, Tone: tone, Dashed: dashed, Dots: len(names) <= 40}
	}
	for g, gamma := range Gammas {
		aligned.Lines = append(aligned.Lines, line(fmt.Sprintf("before, R(%g)", gamma), report.Second, g == 0, func(l *Layer) float64 { return l.Before.R[g] }))
		if r.After != nil {
			aligned.Lines = append(aligned.Lines, line(fmt.Sprintf("after, R(%g)", gamma), report.First, g == 0, func(l *Layer) float64 { return l.After.R[g] }))
		}
	}
	values := report.Panel{Title: "Singular values", X: "number", Y: "value over the largest", Whole: true, Zero: true}
	for k, i := range chosen(len(r.Layers)) {
		l := &r.Layers[i]
		for side, v := range [][]float64{l.A, l.B} {
			y := make([]float64, len(v))
			for j := range v {
				y[j] = v[j] / v[0]
			}
			values.Lines = append(values.Lines, report.Line{Name: short(l.Tensor) + ", " + []string{r.A, r.B}[side], X: report.Over(len(v)), Y: y,
				Tone: []report.Tone{report.First, report.Second, report.Third}[k], Dashed: side == 1})
		}
	}
	return report.Figure{Title: "Singular vectors of " + r.A + " and " + r.B, Panels: []report.Panel{aligned, values}}
}

// chosen are the first, the middle and the last of n layers.
func chosen(n int) []int {
	if n == 0 {
		return nil
	}
	return slices.Compact([]int{0, n / 2, n - 1})
}

// Lead says in a sentence what was found.
func (r *Report) Lead() string {
	text := fmt.Sprintf("The large singular vectors agree by R(0.3) = %.3f", r.Before.R[1])
	if r.After != nil {
		text += fmt.Sprintf(" before and %.3f after alignment; the distance becomes %.2f of what it was", r.After.R[1], *r.L2Ratio)
	}
	return text + fmt.Sprintf(". The singular values differ by %.1f%%.", 100*r.Spectra)
}

// Findings is the page about it.
func (r *Report) Findings() *report.Findings {
	f := &report.Findings{Title: "Singular vectors of " + r.A + " and " + r.B, Lead: r.Lead(), Figures: []report.Figure{r.Figure()}, Tables: []report.Table{r.Summary(), r.Table()}}
	f.Settings = []report.Pair{{Name: "A", Value: r.A}, {Name: "B", Value: r.B}}
	if r.Aligned != "" {
		f.Settings = append(f.Settings, report.Pair{Name: "aligned", Value: r.Aligned})
	}
	f.Settings = append(f.Settings, report.Pair{Name: "distance formula misses by at most", Value: fmt.Sprintf("%.2g", r.Identity)}, report.Pair{Name: "mergekit", Value: r.Version})
	return f
}
