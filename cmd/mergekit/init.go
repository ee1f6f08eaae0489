package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/model"
)

// initOptions are the flags of the init command.
type initOptions struct {
	output string
	seed   uint64
	force  bool
}

func newInitCommand() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init CONFIG -o OUT",
		Short: "Write a checkpoint with random weights, to train it from nothing",
		Long: `init draws the weights of a model that has learned nothing: of a Hugging Face config.json whose model_type can be computed
here, as the classes of transformers do (normal with the deviation initializer_range, gains one, biases zero), or of a network that
config.json describes layer by layer (normal by He et al., 2015). CONFIG is the file, or a directory that has one; the files of a
tokenizer beside it come along. The same seed gives the same bytes.

'mergekit finetune' with tune: full trains it.

EXIT STATUS
  0 done, 1 failed, 2 bad configuration or command line`,
		Args: exactly(1, "a config.json or its directory"),
		RunE: func(cmd *cobra.Command, args []string) error { return runInit(cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "directory to write (required)")
	f.Uint64Var(&o.seed, "seed", 0, "seed of the weights")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
	return cmd
}

func runInit(cmd *cobra.Command, config string, o *initOptions) error {
	if o.output == "" {
		return usageError{fmt.Errorf("init needs -o OUT")}
	}
	made, err := model.Create(config, o.output, o.seed, o.force)
	if err != nil {
		return err
	}
	switch {
	case jsonWanted(cmd):
		writeDone(map[string]any{"output": o.output, "tensors": made.Tensors, "parameters": made.Parameters, "bytes": made.Bytes})
	case !quietWanted(cmd):
		fmt.Printf("%s: %d tensors, %d parameters, %s\n", o.output, made.Tensors, made.Parameters, bytesText(made.Bytes))
	}
	return nil
}
