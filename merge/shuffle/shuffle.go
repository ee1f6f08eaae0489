// Package shuffle makes recipes that stack the layers of several models by chance: each layer of the output comes from one of them, in its
// place, or layers of all of them come in any order. What it makes is a recipe of passthrough slices, which is merged like any other.
package shuffle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/internal/linalg"
)

// Error is a mistake in what the user gave. Programs map it to the exit status for bad input.
type Error struct{ Msg string }

// Error is the message.
func (e *Error) Error() string { return e.Msg }

func errorf(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Model is a model that gives layers.
type Model struct {
	Name   string  // as the recipe will name it
	Weight float64 // its chance, or the share of its layers
	Layers int
}

// Slice is a run of layers of one model, from From to before To.
type Slice struct{ Model, From, To int }

// maxLayers bounds what an output may have.
const maxLayers = 10_000

// Layers counts the layers of the model in a directory.
func Layers(dir string) (int, error) {
	c, err := arch.ReadConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errorf("%s: has no config.json, which says how many layers there are; name a model's directory", dir)
	}
	if err != nil {
		return 0, err
	}
	if a, ok := arch.Lookup(c); ok && len(a.Modules) == 1 {
		if n, err := a.Modules[0].Layers(c); err == nil && n > 0 {
			return n, nil
		}
	}
	n, ok := c.Int(arch.LayerCountKey(c))
	if !ok || n < 1 || n > maxLayers {
		return 0, errorf("%s: config.json does not say how many layers there are, or the model has several stacks of them; write the slices of a recipe by hand", dir)
	}
	return n, nil
}

// Choose takes each layer from one of the models, drawn by their weights. All must have the same number of layers. Layers of one model that
// follow each other are one slice.
func Choose(models []Model, seed uint64) ([]Slice, error) {
	if err := check(models); err != nil {
		return nil, err
	}
	n, sum := models[0].Layers, 0.0
	for _, m := range models {
		if m.Layers != n {
			return nil, errorf("%s has %d layers and %s has %d; layers that keep their place need models of one depth, --full-random takes any", models[0].Name, n, m.Name, m.Layers)
		}
		sum += m.Weight
	}
	if sum == 0 {
		return nil, errorf("all weights are zero, so no layer can be drawn; give a positive weight to one model at least")
	}
	draws := make([]float32, n)
	linalg.Uniform(draws, seed, "layershuffle choice")
	var out []Slice
	for layer, u := range draws {
		pick, left := -1, float64(u)*sum
		for i, m := range models {
			if m.Weight == 0 {
				continue
			}
			pick = i
			if left -= m.Weight; left < 0 {
				break
			}
		}
		out = appendSlice(out, Slice{pick, layer, layer + 1})
	}
	return out, nil
}

// Full takes a share of each model's layers, any of them, and puts all in any order. A share above one takes every layer several times.
func Full(models []Model, seed uint64) ([]Slice, error) {
	if err := check(models); err != nil {
		return nil, err
	}
	var all []Slice
	for i, m := range models {
		count := int(float64(m.Layers) * m.Weight)
		if len(all)+count > maxLayers {
			return nil, errorf("the output would have more than %d layers; give smaller weights", maxLayers)
		}
		for round := 0; count > 0; round++ {
			order := permutation(m.Layers, seed, fmt.Sprintf("layershuffle layers %d %d", i, round))
			take := min(count, m.Layers)
			for _, layer := range order[:take] {
				all = append(all, Slice{i, layer, layer + 1})
			}
			count -= take
		}
	}
	if len(all) == 0 {
		return nil, errorf("the weights are so small that no layer is taken; each is the share of a model's layers")
	}
	var out []Slice
	for _, at := range permutation(len(all), seed, "layershuffle order") {
		out = appendSlice(out, all[at])
	}
	return out, nil
}

func check(models []Model) error {
	if len(models) == 0 {
		return errorf("no model is given")
	}
	for _, m := range models {
		if !(m.Weight >= 0) || math.IsInf(m.Weight, 0) || m.Weight > maxLayers {
			return errorf("%s: %v is no weight; give a positive number", m.Name, m.Weight)
		}
	}
	return nil
}

// appendSlice joins a slice to the one before if it goes on with it.
func appendSlice(list []Slice, s Slice) []Slice {
	if n := len(list); n > 0 && list[n-1].Model == s.Model && list[n-1].To == s.From {
		list[n-1].To = s.To
		return list
	}
	return append(list, s)
}

// permutation is a random order of n things. Durstenfeld, 1964, "Algorithm 235: random permutation".
func permutation(n int, seed uint64, name string) []int {
	draws := make([]float32, n)
	linalg.Uniform(draws, seed, name)
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	for i := n - 1; i > 0; i-- {
		j := min(i, int(float64(draws[i])*float64(i+1)))
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// Recipe writes the recipe of some slices; dtype is that of the output, "" for the models' own.
func Recipe(models []Model, list []Slice, dtype string) ([]byte, error) {
	var b strings.Builder
	b.WriteString("merge_method: passthrough\n")
	if dtype != "" {
		b.WriteString("dtype: " + dtype + "\n")
	}
	b.WriteString("slices:\n")
	for _, s := range list {
		name, err := json.Marshal(models[s.Model].Name) // a JSON string is one of YAML
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "- sources:\n  - model: %s\n    layer_range: [%d, %d]\n", name, s.From, s.To)
	}
	return []byte(b.String()), nil
}
