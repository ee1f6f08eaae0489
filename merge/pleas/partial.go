package pleas

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// energy is how far the units of a group are from each other.
type energy struct {
	apart, sum []float64 // squared distance of the parents' units, and the sum of their squares
	score      []float64 // the lowest are separate first
}

// partial orders the units of every group: those that agree least are the first to be kept separate. Equal ones go by their number.
func (p *job) partial(ctx context.Context) error {
	all := map[*units]*energy{}
	for _, u := range p.groups {
		n := u.group.Size
		all[u] = &energy{make([]float64, n), make([]float64, n), make([]float64, n)}
	}
	var err error
	if p.o.Scores == ByWeights {
		err = p.weightScores(all)
	} else {
		err = p.activationScores(ctx, all)
	}
	if err != nil {
		return err
	}
	for _, u := range p.groups {
		u.rank(all[u])
	}
	return nil
}

// rank orders units by their scores.
func (u *units) rank(e *energy) {
	u.order = make([]int, u.group.Size)
	apart, sum := 0.0, 0.0
	for i := range u.order {
		u.order[i] = i
		apart, sum = apart+e.apart[i], sum+e.sum[i]
	}
	slices.SortStableFunc(u.order, func(i, j int) int { return cmp.Compare(e.score[i], e.score[j]) })
	u.gain = make([]float64, u.group.Size+1)
	if sum > 0 {
		u.residual = apart / sum
		for k, i := range u.order {
			u.gain[k+1] = u.gain[k] + e.apart[i]/sum
		}
	}
}

// weightScores compares the slices of all tensors of the spec: the diagonal of the Gram matrix by which B was matched.
func (p *job) weightScores(all map[*units]*energy) error {
	type pair struct{ a, b []float32 }
	had := map[string]pair{}
	for _, u := range p.groups {
		e := all[u]
		for _, r := range u.group.Refs {
			if r.Silent {
				continue
			}
			shape := p.shapes[r.Tensor]
			if r.Tensor == p.head.Name+".weight" && p.o.Heads != MergeHeads {
				continue // rows of other classes say nothing
			}
			x, ok := had[r.Tensor]
			if !ok {
				var err error
				if x.a, err = p.read(0, r.Tensor, shape); err != nil {
					return err
				}
				if x.b, err = p.read(1, r.Tensor, shape); err != nil {
					return err
				}
				had[r.Tensor] = x
			}
			inner := size(shape[r.Axis+1:])
			for k, v := range x.a {
				i := (k/inner%shape[r.Axis] - r.Offset)
				if i < 0 || i/r.Block >= u.group.Size {
					continue
				}
				i /= r.Block
				va, vb := float64(v), float64(x.b[k])
				e.apart[i] += (va - vb) * (va - vb)
				e.sum[i] += va*va + vb*vb
				e.score[i] += va * vb
			}
		}
	}
	return nil
}

// activationScores compares what the maps read that the group's units lead to.
func (p *job) activationScores(ctx context.Context, all map[*units]*energy) error {
	readers := map[string][]int{} // groups by the module that reads them
	var modules []string
	for g, u := range p.groups {
		for _, r := range u.group.Refs {
			if r.Role != symmetry.Read || r.Axis != 1 {
				continue
			}
			name := strings.TrimSuffix(r.Tensor, ".weight")
			if readers[name] == nil {
				modules = append(modules, name)
			}
			readers[name] = append(readers[name], g)
		}
	}
	for k, name := range modules {
		l := find(p.d[0].Layers, name)
		at := p.axes[axisKey(name+".weight", 1)]
		err := p.features(ctx, l, func(x [2][]float32, rows, width int) {
			for _, s := range at {
				e := all[s.u]
				for row := range rows {
					off := row*width + s.offset
					for j := range s.u.group.Size * s.block {
						va, vb := float64(x[0][off+j]), float64(x[1][off+j])
						i := j / s.block
						e.apart[i] += (va - vb) * (va - vb)
						e.sum[i] += va*va + vb*vb
					}
				}
			}
		})
		if err != nil {
			return err
		}
		p.progress(k+1, len(modules), "comparing units")
	}
	for _, u := range p.groups {
		e := all[u]
		for i, v := range e.apart {
			e.score[i] = -v
		}
	}
	return nil
}

// features shows what a map of the parents reads, images by position.
func (p *job) features(ctx context.Context, l *model.PlainLayer, visit func(x [2][]float32, rows, width int)) error {
	for _, s := range p.data {
		err := p.pieces(ctx, s, size(l.In), func(x []float32, n int) error {
			var got [2][]float32
			var rows, width int
			for i, net := range p.nets {
				err := net.Features(x, n, func(module string) bool { return module == l.Name }, func(_ string, in []float32, r, w int) error {
					got[i] = append(got[i], in...)
					rows, width = len(got[i])/w, w
					return nil
				})
				if err != nil {
					return err
				}
			}
			visit(got, rows, width)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pieces cuts examples so that each values of every one of them stay small in memory.
func (p *job) pieces(ctx context.Context, s *samples.Set, each int, do func(x []float32, n int) error) error {
	const most = 16 << 20 // float32 values
	width := size(p.d[0].Input)
	some := min(256, max(1, most/max(each, 1)))
	for from := 0; from < s.N; from += some {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(some, s.N-from)
		if err := do(s.X[from*width:(from+n)*width], n); err != nil {
			return err
		}
	}
	return nil
}

// find returns a layer by its name.
func find(layers []model.PlainLayer, name string) *model.PlainLayer {
	for i := range layers {
		l := &layers[i]
		if l.Name == name {
			return l
		}
		for _, inner := range [][]model.PlainLayer{l.Layers, l.Shortcut} {
			if found := find(inner, name); found != nil {
				return found
			}
		}
	}
	return nil
}
