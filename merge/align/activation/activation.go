// Package activation compares the features of two networks by what they do on data: how strongly each unit, channel or head of one
// varies with each of the other (Li et al., 2016, "Convergent learning"; Tatro et al., 2020; section 5 of Jordan et al., 2023). The
// scores are what assignments are chosen by (merge/align/match, or Match here), alone or beside the scores of the weights.
//
// The words:
//
//   - A source is a place where a group's features can be seen: the input of a map that reads them, after the activation.
//   - The score of feature i of A and j of B is the correlation of the two over all rows of the data; of several sources, the mean.
//   - The score of two heads is the best that a map inside the heads can make of them: a rotation where the spec allows one (then it is
//     the correlation after orthogonal Procrustes), else an assignment of their entries. Heads that share keys and values are first
//     assigned to each other inside of every pair of such groups, and those pairs have the sum for their score.
package activation

import (
	"fmt"
	"strings"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/model"
)

// Options say how scores are computed.
type Options struct {
	Gram *gram.Engine // nil: on the processor
	// MaxMemory bounds the matrices that are collected at a time, and the scores that are kept in memory; others go to a temporary
	// file. 0: 1 GiB.
	MaxMemory int64
	Progress  func(done, total int, what string) // may be nil
}

func (o *Options) complete() {
	if o.Gram == nil {
		o.Gram = gram.New(nil, 0)
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = 1 << 30
	}
	if o.Progress == nil {
		o.Progress = func(int, int, string) {}
	}
}

// source is a place where a group's features can be seen.
type source struct {
	group  *symmetry.Group
	ref    symmetry.Ref
	module string
}

// assigned says that a group exchanges its features, so that scores choose an assignment.
func assigned(g *symmetry.Group) bool {
	switch g.Kind {
	case symmetry.Perm, symmetry.SignedPerm, symmetry.ScaledPerm:
		return g.Size > 1
	case symmetry.HeadGroup:
		return true // a single block may hold heads to assign
	}
	return false
}

// signed says that a group may flip the sign of a feature.
func signed(g *symmetry.Group) bool {
	return g.Kind == symmetry.SignedPerm || g.Kind == symmetry.ScaledPerm && !g.Positive
}

// sources lists where groups can be seen: module gives the map that a weight belongs to and the axis of its input. Groups that act
// inside of others are seen with those.
func sources(s *symmetry.Spec, module func(tensor string) (name string, axis int, ok bool)) []source {
	var list []source
	for i := range s.Groups {
		g := &s.Groups[i]
		if !assigned(g) || g.Parent != "" {
			continue
		}
		for _, r := range g.Refs {
			if name, axis, ok := module(r.Tensor); ok && r.Role == symmetry.Read && r.Axis == axis {
				list = append(list, source{g, r, name})
			}
		}
	}
	return list
}

// width is how many columns the source's features have in a row of a collected matrix: blocks of heads stay whole.
func (s *source) width() int {
	if s.group.Kind == symmetry.HeadGroup {
		return s.group.Size * s.ref.Block
	}
	return s.group.Size
}

// rows cuts the source's features out of what its map reads: x, [n, width], becomes [n*k, s.width()], where features that lie in
// several places of a row (positions of a flattened image, repetitions) make k rows of one.
func (s *source) rows(x []float32, n, width int) (out []float32, rows int, err error) {
	g, r := s.group, s.ref
	span := g.Size * r.Block * r.Tile
	if r.Offset < 0 || r.Offset+span > width {
		return nil, 0, &model.InputError{Msg: fmt.Sprintf("group %s: %s reads %d values, the spec has its features at %d to %d; the spec does not fit the model", g.ID, s.module, width, r.Offset, r.Offset+span-1)}
	}
	columns := s.width()
	if columns == span && span == width {
		return x, n, nil
	}
	each := span / columns
	out = make([]float32, n*span)
	to := 0
	for row := range n {
		from := x[row*width+r.Offset : row*width+r.Offset+span]
		switch {
		case columns == g.Size*r.Block: // heads: one tile after the other
			copy(out[to:], from)
			to += span
		default:
			for t := range r.Tile {
				for b := range r.Block {
					for f := range g.Size {
						out[to] = from[(t*g.Size+f)*r.Block+b]
						to++
					}
				}
			}
		}
	}
	return out, n * each, nil
}

// weightOf is the module whose weight a tensor is.
func weightOf(tensor string) (string, bool) { return strings.CutSuffix(tensor, ".weight") }
