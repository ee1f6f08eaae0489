package align

import (
	"math"
	"math/cmplx"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/model"
)

// oracle applies a map group by group and value by value, in float64 and from the definitions alone: what package symmetry says that
// kinds and roles mean.
type oracle struct {
	m *Map
	x map[string][]float64
	s map[string][]int
}

func newOracle(m *Map, values map[string]model.Tensor) *oracle {
	o := &oracle{m: m, x: map[string][]float64{}, s: map[string][]int{}}
	put := func(name string, t model.Tensor) {
		o.s[name] = t.Shape
		o.x[name] = make([]float64, len(t.Data))
		for i, v := range t.Data {
			o.x[name][i] = float64(v)
		}
	}
	for name, t := range values {
		put(name, t)
	}
	for name, shared := range m.Untied() {
		put(name, values[shared])
	}
	return o
}

// lines calls visit with the indices of every line along an axis of a tensor.
func (o *oracle) lines(tensor string, axis int, visit func(x []float64, at func(i int) int)) {
	shape := o.s[tensor]
	inner := 1
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	n := shape[axis]
	for start := range len(o.x[tensor]) / n {
		base := start/inner*n*inner + start%inner
		visit(o.x[tensor], func(i int) int { return base + i*inner })
	}
}

// act applies one group at one ref.
func (o *oracle) act(g *symmetry.Group, r symmetry.Ref, e Element) {
	if _, there := o.x[r.Tensor]; !there {
		return // of a shared tensor that stays shared
	}
	width := g.Size // entries of one repetition, in features or entries of planes
	if g.Kind == symmetry.RopePlane {
		width *= 2
	}
	matrix := e.Matrix
	if matrix != nil && r.Role == symmetry.Read {
		var inv mat.Dense
		if err := inv.Inverse(mat.NewDense(g.Size, g.Size, matrix)); err != nil {
			panic(err)
		}
		matrix = mat.DenseCopyOf(inv.T()).RawMatrix().Data
	}
	var own, to []float64
	if e.Matrix != nil {
		for _, n := range o.m.Spec.Norms {
			if n.Group == g.ID && slices.Contains(n.Readers, r.Tensor) && r.Role == symmetry.Read {
				own, to = o.m.Gains[n.Gain].From, o.m.Gains[n.Gain].To
			}
		}
	}
	o.lines(r.Tensor, r.Axis, func(x []float64, at func(int) int) {
		for tile := range r.Tile {
			for b := range r.Block {
				place := func(f int) int { return at(r.Offset + (tile*width+f)*r.Block + b) }
				old := make([]float64, width)
				for f := range old {
					old[f] = x[place(f)] + r.Shift
				}
				now := slices.Clone(old)
				switch {
				case e.Plane != nil:
					for j, c := range e.Plane {
						p, q := j, j+g.Size
						if g.Interleaved {
							p, q = 2*j, 2*j+1
						}
						if r.Role == symmetry.Read {
							c = 1 / cmplx.Conj(c)
						}
						z := c * complex(old[p], old[q])
						now[p], now[q] = real(z), imag(z)
					}
				case matrix != nil:
					for f := range now {
						now[f] = 0
						for k, v := range old {
							if own != nil {
								v *= own[k]
							}
							now[f] += matrix[f*g.Size+k] * v
						}
						if to != nil {
							now[f] /= to[f]
						}
					}
				default:
					for f := range now {
						s := 1.0
						if e.Scale != nil && r.Role != symmetry.Gain {
							s = e.Scale[f]
						}
						if r.Role == symmetry.Read {
							s = 1 / s
						}
						from := f
						if e.Index != nil {
							from = e.Index[f]
						}
						now[f] = s * old[from]
					}
				}
				for f, v := range now {
					x[place(f)] = v - r.Shift
				}
			}
		}
	})
}

func (o *oracle) apply() {
	for i := range o.m.Spec.Groups {
		g := &o.m.Spec.Groups[i]
		e := o.m.Elements[g.ID]
		for _, r := range g.Refs {
			if e.Matrix != nil && r.Role == symmetry.Gain {
				for _, n := range o.m.Spec.Norms {
					for f := range o.x[r.Tensor] {
						if n.Gain == r.Tensor {
							o.x[r.Tensor][f] = o.m.Gains[n.Gain].To[f] - n.Offset
						}
					}
				}
				continue
			}
			o.act(g, r, e)
		}
	}
}

// TestOracle: maps as they are applied to streaming tensors give what the definitions give, for every family, and every value of a map
// that only moves and flips is one of the original's, bit for bit.
func TestOracle(t *testing.T) {
	list, err := TinyModels("")
	if err != nil {
		t.Fatal(err)
	}
	for _, tiny := range list {
		t.Run(tiny.Name, func(t *testing.T) {
			_, values, spec := tinyModel(t, tiny.Name)
			w := OfTensors(values)
			for _, most := range []symmetry.Kind{symmetry.Perm, symmetry.SignedPerm, symmetry.Invertible} {
				m, err := Random(spec, 5, RandomOptions{Scales: true, Gains: true, Kind: func(g *symmetry.Group) symmetry.Kind {
					k := g.Kinds[len(g.Kinds)-1]
					switch {
					case slices.Contains([]symmetry.Kind{symmetry.HeadGroup, most}, k):
					case k == symmetry.RopePlane && (most == symmetry.Invertible || most == symmetry.SignedPerm && g.Restrict == symmetry.SignOnly):
					case k == symmetry.RopePlane:
						return ""
					case most == symmetry.Perm:
						return symmetry.Perm
					case most == symmetry.SignedPerm && slices.Contains(g.Kinds, symmetry.SignedPerm):
						return symmetry.SignedPerm
					case most == symmetry.SignedPerm:
						return symmetry.Perm
					}
					return k
				}})
				if err != nil {
					t.Fatal(err)
				}
				rich := slices.ContainsFunc(spec.Groups, func(g symmetry.Group) bool { return len(g.Kinds) > 1 })
				if exact := most != symmetry.Invertible || !rich; m.Exact() != exact {
					t.Errorf("%s: exact %v", most, m.Exact())
				}
				own, err := ReadGains(spec, w)
				if err != nil {
					t.Fatal(err)
				}
				m = m.WithGains(own, nil)
				o := newOracle(m, values)
				o.apply()
				a := Aligned(w, m)
				moved := false
				for name, want := range o.x {
					got, err := a.Read(name)
					if err != nil {
						t.Fatal(err)
					}
					size := 0.0
					for _, v := range want {
						size = math.Max(size, math.Abs(v))
					}
					for i, v := range want {
						if m.Exact() && got[i] != float32(v) || !(math.Abs(float64(got[i])-v) <= 3e-6*size) {
							t.Fatalf("%s: %s[%d] is %v, by definition %v", most, name, i, got[i], v)
						}
					}
					before := values[name].Data
					moved = moved || before != nil && !slices.Equal(before, got)
				}
				if !moved {
					t.Errorf("%s: nothing moved", most)
				}
			}
		})
	}
}
