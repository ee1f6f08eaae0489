package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/internal/progress"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/tensors"
)

// transportOptions are the flags of the transport command.
type transportOptions struct {
	out, base, newBase, compat string
	dtype, shardSize           string
	inverse, force             bool
}

func newTransportCommand() *cobra.Command {
	var o transportOptions
	cmd := &cobra.Command{
		Use:   "transport MAP CHECKPOINT|ADAPTER -o OUT",
		Short: "Apply a saved alignment to another checkpoint, or carry an adapter over",
		Long: `transport applies a map that align --save (or save_alignment in a recipe) has kept to

  a checkpoint  of the family of the aligned model, such as another fine-tune of it; or
  an adapter    (LoRA) of the aligned model, whose directory --base names: what it does to the model is then done in the
                reference's coordinates, so that it fits the aligned model. If the model is a re-parameterised copy of the
                reference (permuted, rotated, rescaled), the carried adapter fits the reference itself, exactly.

--inverse goes the other way, from the reference's coordinates to the aligned model's.

EXIT STATUS
  0 done, 1 failed, 2 the map does not fit, or other bad input, 130 interrupted`,
		Args: exactly(2, "a saved alignment and a checkpoint or an adapter"),
		RunE: func(cmd *cobra.Command, args []string) error { return runTransport(cmd, args[0], args[1], &o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.out, "out", "o", "", "directory to write")
	f.StringVar(&o.base, "base", "", "of an adapter: the model that it was trained on")
	f.StringVar(&o.newBase, "new-base", "", "of an adapter: what its configuration names as its base afterwards")
	f.StringVar(&o.compat, "compat", adapter.Full, "of an adapter: keys of adapter_config.json: full, or minimal for old versions of peft")
	f.StringVar(&o.dtype, "dtype", "", "of a checkpoint: dtype of floating-point tensors (default: its own if values are only moved, else float32)")
	f.StringVar(&o.shardSize, "shard-size", "5GB", "of a checkpoint: largest shard, for example 500MB or 2GiB; 0: one file")
	f.BoolVar(&o.inverse, "inverse", false, "apply the inverse of the map")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
	return cmd
}

func runTransport(cmd *cobra.Command, file, from string, o *transportOptions) error {
	if err := required(cmd, "out"); err != nil {
		return err
	}
	m, err := align.Load(file)
	if err != nil {
		return err
	}
	if o.inverse {
		if m, err = m.Inverse(); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(from, adapter.ConfigName)); err == nil {
		return transportAdapter(cmd, m, from, o)
	}
	if o.base != "" || o.newBase != "" {
		return usageError{fmt.Errorf("--base and --new-base are for adapters, and %s has no %s", from, adapter.ConfigName)}
	}
	return transportCheckpoint(cmd, m, from, o)
}

func transportAdapter(cmd *cobra.Command, m *align.Map, from string, o *transportOptions) error {
	if err := required(cmd, "base"); err != nil {
		return err
	}
	base, err := findModel(cmd, o.base, "")
	if err != nil {
		return err
	}
	if base.adapter != "" {
		return usageError{fmt.Errorf("--base %s: name the model alone", o.base)}
	}
	r, err := align.TransportAdapter(m, base.dir, from, o.out, align.TransportOptions{NewBase: o.newBase, Compat: o.compat, Force: o.force})
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(r)
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: an adapter of %d tensors, %d of them changed%s\n", r.Output, r.Tensors, r.Changed, exactText(r.Exact))
	}
	return nil
}

func exactText(exact bool) string {
	if exact {
		return "; values were only moved and their signs flipped"
	}
	return ""
}

func transportCheckpoint(cmd *cobra.Command, m *align.Map, from string, o *transportOptions) error {
	files, err := findModel(cmd, from, "")
	if err != nil {
		return err
	}
	if files.adapter != "" {
		return usageError{fmt.Errorf("%s: name a checkpoint or an adapter, not both; fuse them first, or carry both over", from)}
	}
	c, err := checkpoint.Open(files.dir)
	if err != nil {
		return err
	}
	defer c.Close()
	dir := files.dir
	var config []byte
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		dir = ""
	} else if config, err = os.ReadFile(filepath.Join(dir, arch.ConfigName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.Fits(config, c); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return writeAligned(cmd, m, c, dir, o.out, o.dtype, o.shardSize, o.force)
}

// writeAligned writes a checkpoint through a map and says so.
func writeAligned(cmd *cobra.Command, m *align.Map, c *tensors.Checkpoint, dir, out, dtype, shardSize string, force bool) error {
	wo := align.WriteOptions{Force: force, Discard: true}
	var err error
	if wo.DType, err = parseDType(dtype); err != nil {
		return err
	}
	if wo.ShardBytes, err = parseSize("--shard-size", shardSize); err != nil {
		return err
	}
	if wo.ShardBytes == 0 {
		wo.ShardBytes = -1
	}
	var bar *progress.Progress
	wo.Warn = func(s string) { warn(cmd, s) }
	wo.Started = func(total int64) { bar = newProgress(cmd, total, "writing") }
	wo.Written = func(n int64) { bar.Add(n) }
	r, err := align.Write(cmd.Context(), m, c, dir, out, wo)
	bar.Done()
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(r)
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %d tensors, %d of them changed%s, %s in %d shard%s\n", r.Output, r.Tensors, r.Changed, exactText(m.Exact()), bytesText(r.Bytes), r.Shards, plural(r.Shards))
	}
	return nil
}
