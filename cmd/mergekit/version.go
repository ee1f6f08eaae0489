package main

import (
	"fmt"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/backend"
)

// version is the program's version; releases set it with -ldflags "-X main.version=...".
var version = "0.1.0"

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version and how the program was built",
		Args:  exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if jsonWanted(cmd) {
				writeJSON(os.Stdout, map[string]any{"version": version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "cgo": backend.Cgo, "simd": backend.SIMD()})
				return nil
			}
			fmt.Printf("mergekit %s (%s, %s/%s, cgo %v, simd %s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH, backend.Cgo, backend.SIMD())
			return nil
		},
	}
}
