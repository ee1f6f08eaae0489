package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/completion"
)

// generateOptions are the flags of the generate command.
type generateOptions struct {
	modelOptions
	completion.Options
	prompt, file, template string
}

func newGenerateCommand() *cobra.Command {
	var o generateOptions
	cmd := &cobra.Command{
		Use:   "generate MODEL --prompt TEXT | --file PROMPTS.jsonl",
		Short: "Continue a text, or answer in a conversation",
		Long: `generate continues a prompt and prints the new text as it appears; on standard error it says how fast. MODEL is a checkpoint
directory, or BASE+ADAPTER. Without --temperature the most probable token is taken at every step.

A file of prompts has one JSON object a line: {"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}; messages go
through the checkpoint's chat template, and with --chat so does every prompt. A file that does not begin with "{" is one prompt;
"-" is standard input. With --json every completion is one line: text, tokens and why it ended (eos, length, stop, context).

The same seed gives the same text on the same machine, whatever else is generated beside it.

EXIT STATUS
  0 done, 1 failed, 2 bad model, prompt or command line, 3 out of memory, 130 interrupted`,
		Args: exactly(1, "a model"),
		RunE: func(cmd *cobra.Command, args []string) error { return runGenerate(cmd, args[0], &o) },
	}
	o.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.prompt, "prompt", "", "the text to continue")
	f.StringVar(&o.file, "file", "", "file of prompts, or - for standard input")
	f.BoolVar(&o.Chat, "chat", false, "the prompt is the user's message in a conversation")
	f.StringVar(&o.System, "system", "", "the system's message of the conversation")
	f.StringVar(&o.template, "template", "", "chat template: a file or the name of a builtin one (default: the checkpoint's own)")
	f.IntVar(&o.MaxTokens, "max-tokens", 256, "most new tokens")
	f.Float64Var(&o.Temperature, "temperature", 0, "0: the most probable token; 1: as the model's probabilities say; more: wilder")
	f.Float64Var(&o.TopP, "top-p", 1, "sample from the most probable tokens that together have this probability")
	f.IntVar(&o.TopK, "top-k", 0, "sample from so many most probable tokens; 0: all")
	f.Float64Var(&o.RepetitionPenalty, "repetition-penalty", 1, "lower the logits of tokens of the text so far; 1: not")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of the sampling")
	f.StringArrayVar(&o.Stop, "stop", nil, "end at this text (may be given several times)")
	f.IntVar(&o.Batch, "batch", 8, "prompts that are continued together")
	return cmd
}

// prompts reads what is to be continued.
func (o *generateOptions) prompts(cmd *cobra.Command) ([]completion.Prompt, error) {
	given := cmd.Flags().Changed("prompt")
	switch {
	case given == (o.file != ""):
		return nil, usageError{fmt.Errorf("generate needs either --prompt TEXT or --file PROMPTS.jsonl (- for standard input)")}
	case given:
		return []completion.Prompt{{Text: o.prompt}}, nil
	case o.file == "-":
		data, err := io.ReadAll(os.Stdin)
		if err != nil {
			return nil, err
		}
		return completion.ReadPrompts(data, "standard input")
	}
	data, err := os.ReadFile(o.file)
	if err != nil {
		return nil, usageError{err}
	}
	return completion.ReadPrompts(data, o.file)
}

func runGenerate(cmd *cobra.Command, name string, o *generateOptions) error {
	if o.MaxTokens < 1 || o.Batch < 1 {
		return usageError{fmt.Errorf("--max-tokens and --batch must be positive")}
	}
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	prompts, err := o.prompts(cmd)
	if err != nil {
		return err
	}
	files, err := findModel(cmd, name, o.adapter)
	if err != nil {
		return err
	}
	g, err := completion.Open(o.template, files.dirs()...)
	if err != nil {
		return err
	}
	s, err := o.open(cmd)
	if err != nil {
		return err
	}
	defer s.close()
	m, err := s.load(files)
	if err != nil {
		return err
	}
	defer m.Close()
	g.Use(m)
	g.Date = time.Now()
	out := bufio.NewWriter(os.Stdout)
	defer func() { _ = out.Flush() }() // as below
	live := !jsonWanted(cmd) && len(prompts) == 1
	if live {
		o.Text = func(_ int, text string) {
			_, _ = out.WriteString(text)
			_ = out.Flush() // a reader that went away is no reason to lose the rest
		}
	}
	if !quietWanted(cmd) && !jsonWanted(cmd) {
		o.Compiling = func(what string) { fmt.Fprintf(os.Stderr, "compiling: %s\n", what) }
	}
	list, stats, err := g.Complete(cmd.Context(), prompts, o.Options)
	if live && err == nil {
		fmt.Fprintln(out)
	}
	for i, c := range list {
		switch {
		case jsonWanted(cmd):
			row := struct {
				Event string `json:"event"`
				Index int    `json:"index"`
				ID    string `json:"id,omitempty"`
				completion.Completion
			}{"completion", i, prompts[i].ID, c}
			writeJSON(out, row)
		case !live:
			fmt.Fprintf(out, "--- %d\n%s\n", i+1, c.Text)
		}
	}
	if err != nil {
		return err
	}
	reportSpeed(cmd, out, stats)
	return nil
}

// reportSpeed says how many tokens there were and how fast they came.
func reportSpeed(cmd *cobra.Command, out io.Writer, s model.GenerateStats) {
	switch {
	case jsonWanted(cmd):
		writeJSON(out, map[string]any{"event": "done", "prompt_tokens": s.PromptTokens, "tokens": s.NewTokens,
			"first_ms": s.First.Milliseconds(), "tokens_per_second": s.TokensPerSecond()})
	case !quietWanted(cmd):
		rate := "too few to say how fast"
		if r := s.TokensPerSecond(); r > 0 {
			rate = fmt.Sprintf("%.1f tokens/s after the first", r)
		}
		fmt.Fprintf(os.Stderr, "%d prompt tokens, %d new: the first after %.2f s with compilation, %s\n", s.PromptTokens, s.NewTokens, s.First.Seconds(), rate)
	}
}
