package ui

import (
	"context"
	"encoding/json"
	"math"
	"net/http"
	"path/filepath"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/merge/inspect"
	"github.com/mergekit/mergekit/tensors"
)

// openCheckpoint opens what a request names, if all of it lies where it may be looked at.
func (s *Server) openCheckpoint(p string) (*tensors.Checkpoint, string, error) {
	dir, err := s.folder.find(p)
	if err != nil {
		return nil, "", err
	}
	c, err := checkpoint.Open(dir)
	if err != nil {
		return nil, "", err
	}
	for _, file := range c.Files() {
		if _, err := s.folder.find(s.folder.name(file)); err != nil {
			c.Close()
			return nil, "", err
		}
	}
	return c, dir, nil
}

// checkpointView is a checkpoint as the page shows it: headers alone.
type checkpointView struct {
	Path     string            `json:"path"`
	Tensors  []inspect.Tensor  `json:"tensors"`
	Elements int64             `json:"elements"`
	Bytes    int64             `json:"bytes"`
	Files    []string          `json:"files"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Config   json.RawMessage   `json:"config,omitempty"`
	Detail   string            `json:"detail,omitempty"`
	Merged   bool              `json:"merged"`
}

func (s *Server) getCheckpoint(r *http.Request) (any, error) {
	c, dir, err := s.openCheckpoint(r.FormValue("path"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	v := &checkpointView{Path: s.folder.name(dir), Bytes: c.TotalBytes(), Metadata: c.Metadata()}
	for _, f := range c.Files() {
		v.Files = append(v.Files, filepath.Base(f))
	}
	if v.Tensors, err = inspect.Inspect(r.Context(), c, false, inspect.Options{}); err != nil {
		return nil, err
	}
	for _, t := range v.Tensors {
		n := int64(1)
		for _, d := range t.Shape {
			n *= int64(d)
		}
		v.Elements += n
	}
	e := Entry{}
	s.folder.lookInto(dir, &e)
	v.Detail, v.Merged = e.Detail, e.Merged
	for _, name := range []string{"config.json", "adapter_config.json"} {
		if s.folder.inside(dir, name) != nil {
			continue
		}
		if b, err := readStart(filepath.Join(dir, name), maxRecipe); err == nil && json.Valid(b) {
			v.Config = b
			break
		}
	}
	return v, nil
}

// getStatistics reads one tensor. It ends when the page does.
func (s *Server) getStatistics(r *http.Request) (any, error) {
	c, _, err := s.openCheckpoint(r.FormValue("path"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return inspect.Look(r.Context(), c, r.FormValue("tensor"), inspect.Options{Backend: s.o.Merge.Backend, Threads: s.o.Merge.Threads})
}

// difference is one tensor's. Figures that no JSON can say are null.
type difference struct {
	inspect.Difference
	Max    *float64 `json:"max_abs"`
	Mean   *float64 `json:"mean_abs"`
	Cosine *float64 `json:"cosine"`
	ULPs   *float64 `json:"ulps"`
	Scale  *float64 `json:"scale"`
}

// comparison is what a page hears of two checkpoints.
type comparison struct {
	Tensors []difference `json:"tensors"`
	Equal   int          `json:"equal"`
}

// finite is nil for what is no number.
func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// compare reads two checkpoints and tells the page how far it is.
func (s *Server) compare(ctx context.Context, r *http.Request, told func(done, total int64)) (any, error) {
	a, _, err := s.openCheckpoint(r.FormValue("a"))
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, _, err := s.openCheckpoint(r.FormValue("b"))
	if err != nil {
		return nil, err
	}
	defer b.Close()
	m := newMeter(a.TotalBytes()+b.TotalBytes(), told)
	list, err := inspect.Diff(ctx, a, b, inspect.Options{Backend: s.o.Merge.Backend, Threads: s.o.Merge.Threads, Read: m.add})
	if err != nil {
		return nil, err
	}
	c := &comparison{Tensors: make([]difference, len(list))}
	for i, d := range list {
		c.Tensors[i] = difference{d, finite(d.Max), finite(d.Mean), finite(d.Cosine), finite(d.ULPs), finite(d.Scale)}
		if d.Equal {
			c.Equal++
		}
	}
	return c, nil
}
