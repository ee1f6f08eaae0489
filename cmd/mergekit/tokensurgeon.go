package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/progress"
	"github.com/mergekit/mergekit/merge/surgeon"
)

// tokensurgeonOptions are the flags of the tokensurgeon command.
type tokensurgeonOptions struct {
	surgeon.Options
	shardSize string
	noCard    bool
}

// register adds the flags that the verb and Python's command share.
func (o *tokensurgeonOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	list := func(names []string) string { return strings.Join(names, ", ") }
	f.StringVarP(&o.Method, "approximation-method", "a", "omp", "how tokens that the model lacks are approximated: "+list(surgeon.Methods()))
	f.IntVarP(&o.K, "k", "k", 64, "shared tokens that an approximation is made of")
	f.BoolVarP(&o.Cosine, "cosine-similarity", "c", false, "nearest by the angle rather than by the distance")
	noFlag(cmd, &o.Cosine, "cosine-similarity")
	f.StringVarP(&o.Scheme, "weight-scheme", "w", "distance_proportional", "weights of common_interpolation: "+list(surgeon.Schemes()))
	f.StringVarP(&o.Subword, "subword-method", "s", "mean", "how subword combines the pieces of a token: "+list(surgeon.SubwordMethods()))
	f.StringVar(&o.PrefixMatch, "prefix-match", "no", "take the row of the longest token that a missing one begins with: "+list(surgeon.Places()))
	f.StringVar(&o.ByteMatch, "byte-match", "no", "take a byte of one vocabulary for the same byte of the other: "+list(surgeon.Places()))
	bothFlags(cmd, &o.Magikarp, "magikarp", false, "do not use tokens that were hardly trained")
	f.Float64Var(&o.Noise, "new-vocab-noise", 0, "deviation of normal noise on approximated rows")
	f.Float64Var(&o.Scale, "new-vocab-scale", 1, "factor of approximated rows")
	f.IntVar(&o.Batch, "batch-size", 512, "rows of the output that each thread works on at once; -1: 4096")
}

func newTokensurgeonCommand() *cobra.Command {
	var o tokensurgeonOptions
	cmd := &cobra.Command{
		Use:   "tokensurgeon MODEL DONOR OUT",
		Short: "Give a model the tokenizer of another one",
		Long: `tokensurgeon writes MODEL with the tokenizer of DONOR. Tokens that both have keep MODEL's rows, bit for bit; rows of the others
are approximated:

  omp                   a sum of few shared tokens that makes up the token's row in DONOR, by orthogonal matching pursuit (the default)
  common_interpolation  the shared tokens nearest to it in DONOR, weighted
  subword               the tokens of MODEL that spell it
  landmark_pca, stb     a rotation, or a linear map through a basis of tokens, from DONOR's space to MODEL's
  mp_rope               matching pursuit that may turn a token as rotary position embedding does
  mean, john_hewitt, randn, zero
                        the mean of MODEL's rows; one drawn from their normal distribution; a standard normal one; nothing

Tokens are the same if they stand for the same text, however the vocabularies write it, or play the same part (the beginning of a text). The
rest of MODEL is copied. config.json and generation_config.json follow the new vocabulary.

EXIT STATUS
  0 done, 1 failed, 2 bad models or command line, 130 interrupted`,
		Args: exactly(3, "a model, a donor of the tokenizer and an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.ShardBytes, err = parseSize("--shard-size", o.shardSize); err != nil {
				return err
			}
			if o.ShardBytes == 0 {
				o.ShardBytes = -1
			}
			return runTokensurgeon(cmd, args, &o)
		},
	}
	o.register(cmd)
	f := cmd.Flags()
	f.Uint64Var(&o.Seed, "seed", 0, "seed of what is drawn at random")
	f.IntVar(&o.Threads, "threads", 0, "worker threads; 0: all cores")
	f.StringVar(&o.shardSize, "shard-size", "5GB", "largest shard, for example 500MB or 2GiB; 0: one file")
	f.BoolVar(&o.Force, "force", false, "replace an existing output")
	f.BoolVar(&o.noCard, "no-model-card", false, "do not write README.md")
	return cmd
}

