package train

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// InputError says that configuration, model or data cannot be used as they are.
type InputError struct{ Err error }

// Error is the cause's.
func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

func inputf(format string, args ...any) error { return &InputError{fmt.Errorf(format, args...)} }

// subject is what a run trains: the model with its overlay, and how the result is written.
type subject struct {
	desc    *model.Description
	ckpt    *tensors.Checkpoint
	overlay *model.Overlay
	replace map[string]model.Tensor
	dropout bool
	kind    string    // "adapter" or "model", the result's directory, or "sparse"
	sparse  *sparsity // with tune: sparse
	// dry leaves the values out, for a plan: the overlay has shapes alone.
	dry bool
	// save writes the result from the trained tensors.
	save func(dir string, trained map[string]model.Tensor, o saveOptions) error
}

// trained returns the number of trained parameters.
func (s *subject) trained() (n int64) {
	for _, t := range s.overlay.Tensors {
		n += int64(adapter.Tensor{Shape: t.Shape}.Elems())
	}
	return n
}

// open reads the base and makes what trains on it; dry reads headers alone. The caller closes the checkpoint.
func open(cfg *config.Config, dry bool) (s *subject, err error) {
	d, raw, err := model.ReadDescription(cfg.Model.Base)
	if err != nil {
		return nil, err
	}
	ckpt, err := checkpoint.Open(cfg.Model.Base)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			ckpt.Close()
		}
	}()
	s = &subject{desc: d, ckpt: ckpt, kind: "model", dry: dry}
	switch cfg.Tune {
	case "full", "head", "sparse":
		if cfg.Model.AdapterIn != "" {
			return nil, inputf("model.adapter_in: tune %s trains the base's own weights; fuse the adapter first ('mergekit adapters fuse')", cfg.Tune)
		}
		if cfg.Tune == "sparse" {
			return s, s.sparseTune(cfg)
		}
		return s, s.whole(cfg)
	}
	s.kind = "adapter"
	modules, err := adapter.Modules(ckpt, raw)
	if err != nil {
		return nil, err
	}
	return s, s.adapters(cfg, modules)
}

// whole makes every weight train, or the head's alone.
func (s *subject) whole(cfg *config.Config) error {
	d := s.desc
	var want func(string) bool
	if cfg.Tune == "head" {
		if d.Tied && d.Head == model.HeadLM {
			return inputf("tune head: the output layer of this model is its embedding (tie_word_embeddings), so both would train; use tune: full, or lora")
		}
		names := map[string]bool{}
		for _, l := range d.HeadLinears() {
			names[l.Name+".weight"], names[l.Name+".bias"] = true, true
		}
		want = func(name string) bool { return names[name] }
	}
	values, err := map[string]model.Tensor{}, error(nil)
	if s.dry {
		for name, shape := range d.Shapes() {
			if want == nil || want(name) {
				values[name] = model.Tensor{Shape: shape}
			}
		}
	} else if values, err = d.Weights(s.ckpt, want); err != nil {
		return err
	}
	if len(values) == 0 {
		return inputf("tune %s: the model has no such weights", cfg.Tune)
	}
	s.overlay = &model.Overlay{Tensors: values}
	s.save = s.saveModel
	return nil
}

// floats reads the weight of a module as the file stores it.
func (s *subject) floats(m adapter.Module) ([]float32, error) {
	v, err := s.ckpt.View(m.Weight)
	if err != nil {
		return nil, err
	}
	f := make([]float32, v.Elems())
	if err := tensors.DecodeFloat32(f, v.Data, v.DType); err != nil {
		return nil, fmt.Errorf("%s: %w", m.Weight, err)
	}
	return f, nil
}

// className is the name in the model's class of a tensor that an adapter's file holds under key.
func className(key string) string {
	return strings.Replace(strings.TrimPrefix(key, diskPrefix), ".base_layer.bias", ".bias", 1)
}

