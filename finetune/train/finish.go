package train

import (
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/mergekit/mergekit/internal/memory"
)

// finish writes the result, the summary and the page.
func (r *run) finish() (*Summary, error) {
	s := &r.summary
	if err := r.result(); err != nil {
		return nil, err
	}
	s.Steps, s.Tokens, s.TrainedTokens = r.st.Step, r.st.Tokens, r.st.TrainedTokens
	s.Trainable, s.Parameters = r.s.trained(), r.s.desc.Parameters()
	s.Kept, s.Phases = r.s.kept(), r.phaseSummaries()
	s.FirstLoss, s.LastLoss, s.FirstEvalLoss, s.EvalLoss = r.st.FirstLoss, r.st.LastLoss, r.st.FirstEvalLoss, r.st.EvalLoss
	s.BestStep, s.BestEvalLoss, s.StoppedEarly, s.SkippedSteps = r.st.BestStep, r.st.BestLoss, r.st.Stopped, r.st.Skipped
	s.Seconds, s.MemPeak, s.Backend = time.Since(r.began).Seconds(), memory.Peak(), r.o.BackendName
	if r.busy > 0 {
		s.TokPerS = float64(r.counted) / r.busy
	}
	if in := r.cfg.Model.AdapterIn; in != "" && r.cfg.Model.AdapterInMode == "merge" && r.s.kind == "adapter" {
		r.warn("the result belongs to the base with %s fused into it, not to the base alone: fuse that one first ('mergekit adapters fuse'), or train with adapter_in_mode: stack", in)
	}
	if err := r.log.close(); err != nil {
		return nil, err
	}
	if err := writeJSON(filepath.Join(r.dir, "summary.json"), s); err != nil {
		return nil, err
	}
	if r.cfg.Log.Plot {
		if err := r.page(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// result writes what was trained.
func (r *run) result() error {
	s := &r.summary
	s.Kind = r.s.kind
	if r.s.sparse != nil {
		s.Result = filepath.Join(r.dir, sparseName)
		if err := r.toBest(); err != nil {
			return err
		}
		return r.saveSparse(s.Result)
	}
	trained, err := r.m.Tensors()
	if err != nil {
		return err
	}
	if r.bestBehind() {
		if trained, err = readTrained(filepath.Join(r.dir, "checkpoints", stepDir(r.st.BestStep))); err != nil {
			return fmt.Errorf("the best checkpoint: %w", err)
		}
	}
	for name, t := range trained {
		for _, x := range t.Data {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return fmt.Errorf("%s holds %v after training, so the result is not written; the checkpoints are in %s", name, x, filepath.Join(r.dir, "checkpoints"))
			}
		}
	}
	s.Result = filepath.Join(r.dir, r.s.kind)
	if err := r.s.save(s.Result, trained, r.saveOptions()); err != nil {
		return fmt.Errorf("%s: %w", s.Result, err)
	}
	return nil
}

func (r *run) close() {
	r.ahead.Wait() // nothing may compile for a backend that is closed
	if r.log != nil {
		_ = r.log.close()
	}
	if r.e != nil {
		r.e.Close()
	}
	for _, m := range r.copies {
		m.Close()
	}
	if r.m != nil {
		r.m.Close()
	}
	if r.s != nil {
		r.s.ckpt.Close()
	}
	if r.lock != nil {
		r.lock.Close()
	}
}
