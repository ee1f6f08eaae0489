package train

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/finetune/schedule"
	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// maxSkips is how many steps in a row may bring a gradient that is not finite.
const maxSkips = 5

// Options say how a run is carried out, beside its configuration.
type Options struct {
	Backend     compute.Backend
	BackendName string // for summary.json
	Resume      bool   // go on from a checkpoint of the run directory
	ResumeStep  int    // from which; 0: the newest
	ResumeForce bool   // even if configuration, base or data have changed
	Force       bool   // replace an existing run
	Version     string
	// Report is told what happens; nil is silence. Calls may come from any goroutine, one at a time.
	Report func(Event)
}

// DivergenceError says that training does not converge.
type DivergenceError struct {
	Step  int
	Where string // the rows of the last step
	Loss  float64
}

// Error says what to do.
func (e *DivergenceError) Error() string {
	return fmt.Sprintf("step %d: loss %v, and no finite gradient in %d steps in a row (last rows: %s); lower optim.lr or lengthen the warm-up, look at these rows ('mergekit preview'), and check the base for NaN ('mergekit inspect')", e.Step, e.Loss, maxSkips, e.Where)
}

// run is a run while it works.
type run struct {
	cfg      *config.Config
	o        Options
	dir      string
	replaces bool     // what is in dir is an older run, and goes
	lock     *os.File // that of dir; nil where there is none
	s        *subject
	m        *model.Model
	copies   []*model.Model // the same on further devices
	e        *Engine
	train    *data.Batcher
	set      *data.Set
	held     []held // rows to measure with, by domain
	phases   []phase
	curve    schedule.Curve // of the phase
	st       State
	log      *metricsLog
	began    time.Time
	busy     float64 // seconds of steps that count for the throughput
	counted  int64   // their tokens
	trained  int64
	summary  Summary
	telling  sync.Mutex      // Report is called from one goroutine at a time
	ahead    sync.WaitGroup  // what is compiled beside the loading of weights and the first steps
	measured map[[2]int]bool // shapes that the evaluation was compiled for
	compile  atomic.Int64    // nanoseconds of compiling for the first shape
}

// Run trains as the configuration says and writes the result. After an interruption (the context's end) it saves a checkpoint
// and returns the context's error; Options.Resume goes on from there and ends with the same bytes.
func Run(ctx context.Context, cfg *config.Config, o Options) (*Summary, error) {
	r := &run{cfg: cfg, o: o, dir: cfg.Run.OutputDir, began: time.Now(), measured: map[[2]int]bool{}}
	defer r.close()
	if err := r.claim(); err != nil {
		return nil, err
	}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	if err := r.loop(ctx); err != nil {
		return nil, err
	}
	return r.finish()
}

func (r *run) tell(e Event) {
	if r.o.Report != nil {
		r.telling.Lock()
		defer r.telling.Unlock()
		r.o.Report(e)
	}
}

func (r *run) warn(format string, args ...any) {
	r.tell(Event{Kind: "warning", Message: fmt.Sprintf(format, args...)})
}

// configName is the resolved configuration in the run directory.
const configName = "config.yml"

// ofRun are the names that a run makes in its directory.
var ofRun = []string{configName, metricsName, boardName, "summary.json", "report.html", "checkpoints", "adapter", "model", sparseName}

// claim refuses a run directory that is in use: it must be new, resumed, or replaced by force.
func (r *run) claim() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	has := map[string]bool{}
	for _, e := range entries {
		has[e.Name()] = true
	}
	ours := has[configName] && has["checkpoints"]
	switch {
	case r.o.Resume && !ours:
		return inputf("%s: holds no run to resume; start it without --resume", r.dir)
	case len(entries) == 0:
		return nil
	case r.o.Resume:
	case !r.o.Force:
		return inputf("%s: exists and is not empty; use --resume to go on with the run in it, --force to replace it, or another run.output_dir", r.dir)
	case !ours:
		return inputf("%s: is not empty and holds no run, so --force does not replace it; choose another run.output_dir", r.dir)
	default:
		r.replaces = true
	}
	return r.take()
}

// take locks the directory for this process: two runs in it would write over each other.
func (r *run) take() (err error) {
	busy := false
	if r.lock, busy, err = tensors.LockDir(r.dir); busy {
		return inputf("%s: another process is training in it; wait for it or stop it, or choose another run.output_dir", r.dir)
	}
	return err
}

