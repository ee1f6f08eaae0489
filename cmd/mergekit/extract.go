package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/internal/progress"
	"github.com/mergekit/mergekit/tensors"
)

// extractOptions are the flags of adapters extract.
type extractOptions struct {
	adapter.ExtractOptions
	base, tuned, out, compat, maxMemory, dtype string
	force                                      bool
}

func newAdaptersExtractCommand() *cobra.Command {
	var o extractOptions
	cmd := &cobra.Command{
		Use:   "extract --base BASE --tuned TUNED -r RANK -o OUT",
		Short: "Make an adapter of the difference between two checkpoints",
		Long: `extract decomposes the difference of each matrix (singular values by random projection; exactly for small matrices, for
ranks above an eighth of a side, and with --exact) and keeps its largest RANK directions, or with --energy as few of them as hold that share of
the squared difference. Embeddings, heads and norms that differ are kept whole, in modules_to_save. What remains of each module's difference
is reported. --include and --exclude are regular expressions that are looked for in the modules' paths.

Under the name mergekit-extract-lora the program takes the options of Python's tool.

EXIT STATUS
  0 done, 1 failed, 2 bad input, 130 interrupted`,
		Args: exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runAdaptersExtract(cmd, &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.base, "base", "", "directory of the base")
	f.StringVar(&o.tuned, "tuned", "", "directory of the tuned model")
	f.StringVarP(&o.out, "out", "o", "", "directory to write")
	f.IntVarP(&o.Rank, "rank", "r", 0, "largest rank of a module")
	f.Float64Var(&o.Energy, "energy", 0, "share of each module's squared difference to keep, for example 0.9; 0: keep the whole rank")
	f.StringVar(&o.Embeddings, "embeddings", adapter.Save, "embeddings and heads that differ: save (whole), lora or skip")
	f.StringVar(&o.Others, "others", adapter.Save, "norms and biases that differ: save (whole) or skip")
	f.IntVar(&o.Iterations, "iterations", 0, "power iterations of the random projection; 0: 4")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the random projection")
	f.StringArrayVarP(&o.Include, "include", "i", nil, "take only modules whose path has this regular expression (repeatable)")
	f.StringArrayVarP(&o.Exclude, "exclude", "e", nil, "leave out modules whose path has this regular expression (repeatable)")
	f.StringArrayVar(&o.Whole, "save-module", nil, "keep this module whole, by path or last component (repeatable)")
	f.Float64Var(&o.Floor, "floor", 0, "drop singular values up to this one; 0: those that are rounding alone")
	f.BoolVar(&o.OneSided, "one-sided", false, "leave B orthonormal and put the singular values into A alone")
	f.BoolVar(&o.Exact, "exact", false, "decompose in full, without random projection: the best error to the last digit, in several times the time")
	f.StringVar(&o.dtype, "dtype", "float32", "dtype of the adapter: float32, bfloat16, float16, or native for that of the tuned model")
	f.StringVar(&o.maxMemory, "max-memory", "", "bound on the matrices in work, for example 2GiB")
	f.StringVar(&o.compat, "compat", adapter.Full, "keys of adapter_config.json: full, or minimal for old versions of peft")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
	return cmd
}

func runAdaptersExtract(cmd *cobra.Command, o *extractOptions) error {
	if err := required(cmd, "base", "tuned", "out", "rank"); err != nil {
		return err
	}
	if o.Iterations < 0 {
		return usageError{fmt.Errorf("--iterations %d: give a positive number, or 0 for 4", o.Iterations)}
	}
	var err error
	if o.maxMemory != "" {
		if o.MaxMemory, err = parseSize("--max-memory", o.maxMemory); err != nil {
			return err
		}
	}
	return extract(cmd, o, nil)
}

// extract makes the adapter, writes it with further files, and shows what it keeps.
func extract(cmd *cobra.Command, o *extractOptions, more map[string][]byte) error {
	save := adapter.SaveOptions{Compat: o.compat, Force: o.force, Files: more}
	eo := o.ExtractOptions
	if _, err := os.Stat(o.base); err != nil {
		eo.BaseName = o.base // the name on the hub, not the place in the cache
	}
	err := bring(cmd, &o.base, &o.tuned)
	if err != nil {
		return err
	}
	if save.DType, err = adapterDType(o.dtype, o.tuned); err != nil {
		return err
	}
	if err := tensors.CheckOutput(o.out, o.force, false); err != nil { // before hours of work, not after
		return err
	}
	var bar *progress.Progress
	const perElement = 4 // bytes: the display counts them
	eo.Warn = func(m string) { warn(cmd, m) }
	eo.Started = func(total int64) { bar = newProgress(cmd, perElement*total, "decomposing") }
	eo.Done = func(n int64) { bar.Add(perElement * n) }
	a, r, err := adapter.Extract(cmd.Context(), o.base, o.tuned, eo)
	bar.Done()
	if err != nil {
		return err
	}
	defer a.Close()
	if !sameTokenizer(o.base, o.tuned) {
		save.Copies = adapter.TokenizerFiles(o.tuned)
	}
	if err := a.Save(o.out, save); err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(struct {
			Output string `json:"output"`
			*adapter.ExtractReport
		}{o.out, r})
	} else if !quietWanted(cmd) {
		printExtraction(o.out, r)
	}
	return nil
}

// adapterDType reads --dtype of an adapter for a model.
func adapterDType(name, model string) (tensors.DType, error) {
	if name == "native" {
		return adapter.StoredDType(model)
	}
	d, ok := convertDTypes[strings.TrimPrefix(name, "torch.")]
	if !ok {
		return 0, usageError{fmt.Errorf("--dtype %s: unknown; use float32, bfloat16, float16 or native", name)}
	}
	return d, nil
}

func printExtraction(out string, r *adapter.ExtractReport) {
	rows := [][]string{{"MODULE", "KEPT", "RANK", "‖ΔW‖", "OF ‖W‖", "ENERGY", "ERROR"}}
	for _, m := range r.Modules {
		rank := "-"
		if m.Rank > 0 {
			rank = fmt.Sprint(m.Rank)
		}
		rows = append(rows, []string{m.Module, m.What, rank, fmt.Sprintf("%.4g", float64(m.Norm)), fmt.Sprintf("%.3g%%", 100*float64(m.Share)),
			fmt.Sprintf("%.2f%%", 100*float64(m.Energy)), fmt.Sprintf("%.3g%%", 100*float64(m.Error))})
	}
	table(os.Stdout, rows)
	fmt.Printf("\n%s: %d modules changed, %d did not; rank %d, %s parameters\n", out, len(r.Modules), r.Unchanged, r.Rank, count(r.Parameters))
	fmt.Printf("  matrices keep %.2f%% of their squared change, error %.3g%%\n", 100*float64(r.Energy), 100*float64(r.Error))
}

// sameTokenizer says whether two models have the same tokenizer.json and chat template.
func sameTokenizer(a, b string) bool {
	for _, name := range []string{"tokenizer.json", "tokenizer.model", "chat_template.jinja"} {
		x, errX := os.ReadFile(filepath.Join(a, name))
		y, errY := os.ReadFile(filepath.Join(b, name))
		if (errX == nil) != (errY == nil) || !bytes.Equal(x, y) {
			return false
		}
	}
	return true
}
