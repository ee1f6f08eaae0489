package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mergekit/mergekit/finetune/train"
	"github.com/mergekit/mergekit/internal/tfevents"
)

// TestInterruptedEvaluation ends a run in the middle of an evaluation: the resumed one makes up for it, so that it keeps the same best
// step, stops early at the same one and logs the same rows as an undisturbed run.
func TestInterruptedEvaluation(t *testing.T) {
	b := goBackend(t)
	volatile := regexp.MustCompile(`"(tok_per_s|trained_tok_per_s|mem_peak|step_ms|data_ms|compile_ms)":[^,}]*,?`)
	results, losses := map[bool]string{}, map[bool]string{}
	for _, disturbed := range []bool{false, true} {
		dir := t.TempDir()
		cfg := parse(t, dir, tiny, "train.max_steps=12", "train.micro_batch=4", "train.grad_accum=1", "data.valid_split=0.25", "eval.every=2", "optim.lr=1e-2", "log.tensorboard=true")
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
		boards, err := tfevents.Files(filepath.Join(dir, "out", "tensorboard"))
		if want := map[bool]int{false: 1, true: 2}[disturbed]; err != nil || len(boards) != want {
			t.Errorf("disturbed %v: event files %v, want %d of them (%v)", disturbed, boards, want, err)
		}
		for name, key := range map[string]string{"train/loss": `"loss":`, "train/learning_rate": `"lr":`, "eval/perplexity": `"eval_ppl":`} {
			n := 0
			for _, board := range boards {
				events, err := os.ReadFile(board)
				if err != nil {
					t.Fatal(err)
				}
				n += strings.Count(string(events), name)
			}
			if want := strings.Count(string(raw), key); n < want || n > want+1 || !disturbed && n != want { // what comes again after the interruption is there twice
				t.Errorf("disturbed %v: %d values of %s, %d rows with %s", disturbed, n, name, want, key)
			}
		}
		raw, err = os.ReadFile(filepath.Join(dir, "out", "adapter", "adapter_model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		results[disturbed] += string(raw)
		if raw, err = os.ReadFile(filepath.Join(dir, "out", "summary.json")); err != nil {
			t.Fatal(err)
		}
		var s train.Summary
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		// The losses of the whole run, not of what came after the interruption.
		for i, loss := range []*float64{s.FirstLoss, s.LastLoss, s.FirstEvalLoss, s.EvalLoss, s.BestEvalLoss} {
			if loss == nil {
				t.Fatalf("disturbed %v: summary.json lacks a loss (number %d: first, last, first eval, eval, best eval)", disturbed, i)
			}
			losses[disturbed] += fmt.Sprintln(*loss)
		}
	}
	if results[true] != results[false] {
		t.Errorf("resumed:\n%.2500s\nundisturbed:\n%.2500s", results[true], results[false])
	}
	if losses[true] != losses[false] {
		t.Errorf("summary of the resumed run:\n%s\nof the undisturbed one:\n%s", losses[true], losses[false])
	}
}

// late is a context that ends when it has been asked a number of times.
type late struct {
	context.Context
	after, asked atomic.Int64
}

func (c *late) Err() error {
	if c.asked.Add(1) > c.after.Load() {
		return context.Canceled
	}
	return nil
}

// TestInterruptedStep ends a run in the middle of steps: at once, not behind the step, and without a trace in the result.
func TestInterruptedStep(t *testing.T) {
	b := goBackend(t)
	results := map[bool]string{}
	for _, disturbed := range []bool{false, true} {
		dir := t.TempDir()
		cfg := parse(t, dir, tiny, "train.max_steps=6", "train.micro_batch=2", "train.grad_accum=3", "optim.lr=1e-2", "lora.dropout=0.1")
		within := 0 // interruptions that came within a step
		for k := int64(0); ; k++ {
			ctx := &late{Context: context.Background()}
			if ctx.after.Store(1 << 62); disturbed {
				ctx.after.Store(11 + 17*k%60)
			}
			var last train.Event
			_, err := train.Run(ctx, cfg, train.Options{Backend: b, Resume: k > 0, Report: func(e train.Event) { last = e }})
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if last.Kind == "checkpoint" {
				within++
			}
			if k > 200 {
				t.Fatal("the run does not come to its end")
			}
		}
		if disturbed && within < 3 {
			t.Errorf("%d interruptions left a checkpoint, want some", within)
		}
		raw, err := os.ReadFile(filepath.Join(dir, "out", "adapter", "adapter_model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		results[disturbed] = string(raw)
	}
	if results[true] != results[false] {
		t.Error("a run that was interrupted within steps has another result")
	}
}

// TestCompilationIsTold sees that every shape of training and of evaluation is announced before it is compiled and measured after:
// no silent minute.
func TestCompilationIsTold(t *testing.T) {
	b := goBackend(t)
	cfg := parse(t, t.TempDir(), tiny, "train.max_steps=2", "train.micro_batch=4", "train.grad_accum=1", "data.valid_split=0.25", "eval.every=1")
	begun, ended := map[string]int{}, map[string]int{}
	atEval := -1 // evaluations announced when the first one ends
	_, err := train.Run(context.Background(), cfg, train.Options{Backend: b, Report: func(e train.Event) {
		what := "training"
		if strings.Contains(e.Message, "evaluation") {
			what = "evaluation"
		}
		switch {
		case e.Kind == "eval" && atEval < 0:
			atEval = ended["evaluation"]
		case e.Kind == "compile" && e.Seconds > 0:
			ended[what]++
		case e.Kind == "compile":
			begun[what]++
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"training", "evaluation"} {
		if begun[what] == 0 || begun[what] != ended[what] {
			t.Errorf("%s: %d compilations begun, %d ended", what, begun[what], ended[what])
		}
	}
	if atEval < 1 || atEval != ended["evaluation"] {
		t.Errorf("%d compilations were told before the first evaluation ended, %d in all: each shape is compiled once, and before it is needed", atEval, ended["evaluation"])
	}
}

// TestLock sees that a run directory serves one process at a time.
func TestLock(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("directories are not locked there")
	}
	b := goBackend(t)
	cfg := parse(t, t.TempDir(), tiny, "train.max_steps=2", "train.micro_batch=4", "train.grad_accum=1")
	var seen []error
	_, err := train.Run(context.Background(), cfg, train.Options{Backend: b, Report: func(e train.Event) {
		if e.Kind == "step" {
			for _, o := range []train.Options{{Backend: b, Resume: true}, {Backend: b, Force: true}} {
				_, err := train.Run(context.Background(), cfg, o)
				seen = append(seen, err)
			}
		}
	}})
	if err != nil || len(seen) != 4 {
		t.Fatal(err, seen)
	}
	for _, err := range seen {
		var input *train.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), "another process is training in it") {
			t.Errorf("a second run in the directory: %v", err)
		}
	}
	if _, err := train.Run(context.Background(), cfg, train.Options{Backend: b, Force: true}); err != nil {
		t.Errorf("behind the run: %v", err)
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
