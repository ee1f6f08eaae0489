package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mergekit/mergekit/internal/linalg"
)

// TestKillSearch kills a search with SIGKILL after some of its trials, and once more while it is resumed; or lets the user stop it. The
// output has the bytes of an undisturbed search.
func TestKillSearch(t *testing.T) {
	root := t.TempDir()
	model, err := filepath.Abs("../../model/testdata/plain/mlp")
	if err != nil {
		t.Fatal(err)
	}
	const width, classes = 7, 4
	x := make([]float32, 60*width)
	linalg.Normal(x, 1, "rows")
	var rows strings.Builder
	for i := range 60 {
		for _, v := range x[i*width : (i+1)*width] {
			fmt.Fprintf(&rows, "%g,", v)
		}
		fmt.Fprintln(&rows, i%classes)
	}
	recipe := filepath.Join(root, "recipe.yml")
	text := "merge_method: linear\nmodels: [{model: " + model + "}]\nparameters: {weight: 1, normalize: false}\nevaluate: {held_out: rows.csv}\n" +
		"search: {trials: 12, parameters: [{path: parameters.weight, range: [0.2, 2]}]}\n"
	for file, text := range map[string]string{recipe: text, filepath.Join(root, "rows.csv"): rows.String()} {
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	search := func(dir string, more ...string) *exec.Cmd {
		c := exec.Command(os.Args[0], append([]string{"merge", recipe, filepath.Join(dir, "out"), "--backend", "go", "--json"}, more...)...)
		c.Env = append(os.Environ(), killVariable+"=1", "MERGEKIT_CACHE=off")
		return c
	}
	whole := filepath.Join(root, "whole")
	if out, err := search(whole).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := content(t, whole)
	for i, stops := range [][]int{{0}, {3, 7}, {10}, {5}} {
		dir := filepath.Join(root, fmt.Sprint(i))
		var flags []string
		for _, k := range stops {
			signal, status := syscall.SIGKILL, -1
			if i == 3 {
				signal, status = syscall.SIGINT, exitInterrupted
			}
			if got := stopAtTrial(t, search(dir, flags...), k, signal); got != status {
				t.Fatalf("%v after trial %d: exit status %d, want %d", signal, k, got, status)
			}
			flags = []string{"--resume"}
		}
		out, err := search(dir, "--resume").CombinedOutput()
		if err != nil {
			t.Fatalf("after stops at %v: resuming: %v\n%s", stops, err, out)
		}
		if known := strings.Count(string(out), `"known":true`); known < stops[len(stops)-1]+1 {
			t.Errorf("after stops at %v: %d trials are known", stops, known)
		}
		got := content(t, dir)
		if len(got) != len(want) {
			t.Errorf("after stops at %v: %d files, want %d", stops, len(got), len(want))
		}
		for name, text := range want {
			if got[name] != text {
				t.Errorf("after stops at %v: %s differs", stops, name)
			}
		}
	}
}

// stopAtTrial sends a signal when trial k is told, and returns the exit status.
func stopAtTrial(t *testing.T, c *exec.Cmd, k int, signal syscall.Signal) int {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Event string
			Trial int
		}
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Event == "trial" && e.Trial == k {
			if err := c.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c.Wait()
	return c.ProcessState.ExitCode()
}
