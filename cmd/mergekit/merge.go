package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/tensors"
)

// mergeOptions are the flags of the merge command.
type mergeOptions struct {
	planOptions
	backend, maxMemory, shardSize string
	threads                       int
	force, resume                 bool
	noTokenizer, noCard           bool
	noProvenance, hash            bool
	allowNonFinite, verify        bool
	report, part                  string
	stream                        streamOptions
	stages                        stageFlags
}

// planOptions are the flags that change how a recipe is understood; merge and plan share them.
type planOptions struct {
	arith, rng                     string
	seed                           uint64
	strict, crimes, truncate, keep bool
	fuseExperts                    bool
}

func (o *planOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.arith, "arith", "float32", "arithmetic: float32 (one rounding at the end) or native (every operation rounds to the storage dtype, as Python's mergekit does)")
	f.StringVar(&o.rng, "rng", "counter", "random generator of DARE and DELLA: counter (keyed by seed and tensor name) or mergekit (the sequence of Python's mergekit)")
	f.Uint64Var(&o.seed, "seed", 0, "seed of the random generator")
	f.BoolVar(&o.strict, "strict", false, "refuse a recipe with warnings (unknown parameters, tensors left out)")
	f.BoolVar(&o.crimes, "allow-crimes", false, "merge models of different architectures, pairing tensors by their place")
	f.BoolVar(&o.truncate, "unsafe-truncate-embeddings", false, "narrow vocabulary tensors to the smallest model's")
	f.BoolVar(&o.keep, "keep-undescribed", false, "copy tensors of the base (or first) model that its architecture's description does not name")
	f.BoolVar(&o.fuseExperts, "fuse-experts", false, "write fused expert tensors where the inputs have one tensor per expert")
}

func (o *planOptions) plan(cmd *cobra.Command) (plan.Options, error) {
	p := plan.Options{Seed: o.seed, Strict: o.strict, AllowCrimes: o.crimes, TruncateVocabulary: o.truncate, KeepUndescribed: o.keep, FuseExperts: o.fuseExperts, Fetch: fetcher(cmd)}
	switch o.arith {
	case "float32", "f32", "wide":
	case "native":
		p.Arith = method.Native
	default:
		return p, usageError{fmt.Errorf("--arith %s: unknown; use float32 or native", o.arith)}
	}
	switch o.rng {
	case "counter":
	case "mergekit":
		p.RNG = method.Peer
	default:
		return p, usageError{fmt.Errorf("--rng %s: unknown; use counter or mergekit", o.rng)}
	}
	return p, nil
}

