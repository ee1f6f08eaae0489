package align

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/model"
)

// refs makes the refs of a group: tensor, axis, offset, block, tile, role.
func at(tensor string, axis, offset, block, tile int, role symmetry.Role) symmetry.Ref {
	return symmetry.Ref{Tensor: tensor, Axis: axis, Offset: offset, Block: block, Tile: tile, Role: role}
}

// sizes of the small transformer of the tests: 4 query heads of 4 in groups of 2.
const (
	vocab, width, inner, heads, kv, hd = 13, 12, 10, 4, 2, 4
)

// transformer is the spec of a Llama of one or more layers, written by hand, with biases on q, k and v and a fixed head.
func transformer(layers int, tied bool) *symmetry.Spec {
	s := &symmetry.Spec{Name: "test"}
	res := symmetry.Group{ID: "res", Kind: symmetry.Orthogonal, Kinds: []symmetry.Kind{symmetry.Perm, symmetry.SignedPerm, symmetry.Orthogonal}, Size: width}
	res.Refs = append(res.Refs, at("embed", 1, 0, 1, 1, symmetry.Write), at("norm", 0, 0, 1, 1, symmetry.Gain))
	res.Refs = append(res.Refs, at("head", 1, 0, 1, 1, symmetry.Read))
	if tied {
		s.Untie = map[string]string{"head": "embed"}
	}
	s.Norms = append(s.Norms, symmetry.Norm{Group: "res", Gain: "norm", Readers: []string{"head"}})
	var groups []symmetry.Group
	for l := range layers {
		p := fmt.Sprintf("%d.", l)
		for _, t := range []string{"q", "k", "v", "gate", "up"} {
			res.Refs = append(res.Refs, at(p+t, 1, 0, 1, 1, symmetry.Read))
		}
		res.Refs = append(res.Refs, at(p+"o", 0, 0, 1, 1, symmetry.Write), at(p+"down", 0, 0, 1, 1, symmetry.Write),
			at(p+"norm1", 0, 0, 1, 1, symmetry.Gain), at(p+"norm2", 0, 0, 1, 1, symmetry.Gain))
		s.Norms = append(s.Norms, symmetry.Norm{Group: "res", Gain: p + "norm1", Offset: 1, Readers: []string{p + "q", p + "k", p + "v"}},
			symmetry.Norm{Group: "res", Gain: p + "norm2", Offset: 1, Readers: []string{p + "gate", p + "up"}})
		const r = heads / kv
		groups = append(groups, symmetry.Group{ID: fmt.Sprintf("mlp.%d", l), Kind: symmetry.ScaledPerm, Size: inner, Refs: []symmetry.Ref{
			at(p+"up", 0, 0, 1, 1, symmetry.Write), at(p+"gate", 0, 0, 1, 1, symmetry.Gain), at(p+"down", 1, 0, 1, 1, symmetry.Read)}},
			symmetry.Group{ID: fmt.Sprintf("kv.%d", l), Kind: symmetry.HeadGroup, Size: kv, Refs: []symmetry.Ref{
				at(p+"k", 0, 0, hd, 1, symmetry.Write), at(p+"v", 0, 0, hd, 1, symmetry.Write), at(p+"k.bias", 0, 0, hd, 1, symmetry.Write), at(p+"v.bias", 0, 0, hd, 1, symmetry.Write),
				at(p+"q", 0, 0, r*hd, 1, symmetry.Read), at(p+"q.bias", 0, 0, r*hd, 1, symmetry.Read), at(p+"o", 1, 0, r*hd, 1, symmetry.Read)}})
		for g := range kv {
			parent := fmt.Sprintf("kv.%d", l)
			groups = append(groups, symmetry.Group{ID: fmt.Sprintf("qh.%d.%d", l, g), Kind: symmetry.HeadGroup, Size: r, Parent: parent, Block: g, Refs: []symmetry.Ref{
				at(p+"q", 0, g*r*hd, hd, 1, symmetry.Write), at(p+"q.bias", 0, g*r*hd, hd, 1, symmetry.Write), at(p+"o", 1, g*r*hd, hd, 1, symmetry.Read)}},
				symmetry.Group{ID: fmt.Sprintf("vo.%d.%d", l, g), Kind: symmetry.Invertible, Size: hd, Parent: parent, Block: g, Refs: []symmetry.Ref{
					at(p+"v", 0, g*hd, 1, 1, symmetry.Write), at(p+"v.bias", 0, g*hd, 1, 1, symmetry.Write), at(p+"o", 1, g*r*hd, 1, r, symmetry.Read)}},
				symmetry.Group{ID: fmt.Sprintf("qk.%d.%d", l, g), Kind: symmetry.RopePlane, Size: hd / 2, Parent: parent, Block: g, Refs: []symmetry.Ref{
					at(p+"k", 0, g*hd, 1, 1, symmetry.Write), at(p+"k.bias", 0, g*hd, 1, 1, symmetry.Write), at(p+"q", 0, g*r*hd, 1, r, symmetry.Read), at(p+"q.bias", 0, g*r*hd, 1, r, symmetry.Read)}})
		}
	}
	s.Groups = append([]symmetry.Group{res}, groups...)
	return s
}

