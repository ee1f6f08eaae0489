package train

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/mergekit/mergekit/model"
)

// evaluate measures the held-out rows, all and by domain, and keeps track of the best step.
func (r *run) evaluate(ctx context.Context) error {
	var sum model.Result
	domains := map[string]float64{}
	for _, part := range r.held {
		one, err := r.measure(ctx, part)
		if err != nil {
			return err
		}
		sum.Add(one)
		if one.Weight > 0 && len(r.held) > 1 {
			domains[part.domain] = one.MeanLoss()
		}
	}
	if sum.Weight == 0 {
		return nil
	}
	loss, accuracy := sum.Loss/sum.Weight, sum.Correct/sum.Weight
	ppl := math.Exp(loss)
	row := Metrics{Step: r.st.Step, Epoch: r.epoch(), Phase: r.st.Phase, Round: r.st.Round, EvalLoss: &loss, EvalAccuracy: &accuracy, EvalPPL: &ppl, Domains: finite(domains)}
	if math.IsNaN(loss) || math.IsInf(loss, 0) { // no number of JSON, and never the best
		row.EvalLoss, row.EvalPPL = nil, nil
		r.warn("step %d: the loss on the valid rows is %v", r.st.Step, loss)
	} else {
		r.st.EvalLoss = &loss
	}
	if r.st.Step > r.st.PhaseStart {
		stop := &r.cfg.Eval.EarlyStopping
		gain := row.EvalLoss != nil && (r.st.BestLoss == nil || loss < *r.st.BestLoss-stop.MinDelta)
		if row.EvalLoss != nil && (r.st.BestLoss == nil || loss < *r.st.BestLoss) {
			r.st.BestStep, r.st.BestLoss = r.st.Step, &loss
		}
		if gain { // min_delta is for patience alone: the best is the best
			r.st.Waited = 0
		} else if r.st.Waited++; stop.Patience > 0 && r.st.Waited >= stop.Patience {
			r.st.Stopped = true
			r.warn("no gain in %d evaluations: stopping early at step %d; the best was step %d", r.st.Waited, r.st.Step, r.st.BestStep)
		}
	}
	r.tell(Event{Kind: "eval", Step: r.st.Step, Total: r.st.Total, Metrics: &row})
	return r.log.add(row)
}

// measure is the loss on held-out rows.
func (r *run) measure(ctx context.Context, part held) (sum model.Result, err error) {
	n := part.batcher.StepsPerEpoch(0)
	if k := r.cfg.Eval.MaxBatches; k >= 0 {
		n = min(n, k)
	}
	for i := range n {
		for _, b := range part.batcher.Step(0, i) {
			if err := ctx.Err(); err != nil {
				return sum, err
			}
			micro := microOf(b, part.set, r.s.desc)
			if len(micro.Targets.Rows) == 0 {
				continue
			}
			if err := r.compileLoss(b.Rows, b.Length); err != nil {
				return sum, fmt.Errorf("evaluation: %w", err)
			}
			one, err := r.m.Loss(micro.Input, micro.Targets, r.cfg.Train.LossChunk)
			if err != nil {
				return sum, fmt.Errorf("evaluation: %w", err)
			}
			sum.Add(one)
		}
	}
	return sum, nil
}

// compileLoss compiles what an evaluation runs on batches of a shape, the first time that one comes, and tells so.
func (r *run) compileLoss(rows, length int) error {
	shape := [2]int{rows, length}
	if r.measured[shape] {
		return nil
	}
	began := time.Now()
	r.tell(Event{Kind: "compile", Message: fmt.Sprintf("compiling the evaluation for batches of %d x %d", rows, length)})
	if err := r.m.CompileLoss(rows, length, r.cfg.Train.LossChunk); err != nil {
		return err
	}
	r.measured[shape] = true
	r.tell(Event{Kind: "compile", Message: fmt.Sprintf("compiled the evaluation for batches of %d x %d", rows, length), Seconds: time.Since(began).Seconds()})
	return nil
}

// finite leaves out what is no number of JSON.
func finite(list map[string]float64) map[string]float64 {
	for k, v := range list {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			delete(list, k)
		}
	}
	return list
}
