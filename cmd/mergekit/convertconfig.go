package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/finetune/config/foreign"
)

// convertConfigOptions are the flags of the convert-config command.
type convertConfigOptions struct {
	from, out string
	force     bool
}

func newConvertConfigCommand() *cobra.Command {
	var o convertConfigOptions
	cmd := &cobra.Command{
		Use:   "convert-config --from TOOL FILE",
		Short: "Turn another tool's training configuration into one for finetune",
		Long: `convert-config reads a training configuration of ` + strings.Join(foreign.Names(), ", ") + ` and writes one that finetune
reads. Every key without a counterpart is listed with the reason, on standard error and at the head of the result.

EXIT STATUS
  0 done, 1 failed, 2 bad input`,
		Args: exactly(1, "a configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error { return runConvertConfig(cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "the tool: "+strings.Join(foreign.Names(), ", "))
	f.StringVarP(&o.out, "output", "o", "", "file for the result (default: standard output)")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
	return cmd
}

func runConvertConfig(cmd *cobra.Command, file string, o *convertConfigOptions) error {
	if o.from == "" {
		return usageError{fmt.Errorf("--from is missing; name the tool of %s: %s", file, strings.Join(foreign.Names(), ", "))}
	}
	data, err := config.Read(file)
	if err != nil {
		return err
	}
	r, err := foreign.Convert(o.from, file, data, foreign.Options{Layers: layersOf})
	if err != nil {
		return err
	}
	if o.out != "" {
		if _, err := os.Stat(o.out); err == nil && !o.force {
			return usageError{fmt.Errorf("%s: exists; use --force to replace it", o.out)}
		}
		if err := writeWhole(o.out, r.YAML); err != nil {
			return err
		}
	}
	switch {
	case jsonWanted(cmd):
		writeDone(map[string]any{"output": o.out, "yaml": string(r.YAML), "dropped": r.Dropped, "notes": r.Notes})
		return nil
	case o.out == "":
		if _, err := os.Stdout.Write(r.YAML); err != nil {
			return err
		}
	}
	for _, n := range r.Notes {
		warn(cmd, n)
	}
	for _, d := range r.Dropped {
		fmt.Fprintf(os.Stderr, "%s:%d: %s dropped: %s\n", file, d.Line, d.Key, d.Why)
	}
	return nil
}

// layersOf reads the number of layers from a checkpoint's config.json, 0 if there is none to read.
func layersOf(checkpoint string) int {
	f, err := os.Open(filepath.Join(checkpoint, "config.json"))
	if err != nil {
		return 0
	}
	defer f.Close()
	var c struct {
		Layers int `json:"num_hidden_layers"`
	}
	const most = 1000 // more are none that a list of layers should name
	if err := json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&c); err != nil || c.Layers > most {
		return 0
	}
	return max(0, c.Layers)
}

// writeWhole lets a file appear under its name only when all of it is on the disk.
func writeWhole(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
