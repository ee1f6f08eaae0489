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
		"mergekit-multi":        newMultiCommand,
		"mergekit-extract-lora": newExtractLoraCommand,
		"mergekit-moe":          newPeerMoECommand,
		"mergekit-tokensurgeon": newPeerTokensurgeonCommand,
		"mergekit-layershuffle": newPeerLayershuffleCommand,
		"mergekit-pytorch":      newPyTorchCommand,
		"mergekit-legacy":       newLegacyCommand,
		"bakllama":              newBakllamaCommand,
	}
}

// peerShorthands are options of Python's commands of several letters behind one dash, which are written out.
var peerShorthands = map[string]map[string]string{
	"mergekit-tokensurgeon": {"-nc": "--no-cosine-similarity", "-pm": "--prefix-match", "-bm": "--byte-match", "-nvn": "--new-vocab-noise", "-nvs": "--new-vocab-scale"},
}

// programName is the name that the program was called by.
func programName(program string) string { return strings.TrimSuffix(filepath.Base(program), ".exe") }

// arguments are the arguments of a program of this name as its command understands them.
func arguments(args []string) []string {
	long := peerShorthands[programName(args[0])]
	out := make([]string, 0, len(args))
	for i, a := range args[1:] {
		if a == "--" {
			return append(out, args[1+i:]...)
		}
		if name, ok := long[a]; ok {
			a = name
		}
		// --align with no method behind it: its value must not be the next flag. pflag's NoOptDefVal would take "--align weight" apart.
		if a == "--align" && (i+2 == len(args) || strings.HasPrefix(args[i+2], "-")) {
			a += "=weight"
		}
		out = append(out, a)
	}
	return out
}

// rootFor is the command that a program of this name is.
func rootFor(program string) *cobra.Command {
	if make, ok := peerCommands()[programName(program)]; ok {
		cmd := make()
		cmd.SetFlagErrorFunc(flagError)
		return cmd
	}
	return newRootCommand()
}
