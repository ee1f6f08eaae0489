package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/shuffle"
)

// shuffleFlags are the flags that the verb and Python's command share.
type shuffleFlags struct {
	models  []string
	weights []float64
	full    bool
	half    bool
	print   bool
	dryRun  bool
	file    string
}

func (s *shuffleFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&s.models, "model", "m", nil, "a model that gives layers (repeatable)")
	f.Float64SliceVarP(&s.weights, "weight", "w", nil, "the chance of a model's layers, or with --full-random the share of them, for each model in turn (default: all alike)")
	bothFlags(cmd, &s.full, "full-random", false, "take any layers, in any order")
	bothFlags(cmd, &s.half, "fp16", false, "write float16")
	bothFlags(cmd, &s.print, "print-yaml", false, "print the recipe")
	f.StringVar(&s.file, "write-yaml", "", "write the recipe to this file")
	bothFlags(cmd, &s.dryRun, "dry-run", false, "merge nothing")
}

func newLayershuffleCommand() *cobra.Command {
	var o mergeOptions
	var s shuffleFlags
	cmd := &cobra.Command{
		Use:   "layershuffle OUT -m MODEL -m MODEL...",
		Short: "Stack layers of several models by chance",
		Long: `layershuffle draws for each layer of the output the model that gives it, by the models' weights, and writes the result: a merge by
passthrough. With --full-random it takes of each model the share of layers that its weight says, any of them, and puts all in any order. What
is not in a layer comes from the model of the first slice, and from that of the last one what stands behind the layers.

The same --seed draws the same layers. --print-yaml and --write-yaml give the recipe, with which 'mergekit merge' makes the output again.

EXIT STATUS
  0 done, 1 failed, 2 bad models or command line, 130 interrupted`,
		Args: outputUnlessDry(&s),
		RunE: func(cmd *cobra.Command, args []string) error {
			mo, err := o.options(cmd)
			if err != nil {
				return err
			}
			return runLayershuffle(cmd, args, &s, o.seed, o.backend, mo)
		},
	}
	s.register(cmd)
	o.register(cmd)
	o.output(cmd)
	return cmd
}

// newPeerLayershuffleCommand is the program under the name mergekit-layershuffle.
func newPeerLayershuffleCommand() *cobra.Command {
	var o yamlFlags
	var s shuffleFlags
	cmd := &cobra.Command{
		Use:   "mergekit-layershuffle OUT_PATH -m MODEL -m MODEL...",
		Short: "Stack layers of several models by chance, with the command line of Python's mergekit-layershuffle",
		Args:  outputUnlessDry(&s),
		RunE: func(cmd *cobra.Command, args []string) error {
			mo, choice, err := o.merging(cmd)
			if err != nil {
				return err
			}
			mo.Force = len(args) == 1 && o.replaces(args[0], "mergekit_config.yml")
			return runLayershuffle(cmd, args, &s, uint64(max(o.seed, 0)), choice, mo)
		},
	}
	o.register(cmd)
	s.register(cmd)
	return cmd
}

// outputUnlessDry wants an output directory, which --dry-run does not need.
func outputUnlessDry(s *shuffleFlags) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if s.dryRun && len(args) == 0 {
			return nil
		}
		return exactly(1, "an output directory, and models as flags")(cmd, args)
	}
}

func runLayershuffle(cmd *cobra.Command, args []string, s *shuffleFlags, seed uint64, choice string, mo merge.Options) error {
	text, err := s.recipe(cmd, seed)
	if err != nil {
		return err
	}
	if s.print && jsonWanted(cmd) {
		writeJSON(os.Stdout, map[string]any{"event": "recipe", "text": string(text)})
	} else if s.print {
		fmt.Print(string(text))
	}
	if s.file != "" {
		if err := os.WriteFile(s.file, text, 0o666); err != nil {
			return usageError{fmt.Errorf("--write-yaml: %w; choose a file in a folder that exists and that you may write in", err)}
		}
	}
	if s.dryRun {
		return nil
	}
	r, err := recipe.Parse("layershuffle", text)
	if err != nil {
		return err
	}
	r.Text = text
	return mergeBy(cmd, choice, mo, func(mo merge.Options) (*merge.Summary, error) {
		return merge.RunRecipe(cmd.Context(), r, args[0], mo)
	})
}

// recipe draws the layers.
func (s *shuffleFlags) recipe(cmd *cobra.Command, seed uint64) ([]byte, error) {
	if len(s.models) == 0 {
		return nil, usageError{fmt.Errorf("%s needs --model, once for each model", cmd.CommandPath())}
	}
	if len(s.weights) != 0 && len(s.weights) != len(s.models) {
		return nil, usageError{fmt.Errorf("--weight: %d weights for %d models", len(s.weights), len(s.models))}
	}
	models := make([]shuffle.Model, len(s.models))
	for i, name := range s.models {
		m, err := findModel(cmd, name, "")
		if err != nil {
			return nil, err
		}
		models[i] = shuffle.Model{Name: name, Weight: 1}
		if len(s.weights) > 0 {
			models[i].Weight = s.weights[i]
		}
		if models[i].Layers, err = shuffle.Layers(m.dir); err != nil {
			return nil, err
		}
	}
	draw, dtype := shuffle.Choose, ""
	if s.full {
		draw = shuffle.Full
	}
	if s.half {
		dtype = "float16"
	}
	list, err := draw(models, seed)
	if err != nil {
		return nil, err
	}
	text, err := shuffle.Recipe(models, list, dtype)
	if err != nil {
		return nil, err
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "# Drawn by mergekit layershuffle with seed %d.\n", seed)
	return append(head.Bytes(), text...), nil
}
