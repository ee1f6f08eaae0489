package surgeon

import (
	"math"

	"github.com/mergekit/mergekit/internal/linalg"
)

// turning is a matching pursuit in which a landmark may be turned as rotary position embedding turns a token that stands some places further
// on or back: tokens that are parts of one word follow each other, and a model that adds them up adds them turned. A landmark is picked as in
// pursuit, without fitting anew what was picked before; then the place is the one that explains most of what is left. The model's row is
// turned by the same places with the model's own angles.
// Su et al., 2021, "RoFormer: Enhanced transformer with rotary position embedding".
type turning struct {
	s           *site
	donor, self angles
}

// farthest is how many places a landmark may be turned, in either direction.
const farthest = 16

// angles are the turns by one place of the pairs of a head's values, and where a head's halves are.
type angles struct {
	head  int
	turns []float64 // of the pairs of a head
}

func newAngles(s *subject) (angles, error) {
	theta, head, err := s.rope()
	if err != nil {
		return angles{}, err
	}
	a := angles{head: head, turns: make([]float64, head/2)}
	for i := range a.turns {
		a.turns[i] = math.Pow(theta, -2*float64(i)/float64(head))
	}
	return a, nil
}

func (s *site) turningPursuit() (approximator, error) {
	donor, err := newAngles(s.donor)
	if err != nil {
		return nil, err
	}
	self, err := newAngles(s.model)
	if err != nil {
		return nil, err
	}
	for _, m := range []struct {
		r *rows
		a angles
	}{{s.marks.donor, donor}, {s.marks.model, self}} {
		if m.r.width%m.a.head != 0 {
			return nil, &Error{Where: s.name, Msg: "has rows that are no whole number of heads wide, so that mp_rope cannot turn them", Hint: "use omp"}
		}
	}
	return &turning{s, donor, self}, nil
}

// turn writes x, turned by some places, to out: values i and i+half of a head are a pair.
func (a angles) turn(out, x []float64, places int) {
	half := a.head / 2
	for i, t := range a.turns {
		sin, cos := math.Sincos(t * float64(places))
		for h := 0; h < len(x); h += a.head {
			u, v := x[h+i], x[h+i+half]
			out[h+i], out[h+i+half] = u*cos-v*sin, v*cos+u*sin
		}
	}
}

// best returns the places by which turning x brings it nearest to r, up to a factor, and the inner product then. The inner product of r with
// a turned x is a sum over pairs of u·cos + v·sin, with u and v the same for all places. Of equals the fewest places win.
func (a angles) best(r, x []float64) (places int, dot float64) {
	half := a.head / 2
	u, v := make([]float64, half), make([]float64, half)
	for h := 0; h < len(x); h += a.head {
		for i := range half {
			r0, r1, x0, x1 := r[h+i], r[h+i+half], x[h+i], x[h+i+half]
			u[i] += r0*x0 + r1*x1
			v[i] += r1*x0 - r0*x1
		}
	}
	for n := range farthest + 1 {
		for _, p := range []int{n, -n} {
			sum := 0.0
			for i, t := range a.turns {
				sin, cos := math.Sincos(t * float64(p))
				sum += u[i]*cos + v[i]*sin
			}
			if math.Abs(sum) > math.Abs(dot)*(1+1e-12) {
				places, dot = p, sum
			}
		}
	}
	return places, dot
}

func (p *turning) rows(out []float32, ids []int32) error {
	s := p.s
	at, x, err := s.targets(ids)
	if err != nil {
		return err
	}
	d, e := s.marks.donor.width, s.marks.model.width
	n := len(at)
	residual, sum := make([]float64, n*d), make([]float64, n*e)
	for i, v := range x {
		residual[i] = float64(v)
	}
	chosen := make([][]int, n)
	buf, dots := make([]float32, blockRows*d), make([]float32, blockRows*n)
	row, own := make([]float32, d), make([]float32, e)
	wide, turned, ownWide, ownTurned := make([]float64, d), make([]float64, d), make([]float64, e), make([]float64, e)
	for range min(s.o.K, len(s.marks.inDonor)) {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		best := make([]candidate, n)
		for i := range best {
			best[i].at = -1
		}
		err := s.marks.blocks(buf, func(from int, block []float32, m int) {
			c := dots[:n*m]
			linalg.Product(c, linalg.Of(x, n, d), linalg.Of(block, m, d).T(), false, 1)
			for i := range n {
				best[i].scan(c[i*m:][:m], from, chosen[i])
			}
		})
		if err != nil {
			return err
		}
		for i, b := range best {
			if b.at < 0 {
				continue
			}
			chosen[i] = append(chosen[i], b.at)
			if err := s.marks.donor.read(row, int(s.marks.inDonor[b.at])); err != nil {
				return err
			}
			if err := s.marks.model.read(own, int(s.marks.inOwn[b.at])); err != nil {
				return err
			}
			widen(wide, row)
			widen(ownWide, own)
			r := residual[i*d:][:d]
			places, dot := p.donor.best(r, wide)
			f := dot / s.marks.norms[b.at]
			p.donor.turn(turned, wide, places)
			p.self.turn(ownTurned, ownWide, places)
			for j, v := range turned {
				r[j] -= f * v
				x[i*d+j] = float32(r[j])
			}
			for j, v := range ownTurned {
				sum[i*e+j] += f * v
			}
		}
	}
	for i, k := range at {
		if len(chosen[i]) == 0 {
			s.failed.Add(1)
			continue
		}
		s.put(out, k, sum[i*e:][:e])
	}
	return nil
}

func widen(to []float64, from []float32) {
	for i, v := range from {
		to[i] = float64(v)
	}
}
