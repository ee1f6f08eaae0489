package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/internal/progress"
	"github.com/mergekit/mergekit/tensors"
)

// fuseOptions are the flags of the fuse command.
type fuseOptions struct {
	base, adapter, out       string
	dtype, tie, shardSize    string
	threads                  int
	force, resume, nonFinite bool
}

func newFuseCommand() *cobra.Command {
	var o fuseOptions
	cmd := &cobra.Command{
		Use:   "fuse --base BASE --adapter ADAPTER -o OUT",
		Short: "Write a base with an adapter fused into it as a checkpoint of its own",
		Long: `fuse adds an adapter (LoRA, rsLoRA, DoRA, with whatever it holds whole) to its base and writes the result. The
arithmetic is float32, rounded once to the dtype that is written; tensors stream from the mapped base, so memory does not
grow with the model. OUT appears whole or not at all, and holds no file of the adapter.

Where the base's input embedding and output head are one matrix and the adapter changes one of them, --tie decides:
  refuse  is the default (an adapter trained with ensure_weight_tying counts as keep)
  untie   the head gets a matrix of its own, and config.json says so
  keep    both use the changed matrix

A merge needs no fused model: a recipe takes BASE+ADAPTER wherever it takes a model.

EXIT STATUS
  0 done, 1 failed, 2 the adapter does not fit the base, or other bad input, 130 interrupted (finish with --resume)`,
		Args: exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runFuse(cmd, &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.base, "base", "", "directory of the base")
	f.StringVar(&o.adapter, "adapter", "", "directory of the adapter")
	f.StringVarP(&o.out, "out", "o", "", "directory to write")
	f.StringVar(&o.dtype, "dtype", "", "dtype of floating-point tensors: float32, float16, bfloat16, float64 (default: the base's)")
	f.StringVar(&o.tie, "tie", "refuse", "what happens to tied embeddings that the adapter changes: refuse, untie or keep")
	f.StringVar(&o.shardSize, "shard-size", "5GB", "largest shard, for example 500MB or 2GiB; 0: one file")
	f.IntVar(&o.threads, "threads", 0, "worker threads; 0: all cores")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
	f.BoolVar(&o.resume, "resume", false, "finish an interrupted run")
	f.BoolVar(&o.nonFinite, "allow-non-finite", false, "accept NaN and infinite values")
	return cmd
}

// required refuses a command line without one of its flags.
func required(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if f := cmd.Flags().Lookup(name); f.Value.String() == "" || f.Value.String() == "0" {
			return usageError{fmt.Errorf("%s needs --%s", cmd.CommandPath(), name)}
		}
	}
	return nil
}

func runFuse(cmd *cobra.Command, o *fuseOptions) error {
	if err := required(cmd, "base", "adapter", "out"); err != nil {
		return err
	}
	fo := adapter.FuseOptions{Threads: o.threads, Force: o.force, Resume: o.resume, AllowNonFinite: o.nonFinite}
	var err error
	if fo.DType, err = parseDType(o.dtype); err != nil {
		return err
	}
	if fo.Tie, err = adapter.ParseTie(o.tie); err != nil {
		return err
	}
	if fo.ShardBytes, err = parseSize("--shard-size", o.shardSize); err != nil {
		return err
	}
	if fo.ShardBytes == 0 {
		fo.ShardBytes = -1
	}
	var bar *progress.Progress
	fo.Warn = func(m string) { warn(cmd, m) }
	fo.Started = func(total int64) { bar = newProgress(cmd, total, "fusing") }
	fo.Written = func(n int64) { bar.Add(n) }
	if err := bring(cmd, &o.base, &o.adapter); err != nil {
		return err
	}
	r, err := adapter.Fuse(cmd.Context(), o.base, o.adapter, o.out, fo)
	bar.Done()
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(r)
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %d tensors, %d of them changed, %s in %d shard%s\n", r.Output, r.Tensors, r.Changed, bytesText(r.Bytes), r.Shards, plural(r.Shards))
		if len(r.Added) > 0 {
			fmt.Printf("  added: %s\n", strings.Join(r.Added, ", "))
		}
	}
	return nil
}

// parseDType reads a --dtype; nil for none.
func parseDType(name string) (*tensors.DType, error) {
	if name == "" {
		return nil, nil
	}
	d, ok := convertDTypes[strings.TrimPrefix(name, "torch.")]
	if !ok {
		return nil, usageError{fmt.Errorf("--dtype %s: unknown; use float32, float16, bfloat16, float64, float8_e4m3fn or float8_e5m2", name)}
	}
	return &d, nil
}
