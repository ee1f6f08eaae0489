package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/recipe"
)

// alignOptions are the flags of the align command.
type alignOptions struct {
	recipe.Align
	mergeFlags
	out, save, dtype, residual string
	noMLP, noHeads, noQK       bool
	universe, check, verify    bool
	random                     int64
	kinds                      []string
	scales                     bool
	data                       []string
	field                      string
	samples, seqLen            int
	learnGroups                []string
	divide                     float64
	labelFirst                 bool
}

// mergeFlags are those that writing a checkpoint by a backend has.
type mergeFlags struct {
	backend, maxMemory, shardSize string
	threads                       int
	force                         bool
}

func newAlignCommand() *cobra.Command {
	o := &alignOptions{Align: *recipe.DefaultAlign()}
	cmd := &cobra.Command{
		Use:   "align A B... -o OUT",
		Short: "Bring models into the coordinates of another one, without changing what they compute",
		Long: `align finds the map that brings B close to A (permutations of units and heads, rotary phases, signs, scales, rotations of
the residual stream), and writes B under that map: the same function, in A's coordinates. A stays as it is. With three and
more models OUT holds a directory for each of the others; --universe brings all of them to a consensus.

An align block in a recipe does the same as the models stream, without an aligned copy.

  mergekit align --check MODEL|FAMILY...     applies random elements of the symmetry spec and compares outputs; of a family
                                             with small models of it; of all families if none is named
  mergekit align --random SEED MODEL -o OUT  writes MODEL under a random map: another checkpoint of the same function

EXIT STATUS
  0 done, 1 failed, 2 bad input, or a group that is no symmetry, 130 interrupted`,
		Args: o.args,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.out, "out", "o", "", "directory to write")
	f.StringVar(&o.save, "save", "", "file that keeps the map (alignment.safetensors), for recipes and for transport")
	f.StringVar(&o.Symmetry, "symmetry", o.Symmetry, "auto, permutation, signed or full (auto unties no shared embeddings)")
	f.StringVar(&o.Spec, "spec", "", "file with the symmetry spec of an architecture without a built-in one")
	f.StringVar(&o.Method, "method", o.Method, "weight, activation, dual, ste or learned; all but weight need --data")
	f.StringVar(&o.residual, "residual", o.Groups.Residual, "the residual stream: auto, none, permutation, signed or orthogonal")
	f.StringVar(&o.Groups.VO, "vo", o.Groups.VO, "values and outputs of heads: none, orthogonal or invertible")
	f.BoolVar(&o.noMLP, "no-mlp", false, "leave the units of MLPs where they are")
	f.BoolVar(&o.noHeads, "no-heads", false, "leave the heads where they are")
	f.BoolVar(&o.noQK, "no-qk", false, "leave queries and keys as they are")
	f.IntVar(&o.Rounds, "rounds", o.Rounds, "rounds of residual stream and layers in turns")
	f.IntVar(&o.Restarts, "restarts", 0, "further runs from other beginnings, of which the best counts")
	f.StringVar(&o.Init, "init", o.Init, "where matching begins: anchors, identity or random")
	f.StringVar(&o.Normalize, "normalize", o.Normalize, "what tensors weigh: none (their part of the distance) or tensor (all the same)")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of orders and beginnings")
	f.StringVar(&o.OnSameBase, "on-same-base", o.OnSameBase, "what to do with fine-tunes of one base, which are aligned already: warn, skip or force")
	f.BoolVar(&o.universe, "universe", false, "bring all models to a consensus of them, the first one too")
	f.BoolVar(&o.verify, "verify", false, "check the certificate of every assignment: that no other one is better")
	f.StringVar(&o.dtype, "dtype", "", "dtype of floating-point tensors (default: their own if values are only moved, else float32)")
	f.StringSliceVar(&o.data, "data", nil, "calibration data: rows of text, or examples of a network that is no language model (repeatable)")
	f.StringVar(&o.field, "field", "", "key of a row that holds its text (default: by the form of the row)")
	f.IntVar(&o.samples, "samples", 512, "rows of the data that are used")
	f.IntVar(&o.seqLen, "seq-len", 512, "tokens of a row")
	f.Float64Var(&o.divide, "divide", 1, "what the numbers of CSV files are divided by, 255 for the bytes of images")
	f.BoolVar(&o.labelFirst, "label-first", false, "labels of CSV files stand before the numbers")
	f.Float64Var(&o.Lambda, "lambda", o.Lambda, "weight of the activations in the method dual")
	f.IntVar(&o.Learn.Steps, "steps", 0, "steps of the methods ste and learned; 0: 300 and 500")
	f.Float64Var(&o.Learn.LR, "lr", 0, "learning rate of the methods ste and learned; 0: 0.01")
	f.StringSliceVar(&o.learnGroups, "learn", o.Learn.Groups, "what the method learned learns: residual, phases, vo, qk, or ids of groups")
	f.BoolVar(&o.check, "check", false, "check that the groups of the spec are symmetries of models or families")
	f.Int64Var(&o.random, "random", -1, "write the model under a random map with this seed")
	f.StringSliceVar(&o.kinds, "kinds", nil, "with --random: kinds of groups that are changed, for example perm,head_group (default: all)")
	f.BoolVar(&o.scales, "scales", false, "with --random: scales and gains too")
	f.StringVar(&o.backend, "backend", "auto", "where products and models are computed: auto, go, xla:cpu, xla:cuda or the path of a PJRT plugin")
	f.IntVar(&o.threads, "threads", 0, "worker threads; 0: all cores")
	f.StringVar(&o.maxMemory, "max-memory", "", "bound on the memory for writing, for example 512MiB")
	f.StringVar(&o.shardSize, "shard-size", "5GB", "largest shard, for example 500MB or 2GiB; 0: one file")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
	return cmd
}

