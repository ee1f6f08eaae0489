package adapter

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
)

// wholeBiases takes every bias if one of a module that is not saved whole differs: bias: all is the only form that peft has
// for biases alone.
func (x *extraction) wholeBiases() error {
	differ := slices.ContainsFunc(x.pairs, func(p modulePair) bool { return p.biased && p.how != Save })
	if !differ {
		return nil
	}
	if x.o.Others == Skip {
		x.warn("biases differ and are left out")
		return nil
	}
	for _, p := range x.pairs {
		if !p.Bias || p.how == Save || p.excluded {
			continue
		}
		end := endBias
		if p.how == Low {
			end = endBaseBias
		}
		v, err := x.tuned.ckpt.View(p.BiasName)
		if err != nil {
			return err
		}
		t, err := decode(v)
		if err != nil {
			return err
		}
		x.out[prefix+p.Path+end] = t
		x.biases = append(x.biases, Whole{Module: p.Module})
		if p.biased && p.how == "" {
			x.results[p.Path] = ModuleReport{Module: p.Path, What: "bias", Energy: 1}
		}
	}
	return nil
}

// configure describes what was extracted.
func (x *extraction) configure() error {
	c := Defaults()
	c.InferenceMode, c.BaseModel = true, x.base.dir
	if x.o.BaseName != "" {
		c.BaseModel = x.o.BaseName
	} else if abs, err := filepath.Abs(x.base.dir); err == nil && !strings.HasPrefix(x.base.dir, "/") {
		c.BaseModel = filepath.Base(abs)
	}
	x.report = &ExtractReport{}
	ranks := map[int]int{}
	var low []string
	lowRank := map[string]int{}
	heads := map[string][]string{} // tied ones that are named beside their embeddings, by what is kept
	for _, p := range x.pairs {
		r, ok := x.results[p.Path]
		if !ok {
			x.report.Unchanged++
			continue
		}
		x.report.Modules = append(x.report.Modules, r)
		switch r.What {
		case "low rank":
			ranks[r.Rank]++
			low, lowRank[p.Path] = append(low, p.Path), r.Rank
			c.FanInFanOut = c.FanInFanOut || p.Kind == Conv1D
		case "whole":
			c.ModulesToSave = append(c.ModulesToSave, p.Path)
		}
		if head, ok := x.tiedTo(p.Module); ok && r.What != "skipped" {
			c.EnsureWeightTying = true
			if last(p.Path) != "embed_tokens" { // the one name by which peft knows an embedding; of others it ties nothing unless the head is named
				heads[r.What] = append(heads[r.What], head.Path)
			}
		}
		if p.base.Path == "" && slices.Contains(headTasks["SEQ_CLS"], p.Path) {
			c.TaskType = "SEQ_CLS"
		}
	}
	if len(low) == 0 && (len(x.o.Include)+len(x.o.Exclude)+len(x.o.Whole) > 0 || x.o.Floor > 0) {
		return &Error{File: x.tuned.dir, Msg: "has no matrix that differs from the base's and that the patterns, the modules to save whole and the floor leave for factors", Hint: "an adapter needs one at least; widen them"}
	}
	if len(low) == 0 {
		return &Error{File: x.tuned.dir, Msg: "has no matrix that differs from the base's, so there is nothing to extract", Hint: "check that the two are not the same model"}
	}
	c.R = common(ranks)
	c.Alpha = float64(c.R)
	var own []Pattern
	for _, path := range low {
		if r := lowRank[path]; r != c.R {
			own = append(own, Pattern{path, float64(r)})
		}
	}
	c.RankPattern, c.AlphaPattern = routerPatterns(patternsOf(own)), routerPatterns(patternsOf(own))
	c.Targets.Names = append(x.names(low), heads["low rank"]...)
	c.ModulesToSave = append(x.names(c.ModulesToSave), heads["whole"]...)
	slices.Sort(c.Targets.Names)
	slices.Sort(c.ModulesToSave)
	if c.TaskType == "SEQ_CLS" {
		c.ModulesToSave = slices.DeleteFunc(c.ModulesToSave, func(n string) bool { return slices.Contains(headTasks["SEQ_CLS"], n) })
	} else if p := x.tuned.config.Architectures(); len(p) > 0 && (strings.HasSuffix(p[0], "ForCausalLM") || strings.HasSuffix(p[0], "LMHeadModel")) {
		c.TaskType = "CAUSAL_LM"
	}
	if len(x.biases) > 0 {
		c.Bias = "all"
	}
	if len(c.ModulesToSave) == 0 {
		c.ModulesToSave = nil
	}
	x.config = c
	x.report.Rank = c.R
	for _, t := range x.out {
		x.report.Parameters += int64(len(t.Data))
	}
	for _, v := range x.views {
		x.report.Parameters += v.Elems()
	}
	if x.total > 0 {
		x.report.Energy, x.report.Error = Float(x.kept/x.total), Float(math.Sqrt(x.residual/x.total))
	}
	return c.Check()
}

// common is the rank that most modules have, the larger of equals.
func common(ranks map[int]int) int {
	best := 0
	for r, n := range ranks {
		if n > ranks[best] || n == ranks[best] && r > best {
			best = r
		}
	}
	return best
}

// names shortens paths to their last components where a component means exactly the modules that are listed; others stay
// whole.
func (x *extraction) names(list []string) []string {
	var out []string
	for _, path := range list {
		name := last(path)
		exact := true
		for _, p := range x.pairs {
			if endsWith(p.Path, name) && !slices.Contains(list, p.Path) {
				exact = false
			}
		}
		if !exact {
			name = path
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// routerPatterns lets the keys of routers match what peft calls them: since transformers 5 they are a parameter, weight, of mlp.gate, also in
// Mixtral, whose files call the block block_sparse_moe.
func routerPatterns(list []Pattern) []Pattern {
	for i, p := range list {
		if block, ok := strings.CutSuffix(p.Key, `\.gate`); ok {
			if stem, ok := strings.CutSuffix(block, `\.block_sparse_moe`); ok {
				block = stem + `\.(block_sparse_moe|mlp)`
			}
			list[i].Key = block + `\.gate(\.weight)?`
		}
	}
	return list
}
