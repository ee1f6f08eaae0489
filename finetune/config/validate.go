package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/mergekit/mergekit/finetune/schedule"
	"github.com/mergekit/mergekit/internal/strictyaml"
)

// Bounds of what is certainly a mistake: nothing real comes near, and no number within them overflows in a product of two.
const (
	maxSteps  = 1 << 30
	maxCount  = 1 << 24
	maxLayers = 1 << 16
)

// validate checks what no single type says.
func (d *decoder) validate(c *Config) {
	if c.Version != 1 {
		d.fault("version", "this program reads version 1; here is %d", c.Version)
	}
	d.method(c)
	d.between("run.threads", c.Run.Threads, 0, 4096)
	if c.Model.Base == "" {
		d.fault("model.base", "missing; give the directory of the checkpoint to tune")
	}
	d.lora(&c.LoRA)
	d.sparse(&c.Sparse)
	d.data(&c.Data)
	d.optim(&c.Optim)
	d.schedule(&c.Schedule)
	d.train(&c.Train)
	if c.Eval.MaxBatches != -1 {
		d.between("eval.max_batches", c.Eval.MaxBatches, 1, maxSteps)
	}
	d.optional("eval.early_stopping.patience", c.Eval.EarlyStopping.Patience, maxSteps)
	d.require(c.Eval.EarlyStopping.MinDelta >= 0, "eval.early_stopping.min_delta", "must not be below 0; here is %v", c.Eval.EarlyStopping.MinDelta)
	d.between("save.keep", c.Save.Keep, 1, maxCount)
}

func (d *decoder) require(ok bool, path, format string, args ...any) {
	if !ok {
		d.fault(path, format, args...)
	}
}

// between checks a whole number.
func (d *decoder) between(path string, v, least, most int) {
	d.require(v >= least && v <= most, path, "must be from %d to %d; here is %d", least, most, v)
}

// optional checks a number that null leaves out. Only a given one can be 0.
func (d *decoder) optional(path string, v, most int) {
	if _, given := d.where[path]; given {
		d.require(v >= 1 && v <= most, path, "must be from 1 to %d, or null; here is %d", most, v)
	}
}

// share checks a number from 0 to 1.
func (d *decoder) share(path string, v float64) {
	d.require(v >= 0 && v <= 1, path, "must be from 0 to 1; here is %v", v)
}

var initWords = regexp.MustCompile(`^(?:default|gaussian|pissa|pissa_niter_[1-9][0-9]?|olora|orthogonal|false)$`)

func (d *decoder) lora(l *LoRA) {
	d.between("lora.r", l.R, 1, maxLayers)
	d.require(l.Alpha > 0, "lora.alpha", "must be above 0; here is %v", l.Alpha)
	d.require(l.Dropout >= 0 && l.Dropout < 1, "lora.dropout", "is a probability from 0 to below 1; here is %v", l.Dropout)
	if !initWords.MatchString(l.Init) {
		d.fault("lora.init", "unknown initialisation %s; it is one of default, gaussian, pissa, pissa_niter_4 (or another number), olora, orthogonal and false", strictyaml.Quoted(l.Init))
	}
	if l.Init == "orthogonal" && l.R%2 != 0 {
		d.fault("lora.r", "must be even with init: orthogonal; here is %d", l.R)
	}
	d.require(l.TargetModules.Pattern != "" || l.TargetModules.AllLinear || len(l.TargetModules.Names) > 0, "lora.target_modules",
		"names no module; give names, or all-linear")
	d.require(!l.ExcludeModules.AllLinear, "lora.exclude_modules", "all-linear would leave nothing; give names")
	for _, r := range l.RankPattern {
		d.between("lora.rank_pattern."+r.Module, r.R, 1, maxLayers)
	}
	for _, r := range l.AlphaPattern {
		d.require(r.Alpha > 0, "lora.alpha_pattern."+r.Module, "must be above 0; here is %v", r.Alpha)
	}
	for i, n := range l.LayersToTransform {
		at := fmt.Sprintf("lora.layers_to_transform[%d]", i)
		d.between(at, n, 0, maxLayers)
		d.require(!slices.Contains(l.LayersToTransform[:i], n), at, "layer %d stands twice; remove one", n)
	}
}