func (o *alignOptions) args(cmd *cobra.Command, args []string) error {
	n := len(args)
	switch {
	case o.check && o.random >= 0:
		return usageError{errors.New("--check and --random are two different things; give one of them")}
	case o.check:
		return nil
	case o.random >= 0 && n != 1:
		return usageError{fmt.Errorf("%s --random SEED takes one model; got %d arguments", cmd.CommandPath(), n)}
	case o.random < 0 && n < 2:
		return usageError{fmt.Errorf("%s takes a reference and at least one model that is brought to it; got %d arguments", cmd.CommandPath(), n)}
	}
	return nil
}

func (o *alignOptions) run(cmd *cobra.Command, args []string) error {
	if err := o.choices(); err != nil {
		return err
	}
	switch {
	case o.check:
		return o.runCheck(cmd, args)
	case o.random >= 0:
		return o.runRandom(cmd, args[0])
	}
	return o.runAlign(cmd, args)
}

// choices checks the words that flags take, as recipes do.
func (o *alignOptions) choices() error {
	for _, c := range []struct {
		flag, value string
		among       []string
	}{
		{"symmetry", o.Symmetry, []string{"auto", "permutation", "signed", "full"}},
		{"method", o.Method, []string{recipe.AlignWeight, recipe.AlignActivation, recipe.AlignDual, recipe.AlignSTE, recipe.AlignLearned}},
		{"residual", o.residual, []string{"auto", "none", "permutation", "signed", "orthogonal"}},
		{"vo", o.Groups.VO, []string{"none", "orthogonal", "invertible"}},
		{"init", o.Init, []string{"anchors", "identity", "random"}},
		{"normalize", o.Normalize, []string{"none", "tensor"}},
		{"on-same-base", o.OnSameBase, []string{recipe.SameBaseWarn, recipe.SameBaseSkip, recipe.SameBaseForce}},
	} {
		if !slices.Contains(c.among, c.value) {
			hint := "it is one of " + strings.Join(c.among, ", ")
			if near := recipe.Nearest(c.value, c.among); near != "" {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
			return usageError{fmt.Errorf("--%s %s: unknown; %s", c.flag, c.value, hint)}
		}
	}
	switch {
	case o.Rounds < 1 || o.Restarts < 0 || o.samples < 1 || o.seqLen < 1 || o.Learn.Steps < 0:
		return usageError{errors.New("--rounds, --samples and --seq-len are at least 1, --restarts and --steps at least 0")}
	case o.Lambda < 0 || o.Lambda > 1:
		return usageError{fmt.Errorf("--lambda %g: give a number between 0 and 1", o.Lambda)}
	case o.threads < 0:
		return usageError{fmt.Errorf("--threads %d: give a positive number, or 0 for all cores", o.threads)}
	}
	o.Groups.Residual, o.Groups.MLP, o.Groups.Heads, o.Groups.QK = o.residual, !o.noMLP, !o.noHeads, !o.noQK
	o.Learn.Groups = o.learnGroups
	o.Universe = o.universe
	if o.Spec == "auto" {
		o.Spec = ""
	}
	return nil
}

func (o *alignOptions) runAlign(cmd *cobra.Command, models []string) error {
	if err := required(cmd, "out"); err != nil {
		return err
	}
	ao := merge.AlignOptions{Save: o.save}
	ao.Threads, ao.Force, ao.Verify, ao.Version = o.threads, o.force, o.verify, version
	var err error
	if ao.DType, err = parseDType(o.dtype); err != nil {
		return err
	}
	if ao.ShardBytes, err = parseSize("--shard-size", o.shardSize); err != nil {
		return err
	}
	if ao.ShardBytes == 0 {
		ao.ShardBytes = -1
	}
	if o.maxMemory != "" {
		if ao.MaxMemory, err = parseSize("--max-memory", o.maxMemory); err != nil {
			return err
		}
	}
	if len(o.data) > 0 {
		ao.Calibration = &recipe.Calibration{Data: o.data, Field: o.field, Samples: o.samples, SeqLen: o.seqLen, Seed: o.Seed, Batch: 8, Divide: o.divide, LabelFirst: o.labelFirst}
	}
	b, status, err := backend.Open(o.backend)
	if err != nil {
		return usageError{err}
	}
	defer b.Finalize()
	ao.Backend = b
	if !quietWanted(cmd) && !jsonWanted(cmd) {
		fmt.Fprintf(os.Stderr, "backend %s: %s\n", status.Kind, status.Detail)
	}
	ao.ModelBackend = modelBackend(o.backend)
	view := newWorkView(cmd)
	ao.Matching, ao.Warn, ao.Started, ao.Written = view.show, view.warn, view.started("writing"), view.written
	list, err := merge.Align(cmd.Context(), models, o.out, &o.Align, ao)
	view.end()
	if err != nil {
		return err
	}
	for _, m := range list {
		switch {
		case jsonWanted(cmd):
			writeJSON(os.Stdout, struct {
				Event string `json:"event"`
				merge.AlignedModel
			}{"aligned", m})
		case !quietWanted(cmd):
			printAligned(&m)
		}
	}
	return nil
}

// modelBackend opens, when it is needed, what forward passes run on.
func modelBackend(choice string) func() (compute.Backend, func(), error) {
	return func() (compute.Backend, func(), error) {
		b, _, err := backend.OpenModel(choice)
		if err != nil {
			return nil, nil, usageError{err}
		}
		return b, b.Finalize, nil
	}
}

func printAligned(m *merge.AlignedModel) {
	fmt.Printf("%s: %s, %d tensors, %d of them changed, %s\n", m.Output, alignText(&m.AlignReport), m.Tensors, m.Changed, bytesText(m.Bytes))
	printAlignment(&m.AlignReport)
	if m.SavedTo != "" {
		fmt.Printf("  map: %s\n", m.SavedTo)
	}
}

// alignText says in whose coordinates a model is.
func alignText(r *merge.AlignReport) string {
	if r.Skipped != "" {
		return fmt.Sprintf("%s as it was (%s)", r.Model, r.Skipped)
	}
	how := r.Method + " matching"
	if r.File != "" {
		how = "the map " + r.File
	}
	return fmt.Sprintf("%s in the coordinates of %s by %s", r.Model, r.Reference, how)
}

// printAlignment prints the figures of an alignment, below a line that says what was aligned.
func printAlignment(r *merge.AlignReport) {
	if f := r.Matched; f != nil {
		rows := [][]string{{"", "BEFORE", "AFTER"}, {"  agreement", fmt.Sprintf("%.6f", f.Before), fmt.Sprintf("%.6f", f.After)}}
		if f.L2Before > 0 || f.L2After > 0 { // a consensus has none
			rows = append(rows, []string{"  distance", fmt.Sprintf("%.4g", f.L2Before), fmt.Sprintf("%.4g", f.L2After)})
		}
		table(os.Stdout, rows)
		fmt.Printf("  %.1f%% of the units moved; %d round%s", 100*f.Moved, f.Rounds, plural(f.Rounds))
		if f.Certificates > 0 {
			fmt.Printf("; %d assignments proved optimal", f.Certificates)
		}
		if r.Anchors > 0 {
			fmt.Printf("; %d tokens anchor the embeddings", r.Anchors)
		}
		fmt.Println()
	}
	if l := r.Learned; l != nil {
		fmt.Printf("  loss of the midpoint on held-out data %.4f -> %.4f (models %.4f and %.4f), best step %d of %d\n", l.HeldOutBefore, l.HeldOutAfter, l.LossReference, l.LossModel, l.Best, l.Steps)
	}
	rows := [][]string{{"  KIND", "GROUPS", "CHANGED"}}
	for _, k := range r.Groups {
		rows = append(rows, []string{"  " + k.Kind, fmt.Sprint(k.Groups), fmt.Sprint(k.Changed)})
	}
	table(os.Stdout, rows)
	if r.Ancestry != "" {
		fmt.Printf("  ancestry: %s\n", r.Ancestry)
	}
}

// runCheck checks specs by what random elements of them do.
func (o *alignOptions) runCheck(cmd *cobra.Command, names []string) error {
	if len(names) == 0 {
		names = align.CheckFamilies()
	}
	b, _, err := backend.OpenModel(o.backend)
	if err != nil {
		return usageError{err}
	}
	defer b.Finalize()
	var failed []error
	for _, name := range names {
		report, err := o.checkOne(cmd, name, b)
		if report == nil {
			return err
		}
		switch {
		case jsonWanted(cmd):
			writeJSON(os.Stdout, checkJSON(report))
		case !quietWanted(cmd):
			printCheck(report)
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (o *alignOptions) checkOne(cmd *cobra.Command, name string, b compute.Backend) (*align.CheckReport, error) {
	if _, err := os.Stat(filepath.Join(name, "config.json")); err != nil {
		if slices.Contains(align.CheckFamilies(), name) {
			return align.CheckFamily(cmd.Context(), name, o.Seed, b)
		}
		if _, err := os.Stat(name); err != nil && !strings.ContainsRune(name, '/') {
			return nil, usageError{fmt.Errorf("%s is neither a directory nor a family; families are %s", name, strings.Join(align.CheckFamilies(), ", "))}
		}
	}
	files, err := findModel(cmd, name, "")
	if err != nil {
		return nil, err
	}
	var spec *symmetry.Spec
	if o.Spec != "" {
		if spec, err = align.SpecFor(files.dir, o.Spec); err != nil {
			return nil, err
		}
	}
	return align.Check(cmd.Context(), files.dir, spec, o.Seed, b)
}

// kindText names what was tried.
func kindText(r *align.CheckResult) string {
	if r.Kind == "" {
		return "all together"
	}
	return string(r.Kind)
}

func checkJSON(r *align.CheckReport) map[string]any {
	var trials []map[string]any
	for i := range r.Results {
		t := &r.Results[i]
		trials = append(trials, map[string]any{"model": t.Model, "groups": t.Groups, "kind": kindText(t), "worst": t.Worst, "ok": t.OK()})
	}
	return map[string]any{"event": "check", "model": r.Model, "ok": len(r.Failed()) == 0, "tolerance": align.CheckTolerance, "trials": trials, "unchecked": r.Unchecked}
}

func printCheck(r *align.CheckReport) {
	type line struct {
		trials, groups int
		worst          float64
		ok             bool
	}
	lines := map[string]*line{}
	var order []string
	for i := range r.Results {
		t := &r.Results[i]
		k := kindText(t)
		if lines[k] == nil {
			lines[k] = &line{ok: true}
			order = append(order, k)
		}
		l := lines[k]
		l.trials++
		l.groups += len(t.Groups)
		l.worst = max(l.worst, t.Worst)
		l.ok = l.ok && t.OK()
	}
	verdict := "the spec holds"
	if n := len(r.Failed()); n > 0 {
		verdict = fmt.Sprintf("%d of %d trials changed the outputs", n, len(r.Results))
	}
	fmt.Printf("%s: %s\n", r.Model, verdict)
	rows := [][]string{{"  KIND", "TRIALS", "LARGEST CHANGE", ""}}
	for _, k := range order {
		l := lines[k]
		state := "ok"
		if !l.ok {
			state = "NO SYMMETRY"
		}
		rows = append(rows, []string{"  " + k, fmt.Sprint(l.trials), fmt.Sprintf("%.2g", l.worst), state})
	}
	table(os.Stdout, rows)
	if len(r.Unchecked) > 0 {
		fmt.Printf("  not read by the forward pass, so not checked: %s\n", strings.Join(r.Unchecked, ", "))
	}
}

// runRandom writes a model under a random map.
func (o *alignOptions) runRandom(cmd *cobra.Command, name string) error {
	if err := required(cmd, "out"); err != nil {
		return err
	}
	files, err := findModel(cmd, name, "")
	if err != nil {
		return err
	}
	if files.adapter != "" {
		return usageError{fmt.Errorf("%s: fuse the adapter first", name)}
	}
	spec, err := align.SpecFor(files.dir, o.Spec)
	if err != nil {
		return err
	}
	if spec, err = spec.Restrict(o.Symmetry, symmetry.Choice{Residual: o.Groups.Residual, MLP: o.Groups.MLP, Heads: o.Groups.Heads, QK: o.Groups.QK, VO: o.Groups.VO}); err != nil {
		return err
	}
	ro := align.RandomOptions{Scales: o.scales, Gains: o.scales}
	if len(o.kinds) > 0 {
		if ro.Kind, err = o.onlyKinds(spec); err != nil {
			return err
		}
	}
	m, err := align.Random(spec, uint64(o.random), ro)
	if err != nil {
		return err
	}
	c, err := checkpoint.Open(files.dir)
	if err != nil {
		return err
	}
	defer c.Close()
	if m.AnyTurned() { // the map can be undone only if it knows which gains were folded
		own, err := align.ReadGains(spec, align.OfCheckpoint(c))
		if err != nil {
			return err
		}
		m = m.WithGains(own, nil)
	}
	if o.save != "" {
		if err := align.CheckSave(o.save, o.out); err != nil {
			return err
		}
	}
	if err := writeAligned(cmd, m, c, files.dir, o.out, o.dtype, o.shardSize, o.force); err != nil {
		return err
	}
	if o.save != "" {
		return m.Save(o.save)
	}
	return nil
}

// onlyKinds draws for each group the widest of the wanted kinds that it allows, and leaves others alone.
func (o *alignOptions) onlyKinds(spec *symmetry.Spec) (func(g *symmetry.Group) symmetry.Kind, error) {
	known := []string{string(symmetry.Perm), string(symmetry.SignedPerm), string(symmetry.ScaledPerm), string(symmetry.Orthogonal),
		string(symmetry.RopePlane), string(symmetry.HeadGroup), string(symmetry.Invertible)}
	for _, k := range o.kinds {
		if !slices.Contains(known, k) {
			return nil, usageError{fmt.Errorf("--kinds %s: unknown; kinds are %s", k, strings.Join(known, ", "))}
		}
	}
	choose := func(g *symmetry.Group) symmetry.Kind {
		for i := len(g.Kinds) - 1; i >= 0; i-- {
			if slices.Contains(o.kinds, string(g.Kinds[i])) {
				return g.Kinds[i]
			}
		}
		return ""
	}
	for i := range spec.Groups {
		if choose(&spec.Groups[i]) != "" {
			return choose, nil
		}
	}
	return nil, usageError{fmt.Errorf("--kinds %s: no group of the spec %s allows any of them", strings.Join(o.kinds, ","), spec.Name)}
}
