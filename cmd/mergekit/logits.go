package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// logitsOptions are the flags of the logits command.
type logitsOptions struct {
	modelOptions
	input, output string
	pool          bool
}

func newLogitsCommand() *cobra.Command {
	var o logitsOptions
	cmd := &cobra.Command{
		Use:   "logits MODEL --input FILE -o OUT.safetensors",
		Short: "Compute a model's output for a batch of tokens, for comparison with other tools",
		Long: `logits reads a batch of tokens from a JSON file, computes the model's output and writes it as the float32 tensor "output" of a
safetensors file: logits of a language model, a reward model or a classifier, hidden states of an encoder without a head. MODEL is
a checkpoint directory, or BASE+ADAPTER.

The file holds {"input_ids": [[...], ...]}, and beside it, as needed, "attention_mask" (padding on either side), "position_ids" and
"token_type_ids". Without "position_ids" the columns are the positions, as in transformers. What the output has at padding is
undefined. With --pool the output is one vector for each text, pooled as the checkpoint of sentence-transformers says. For a network of
"model_type" mlp or convnet the file is a safetensors file with the examples in the tensor "input".

EXIT STATUS
  0 done, 1 failed, 2 bad model, input or command line, 3 out of memory, 130 interrupted`,
		Args: exactly(1, "a model"),
		RunE: func(cmd *cobra.Command, args []string) error { return runLogits(cmd, args[0], &o) },
	}
	o.register(cmd)
	cmd.Flags().BoolVar(&o.pool, "pool", false, "one vector for each text: modules.json of sentence-transformers, or the mean over the mask")
	cmd.Flags().StringVar(&o.input, "input", "", "JSON file with the batch (required)")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "safetensors file to write (required)")
	return cmd
}

func runLogits(cmd *cobra.Command, name string, o *logitsOptions) error {
	if o.input == "" || o.output == "" {
		return usageError{fmt.Errorf("logits needs --input FILE and -o OUT.safetensors")}
	}
	files, err := findModel(cmd, name, o.adapter)
	if err != nil {
		return err
	}
	s, err := o.open(cmd)
	if err != nil {
		return err
	}
	defer s.close()
	out, err := o.compute(s, files)
	if err != nil {
		return inputFile(o.input, err)
	}
	raw := make([]byte, 4*len(out.Data))
	if err := tensors.EncodeFloat32(raw, tensors.F32, out.Data); err != nil {
		return err
	}
	if err := tensors.SaveFile(o.output, []tensors.Info{{Name: "output", DType: tensors.F32, Shape: out.Shape}}, [][]byte{raw}, nil); err != nil {
		return err
	}
	switch {
	case jsonWanted(cmd):
		writeDone(map[string]any{"output": o.output, "shape": out.Shape})
	case !quietWanted(cmd):
		fmt.Printf("wrote output %v to %s\n", out.Shape, o.output)
	}
	return nil
}

// compute reads the input and runs the model.
func (o *logitsOptions) compute(s *session, files modelFiles) (*model.Output, error) {
	if isPlain(files.dir) {
		return plainLogits(s, files, o.input)
	}
	data, err := os.ReadFile(o.input)
	if err != nil {
		return nil, usageError{err}
	}
	in, err := model.ParseInput(data)
	if err != nil {
		return nil, err
	}
	var pooling *model.Pooling
	if o.pool {
		if pooling, err = model.ReadPooling(files.dir); err != nil {
			return nil, err
		}
		files.dir = pooling.Model
	}
	m, err := s.load(files)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if pooling != nil {
		return m.Embed(in, pooling)
	}
	return m.Forward(in)
}
