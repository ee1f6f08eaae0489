package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/stream"
)

func newPlanCommand() *cobra.Command {
	var o planOptions
	var streamed streamOptions
	var threads int
	var keep bool
	var sets []string
	cmd := &cobra.Command{
		Use:   "plan RECIPE",
		Short: "Show what a recipe would do, without reading weights",
		Long: `plan reads a recipe and the headers of its checkpoints and prints every output tensor with its inputs and resolved
parameters, the bytes to read and write and the memory that the merge needs. What plan accepts, merge does. Of a file with several
recipes it prints all, and which of them are computed where they are read.

Of a fine-tuning file it prints the batch shapes that will be compiled, the memory of each, steps and work; it reads the rows and
no weights.

EXIT STATUS
  0 the recipe is good, 2 it is not`,
		Args: exactly(1, "a recipe"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if looksLikeFinetuning(args[0]) {
				return planFinetuning(cmd, args[0], sets)
			}
			if len(sets) > 0 {
				return usageError{fmt.Errorf("--set changes fine-tuning files; %s is a recipe", args[0])}
			}
			po, err := o.plan(cmd)
			if err != nil {
				return err
			}
			if po.Fetch, err = streamed.fetch(cmd); err != nil {
				return err
			}
			defer streamed.close(cmd)
			return runPlan(cmd, args[0], po, keep, threads)
		},
	}
	o.register(cmd)
	streamed.register(cmd)
	cmd.Flags().StringArrayVar(&sets, "set", nil, "change a key of a fine-tuning file: --set train.micro_batch=8 (repeatable)")
	cmd.Flags().BoolVar(&keep, "keep-stages", false, "of a file with several recipes: plan for a merge with this flag, in which no stage is computed where it is read")
	cmd.Flags().IntVar(&threads, "threads", 0, "worker threads that the memory estimate assumes; 0: all cores")
	return cmd
}

func runPlan(cmd *cobra.Command, file string, po plan.Options, keep bool, threads int) error {
	list, _, err := recipe.ParseAllFile(file)
	if err != nil {
		return err
	}
	if len(list) > 1 {
		return planStages(cmd, list, po, keep, threads)
	}
	po.OpenAdapter = merge.OpenAdapter
	components, err := merge.Components(list[0], merge.Options{Plan: po})
	if err != nil {
		return err
	}
	if len(components) > 0 {
		return planComponents(cmd, components, po, threads)
	}
	p, err := plan.Build(list[0], po)
	if err != nil {
		if components, other := merge.Components(list[0], merge.Options{Plan: po}); len(components) > 0 && other == nil { // that came from a hub
			return planComponents(cmd, components, po, threads)
		}
		return &merge.InputError{Err: err}
	}
	defer p.Close()
	if jsonWanted(cmd) {
		m, err := planJSON(p, threads)
		if err != nil {
			return err
		}
		writeJSON(os.Stdout, m)
		return nil
	}
	printPlan(cmd, p, threads)
	return nil
}

// planComponents shows the plans of a pipeline's components, as they are merged one after the other.
func planComponents(cmd *cobra.Command, components []merge.Component, po plan.Options, threads int) error {
	var all []map[string]any
	for _, c := range components {
		p, err := plan.Build(c.Recipe, po)
		if err != nil {
			return &merge.InputError{Err: err}
		}
		if jsonWanted(cmd) {
			var m map[string]any
			if m, err = planJSON(p, threads); err == nil {
				all = append(all, map[string]any{"name": c.Name, "plan": m})
			}
		} else if !quietWanted(cmd) {
			fmt.Printf("== component %s ==\n", c.Name)
			printPlan(cmd, p, threads)
		}
		p.Close()
		if err != nil {
			return err
		}
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, map[string]any{"components": all})
	}
	return nil
}

// planJSON is a plan with the memory that it needs.
func planJSON(p *plan.Plan, threads int) (map[string]any, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	m["peak_anonymous_bytes"] = stream.MemoryEstimate(threads, p.Widest(), p.Holds())
	return m, nil
}