func newMergeCommand() *cobra.Command {
	var o mergeOptions
	cmd := &cobra.Command{
		Use:   "merge RECIPE OUT",
		Short: "Merge checkpoints by a recipe",
		Long: `merge reads a YAML recipe, merges the checkpoints that it names and writes the directory OUT.

OUT appears whole or not at all. An interrupted merge (Ctrl-C, kill, power) leaves a hidden directory beside OUT from
which --resume goes on; the result is byte for byte the one of an uninterrupted run. A recipe with search: is merged once
for each trial, measured on its held-out data, and written to OUT with the best numbers; --resume takes finished trials from
the journal beside OUT.

A file may hold several recipes, separated by lines of "---". One with a name is used by others wherever a model may stand; the one
without a name, or else the last, is OUT. Where that is possible, results of earlier recipes are computed as they are read and never
written; others go to --stage-cache, from which an interrupted or edited file goes on.

EXIT STATUS
  0 done, 1 failed, 2 bad recipe, checkpoint or command line, 130 interrupted`,
		Args: exactly(2, "a recipe and an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error { return runMerge(cmd, args[0], args[1], &o) },
	}
	o.register(cmd)
	o.stream.register(cmd)
	o.output(cmd)
	f := cmd.Flags()
	f.StringVar(&o.part, "part", "", "merge a share of the output's shards alone, for example 2/8; 'mergekit join' puts the parts together")
	return cmd
}

// output adds the flags of how an output is made; merge and join share them.
func (o *mergeOptions) output(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.backend, "backend", "auto", "where graphs run: auto, go, gomlx, xla:cpu, xla:cuda or the path of a PJRT plugin")
	f.IntVar(&o.threads, "threads", 0, "worker threads; 0: all cores")
	f.StringVar(&o.maxMemory, "max-memory", "", "bound on anonymous memory, for example 512MiB (default: 2GiB or a quarter of the machine's, whichever is less)")
	f.StringVar(&o.shardSize, "shard-size", "5GB", "largest shard, for example 500MB or 2GiB; 0: one file")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
	f.BoolVar(&o.resume, "resume", false, "finish an interrupted merge")
	f.BoolVar(&o.noTokenizer, "no-copy-tokenizer", false, "do not copy tokenizer and generation files")
	f.BoolVar(&o.noCard, "no-model-card", false, "write neither README.md nor mergekit_config.yml")
	f.BoolVar(&o.noProvenance, "no-provenance", false, "do not write mergekit_provenance.json")
	f.BoolVar(&o.hash, "hash", false, "put the SHA-256 of all inputs and of the weights into mergekit_provenance.json (reads them once more)")
	f.BoolVar(&o.verify, "verify", false, "check that every assignment of an alignment is optimal")
	f.BoolVar(&o.allowNonFinite, "allow-non-finite", false, "accept NaN and infinite values in the result")
	o.stages.register(cmd)
	f.StringVar(&o.report, "report", "", "write a page about the merge: what survives of task vectors, sign conflicts, overlap of masks, distances (costs another pass or two)")
}

func runMerge(cmd *cobra.Command, recipe, out string, o *mergeOptions) error {
	mo, err := o.options(cmd)
	if err != nil {
		return err
	}
	if o.stream.on && o.resume {
		return usageError{fmt.Errorf("--resume does not go with --stream: what an interrupted merge had read was not verified yet; start again with --force, or leave out --stream")}
	}
	if mo.Plan.Fetch, err = o.stream.fetch(cmd); err != nil {
		return err
	}
	mo.Settle = o.stream.settle()
	defer o.stream.close(cmd)
	if o.part != "" {
		if mo.Part, err = tensors.ParsePart(o.part); err != nil {
			return usageError{fmt.Errorf("--part: %w", err)}
		}
	}
	return mergeWith(cmd, recipe, out, o.backend, mo)
}

// options are the flags as the merge takes them.
func (o *mergeOptions) options(cmd *cobra.Command) (merge.Options, error) {
	popts, err := o.plan(cmd)
	if err != nil {
		return merge.Options{}, err
	}
	mo := merge.Options{Plan: popts, Threads: o.threads, Force: o.force, Resume: o.resume, CopyTokenizer: !o.noTokenizer,
		ModelCard: !o.noCard, Provenance: !o.noProvenance, Hash: o.hash, AllowNonFinite: o.allowNonFinite, Verify: o.verify, Version: version, Report: o.report}
	mo.Stages = o.stages.options()
	if mo.ShardBytes, err = parseSize("--shard-size", o.shardSize); err != nil {
		return mo, err
	}
	if mo.ShardBytes == 0 {
		mo.ShardBytes = -1
	}
	if o.maxMemory != "" {
		if mo.MaxMemory, err = parseSize("--max-memory", o.maxMemory); err != nil {
			return mo, err
		}
	}
	if o.threads < 0 {
		return mo, usageError{fmt.Errorf("--threads %d: give a positive number, or 0 for all cores", o.threads)}
	}
	return mo, nil
}

// mergeWith merges the recipe in a file.
func mergeWith(cmd *cobra.Command, recipe, out, choice string, mo merge.Options) error {
	return mergeBy(cmd, choice, mo, func(mo merge.Options) (*merge.Summary, error) {
		return merge.Run(cmd.Context(), recipe, out, mo)
	})
}

