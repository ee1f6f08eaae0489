package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/internal/progress"
)

func jsonWanted(cmd *cobra.Command) bool {
	if cmd == nil {
		return false
	}
	v, err := cmd.Flags().GetBool("json")
	return err == nil && v
}

// jsonAsked reports whether a command line asks for --json, also one that cannot be parsed.
func jsonAsked(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json")
}

func quietWanted(cmd *cobra.Command) bool {
	v, err := cmd.Flags().GetBool("quiet")
	return err == nil && v
}

func writeJSON(w io.Writer, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		b, _ = json.Marshal(map[string]string{"event": "error", "message": err.Error()})
	}
	fmt.Fprintf(w, "%s\n", b)
}

// writeDone writes what a command came to, an object, as the last of its events.
func writeDone(v any) {
	b, err := json.Marshal(v)
	if err == nil && len(b) > 2 && b[0] == '{' {
		fmt.Fprintf(os.Stdout, `{"event":"done",%s`+"\n", b[1:])
		return
	}
	if err == nil {
		err = fmt.Errorf("%T is no object with keys", v)
	}
	writeJSON(os.Stdout, map[string]string{"event": "error", "message": err.Error()})
}

// newProgress returns the display of a long work: a bar on a terminal, lines elsewhere, events with --json.
func newProgress(cmd *cobra.Command, total int64, what string) *progress.Progress {
	o := progress.Options{Total: total, Description: what, Quiet: quietWanted(cmd), JSON: jsonWanted(cmd)}
	if o.JSON {
		return progress.New(os.Stdout, o)
	}
	return progress.New(os.Stderr, o)
}

// warn prints a warning once, on standard error or as an event.
func warn(cmd *cobra.Command, message string) {
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, map[string]any{"event": "warning", "message": message})
		return
	}
	fmt.Fprintln(os.Stderr, "warning:", message)
}

// bytesText renders a size with a decimal unit.
func bytesText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, u := float64(n), 0
	for v >= 999.5 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", v, units[u])
}

// table writes rows with aligned columns.
func table(w io.Writer, rows [][]string) {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, c := range r {
			b.WriteString(c)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-len([]rune(c))+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}
