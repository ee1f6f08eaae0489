package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/tensors"
)

// weights are tensors in memory; they are align.Weights.
type weights map[string]tensor

type tensor struct {
	shape []int
	data  []float32
}

// Lookup returns a tensor's dtype and shape.
func (w weights) Lookup(name string) (tensors.Info, bool) {
	t, ok := w[name]
	return tensors.Info{Name: name, DType: tensors.F32, Shape: t.shape}, ok
}

// Names lists all tensors.
func (w weights) Names() []string { return slices.Sorted(maps.Keys(w)) }

// Read returns a tensor's values.
func (w weights) Read(name string) ([]float32, error) { return slices.Clone(w[name].data), nil }

// load reads a checkpoint.
func load(dir string) (weights, error) {
	c, err := tensors.Open(dir)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	out := weights{}
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			return nil, err
		}
		data := make([]float32, v.Elems())
		if err := tensors.DecodeFloat32(data, v.Data, v.DType); err != nil {
			return nil, err
		}
		out[name] = tensor{v.Shape, data}
	}
	return out, nil
}

// judge measures networks of a directory's kind on examples.
func (s *study) judge(kind, data string) (*evaluation.Judge, error) {
	key := kind + " " + data
	if j, ok := s.judges[key]; ok {
		return j, nil
	}
	config, err := os.ReadFile(filepath.Join(kind, "config.json"))
	if err != nil {
		return nil, err
	}
	j, err := evaluation.Open(s.ctx, config, kind, evaluation.Options{Data: calibration.Options{Files: []string{data}}, Backend: s.networks})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", data, err)
	}
	s.judges[key] = j
	return j, nil
}

// outcomes measures weights.
func (s *study) outcomes(w weights, kind, data string) (*evaluation.Outcomes, error) {
	j, err := s.judge(kind, data)
	if err != nil {
		return nil, err
	}
	s.evaluated++
	return j.Outcomes(s.ctx, w)
}

// accuracy is the share of right answers.
func (s *study) accuracy(w weights, kind, data string) (float64, error) {
	o, err := s.outcomes(w, kind, data)
	if err != nil {
		return 0, err
	}
	return o.Score().Accuracy, nil
}
