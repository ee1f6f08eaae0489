package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/moe"
	"github.com/mergekit/mergekit/merge/plan"
)

// moeOptions are the flags of the moe command.
type moeOptions struct {
	moe.Options
	backend, shardSize          string
	noTokenizer, noCard, dryRun bool
	noProvenance                bool
}

func newMoECommand() *cobra.Command {
	var o moeOptions
	cmd := &cobra.Command{
		Use:   "moe CONFIG OUT",
		Short: "Assemble a mixture of experts out of dense models",
		Long: `moe reads a configuration of Python's mergekit-moe and writes the directory OUT: everything but the feed-forward blocks comes from
base_model, the feed-forward block of each model under experts becomes an expert, and a router in every layer sends a token to a few of them.
The output is a Mixtral (llama and mistral models), a Qwen2 MoE (llama, mistral, qwen2; with a shared expert), a Qwen3 MoE (qwen3) or a
DeepSeek MoE (llama, mistral); architecture: chooses where several would do.

gate_mode says how the router is made: from the hidden states of prompts that an expert should answer (hidden, hidden_avg), from the
embeddings of their tokens (cheap_embed), or at random, to be trained (random, uniform_random). The hidden modes run the base over the prompts,
with the weights of one block in memory at a time.

Experts may be BASE+ADAPTER. --dry-run prints what would be written and reads no weights. OUT appears whole or not at all; --resume finishes
an interrupted run.

EXIT STATUS
  0 done, 1 failed, 2 bad configuration, model or command line, 130 interrupted`,
		Args: moeArguments(&o),
		RunE: func(cmd *cobra.Command, args []string) error { return runMoE(cmd, args, &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.Plan.Layout, "layout", moe.LayoutExperts, "how experts are stored: experts (a tensor for each matrix, what most programs read) or fused (two tensors a layer, as transformers 5 holds them)")
	f.Uint64Var(&o.Plan.Seed, "seed", 0, "of routers that are drawn and of noise_scale")
	f.BoolVar(&o.Plan.Useless, "i-understand-this-is-not-useful-without-training", false, "experts may all be one model")
	f.BoolVar(&o.Plan.AllowCrimes, "allow-crimes", false, "experts may be of another model type than the base")
	f.StringVar(&o.backend, "backend", "auto", "where the base runs over the prompts: auto, go, xla:cpu, xla:cuda or the path of a PJRT plugin")
	f.IntVar(&o.Threads, "threads", 0, "threads that read and write; 0: all cores")
	f.StringVar(&o.shardSize, "shard-size", "5GB", "largest shard, for example 500MB or 2GiB; 0: one file")
	f.BoolVar(&o.Force, "force", false, "replace an existing output")
	f.BoolVar(&o.Resume, "resume", false, "finish an interrupted run")
	f.BoolVar(&o.AllowNonFinite, "allow-non-finite", false, "accept NaN and infinite values in the output")
	f.BoolVar(&o.noTokenizer, "no-copy-tokenizer", false, "do not copy tokenizer and generation files")
	f.BoolVar(&o.noCard, "no-model-card", false, "write neither README.md nor mergekit_moe_config.yml")
	f.BoolVar(&o.noProvenance, "no-provenance", false, "do not write mergekit_provenance.json")
	f.BoolVar(&o.Hash, "hash", false, "put the SHA-256 of all inputs and of the weights into mergekit_provenance.json (reads them once more)")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the tensors that would be written, and stop")
	return cmd
}

// moeArguments wants a configuration and an output, which --dry-run does not need.
func moeArguments(o *moeOptions) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if o.dryRun && len(args) == 1 {
			return nil
		}
		return exactly(2, "a configuration and an output directory")(cmd, args)
	}
}

func runMoE(cmd *cobra.Command, args []string, o *moeOptions) error {
	if o.Threads < 0 {
		return usageError{fmt.Errorf("--threads %d: give a positive number, or 0 for all cores", o.Threads)}
	}
	switch o.Plan.Layout {
	case moe.LayoutExperts, moe.LayoutFused:
	default:
		return usageError{fmt.Errorf("--layout %s: unknown; use %s or %s", o.Plan.Layout, moe.LayoutExperts, moe.LayoutFused)}
	}
	var err error
	if o.ShardBytes, err = parseSize("--shard-size", o.shardSize); err != nil {
		return err
	}
	if o.ShardBytes == 0 {
		o.ShardBytes = -1
	}
	o.Plan.Models = plan.Options{Fetch: fetcher(cmd), OpenAdapter: merge.OpenAdapter}
	if o.dryRun {
		return showMoEPlan(cmd, args[0], o)
	}
	o.CopyTokenizer, o.ModelCard, o.Provenance, o.Version = !o.noTokenizer, !o.noCard, !o.noProvenance, version
	view := newWorkView(cmd)
	o.Gate = moe.GateOptions{Backend: modelBackend(o.backend), Progress: view.show}
	o.Warn, o.Started, o.Written = view.warn, view.started("assembling"), view.written
	s, err := moe.Run(cmd.Context(), args[0], args[1], o.Options)
	view.end()
	if err != nil {
		return err
	}
	switch {
	case jsonWanted(cmd):
		writeDone(s)
	case !quietWanted(cmd):
		fmt.Printf("%s: %s of %d experts%s, %d for each token: %s parameters, a token meets %s; router by %s\n", s.Output, s.Architecture, s.Experts, sharedText(s.Shared), s.PerToken, count(s.Parameters), count(s.Active), s.Gate)
		fmt.Printf("  %d tensors, wrote %s in %d shard%s in %.1f s; peak memory %s anonymous, %s resident\n", s.Tensors, bytesText(s.Written), s.Shards, plural(s.Shards), s.Seconds, bytesText(s.PeakAnon), bytesText(s.PeakRSS))
	}
	return nil
}

