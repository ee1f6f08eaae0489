package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge/inspect"
)

// diffOptions are the flags of the diff command.
type diffOptions struct {
	tolerance, ulps float64
	relative, all   bool
	backend         string
	threads         int
}

func newDiffCommand() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Compare two checkpoints tensor by tensor",
		Long: `diff compares the tensors of two checkpoints by name: largest and mean absolute difference, cosine, and the largest
difference in units in the last place of the coarser dtype.

EXIT STATUS
  0 the checkpoints agree within the tolerance, 1 they do not, 2 one cannot be read`,
		Args: exactly(2, "two checkpoints"),
		RunE: func(cmd *cobra.Command, args []string) error { return runDiff(cmd, args[0], args[1], &o) },
	}
	f := cmd.Flags()
	f.Float64Var(&o.tolerance, "tolerance", 0, "largest absolute difference that passes")
	f.BoolVar(&o.relative, "relative", false, "take the tolerance relative to each tensor's largest magnitude in A")
	f.Float64Var(&o.ulps, "ulps", 0, "largest difference in units in the last place that passes as well")
	f.BoolVar(&o.all, "all", false, "list equal tensors too")
	f.StringVar(&o.backend, "backend", "auto", "where graphs run: auto, go, gomlx, xla:cpu, xla:cuda or the path of a PJRT plugin")
	f.IntVar(&o.threads, "threads", 0, "worker threads; 0: all cores")
	return cmd
}

func runDiff(cmd *cobra.Command, pa, pb string, o *diffOptions) error {
	if err := checkThreads(o.threads); err != nil {
		return err
	}
	if !(o.tolerance >= 0) || !(o.ulps >= 0) {
		return usageError{fmt.Errorf("--tolerance and --ulps must be numbers from 0")}
	}
	if err := bring(cmd, &pa, &pb); err != nil {
		return err
	}
	a, err := checkpoint.Open(pa)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := checkpoint.Open(pb)
	if err != nil {
		return err
	}
	defer b.Close()
	be, _, err := backend.Open(o.backend)
	if err != nil {
		return usageError{err}
	}
	defer be.Finalize()
	bar := newProgress(cmd, a.TotalBytes()+b.TotalBytes(), "comparing")
	list, err := inspect.Diff(cmd.Context(), a, b, inspect.Options{Backend: be, Threads: o.threads, Read: bar.Add})
	bar.Done()
	if err != nil {
		return err
	}
	differ, equal := 0, 0
	rows := [][]string{{"TENSOR", "MAX|A-B|", "MEAN|A-B|", "COSINE", "ULPS", ""}}
	for _, d := range list {
		verdict := o.verdict(&d)
		if d.Equal {
			equal++
		}
		if verdict != "" {
			differ++
		}
		if jsonWanted(cmd) {
			writeJSON(os.Stdout, struct {
				inspect.Difference
				Within bool `json:"within_tolerance"`
			}{d, verdict == ""})
			continue
		}
		if d.Equal && !o.all {
			continue
		}
		rows = append(rows, []string{d.Name, fmt.Sprintf("%.4g", d.Max), fmt.Sprintf("%.4g", d.Mean), fmt.Sprintf("%.9f", d.Cosine), fmt.Sprintf("%.4g", d.ULPs), verdict})
	}
	switch {
	case jsonWanted(cmd):
		writeDone(map[string]any{"tensors": len(list), "equal": equal, "beyond_tolerance": differ})
	case !quietWanted(cmd):
		if len(rows) > 1 {
			table(os.Stdout, rows)
		}
		fmt.Printf("%d tensors: %d equal, %d within the tolerance, %d beyond\n", len(list), equal, len(list)-equal-differ, differ)
	}
	if differ > 0 {
		return errQuiet
	}
	return nil
}

// verdict says why a tensor does not pass; empty when it does.
func (o *diffOptions) verdict(d *inspect.Difference) string {
	limit := o.tolerance
	if o.relative {
		limit *= d.Scale
	}
	switch {
	case d.Only != "":
		return "only in " + d.Only
	case d.Problem != "":
		return d.Problem
	case d.Equal:
		return ""
	case d.NaN > 0:
		return fmt.Sprintf("%d NaN in one only", d.NaN)
	case d.Max <= limit || o.ulps > 0 && d.ULPs <= o.ulps:
		return ""
	}
	return "differs"
}
