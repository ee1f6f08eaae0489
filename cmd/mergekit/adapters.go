package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/internal/progress"
)

// newAdaptersCommand gathers the verbs about adapters.
func newAdaptersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "adapters",
		Short: "Inspect, fuse, combine, extract and convert LoRA adapters",
		Long: `adapters works on adapters as peft writes them: adapter_config.json and adapter_model.safetensors. LoRA, rsLoRA and
DoRA are understood, with patterns of ranks, whole modules, biases and single trained tokens.

EXIT STATUS
  0 done, 1 failed, 2 bad input or command line, 130 interrupted`,
	}
	cmd.AddCommand(newAdaptersInspectCommand(), newFuseCommand(), newAdaptersCombineCommand(), newAdaptersExtractCommand(), newAdaptersConvertCommand())
	return gathers(cmd)
}

func newAdaptersInspectCommand() *cobra.Command {
	var base string
	cmd := &cobra.Command{
		Use:   "inspect ADAPTER",
		Short: "Show an adapter's configuration, modules, ranks and norms",
		Long: `inspect shows what an adapter is: configuration, modules, ranks, norms of its changes, tensors that it holds whole, and
whether values are NaN or infinite. With --base it also checks that the adapter fits and compares norms with the weights'.

EXIT STATUS
  0 done, 1 values are NaN or infinite, 2 bad input`,
		Args: exactly(1, "an adapter"),
		RunE: func(cmd *cobra.Command, args []string) error { return runAdaptersInspect(cmd, args[0], base) },
	}
	cmd.Flags().StringVar(&base, "base", "", "directory of the base that the adapter is for")
	return cmd
}

func runAdaptersInspect(cmd *cobra.Command, dir, base string) error {
	r, err := adapter.Inspect(dir)
	if err != nil {
		return err
	}
	if base != "" {
		if err := r.Against(base); err != nil {
			return err
		}
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, r)
	} else {
		for _, w := range r.Warnings {
			warn(cmd, w)
		}
		if !quietWanted(cmd) {
			printInspection(r, base != "")
		}
	}
	if r.NonFinite > 0 {
		return errQuiet
	}
	return nil
}

func printInspection(r *adapter.Inspection, shares bool) {
	head := []string{"MODULE", "IN", "OUT", "RANK", "SCALE", "‖A‖", "‖B‖", "‖s·B·A‖"}
	if shares {
		head = append(head, "OF ‖W‖")
	}
	rows := [][]string{head}
	for _, m := range r.Modules {
		row := []string{m.Module, fmt.Sprint(m.In), fmt.Sprint(m.Out), fmt.Sprint(m.Rank), fmt.Sprintf("%.4g", m.Scale),
			fmt.Sprintf("%.4g", float64(m.NormA)), fmt.Sprintf("%.4g", float64(m.NormB)), fmt.Sprintf("%.4g", float64(m.Norm))}
		if shares {
			row = append(row, fmt.Sprintf("%.3g%%", 100*float64(m.Share)))
		}
		rows = append(rows, row)
	}
	table(os.Stdout, rows)
	for _, w := range r.Whole {
		fmt.Printf("whole: %s %s, norm %.4g\n", w.Key, strings.ReplaceAll(fmt.Sprint(w.Shape), " ", "×"), float64(w.Norm))
	}
	fmt.Printf("\n%s (%s): r %d, alpha %g, dropout %g, init %s, bias %s\n", r.Kind, r.Format, r.Rank, r.Alpha, r.Dropout, r.Init, r.Bias)
	if r.BaseModel != "" || r.TaskType != "" {
		fmt.Printf("base %s, task %s\n", orNone(r.BaseModel), orNone(r.TaskType))
	}
	fmt.Printf("target_modules %s", strings.Join(r.Targets, ", "))
	if len(r.Saved) > 0 {
		fmt.Printf("; modules_to_save %s", strings.Join(r.Saved, ", "))
	}
	fmt.Printf("\n%d modules, %s parameters, %s\n", len(r.Modules), count(r.Parameters), bytesText(r.Bytes))
	if r.NonFinite > 0 {
		fmt.Printf("%d values are NaN or infinite\n", r.NonFinite)
	}
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

func newAdaptersCombineCommand() *cobra.Command {
	var o adapter.CombineOptions
	var out, compat string
	var force bool
	var text strings.Builder
	for _, m := range adapter.CombineMethods {
		fmt.Fprintf(&text, "  %-20s %s\n", m.Name, m.Text)
	}
	cmd := &cobra.Command{
		Use:   "combine ADAPTER... -o OUT",
		Short: "Make one adapter of several for the same base",
		Long: `combine makes one adapter of several. The result's alpha is its rank, so that its scale is 1. Weights may be negative.
Methods:
` + text.String() + `
The error against the exact sum of the deltas is printed. DoRA adapters cannot be combined, nor two that hold the same
module whole.

EXIT STATUS
  0 done, 1 failed, 2 bad input, 130 interrupted`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s takes adapters; got none", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := required(cmd, "out"); err != nil {
				return err
			}
			return runAdaptersCombine(cmd, args, out, o, adapter.SaveOptions{Compat: compat, Force: force})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", "", "directory to write")
	f.StringVar(&o.Method, "method", "svd", "how to combine, see above")
	f.Float64SliceVar(&o.Weights, "weights", nil, "one weight for each adapter, for example 0.7,-0.3 (default: all 1)")
	f.IntVar(&o.Rank, "rank", 0, "rank of the result of svd, knots and core_space methods; 0: the adapters' largest")
	f.Float64Var(&o.Clamp, "svd-clamp", 0, "quantile at which the factors of svd methods are clamped, for example 0.99; 0: not at all")
	f.Float64Var(&o.Density, "density", 0, "share of the entries that ties, dare, magnitude_prune, knots and core_space_ties keep")
	f.StringVar(&o.Sign, "sign", "total", "how ties elects signs: total or frequency")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of dare")
	f.StringVar(&compat, "compat", adapter.Full, "keys of adapter_config.json: full, or minimal for old versions of peft")
	f.BoolVar(&force, "force", false, "replace an existing output")
	return cmd
}

func runAdaptersCombine(cmd *cobra.Command, dirs []string, out string, o adapter.CombineOptions, save adapter.SaveOptions) error {
	var list []*adapter.Adapter
	for _, dir := range dirs {
		a, err := openAnyAdapter(dir)
		if err != nil {
			return err
		}
		for _, w := range a.Warnings {
			warn(cmd, dir+": "+w)
		}
		list = append(list, a)
	}
	o.Warn = func(m string) { warn(cmd, m) }
	var bar *progress.Progress
	o.Started = func(total int64) { bar = newProgress(cmd, total, "combining") }
	o.Done = func(n int64) { bar.Add(n) }
	a, r, err := adapter.Combine(cmd.Context(), list, o)
	bar.Done()
	if err != nil {
		return err
	}
	save.Copies = adapter.TokenizerFiles(dirs[0])
	if err := a.Save(out, save); err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(struct {
			Output string `json:"output"`
			*adapter.CombineReport
		}{out, r})
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %s of %d adapters, %d modules, rank %d\n", out, r.Method, len(list), r.Modules, r.Rank)
		fmt.Printf("  error against the exact sum: %.3g%%", 100*float64(r.Error))
		if r.Worst != "" {
			fmt.Printf(" (largest in %s: %.3g%%)", r.Worst, 100*float64(r.WorstE))
		}
		fmt.Println()
	}
	return nil
}

