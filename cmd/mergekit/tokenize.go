package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/text/tokenizer"
)

type tokenizeOptions struct {
	decode, jsonLines, plain, spans, skipSpecial bool
}

func newTokenizeCommand() *cobra.Command {
	var o tokenizeOptions
	cmd := &cobra.Command{
		Use:   "tokenize MODEL",
		Short: "Turn lines of text into token ids, or ids into text",
		Long: `tokenize reads lines of text from standard input and prints the token ids of each, as the tokenizer of MODEL gives them: a directory
with tokenizer.json, or that file. Special tokens that the model wants around a text are added, and those in the text are read as such.

With --decode it reads lines of ids, separated by spaces or as a JSON array, and prints their text.
With --json it prints one object per line: ids, tokens and, with --spans, the bytes of the line that each token stands for; or the text.

EXIT STATUS
  0 done, 2 no such tokenizer, or a line that cannot be read`,
		Args: exactly(1, "a checkpoint directory or a tokenizer.json"),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := openTokenizer(cmd, args[0])
			if err != nil {
				return err
			}
			out := bufio.NewWriter(os.Stdout)
			if err := tokenizeLines(cmd, t, o, out); err != nil {
				_ = out.Flush() // the lines before the bad one; what matters is the error
				return err
			}
			return out.Flush()
		},
	}
	cmd.Flags().BoolVar(&o.decode, "decode", false, "read ids, print text")
	cmd.Flags().BoolVar(&o.jsonLines, "json-lines", false, "every line of input is a JSON string, so that it can hold line breaks")
	cmd.Flags().BoolVar(&o.plain, "plain", false, "add no special tokens around the text")
	cmd.Flags().BoolVar(&o.skipSpecial, "skip-special", false, "with --decode, leave special tokens out of the text")
	cmd.Flags().BoolVar(&o.spans, "spans", false, "with --json, print the byte range of each token")
	return cmd
}

// openTokenizer opens the tokenizer of a directory, or of the directory of a tokenizer.json.
func openTokenizer(cmd *cobra.Command, path string) (*tokenizer.Tokenizer, error) {
	if filepath.Base(path) == "tokenizer.json" {
		path = filepath.Dir(path)
	}
	if err := bringText(cmd, &path); err != nil {
		return nil, err
	}
	t, err := tokenizer.Open(path)
	if err != nil {
		return nil, usageError{err}
	}
	return t, nil
}

func tokenizeLines(cmd *cobra.Command, t *tokenizer.Tokenizer, o tokenizeOptions, out io.Writer) error {
	in := bufio.NewReader(os.Stdin)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if o.decode {
			err = decodeLine(cmd, t, o, line, out)
		} else {
			err = encodeLine(cmd, t, o, line, out)
		}
		if err != nil {
			return usageError{fmt.Errorf("line %d: %w", n, err)}
		}
	}
}

func encodeLine(cmd *cobra.Command, t *tokenizer.Tokenizer, o tokenizeOptions, line string, out io.Writer) error {
	text := line
	if o.jsonLines {
		if err := json.Unmarshal([]byte(line), &text); err != nil {
			return fmt.Errorf("not a JSON string: %w", err)
		}
	}
	var ids []int
	var spans []tokenizer.Span
	var err error
	if o.spans {
		ids, spans, err = t.EncodeSpansErr(text, !o.plain)
	} else {
		ids, err = t.EncodeErr(text, !o.plain)
	}
	if err != nil {
		return err
	}
	if !jsonWanted(cmd) {
		words := make([]string, len(ids))
		for i, id := range ids {
			words[i] = strconv.Itoa(id)
		}
		_, err := fmt.Fprintln(out, strings.Join(words, " "))
		return err
	}
	tokens := make([]string, len(ids))
	for i, id := range ids {
		tokens[i], _ = t.Token(id)
	}
	object := map[string]any{"ids": append([]int{}, ids...), "tokens": tokens}
	if o.spans {
		pairs := make([][2]int, len(spans))
		for i, s := range spans {
			pairs[i] = [2]int{s.Start, s.End}
		}
		object["spans"] = pairs
	}
	writeJSON(out, object)
	return nil
}

func decodeLine(cmd *cobra.Command, t *tokenizer.Tokenizer, o tokenizeOptions, line string, out io.Writer) error {
	var ids []int
	if strings.HasPrefix(strings.TrimSpace(line), "[") {
		if err := json.Unmarshal([]byte(line), &ids); err != nil {
			return fmt.Errorf("not an array of ids: %w", err)
		}
	} else {
		for word := range strings.FieldsSeq(line) {
			id, err := strconv.Atoi(word)
			if err != nil {
				return fmt.Errorf("%q is not an id", word)
			}
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		if _, ok := t.Token(id); !ok {
			return fmt.Errorf("the tokenizer has no id %d; its largest is %d", id, t.Size()-1)
		}
	}
	text := t.Decode(ids, o.skipSpecial)
	if jsonWanted(cmd) {
		writeJSON(out, map[string]any{"text": text})
		return nil
	}
	_, err := fmt.Fprintln(out, text)
	return err
}
