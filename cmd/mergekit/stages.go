package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
)

// stageFlags are the flags about files with several recipes.
type stageFlags struct {
	cache string
	keep  bool
}

func (o *stageFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.cache, "stage-cache", "", "of a file with several recipes: directory that keeps results of earlier recipes by content (default: stages in MERGEKIT_CACHE, else beside OUT until that is there)")
	f.BoolVar(&o.keep, "keep-stages", false, "of a file with several recipes: write the result of each, and keep it")
}

func (o *stageFlags) options() merge.StageOptions {
	so := merge.StageOptions{Cache: o.cache, Keep: o.keep}
	if base := os.Getenv(evaluation.CacheVariable); so.Cache == "" && base != "" && base != "off" {
		so.Cache = filepath.Join(base, "stages")
	}
	return so
}

// showStage tells of the beginning of stages.
func showStage(cmd *cobra.Command, r merge.StageReport) {
	switch {
	case jsonWanted(cmd):
		writeJSON(os.Stdout, struct {
			Event string `json:"event"`
			merge.StageReport
		}{"stage", r})
	case quietWanted(cmd):
	case r.State == merge.StageMaking:
		fmt.Fprintf(os.Stderr, "stage %s, by %s: %s\n", r.Name, r.Method, r.Dir)
	}
}

// stageText is the line about a stage of a summary.
func stageText(r merge.StageReport) string {
	s := fmt.Sprintf("stage %s, by %s, ", r.Name, r.Method)
	switch r.State {
	case merge.StageFused:
		return s + "was computed where it was read"
	case merge.StageReused:
		return s + "was there already: " + r.Dir
	case merge.StageLeft:
		return s + "was not made: " + r.Why
	}
	return s + fmt.Sprintf("was written to %s in %.1f s (%s)", r.Dir, r.Seconds, r.Why)
}

// planStages prints the plans of a file with several recipes.
func planStages(cmd *cobra.Command, list []*recipe.Recipe, po plan.Options, keep bool, threads int) error {
	type stage struct {
		Name   string         `json:"name,omitempty"`
		Method string         `json:"merge_method"`
		State  string         `json:"state"`
		Why    string         `json:"why,omitempty"`
		Plan   map[string]any `json:"plan,omitempty"`
	}
	var all []stage
	lines := 0
	err := merge.PlanRecipes(list, merge.Options{Plan: po, Stages: merge.StageOptions{Keep: keep}}, func(s *merge.PlannedStage) error {
		one := stage{Name: s.Name, Method: s.Recipe.Method, State: "written", Why: s.Why}
		title := "stage " + s.Name
		switch {
		case s.Output:
			one.State, one.Why, title = "output", "", "output"
		case s.Fused:
			one.State = merge.StageFused
			title += ": computed where it is read"
		default:
			title += ": written, because " + s.Why
		}
		if jsonWanted(cmd) {
			if s.Plan != nil {
				var err error
				if one.Plan, err = planJSON(s.Plan, threads); err != nil {
					return err
				}
			}
			all = append(all, one)
			return nil
		}
		if !quietWanted(cmd) {
			if lines++; lines > 1 {
				fmt.Println()
			}
			fmt.Printf("== %s ==\n", title)
			if s.Plan == nil {
				fmt.Printf("%s: what it reads is known when the stages before it are made\n", s.Recipe.Method)
			}
		}
		if s.Plan != nil {
			printPlan(cmd, s.Plan, threads)
		}
		return nil
	})
	if err == nil && jsonWanted(cmd) {
		b, err := json.Marshal(all)
		if err != nil {
			return err
		}
		writeJSON(os.Stdout, map[string]any{"stages": json.RawMessage(b)})
	}
	return err
}
