package learn

import (
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
)

// learned is a group whose element is learned: a rotation, or the phases of rotary planes. What is learned comes on top of the map that
// there was, so it begins as the identity.
type learned struct {
	group  *symmetry.Group
	places []place
	matrix []float64 // of a rotation, [Size, Size]
	phases []float64 // of rotary planes
	adam   adam
}

// place is a stretch of a tensor on which a learned group acts.
type place struct {
	tensor string
	shape  []int
	ref    symmetry.Ref
	// norm is the gain that stands between the features and a tensor that reads them; "": none.
	norm string
}

// The words of Options.Groups.
const (
	Residual = "residual" // the stream that all blocks write to
	Phases   = "phases"   // of the rotary planes of keys and queries
	VO       = "vo"       // values and the output map, head by head
	QK       = "qk"       // queries and keys of models without rotary embeddings, head by head
)

// asked reports whether a word means a group.
func asked(word string, g *symmetry.Group) bool {
	switch word {
	case Residual:
		return g.ID == "res" || strings.HasPrefix(g.ID, "res.")
	case Phases:
		return g.Kind == symmetry.RopePlane
	case VO, QK:
		return (strings.HasPrefix(g.ID, word+".") || strings.HasPrefix(g.ID, word+"_")) && g.Kind != symmetry.RopePlane
	}
	return word == g.ID
}

// continuous reports whether there is anything to learn about a group by small steps.
func continuous(g *symmetry.Group) bool {
	return g.Kind == symmetry.Orthogonal || g.Kind == symmetry.Invertible || g.Kind == symmetry.RopePlane && g.Restrict == symmetry.AnyPhase
}

// newLearned finds the places of a group. shape tells the tensors that there are.
func newLearned(s *symmetry.Spec, g *symmetry.Group, shape func(name string) ([]int, bool)) *learned {
	l := &learned{group: g}
	if g.Kind == symmetry.RopePlane {
		l.phases = make([]float64, g.Size)
	} else {
		l.matrix = unit(g.Size)
	}
	seen := map[string]bool{}
	add := func(tensor, as string, r symmetry.Ref) {
		dims, ok := shape(tensor)
		if !ok || r.Silent || r.Role == symmetry.Gain {
			return
		}
		p := place{tensor: tensor, shape: dims, ref: r}
		for _, n := range s.Norms {
			if n.Group == g.ID && r.Role == symmetry.Read && (slices.Contains(n.Readers, tensor) || slices.Contains(n.Readers, as)) {
				p.norm = n.Gain
			}
		}
		seen[tensor] = true
		l.places = append(l.places, p)
	}
	for _, r := range g.Refs {
		add(r.Tensor, r.Tensor, r)
	}
	for to, from := range s.Untie { // the head that leaves the embedding reads what the embedding writes
		for _, r := range g.Refs {
			if r.Tensor == from && !seen[to] {
				r.Role = symmetry.Read
				add(to, from, r)
			}
		}
	}
	return l
}

// stretch copies what a ref acts on into rows [rest, width], where width counts features, or both entries of the planes. scale, if it
// is not nil, multiplies feature by feature.
func (p place) stretch(x []float32, width int, scale func(f int) float32) []float32 {
	outer, inner := 1, 1
	for i, d := range p.shape {
		switch {
		case i < p.ref.Axis:
			outer *= d
		case i > p.ref.Axis:
			inner *= d
		}
	}
	axis, block, tile := p.shape[p.ref.Axis], p.ref.Block, p.ref.Tile
	out := make([]float32, outer*tile*block*inner*width)
	for f := range width {
		s := float32(1)
		if scale != nil {
			s = scale(f)
		}
		row := 0
		for o := range outer {
			for t := range tile {
				for b := range block {
					from := (o*axis + p.ref.Offset + (t*width+f)*block + b) * inner
					for q := range inner {
						out[row*width+f] = s * x[from+q]
						row++
					}
				}
			}
		}
	}
	return out
}

// gradient returns the gradient of the loss by how the group moves from where it is: by D, when every place is multiplied by I + D
// (where the loss gets a skew-symmetric D), or by the angles by which the planes turn. weights are those of the aligned model, by how
// the loss has the gradient; gains are those of norms in the aligned model, by the gain's tensor.
//
// A reader behind a norm is W diag(1/g) (I+D)' diag(g) in the end, so the gain g is taken out of W and put into its gradient.
func (l *learned) gradient(weights, by Values, gains map[string][]float64, threads int) []float64 {
	n := l.group.Size
	width := n
	if l.phases != nil {
		width = 2 * n
	}
	sum := make([]float32, n*n)
	angles := make([]float64, n)
	for _, p := range l.places {
		g, ok := by[p.tensor]
		if !ok {
			continue
		}
		var times, over func(int) float32
		if p.norm != "" {
			gain := gains[p.norm]
			times = func(f int) float32 { return float32(gain[f]) }
			over = func(f int) float32 { return float32(1 / gain[f]) }
		}
		w, g := p.stretch(weights[p.tensor], width, times), p.stretch(g, width, over)
		rows := len(w) / width
		if l.phases == nil {
			linalg.Product(sum, linalg.Of(g, rows, n).T(), linalg.Of(w, rows, n), true, threads)
			continue
		}
		for j := range n {
			x, y := j, j+n
			if l.group.Interleaved {
				x, y = 2*j, 2*j+1
			}
			for r := range rows {
				at := r * width
				angles[j] += float64(g[at+y])*float64(w[at+x]) - float64(g[at+x])*float64(w[at+y])
			}
		}
	}
	if l.phases != nil {
		return angles
	}
	out := make([]float64, n*n)
	for i, x := range sum {
		out[i] = float64(x)
	}
	return skew(out, n)
}

// move takes a step of Adam.
func (l *learned) move(gradient []float64, rate float64) error {
	step := l.adam.step(gradient, rate)
	if l.phases != nil {
		for j, d := range step {
			l.phases[j] += d
		}
		return nil
	}
	q, err := rotation(step, l.group.Size)
	if err != nil {
		return err
	}
	l.matrix = turn(q, l.matrix, l.group.Size)
	return nil
}
