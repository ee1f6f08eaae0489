package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
)

// rawFlags say what is done about tensors that some files lack.
type rawFlags struct{ intersection, union bool }

func (o *rawFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&o.intersection, "tensor-intersection", "i", false, "leave out tensors that some of the files lack")
	f.BoolVarP(&o.union, "tensor-union", "u", false, "merge tensors over the files that have them")
}

func (o *rawFlags) raw() (plan.Raw, error) {
	switch {
	case o.intersection && o.union:
		return "", usageError{fmt.Errorf("--tensor-intersection and --tensor-union exclude each other; give one of them, or neither to refuse files that lack tensors")}
	case o.intersection:
		return plan.RawIntersection, nil
	case o.union:
		return plan.RawUnion, nil
	}
	return plan.RawStrict, nil
}

func newRawCommand() *cobra.Command {
	var o mergeOptions
	var which rawFlags
	cmd := &cobra.Command{
		Use:   "raw RECIPE OUT",
		Short: "Merge files of tensors that are no models: any state dicts, as they stand",
		Long: `raw merges files by any merge method, tensor by tensor, without knowing what they are: adapters, vision towers, weights of a training
program. The recipe is like one of 'mergekit merge' with the keys merge_method, models, base_model, parameters, dtype and out_dtype, and its
models are files: .safetensors, or .bin, .pt and .pth as PyTorch writes them (read without running what is in them). Filters are about the
tensors' names as they stand; of a gradient the first value counts. Tensors that are not floating point must be the same in all files.

OUT is a directory with model.safetensors, and nothing else. Tensors that some of the files lack are refused unless -i or -u says what to do;
the base counts among the files, but what it alone has is left out.

EXIT STATUS
  0 done, 1 failed, 2 bad recipe, file or command line, 130 interrupted`,
		Args: exactly(2, "a recipe and an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			mo, err := o.options(cmd)
			if err != nil {
				return err
			}
			return runRaw(cmd, args[0], args[1], o.backend, mo, &which)
		},
	}
	which.register(cmd)
	o.register(cmd)
	o.output(cmd)
	for _, name := range []string{"allow-crimes", "unsafe-truncate-embeddings", "keep-undescribed", "fuse-experts", "no-copy-tokenizer", "no-model-card", "no-provenance", "hash", "verify", "report"} {
		cmd.Flags().Lookup(name).Hidden = true // about models
	}
	return cmd
}

func runRaw(cmd *cobra.Command, recipe, out, choice string, mo merge.Options, which *rawFlags) error {
	var err error
	if mo.Plan.Raw, err = which.raw(); err != nil {
		return err
	}
	mo.CopyTokenizer, mo.ModelCard, mo.Provenance = false, false, false
	return mergeWith(cmd, recipe, out, choice, mo)
}

// newPyTorchCommand is the program under the name mergekit-pytorch.
func newPyTorchCommand() *cobra.Command {
	var o yamlFlags
	var which rawFlags
	cmd := &cobra.Command{
		Use:   "mergekit-pytorch CONFIG_FILE OUT_PATH",
		Short: "Merge files of tensors, with the command line of Python's mergekit-pytorch",
		Args:  exactly(2, "a recipe and an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			mo, choice, err := o.merging(cmd)
			if err != nil {
				return err
			}
			mo.Force = o.replaces(args[1], "model.safetensors")
			return runRaw(cmd, args[0], args[1], choice, mo, &which)
		},
	}
	o.register(cmd)
	which.register(cmd)
	idle(cmd, "allow-crimes", "unsafe-truncate-embeddings", "copy-tokenizer", "write-model-card") // about models
	return cmd
}