// adapters makes low-rank factors train, and what the configuration wants whole.
func (s *subject) adapters(cfg *config.Config, modules []adapter.Module) error {
	c := peftConfig(cfg, s.desc)
	var begin *adapter.Adapter
	var err error
	s.replace = map[string]model.Tensor{}
	continued := cfg.Model.AdapterIn != "" && cfg.Model.AdapterInMode == "continue"
	tie := cfg.LoRA.Tie
	if cfg.Model.AdapterIn != "" {
		if begin, err = adapter.Open(cfg.Model.AdapterIn); err != nil {
			return err
		}
		if continued {
			c = begin.Config
			c.Dropout = cfg.LoRA.Dropout
			if tie, err = continuedTie(tie, begin); err != nil {
				return err
			}
		}
		policy, err := adapter.ParseTie(tie)
		if err != nil {
			return err
		}
		deltas, err := begin.BindTied(modules, policy)
		if err != nil {
			return err
		}
		if !continued && !s.dry {
			if err := s.fuse(deltas); err != nil {
				return err
			}
		}
	}
	if tie == "keep" {
		if err := s.keepTied(c, modules); err != nil {
			return err
		}
	}
	targets, err := adapter.Select(c, modules)
	if err != nil {
		return err
	}
	whole, err := adapter.SelectWhole(c, modules, targets)
	if err != nil {
		return err
	}
	if tie == "refuse" {
		for _, t := range targets {
			if s.tied(t.Module) {
				return refuseTied(t.Path)
			}
		}
		for _, w := range whole {
			if s.tied(w.Module) && strings.HasSuffix(w.Key, ".weight") {
				return refuseTied(w.Path)
			}
		}
	}
	weight := func(m adapter.Module) ([]float32, error) {
		if r, ok := s.replace[m.Path+".weight"]; ok {
			return slices.Clone(r.Data), nil
		}
		return s.floats(m)
	}
	var values map[string]adapter.Tensor
	if continued {
		values = begin.Tensors
	} else if s.dry {
		values = map[string]adapter.Tensor{}
		for _, t := range targets {
			values[t.A], values[t.B] = adapter.Tensor{Shape: t.ShapeA()}, adapter.Tensor{Shape: t.ShapeB()}
			for _, key := range []string{t.BiasB, t.Magnitude} {
				if key != "" {
					values[key] = adapter.Tensor{Shape: []int{t.Out}}
				}
			}
		}
	} else if values, err = adapter.Init(c, targets, uint64(cfg.Run.Seed), weight); err != nil {
		return err
	}
	initial := values
	s.overlay = &model.Overlay{Maps: map[string]model.Adaption{}, Tensors: map[string]model.Tensor{}, Untied: !c.EnsureWeightTying}
	// keys remembers under which keys of the adapter's file a trained tensor is saved.
	keys := map[string][]string{}
	put := func(key, name string, t adapter.Tensor) {
		if _, ok := s.overlay.Tensors[name]; !ok {
			s.overlay.Tensors[name] = model.Tensor{Shape: t.Shape, Data: slices.Clone(t.Data)}
		}
		keys[name] = append(keys[name], key)
	}
	for _, t := range targets {
		s.overlay.Maps[t.Path] = model.Adaption{Rank: t.Rank, Scale: t.Scale, DoRA: t.DoRA, Bias: t.BiasB != "", Dropout: c.Dropout}
		s.dropout = s.dropout || c.Dropout > 0
		if t.Tied && c.EnsureWeightTying {
			continue // the embedding's factors are the head's, transposed
		}
		for _, key := range []string{t.A, t.B, t.BiasB, t.Magnitude} {
			if key != "" {
				put(key, className(key), values[key])
			}
		}
		if c.ChangesBase() && !continued && !s.dry && t.Kind != adapter.Embedding {
			w, err := weight(t.Module)
			if err != nil {
				return err
			}
			adapter.Residual(c, t, initial, w)
			s.replace[t.Path+".weight"] = model.Tensor{Shape: t.Shape, Data: w}
		}
	}
	for _, w := range whole {
		name := className(w.Key)
		if c.EnsureWeightTying && s.tied(w.Module) && strings.HasSuffix(w.Key, ".weight") {
			name = s.desc.Names.Embed + ".weight" // one matrix, saved under both names
		}
		t, ok := adapter.Tensor{}, false
		if continued {
			t, ok = begin.Tensors[w.Key]
		}
		if !ok && s.dry {
			t = adapter.Tensor{Shape: w.Shape}
		} else if !ok {
			m := w.Module
			m.Weight = w.Tensor
			f, err := s.floats(m)
			if err != nil {
				return err
			}
			t = adapter.Tensor{Shape: w.Shape, Data: f}
		}
		put(w.Key, name, t)
	}
	if continued {
		if err := s.allContinued(begin, keys); err != nil {
			return err
		}
	}
	s.save = func(dir string, trained map[string]model.Tensor, o saveOptions) error {
		disk := map[string]adapter.Tensor{}
		for name, list := range keys {
			t, ok := trained[name]
			if !ok {
				return fmt.Errorf("the trained tensor %s is missing", name)
			}
			for _, key := range list {
				disk[key] = adapter.Tensor{Shape: t.Shape, Data: t.Data}
			}
		}
		for _, t := range targets {
			if t.Tied && c.EnsureWeightTying {
				at := diskPrefix + s.desc.Names.Embed
				disk[t.A], disk[t.B] = transposed(disk[at+".lora_embedding_B"]), transposed(disk[at+".lora_embedding_A"])
			}
		}
		out, values, err := adapter.Converted(c, targets, initial, disk)
		if err != nil {
			return err
		}
		out.InferenceMode = true
		a := &adapter.Adapter{Config: out, Tensors: values}
		if begin != nil && cfg.Model.AdapterInMode == "stack" {
			// Both on the original base: their sum is exact as one adapter of the ranks' sum.
			if a, _, err = adapter.Combine(context.Background(), []*adapter.Adapter{begin, a}, adapter.CombineOptions{Method: "cat", Weights: []float64{1, 1}}); err != nil {
				return err
			}
		}
		return a.Save(dir, adapter.SaveOptions{Compat: o.compat, Files: o.files, Copies: o.copies, Force: true})
	}
	return nil
}

