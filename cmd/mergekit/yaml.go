package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/method"
)

// yamlFlags are the options of Python mergekit's mergekit-yaml. Where it loads everything or holds it in memory this
// program has nothing to choose, so those options are accepted and have no effect.
type yamlFlags struct {
	crimes, truncate, cuda, copyTokenizer, card, lowCPU, readToGPU, multiGPU, gpuRich bool
	lazy, clone, trust, safe, async                                                   bool
	device, shard, loraCache, loraDType, backend, report                              string
	seed                                                                              int64
	threads, writeThreads, verbose                                                    int
	resume, force                                                                     bool
}

// newYAMLCommand is the program under the name mergekit-yaml: the command line of Python's tool, so that scripts run
// unchanged. As there, an earlier merge in the output directory is replaced, and --random-seed seeds that tool's generator.
func newYAMLCommand() *cobra.Command {
	var o yamlFlags
	cmd := &cobra.Command{
		Use:   "mergekit-yaml CONFIG_FILE OUT_PATH",
		Short: "Merge by a recipe, with the command line of Python's mergekit-yaml",
		Args:  exactly(2, "a recipe and an output directory"),
		RunE:  func(cmd *cobra.Command, args []string) error { return runYAML(cmd, args[0], args[1], &o) },
	}
	o.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.resume, "resume", false, "finish an interrupted merge (beyond Python's tool)")
	f.StringVar(&o.report, "report", "", "write a page about the merge (beyond Python's tool)")
	return cmd
}

// register adds the options that all commands of Python's tool share, and --json, --backend and --force.
func (o *yamlFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	both := func(v *bool, name string, def bool, usage string) { bothFlags(cmd, v, name, def, usage) }
	both(&o.crimes, "allow-crimes", false, "merge models of different architectures")
	both(&o.truncate, "unsafe-truncate-embeddings", false, "narrow vocabulary tensors to the smallest")
	both(&o.trust, "trust-remote-code", false, "no effect: no code of a model is ever run")
	f.StringVar(&o.loraCache, "lora-merge-cache", "", "no effect: nothing is materialised")
	f.StringVar(&o.loraDType, "lora-merge-dtype", "", "no effect")
	both(&o.cuda, "cuda", false, "compute on the GPU")
	f.StringVar(&o.device, "device", "", "cpu, cuda or auto")
	both(&o.lowCPU, "low-cpu-memory", false, "no effect: memory is bounded")
	both(&o.readToGPU, "read-to-gpu", false, "no effect")
	both(&o.multiGPU, "multi-gpu", false, "no effect: one GPU is used")
	both(&o.gpuRich, "gpu-rich", false, "compute on the GPU")
	f.IntVarP(&o.threads, "num-threads", "j", 0, "worker threads")
	both(&o.lazy, "lazy-unpickle", false, "no effect: tensors are always read lazily")
	f.StringVar(&o.shard, "out-shard-size", "5B", "bytes per shard, with the decimal suffixes K, M, B")
	both(&o.copyTokenizer, "copy-tokenizer", true, "copy tokenizer files")
	both(&o.clone, "clone-tensors", false, "no effect")
	both(&o.card, "write-model-card", true, "write README.md and mergekit_config.yml")
	both(&o.safe, "safe-serialization", true, "write safetensors")
	both(&o.async, "async-write", false, "no effect: writing always overlaps")
	f.IntVar(&o.writeThreads, "write-threads", 1, "no effect")
	f.Int64Var(&o.seed, "random-seed", -1, "seed of Python mergekit's random sequence")
	f.CountVarP(&o.verbose, "verbose", "v", "accepted")
	registerHub(cmd)
	bothFlags(cmd, new(bool), "quiet", false, "no progress and no summary")
	f.Bool("json", false, "machine-readable output")
	f.StringVar(&o.backend, "backend", "", "where graphs run (beyond Python's tool): auto, go, xla:cpu, xla:cuda or a plugin's path")
	f.BoolVar(&o.force, "force", false, "replace the output directory even if it holds no earlier merge (beyond Python's tool)")
}