// weightsOf draws the tensors of the transformer.
func weightsOf(layers int, tied bool, seed uint64) map[string]model.Tensor {
	w := map[string]model.Tensor{}
	put := func(name string, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		x := make([]float32, n)
		linalg.Normal(x, seed, name)
		if strings.Contains(name, "norm") { // effective gains from 0.6 to 1.6 (the last norm has no offset)
			linalg.Uniform(x, seed, name)
			for i := range x {
				if x[i] -= 0.4; name == "norm" {
					x[i]++
				}
			}
		}
		w[name] = model.Tensor{Shape: shape, Data: x}
	}
	put("embed", vocab, width)
	if !tied {
		put("head", vocab, width)
	}
	put("norm", width)
	for l := range layers {
		p := fmt.Sprintf("%d.", l)
		put(p+"q", heads*hd, width)
		put(p+"q.bias", heads*hd)
		for _, t := range []string{"k", "v"} {
			put(p+t, kv*hd, width)
			put(p+t+".bias", kv*hd)
		}
		put(p+"o", width, heads*hd)
		put(p+"gate", inner, width)
		put(p+"up", inner, width)
		put(p+"down", width, inner)
		put(p+"norm1", width)
		put(p+"norm2", width)
	}
	return w
}

// forward is the transformer in float64 with rotary positions, straight from the formulas.
func forward(t *testing.T, w Weights, layers int, tied bool, tokens []int) []float64 {
	t.Helper()
	get := func(name string) []float64 {
		x, err := w.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		y := make([]float64, len(x))
		for i, v := range x {
			y[i] = float64(v)
		}
		return y
	}
	norm := func(x, gain []float64, offset float64) []float64 {
		sum := 0.0
		for _, v := range x {
			sum += v * v
		}
		s := 1 / math.Sqrt(sum/float64(len(x))+1e-6)
		y := make([]float64, len(x))
		for i, v := range x {
			y[i] = v * s * (offset + gain[i])
		}
		return y
	}
	linear := func(w, b, x []float64) []float64 {
		y := make([]float64, len(w)/len(x))
		for i := range y {
			for j, v := range x {
				y[i] += w[i*len(x)+j] * v
			}
			if b != nil {
				y[i] += b[i]
			}
		}
		return y
	}
	rotate := func(x []float64, pos int) {
		for h := 0; h < len(x); h += hd {
			for j := range hd / 2 {
				sin, cos := math.Sincos(float64(pos) * math.Pow(100, -float64(2*j)/hd))
				a, b := x[h+j], x[h+j+hd/2]
				x[h+j], x[h+j+hd/2] = a*cos-b*sin, a*sin+b*cos
			}
		}
	}
	embed := get("embed")
	h := make([][]float64, len(tokens))
	for i, tok := range tokens {
		h[i] = slices.Clone(embed[tok*width : (tok+1)*width])
	}
	for l := range layers {
		p := fmt.Sprintf("%d.", l)
		q, k, v := make([][]float64, len(h)), make([][]float64, len(h)), make([][]float64, len(h))
		for i := range h {
			x := norm(h[i], get(p+"norm1"), 1)
			q[i], k[i], v[i] = linear(get(p+"q"), get(p+"q.bias"), x), linear(get(p+"k"), get(p+"k.bias"), x), linear(get(p+"v"), get(p+"v.bias"), x)
			rotate(q[i], i)
			rotate(k[i], i)
		}
		for i := range h {
			mixed := make([]float64, heads*hd)
			for a := range heads {
				g := a / (heads / kv)
				e, total := make([]float64, i+1), 0.0
				for j := range e {
					dot := 0.0
					for d := range hd {
						dot += q[i][a*hd+d] * k[j][g*hd+d]
					}
					e[j] = math.Exp(dot / 10)
					total += e[j]
				}
				for j := range e {
					for d := range hd {
						mixed[a*hd+d] += e[j] / total * v[j][g*hd+d]
					}
				}
			}
			for d, x := range linear(get(p+"o"), nil, mixed) {
				h[i][d] += x
			}
		}
		for i := range h {
			x := norm(h[i], get(p+"norm2"), 1)
			gate, up := linear(get(p+"gate"), nil, x), linear(get(p+"up"), nil, x)
			for j, g := range gate {
				up[j] *= g / (1 + math.Exp(-g))
			}
			for d, x := range linear(get(p+"down"), nil, up) {
				h[i][d] += x
			}
		}
	}
	head := "head"
	if tied {
		head = "embed"
	}
	if slices.Contains(w.Names(), "head") {
		head = "head"
	}
	var logits []float64
	for i := range h {
		logits = append(logits, linear(get(head), nil, norm(h[i], get("norm"), 0))...)
	}
	return logits
}