// allContinued refuses to go on from an adapter of which something would be dropped.
func (s *subject) allContinued(begin *adapter.Adapter, keys map[string][]string) error {
	taken := map[string]bool{}
	for _, list := range keys {
		for _, key := range list {
			taken[key] = true
		}
	}
	if begin.Config.EnsureWeightTying {
		for _, end := range []string{".lora_A.weight", ".lora_B.weight"} {
			taken[diskPrefix+s.desc.Names.LMHead+end] = true
		}
	}
	for _, key := range begin.Keys() {
		if !taken[key] && !strings.HasSuffix(key, ".base_layer.weight") { // the base's own matrix, which PEFT stores beside adapted embeddings
			return inputf("%s: holds %s, which this program does not train; merge it (model.adapter_in_mode: merge) and train a new adapter on top", begin.Dir, key)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		if len(s.overlay.Tensors[name].Data) == 0 && !s.dry {
			return inputf("%s: has no tensor %s, which its configuration asks for; the adapter is damaged, or for another base", begin.Dir, keys[name][0])
		}
	}
	return nil
}

// fuse puts an adapter's fused weights in the place of the base's.
func (s *subject) fuse(deltas []adapter.Delta) error {
	for i := range deltas {
		d := &deltas[i]
		var w []float32
		if !d.New {
			v, err := s.ckpt.View(d.Tensor)
			if err != nil {
				return err
			}
			w = make([]float32, v.Elems())
			if err := tensors.DecodeFloat32(w, v.Data, v.DType); err != nil {
				return fmt.Errorf("%s: %w", d.Tensor, err)
			}
		} else {
			w = make([]float32, d.Elems())
		}
		if d.NeedsPass() {
			base := slices.Clone(w)
			if err := d.Prepare(func(part []float32, off int64) error { copy(part, base[off:]); return nil }); err != nil {
				return err
			}
		}
		if err := d.Apply(w, 0); err != nil {
			return err
		}
		name := d.Module.Path + ".weight"
		switch {
		case d.Tensor == d.Module.BiasName:
			name = d.Module.Path + ".bias"
		case d.Module.Tied && d.New:
			return inputf("model.adapter_in: it unties embedding and head, which a base in memory cannot; fuse it first ('mergekit fuse --tie untie') and train on the result")
		case d.Module.Tied:
			name = s.desc.Names.Embed + ".weight"
		}
		s.replace[name] = model.Tensor{Shape: d.Shape, Data: w}
	}
	return nil
}

// peftConfig is the adapter's configuration as PEFT knows it.
func peftConfig(cfg *config.Config, d *model.Description) *adapter.Config {
	l := &cfg.LoRA
	c := adapter.Defaults()
	c.BaseModel = cfg.Model.Base
	if repo, commit, ok := hub.Origin(cfg.Model.Base); ok { // others find it by its name, not in this machine's cache
		c.BaseModel, c.Revision = repo, commit
	}
	c.R, c.Alpha, c.Dropout = l.R, l.Alpha, l.Dropout
	c.Targets = selector(l.TargetModules)
	c.Exclude = selector(l.ExcludeModules)
	c.ModulesToSave, c.Bias = slices.Clone(l.ModulesToSave), l.Bias
	c.RSLoRA, c.DoRA = l.UseRSLoRA, l.UseDoRA || cfg.Tune == "dora"
	c.FanInFanOut = d.Conv1D
	c.Init = l.Init
	if c.Init == "default" {
		c.Init = "true"
	}
	for _, p := range l.RankPattern {
		c.RankPattern = append(c.RankPattern, adapter.Pattern{Key: p.Module, Value: float64(p.R)})
	}
	for _, p := range l.AlphaPattern {
		c.AlphaPattern = append(c.AlphaPattern, adapter.Pattern{Key: p.Module, Value: p.Alpha})
	}
	c.LayersToTransform = slices.Clone(l.LayersToTransform)
	if l.LayersPattern != "" {
		c.LayersPattern = []string{l.LayersPattern}
	}
	switch d.Head {
	case model.HeadLM:
		c.TaskType = "CAUSAL_LM"
	case model.HeadScore, model.HeadClassifier:
		c.TaskType = "SEQ_CLS"
	}
	return c
}

func selector(m config.Modules) adapter.Selector {
	return adapter.Selector{Names: slices.Clone(m.Names), Regex: m.Pattern, AllLinear: m.AllLinear}
}

// stepDir names the directory of a checkpoint.
func stepDir(step int) string { return "step-" + fmt.Sprintf("%06d", step) }

// stepOf is the step of a checkpoint's directory name, -1 for others.
func stepOf(name string) int {
	n, ok := strings.CutPrefix(name, "step-")
	if !ok {
		return -1
	}
	k, err := strconv.Atoi(n)
	if err != nil || k < 0 {
		return -1
	}
	return k
}
