package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge/convert"
	"github.com/mergekit/mergekit/tensors"
)

// convertOptions are the flags of the convert command.
type convertOptions struct {
	dtype, shardSize string
	force, resume    bool
}

func newConvertCommand() *cobra.Command {
	var o convertOptions
	cmd := &cobra.Command{
		Use:   "convert SRC OUT",
		Short: "Change a checkpoint's dtype or shards, or turn PyTorch, GGUF and quantised ones into safetensors",
		Long: `convert writes a copy of a checkpoint with another dtype or shard size. PyTorch files and quantised checkpoints become plain
safetensors, and a GGUF file becomes a Hugging Face directory: weights, config.json, tokenizer, chat template.

EXIT STATUS
  0 done, 1 failed, 2 bad input, 130 interrupted (finish with --resume)`,
		Args: exactly(2, "a source and an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error { return runConvert(cmd, args[0], args[1], &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dtype, "dtype", "", "dtype of floating-point tensors: float32, float16, bfloat16, float64, float8_e4m3fn, float8_e5m2 (default: as stored; float32 for quantised GGUF)")
	f.StringVar(&o.shardSize, "shard-size", "5GB", "largest shard, for example 500MB or 2GiB; 0: one file")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
	f.BoolVar(&o.resume, "resume", false, "finish an interrupted conversion")
	return cmd
}

var convertDTypes = map[string]tensors.DType{
	"float64": tensors.F64, "float32": tensors.F32, "float16": tensors.F16, "bfloat16": tensors.BF16,
	"float8_e4m3fn": tensors.F8E4M3, "float8_e5m2": tensors.F8E5M2,
}

func runConvert(cmd *cobra.Command, src, out string, o *convertOptions) error {
	co := convert.Options{Force: o.force, Resume: o.resume}
	if o.dtype != "" {
		d, ok := convertDTypes[strings.TrimPrefix(o.dtype, "torch.")]
		if !ok {
			return usageError{fmt.Errorf("--dtype %s: unknown; use float32, float16, bfloat16, float64, float8_e4m3fn or float8_e5m2", o.dtype)}
		}
		co.DType = &d
	}
	var err error
	if co.ShardBytes, err = parseSize("--shard-size", o.shardSize); err != nil {
		return err
	}
	if co.ShardBytes == 0 {
		co.ShardBytes = -1
	}
	if err := bring(cmd, &src); err != nil {
		return err
	}
	do := convert.Checkpoint
	if isGGUF(src) {
		do = convert.FromGGUF
	}
	add, done := func(int64) {}, func() {} // no bar when the conversion is refused
	co.Start = func(total int64) {
		bar := newProgress(cmd, total, "converting")
		add, done = bar.Add, bar.Done
	}
	co.Progress = func(n int64) { add(n) }
	report, err := do(cmd.Context(), src, out, co)
	done()
	if err != nil {
		return err
	}
	for _, w := range report.Warnings {
		warn(cmd, w)
	}
	if jsonWanted(cmd) {
		writeDone(report)
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %d tensors, %s\n", out, report.Tensors, bytesText(report.Bytes))
	}
	return nil
}

// isGGUF looks at a file's first bytes.
func isGGUF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return strings.HasSuffix(path, ".gguf")
	}
	defer f.Close()
	var magic [4]byte
	_, err = f.Read(magic[:])
	return err == nil && string(magic[:]) == "GGUF" || strings.HasSuffix(path, ".gguf")
}
