package main

import (
	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge"
)

// newMultiCommand is the program under the name mergekit-multi: every document of a file with a name becomes a directory of that name.
// Unlike there, a stage that is present is made again when its recipe or its inputs have changed, and one that was interrupted goes on.
func newMultiCommand() *cobra.Command {
	var o yamlFlags
	var so merge.StageOptions
	var out string
	cmd := &cobra.Command{
		Use:   "mergekit-multi CONFIG_FILE -I DIR [--out-path OUT]",
		Short: "Merge by several recipes of a file, with the command line of Python's mergekit-multi",
		Args:  exactly(1, "a file of recipes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := required(cmd, "intermediate-dir"); err != nil {
				return err
			}
			mo, choice, err := o.merging(cmd)
			if err != nil {
				return err
			}
			mo.Stages, mo.Report, mo.Resume = so, o.report, o.resume
			if out != "" {
				mo.Force = o.replaces(out, "mergekit_config.yml") && !o.resume
			} else {
				mo.Force = o.force
			}
			return mergeWith(cmd, args[0], out, choice, mo)
		},
	}
	o.register(cmd)
	f := cmd.Flags()
	f.StringVarP(&so.Dir, "intermediate-dir", "I", "", "directory in which each recipe with a name appears under its name")
	f.StringVar(&out, "out-path", "", "directory of the recipe without a name")
	bothFlags(cmd, &so.Lazy, "lazy", true, "take what is there, if it is what its recipe makes")
	f.BoolVar(&o.resume, "resume", false, "finish an interrupted output (beyond Python's tool; stages are always finished)")
	f.StringVar(&o.report, "report", "", "write a page about the last merge (beyond Python's tool)")
	return cmd
}
