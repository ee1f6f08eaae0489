package match

import (
	"math"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
)

// pair is a tensor of both models in canonical form. With Options.Normalize per tensor both are scaled so that their inner product
// counts as a cosine.
type pair struct {
	t      *tensor
	a      []float32
	base   []float32 // the other model's, with folded gains and turned by the hub, before its own maps
	b      []float32 // under all maps
	weight float64   // of both, 1 without normalisation
}

// raw reads a tensor: finite, with the rows of common tokens only, the gain that it reads folded in.
func (p *problem) raw(s *side, t *tensor) ([]float32, error) {
	if x, ok := s.cache[t.name]; ok {
		return slices.Clone(x), nil
	}
	x, err := s.w.Read(s.at(t.name))
	if err != nil {
		return nil, err
	}
	for i, v := range x {
		if v-v != 0 {
			return nil, notFinite(s, t.name, i, float64(v))
		}
	}
	if t.vocab {
		x = t.pick(x, s)
	}
	if t.shift != 0 {
		for i, v := range x {
			x[i] = float32(float64(v) + t.shift)
		}
	}
	if t.norm != nil {
		t.fold(x, s.own[t.norm.Gain])
	}
	if s.cache != nil {
		s.cache[t.name] = slices.Clone(x)
	}
	return x, nil
}

// pick takes the common tokens' rows, or columns where the tokens lie on the second axis.
func (t *tensor) pick(x []float32, s *side) []float32 {
	n := len(s.rows)
	if t.free() == 0 {
		d := t.shape[1]
		out := make([]float32, n*d)
		for i, r := range s.rows {
			copy(out[i*d:][:d], x[int(r)*d:])
		}
		return out
	}
	d := t.shape[0]
	old := len(x) / d
	out := make([]float32, n*d)
	for i := range d {
		for j, r := range s.rows {
			out[i*n+j] = x[i*old+int(r)]
		}
	}
	return out
}

// fold multiplies what reads a norm by its gain.
func (t *tensor) fold(x []float32, gain []float64) {
	for _, at := range t.places {
		if at.group.ID != t.norm.Group {
			continue
		}
		outer, length, inner := view(t.shape, at.ref.Axis)
		for o := range outer {
			for tile := range at.ref.Tile {
				for f, g := range gain {
					from := (o*length + at.ref.Offset + (tile*len(gain)+f)*at.ref.Block) * inner
					for i := range x[from:][:at.ref.Block*inner] {
						x[from+i] = float32(float64(x[from+i]) * g)
					}
				}
			}
		}
	}
}

// view reads a shape as [outer, length, inner] around an axis.
func view(shape []int, axis int) (outer, length, inner int) {
	outer, inner = 1, 1
	for _, d := range shape[:axis] {
		outer *= d
	}
	for _, d := range shape[axis+1:] {
		inner *= d
	}
	return outer, shape[axis], inner
}

// load reads a tensor of both models and brings them to canonical form under the current maps.
func (p *problem) load(t *tensor, e *gram.Engine) (*pair, error) {
	q := &pair{t: t, weight: 1}
	x, err := p.raw(p.a, t)
	if err != nil {
		return nil, err
	}
	if q.a, err = t.transform(x, p.elementsA(t), e.Threads()); err != nil {
		return nil, err
	}
	if q.base, err = p.raw(p.b, t); err != nil {
		return nil, err
	}
	for _, at := range t.places {
		if at.unit.stream() {
			if q.base, err = at.unit.turn.apply(e, q.base, t.shape, at); err != nil {
				return nil, err
			}
		}
	}
	if err := p.renew(q, e); err != nil {
		return nil, err
	}
	if p.o.Normalize == PerTensor {
		if n := math.Sqrt(dot(q.a, q.a) * dot(q.b, q.b)); n > 0 {
			q.weight = math.Sqrt(1 / n)
			scale(q.a, q.weight)
			return q, p.renew(q, e)
		}
	}
	return q, nil
}

// renew applies the maps as they are now. A hub that is turned is held.
func (p *problem) renew(q *pair, e *gram.Engine) error {
	b, err := q.t.transform(q.base, p.elementsB(q.t), e.Threads())
	if err != nil {
		return err
	}
	q.b = b
	if q.weight != 1 {
		if len(b) > 0 && &b[0] == &q.base[0] {
			q.b = slices.Clone(b)
		}
		scale(q.b, q.weight)
	}
	return nil
}

// transform applies elements to a tensor; x itself comes back when nothing changes it.
func (t *tensor) transform(x []float32, elements map[string]align.Element, threads int) ([]float32, error) {
	if len(elements) == 0 {
		return x, nil
	}
	m := &align.Map{Spec: t.sub, Elements: elements}
	prepared, err := m.Prepare(nil)
	if err != nil {
		return nil, err
	}
	tr, err := prepared.Transform(t.name, t.shape)
	if err != nil || tr == nil {
		return x, err
	}
	tr.Threads = threads
	return tr.All(x)
}

func (p *problem) elementsA(t *tensor) map[string]align.Element {
	out := map[string]align.Element{}
	for _, at := range t.places {
		if at.unit.stream() {
			continue
		}
		if e := (&state{canon: p.a.canon.of(at.group.ID)}).element(at.group); !e.Identity() {
			out[at.group.ID] = e
		}
	}
	return out
}

func (p *problem) elementsB(t *tensor) map[string]align.Element {
	out := map[string]align.Element{}
	for _, at := range t.places {
		if at.unit.stream() {
			continue
		}
		if e := at.unit.states[at.group.ID].element(at.group); !e.Identity() {
			out[at.group.ID] = e
		}
	}
	return out
}

func dot(a, b []float32) float64 {
	sum := 0.0
	for i, x := range a {
		sum += float64(x) * float64(b[i])
	}
	return sum
}

// apart is |a - b|².
func apart(a, b []float32) float64 {
	sum := 0.0
	for i, x := range a {
		d := float64(x) - float64(b[i])
		sum += d * d
	}
	return sum
}

func scale(x []float32, f float64) {
	for i := range x {
		x[i] = float32(float64(x[i]) * f)
	}
}

// inner adds the inner products of n features on a stretch of an axis, in blocks, to sum [n, n].
func inner(e *gram.Engine, sum []float64, a, b []float32, shape []int, axis, offset, n, block int) error {
	outer, length, in := view(shape, axis)
	switch {
	case outer == 1:
		rest := block * in
		return e.Outer(sum, a[offset*in:][:n*rest], b[offset*in:][:n*rest], n, n, rest)
	case in == 1 && block == 1:
		if n < length {
			a, b = columns(a, length, offset, n), columns(b, length, offset, n)
		}
		return e.Inner(sum, a, b, outer, n, n)
	}
	rest := outer * block * in
	return e.Outer(sum, features(a, shape, axis, offset, n, block), features(b, shape, axis, offset, n, block), n, n, rest)
}

func columns(x []float32, length, offset, n int) []float32 {
	rows := len(x) / length
	out := make([]float32, rows*n)
	for i := range rows {
		copy(out[i*n:][:n], x[i*length+offset:])
	}
	return out
}

// features lists a stretch of an axis feature by feature: [n, everything else].
func features(x []float32, shape []int, axis, offset, n, block int) []float32 {
	outer, length, in := view(shape, axis)
	chunk := block * in
	out := make([]float32, 0, n*outer*chunk)
	for f := range n {
		for o := range outer {
			out = append(out, x[(o*length+offset+f*block)*in:][:chunk]...)
		}
	}
	return out
}

// role classes of evidence: what signs act on, and what only moves.
func moves(r symmetry.Role) bool { return r == symmetry.Gain }