// printPlan prints a plan and its warnings.
func printPlan(cmd *cobra.Command, p *plan.Plan, threads int) {
	for _, w := range p.Warnings {
		warn(cmd, w)
	}
	if quietWanted(cmd) {
		return
	}
	memory := stream.MemoryEstimate(threads, p.Widest(), p.Holds())
	rows := [][]string{{"TENSOR", "SHAPE", "DTYPE", "INPUTS", "PARAMETERS"}}
	for _, t := range p.Tasks {
		rows = append(rows, []string{t.Name, strings.ReplaceAll(fmt.Sprint(t.Shape), " ", "×"), t.DType.String(), inputsText(t), paramsText(t)})
	}
	table(os.Stdout, rows)
	kind := p.Arch.Name
	if p.Arch.Inferred {
		kind = "inferred from the tensors' names"
	}
	fmt.Printf("\n%s of %d models; architecture: %s\n", p.Method.Name, len(p.Models), kind)
	for _, line := range slices.Concat(alignPlanText(p), vocabularyPlanText(p), searchPlanText(p)) {
		fmt.Println(line)
	}
	fmt.Printf("%d tensors, %s parameters; reads about %s, writes %s; needs about %s of memory beside the mapped files\n",
		len(p.Outputs()), count(p.Elements()), bytesText(p.BytesRead()), bytesText(p.BytesWritten()), bytesText(memory))
}

// vocabularyPlanText says which tokens the output has, where the recipe asks for a tokenizer.
func vocabularyPlanText(p *plan.Plan) (lines []string) {
	if v := p.Vocabulary; v != nil {
		tokens := len(v.Tokenizer.Vocabulary())
		line := fmt.Sprintf("vocabulary: %d tokens, %d of them new, %d taken out, in %d rows; from %s", tokens, len(v.Tokenizer.New), len(v.Tokenizer.Removed), v.Rows, filepath.Join(v.Dir, "tokenizer.json"))
		lines = append(lines, line)
	}
	if p.Template != "" {
		lines = append(lines, fmt.Sprintf("chat template: %s", templateName(p.Recipe)))
	}
	return lines
}

// templateName is a chat template as the recipe has it: its name, or that it is one of the recipe's own.
func templateName(r *recipe.Recipe) string {
	if r.ChatTemplate == "auto" || slices.Contains(recipe.ChatTemplates(), r.ChatTemplate) {
		return r.ChatTemplate
	}
	return "the recipe's own"
}

// alignPlanText says what is aligned before the merge.
func alignPlanText(p *plan.Plan) []string {
	if p.Aligned == nil {
		return nil
	}
	to := "a consensus of all models"
	if ref := p.Aligned.Reference; ref != nil {
		to = ref.Name()
	}
	var lines []string
	for _, m := range p.Aligned.Models {
		how := p.Aligned.Recipe.Method + " matching, which reads all weights"
		if f := p.Aligned.Map(m); f != nil {
			how = "the map " + f.File
		}
		lines = append(lines, fmt.Sprintf("%s is brought into the coordinates of %s by %s", m.Name(), to, how))
	}
	return append(lines, "dtypes are those of maps that only move values; a map that computes makes the tensors of its model float32")
}

func inputsText(t *plan.Task) string {
	var s []string
	for i, in := range t.Inputs {
		n := in.Model.Name()
		if in.Name() != t.Name {
			n += ":" + in.Name()
		}
		if i == t.Base {
			n += " (base)"
		}
		s = append(s, n)
	}
	return strings.Join(s, ", ")
}

func paramsText(t *plan.Task) string {
	if t.Copy {
		return "copied"
	}
	var s []string
	for _, k := range keys(t.Shared) {
		s = append(s, fmt.Sprintf("%s=%v", k, t.Shared[k]))
	}
	names := map[string]any{}
	for _, p := range t.PerInput {
		for k := range p {
			names[k] = nil
		}
	}
	for _, k := range keys(names) {
		var v []string
		for _, p := range t.PerInput {
			if x, ok := p[k]; ok {
				v = append(v, fmt.Sprintf("%.4g", x))
			} else {
				v = append(v, "-")
			}
		}
		s = append(s, fmt.Sprintf("%s=[%s]", k, strings.Join(v, " ")))
	}
	return strings.Join(s, " ")
}

func keys(m map[string]any) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
