package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/progress"
)

func newBackendsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backends",
		Short: "List where graphs can run, and what is missing",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rows := [][]string{{"BACKEND", "", "DETAIL"}}
			for _, s := range backend.List() {
				if jsonWanted(cmd) {
					writeJSON(os.Stdout, s)
					continue
				}
				state := "missing"
				if s.Available {
					state = "ready"
				}
				if s.Fastest {
					state = "ready, auto takes it"
				}
				rows = append(rows, []string{string(s.Kind), state, s.Detail})
			}
			if !jsonWanted(cmd) {
				table(os.Stdout, rows)
			}
			return nil
		},
	}
	cmd.AddCommand(newBackendsInstallCommand())
	return cmd
}

func newBackendsInstallCommand() *cobra.Command {
	var in backend.Installer
	cmd := &cobra.Command{
		Use:       "install cpu|cuda",
		Short:     "Fetch a pinned XLA plugin from the Python package index, check its SHA-256 and install it",
		Args:      exactly(1, "cpu or cuda"),
		ValidArgs: []string{"cpu", "cuda"},
		RunE: func(cmd *cobra.Command, args []string) error {
			var bar *progress.Progress
			var last int64
			in.Progress = func(done, total int64) {
				if bar == nil || done < last {
					bar, last = newProgress(cmd, total, "downloading"), 0
				}
				bar.Add(done - last)
				last = done
			}
			path, err := in.Install(cmd.Context(), args[0])
			if bar != nil {
				bar.Done()
			}
			if err != nil {
				return err
			}
			if jsonWanted(cmd) {
				writeDone(map[string]any{"path": path})
			} else if !quietWanted(cmd) {
				fmt.Println("installed", path)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&in.Index, "index", "", "address of the simple package index (default: pip's configuration)")
	cmd.Flags().StringVar(&in.Dir, "dir", "", "where to install (default: where plugins are looked for)")
	return cmd
}