// idle marks shared options that a command has no use for, so that --help does not promise what they do elsewhere.
func idle(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		cmd.Flags().Lookup(name).Usage = "no effect"
	}
}

// bothFlags adds --NAME and --no-NAME.
func bothFlags(cmd *cobra.Command, v *bool, name string, def bool, usage string) {
	cmd.Flags().BoolVar(v, name, def, usage)
	noFlag(cmd, v, name)
}

// noFlag adds --no-NAME.
func noFlag(cmd *cobra.Command, v *bool, name string) {
	no := cmd.Flags().VarPF((*negated)(v), "no-"+name, "", "the opposite of --"+name)
	no.NoOptDefVal = "true"
	no.Hidden = true
}

// negated is a flag that clears a bool.
type negated bool

func (n *negated) String() string   { return strconv.FormatBool(!bool(*n)) }
func (n *negated) Type() string     { return "bool" }
func (n *negated) IsBoolFlag() bool { return true }
func (n *negated) Set(s string) error {
	v, err := strconv.ParseBool(s)
	*n = negated(!v)
	return err
}

func runYAML(cmd *cobra.Command, recipe, out string, o *yamlFlags) error {
	mo, choice, err := o.merging(cmd)
	if err != nil {
		return err
	}
	mo.Force, mo.Resume, mo.Report = o.replaces(out, "mergekit_config.yml") && !o.resume, o.resume, o.report
	return mergeWith(cmd, recipe, out, choice, mo)
}

// merging are the options as a merge takes them, and the backend.
func (o *yamlFlags) merging(cmd *cobra.Command) (mo merge.Options, choice string, err error) {
	if !o.safe {
		return mo, "", usageError{fmt.Errorf("--no-safe-serialization: pickled checkpoints are not written; leave the option out for safetensors, which every loader reads")}
	}
	p := planOptions{arith: "float32", rng: "counter", crimes: o.crimes, truncate: o.truncate}
	po, err := p.plan(cmd)
	if err != nil {
		return mo, "", err
	}
	if o.seed >= 0 {
		po.RNG, po.Seed = method.Peer, uint64(o.seed)
	}
	if o.threads < 0 {
		return mo, "", usageError{fmt.Errorf("--num-threads %d: give a positive number, or 0 for all cores", o.threads)}
	}
	shard, err := yamlShardSize(o.shard)
	if err != nil {
		return mo, "", err
	}
	choice = o.backend
	if choice == "" {
		choice = "auto"
		switch {
		case o.cuda || o.gpuRich || strings.HasPrefix(o.device, "cuda"):
			choice = "xla:cuda"
		case o.device == "cpu":
			choice = "go"
		case o.device != "" && o.device != "auto":
			return mo, "", usageError{fmt.Errorf("--device %s: unknown; use cpu, cuda or auto", o.device)}
		}
	}
	return merge.Options{Plan: po, Threads: o.threads, ShardBytes: shard, CopyTokenizer: o.copyTokenizer, ModelCard: o.card, Version: version}, choice, nil
}

// replaces says whether what is in the output directory may be replaced. Python's tools write over an earlier output. So do their names of this
// program, but only over one, by a file that it has: a directory that holds something else is not replaced unless --force says so.
func (o *yamlFlags) replaces(out, mark string) bool {
	_, err := os.Stat(filepath.Join(out, mark))
	return o.force || err == nil
}

// yamlShardSize reads 5B, 500M, 2000K or plain bytes: decimal, integers only, as Python's tool does.
func yamlShardSize(s string) (int64, error) {
	bad := usageError{fmt.Errorf("--out-shard-size %s: not a size; write an integer with K, M or B, for example 5B or 500M", s)}
	scale := int64(1)
	num := s
	if n := len(s); n > 0 {
		if f, ok := map[byte]int64{'k': 1e3, 'm': 1e6, 'b': 1e9}[s[n-1]|0x20]; ok {
			scale, num = f, s[:n-1]
		}
	}
	v, err := strconv.ParseInt(num, 10, 64)
	if err != nil || v > 1<<40 || v < -1<<40 {
		return 0, bad
	}
	if v <= 0 {
		return -1, nil
	}
	return v * scale, nil
}
