package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/graft"
	"github.com/mergekit/mergekit/merge/method"
)

// graftOptions are the flags of the graft command.
type graftOptions struct {
	modelOptions
	graft.Options
	data, heldOut, test []string
	rows                evaluation.Options
}

func newGraftCommand() *cobra.Command {
	var o graftOptions
	cmd := &cobra.Command{
		Use:   "graft BASE TUNED --sparsity 0.01 --data FILE -o GRAFT.safetensors",
		Short: "Find the few entries of a fine-tune that carry its skill",
		Long: `graft looks for a small mask over a task vector that keeps what fine-tuning brought, and writes its entries as a sparse
difference: a file of a few per cent of the model's size or less, which a recipe takes as BASE+FILE, and merge_method: graft as a model.

  --mask magnitude  takes the entries that moved most, over all tensors together; it needs no data
  --mask learned    starts there and learns the mask on --data (Panigrahi et al., 2023); the default where there is data
  --mask l1         starts with five times as many and shrinks the mask by a penalty (He et al., 2024, "Localize-and-Stitch")

The mask has exactly as many entries as --sparsity or --count asks for. Of the masks on the way the one with the best sum of scores on
--data and --held-out is kept; --test is measured at the end and chooses nothing. The table has base, fine-tune and graft on each set: the
score, the calibration error, and the share of the fine-tune's gain that the graft keeps.

Learning holds the model and its gradient on the device, and 8 bytes for each entry that the mask ranges over (12 with --optimizer adam).

EXIT STATUS
  0 done, 1 failed, 2 bad models, data or command line, 3 out of memory, 130 interrupted`,
		Args: exactly(2, "a base and a fine-tune of it"),
		RunE: func(cmd *cobra.Command, args []string) error { return runGraft(cmd, args, &o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.Output, "out", "o", "", "file to write (required)")
	f.Float64Var(&o.Sparsity, "sparsity", 0, "share of the entries that the mask ranges over which the graft keeps: 0.01, down to 0.0001 and less")
	f.Int64Var(&o.Count, "count", 0, "how many entries it keeps, instead of --sparsity")
	f.StringVar(&o.Mask, "mask", "", "magnitude, learned or l1 (default: learned with --data, else magnitude)")
	f.StringVar(&o.Exclude, "exclude", method.DefaultExclude, "tensors that stay the base's, joined by commas: embeddings (with a language model's head), statistics (of batch norms), none, patterns of names")
	f.StringArrayVar(&o.Whole, "whole", nil, "pattern of tensors that are the fine-tune's throughout, such as a new head: 'classifier.*' (may be given several times)")
	f.StringArrayVar(&o.data, "data", nil, "what the mask is learned on (may be given several times)")
	f.StringArrayVar(&o.heldOut, "held-out", nil, "what masks are chosen on, beside --data")
	f.StringArrayVar(&o.test, "test", nil, "what is measured at the end and chooses nothing")
	f.StringVar(&o.rows.Task, "task", "auto", "what rows ask for: auto, lm, choice or classify")
	f.StringVar(&o.rows.Metric, "metric", "auto", "what a score is: auto, loss, accuracy or macro_f1")
	f.StringVar(&o.rows.Data.Field, "field", "", "the key of a row that holds its text (default: by the form of the row)")
	f.IntVar(&o.rows.Data.Samples, "limit", 0, "rows of each set that are used; 0: all")
	f.IntVar(&o.rows.Data.SeqLen, "max-length", 0, "tokens of a row; 0: 512")
	f.IntVar(&o.rows.Data.Batch, "batch", 8, "rows that are computed together")
	f.Float64Var(&o.rows.Data.Divide, "divide", 1, "what the numbers of CSV files are divided by: 255 for the bytes of images")
	f.BoolVar(&o.rows.Data.LabelFirst, "label-first", false, "labels of CSV files stand before the numbers")
	l := &o.Learn
	f.IntVar(&l.Steps, "steps", 100, "steps of learning")
	f.IntVar(&l.Rows, "rows", 64, "rows of a step")
	f.Float64Var(&l.LR, "lr", 0.5, "how far a logit of the mask moves in a step; it starts 10 from undecided (l1: 5)")
	f.StringVar(&l.Optimizer, "optimizer", graft.Momentum, "momentum (all entries have one scale) or adam (each its own)")
	f.Float64Var(&l.Penalty, "l1", 0.5, "with --mask l1: price of an entry, in units of the typical gain")
	f.IntVar(&l.Every, "every", 0, "steps between measurements of the rounded mask (default: a tenth of --steps)")
	f.Uint64Var(&l.Seed, "seed", 0, "of the order of rows")
	f.StringVar(&o.backend, "backend", "auto", "where the model runs: auto, go, xla:cpu, xla:cuda or the path of a PJRT plugin")
	f.IntVar(&o.Threads, "threads", 0, "threads that rank and move entries; 0: all cores")
	f.BoolVar(&o.Force, "force", false, "replace an existing file")
	cmd.AddCommand(newGraftOverlapCommand(), newGraftApplyCommand())
	return cmd
}

func runGraft(cmd *cobra.Command, args []string, o *graftOptions) error {
	if err := required(cmd, "out"); err != nil {
		return err
	}
	measures := len(o.data)+len(o.heldOut)+len(o.test) > 0
	if o.Mask == "" {
		if o.Mask = graft.Learn; len(o.data) == 0 {
			o.Mask = graft.ByMagnitude
		}
	}
	switch {
	case o.Sparsity != 0 && o.Count != 0:
		return usageError{fmt.Errorf("--sparsity and --count say the same; give one of them")}
	case o.Sparsity == 0 && o.Count == 0:
		return usageError{fmt.Errorf("graft needs --sparsity or --count: how small the graft is to be, such as --sparsity 0.01")}
	case !(o.rows.Data.Divide > 0) || o.rows.Data.Samples < 0 || o.rows.Data.SeqLen < 0 || o.rows.Data.Batch < 1:
		return usageError{fmt.Errorf("--limit and --max-length must not be negative, --batch and --divide must be positive")}
	case o.Mask != graft.L1 && cmd.Flags().Changed("l1"):
		return usageError{fmt.Errorf("--l1 belongs to --mask l1")}
	}
	if o.Mask != graft.L1 {
		o.Learn.Penalty = 0
	}
	for i, dir := range []*string{&o.Base, &o.Tuned} {
		m, err := findModel(cmd, args[i], "")
		if err != nil {
			return err
		}
		if m.adapter != "" {
			return usageError{fmt.Errorf("%s: a mask ranges over whole checkpoints; write it with 'mergekit fuse' first", args[i])}
		}
		*dir = m.dir
	}
	if _, raw, err := arch.ReadConfigFile(o.Base); err == nil {
		o.Config = raw
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, set := range []struct {
		to    *evaluation.Options
		files []string
	}{{&o.Data, o.data}, {&o.HeldOut, o.heldOut}, {&o.Test, o.test}} {
		*set.to = o.rows
		set.to.Data.Files = set.files
	}
	if measures {
		s, err := o.open(cmd)
		if err != nil {
			return err
		}
		defer s.close()
		o.Backend = s.backend
	}
	view := newStepView(cmd)
	o.Progress = view.show
	r, err := graft.Make(cmd.Context(), o.Options)
	view.end()
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, struct {
			Event string `json:"event"`
			*graft.Result
		}{"graft", r})
		return nil
	}
	if !quietWanted(cmd) {
		showGraft(r)
	}
	return nil
}

// showGraft prints what a graft is and what it keeps.
func showGraft(r *graft.Result) {
	fmt.Printf("%s: %s of %s entries (%s of the model), %s, in %.1f s\n", r.Output, count(r.Entries), count(r.Space), percent(r.Share), bytesText(r.Bytes), r.Seconds)
	fmt.Printf("  base and fine-tune differ in %s of them\n", count(r.Moved))
	if l := r.Learned; l != nil {
		for _, s := range l.Steps {
			if s.Step == l.Best {
				fmt.Printf("  the mask of step %d of %d; %s of its entries are not among those that moved most\n", l.Best, l.Steps[len(l.Steps)-1].Step, count(s.Changed))
			}
		}
	}
	if len(r.Whole) > 0 {
		fmt.Printf("  taken over whole: %s\n", strings.Join(r.Whole, ", "))
	}
	if len(r.Measured) > 0 {
		fmt.Println()
		table(os.Stdout, gainRows(r.Measured))
	}
	for _, n := range r.Notes {
		fmt.Printf("note: %s\n", n)
	}
}

// gainRows are the rows of the table: base, fine-tune and graft on each set.
func gainRows(sets []graft.Measured) [][]string {
	classes := sets[0].Base.Classes()
	head := []string{"SET", "MODEL", "ROWS", "LOSS"}
	if classes {
		head = append(head, "ACCURACY", "ECE")
	}
	rows := [][]string{append(head, "GAIN KEPT")}
	for _, m := range sets {
		for _, x := range []struct {
			name string
			s    *evaluation.Score
		}{{"base", m.Base}, {"fine-tune", m.Tuned}, {"graft", m.Graft}} {
			row := []string{strings.ReplaceAll(m.Set, "_", "-"), x.name, count(int64(x.s.Rows)), fmt.Sprintf("%.4f", x.s.Loss)}
			if classes {
				row = append(row, fmt.Sprintf("%.4f", x.s.Accuracy), fmt.Sprintf("%.4f", x.s.ECE))
			}
			kept := ""
			if x.s == m.Graft {
				if kept = "no gain"; m.Kept != nil {
					kept = fmt.Sprintf("%.1f%%", 100**m.Kept)
				}
			}
			rows = append(rows, append(row, kept))
		}
	}
	return rows
}

func newGraftOverlapCommand() *cobra.Command {
	var page string
	var force bool
	cmd := &cobra.Command{
		Use:   "overlap FILE FILE...",
		Short: "Show how much of their regions grafts share",
		Long: `overlap compares the places that grafts (or any sparse differences of one model) change, whatever they change them to: for each pair
the share of the column's entries that the row has too, |row and column| / |column|, and the Jaccard index |row and column| / |row or column|.
What the share would be by chance stands beside it. Similar tasks share more. --report writes a page with the two as heat maps.

EXIT STATUS
  0 done, 1 failed, 2 bad input`,
		Args: severalFiles(2, "two grafts or more"),
		RunE: func(cmd *cobra.Command, args []string) error { return runGraftOverlap(cmd, args, page, force) },
	}
	cmd.Flags().StringVar(&page, "report", "", "page to write, such as overlap.html")
	cmd.Flags().BoolVar(&force, "force", false, "replace an existing page")
	return cmd
}

func runGraftOverlap(cmd *cobra.Command, paths []string, page string, force bool) error {
	if page != "" {
		if err := merge.CheckReport(page, page, force); err != nil {
			return err
		}
	}
	o, err := graft.CompareFiles(paths)
	if err != nil {
		return err
	}
	if page != "" {
		if err := report.Save(page, overlapPage(o).Page); err != nil {
			return err
		}
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, o)
		return nil
	}
	for k, m := range []struct {
		title  string
		values [][]float64
	}{{"SHARE OF THE COLUMN", o.Of}, {"BY CHANCE", o.Chance}, {"JACCARD", o.Jaccard}} {
		if k > 0 {
			fmt.Println()
		}
		rows := [][]string{append([]string{m.title}, o.Names...)}
		for i, name := range o.Names {
			row := []string{fmt.Sprintf("%s (%s)", name, count(o.Entries[i]))}
			for _, v := range m.values[i] {
				row = append(row, fmt.Sprintf("%.4f", v))
			}
			rows = append(rows, row)
		}
		table(os.Stdout, rows)
	}
	if page != "" && !quietWanted(cmd) {
		fmt.Fprintln(os.Stderr, page)
	}
	return nil
}

