package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/finetune/train"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/memory"
)

// finetuneOptions are the flags of the finetune command.
type finetuneOptions struct {
	sets               []string
	backend, resume    string
	force, resumeForce bool
	print, plot        bool
}

func newFinetuneCommand() *cobra.Command {
	o := &finetuneOptions{}
	cmd := &cobra.Command{
		Use:     "finetune CONFIG",
		Aliases: []string{"train"},
		Short:   "Fine-tune a checkpoint as a YAML file says: LoRA, DoRA, all weights, or a few entries of them",
		Long: `finetune trains a checkpoint on rows of text or conversations and writes an adapter that PEFT loads (tune: lora, dora), a
checkpoint (tune: full, head) or a sparse difference (tune: sparse) into run.output_dir, with metrics.jsonl, summary.json and checkpoints
to resume from.

Ctrl-C saves a checkpoint; the same command with --resume goes on and ends with the same bytes.

EXIT STATUS
  0 done, 1 failed, 2 bad configuration or data, 3 out of memory on the device, 4 training diverged, 130 interrupted (--resume)`,
		Args: exactly(1, "a configuration file"),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.sets, "set", nil, "change a key of the file: --set optim.lr=1e-4 (repeatable)")
	f.StringVar(&o.backend, "backend", "", "where the model runs, in place of run.backend: auto, go, xla:cpu, xla:cuda or the path of a PJRT plugin")
	f.StringVar(&o.resume, "resume", "", "go on with the interrupted run in run.output_dir; =STEP takes an older checkpoint")
	f.Lookup("resume").NoOptDefVal = "newest"
	f.BoolVar(&o.resumeForce, "resume-force", false, "resume although configuration, rows or base have changed")
	f.BoolVar(&o.force, "force", false, "replace the run in run.output_dir")
	f.BoolVar(&o.print, "print-config", false, "print the configuration with every default filled in, and stop")
	f.BoolVar(&o.plot, "plot", false, "write report.html with the run's curves (log.plot)")
	return cmd
}

func (o *finetuneOptions) run(cmd *cobra.Command, path string) error {
	if o.plot {
		o.sets = append(o.sets, "log.plot=true")
	}
	if o.print {
		cfg, err := config.Load(path, o.sets)
		if err == nil {
			_, err = os.Stdout.Write(cfg.YAML())
		}
		return err
	}
	cfg, err := loadFinetuning(cmd, path, o.sets)
	if err != nil {
		return err
	}
	opts := train.Options{Resume: o.resume != "" || o.resumeForce, ResumeForce: o.resumeForce, Force: o.force, Version: version}
	if o.resume != "" && o.resume != "newest" {
		if opts.ResumeStep, err = strconv.Atoi(o.resume); err != nil || opts.ResumeStep < 1 {
			return usageError{fmt.Errorf("--resume=%s: give the step of a checkpoint, or --resume alone for the newest", o.resume)}
		}
	}
	choice := cfg.Run.Backend
	if o.backend != "" {
		choice = o.backend
	}
	hugePages(choice)
	if n := cfg.Run.Threads; n > 0 {
		runtime.GOMAXPROCS(n)
	}
	if cfg.Run.Deterministic {
		// XLA reads its flags when the plugin is loaded. On the CPU its kernels are deterministic anyway.
		if err := os.Setenv("XLA_FLAGS", strings.TrimSpace(os.Getenv("XLA_FLAGS")+" --xla_gpu_deterministic_ops=true")); err != nil {
			return err
		}
	}
	b, status, err := backend.OpenModel(choice)
	if err != nil {
		return usageError{err}
	}
	defer b.Finalize()
	opts.Backend, opts.BackendName = b, string(status.Kind)
	show := newRunView(cmd)
	opts.Report = show.event
	if !quietWanted(cmd) && !jsonWanted(cmd) {
		fmt.Fprintf(os.Stderr, "backend %s: %s\n", status.Kind, status.Detail)
	}
	s, err := train.Run(cmd.Context(), cfg, opts)
	show.end()
	if err != nil {
		return err
	}
	show.summary(cfg, s)
	return nil
}

// runView shows a run: one line that changes on a terminal, plain lines elsewhere, events with --json.
type runView struct {
	cmd      *cobra.Command
	mu       sync.Mutex
	terminal bool
	open     bool // a line without an end is on the terminal
	last     time.Time
	began    time.Time
	first    int // step of the first event
}