func (d *decoder) sparse(s *Sparse) {
	_, counted := d.where["sparse.count"]
	switch {
	case counted:
		d.require(s.Count >= 1, "sparse.count", "must be 1 or more, or null; here is %d", s.Count)
		d.require(s.Share == 0, "sparse.share", "sparse.count says how many entries learn already; keep one of the two")
	default:
		d.require(s.Share > 0 && s.Share <= 1, "sparse.share", "must be above 0 and at most 1; here is %v", s.Share)
	}
	d.between("sparse.rounds", s.Rounds, 1, 1000)
	d.require(s.Count == 0 || s.Rounds <= s.Count, "sparse.rounds", "every round adds an entry at least, and sparse.count is %d; here is %d", s.Count, s.Rounds)
	for _, p := range []struct {
		at    string
		phase *SparsePhase
	}{{"sparse.full", &s.Full}, {"sparse.masked", &s.Masked}} {
		if _, given := d.where[p.at+".epochs"]; given {
			d.require(p.phase.Epochs > 0 && p.phase.Epochs <= 1e6, p.at+".epochs", "must be above 0 and at most a million, or null; here is %v", p.phase.Epochs)
		}
		d.optional(p.at+".max_steps", p.phase.MaxSteps, maxSteps)
		d.require(p.phase.Reg >= 0, p.at+".reg", "must not be below 0; here is %v", p.phase.Reg)
	}
	d.require(!s.ExcludeModules.AllLinear, "sparse.exclude_modules", "all-linear would leave hardly anything; give names")
	for i, path := range s.OnTopOf {
		d.require(path != "", fmt.Sprintf("sparse.on_top_of[%d]", i), "is empty; give the path of a sparse file")
	}
}

func (d *decoder) data(x *Data) {
	d.require(len(x.Train) > 0, "data.train", "missing; give a file of rows, such as data/train.jsonl")
	for i, s := range x.Train {
		d.rows(fmt.Sprintf("data.train[%d]", i), s)
	}
	for i, s := range x.Valid {
		d.rows(fmt.Sprintf("data.valid[%d]", i), s)
	}
	d.require(x.ValidSplit >= 0 && x.ValidSplit < 1, "data.valid_split", "is a share from 0 to below 1; here is %v", x.ValidSplit)
	d.require(x.ValidSplit == 0 || len(x.Valid) == 0, "data.valid_split", "data.valid gives the rows to measure with already; keep one of the two")
	d.between("data.max_length", x.MaxLength, 2, maxCount)
	for i, b := range x.Buckets {
		at := fmt.Sprintf("data.buckets[%d]", i)
		d.between(at, b, 1, maxCount)
		d.require(i == 0 || b > x.Buckets[i-1], at, "buckets ascend; %d does not follow %d", b, x.Buckets[max(i-1, 0)])
	}
	if n := len(x.Buckets); n > 0 && x.Buckets[n-1] < x.MaxLength {
		d.fault("data.buckets", "the longest is %d and data.max_length %d, so longer sequences have no place; add %[2]d", x.Buckets[n-1], x.MaxLength)
	}
	d.require(x.Replay.Fraction >= 0 && x.Replay.Fraction < 1, "data.replay.fraction", "is a share from 0 to below 1; here is %v", x.Replay.Fraction)
	d.require(x.Replay.Path == "" || x.Replay.Fraction > 0, "data.replay.path", "without replay.fraction nothing is replayed; give a share, such as 0.1")
	d.require(x.Replay.Path != "" || x.Replay.Fraction == 0, "data.replay.fraction", "replay.path is missing; give the file of the rows to replay")
}

func (d *decoder) rows(at string, s Source) {
	if _, ok := d.where[at+".path"]; !ok || s.Path == "" {
		d.fault(at, "path is missing; give the file of the rows")
	}
	d.require(s.Weight > 0 && s.Weight <= 1000, at+".weight", "must be above 0 and at most 1000; here is %v", s.Weight)
}