// newPeerTokensurgeonCommand is the program under the name mergekit-tokensurgeon.
func newPeerTokensurgeonCommand() *cobra.Command {
	var o tokensurgeonOptions
	var y yamlFlags
	cmd := &cobra.Command{
		Use:   "mergekit-tokensurgeon MODEL DONOR OUT_PATH",
		Short: "Give a model the tokenizer of another one, with the command line of Python's mergekit-tokensurgeon",
		Args:  exactly(3, "a model, a donor of the tokenizer and an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			shard, err := yamlShardSize(y.shard)
			if err != nil {
				return err
			}
			o.ShardBytes, o.Threads, o.Force, o.NoTokens, o.noCard = shard, y.threads, y.replaces(args[2], "config.json"), !y.copyTokenizer, !y.card
			if y.seed >= 0 {
				o.Seed = uint64(y.seed)
			}
			return runTokensurgeon(cmd, args, &o)
		},
	}
	y.register(cmd)
	o.register(cmd)
	idle(cmd, "allow-crimes", "unsafe-truncate-embeddings", "cuda", "gpu-rich", "device", "backend") // rows are approximated on the processor
	return cmd
}

func runTokensurgeon(cmd *cobra.Command, args []string, o *tokensurgeonOptions) error {
	if o.K < 1 {
		return usageError{fmt.Errorf("--k %d: give a positive number of shared tokens", o.K)}
	}
	if o.Batch < -1 || o.Batch == 0 {
		return usageError{fmt.Errorf("--batch-size %d: give a positive number, or -1 for 4096", o.Batch)}
	}
	so := o.Options
	if so.Threads < 0 {
		return usageError{fmt.Errorf("--threads %d: give a positive number, or 0 for all cores", so.Threads)}
	}
	if so.Batch < 0 {
		so.Batch = 4096
	}
	if cmd.Flags().Changed("new-vocab-scale") && so.Scale == 0 {
		so.Method, so.Scale = "zero", 1 // nothing is left of any approximation
	}
	if !o.noCard {
		so.Files = map[string][]byte{"README.md": surgeryCard(args, so.Method)}
	}
	var bar *progress.Progress
	so.Warn = func(m string) { warn(cmd, m) }
	so.Started = func(total int64) { bar = newProgress(cmd, total, "operating") }
	so.Written = func(n int64) { bar.Add(n) }
	model, donor := filepath.Clean(args[0]), filepath.Clean(args[1])
	if err := bring(cmd, &model, &donor); err != nil {
		return err
	}
	r, err := surgeon.Run(cmd.Context(), model, donor, args[2], so)
	bar.Done()
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(r)
	} else if !quietWanted(cmd) {
		printSurgery(r)
	}
	return nil
}

func printSurgery(r *surgeon.Report) {
	fmt.Printf("%s: %d rows of vocabulary, were %d; %d tensors, %s\n\n", r.Output, r.Rows, r.Was, r.Tensors, bytesText(r.Bytes))
	rows := [][]string{{"TENSOR", "COPIED", "BYTE", "PREFIX", "APPROXIMATED", "ZERO", "LANDMARKS"}}
	for _, s := range r.Sites {
		row := []string{s.Tensor}
		for _, n := range []int{s.Copied, s.Bytes, s.Prefixes, s.Approximated - s.Unknown, s.Zero + s.Unknown, s.Landmarks} {
			row = append(row, fmt.Sprint(n))
		}
		rows = append(rows, row)
	}
	table(os.Stdout, rows)
}

// surgeryCard is the output's model card.
func surgeryCard(args []string, method string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "---\nlibrary_name: transformers\ntags:\n- mergekit\n---\n# %s\n\n", filepath.Base(args[2]))
	fmt.Fprintf(&b, "* model: `%s`\n* tokenizer: that of `%s`\n* new tokens: %s\n\nMade with mergekit %s.\n", filepath.Base(args[0]), filepath.Base(args[1]), method, version)
	return []byte(b.String())
}
