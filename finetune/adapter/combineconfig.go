package adapter

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
)

// Float is a number that JSON can hold: one that is not finite becomes null.
type Float float64

// MarshalJSON implements json.Marshaler.
func (f Float) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// configure makes the result's configuration from the first adapter's.
func (c *combination) configure() error {
	n := *c.list[0].Config
	n.R, n.Alpha, n.RSLoRA, n.Init = c.rank, float64(c.rank), false, initDefault
	n.RankPattern, n.AlphaPattern = patternsOf(c.own), patternsOf(c.own)
	n.LoraBias = slices.ContainsFunc(c.list, func(a *Adapter) bool { return a.Config.LoraBias })
	n.ModulesToSave, n.TrainableTokens = nil, nil
	n.Other = maps.Clone(n.Other)
	for _, a := range c.list {
		for _, m := range a.Config.ModulesToSave {
			if !slices.Contains(n.ModulesToSave, m) {
				n.ModulesToSave = append(n.ModulesToSave, m)
			}
		}
		n.TrainableTokens = append(n.TrainableTokens, a.Config.TrainableTokens...)
		n.EnsureWeightTying = n.EnsureWeightTying || a.Config.EnsureWeightTying
		n.FanInFanOut = n.FanInFanOut || a.Config.FanInFanOut
		if a.Config.Bias != "none" {
			n.Bias = a.Config.Bias
		}
		if a.Config.BaseModel != n.BaseModel {
			c.warn("the adapters name different bases, %q and %q; the first is written", n.BaseModel, a.Config.BaseModel)
		}
	}
	n.Targets = c.targets()
	n.Exclude, n.LayersToTransform, n.LayersPattern = Selector{}, nil, nil
	c.config = &n
	if n.LoraBias { // peft then expects a bias in every module
		for _, path := range c.paths {
			key := prefix + path + endBiasB
			if _, there := c.out[key]; !there && !c.parts[path][0].embedding {
				out := c.parts[path][0].b.Shape[0]
				c.out[key] = Tensor{[]int{out}, make([]float32, out)}
			}
		}
	}
	return n.Check()
}

// patternsOf keys modules by their whole paths, which are patterns that match only themselves.
func patternsOf(list []Pattern) []Pattern {
	var out []Pattern
	for _, p := range list {
		out = append(out, Pattern{strings.ReplaceAll(p.Key, ".", `\.`), p.Value})
	}
	return out
}

// targets names what the result changes: the names of all adapters where those say it, else every module's path.
func (c *combination) targets() Selector {
	var names []string
	for _, a := range c.list {
		k := a.Config
		if k.Targets.Names == nil || len(k.LayersToTransform) > 0 || !k.Exclude.IsZero() || len(k.Saved()) > 0 {
			return Selector{Names: slices.Clone(c.paths)}
		}
		for _, n := range k.Targets.Names {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return Selector{Names: names}
}
