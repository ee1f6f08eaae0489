package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align/match"
)

func newAncestryCommand() *cobra.Command {
	var o analyzeOptions
	cmd := &cobra.Command{
		Use:   "ancestry A B",
		Short: "Say whether two models have a common origin, whatever the order and direction of their features",
		Long: `analyze ancestry brings B into A's coordinates as 'mergekit align' does, in memory, and says whether the two are copies of each other, come
from each other or from one base, or were trained apart. Units, heads and the residual stream of a derived model may have been permuted,
rescaled or turned. The verdict compares the agreement that matching finds with what it finds in the same tensors, shuffled: the score is
0 for models without anything in common and 1 for copies.

With -o the folder gets ancestry.json, ancestry.png, ancestry.svg and ancestry.html.

EXIT STATUS
  0 done, whatever the verdict, 1 failed, 2 bad models or command line, 130 interrupted`,
		Args: exactly(2, "two checkpoints"),
		RunE: func(cmd *cobra.Command, args []string) error { return runAncestry(cmd, args[0], args[1], &o) },
	}
	o.find.settings(cmd)
	f := cmd.Flags()
	f.Lookup("symmetry").DefValue, o.find.Symmetry = "full", "full"
	f.StringVar(&o.backend, "backend", "auto", "where products are computed: auto, go, xla:cpu, xla:cuda or the path of a PJRT plugin")
	f.IntVar(&o.threads, "threads", 0, "worker threads; 0: all cores")
	f.StringVarP(&o.out, "output", "o", "", "folder for the table, the drawings and the page")
	return cmd
}

// ancestryTensor is a tensor of the verdict.
type ancestryTensor struct {
	Name     string  `json:"name"`
	Before   float64 `json:"cosine_before"`
	After    float64 `json:"cosine_after"`
	Distance float64 `json:"distance"`
}

// ancestryJSON is the verdict as it is written.
type ancestryJSON struct {
	Event    string           `json:"event"`
	A        string           `json:"a"`
	B        string           `json:"b"`
	Relation match.Relation   `json:"relation"`
	Text     string           `json:"verdict"`
	Score    float64          `json:"score"`
	Median   float64          `json:"agreement"`
	Null     float64          `json:"agreement_of_shuffled"`
	Distance float64          `json:"distance"`
	Moved    float64          `json:"moved"`
	Close    bool             `json:"close_as_given"` // no alignment was needed
	Tensors  []ancestryTensor `json:"tensors"`
	Version  string           `json:"version"`
}

func runAncestry(cmd *cobra.Command, a, b string, o *analyzeOptions) error {
	if err := o.find.check(); err != nil {
		return usageError{err}
	}
	if o.threads < 0 {
		return usageError{fmt.Errorf("--threads must not be negative")}
	}
	be, _, err := backend.Open(o.backend)
	if err != nil {
		return usageError{err}
	}
	defer be.Finalize()
	how := o.find.Align
	how.Seed, how.Groups.Residual = o.find.alignSeed, o.find.residual
	if how.Spec == "auto" {
		how.Spec = ""
	}
	var ao merge.AlignOptions
	ao.Backend, ao.Threads, ao.Verify, ao.Version = be, o.threads, o.find.verify, version
	steps := newStepView(cmd)
	ao.Matching = steps.show
	ao.Warn = func(s string) { steps.end(); warn(cmd, s) }
	found, err := merge.Ancestry(cmd.Context(), a, b, &how, ao)
	steps.end()
	if err != nil {
		return err
	}
	v := &found.Ancestry
	r := &ancestryJSON{Event: "ancestry", A: shortName(a), B: shortName(b), Relation: v.Relation, Text: merge.AncestryText(*v), Score: v.Score, Median: v.Median, Null: v.Null,
		Distance: v.Distance, Moved: found.Moved, Close: found.Pointless, Version: version}
	for _, t := range v.Tensors {
		r.Tensors = append(r.Tensors, ancestryTensor{t.Name, t.Before, t.After, t.Distance})
	}
	return renderAncestry(cmd, r, o.out)
}

func renderAncestry(cmd *cobra.Command, r *ancestryJSON, out string) error {
	findings := r.findings()
	if out != "" {
		if err := findings.SaveAll(out, "ancestry"); err != nil {
			return err
		}
		if err := saveJSON(filepath.Join(out, "ancestry.json"), r); err != nil {
			return err
		}
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, r)
		return nil
	}
	fmt.Printf("%s and %s: %s\n", r.A, r.B, r.Text)
	printTable(&findings.Tables[0])
	if out != "" && !quietWanted(cmd) {
		fmt.Fprintf(os.Stderr, "%s\n", filepath.Join(out, "ancestry.html"))
	}
	return nil
}

// findings is the page.
func (r *ancestryJSON) findings() *report.Findings {
	number := func(x float64) string { return fmt.Sprintf("%.4f", x) }
	summary := report.Table{Title: "Verdict", Note: "The agreement is the median cosine of aligned matrices.", Head: []string{"relation", "score", "agreement", "of shuffled", "distance", "moved"},
		Rows: [][]string{{string(r.Relation), number(r.Score), number(r.Median), number(r.Null), fmt.Sprintf("%.2e", r.Distance), fmt.Sprintf("%.1f%%", 100*r.Moved)}}}
	tensors := report.Table{Title: "Tensors", Head: []string{"tensor", "cosine before", "after", "distance"}}
	var names []string
	var before, after []float64
	for _, t := range r.Tensors {
		tensors.Rows = append(tensors.Rows, []string{t.Name, number(t.Before), number(t.After), fmt.Sprintf("%.2e", t.Distance)})
		names = append(names, strings.TrimPrefix(strings.TrimSuffix(t.Name, ".weight"), "model."))
		before, after = append(before, t.Before), append(after, t.After)
	}
	x := report.Over(len(names))
	few := len(names) <= 40
	panel := report.Panel{Title: "Agreement of tensors", X: "tensor", Y: "cosine", Names: names, Lines: []report.Line{
		{Name: "as given", X: x, Y: before, Tone: report.Second, Dots: few}, {Name: "aligned", X: x, Y: after, Tone: report.First, Dots: few},
		{Name: "median of shuffled tensors", X: x, Y: repeated(r.Null, len(names)), Tone: report.Third, Dashed: true}}}
	return &report.Findings{Title: "Ancestry of " + r.A + " and " + r.B, Lead: r.A + " and " + r.B + ": " + r.Text + ".",
		Figures: []report.Figure{{Title: "Agreement of " + r.A + " and " + r.B, Panels: []report.Panel{panel}}}, Tables: []report.Table{summary, tensors},
		Settings: []report.Pair{{Name: "mergekit", Value: r.Version}}}
}

func repeated(x float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = x
	}
	return out
}
