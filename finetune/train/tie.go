package train

import (
	"slices"
	"strings"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/model"
)

// refuseTied refuses to train a matrix that embedding and head share without being told how.
func refuseTied(path string) error {
	return inputf("lora: %s would train, and the embedding and the output of this model are one matrix (tie_word_embeddings); say lora.tie: untie (two matrices from then on; set the flag to false in the fused model) or keep (one matrix, saved under both names), or leave it out", path)
}

// tied tells whether a module is the embedding or the head of a model in which both are one matrix.
func (s *subject) tied(m adapter.Module) bool {
	return m.Tied || s.desc.Tied && s.desc.Head == model.HeadLM && m.Path == s.desc.Names.Embed
}

// continuedTie is the policy for tied matrices that an adapter was trained with, and the configuration must not contradict.
func continuedTie(tie string, begin *adapter.Adapter) (string, error) {
	ensured := begin.Config.EnsureWeightTying
	switch {
	case ensured && tie == "untie":
		return "", inputf("%s: was trained with ensure_weight_tying, so lora.tie: untie cannot go on with it; leave lora.tie out, or fuse the adapter first ('mergekit fuse --tie untie')", begin.Dir)
	case !ensured && tie == "keep":
		return "", inputf("%s: was trained without ensure_weight_tying, so lora.tie: keep cannot go on with it; use lora.tie: untie, or fuse the adapter first ('mergekit fuse --tie keep')", begin.Dir)
	case ensured:
		return "keep", nil
	}
	return tie, nil
}

// keepTied makes the configuration name embedding and head if it names one of them, as PEFT wants it of adapters with
// ensure_weight_tying.
func (s *subject) keepTied(c *adapter.Config, modules []adapter.Module) error {
	var paths []string
	for _, m := range modules {
		if s.tied(m) {
			paths = append(paths, m.Path)
		}
	}
	if len(paths) < 2 {
		return nil
	}
	targets, err := adapter.Select(c, modules)
	if err != nil {
		return err
	}
	whole, err := adapter.SelectWhole(c, modules, targets)
	if err != nil {
		return err
	}
	for _, w := range whole {
		if s.tied(w.Module) && strings.HasSuffix(w.Key, ".weight") {
			c.EnsureWeightTying = true
		}
	}
	if c.EnsureWeightTying && slices.ContainsFunc(whole, func(w adapter.Whole) bool { return slices.Contains(paths, w.Path) }) {
		for _, path := range paths {
			if !slices.ContainsFunc(c.ModulesToSave, func(m string) bool { return path == m || strings.HasSuffix(path, "."+m) }) {
				c.ModulesToSave = append(c.ModulesToSave, path)
			}
		}
	}
	return s.keepTargets(c, modules, targets, paths)
}

// keepTargets makes embedding and head both targets if one of them is. They share one pair of factors.
func (s *subject) keepTargets(c *adapter.Config, modules []adapter.Module, targets []adapter.Target, paths []string) error {
	if !slices.ContainsFunc(targets, func(t adapter.Target) bool { return s.tied(t.Module) }) {
		return nil
	}
	switch {
	case c.DoRA:
		return inputf("lora.tie: keep: with DoRA the embedding and the head have magnitudes of their own, so they are no longer one matrix; use lora.tie: untie, or leave them out of target_modules")
	case c.ChangesBase():
		return inputf("lora.tie: keep: %s changes the head's weight but not the embedding's; use another lora.init, lora.tie: untie, or leave them out of target_modules", c.Init)
	}
	names := slices.Clone(paths)
	for _, t := range targets {
		if !s.tied(t.Module) {
			names = append(names, t.Path)
		}
	}
	c.EnsureWeightTying = true
	c.Targets = adapter.Selector{Names: names}
	both, err := adapter.Select(c, modules)
	if err != nil {
		return err
	}
	var first *adapter.Target
	for i, t := range both {
		if !s.tied(t.Module) {
			continue
		}
		if first != nil && (first.Rank != t.Rank || first.Alpha != t.Alpha) {
			return inputf("lora.tie: keep: rank_pattern and alpha_pattern give %s and %s different factors, but they share theirs; name both or neither", first.Path, t.Path)
		}
		first = &both[i]
	}
	return nil
}

// transposed is a matrix with its axes exchanged.
func transposed(t adapter.Tensor) adapter.Tensor {
	rows, columns := t.Shape[0], t.Shape[1]
	out := adapter.Tensor{Shape: []int{columns, rows}, Data: make([]float32, len(t.Data))}
	for i := range rows {
		for j := range columns {
			out.Data[j*rows+i] = t.Data[i*columns+j]
		}
	}
	return out
}
