package train

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/finetune/data"
)

// The phases of a sparse fine-tune.
const (
	phaseFull   = "full"   // everything learns, to see what moves
	phaseMasked = "masked" // the chosen entries learn
)

// phase is a stretch of a run with a learning rate, an optimizer and a best step of its own. A run that is no sparse fine-tune is one
// phase without a name.
type phase struct {
	name  string
	round int // from 1; 0 without a name
	steps int
	reg   float64
}

// PhaseSummary is what a phase of a sparse fine-tune came to.
type PhaseSummary struct {
	Phase        string   `json:"phase"`
	Round        int      `json:"round"`
	Steps        int      `json:"steps"`
	LastLoss     *float64 `json:"last_loss,omitempty"`
	EvalLoss     *float64 `json:"eval_loss,omitempty"` // of the last evaluation
	BestStep     int      `json:"best_step,omitempty"` // counted over the run
	BestEvalLoss *float64 `json:"best_eval_loss,omitempty"`
	StoppedEarly bool     `json:"stopped_early,omitempty"`
	Chosen       int64    `json:"chosen,omitempty"` // entries that the phase has chosen
}

// phasesOf lists the phases of a run in order.
func phasesOf(cfg *config.Config, b *data.Batcher) ([]phase, error) {
	if cfg.Tune != "sparse" {
		n, err := steps(b, "train.epochs", cfg.Train.Epochs, cfg.Train.MaxSteps)
		return []phase{{steps: n}}, err
	}
	var list []phase
	for round := 1; round <= cfg.Sparse.Rounds; round++ {
		for _, p := range []struct {
			name string
			c    *config.SparsePhase
		}{{phaseFull, &cfg.Sparse.Full}, {phaseMasked, &cfg.Sparse.Masked}} {
			at, epochs, most := "sparse."+p.name+".epochs", p.c.Epochs, p.c.MaxSteps
			if epochs == 0 && most == 0 {
				at, epochs, most = "train.epochs", cfg.Train.Epochs, cfg.Train.MaxSteps
			}
			n, err := steps(b, at, epochs, most)
			if err != nil {
				return nil, err
			}
			list = append(list, phase{p.name, round, n, p.c.Reg})
		}
	}
	return list, nil
}

// steps is the length of a phase in optimizer steps.
func steps(b *data.Batcher, key string, epochs float64, most int) (int, error) {
	if most > 0 {
		return most, nil
	}
	whole, rest := int(epochs), epochs-math.Floor(epochs)
	total := 0
	for e := range whole {
		total += b.StepsPerEpoch(e)
	}
	if rest > 0 {
		total += int(math.Ceil(rest * float64(b.StepsPerEpoch(whole))))
	}
	if total < 1 {
		return 0, inputf("%s: %v epochs of these rows have no step; use more rows or set train.max_steps", key, epochs)
	}
	return total, nil
}

// TotalSteps is the length of a run in optimizer steps, all phases together.
func TotalSteps(cfg *config.Config, b *data.Batcher) (int, error) {
	list, err := phasesOf(cfg, b)
	total := 0
	for _, p := range list {
		total += p.steps
	}
	return total, err
}

// phaseIndex finds the phase in which a state is, -1 if the run has no such phase.
func (r *run) phaseIndex(st *State) int {
	for i, p := range r.phases {
		if p.name == st.Phase && p.round == st.Round {
			return i
		}
	}
	return -1
}

// phase is the one that the run is in.
func (r *run) phase() phase { return r.phases[r.phaseIndex(&r.st)] }

// expected is the number of steps of the whole run, as far as a state lets know it: phases that are over have the length they had.
func (r *run) expected(st *State) int {
	total := st.PhaseStart
	for _, p := range r.phases[r.phaseIndex(st):] {
		total += p.steps
	}
	return total
}

// enter makes the engine and the learning rate those of the phase.
func (r *run) enter() (err error) {
	p := r.phase()
	if r.e != nil {
		r.e.setPhase(p.name == phaseMasked, r.s.pull(p))
	}
	if r.curve, err = r.cfg.Curve(p.steps); err != nil {
		return &InputError{err}
	}
	return nil
}

// bestBehind says whether the best step of the phase is another one than the last.
func (r *run) bestBehind() bool {
	return r.cfg.Eval.SaveBest && r.st.BestStep > 0 && r.st.BestStep != r.st.Step
}

// toBest takes the weights of the best step of the phase, where those count. The optimizer stays where it is.
func (r *run) toBest() error {
	if !r.bestBehind() {
		return nil
	}
	if err := r.e.restoreValues(filepath.Join(r.dir, "checkpoints", stepDir(r.st.BestStep))); err != nil {
		return fmt.Errorf("the best checkpoint: %w", err)
	}
	return nil
}

// turn ends a phase and begins the next; over says that there is none. It is a function of the state and the weights, so that a run
// that is killed here and resumed from the last checkpoint of the phase does the same once more.
func (r *run) turn() (over bool, err error) {
	at := r.phaseIndex(&r.st)
	if at == len(r.phases)-1 {
		return true, nil
	}
	p, next := r.phases[at], r.phases[at+1]
	done := r.phaseSummary()
	if err := r.toBest(); err != nil {
		return false, err
	}
	if p.name == phaseFull {
		if done.Chosen, err = r.choose(p.round); err != nil {
			return false, err
		}
		if err := r.e.rewind(); err != nil {
			return false, err
		}
		r.tell(Event{Kind: "prepare", Step: r.st.Step, Message: fmt.Sprintf("round %d: %d entries are chosen; everything else is frozen, and the weights go back to the start", p.round, done.Chosen)})
	} else if err := r.e.keepRound(); err != nil {
		return false, err
	}
	if err := r.e.begin(next.name == phaseMasked, r.s.pull(next)); err != nil {
		return false, err
	}
	st := &r.st
	st.Phases = append(st.Phases, done)
	st.Phase, st.Round, st.PhaseStart, st.PhaseSkipped = next.name, next.round, st.Step, st.Skipped
	st.Epoch, st.EpochStep, st.InARow, st.Waited, st.Stopped = 0, 0, 0, 0, false
	st.BestStep, st.BestLoss = 0, nil
	st.Total = r.expected(st)
	return false, r.enter()
}

// phaseSummary is what the phase has come to.
func (r *run) phaseSummary() PhaseSummary {
	st := &r.st
	return PhaseSummary{Phase: st.Phase, Round: st.Round, Steps: st.Step - st.PhaseStart, LastLoss: st.LastLoss, EvalLoss: st.EvalLoss,
		BestStep: st.BestStep, BestEvalLoss: st.BestLoss, StoppedEarly: st.Stopped}
}

// phaseSummaries are those of all phases; nil without phases.
func (r *run) phaseSummaries() []PhaseSummary {
	if r.s.sparse == nil {
		return nil
	}
	return append(slices.Clone(r.st.Phases), r.phaseSummary())
}

// phaseText tells of the phases in one line.
func phaseText(list []PhaseSummary) string {
	var parts []string
	from := 0
	for _, p := range list {
		parts = append(parts, fmt.Sprintf("round %d %s: steps %d to %d", p.Round, p.Phase, from+1, from+p.Steps))
		from += p.Steps
	}
	return strings.Join(parts, "; ")
}