// overlapPage draws overlaps as heat maps.
func overlapPage(o *graft.Overlaps) *report.Findings {
	f := &report.Findings{Title: "Overlap of grafts", Lead: fmt.Sprintf("%d grafts, compared by the places that they change.", len(o.Names))}
	heat := func(title, note string, values [][]float64) report.Heat {
		return report.Heat{Title: title, Note: note, Row: "graft", Rows: o.Names, Cols: o.Names, Values: values, Percent: true, Max: 1}
	}
	sizes := report.Table{Title: "Sizes", Head: []string{"graft", "entries"}, Named: true}
	for i, name := range o.Names {
		sizes.Rows = append(sizes.Rows, []string{name, report.Grouped(float64(o.Entries[i]))})
	}
	f.Sections = []report.Section{{Title: "Regions", Heats: []report.Heat{
		heat("Share of the column's entries that the row has", "|row and column| / |column|; similar tasks share more.", o.Of),
		heat("The same by chance", "If the row's places were drawn at random, tensor by tensor.", o.Chance),
		heat("Jaccard index", "|row and column| / |row or column|.", o.Jaccard),
	}, Tables: []report.Table{sizes}}}
	return f
}

func newGraftApplyCommand() *cobra.Command {
	o := sparseFlags{overlap: "mean"}
	cmd := &cobra.Command{
		Use:   "apply BASE GRAFT... -o OUT",
		Short: "Write a base with grafts transplanted as a checkpoint",
		Long: `apply puts the entries of grafts in the place of the base's, bit for bit, and writes the result with the files beside the base. Where
several grafts claim an entry, their differences from the base are averaged, as merge_method: graft does. OUT appears whole or not at all.

A merge needs no such checkpoint: a recipe takes BASE+GRAFT wherever it takes a model.

EXIT STATUS
  0 done, 1 failed, 2 bad input, 130 interrupted`,
		Args: severalFiles(2, "a base and grafts"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSparseApply(cmd, filepath.Clean(args[0]), args[1:], &o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.out, "out", "o", "", "directory to write")
	f.BoolVar(&o.anyBase, "any-base", false, "also grafts that name another base")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
	return cmd
}