// mergeBy opens the backend, merges and renders; all verbs that merge share it.
func mergeBy(cmd *cobra.Command, choice string, mo merge.Options, run func(merge.Options) (*merge.Summary, error)) error {
	b, status, err := backend.Open(choice)
	if err != nil {
		return usageError{err}
	}
	defer b.Finalize()
	mo.Backend = b
	if !quietWanted(cmd) && !jsonWanted(cmd) {
		fmt.Fprintf(os.Stderr, "backend %s: %s\n", status.Kind, status.Detail)
	}
	view := newWorkView(cmd)
	mo.Matching, mo.Repairing = view.show, view.show
	mo.Trial = showTrial(cmd, view.stepView)
	mo.ModelBackend = modelBackend(choice)
	doing := "merging"
	if mo.Join > 0 {
		doing = "checking"
	}
	mo.Warn, mo.Started, mo.Written = view.warn, view.started(doing), view.written
	mo.Stage = func(r merge.StageReport) { view.end(); showStage(cmd, r) }
	s, err := run(mo)
	view.end()
	if err != nil {
		return err
	}
	switch {
	case jsonWanted(cmd):
		writeDone(s)
	case !quietWanted(cmd):
		printSummary(s)
	}
	return nil
}

func printSummary(s *merge.Summary) {
	rate := float64(s.Read+s.Written) / s.Seconds
	if s.Part != "" {
		fmt.Printf("%s: part %s is complete: %s in %d shard%s, in %.1f s\n", s.Output, s.Part, bytesText(s.Written), s.Shards, plural(s.Shards), s.Seconds)
		return
	}
	fmt.Printf("%s: %d tensors, %s parameters by %s in %.1f s\n", s.Output, s.Tensors, count(s.Elements), s.Method, s.Seconds)
	fmt.Printf("  read about %s, wrote %s in %d shard%s (%s/s); peak memory %s anonymous, %s resident\n",
		bytesText(s.Read), bytesText(s.Written), s.Shards, plural(s.Shards), bytesText(int64(rate)), bytesText(s.PeakAnon), bytesText(s.PeakRSS))
	for _, r := range s.Stages {
		fmt.Printf("  %s\n", stageText(r))
	}
	if s.Resumed > 0 {
		fmt.Printf("  %d tensors had been finished before the interruption\n", s.Resumed)
	}
	for i := range s.Aligned {
		fmt.Printf("  %s\n", alignText(&s.Aligned[i]))
		printAlignment(&s.Aligned[i])
	}
	for _, note := range s.Notes {
		fmt.Printf("  %s\n", note)
	}
	if s.Page != "" {
		fmt.Printf("  report: %s\n", s.Page)
	}
	if r := s.Repaired; r != nil {
		fmt.Printf("  repaired by %s: %d units in %d layers, %d batch norms\n", r.Mode, r.Units, len(r.Layers), r.Norms)
	}
	for _, m := range s.Survival {
		fmt.Printf("  task vector of %s: %.1f%% of its %s non-zero entries survived\n", m.Model, 100*m.Share, count(m.NonZero))
	}
	if c := s.Conflicts; c != nil {
		fmt.Printf("  signs disagreed in %.1f%% of the %s entries where several models' task vectors remained\n", 100*c.Share, count(c.Overlap))
	}
	printSearch(s.Search)
	printEvaluated(s.Evaluated)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// count renders a number of parameters.
func count(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2fB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	}
	return strconv.FormatInt(n, 10)
}

// parseSize reads a size in bytes: decimal (k, M, G, kB, MB, GB) or binary (KiB, MiB, GiB) units.
func parseSize(flag, s string) (int64, error) {
	num := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToLower(strings.TrimSpace(s[len(num):]))
	scale, ok := map[string]float64{"": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "t": 1e12, "tb": 1e12,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}[unit]
	v, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
	if !ok || err != nil || v < 0 || v*scale > 1<<60 {
		return 0, usageError{fmt.Errorf("%s %s: not a size; write for example 500MB or 2GiB", flag, s)}
	}
	return int64(v * scale), nil
}
