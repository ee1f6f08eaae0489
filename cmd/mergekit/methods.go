package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
)

func newMethodsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "methods [NAME]",
		Short: "Document the merge methods: parameters, formula, paper",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return wrongCount(cmd, "one method at most", args)
			}
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return method.Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listMethods(cmd)
			}
			m, ok := method.Get(args[0])
			if !ok {
				near := recipe.Nearest(args[0], method.Names())
				if near != "" {
					near = fmt.Sprintf("; did you mean %q?", near)
				}
				return usageError{fmt.Errorf("unknown merge method %q%s", args[0], near)}
			}
			if jsonWanted(cmd) {
				writeJSON(os.Stdout, m.Describe())
				return nil
			}
			describe(m)
			return nil
		},
	}
}

func listMethods(cmd *cobra.Command) error {
	if jsonWanted(cmd) {
		for _, m := range slices.Concat(method.All(), method.Wholes()) {
			writeJSON(os.Stdout, m.Describe())
		}
		return nil
	}
	rows := [][]string{{"METHOD", "BASE", "INPUTS", "WHAT IT DOES"}}
	for _, m := range slices.Concat(method.All(), method.Wholes()) {
		rows = append(rows, []string{m.Name, m.Base.String(), inputsOf(m), m.Summary})
	}
	table(os.Stdout, rows)
	return nil
}

func inputsOf(m *method.Method) string {
	switch {
	case m.Max == 0:
		return fmt.Sprintf("%d or more", m.Min)
	case m.Max == m.Min:
		return fmt.Sprint(m.Min)
	}
	return fmt.Sprintf("%d to %d", m.Min, m.Max)
}

func describe(m *method.Method) {
	fmt.Printf("%s (%s)\n\n%s\n\n", m.Name, m.Title, m.Summary)
	for _, line := range strings.Split(m.Formula, "\n") {
		fmt.Println("    " + line)
	}
	fmt.Printf("\nbase model: %s; inputs: %s\n", m.Base, inputsOf(m))
	switch {
	case m.Blends:
		fmt.Println("sees models as wholes and measures mixes of them: needs rows of data; the models stream, so memory is that of one")
	case m.Whole:
		fmt.Println("sees models as wholes and measures them: needs calibration data and memory for all of them")
	}
	fmt.Println()
	rows := [][]string{{"PARAMETER", "TYPE", "PER", "DEFAULT", ""}}
	for _, p := range m.Params {
		per, def := "tensor", fmt.Sprint(p.Default)
		if m.Whole {
			per = "merge"
		}
		if p.PerInput {
			per = "model"
		}
		if p.Required {
			def = "required"
		} else if p.Default == nil {
			def = "unset"
		}
		rows = append(rows, []string{p.Name, p.Kind.String(), per, def, p.Doc})
	}
	if len(m.Params) > 0 {
		table(os.Stdout, rows)
		fmt.Println()
	}
	if m.Paper.Text != "" {
		fmt.Println(m.Paper.Text)
	}
	if m.Paper.URL != "" {
		fmt.Println(m.Paper.URL)
	}
}
