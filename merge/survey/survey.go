// Package survey gathers what a merge did to its models, tensor by tensor, and makes a page of it: how much of each task vector is left
// and how large it is, where signs conflict, how far the masks of two models overlap, and how far the merge lies from each model.
package survey

import (
	"math"
	"slices"
	"sync"

	"github.com/mergekit/mergekit/merge/method"
)

// Survey sums over tensors of one place: a role of a layer, or a tensor outside of layers.
type Survey struct {
	Models []string // all of them, the base too
	Base   int      // index of the base, or -1
	Copied int      // tensors that were passed through; they are not in the sums

	mu      sync.Mutex
	cells   map[Place]*Cell
	ordered []Place         // of cells; nil: to be made
	seen    map[string]bool // tensors
}

// Cell are the sums of some tensors. Lists are by model, the base included, or by pair of models (method.PairIndex).
type Cell struct {
	Tensors  int
	Elements int64
	Out      float64 // Σ y²
	Base     float64 // Σ b²
	Shift    float64 // Σ (y−b)²
	Overlap  int64   // elements in which something is left of at least two task vectors
	Conflict int64   // those of them whose signs differ
	Models   []Model
	Pairs    []method.PairSurvey
}

// Model are one model's sums.
type Model struct {
	Elements int64 // of tensors that it takes part in
	Vector   bool  // it has a task vector in some tensor
	Masked   bool  // and the method tells what is left of that
	NonZero  int64 // entries of its task vector that are not zero
	Survived int64 // entries of which something is left
	method.InputSurvey
}

// New makes an empty survey of models; base is the index of the base among them, or -1.
func New(models []string, base int) *Survey {
	return &Survey{Models: slices.Clone(models), Base: base, cells: map[Place]*Cell{}, seen: map[string]bool{}}
}

func newCell(models int) *Cell {
	return &Cell{Models: make([]Model, models), Pairs: make([]method.PairSurvey, models*(models-1)/2)}
}

// Add takes in a tensor that has been merged, if it was surveyed. models says which model each of its inputs is of. It may be called from
// any goroutine.
func (s *Survey) Add(t *method.Task, models []int) {
	if t.Surveyed == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[t.Name] = true
	c := s.cell(t.Name)
	c.Tensors++
	c.Elements += t.N
	c.Out += t.Surveyed.Out
	if t.Base >= 0 {
		c.Base += t.Surveyed.Inputs[t.Base].Norm
		c.Shift += t.Surveyed.Inputs[t.Base].Distance
	}
	c.Overlap += int64(t.Reported["overlap"])
	c.Conflict += int64(t.Reported["conflict"])
	for i, in := range t.Surveyed.Inputs {
		c.Models[models[i]].add(&Model{Elements: t.N, Vector: t.Base >= 0 && i != t.Base && in.Read, Masked: t.Surveyed.Masks && i != t.Base, InputSurvey: in,
			NonZero: int64(t.Reported[method.ReportName("nonzero", i)]), Survived: int64(t.Reported[method.ReportName("survived", i)])})
	}
	others := t.Others()
	for a := range others {
		for b := a + 1; b < len(others) && t.Surveyed.Pairs != nil; b++ {
			i, j := models[others[a]], models[others[b]]
			if i == j {
				continue
			}
			p := t.Surveyed.Pairs[method.PairIndex(a, b, len(others))]
			c.pair(i, j).Both += p.Both
			c.pair(i, j).Clash += p.Clash
		}
	}
}

// Seen tells whether a tensor has been taken in.
func (s *Survey) Seen(tensor string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[tensor]
}

// cell is that of a tensor.
func (s *Survey) cell(tensor string) *Cell {
	p := PlaceOf(tensor)
	c := s.cells[p]
	if c == nil {
		c = newCell(len(s.Models))
		s.cells[p] = c
		s.ordered = nil
	}
	return c
}

// pair is the place of two models, in either order.
func (c *Cell) pair(i, j int) *method.PairSurvey {
	return &c.Pairs[method.PairIndex(min(i, j), max(i, j), len(c.Models))]
}

func (m *Model) add(x *Model) {
	m.Elements += x.Elements
	m.Vector = m.Vector || x.Vector
	m.Masked = m.Masked || x.Masked
	m.NonZero += x.NonZero
	m.Survived += x.Survived
	m.Read = m.Read || x.Read
	m.Norm += x.Norm
	m.Distance += x.Distance
	m.Delta += x.Delta
	m.Left += x.Left
}

// Sum adds up the cells that a choice takes; nil takes all.
func (s *Survey) Sum(takes func(Place) bool) *Cell {
	sum := newCell(len(s.Models))
	for _, p := range s.places() { // in order: float sums depend on it
		if takes != nil && !takes(p) {
			continue
		}
		c := s.cells[p]
		sum.Tensors += c.Tensors
		sum.Elements += c.Elements
		sum.Out += c.Out
		sum.Base += c.Base
		sum.Shift += c.Shift
		sum.Overlap += c.Overlap
		sum.Conflict += c.Conflict
		for i := range c.Models {
			sum.Models[i].add(&c.Models[i])
		}
		for i, p := range c.Pairs {
			sum.Pairs[i].Both += p.Both
			sum.Pairs[i].Clash += p.Clash
		}
	}
	return sum
}

// Jaccard is |i∧j| / |i∨j| of two models' masks: 1 where they are equal, 0 where they are disjoint. NaN if both are empty.
func (c *Cell) Jaccard(i, j int) float64 {
	both := c.pair(i, j).Both
	return ratio(both, c.Models[i].Survived+c.Models[j].Survived-both)
}

// Within is |i∧j| / |j|: how much of model j's mask lies in model i's (Panigrahi et al., 2023, "Task-specific skill localization in
// fine-tuned language models"). NaN if j's is empty.
func (c *Cell) Within(i, j int) float64 { return ratio(c.pair(i, j).Both, c.Models[j].Survived) }

// Clash is the share of the elements in both masks in which the two models' signs differ. NaN if there are none.
func (c *Cell) Clash(i, j int) float64 {
	p := c.pair(i, j)
	return ratio(p.Clash, p.Both)
}

// ratio is a/b, NaN if b is 0.
func ratio(a, b int64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return float64(a) / float64(b)
}

// lengths is √(a/b), the ratio of two norms given as squares, NaN if b is 0.
func lengths(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return math.Sqrt(a / b)
}
