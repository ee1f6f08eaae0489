package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/tensors"
)

func newJoinCommand() *cobra.Command {
	var o mergeOptions
	var parts int
	cmd := &cobra.Command{
		Use:   "join RECIPE OUT",
		Short: "Put the parts of a merge together",
		Long: `join finishes a merge whose parts 'mergekit merge RECIPE OUT --part I/N' has written, each beside OUT. It checks that all parts are there,
of this recipe and these options, and that every byte is the one that was written (SHA-256), and then makes OUT appear, with index, config, tokenizer
and model card: byte for byte the output of a single run. No weights are computed. Give it the options of the parts; only --backend may differ.

OUT appears whole or not at all; the parts are removed afterwards. A join that was interrupted is run again.

EXIT STATUS
  0 done, 1 failed, 2 a part is missing, unfinished, damaged or of another recipe, or a bad command line, 130 interrupted`,
		Args: exactly(2, "a recipe and an output directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			mo, err := o.options(cmd)
			if err != nil {
				return err
			}
			if mo.Join, err = countParts(args[1], parts); err != nil {
				return err
			}
			return mergeWith(cmd, args[0], args[1], o.backend, mo)
		},
	}
	o.register(cmd)
	o.output(cmd)
	cmd.Flags().IntVar(&parts, "parts", 0, "how many parts there are (default: as the directories beside OUT say)")
	return cmd
}

// countParts says how many parts an output has.
func countParts(out string, given int) (int, error) {
	if given < 0 {
		return 0, usageError{fmt.Errorf("--parts %d: give a positive number", given)}
	}
	if given > 0 {
		p, err := tensors.ParsePart(fmt.Sprintf("1/%d", given))
		if err != nil {
			return 0, usageError{fmt.Errorf("--parts %d: that many cannot have been merged", given)}
		}
		return p.Of, nil
	}
	n, err := tensors.FindParts(out)
	if err == nil && n == 0 {
		err = &tensors.FormatError{File: out, Msg: "has no parts beside it", Hint: "write them with 'mergekit merge RECIPE OUT --part I/N'"}
	}
	return n, err
}