func newRunView(cmd *cobra.Command) *runView {
	return &runView{cmd: cmd, terminal: term.IsTerminal(int(os.Stderr.Fd())), began: time.Now(), first: -1}
}

func (v *runView) event(e train.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if jsonWanted(v.cmd) {
		writeJSON(os.Stdout, e)
		return
	}
	if e.Kind == "warning" {
		v.line("warning: " + e.Message)
		return
	}
	if quietWanted(v.cmd) {
		return
	}
	switch e.Kind {
	case "step":
		v.step(e)
	case "eval":
		m := e.Metrics
		if m.EvalLoss != nil {
			v.line(fmt.Sprintf("step %d/%d  eval loss %.4f  perplexity %.4g  token accuracy %.1f%%", e.Step, e.Total, *m.EvalLoss, *m.EvalPPL, 100**m.EvalAccuracy))
		}
	case "checkpoint":
		v.line(fmt.Sprintf("checkpoint %s in %.1f s", e.Message, e.Seconds))
	case "compile":
		if e.Seconds > 0 {
			v.line(fmt.Sprintf("%s in %.1f s", e.Message, e.Seconds))
			return
		}
		v.line(e.Message)
	default:
		v.line(e.Message)
	}
}

// step shows a step: each on a terminal, every few seconds elsewhere.
func (v *runView) step(e train.Event) {
	m := e.Metrics
	if v.first < 0 {
		v.first, v.began = e.Step, time.Now()
	}
	loss, norm := "not finite", "-"
	if m.Loss != nil {
		loss = fmt.Sprintf("%.4f", *m.Loss)
	}
	if m.GradNorm != nil {
		norm = fmt.Sprintf("%.3g", *m.GradNorm)
	}
	text := fmt.Sprintf("step %d/%d  epoch %.2f  loss %s  lr %.3g  norm %s", e.Step, e.Total, m.Epoch, loss, *m.LR, norm)
	if m.Phase != "" {
		text = m.Phase + "  " + text
	}
	if m.TokPerS > 0 {
		text += fmt.Sprintf("  %.0f tok/s", m.TokPerS)
	}
	if done := e.Step - v.first; done > 0 && e.Step < e.Total {
		left := time.Duration(float64(time.Since(v.began)) / float64(done) * float64(e.Total-e.Step))
		text += fmt.Sprintf("  %v left", left.Round(time.Second))
	}
	if v.terminal {
		fmt.Fprintf(os.Stderr, "\r\033[K%s", text)
		v.open = true
		return
	}
	if time.Since(v.last) > 5*time.Second || e.Step == e.Total || e.Step == v.first {
		v.last = time.Now()
		v.line(text)
	}
}

func (v *runView) line(s string) {
	if v.open {
		fmt.Fprint(os.Stderr, "\r\033[K")
		v.open = false
	}
	fmt.Fprintln(os.Stderr, s)
}

func (v *runView) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open {
		fmt.Fprintln(os.Stderr)
		v.open = false
	}
}

func (v *runView) summary(cfg *config.Config, s *train.Summary) {
	if jsonWanted(v.cmd) {
		writeDone(map[string]any{"summary": s})
		return
	}
	if quietWanted(v.cmd) {
		return
	}
	fmt.Printf("%s: %d steps, %d target tokens, %.0f tok/s, %s peak, %s\n", s.Result, s.Steps, s.TrainedTokens, s.TokPerS, bytesText(s.MemPeak), time.Duration(s.Seconds*float64(time.Second)).Round(100*time.Millisecond))
	if s.Kind == "sparse" {
		fmt.Printf("changes %s of %s parameters (%.3g%%)\n", count(s.Kept), count(s.Parameters), 100*float64(s.Kept)/float64(s.Parameters))
	} else {
		fmt.Printf("trained %s of %s parameters (%.3g%%)\n", count(s.Trainable), count(s.Parameters), 100*float64(s.Trainable)/float64(s.Parameters))
	}
	if s.FirstEvalLoss != nil && s.EvalLoss != nil {
		line := fmt.Sprintf("eval loss %.4f -> %.4f", *s.FirstEvalLoss, *s.EvalLoss)
		if s.BestStep > 0 && s.BestEvalLoss != nil {
			line += fmt.Sprintf(", best %.4f at step %d", *s.BestEvalLoss, s.BestStep)
		}
		fmt.Println(line)
	}
	if cfg.Log.Plot {
		fmt.Println("curves:", filepath.Join(cfg.Run.OutputDir, "report.html"))
	}
	if s.Kind == "sparse" {
		fmt.Printf("use it as %s+%s in a recipe, or 'mergekit sparse apply %s %s -o OUT'\n", cfg.Model.Base, s.Result, cfg.Model.Base, s.Result)
	}
	if s.Kind == "adapter" {
		fmt.Printf("use it as %s+%s in a recipe, or 'mergekit adapters fuse --base %s --adapter %s -o OUT'\n", cfg.Model.Base, s.Result, cfg.Model.Base, s.Result)
	}
}

