package activation

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/lap"
	"github.com/mergekit/mergekit/merge/align"
)

// Scores are the scores of the groups that could be seen. Its methods may be called from several goroutines.
type Scores struct {
	Rows int // of the data: examples or tokens

	spec   *symmetry.Spec
	memory int64 // that may still be used
	mu     sync.Mutex
	held   map[string][]float32
	file   *os.File
	place  map[string][2]int64 // offset and number of values
	size   int64
	heads  map[string]headScores // by the id of a group that exchanges heads inside of blocks
}

// headScores are those from which the scores of the heads of a pair of blocks come.
type headScores struct {
	layout layout
	all    []float64
	block  int
	parent string
}

func newScores(s *symmetry.Spec, memory int64) *Scores {
	return &Scores{spec: s, memory: memory, held: map[string][]float32{}, place: map[string][2]int64{}, heads: map[string]headScores{}}
}

// keep stores the scores of a group.
func (s *Scores) keep(group string, score []float32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes := int64(4 * len(score)); bytes <= s.memory {
		s.memory -= bytes
		s.held[group] = score
		return nil
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "mergekit-scores-")
		if err != nil {
			return fmt.Errorf("scores of activations that do not fit into memory: %w", err)
		}
		s.file = f
	}
	data := make([]byte, 4*len(score))
	for i, v := range score {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	if _, err := s.file.WriteAt(data, s.size); err != nil {
		return fmt.Errorf("scores of activations that do not fit into memory: %w", err)
	}
	s.place[group] = [2]int64{s.size, int64(len(score))}
	s.size += int64(len(data))
	return nil
}

// Close removes what did not fit into memory.
func (s *Scores) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held, s.place = map[string][]float32{}, map[string][2]int64{}
	if s.file == nil {
		return nil
	}
	name := s.file.Name()
	err := s.file.Close()
	s.file = nil
	if e := os.Remove(name); err == nil {
		err = e
	}
	return err
}

// Of returns the scores of a group, [Size, Size], row-major: row i is a feature of A, column j one of B; where a group may flip signs,
// without their own. ok is false for groups that data says nothing about. Groups of heads inside of blocks are scored for the assignment
// of the blocks that their own scores choose.
func (s *Scores) Of(group string) (score []float32, ok bool) {
	score, ok = s.signed(group)
	if g, known := s.spec.Group(group); ok && known && signed(g) {
		score = slices.Clone(score)
		for i, v := range score {
			score[i] = float32(math.Abs(float64(v)))
		}
	}
	return score, ok
}

// signed is Of with signs.
func (s *Scores) signed(group string) (score []float32, ok bool) {
	if h, inside := s.heads[group]; inside {
		blocks, ok := s.blocks(h.parent)
		if !ok {
			return nil, false
		}
		return h.layout.inner(h.all, h.block, blocks[h.block]), true
	}
	score, err := s.read(group)
	return score, err == nil && score != nil
}

// Under is Of for a group inside of blocks that are assigned already: block i of A to blocks[i] of B.
func (s *Scores) Under(group string, blocks []int) (score []float32, ok bool) {
	h, inside := s.heads[group]
	if !inside || len(blocks) != h.layout.groups {
		return s.Of(group)
	}
	return h.layout.inner(h.all, h.block, blocks[h.block]), true
}

// blocks is the assignment of a group of blocks by its scores alone.
func (s *Scores) blocks(group string) ([]int, bool) {
	score, err := s.read(group)
	if err != nil || score == nil {
		return nil, false
	}
	n := int(math.Round(math.Sqrt(float64(len(score)))))
	best, err := lap.Maximize(n, score, lap.Options{})
	return best.Cols, err == nil
}

func (s *Scores) read(group string) ([]float32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if score, ok := s.held[group]; ok {
		return score, nil
	}
	at, ok := s.place[group]
	if !ok {
		return nil, nil
	}
	data := make([]byte, 4*at[1])
	if _, err := s.file.ReadAt(data, at[0]); err != nil {
		return nil, err
	}
	score := make([]float32, at[1])
	for i := range score {
		score[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return score, nil
}

// Match returns the map that the scores choose alone: one assignment for every group, each of them optimal. Groups without scores stay
// as they are.
func (s *Scores) Match() (*align.Map, error) {
	m := align.Identity(s.spec)
	for i := range s.spec.Groups {
		g := &s.spec.Groups[i]
		choose, ok := s.Of(g.ID)
		if !ok {
			continue
		}
		e := align.Element{Kind: symmetry.Perm}
		switch {
		case g.Kind == symmetry.HeadGroup:
			e.Kind = symmetry.HeadGroup
		case signed(g):
			e.Kind = symmetry.SignedPerm
		}
		best, err := lap.Maximize(g.Size, choose, lap.Options{})
		if err != nil {
			return nil, fmt.Errorf("group %s: %w", g.ID, err)
		}
		e.Index = best.Cols
		if e.Kind == symmetry.SignedPerm {
			e.Scale = make([]float64, g.Size)
			score, _ := s.signed(g.ID)
			for k, j := range best.Cols {
				e.Scale[k] = 1
				if score[k*g.Size+j] < 0 {
					e.Scale[k] = -1
				}
			}
		}
		m.Elements[g.ID] = e
	}
	return m, m.Validate()
}
