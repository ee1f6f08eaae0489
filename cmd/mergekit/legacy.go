package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/strictyaml"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
)

// legacyFlags are the options of Python mergekit's mergekit-legacy, which has flags in the place of a recipe.
type legacyFlags struct {
	models                        []string
	densities, weights            []float64
	method, base                  string
	normalize, int8, half, counts bool
	print                         bool
}

// newLegacyCommand is the program under the name mergekit-legacy.
func newLegacyCommand() *cobra.Command {
	var o yamlFlags
	var l legacyFlags
	cmd := &cobra.Command{
		Use:   "mergekit-legacy OUT_PATH --merge MODEL --merge MODEL...",
		Short: "Merge without a recipe, with the command line of Python's mergekit-legacy",
		Args:  exactly(1, "an output directory, and models as flags"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := l.recipe()
			if err != nil {
				return err
			}
			return mergeText(cmd, "mergekit-legacy", text, l.print, args[0], &o)
		},
	}
	o.register(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&l.models, "merge", nil, "a model (repeatable)")
	f.Float64SliceVar(&l.densities, "density", nil, "density of each model in turn, or one for all")
	f.Float64SliceVar(&l.weights, "weight", nil, "weight of each model in turn, or one for all; of slerp, t (default: 1 for all)")
	f.StringVar(&l.method, "method", "ties", "merge method")
	f.StringVar(&l.base, "base-model", "", "base of the merge")
	bothFlags(cmd, &l.normalize, "normalize", true, "divide by the sum of the weights")
	bothFlags(cmd, &l.int8, "int8-mask", false, "no effect")
	bothFlags(cmd, &l.half, "bf16", false, "merge in bfloat16")
	bothFlags(cmd, &l.counts, "naive-count", false, "no effect, as in Python's tool of today")
	bothFlags(cmd, &l.print, "print-yaml", false, "print the recipe")
	return cmd
}

// recipe is what the flags say, as a recipe. The base is the last of the models where it is none of them, as in Python's tool.
func (l *legacyFlags) recipe() ([]byte, error) {
	if len(l.models) == 0 {
		return nil, usageError{fmt.Errorf("mergekit-legacy needs --merge, once for each model")}
	}
	models := slices.Clone(l.models)
	if l.base != "" && !slices.Contains(models, l.base) {
		models = append(models, l.base)
	}
	weights, densities := l.weights, l.densities
	slerp := l.method == "slerp"
	switch {
	case slerp && len(weights) != 1:
		return nil, usageError{fmt.Errorf("--method slerp takes one --weight, the place between both models; got %d", len(weights))}
	case slerp:
		weights = nil
	case len(weights) == 0:
		weights = []float64{1}
	}
	var err error
	if weights, err = spread("--weight", weights, len(models)); err != nil {
		return nil, err
	}
	if densities, err = spread("--density", densities, len(models)); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "merge_method: %s\n", strictyaml.WriteText(l.method))
	if l.base != "" {
		fmt.Fprintf(&b, "base_model: %s\n", strictyaml.WriteText(l.base))
	}
	if l.half {
		b.WriteString("dtype: bfloat16\n")
	}
	m, known := method.Get(l.method)
	takes := func(name string) bool {
		return known && slices.ContainsFunc(m.Params, func(p method.Param) bool { return p.Name == name })
	}
	b.WriteString("models:\n")
	for i, name := range models {
		var of []string
		if i < len(weights) && takes("weight") {
			of = append(of, fmt.Sprintf("weight: %v", weights[i]))
		}
		if i < len(densities) {
			of = append(of, fmt.Sprintf("density: %v", densities[i]))
		}
		fmt.Fprintf(&b, "  - model: %s\n", strictyaml.WriteText(name))
		if len(of) > 0 {
			fmt.Fprintf(&b, "    parameters: {%s}\n", strings.Join(of, ", "))
		}
	}
	switch {
	case slerp:
		fmt.Fprintf(&b, "parameters: {t: %v}\n", l.weights[0])
	case takes("normalize"):
		fmt.Fprintf(&b, "parameters: {normalize: %v}\n", l.normalize)
	}
	return []byte(b.String()), nil
}

// spread gives a number that is given once to all models.
func spread(flag string, values []float64, models int) ([]float64, error) {
	if len(values) > models {
		return nil, usageError{fmt.Errorf("%s: %d values for %d models", flag, len(values), models)}
	}
	if len(values) == 1 {
		return slices.Repeat(values, models), nil
	}
	return values, nil
}

// newBakllamaCommand is the program under the name bakllama: slices of layers, from before there were recipes.
func newBakllamaCommand() *cobra.Command {
	var o yamlFlags
	var half bool
	cmd := &cobra.Command{
		Use:   "bakllama CONFIG_PATH OUT_PATH",
		Short: "Stack slices of layers, with the command line and configuration of Python's bakllama",
		Args:  exactly(2, "a configuration and an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := bakllamaRecipe(args[0], half)
			if err != nil {
				return err
			}
			return mergeText(cmd, "bakllama", text, false, args[1], &o)
		},
	}
	o.register(cmd)
	bothFlags(cmd, &half, "fp16", false, "write float16")
	return cmd
}