func (d *decoder) optim(o *Optim) {
	d.require(o.LR > 0 && o.LR <= 100, "optim.lr", "must be above 0 and at most 100; here is %v", o.LR)
	for i, b := range o.Betas {
		d.require(b >= 0 && b < 1, fmt.Sprintf("optim.betas[%d]", i), "must be from 0 to below 1; here is %v", b)
	}
	d.require(o.Eps > 0, "optim.eps", "must be above 0; here is %v", o.Eps)
	d.require(o.WeightDecay >= 0 && o.WeightDecay*o.LR < 1, "optim.weight_decay", "must be from 0 to below 1/lr; here is %v", o.WeightDecay)
	d.require(o.Clip >= 0, "optim.clip", "must not be below 0, which does not clip; here is %v", o.Clip)
	d.require(o.LoRAPlusRatio > 0, "optim.lora_plus_ratio", "must be above 0; here is %v", o.LoRAPlusRatio)
}

func (d *decoder) schedule(s *Schedule) {
	if names := schedule.Names(); !slices.Contains(names, s.Kind) {
		hint := "it is one of " + strictyaml.Listed(names)
		if near := strictyaml.Nearest(s.Kind, names); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		d.fault("schedule.kind", "unknown curve %s; %s", strictyaml.Quoted(s.Kind), hint)
	}
	d.share("schedule.warmup_ratio", s.WarmupRatio)
	d.between("schedule.warmup_steps", s.WarmupSteps, 0, maxSteps)
	d.share("schedule.min_lr_ratio", s.MinLRRatio)
	d.share("schedule.decay_ratio", s.DecayRatio)
	d.share("schedule.const_lr_ratio", s.ConstLRRatio)
	d.share("schedule.cooldown_ratio", s.CooldownRatio)
	if s.Kind == "infinite" {
		d.require(s.MinLRRatio > 0, "schedule.min_lr_ratio", "must be above 0 for infinite, whose end is exponential")
		d.require(s.ConstLRRatio >= s.MinLRRatio, "schedule.const_lr_ratio", "must not be below min_lr_ratio; here is %v", s.ConstLRRatio)
	}
}

func (d *decoder) train(t *Train) {
	d.require(t.Epochs > 0 && t.Epochs <= 1e6, "train.epochs", "must be above 0 and at most a million; here is %v", t.Epochs)
	d.optional("train.max_steps", t.MaxSteps, maxSteps)
	d.between("train.micro_batch", t.MicroBatch, 1, 1<<16)
	d.between("train.grad_accum", t.GradAccum, 1, 1<<16)
	d.between("train.replicas", t.Replicas, 1, 1024)
	d.between("train.loss_chunk", t.LossChunk, 0, maxCount)
	d.between("train.blocks_per_call", t.BlocksPerCall, 1, maxCount)
	if t.Replicas > 1 && t.MicroBatch%t.Replicas != 0 {
		d.fault("train.replicas", "micro_batch %d does not divide among %d devices; make it a multiple", t.MicroBatch, t.Replicas)
	}
}

// resolvePaths makes relative paths of the file mean its folder, where something stands there under that name. Paths that a set gives
// are as the shell sees them.
func (d *decoder) resolvePaths(c *Config, folder string) {
	resolve := func(at string, path *string) {
		x, given := d.where[at]
		if !given || x.Pos.Line < 0 || *path == "" || filepath.IsAbs(*path) {
			return
		}
		if joined := filepath.Join(folder, *path); joined != *path {
			if _, err := os.Stat(joined); err == nil {
				*path = joined
			}
		}
	}
	resolve("model.base", &c.Model.Base)
	resolve("model.adapter_in", &c.Model.AdapterIn)
	for i := range c.Sparse.OnTopOf {
		resolve(fmt.Sprintf("sparse.on_top_of[%d]", i), &c.Sparse.OnTopOf[i])
	}
	for i := range c.Data.Train {
		resolve(fmt.Sprintf("data.train[%d].path", i), &c.Data.Train[i].Path)
	}
	for i := range c.Data.Valid {
		resolve(fmt.Sprintf("data.valid[%d].path", i), &c.Data.Valid[i].Path)
	}
	resolve("data.replay.path", &c.Data.Replay.Path)
	resolve("data.chat_template", &c.Data.ChatTemplate)
}
