package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write manual pages",
		Long: `man writes a manual page for every verb into DIR, to be read with man -l or installed below share/man/man1.

EXIT STATUS
  0 done, 1 failed, 2 bad command line`,
		Args: exactly(1, "a directory"),
		RunE: func(cmd *cobra.Command, args []string) error { return writeManual(cmd, args[0]) },
	}
}

func writeManual(cmd *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	// The same program writes the same pages: no date of today.
	date := time.Unix(0, 0).UTC()
	root := cmd.Root()
	root.DisableAutoGenTag = true
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "mergekit " + version, Manual: "mergekit", Date: &date}, dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir) // a pattern would take characters of dir for its own
	if err != nil {
		return err
	}
	pages := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "mergekit") && filepath.Ext(e.Name()) == ".1" {
			pages++
		}
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, map[string]any{"output": dir, "pages": pages})
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %d pages\n", dir, pages)
	}
	return nil
}
