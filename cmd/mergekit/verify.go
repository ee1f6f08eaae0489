package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/progress"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/moe"
	"github.com/mergekit/mergekit/merge/provenance"
	"github.com/mergekit/mergekit/merge/recipe"
)

func newVerifyCommand() *cobra.Command {
	var o merge.VerifyOptions
	var choice string
	var threads int
	cmd := &cobra.Command{
		Use:   "verify OUT",
		Short: "Check an output against the record of how it was made",
		Long: `verify compares the files of OUT with mergekit_provenance.json, which a merge or mixture leaves there, and opens the checkpoint. Weights are compared
by their SHA-256 where --hash recorded it, else by header and size. A file that was added and that programs read when they open
the model (weights, code, settings) is a difference; any other is listed. --inputs compares the files that the recipe reads as well.
--reproduce merges (or assembles) again, in a hidden directory beside OUT that is removed afterwards, and compares every byte.

The recipe in OUT has paths as they were written; --from says where relative ones start, --recipe names the recipe's own file.

EXIT STATUS
  0 everything is as recorded, 1 something differs, 2 no record, another recipe or a bad command line, 130 interrupted`,
		Args: exactly(1, "an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if threads < 0 {
				return usageError{fmt.Errorf("--threads %d: give a positive number, or 0 for all cores", threads)}
			}
			o.Merge.Threads, o.Merge.Version = threads, version
			return runVerify(cmd, args[0], choice, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Inputs, "inputs", false, "check that the inputs are those that were read")
	f.BoolVar(&o.Reproduce, "reproduce", false, "check that the recipe gives the same bytes again")
	f.StringVar(&o.Recipe, "recipe", "", "the recipe's file (default: the one in OUT)")
	f.StringVar(&o.From, "from", "", "the directory where the recipe's relative paths start (default: that of --recipe, else the working directory)")
	f.StringVar(&choice, "backend", "auto", "with --reproduce: where graphs run; it must be of the kind that made OUT")
	f.IntVar(&threads, "threads", 0, "with --reproduce: worker threads; 0: all cores")
	return cmd
}

// errDiffers says that an output is not what its record says; what differs has been listed.
var errDiffers = errors.New("the output is not what its record says")

func runVerify(cmd *cobra.Command, dir, choice string, o merge.VerifyOptions) error {
	var bar *progress.Progress
	show := func(what string) func(int64) {
		return func(total int64) { bar.Done(); bar = newProgress(cmd, total, what) }
	}
	if o.Inputs || o.Reproduce {
		b, _, err := backend.Open(choice)
		if err != nil {
			return usageError{err}
		}
		defer b.Finalize()
		o.Merge.Backend, o.Merge.ModelBackend = b, modelBackend(choice)
	}
	o.Sized, o.Checked = show("checking"), func(n int64) { bar.Add(n) }
	o.Merge.Started, o.Merge.Written = show("merging"), func(n int64) { bar.Add(n) }
	o.Merge.Plan.Fetch = fetcher(cmd)
	o.Makers = map[string]merge.Maker{provenance.MixtureMethod: moe.Maker{Options: moe.Options{Plan: moe.PlanOptions{Models: o.Merge.Plan},
		Gate: moe.GateOptions{Backend: o.Merge.ModelBackend}, Threads: o.Merge.Threads, Version: version, Started: o.Merge.Started, Written: o.Merge.Written}}}
	v, err := merge.Verify(cmd.Context(), dir, o)
	bar.Done()
	var at *recipe.Error
	if errors.As(err, &at) && at.Pos.Line > 0 && o.Recipe == "" && o.From == "" { // the recipe made the output once, so it is the paths
		return fmt.Errorf("%w; the recipe's relative paths were looked for from the working directory: name its own file with --recipe, or say with --from where they start", err)
	}
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, v)
	} else if !quietWanted(cmd) {
		printVerified(v)
	}
	if !v.Good {
		return errDiffers
	}
	return nil
}

func printVerified(v *merge.Verified) {
	rows := [][]string{{"FILE", "STATE"}}
	add := func(prefix string, list []provenance.Finding) {
		for _, f := range list {
			rows = append(rows, []string{prefix + f.File, string(f.State)})
		}
	}
	add("", v.Files)
	for _, m := range slices.Sorted(maps.Keys(v.Inputs)) {
		add(m+": ", v.Inputs[m])
	}
	add("merged again: ", v.Reproduced)
	table(os.Stdout, rows)
	if v.Good {
		fmt.Printf("%s: as recorded, %d tensors\n", v.Output, v.Tensors)
	}
	for _, n := range v.Record.Notes {
		fmt.Printf("licences: %s\n", n)
	}
}