func far(a, b []float64) float64 {
	worst, size := 0.0, 0.0
	for i := range a {
		worst, size = math.Max(worst, math.Abs(a[i]-b[i])), math.Max(size, math.Abs(a[i]))
	}
	return worst / size
}

// TestRandomChangesNothing: a random map leaves the network's function as it is, for every kind of every group, with and without
// scales, tied and not.
func TestRandomChangesNothing(t *testing.T) {
	tokens := []int{3, 1, 12, 7, 7, 0}
	for _, tied := range []bool{false, true} {
		for _, scales := range []bool{false, true} {
			for _, kind := range []symmetry.Kind{symmetry.Perm, symmetry.SignedPerm, symmetry.Orthogonal} {
				for seed := range uint64(5) {
					s, w := transformer(2, tied), OfTensors(weightsOf(2, tied, seed))
					m, err := Random(s, seed, RandomOptions{Scales: scales, Gains: scales, Kind: func(g *symmetry.Group) symmetry.Kind {
						if g.ID == "res" {
							return kind
						}
						return g.Kind
					}})
					if err != nil {
						t.Fatal(err)
					}
					b := Aligned(w, m)
					moved, err := b.Read("0.q")
					if err != nil {
						t.Fatal(err)
					}
					if x, _ := w.Read("0.q"); slices.Equal(x, moved) {
						t.Fatal("the map moved nothing")
					}
					if d := far(forward(t, w, 2, tied, tokens), forward(t, b, 2, tied, tokens)); !(d < 3e-5) {
						t.Errorf("tied %v scales %v residual %s seed %d: logits differ by %.1e", tied, scales, kind, seed, d)
					}
				}
			}
		}
	}
}
