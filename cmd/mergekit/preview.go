package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/finetune/preview"
	"github.com/mergekit/mergekit/finetune/train"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// previewOptions are the flags of the preview command.
type previewOptions struct {
	template, trainOn, packing, format, truncation string
	maxLength, microBatch, rows                    int
	skip                                           bool
	sets                                           []string
}

func newPreviewCommand() *cobra.Command {
	o := &previewOptions{}
	cmd := &cobra.Command{
		Use:   "preview CONFIG | MODEL DATA...",
		Short: "Show rows as training sees them, with what is learnt marked",
		Long: `preview reads rows as fine-tuning does and prints some of them as the text of their tokens: what is learnt is green on a terminal
and stands between ⟦ and ⟧ elsewhere (or with NO_COLOR). It goes on with lengths, the batches of an epoch and warnings. A mask that
is wrong trains without complaint; here it can be read.

CONFIG is a fine-tuning file, whose rows are shown as it says. MODEL is a folder with tokenizer.json and a chat template, DATA are files
of rows or folders with train.jsonl.

EXIT STATUS
  0 the rows can be trained on, 2 they cannot`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s takes a fine-tuning file, or a model and files of rows", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := o.load(cmd, args)
			if err != nil {
				return err
			}
			return renderPreview(cmd, p)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.template, "template", "", "chat template in place of the model's: a file, or chatml")
	f.StringVar(&o.trainOn, "train-on", "auto", "what is learnt: assistant, completion, last, all, or auto by the rows' format")
	f.IntVar(&o.maxLength, "max-length", 2048, "tokens of the longest row")
	f.StringVar(&o.truncation, "truncation", "keep_start", "of longer rows: keep_start or drop")
	f.StringVar(&o.packing, "packing", "none", "rows in one sequence: none, bfd, bfd_split or wrapped")
	f.StringVar(&o.format, "format", "auto", "format of the rows, in place of what their keys say")
	f.IntVar(&o.microBatch, "micro-batch", 4, "sequences of a batch")
	f.IntVar(&o.rows, "rows", 3, "how many rows to print, spread over all")
	f.BoolVar(&o.skip, "skip-bad", false, "leave rows that cannot be read out, and count them")
	f.StringArrayVar(&o.sets, "set", nil, "change a key of the fine-tuning file: --set data.max_length=512 (repeatable)")
	return cmd
}

func (o *previewOptions) load(cmd *cobra.Command, args []string) (*preview.Preview, error) {
	if len(args) == 1 {
		if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
			return nil, usageError{fmt.Errorf("%s is a model; give files of rows as well", args[0])}
		}
		for _, name := range []string{"template", "train-on", "max-length", "truncation", "packing", "format", "micro-batch", "skip-bad"} {
			if cmd.Flags().Changed(name) {
				return nil, usageError{fmt.Errorf("--%s does not change a fine-tuning file; --set does", name)}
			}
		}
		return o.ofConfig(cmd, args[0])
	}
	if len(o.sets) > 0 {
		return nil, usageError{errors.New("--set changes a fine-tuning file; with a model and rows, use the other flags")}
	}
	model := args[0]
	if err := bringText(cmd, &model); err != nil {
		return nil, err
	}
	return o.ofRows(cmd.Context(), model, args[1:])
}

// ofConfig shows the rows of a fine-tuning file.
func (o *previewOptions) ofConfig(cmd *cobra.Command, path string) (*preview.Preview, error) {
	cfg, err := loadFinetuning(cmd, path, o.sets)
	if err != nil {
		return nil, err
	}
	rows, err := train.OpenRows(cmd.Context(), cfg)
	if err != nil {
		return nil, badText(err)
	}
	p := preview.New(rows.Train, rows.Batcher, rows.Tokenizer, o.rows)
	p.Packing = rows.Batcher.Packing()
	return p, nil
}

// ofRows shows rows for a model.
func (o *previewOptions) ofRows(ctx context.Context, model string, files []string) (*preview.Preview, error) {
	d := data.Options{TrainOn: o.trainOn, Truncation: o.truncation, Packing: o.packing, MaxLength: o.maxLength,
		Date: time.Date(2024, 7, 26, 0, 0, 0, 0, time.UTC)} // as in training
	if o.skip {
		d.OnBadRow = "skip"
	}
	var err error
	if _, missing := os.Stat(filepath.Join(model, "tokenizer.json")); missing == nil {
		if d.Tokenizer, err = tokenizer.Open(model); err != nil {
			return nil, badText(err)
		}
	} else if o.format != "tokens" {
		return nil, usageError{fmt.Errorf("%s: has no tokenizer.json; only rows of token ids (--format tokens) can do without", model)}
	}
	d.Template, err = chat.Find(model, o.template)
	if err != nil && (o.template != "" || !errors.Is(err, fs.ErrNotExist)) { // rows of text need none
		return nil, badText(err)
	}
	var sources []data.Source
	for _, f := range files {
		sources = append(sources, data.Source{Path: f, Format: o.format})
	}
	set, err := data.Load(ctx, sources, d)
	if err != nil {
		return nil, err
	}
	b, err := data.NewBatcher(set, data.BatchOptions{MicroBatch: o.microBatch, Packing: o.packing, MaxLength: o.maxLength, Shuffle: true})
	if err != nil {
		return nil, err
	}
	p := preview.New(set, b, d.Tokenizer, o.rows)
	p.Packing = b.Packing()
	if d.Template != nil {
		p.Template = d.Template.Name()
		if t := d.Template.Training(); t != nil && t != d.Template {
			p.Template += " (" + t.Name() + ")"
		}
	}
	return p, nil
}

// badText marks errors about templates and tokenizers as bad input.
func badText(err error) error {
	var (
		template *chat.Error
		lookup   *chat.LookupError
		text     *tokenizer.Error
	)
	if errors.As(err, &template) || errors.As(err, &lookup) || errors.As(err, &text) {
		return usageError{err}
	}
	return err
}

func renderPreview(cmd *cobra.Command, p *preview.Preview) error {
	if jsonWanted(cmd) {
		for _, r := range p.Rows {
			writeJSON(os.Stdout, struct {
				Event string `json:"event"`
				preview.Row
			}{"row", r})
		}
		rest := *p
		rest.Rows = nil
		writeDone(rest)
		return nil
	}
	return p.Write(os.Stdout, os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stdout.Fd())))
}