// openAnyAdapter opens peft's and mlx-lm's adapters.
func openAnyAdapter(dir string) (*adapter.Adapter, error) {
	if adapter.IsMLX(dir) {
		return adapter.OpenMLX(dir)
	}
	return adapter.Open(dir)
}

func newAdaptersConvertCommand() *cobra.Command {
	var to, compat string
	var layers int
	var force bool
	cmd := &cobra.Command{
		Use:   "convert ADAPTER OUT --to peft|mlx",
		Short: "Turn peft's adapters into mlx-lm's and back",
		Long: `convert writes an adapter in the other format. mlx-lm's has one rank and scale for all modules, which are the same ones
in each of the last layers, and holds nothing whole; an adapter beyond that is refused.

EXIT STATUS
  0 done, 1 failed, 2 bad input`,
		Args: exactly(2, "an adapter and an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			save := adapter.SaveOptions{Compat: compat, Force: force}
			return runAdaptersConvert(cmd, args[0], args[1], to, layers, save)
		},
	}
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "peft or mlx")
	f.IntVar(&layers, "layers", 0, "layers of the base, to check that the adapter changes its last ones (mlx); 0: take it so")
	f.StringVar(&compat, "compat", adapter.Full, "keys of adapter_config.json: full, or minimal for old versions of peft")
	f.BoolVar(&force, "force", false, "replace an existing output")
	return cmd
}

func runAdaptersConvert(cmd *cobra.Command, src, out, to string, layers int, save adapter.SaveOptions) error {
	if !slices.Contains([]string{"peft", "mlx"}, to) {
		return usageError{fmt.Errorf("--to %s: unknown; use peft or mlx", to)}
	}
	a, err := openAnyAdapter(src)
	if err != nil {
		return err
	}
	for _, w := range a.Warnings {
		warn(cmd, w)
	}
	if to == "mlx" {
		err = a.SaveMLX(out, layers, save)
	} else {
		save.Copies = adapter.TokenizerFiles(src)
		err = a.Save(out, save)
	}
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(map[string]any{"output": out, "format": to, "tensors": len(a.Keys())})
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %d tensors for %s\n", out, len(a.Keys()), to)
	}
	return nil
}
