package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// peerCommands are the commands of Python's mergekit that this program answers to when it is called by their names, with their options,
// so that scripts run unchanged. The Makefile makes a link for each.
func peerCommands() map[string]func() *cobra.Command {
	return map[string]func() *cobra.Command{
		"mergekit-yaml":         newYAMLCommand,
		"mergekit-extract-lora": newExtractLoraCommand,
	}
}

// rootFor is the command that a program of this name is.
func rootFor(program string) *cobra.Command {
	name := strings.TrimSuffix(filepath.Base(program), ".exe")
	if make, ok := peerCommands()[name]; ok {
		cmd := make()
		cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
		return cmd
	}
	return newRootCommand()
}
