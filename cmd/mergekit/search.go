package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
)

// showTrial tells a trial of a search when it is done.
func showTrial(cmd *cobra.Command, steps *stepView) func(merge.SearchTrial) {
	return func(t merge.SearchTrial) {
		if quietWanted(cmd) {
			return
		}
		steps.end()
		if jsonWanted(cmd) {
			values := map[string]float64{}
			for i, name := range t.Names {
				values[name] = t.Values[i]
			}
			writeJSON(os.Stdout, map[string]any{"event": "trial", "trial": t.Number, "of": t.Of, "values": values, "metric": t.Metric, "outcome": t.Outcome,
				"failed": t.Failed, "known": t.Known, "best": t.Best.Number})
			return
		}
		what := "the recipe as it stands"
		if t.Number > 0 {
			list := make([]string, len(t.Names))
			for i, name := range t.Names {
				list[i] = name + " " + strconv.FormatFloat(t.Values[i], 'g', -1, 64)
			}
			what = strings.Join(list, ", ")
		}
		result := t.Failed
		if t.Outcome != nil {
			result = fmt.Sprintf("%s %s, loss %.4f", t.Metric, merge.MetricText(t.Metric, &t.Trial), t.Outcome.Figures["loss"])
			if t.Metric == "loss" {
				result = "loss " + merge.MetricText(t.Metric, &t.Trial)
			}
		}
		switch {
		case t.Known:
			result += " (known)"
		case t.Number > 0 && t.Best.Number == t.Number:
			result += " (best so far)"
		}
		fmt.Fprintf(os.Stderr, "trial %d of %d: %s: %s\n", t.Number, t.Of, what, result)
	}
}

// printSearch renders what a search found.
func printSearch(r *merge.SearchReport) {
	if r == nil {
		return
	}
	fmt.Printf("  searched by %s, %d trials on %s: %s %s of the recipe, %s of trial %d\n", r.Method, len(r.Trials), strings.Join(r.Data, ", "), r.Metric, r.Figure(&r.Own), r.Figure(&r.Best), r.Best.Number)
	if r.Known > 0 {
		fmt.Printf("  %d trials had been finished before the interruption\n", r.Known)
	}
	names, values := r.Values(&r.Best)
	for i, name := range names {
		fmt.Printf("  %s: %s\n", name, strconv.FormatFloat(values[i], 'g', -1, 64))
	}
	for _, note := range r.Notes {
		fmt.Printf("  %s\n", note)
	}
}

// searchPlanText says what is searched.
func searchPlanText(p *plan.Plan) []string {
	s := p.Recipe.Search
	if s == nil {
		return nil
	}
	lines := []string{fmt.Sprintf("%s merges and measures %d times, %d at once, to find", s.Method, s.Trials, s.Parallel)}
	for _, d := range p.Searched {
		line := fmt.Sprintf("  %s in [%g, %g], from %g on", d.Path, d.Low, d.High, d.Begin)
		if d.Scale != "linear" {
			line += ", on the scale " + d.Scale
		}
		if d.Whole {
			line += ", whole numbers"
		}
		lines = append(lines, line)
	}
	return lines
}
