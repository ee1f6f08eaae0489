package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestKillSparse kills a sparse fine-tune of two rounds at random steps of all phases, and once while it is resumed, half of the times
// with a signal that lets it save: the file has the bytes of an undisturbed run, and the log has each step once.
func TestKillSparse(t *testing.T) {
	root := t.TempDir()
	config := tuning(t, root)
	// An interval of 3 leaves the last step of a phase of 7 without a checkpoint of its own, but for the end of the phase.
	more := []string{"--set", "tune=sparse", "--set", "sparse.count=333", "--set", "sparse.rounds=2", "--set", "train.max_steps=7",
		"--set", "eval.every=3", "--set", "sparse.head=whole"}
	run := func(flags ...string) []string { return append(append([]string(nil), more...), flags...) }
	whole := filepath.Join(root, "whole")
	if out, err := finetuning(config, whole, run()...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := content(t, whole)
	const steps = 28
	if n := strings.Count(want["metrics.jsonl"], `"lr"`); n != steps {
		t.Fatalf("the run has %d steps", n)
	}
	rng := rand.New(rand.NewPCG(11, 5))
	for i := range 8 {
		dir := filepath.Join(root, fmt.Sprint(i))
		first := 1 + rng.IntN(steps-1)
		if i < 2 {
			first = 7 + 7*i // the last step of a phase: it may be killed while it turns to the next
		}
		stops := []int{first}
		if first < steps-2 {
			stops = append(stops, first+1+rng.IntN(steps-first-1))
		}
		var flags []string
		for n, k := range stops {
			signal, status := syscall.SIGKILL, -1
			if (i+n)%2 == 1 {
				signal, status = syscall.SIGINT, exitInterrupted
			}
			if got := stopAt(t, finetuning(config, dir, run(flags...)...), k, signal); got != status {
				t.Fatalf("%v at step %d: exit status %d, want %d", signal, k, got, status)
			}
			if _, err := os.Stat(filepath.Join(dir, "sparse.safetensors")); err == nil {
				t.Fatalf("%v at step %d: there is a result already", signal, k)
			}
			flags = []string{"--resume"}
		}
		if out, err := finetuning(config, dir, run(flags...)...).CombinedOutput(); err != nil {
			t.Fatalf("after stops at %v: resuming: %v\n%s", stops, err, out)
		}
		got := content(t, dir)
		if got["sparse.safetensors"] != want["sparse.safetensors"] {
			t.Errorf("after stops at %v: the file differs", stops)
		}
		if n := strings.Count(got["metrics.jsonl"], `"lr"`); n != steps {
			t.Errorf("after stops at %v: the log has %d steps, want %d", stops, n, steps)
		}
	}
}
