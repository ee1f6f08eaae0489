package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/finetune/adapter"
)

// extractLoraFlags are the options of Python mergekit's mergekit-extract-lora.
type extractLoraFlags struct {
	yamlFlags
	extractOptions
	distribute, embed, skip bool
}

// newExtractLoraCommand is the program under the name mergekit-extract-lora. What does not differ from the base is not stored, and
// large matrices are decomposed by random projection; the rest is as there.
func newExtractLoraCommand() *cobra.Command {
	var o extractLoraFlags
	cmd := &cobra.Command{
		Use:   "mergekit-extract-lora --model TUNED --base-model BASE --out-path OUT",
		Short: "Extract an adapter, with the command line of Python's mergekit-extract-lora",
		Args:  exactly(0, "flags only"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runExtractLora(cmd, &o) },
	}
	o.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.tuned, "model", "", "the fine-tuned model")
	f.StringVar(&o.base, "base-model", "", "the model that it was tuned from")
	f.StringVar(&o.extractOptions.out, "out-path", "", "directory to write")
	f.IntVar(&o.Rank, "max-rank", 128, "largest rank of a module")
	bothFlags(cmd, &o.distribute, "distribute-scale", true, "put the square roots of the singular values into both factors")
	bothFlags(cmd, &o.embed, "embed-lora", false, "factors for embeddings and heads too, which else are kept whole")
	f.StringArrayVar(&o.Whole, "save-module", nil, "keep this module whole (repeatable)")
	f.StringArrayVarP(&o.Exclude, "exclude-regex", "e", nil, "leave out modules whose path has this regular expression (repeatable)")
	f.StringArrayVarP(&o.Include, "include-regex", "i", nil, "take only modules whose path has this regular expression (repeatable)")
	f.Float64Var(&o.Floor, "sv-epsilon", 0, "drop singular values up to this one")
	bothFlags(cmd, &o.skip, "skip-undecomposable", false, "leave out norms and whatever else is no matrix")
	f.BoolVar(&o.Exact, "exact", false, "decompose in full (beyond Python's tool)")
	idle(cmd, "allow-crimes", "unsafe-truncate-embeddings", "cuda", "gpu-rich", "device", "backend", "num-threads", "out-shard-size", "copy-tokenizer", "write-model-card", "safe-serialization")
	f.StringVar(&o.dtype, "dtype", "native", "dtype of the adapter (beyond Python's tool)")
	f.StringVar(&o.compat, "compat", adapter.Full, "keys of adapter_config.json: full or minimal (beyond Python's tool)")
	return cmd
}

func runExtractLora(cmd *cobra.Command, o *extractLoraFlags) error {
	if err := required(cmd, "model", "base-model", "out-path"); err != nil {
		return err
	}
	x := &o.extractOptions
	x.OneSided = !o.distribute
	x.Embeddings, x.Others = adapter.Save, adapter.Save
	if o.embed {
		x.Embeddings = adapter.Low
	}
	if o.skip {
		x.Others = adapter.Skip
	}
	if o.seed >= 0 {
		x.Seed = uint64(o.seed)
	}
	x.force = o.replaces(x.out, adapter.ConfigName)
	return extract(cmd, x, map[string][]byte{"README.md": extractCard(x, os.Args[1:])})
}

// extractCard is the adapter's model card.
func extractCard(o *extractOptions, args []string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "---\nbase_model: %s\nlibrary_name: peft\ntags:\n- mergekit\n- peft\n---\n", o.base)
	fmt.Fprintf(&b, "# %s\n\nA LoRA adapter that turns %s into %s, extracted with mergekit %s:\n\n```sh\nmergekit-extract-lora %s\n```\n",
		filepath.Base(o.out), o.base, o.tuned, version, strings.Join(args, " "))
	return []byte(b.String())
}
