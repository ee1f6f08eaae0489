package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tuning writes a configuration with all that a resumed run has to find again: shuffled rows over several epochs, dropout, a
// schedule, accumulation, a best checkpoint that may be an older one.
func tuning(t *testing.T, root string) string {
	t.Helper()
	var c struct {
		Batches []struct {
			IDs    [][]int `json:"input_ids"`
			Labels [][]int `json:"labels"`
		} `json:"batches"`
	}
	golden, err := filepath.Abs("../../testdata/golden/train/llama-lora-all-cosine")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(golden, "case.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	var rows strings.Builder
	for k, b := range c.Batches {
		for i := range b.IDs {
			n := len(b.IDs[i]) - (k+i)%5 // of several lengths
			line, err := json.Marshal(map[string]any{"input_ids": b.IDs[i][:n], "labels": b.Labels[i][:n]})
			if err != nil {
				t.Fatal(err)
			}
			rows.Write(append(line, '\n'))
		}
	}
	write := func(name, text string) string {
		path := filepath.Join(root, name)
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	data := write("rows.jsonl", rows.String())
	return write("tune.yml", fmt.Sprintf(`version: 1
run: {seed: 5}
model: {base: %s}
tune: lora
lora: {r: 4, alpha: 8, target_modules: all-linear, dropout: 0.2}
data: {train: [{path: %s, format: tokens}], valid_split: 0.1, max_length: 16}
optim: {lr: 5.0e-3, weight_decay: 0.01}
schedule: {kind: cosine, warmup_ratio: 0.1}
train: {epochs: 3, micro_batch: 2, grad_accum: 2}
eval: {every: 4}
save: {every: 3, keep: 2}
`, filepath.Join(golden, "base"), data))
}

// finetuning is the command of a run into dir.
func finetuning(config, dir string, more ...string) *exec.Cmd {
	args := append([]string{"finetune", config, "--set", "run.output_dir=" + dir, "--backend", "go", "--json"}, more...)
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), killVariable+"=1")
	return c
}

// stopAt starts a run and sends it a signal as soon as it tells of step k. It returns the exit status, -1 for a kill.
func stopAt(t *testing.T, c *exec.Cmd, k int, signal syscall.Signal) int {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var e struct {
			Event string
			Step  int
		}
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Event == "step" && e.Step == k {
			if err := c.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c.Wait()
	return c.ProcessState.ExitCode()
}

// TestKillFinetune kills a run at ten random steps, five of them with a signal that lets it save, and resumes it: the adapter
// has the bytes of an undisturbed run, and the log has each step once.
func TestKillFinetune(t *testing.T) {
	root := t.TempDir()
	config := tuning(t, root)
	whole := filepath.Join(root, "whole")
	if out, err := finetuning(config, whole).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := content(t, filepath.Join(whole, "adapter"))
	steps := strings.Count(content(t, whole)["metrics.jsonl"], `"lr"`)
	if steps < 20 {
		t.Fatalf("the run has %d steps only", steps)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range 10 {
		dir := filepath.Join(root, fmt.Sprint(i))
		k := 1 + rng.IntN(steps-1)
		signal, status := syscall.SIGKILL, -1
		if i%2 == 1 {
			signal, status = syscall.SIGINT, exitInterrupted
		}
		if got := stopAt(t, finetuning(config, dir), k, signal); got != status {
			t.Fatalf("%v at step %d: exit status %d, want %d", signal, k, got, status)
		}
		if _, err := os.Stat(filepath.Join(dir, "adapter")); err == nil {
			t.Fatalf("%v at step %d: there is an adapter already", signal, k)
		}
		if out, err := finetuning(config, dir, "--resume").CombinedOutput(); err != nil {
			t.Fatalf("%v at step %d: resuming: %v\n%s", signal, k, err, out)
		}
		got := content(t, filepath.Join(dir, "adapter"))
		for name := range want {
			if got[name] != want[name] && name != "README.md" { // which quotes the output's place
				t.Errorf("%v at step %d: %s differs", signal, k, name)
			}
		}
		if n := strings.Count(content(t, dir)["metrics.jsonl"], `"lr"`); n != steps {
			t.Errorf("%v at step %d: the log has %d steps, want %d", signal, k, n, steps)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}
