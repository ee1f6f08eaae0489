package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/progress"
	"github.com/mergekit/mergekit/merge/fill"
)

// fillOptions are the flags of the fill-missing-params command.
type fillOptions struct {
	fill.Options
	out, shardSize string
}

func newFillMissingCommand() *cobra.Command {
	var o fillOptions
	cmd := &cobra.Command{
		Use:   "fill-missing-params BASE PART -o OUT",
		Short: "Put a part of a model, merged on its own, back into the whole",
		Long: `fill-missing-params writes BASE with the tensors of PART in the place of its own, and the files that lie beside BASE. It is for what
was cut out of a larger model to be merged: the language model of one that also sees. PART's names may lack the prefix under which BASE keeps
them, or have another one; it is found by comparing names, or given with --prefix FROM=TO. Every tensor of PART must have its place and its
shape in BASE.

EXIT STATUS
  0 done, 1 failed, 2 bad checkpoints or command line, 130 interrupted`,
		Args: exactly(2, "the whole model and the part"),
		RunE: func(cmd *cobra.Command, args []string) error { return runFillMissing(cmd, args, &o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.out, "out", "o", "", "directory to write")
	f.StringVar(&o.Prefix, "prefix", "", "what BASE's names begin with in the place of what PART's begin with: FROM=TO, or TO alone")
	f.IntVar(&o.Threads, "threads", 0, "worker threads; 0: all cores")
	f.StringVar(&o.shardSize, "shard-size", "5GB", "largest shard, for example 500MB or 2GiB; 0: one file")
	f.BoolVar(&o.Force, "force", false, "replace an existing output")
	f.StringVar(&o.out, "output_dir", "", "the same as --out, as Python's module calls it")
	f.StringVar(&o.shardSize, "max_shard_size", "5GB", "the same as --shard-size, as Python's module calls it")
	for _, name := range []string{"output_dir", "max_shard_size"} {
		f.Lookup(name).Hidden = true
	}
	return cmd
}

func runFillMissing(cmd *cobra.Command, args []string, o *fillOptions) error {
	if o.out == "" {
		return usageError{fmt.Errorf("%s needs --out", cmd.CommandPath())}
	}
	if err := checkThreads(o.Threads); err != nil {
		return err
	}
	var err error
	if o.ShardBytes, err = parseSize("--shard-size", o.shardSize); err != nil {
		return err
	}
	if o.ShardBytes == 0 {
		o.ShardBytes = -1
	}
	base, part := filepath.Clean(args[0]), filepath.Clean(args[1])
	if err := bring(cmd, &base, &part); err != nil {
		return err
	}
	fo := o.Options
	var bar *progress.Progress
	fo.Warn = func(m string) { warn(cmd, m) }
	fo.Started = func(total int64) { bar = newProgress(cmd, total, "writing") }
	fo.Written = func(n int64) { bar.Add(n) }
	r, err := fill.Missing(cmd.Context(), base, part, o.out, fo)
	bar.Done()
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(r)
	} else if !quietWanted(cmd) {
		where := "under their own names"
		if r.From != r.To {
			where = fmt.Sprintf("with %q in the place of %q", r.To, r.From)
		}
		fmt.Printf("%s: %d tensors, %s; %d of the part, %s, and %d of the base\n", r.Output, r.Tensors, bytesText(r.Bytes), r.Replaced, where, r.Filled)
	}
	return nil
}