func sharedText(n int) string {
	if n == 0 {
		return ""
	}
	return " and a shared one"
}

// showMoEPlan prints what would be written.
func showMoEPlan(cmd *cobra.Command, file string, o *moeOptions) error {
	c, err := moe.ParseFile(file)
	if err != nil {
		return err
	}
	p, err := moe.Build(c, o.Plan)
	if err != nil {
		return err
	}
	defer p.Close()
	all, active := p.Parameters()
	if jsonWanted(cmd) {
		type row struct {
			Name    string   `json:"name"`
			Shape   []int    `json:"shape"`
			DType   string   `json:"dtype"`
			Sources []string `json:"sources"`
		}
		var rows []row
		for _, t := range p.Tasks {
			rows = append(rows, row{t.Name, t.Shape, t.DType.String(), moeSources(t)})
		}
		writeJSON(os.Stdout, map[string]any{"event": "plan", "architecture": p.Family, "gate_mode": c.Gate, "parameters": all, "active_parameters": active, "bytes_written": p.Bytes(), "warnings": append([]string{}, p.Warnings...), "tensors": rows})
		return nil
	}
	for _, w := range p.Warnings {
		warn(cmd, w)
	}
	if quietWanted(cmd) {
		return nil
	}
	rows := [][]string{{"TENSOR", "SHAPE", "DTYPE", "FROM"}}
	for _, t := range p.Tasks {
		sources := moeSources(t)
		from := strings.Join(sources, ", ")
		if n := len(sources); n > 2 {
			from = fmt.Sprintf("%s, ... %d more", sources[0], n-1)
		}
		rows = append(rows, []string{t.Name, strings.ReplaceAll(fmt.Sprint(t.Shape), " ", "×"), t.DType.String(), from})
	}
	table(os.Stdout, rows)
	fmt.Printf("\n%s of %d experts%s, %d for each token; router by %s\n", p.Family, len(c.Experts), sharedText(len(c.Shared)), c.PerToken, c.Gate)
	fmt.Printf("%d tensors, %s parameters, of which a token meets %s; writes %s\n", len(p.Tasks), count(all), count(active), bytesText(p.Bytes()))
	return nil
}

// moeSources says where a tensor's values come from.
func moeSources(t *moe.Task) []string {
	var list []string
	for i := range t.Parts {
		part := &t.Parts[i]
		s := part.Source()
		if part.Noise != 0 {
			s += fmt.Sprintf(" + noise %g", part.Noise)
		}
		if part.Scale != 1 {
			s += fmt.Sprintf(" × %g", part.Scale)
		}
		list = append(list, s)
	}
	return list
}

// moeFlags are the options of Python mergekit's mergekit-moe.
type moeFlags struct {
	yamlFlags
	useless, in4, in8 bool
	layout            string
}

// newPeerMoECommand is the program under the name mergekit-moe. Experts are stored one by one, which more programs read than the fused
// tensors of that tool; --layout fused writes those.
func newPeerMoECommand() *cobra.Command {
	var o moeFlags
	cmd := &cobra.Command{
		Use:   "mergekit-moe CONFIG_PATH OUT_PATH",
		Short: "Assemble a mixture of experts, with the command line of Python's mergekit-moe",
		Args:  exactly(2, "a configuration and an output directory"),
		RunE:  func(cmd *cobra.Command, args []string) error { return runPeerMoE(cmd, args, &o) },
	}
	o.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.in4, "load-in-4bit", false, "no effect: one block of the base is in memory at a time")
	f.BoolVar(&o.in8, "load-in-8bit", false, "no effect: one block of the base is in memory at a time")
	f.BoolVar(&o.useless, "i-understand-this-is-not-useful-without-training", false, "experts may all be one model")
	f.StringVar(&o.layout, "layout", moe.LayoutExperts, "experts or fused (beyond Python's tool)")
	return cmd
}

func runPeerMoE(cmd *cobra.Command, args []string, o *moeFlags) error {
	if !o.safe {
		return usageError{fmt.Errorf("--no-safe-serialization: pickled checkpoints are not written; leave the option out for safetensors, which every loader reads")}
	}
	m := moeOptions{backend: o.backend, noTokenizer: !o.copyTokenizer, noCard: !o.card, shardSize: "0"}
	shard, err := yamlShardSize(o.shard)
	if err != nil {
		return err
	}
	if shard > 0 {
		m.shardSize = fmt.Sprint(shard)
	}
	if m.backend == "" {
		m.backend = "auto"
		if o.cuda || o.gpuRich || strings.HasPrefix(o.device, "cuda") {
			m.backend = "xla:cuda"
		}
	}
	m.Threads = o.threads
	m.Plan = moe.PlanOptions{Layout: o.layout, Useless: o.useless, AllowCrimes: o.crimes}
	if o.seed >= 0 {
		m.Plan.Seed = uint64(o.seed)
	}
	_, err = os.Stat(filepath.Join(args[1], "mergekit_moe_config.yml"))
	m.Force = o.force || err == nil // Python's tool writes over an earlier mixture
	return runMoE(cmd, args, &m)
}
