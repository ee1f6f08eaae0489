package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/recipe"
)

// findOptions are the flags of verbs that align models in memory.
type findOptions struct {
	recipe.Align
	methods          []string
	residual         string
	universe, verify bool
	alignSeed        uint64
}

// register adds the flags. several says that more than one method may be given.
func (o *findOptions) register(cmd *cobra.Command, several bool) {
	f := cmd.Flags()
	text := "align first, in memory: weight (also where none is named), activation, dual, ste or learned"
	if several {
		text += " (may be given several times)"
	}
	f.StringSliceVar(&o.methods, "align", nil, text)
	o.settings(cmd)
	f.IntVar(&o.Learn.Steps, "steps", 0, "with --align: steps of the methods ste and learned (default: the method's own)")
	f.Float64Var(&o.Learn.LR, "lr", 0, "with --align: learning rate of the methods ste and learned (default: the method's own)")
	f.StringVar(&o.OnSameBase, "on-same-base", o.OnSameBase, "with --align, what to do with fine-tunes of one base: warn, skip or force")
	if several {
		f.BoolVar(&o.universe, "universe", false, "with --align: bring all models to a consensus of them, not to the first one")
	}
}

// settings adds the flags of matching by weights.
func (o *findOptions) settings(cmd *cobra.Command) {
	o.Align = *recipe.DefaultAlign()
	f := cmd.Flags()
	f.StringVar(&o.Symmetry, "symmetry", o.Symmetry, "which symmetries are used: auto, permutation, signed or full")
	f.StringVar(&o.residual, "residual", o.Groups.Residual, "the residual stream in matching: auto, none, permutation, signed or orthogonal")
	f.StringVar(&o.Spec, "spec", "", "file with the symmetry spec of an architecture without a built-in one")
	f.IntVar(&o.Rounds, "rounds", o.Rounds, "rounds of matching residual stream and layers in turns")
	f.IntVar(&o.Restarts, "restarts", o.Restarts, "further runs of matching from other beginnings, of which the best counts")
	f.Uint64Var(&o.alignSeed, "align-seed", 0, "seed of the orders and beginnings of matching")
	f.BoolVar(&o.verify, "verify", false, "check the certificate of every assignment of matching")
}

func (o *findOptions) check() error {
	for _, m := range o.methods {
		if !slices.Contains([]string{recipe.AlignWeight, recipe.AlignActivation, recipe.AlignDual, recipe.AlignSTE, recipe.AlignLearned}, m) {
			return fmt.Errorf("--align %s: unknown; weight, activation, dual, ste and learned are", m)
		}
	}
	for _, c := range []struct {
		flag, value string
		among       []string
	}{
		{"symmetry", o.Symmetry, []string{"auto", "permutation", "signed", "full"}},
		{"residual", o.residual, []string{"auto", "none", "permutation", "signed", "orthogonal"}},
		{"on-same-base", o.OnSameBase, []string{recipe.SameBaseWarn, recipe.SameBaseSkip, recipe.SameBaseForce}},
	} {
		if !slices.Contains(c.among, c.value) {
			return fmt.Errorf("--%s %s: unknown; it is one of %v", c.flag, c.value, c.among)
		}
	}
	if o.Rounds < 1 || o.Restarts < 0 || o.Learn.Steps < 0 || o.Learn.LR < 0 {
		return fmt.Errorf("--rounds must be positive, --restarts, --steps and --lr must not be negative")
	}
	return nil
}

// find finds the maps of a method. data is asked for where the method needs some.
func (o *findOptions) find(cmd *cobra.Command, models []string, method, backendName string, threads int, data func() (calibration.Options, error)) ([]*merge.FoundMap, error) {
	a := o.Align
	a.Method, a.Universe, a.Seed, a.Groups.Residual = method, o.universe, o.alignSeed, o.residual
	if a.Spec == "auto" {
		a.Spec = ""
	}
	var ao merge.AlignOptions
	ao.Threads, ao.Verify, ao.Version = threads, o.verify, version
	if a.NeedsData() {
		from, err := data()
		if err != nil {
			return nil, err
		}
		if from.SeqLen == 0 {
			from.SeqLen = 512
		}
		if from.Samples == 0 {
			from.Samples = math.MaxInt32 // all
		}
		ao.Calibration = &recipe.Calibration{Data: from.Files, Samples: from.Samples, SeqLen: from.SeqLen, Seed: from.Seed, Batch: from.Batch, Divide: from.Divide, LabelFirst: from.LabelFirst}
	}
	b, _, err := backend.Open(backendName)
	if err != nil {
		return nil, usageError{err}
	}
	defer b.Finalize()
	ao.Backend, ao.ModelBackend = b, modelBackend(backendName)
	steps := newStepView(cmd)
	defer steps.end()
	ao.Matching = steps.show
	ao.Warn = func(s string) { steps.end(); warn(cmd, s) }
	return merge.FindMaps(cmd.Context(), models, &a, ao)
}
