package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/finetune/evaluate"
	"github.com/mergekit/mergekit/model"
)

// isPlain reports whether a directory holds a network that config.json describes layer by layer.
func isPlain(dir string) bool {
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	return err == nil && model.IsPlain(config)
}

// plainLogits computes the outputs of a plain network for the examples of a safetensors file.
func plainLogits(s *session, files modelFiles, input string) (*model.Output, error) {
	m, err := model.LoadPlain(s.cmd.Context(), files.dir, s.backend, 0)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	x, n, _, err := model.ReadExamples(input, m.D)
	if err != nil {
		return nil, err
	}
	return m.Forward(x, n)
}

// measurePlain measures a plain network on files of examples.
func (o *evalOptions) measurePlain(s *session, c contestant) ([]scored, error) {
	if c.files.adapter != "" || c.shots > 0 || o.fewShot > 0 {
		return nil, usageError{fmt.Errorf("%s is a network without attention: it takes neither adapters nor solved rows in front", c.files.name)}
	}
	m, err := model.LoadPlain(s.cmd.Context(), c.files.dir, s.backend, 0)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var out []scored
	for _, path := range o.data {
		x, n, labels, err := model.ReadExamples(path, m.D)
		if err != nil {
			return nil, err
		}
		if labels.Classes == nil && labels.Values == nil {
			return nil, &model.InputError{File: path, Msg: `has no tensor "labels"`}
		}
		if o.limit > 0 && o.limit < n {
			x, n = x[:len(x)/n*o.limit], o.limit
		}
		report, err := evaluate.Plain(m, x, n, labels)
		if err != nil {
			return nil, inputFile(path, err)
		}
		out = append(out, scored{c, path, report})
	}
	return out, nil
}