// bakllamaRecipe is a configuration of bakllama as a recipe. Sources of embedding and head have no effect, as in Python's tool.
func bakllamaRecipe(path string, half bool) ([]byte, error) {
	kind := strictyaml.Kind{Noun: "configuration", Empty: "give layer_slices"}
	text, err := strictyaml.ReadFile(path, kind)
	if err != nil {
		return nil, err
	}
	root, fault := strictyaml.ReadDocument(path, text, kind)
	if fault != nil {
		return nil, fault
	}
	var b strings.Builder
	b.WriteString("merge_method: passthrough\n")
	if half {
		b.WriteString("dtype: float16\n")
	}
	b.WriteString("slices:\n")
	d := &strictyaml.Decoder{File: path, Noun: kind.Noun}
	top := d.Open(root, strictyaml.Node{})
	fields, _ := d.Mapping(top, "the configuration")
	slices := 0
	for _, f := range fields {
		switch f.Key {
		case "layer_slices":
			if f.Value.Kind != top.Kind && f.Value.Content != nil { // a list
				for _, n := range f.Value.Content {
					bakllamaSlice(d, d.Open(n, f.Value), &b)
					slices++
				}
			}
		case "embedding_source", "lm_head_source":
			d.Warnf(f.At.Pos, "%s has no effect, as in Python's bakllama", f.Key)
		default:
			d.Errorf(f.At, "unknown key %s in a configuration of bakllama; it has layer_slices, embedding_source and lm_head_source", strictyaml.Quoted(f.Key))
		}
	}
	if len(d.Errs) == 0 && slices == 0 {
		d.Errorf(top, "there are no layer_slices; list slices, each with model, start and end")
	}
	if len(d.Errs) > 0 {
		return nil, strictyaml.Join(d.Errs)
	}
	return []byte(b.String()), nil
}

// bakllamaSlice writes a slice as one of a recipe. Its scale is that of the down projections, so of all that its blocks' MLPs add.
func bakllamaSlice(d *strictyaml.Decoder, x strictyaml.Node, b *strings.Builder) {
	fields, ok := d.Mapping(x, "a slice")
	if !ok {
		return
	}
	var model, scale string
	bounds := map[string]int64{"start": -1, "end": -1}
	for _, f := range fields {
		switch f.Key {
		case "model":
			model, _ = d.Text(f.Value, "model")
		case "start", "end":
			if s, ok := d.Scalar(f.Value, f.Key); ok && (s.Form != strictyaml.FormInt || s.Int < 0) {
				d.Errorf(f.Value, "%s must be the number of a layer; here is %s", f.Key, s.What())
			} else if ok {
				bounds[f.Key] = s.Int
			}
		case "scale":
			switch s, ok := d.Scalar(f.Value, f.Key); {
			case !ok, s.Form == strictyaml.FormNull:
			case s.Form != strictyaml.FormInt && s.Form != strictyaml.FormFloat:
				d.Errorf(f.Value, "scale must be a number; here is %s", s.What())
			default:
				scale = f.Value.Value
			}
		default:
			d.Errorf(f.At, "unknown key %s in a slice; it has model, start, end and scale", strictyaml.Quoted(f.Key))
		}
	}
	if model == "" || bounds["start"] < 0 || bounds["end"] < 0 {
		if len(d.Errs) == 0 {
			d.Errorf(x, "a slice has model, start and end; one of them is missing")
		}
		return
	}
	fmt.Fprintf(b, "  - sources:\n      - model: %s\n        layer_range: [%d, %d]\n", strictyaml.WriteText(model), bounds["start"], bounds["end"])
	if scale != "" {
		fmt.Fprintf(b, "        parameters: {scale: [{filter: down_proj, value: %s}]}\n", scale)
	}
}

// mergeText merges by a recipe that no file holds.
func mergeText(cmd *cobra.Command, name string, text []byte, print bool, out string, o *yamlFlags) error {
	if print && jsonWanted(cmd) {
		writeJSON(os.Stdout, map[string]any{"event": "recipe", "text": string(text)})
	} else if print {
		fmt.Print(string(text))
	}
	mo, choice, err := o.merging(cmd)
	if err != nil {
		return err
	}
	mo.Force = o.replaces(out, "mergekit_config.yml")
	r, err := recipe.Parse(name, text)
	if err != nil {
		return err
	}
	r.Text = text
	return mergeBy(cmd, choice, mo, func(mo merge.Options) (*merge.Summary, error) {
		return merge.RunRecipe(cmd.Context(), r, out, mo)
	})
}
