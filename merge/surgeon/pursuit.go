package surgeon

import (
	"math"

	"github.com/mergekit/mergekit/internal/linalg"
)

// pursuit writes a token's row in the donor as a sum of few landmarks and takes the same sum of the model's rows: orthogonal matching pursuit,
// which picks the landmark that has the largest inner product with what is not yet explained, and fits all coefficients anew.
// Pati, Rezaiifar and Krishnaprasad, 1993, "Orthogonal matching pursuit"; Goddard and Fernandes Neto, 2025, "Training-free tokenizer
// transplantation via orthogonal matching pursuit".
type pursuit struct{ s *site }

func (p *pursuit) rows(out []float32, ids []int32) error {
	s := p.s
	at, x, err := s.targets(ids)
	if err != nil {
		return err
	}
	d := s.marks.donor.width
	fits := make([]*fit, len(at))
	for i := range fits {
		fits[i] = newFit(s.marks, x[i*d:][:d])
	}
	residual := append([]float32(nil), x...)
	open := make([]int, len(at)) // the targets that are not done
	for i := range open {
		open[i] = i
	}
	buf, dots := make([]float32, blockRows*d), make([]float32, blockRows*len(at))
	for range min(s.o.K, len(s.marks.inDonor)) {
		if len(open) == 0 {
			break
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
		best := make([]candidate, len(open))
		for i := range best {
			best[i].at = -1
		}
		for i, t := range open {
			copy(residual[i*d:][:d], fits[t].left)
		}
		err := s.marks.blocks(buf, func(from int, block []float32, n int) {
			c := dots[:len(open)*n]
			linalg.Product(c, linalg.Of(residual, len(open), d), linalg.Of(block, n, d).T(), false, 1)
			for i, t := range open {
				best[i].scan(c[i*n:][:n], from, fits[t].chosen)
			}
		})
		if err != nil {
			return err
		}
		var still []int
		for i, t := range open {
			if best[i].at >= 0 {
				if more, err := fits[t].add(best[i].at); err != nil {
					return err
				} else if more {
					still = append(still, t)
				}
			}
		}
		open = still
	}
	row, own := make([]float64, s.marks.model.width), make([]float32, s.marks.model.width)
	for i, f := range fits {
		if len(f.chosen) == 0 { // the row is zero, or no number
			s.failed.Add(1)
			continue
		}
		if err := combine(row, s.marks.model, f.model(), f.c, own); err != nil {
			return err
		}
		s.put(out, at[i], row)
	}
	return nil
}

// candidate is the landmark with the largest inner product so far; of equals the first.
type candidate struct {
	at   int
	size float32
}

// scan looks at the products with landmarks from, from+1, …; those that were chosen do not count.
func (c *candidate) scan(dots []float32, from int, chosen []int) {
	for i, v := range dots {
		if v < 0 {
			v = -v
		}
		if v > c.size && !contains(chosen, from+i) {
			c.at, c.size = from+i, v
		}
	}
}

func contains(list []int, x int) bool {
	for _, v := range list {
		if v == x {
			return true
		}
	}
	return false
}

// fit is the least-squares fit of one row by the landmarks that were chosen for it: G·c = A·x with the Gram matrix G = A·Aᵀ, whose Cholesky
// factor grows by a row with each.
type fit struct {
	l      *landmarks
	x      []float32
	chosen []int
	lower  [][]float64 // rows of the factor
	ax     []float64   // A·x
	c      []float64   // coefficients
	r      []float64   // what is left, x - Aᵀ·c, computed anew each time so that nothing piles up
	left   []float32   // the same, rounded
	row    []float32   // a landmark
}

func newFit(l *landmarks, x []float32) *fit {
	return &fit{l: l, x: x, row: make([]float32, len(x)), r: make([]float64, len(x)), left: append([]float32(nil), x...)}
}

// add takes a landmark in. It is false when there is nothing left to explain, or the landmark depends on the others.
func (f *fit) add(at int) (bool, error) {
	a := make([]float32, len(f.x))
	if err := f.l.donor.read(a, int(f.l.inDonor[at])); err != nil {
		return false, err
	}
	k := len(f.chosen)
	next := make([]float64, k+1)
	for j, other := range f.chosen {
		if err := f.l.donor.read(f.row, int(f.l.inDonor[other])); err != nil {
			return false, err
		}
		sum := inner(a, f.row)
		for i, v := range f.lower[j][:j] {
			sum -= next[i] * v
		}
		next[j] = sum / f.lower[j][j]
	}
	norm := f.l.norms[at]
	rest := norm
	for _, v := range next[:k] {
		rest -= v * v
	}
	const dependent = 1e-10 // of the squared norm: what the rounding of the Gram matrix leaves
	if !(rest > dependent*norm) {
		return false, nil
	}
	next[k] = math.Sqrt(rest)
	f.chosen, f.lower, f.ax = append(f.chosen, at), append(f.lower, next), append(f.ax, inner(a, f.x))
	f.c = solve(f.lower, f.ax)
	for i, v := range f.x {
		f.r[i] = float64(v)
	}
	for j, other := range f.chosen {
		if err := f.l.donor.read(f.row, int(f.l.inDonor[other])); err != nil {
			return false, err
		}
		for i, v := range f.row {
			f.r[i] -= f.c[j] * float64(v)
		}
	}
	size, whole := 0.0, squares(f.x)
	for i, v := range f.r {
		size += v * v
		f.left[i] = float32(v)
	}
	const explained = 1e-13 // of the squared norm: what is below is the rounding of float32
	return size > explained*whole, nil
}

// model lists the model's rows of the landmarks.
func (f *fit) model() []int32 {
	out := make([]int32, len(f.chosen))
	for i, at := range f.chosen {
		out[i] = f.l.inOwn[at]
	}
	return out
}

// solve returns c with L·Lᵀ·c = b for a lower triangle L by rows.
func solve(l [][]float64, b []float64) []float64 {
	n := len(b)
	c := append([]float64(nil), b...)
	for i := range n {
		for j := range i {
			c[i] -= l[i][j] * c[j]
		}
		c[i] /= l[i][i]
	}
	for i := n - 1; i >= 0; i-- {
		for j := i + 1; j < n; j++ {
			c[i] -= l[j][i] * c[j]
		}
		c[i] /= l[i][i]
	}
	return c
}

func inner(a, b []float32) float64 {
	sum := 0.0
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return sum
}