// begin makes the directory, once everything that the user may have got wrong was checked.
func (r *run) begin() error {
	if r.replaces {
		for _, name := range ofRun { // and nothing else: the directory may hold the user's own files
			if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(filepath.Join(r.dir, "checkpoints"), 0o755); err != nil {
		return err
	}
	if r.lock == nil {
		if err := r.take(); err != nil {
			return err
		}
	}
	return writeFile(filepath.Join(r.dir, configName), r.cfg.YAML())
}

// prepare opens model and data and brings the engine to where the run begins.
func (r *run) prepare(ctx context.Context) (err error) {
	r.tell(Event{Kind: "prepare", Message: "reading " + r.cfg.Model.Base})
	if r.s, err = open(r.cfg, false); err != nil {
		return err
	}
	if err := r.openData(ctx); err != nil {
		return err
	}
	if r.phases, err = phasesOf(r.cfg, r.train); err != nil {
		return err
	}
	for _, p := range r.phases {
		if _, err := r.cfg.Curve(p.steps); err != nil {
			return &InputError{err}
		}
	}
	from := ""
	fresh := State{Schema: stateSchema, Phase: r.phases[0].name, Round: r.phases[0].round, Seed: r.cfg.Run.Seed, ConfigDigest: r.cfg.Digest(), Config: string(r.cfg.YAML()),
		DataDigest: r.train.Digest(), Version: r.o.Version}
	if fresh.BaseDigest, err = r.baseDigest(); err != nil {
		return err
	}
	fresh.Total = r.expected(&fresh)
	r.st = fresh
	if r.o.Resume {
		if from, err = r.resumed(fresh); err != nil {
			return err
		}
	} else if err := r.begin(); err != nil {
		return err
	}
	if r.log, err = openMetrics(r.dir, r.st.Step, r.cfg.Log.TensorBoard); err != nil {
		return err
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	if from != "" {
		if err := r.e.restore(from, r.st); err != nil {
			return err
		}
		if r.s.sparse != nil {
			if err := r.e.restoreMask(from); err != nil {
				return err
			}
		}
		r.tell(Event{Kind: "prepare", Message: fmt.Sprintf("resumed at step %d of %d", r.st.Step, r.st.Total)})
	}
	return r.enter()
}

// load copies the model to the device while its graphs are compiled.
func (r *run) load(ctx context.Context) (err error) {
	shapes := r.train.Shapes()
	rows, length := 0, 0
	for _, s := range shapes {
		if s[0]*s[1] > rows*length {
			rows, length = s[0], s[1]
		}
	}
	o := model.Options{Backend: r.o.Backend, Overlay: r.s.overlay, Replace: r.s.replace, Group: r.cfg.Train.BlocksPerCall}
	switch r.cfg.Model.DType {
	case "float32":
		o.Compute = dtypes.Float32
	case "bfloat16":
		o.Compute = dtypes.BFloat16
	}
	gpu := strings.Contains(strings.ToLower(r.o.Backend.Description()), "cuda")
	wide := o.Compute
	if wide == dtypes.InvalidDType {
		wide = dtypes.Float32
		if gpu {
			wide = dtypes.BFloat16
		}
	}
	recompute := settle(r.s.estimate(r.cfg, rows, length, true, wide), r.cfg.Train.GradientCheckpointing, gpu)
	pass := model.PassOptions{Recompute: recompute, Chunk: r.cfg.Train.LossChunk, Packed: r.train.Packing() != "none"}
	if r.s.dropout {
		pass.Dropout = new(uint64)
	}
	inOrder := r.shapesInOrder()
	r.ahead.Add(1)
	o.Ahead = func(m *model.Model) {
		defer r.ahead.Done()
		for i, s := range inOrder {
			if ctx.Err() != nil {
				return
			}
			began := time.Now()
			r.tell(Event{Kind: "compile", Message: fmt.Sprintf("compiling for batches of %d x %d (%d of %d shapes)", s[0], s[1], i+1, len(shapes))})
			if m.CompilePass(s[0], s[1], pass) != nil {
				return // whoever needs the graph meets the same error, and can return it
			}
			took := time.Since(began)
			if i == 0 {
				r.compile.Store(int64(took))
			}
			r.tell(Event{Kind: "compile", Message: fmt.Sprintf("compiled for batches of %d x %d", s[0], s[1]), Seconds: took.Seconds()})
		}
	}
	if r.m, err = model.LoadFrom(ctx, r.s.desc, r.s.ckpt, o); err != nil {
		return err
	}
	models := []*model.Model{r.m}
	for d := 1; d < r.cfg.Train.Replicas; d++ {
		if d >= r.o.Backend.NumDevices() {
			return inputf("train.replicas: %d, but this backend has %d devices", r.cfg.Train.Replicas, r.o.Backend.NumDevices())
		}
		o.Ahead, o.Share, o.Device = nil, r.m, compute.DeviceNum(d)
		m, err := model.LoadFrom(ctx, r.s.desc, r.s.ckpt, o)
		if err != nil {
			return err
		}
		models, r.copies = append(models, m), append(r.copies, m)
	}
	// The device has the values now. For full fine-tuning they are a whole model in float32.
	for name, t := range r.s.overlay.Tensors {
		r.s.overlay.Tensors[name] = model.Tensor{Shape: t.Shape}
	}
	r.s.replace = nil
	c := &r.cfg.Optim
	r.e, err = NewEngine(AdamW{Beta1: c.Betas[0], Beta2: c.Betas[1], Eps: c.Eps, WeightDecay: c.WeightDecay, DecayAll: c.DecayAll, Clip: c.Clip, RatioB: c.LoRAPlusRatio}, models...)
	if err != nil {
		return err
	}
	if r.s.sparse != nil {
		if err := r.e.keepStart(); err != nil {
			return err
		}
	}
	debug.FreeOSMemory() // what reading rows and weights has left would stay beside the passes
	r.e.Recompute, r.e.Chunk, r.e.Dropout, r.e.Seed = recompute, r.cfg.Train.LossChunk, r.s.dropout, mix(uint64(r.cfg.Run.Seed), 0xd40)
	return nil
}

// shapesInOrder lists the shapes with those of the first step first.
func (r *run) shapesInOrder() [][2]int {
	var list [][2]int
	seen := map[[2]int]bool{}
	for _, b := range r.train.Step(r.st.Epoch, r.st.EpochStep) {
		if s := [2]int{b.Rows, b.Length}; !seen[s] {
			seen[s], list = true, append(list, s)
		}
	}
	for _, s := range r.train.Shapes() {
		if !seen[s] {
			seen[s], list = true, append(list, s)
		}
	}
	return list
}

// loop makes the steps. What belongs to a step comes in one order, and the state tells how far it came: an evaluation that an
// interruption cut short is made up for when the run is resumed.
func (r *run) loop(ctx context.Context) error {
	saved := r.st.Step
	r.e.Stop = ctx.Err
	for {
		step, total := r.st.Step-r.st.PhaseStart, r.phase().steps
		best, late := false, false
		if len(r.held) > 0 && r.st.Evaluated < r.st.Step+1 && (step == 0 || r.cfg.Eval.Every.Due(step, total) || step == total) {
			before := r.st.BestStep
			if err := r.evaluate(ctx); err != nil {
				if ctx.Err() != nil {
					return r.interrupted(saved, err)
				}
				return err
			}
			r.st.Evaluated = r.st.Step + 1
			late = r.st.Step == saved // made up for: the checkpoint that is there does not know it
			best = r.st.BestStep != before
			if r.st.Step == 0 {
				r.st.FirstEvalLoss = r.st.EvalLoss
			}
		}
		if step > 0 && (late || r.st.Step != saved) && (late || r.cfg.Save.Every.Due(step, total) || step == total || r.st.Stopped || (best && r.cfg.Eval.SaveBest)) {
			if err := r.checkpoint(); err != nil {
				return err
			}
			saved = r.st.Step
		}
		if step >= total || r.st.Stopped {
			if over, err := r.turn(); over || err != nil {
				return err
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return r.interrupted(saved, err)
		}
		if err := r.step(); err != nil {
			if why := ctx.Err(); why != nil && errors.Is(err, why) { // the step has changed nothing
				return r.interrupted(saved, why)
			}
			return err
		}
	}
}

// interrupted saves where the run is. An error in doing so counts for more than the interruption: --resume would not find the steps.
func (r *run) interrupted(saved int, err error) error {
	if r.st.Step == saved {
		return err
	}
	if e := r.checkpoint(); e != nil {
		return e
	}
	return err
}

// step makes one optimizer step and logs it.
func (r *run) step() error {
	began := time.Now()
	if r.st.EpochStep >= r.train.StepsPerEpoch(r.st.Epoch) {
		r.st.Epoch, r.st.EpochStep = r.st.Epoch+1, 0
	}
	batches := r.train.Step(r.st.Epoch, r.st.EpochStep)
	var micros []Micro
	var read, targets, positions int64
	for _, b := range batches {
		micro := microOf(b, r.set, r.s.desc)
		if len(micro.Targets.Rows) == 0 {
			continue // rows of padding
		}
		micros = append(micros, micro)
		read += tokens(b)
		targets += int64(len(micro.Targets.Rows))
		positions += int64(b.Rows * b.Length)
	}
	prepared := time.Since(began)
	lr := r.curve(r.st.Step - r.st.PhaseStart + 1)
	stats, err := r.e.Step(micros, lr)
	if err != nil {
		return fmt.Errorf("step %d: %w", r.st.Step+1, err)
	}
	took := time.Since(began)
	r.st.Step++
	r.st.EpochStep++
	r.st.Tokens += read
	r.st.TrainedTokens += targets
	loss := stats.MeanLoss()
	if stats.Skipped {
		r.st.Skipped++
		r.st.InARow++
		if r.st.InARow >= maxSkips {
			var where []string
			for _, m := range micros {
				where = append(where, m.Where())
			}
			return &DivergenceError{r.st.Step, strings.Join(where, "; "), loss}
		}
		r.warn("step %d: the gradient is not finite (loss %v); the step changes nothing", r.st.Step, loss)
	} else {
		r.st.InARow = 0
	}
	row := Metrics{Step: r.st.Step, Epoch: r.epoch(), Phase: r.st.Phase, Round: r.st.Round, LR: &lr, Skipped: stats.Skipped, Tokens: r.st.Tokens, TrainedTokens: r.st.TrainedTokens,
		PadShare: 1 - float64(read)/float64(max(positions, 1)), StepMS: took.Seconds() * 1e3, DataMS: prepared.Seconds() * 1e3, MemPeak: memory.Peak()}
	if !stats.Skipped {
		accuracy := stats.Correct / stats.Weight
		row.Loss, row.GradNorm, row.Accuracy = &loss, &stats.Norm, &accuracy
		if r.phase().reg > 0 {
			row.Pull = &stats.Pull
		}
		r.st.LastLoss = &loss
		if r.st.FirstLoss == nil {
			r.st.FirstLoss = &loss
		}
	}
	if r.summary.FirstStepAfter == 0 {
		r.summary.FirstStepAfter = time.Since(r.began).Seconds()
		row.CompileMS = float64(r.compile.Load()) / 1e6
	} else {
		r.busy += took.Seconds()
		r.counted += read
		r.trained += targets
		row.TokPerS, row.TrainedTokPerS = float64(r.counted)/r.busy, float64(r.trained)/r.busy
	}
	if r.st.Step == 1 && stats.Norm == 0 && !stats.Skipped {
		r.warn("the gradient of the first step is zero: everything is frozen or masked")
	}
	r.tell(Event{Kind: "step", Step: r.st.Step, Total: r.st.Total, Metrics: &row})
	if r.cfg.Log.Every.Due(r.st.Step, r.st.Total) || r.st.Step == r.st.Total {
		return r.log.add(row)
	}
	return nil
}

// epoch is how far the run is, in epochs.
func (r *run) epoch() float64 {
	return float64(r.st.Epoch) + float64(r.st.EpochStep)/float64(max(r.train.StepsPerEpoch(r.st.Epoch), 1))
}

// checkpoint writes the state of the run, and removes checkpoints that are not kept.
func (r *run) checkpoint() error {
	dir := filepath.Join(r.dir, "checkpoints")
	at := filepath.Join(dir, stepDir(r.st.Step))
	began := time.Now()
	st := r.st
	if st.EpochStep >= r.train.StepsPerEpoch(st.Epoch) {
		st.Epoch, st.EpochStep = st.Epoch+1, 0
	}
	if err := r.log.sync(); err != nil { // rows first: a resumed run takes those up to its step for granted
		return err
	}
	if err := r.e.writeCheckpoint(at, st); err != nil {
		return fmt.Errorf("checkpoint %s: %w", at, err)
	}
	r.tell(Event{Kind: "checkpoint", Step: r.st.Step, Message: at, Seconds: time.Since(began).Seconds()})
	return prune(dir, r.cfg.Save.Keep, r.st.BestStep)
}
