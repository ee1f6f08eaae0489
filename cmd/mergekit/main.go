// Command mergekit merges checkpoints: a YAML recipe in, a checkpoint out that any tool of the field loads.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/fill"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/shuffle"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/merge/surgeon"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Exit statuses.
const (
	exitDone        = 0
	exitFailed      = 1
	exitBadInput    = 2
	exitMemory      = 3
	exitDiverged    = 4
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() { // a second Ctrl-C ends the process at once
		<-ctx.Done()
		stop()
	}()
	os.Exit(run(ctx, os.Args))
}

// run executes the command line and returns the exit status.
func run(ctx context.Context, args []string) int {
	root := rootFor(args[0])
	root.SetArgs(arguments(args))
	root.SilenceErrors, root.SilenceUsage = true, true
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	err = recipeInPlaceOfVerb(err, args)
	status := statusOf(ctx, err)
	if status == exitInterrupted {
		hint := ""
		if cmd.Flags().Lookup("resume") != nil {
			hint = "; the same command with --resume finishes it"
		}
		if jsonWanted(cmd) {
			writeJSON(os.Stdout, map[string]any{"event": "interrupted", "message": "interrupted" + hint, "status": status})
		} else {
			fmt.Fprintln(os.Stderr, "interrupted"+hint)
		}
		return status
	}
	if !errors.Is(err, errQuiet) {
		printError(jsonWanted(cmd) || jsonAsked(args), err, status)
	}
	return status
}

// errQuiet ends the program with status 1 without a message: the output has said it all.
var errQuiet = errors.New("")

// statusOf maps an error to an exit status.
func statusOf(ctx context.Context, err error) int {
	var (
		bad    *merge.InputError
		syntax *recipe.Error
		format *tensors.FormatError
		values *stream.NonFiniteError
		value  *method.ValueError
		usage  usageError
		memory *model.MemoryError
		named  *hub.Error
		moved  *hub.TransferError
	)
	switch {
	case errors.As(err, &memory):
		return exitMemory
	case isDivergence(err):
		return exitDiverged
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &moved): // whatever named the model
		return exitFailed
	case errors.As(err, &named):
		return exitBadInput
	case errors.As(err, &bad), errors.As(err, &syntax), errors.As(err, &format), errors.As(err, &values), errors.As(err, &value), errors.As(err, &usage):
		return exitBadInput
	case badModel(err), badTraining(err), badAlignment(err), badSurgery(err), badPath(err):
		return exitBadInput
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "unknown flag"), strings.HasPrefix(err.Error(), "unknown shorthand"):
		return exitBadInput
	}
	return exitFailed
}

// badModel reports whether an error is about what a model was given: its files, its adapter, its tokenizer, its input.
func badModel(err error) bool {
	var (
		described  *arch.ConfigError
		config     *model.ConfigError
		missing    *model.MissingError
		shape      *model.ShapeError
		vocabulary *model.VocabularyError
		input      *model.InputError
		adapted    *adapter.Error
		words      *tokenizer.Error
		template   *chat.Error
		lookup     *chat.LookupError
	)
	return errors.As(err, &described) || errors.As(err, &config) || errors.As(err, &missing) || errors.As(err, &shape) || errors.As(err, &vocabulary) ||
		errors.As(err, &input) || errors.As(err, &adapted) || errors.As(err, &words) || errors.As(err, &template) || errors.As(err, &lookup)
}

// badSurgery reports whether an error is about what is operated on, or how.
func badSurgery(err error) bool {
	var (
		transplant *surgeon.Error
		layers     *shuffle.Error
		part       *fill.Error
	)
	return errors.As(err, &transplant) || errors.As(err, &layers) || errors.As(err, &part)
}

// badAlignment reports whether an error is about a symmetry spec or a map.
func badAlignment(err error) bool {
	var (
		spec *symmetry.Error
		maps *align.Error
	)
	return errors.As(err, &spec) || errors.As(err, &maps)
}

func printError(asJSON bool, err error, status int) {
	if asJSON {
		writeJSON(os.Stdout, map[string]any{"event": "error", "message": err.Error(), "status": status})
		return
	}
	fmt.Fprintln(os.Stderr, "error:", err)
}

// newRootCommand assembles the verbs.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "mergekit",
		Short: "Merge and fine-tune checkpoints of neural networks",
		Long: `mergekit merges checkpoints and fine-tunes them. It reads safetensors, PyTorch and GGUF files, quantised ones too, from this machine, a hub or
an object store, follows a YAML file and writes checkpoints that other programs load.

  mergekit plan recipe.yml          what a merge would do; reads headers only
  mergekit merge recipe.yml out     merges
  mergekit finetune tune.yml        trains

EXIT STATUS
  0 done, 1 failed, 2 bad input or command line, 3 out of memory on the device, 4 training diverged, 130 interrupted (finish with --resume)`,
		Version: version,
	}
	root.PersistentFlags().Bool("quiet", false, "no progress and no summary; errors and warnings only")
	root.PersistentFlags().Bool("json", false, "machine-readable output: one JSON object per line")
	registerHub(root)
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newDownloadCommand(), newPushCommand())
	root.AddCommand(newMergeCommand(), newPlanCommand(), newInspectCommand(), newDiffCommand(), newMethodsCommand(),
		newConvertCommand(), newConvertConfigCommand(), newTokenizeCommand(), newBackendsCommand(), newVersionCommand(),
		newLogitsCommand(), newGenerateCommand(), newEvalCommand(), newInitCommand())
	root.AddCommand(newJoinCommand(), newVerifyCommand(), newManCommand())
	root.AddCommand(newFinetuneCommand())
	root.AddCommand(newFuseCommand(), newAdaptersCommand())
	root.AddCommand(newTokensurgeonCommand(), newLayershuffleCommand(), newFillMissingCommand(), newRawCommand())
	root.AddCommand(newAlignCommand(), newTransportCommand())
	root.AddCommand(newSparseCommand(), newGraftCommand())
	root.AddCommand(newPreviewCommand(), newMoECommand())
	root.AddCommand(newBarrierCommand(), newAnalyzeCommand())
	root.AddCommand(newUICommand())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			gathers(c)
		}
	}
	return root
}