// badTraining reports whether an error is about a configuration of fine-tuning, its rows or its template.
func badTraining(err error) bool {
	var (
		input *train.InputError
		rows  *data.Error
	)
	return errors.As(err, &input) || errors.As(err, &rows)
}

// isDivergence maps a run that does not converge to its exit status.
func isDivergence(err error) bool {
	var d *train.DivergenceError
	return errors.As(err, &d)
}

// planFinetuning prints what a fine-tuning file will do.
func planFinetuning(cmd *cobra.Command, path string, sets []string) error {
	cfg, err := loadFinetuning(cmd, path, sets)
	if err != nil {
		return err
	}
	gpu := false
	for _, s := range backend.List() {
		gpu = gpu || (s.Kind == backend.XLACUDA && s.Available)
	}
	switch cfg.Run.Backend {
	case "go", "xla:cpu":
		gpu = false
	}
	room := int64(0)
	if !gpu {
		room = memory.Total()
	}
	p, err := train.MakePlan(cmd.Context(), cfg, gpu, room)
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, p)
		return nil
	}
	for _, w := range p.Warnings {
		warn(cmd, w)
	}
	l := p.Largest
	fmt.Printf("%s, %s parameters, %s of them train (tune: %s)\n", p.Family, count(l.Parameters), count(l.Trainable), cfg.Tune)
	if p.Kept > 0 {
		fmt.Printf("the result changes %s of them (%.3g%%); steps by phase: %v\n", count(p.Kept), 100*float64(p.Kept)/float64(l.Parameters), p.Phases)
	}
	fmt.Printf("%d rows, %d held out; %d steps of %d x %d rows; %.1f%% padding\n\n", p.Rows, p.ValidRows, p.Steps, cfg.Train.GradAccum, cfg.Train.MicroBatch, 100*p.PaddingShare)
	rows := [][]string{{"SHAPE", "PROCESS", "WEIGHTS", "TRAINED", "KEPT", "BLOCK", "HEAD", "TOTAL", "RECOMPUTE", "FLOPS"}}
	if room > 0 {
		rows[0] = append(rows[0], "FITS")
	}
	for _, s := range p.Shapes {
		row := []string{fmt.Sprintf("%d x %d", s.Rows, s.Length), bytesText(s.Process), bytesText(s.Weights), bytesText(s.Trained), bytesText(s.Activations), bytesText(s.Block), bytesText(s.Logits), bytesText(s.Total), map[bool]string{true: "block", false: "none"}[s.Recompute], fmt.Sprintf("%.3g", s.Flops)}
		if room > 0 {
			row = append(row, fmt.Sprintf("micro_batch %d", p.MicroBatch[s.Length]))
		}
		rows = append(rows, row)
	}
	table(os.Stdout, rows)
	fmt.Printf("\n%d shapes will be compiled; the run computes %.3g operations", len(p.Shapes), p.Flops)
	for _, rate := range []struct {
		name  string
		flops float64
	}{{"2 CPU cores at 0.3 TFLOP/s", 0.3e12}, {"one H100 at 300 TFLOP/s", 300e12}} {
		fmt.Printf(", about %v on %s", time.Duration(p.Flops/rate.flops*float64(time.Second)).Round(time.Second), rate.name)
	}
	fmt.Println()
	return nil
}

// looksLikeFinetuning tells a fine-tuning file from a recipe by its top-level keys.
func looksLikeFinetuning(path string) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	tuning := false
	for line := range strings.Lines(string(data)) {
		key, _, found := strings.Cut(line, ":")
		if !found || key == "" || strings.ContainsAny(key[:1], " \t#-") {
			continue
		}
		switch strings.TrimSpace(key) {
		case "merge_method", "models", "slices", "modules", "base_model":
			return false
		case "model", "data", "tune", "lora", "train", "optim", "method":
			tuning = true
		}
	}
	return tuning
}
