package train_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/mergekit/mergekit/finetune/train"
)

// TestInterruptedEvaluation ends a run in the middle of an evaluation: the resumed one makes up for it, so that it keeps the same best
// step, stops early at the same one and logs the same rows as an undisturbed run.
func TestInterruptedEvaluation(t *testing.T) {
	b := goBackend(t)
	volatile := regexp.MustCompile(`"(tok_per_s|trained_tok_per_s|mem_peak|step_ms|data_ms|compile_ms)":[^,}]*,?`)
	results := map[bool]string{}
	for _, disturbed := range []bool{false, true} {
		dir := t.TempDir()
		cfg := parse(t, dir, tiny, "train.max_steps=12", "train.micro_batch=4", "train.grad_accum=1", "data.valid_split=0.25", "eval.every=2", "optim.lr=1e-2")
		ctx, cancel := context.WithCancel(context.Background())
		o := train.Options{Backend: b, Report: func(e train.Event) {
			if disturbed && e.Kind == "step" && e.Step == 6 {
				cancel()
			}
		}}
		_, err := train.Run(ctx, cfg, o)
		if disturbed {
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			_, err = train.Run(context.Background(), cfg, train.Options{Backend: b, Resume: true})
		}
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		raw, err := os.ReadFile(filepath.Join(dir, "out", "metrics.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		results[disturbed] = volatile.ReplaceAllString(string(raw), "")
		raw, err = os.ReadFile(filepath.Join(dir, "out", "adapter", "adapter_model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		results[disturbed] += string(raw)
	}
	if results[true] != results[false] {
		t.Errorf("resumed:\n%.2500s\nundisturbed:\n%.2500s", results[true], results[false])
	}
}

// TestForce replaces what a run made, and leaves what it did not: a configuration of the user in the same directory is no run.
func TestForce(t *testing.T) {
	b := goBackend(t)
	dir := t.TempDir()
	cfg := parse(t, dir, tiny, "train.max_steps=1", "train.micro_batch=4", "train.grad_accum=1")
	out := filepath.Join(dir, "out")
	write := func(name string) {
		if err := os.MkdirAll(out, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(out, name), []byte("mine"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("config.yml")
	var input *train.InputError
	if _, err := train.Run(context.Background(), cfg, train.Options{Backend: b, Force: true}); !errors.As(err, &input) {
		t.Errorf("a directory that holds no run was replaced: %v", err)
	}
	if err := os.RemoveAll(out); err != nil {
		t.Fatal(err)
	}
	mustRun(t, b, cfg)
	write("notes.txt")
	write("summary.json")
	if _, err := train.Run(context.Background(), cfg, train.Options{Backend: b, Force: true}); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(out, "notes.txt")); err != nil || string(data) != "mine" {
		t.Errorf("the user's file is gone: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(out, "summary.json")); err != nil || string(data) == "mine" {
		t.Errorf("the old run's file stays: %v", err)
	}
}
