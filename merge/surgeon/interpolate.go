package surgeon

import (
	"math"
	"sort"

	"github.com/mergekit/mergekit/internal/linalg"
)

// interpolation takes the landmarks that lie nearest to a token in the donor's space, and gives the token the mean of their rows in the
// model's, weighted by their nearness or so that they fit the token's row in the donor.
type interpolation struct{ s *site }

func (p *interpolation) rows(out []float32, ids []int32) error {
	s := p.s
	at, x, err := s.targets(ids)
	if err != nil {
		return err
	}
	d := s.marks.donor.width
	near, err := s.marks.nearest(x, len(at), s.o.K, s.o.Cosine)
	if err != nil {
		return err
	}
	row, own := make([]float64, s.marks.model.width), make([]float32, s.marks.model.width)
	for i, list := range near {
		if len(list) == 0 { // the row is no number
			s.failed.Add(1)
			continue
		}
		w, err := s.weights(x[i*d:][:d], list)
		if err != nil {
			return err
		}
		rows := make([]int32, len(list))
		for k, n := range list {
			rows[k] = s.marks.inOwn[n.at]
		}
		if err := combine(row, s.marks.model, rows, w, own); err != nil {
			return err
		}
		s.put(out, at[i], row)
	}
	return nil
}

// neighbour is a landmark and how far it is: the distance, or one minus the cosine.
type neighbour struct {
	at   int
	away float64
}

// spare is how many more candidates are kept while products are in float32 than are asked for: distances are then computed in float64, and the
// order is theirs.
const spare = 8

// nearest finds the k landmarks nearest to each of n rows, the nearest first.
func (l *landmarks) nearest(x []float32, n, k int, cosine bool) ([][]neighbour, error) {
	d := l.donor.width
	keep := make([]nearestList, n)
	norms := make([]float64, n)
	for i := range n {
		keep[i].most = min(k+spare, len(l.inDonor))
		norms[i] = squares(x[i*d:][:d])
	}
	buf, dots := make([]float32, blockRows*d), make([]float32, blockRows*n)
	err := l.blocks(buf, func(from int, block []float32, m int) {
		c := dots[:n*m]
		linalg.Product(c, linalg.Of(x, n, d), linalg.Of(block, m, d).T(), false, 1)
		for i := range n {
			for j, v := range c[i*m:][:m] {
				keep[i].add(neighbour{from + j, away(float64(v), norms[i], l.norms[from+j], cosine)})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	out := make([][]neighbour, n)
	row := make([]float32, d)
	for i := range n {
		list := keep[i].list
		for j := range list {
			if err := l.donor.read(row, int(l.inDonor[list[j].at])); err != nil {
				return nil, err
			}
			list[j].away = exactly(x[i*d:][:d], row, norms[i], l.norms[list[j].at], cosine)
		}
		sort.SliceStable(list, func(a, b int) bool { return nearer(list[a], list[b]) })
		out[i] = list[:min(k, len(list))]
	}
	return out, nil
}

// away orders landmarks by a product.
func away(dot, x, a float64, cosine bool) float64 {
	if !cosine {
		return a - 2*dot // the squared distance, without what is the same for all
	}
	if a == 0 || x == 0 {
		return 1
	}
	return 1 - dot/math.Sqrt(a*x)
}

// exactly is the distance, or one minus the cosine.
func exactly(x, a []float32, xx, aa float64, cosine bool) float64 {
	if cosine {
		return away(inner(x, a), xx, aa, true)
	}
	sum := 0.0
	for i, v := range x {
		e := float64(v) - float64(a[i])
		sum += e * e
	}
	return math.Sqrt(sum)
}

func nearer(a, b neighbour) bool { return a.away < b.away || a.away == b.away && a.at < b.at }

// nearestList keeps the nearest of what it is given, in order.
type nearestList struct {
	most int
	list []neighbour
}

func (l *nearestList) add(n neighbour) {
	if math.IsNaN(n.away) || len(l.list) == l.most && !nearer(n, l.list[len(l.list)-1]) {
		return
	}
	i := sort.Search(len(l.list), func(i int) bool { return nearer(n, l.list[i]) })
	if len(l.list) < l.most {
		l.list = append(l.list, neighbour{})
	}
	copy(l.list[i+1:], l.list[i:])
	l.list[i] = n
}

// weights are what the landmarks count.
func (s *site) weights(x []float32, list []neighbour) ([]float64, error) {
	if s.o.Scheme == "distance_proportional" {
		w := make([]float64, len(list))
		sum := 0.0
		for k, n := range list {
			w[k] = 1 / max(n.away, 1e-6)
			if s.o.Cosine {
				w[k] = 1 - n.away
			}
			sum += w[k]
		}
		for k := range w {
			w[k] /= sum
		}
		return w, nil
	}
	d := len(x)
	a := make([]float64, len(list)*d)
	row := make([]float32, d)
	for k, n := range list {
		if err := s.marks.donor.read(row, int(s.marks.inDonor[n.at])); err != nil {
			return nil, err
		}
		for i, v := range row {
			a[k*d+i] = float64(v)
		}
	}
	b := make([]float64, d)
	for i, v := range x {
		b[i] = float64(v)
	}
	if s.o.Scheme == "least_squares" {
		return leastSquares(a, len(list), d, b)
	}
	// Barycentric: the weights add up to one. Around the mean of the landmarks the shortest weights that fit add up to zero of themselves,
	// and those of the mean are equal: the shortest of all such weights, whichever landmark comes first.
	even := 1 / float64(len(list))
	mean := make([]float64, d)
	for i, v := range a {
		mean[i%d] += even * v
	}
	for i := range a {
		a[i] -= mean[i%d]
	}
	for i, v := range mean {
		b[i] -= v
	}
	w, err := leastSquares(a, len(list), d, b)
	if err != nil {
		return nil, err
	}
	for k := range w {
		w[k] += even
	}
	return w, nil
}

// leastSquares returns the shortest w of length n for which Aᵀ·w comes nearest to b, A by rows [n, d].
func leastSquares(a []float64, n, d int, b []float64) ([]float64, error) {
	w := make([]float64, n)
	if n == 0 {
		return w, nil
	}
	m := linalg.Of64(a, n, d)
	values, vectors, err := linalg.Eigen(linalg.Gram(m, 1), n, 1)
	if err != nil {
		return nil, err
	}
	ab := make([]float64, n)
	linalg.Product64(linalg.Of64(ab, n, 1), 1, m, linalg.Of64(b, d, 1), false, 1)
	for k, v := range values {
		if v <= 1e-13*values[n-1] || v <= 0 { // a direction that the landmarks do not have
			continue
		}
		f := 0.0
		for i, q := range vectors[k*n:][:n] {
			f += q * ab[i]
		}
		for i, q := range vectors[k*n:][:n] {
			w[i] += f / v * q
		}
	}
	return w, nil
}
