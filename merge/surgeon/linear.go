package surgeon

import (
	"fmt"
	"math"
	"sort"

	"github.com/mergekit/mergekit/internal/linalg"
)

// linear maps a row of the donor's space into the model's: (x - from)·W + to.
type linear struct {
	s        *site
	from, to []float64
	w        []float32 // [donor width, model width]
}

func (m *linear) rows(out []float32, ids []int32) error {
	at, x, err := m.s.targets(ids)
	if err != nil {
		return err
	}
	d, e := m.s.marks.donor.width, m.s.marks.model.width
	for i := range x {
		x[i] -= float32(m.from[i%d])
	}
	y := make([]float32, len(at)*e)
	linalg.Product(y, linalg.Of(x, len(at), d), linalg.Of(m.w, d, e), false, 1)
	row := make([]float64, e)
	for k, i := range at {
		for j, v := range y[k*e:][:e] {
			row[j] = float64(v) + m.to[j]
		}
		m.s.put(out, i, row)
	}
	return nil
}

// sums are what the landmarks' rows add up to, in the donor's space (X) and in the model's (Y).
type sums struct {
	n          int
	x, y       []float64 // means
	xx, yy, xy []float64 // means of products, less the product of the means
}

// sums reads all landmarks once. centred takes the means away.
func (s *site) sums(centred bool) (*sums, error) {
	l := s.marks
	d, e, n := l.donor.width, l.model.width, len(l.inDonor)
	t := &sums{n: n, x: make([]float64, d), y: make([]float64, e), xx: make([]float64, d*d), yy: make([]float64, e*e), xy: make([]float64, d*e)}
	wide := func(to []float64, from []float32, mean []float64) linalg.Matrix64 {
		for i, v := range from {
			to[i] = float64(v)
			mean[i%len(mean)] += float64(v)
		}
		return linalg.Of64(to[:len(from)], len(from)/len(mean), len(mean))
	}
	buf, own := make([]float32, blockRows*d), make([]float32, blockRows*e)
	wx, wy := make([]float64, blockRows*d), make([]float64, blockRows*e)
	var failed error
	err := l.blocks(buf, func(from int, block []float32, m int) {
		if err := l.model.gather(own[:m*e], l.inOwn[from:from+m]); err != nil {
			failed = err
			return
		}
		x, y := wide(wx, block, t.x), wide(wy, own[:m*e], t.y)
		linalg.AddGram(t.xx, 1, x.T(), s.o.Threads)
		linalg.AddGram(t.yy, 1, y.T(), s.o.Threads)
		linalg.Product64(linalg.Of64(t.xy, d, e), 1, x.T(), y, true, s.o.Threads)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	scale := func(v []float64) {
		for i := range v {
			v[i] /= float64(n)
		}
	}
	for _, v := range [][]float64{t.x, t.y, t.xx, t.yy, t.xy} {
		scale(v)
		if !finite(v) {
			return nil, &Error{File: s.donor.dir, Where: s.name, Msg: "holds NaN or infinite values among the landmarks, here or in " + s.model.dir, Hint: "use omp or subword"}
		}
	}
	if centred {
		less := func(v, a, b []float64) {
			for i := range v {
				v[i] -= a[i/len(b)] * b[i%len(b)]
			}
		}
		less(t.xx, t.x, t.x)
		less(t.yy, t.y, t.y)
		less(t.xy, t.x, t.y)
	}
	return t, nil
}

// principal are the k directions along which a space of landmarks is widest, as rows, the widest first.
func principal(covariance []float64, d, k, threads int) ([]float64, error) {
	_, vectors, err := linalg.Eigen(covariance, d, threads)
	if err != nil {
		return nil, err
	}
	out := make([]float64, k*d)
	for i := range k {
		copy(out[i*d:], vectors[(d-1-i)*d:][:d])
	}
	return out, nil
}

// procrustes turns the donor's space onto the model's: both are described by their principal directions, as many as the narrower one has, and
// the rotation between the descriptions is the one that brings the landmarks nearest to each other.
// Schönemann, 1966, "A generalized solution of the orthogonal Procrustes problem".
func (s *site) procrustes() (approximator, error) {
	t, err := s.sums(true)
	if err != nil {
		return nil, err
	}
	d, e := s.marks.donor.width, s.marks.model.width
	k := min(d, e, t.n)
	vx, err := principal(t.xx, d, k, s.o.Threads)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	vy, err := principal(t.yy, e, k, s.o.Threads)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	th := s.o.Threads
	product := func(a, b linalg.Matrix64) []float64 {
		c := make([]float64, a.Rows*b.Cols)
		linalg.Product64(linalg.Of64(c, a.Rows, b.Cols), 1, a, b, false, th)
		return c
	}
	x, y := linalg.Of64(vx, k, d), linalg.Of64(vy, k, e)
	cross := product(linalg.Of64(product(x, linalg.Of64(t.xy, d, e)), k, e), y.T())
	turn, _, err := linalg.Isometry(linalg.Of64(cross, k, k), th)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return s.linear(t.x, t.y, product(x.T(), linalg.Of64(product(linalg.Of64(turn, k, k), y), k, e))), nil
}

func (s *site) linear(from, to, w []float64) *linear {
	m := &linear{s: s, from: from, to: to, w: make([]float32, len(w))}
	for i, v := range w {
		m.w[i] = float32(v)
	}
	return m
}

// runnersUp is how many landmarks are kept for a direction, for when the nearest ones stand for others already.
const runnersUp = 64

// tokenBasis writes a row of the donor as a combination of a basis of tokens, the same for all: for each principal direction of the
// landmarks, as many as the narrower space has, the landmark that lies nearest to it by its angle. The combination that fits best in the
// donor's space is taken of the model's rows of the basis.
func (s *site) tokenBasis() (approximator, error) {
	t, err := s.sums(false)
	if err != nil {
		return nil, err
	}
	d, e := s.marks.donor.width, s.marks.model.width
	k := min(d, e, t.n)
	directions, err := principal(t.xx, d, k, s.o.Threads)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	basis, err := s.marks.along(directions, k, s.o.Threads)
	if err != nil {
		return nil, err
	}
	inDonor, inOwn := make([]int32, len(basis)), make([]int32, len(basis))
	for i, at := range basis {
		inDonor[i], inOwn[i] = s.marks.inDonor[at], s.marks.inOwn[at]
	}
	a, err := s.marks.donor.wide(inDonor)
	if err != nil {
		return nil, err
	}
	b, err := s.marks.model.wide(inOwn)
	if err != nil {
		return nil, err
	}
	// W = Aᵀ·(A·Aᵀ)⁺·B.
	n := len(basis)
	values, vectors, err := linalg.Eigen(linalg.Gram(a, s.o.Threads), n, s.o.Threads)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	scaled := make([]float64, n*n)
	for i, v := range values {
		if v > 1e-10*values[n-1] {
			for j, q := range vectors[i*n:][:n] {
				scaled[i*n+j] = q / v
			}
		}
	}
	inverse, left, w := make([]float64, n*n), make([]float64, d*n), make([]float64, d*e)
	linalg.Product64(linalg.Of64(inverse, n, n), 1, linalg.Of64(vectors, n, n).T(), linalg.Of64(scaled, n, n), false, s.o.Threads)
	linalg.Product64(linalg.Of64(left, d, n), 1, a.T(), linalg.Of64(inverse, n, n), false, s.o.Threads)
	linalg.Product64(linalg.Of64(w, d, e), 1, linalg.Of64(left, d, n), b, false, s.o.Threads)
	return s.linear(make([]float64, d), make([]float64, e), w), nil
}

// wide decodes some rows into float64.
func (r *rows) wide(ids []int32) (linalg.Matrix64, error) {
	narrow := make([]float32, len(ids)*r.width)
	if err := r.gather(narrow, ids); err != nil {
		return linalg.Matrix64{}, err
	}
	out := make([]float64, len(narrow))
	for i, v := range narrow {
		out[i] = float64(v)
	}
	return linalg.Of64(out, len(ids), r.width), nil
}

// along picks for each direction the landmark nearest to it by its angle that was not picked before.
func (l *landmarks) along(directions []float64, k, threads int) ([]int, error) {
	d := l.donor.width
	narrow := make([]float32, k*d)
	for i, v := range directions {
		narrow[i] = float32(v)
	}
	keep := make([]nearestList, k)
	for i := range keep {
		keep[i].most = min(runnersUp, len(l.inDonor))
	}
	buf, dots := make([]float32, blockRows*d), make([]float32, blockRows*k)
	err := l.blocks(buf, func(from int, block []float32, n int) {
		c := dots[:k*n]
		linalg.Product(c, linalg.Of(narrow, k, d), linalg.Of(block, n, d).T(), false, threads)
		for i := range k {
			for j, v := range c[i*n:][:n] {
				if a := l.norms[from+j]; a > 0 {
					keep[i].add(neighbour{from + j, -math.Abs(float64(v)) / math.Sqrt(a)})
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	taken := map[int]bool{}
	var out []int
	for _, list := range keep {
		for _, n := range list.list {
			if !taken[n.at] {
				taken[n.at] = true
				out = append(out, n.at)
				break
			}
		}
	}
	sort.Ints(out)
	return out, nil
}
