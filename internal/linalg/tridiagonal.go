package linalg

import (
	"math"
	"sync"
)

// reflectors is how many Householder reflectors are gathered before the rest of a matrix is updated by one product.
const reflectors = 48

// tridiagonal is a symmetric matrix A = Q·T·Qᵀ with T tridiagonal and Q a product of reflectors I - τ·v·vᵀ.
type tridiagonal struct {
	n       int
	a       []float64 // [n, n]: v of reflector i in row i, from column i+1 on
	tau     []float64
	d, e    []float64 // diagonal and what is beside it
	threads int
}

// reduce makes a symmetric matrix tridiagonal, of which it reads the upper triangle and uses all as its memory. Reflectors are found in
// panels: within a panel the rest of the matrix is only multiplied with, afterwards it is updated at once. Dongarra, Sorensen and
// Hammarling, 1989, "Block reduction of matrices to condensed forms for eigenvalue computations".
//
// Half of the work is the products of a matrix and a vector, which the memory's speed bounds; they read one triangle.
func reduce(a []float64, n, threads int) *tridiagonal {
	t := &tridiagonal{n: n, a: a, tau: make([]float64, n), d: make([]float64, n), e: make([]float64, n), threads: threads}
	k := bestLevel1
	vs, ws := make([]float64, reflectors*n), make([]float64, reflectors*n)
	s := newSymmetricProduct(k, n, threads)
	for from := 0; from < n; from += reflectors {
		w := min(reflectors, n-from)
		clear(vs)
		clear(ws)
		for p := range w {
			j := from + p
			row := a[j*n:][:n]
			// The panel's earlier reflectors have not changed this row yet: A - V·Wᵀ - W·Vᵀ.
			for q := range p {
				k.axpy(-vs[q*n+j], ws[q*n+j:][:n-j], row[j:])
				k.axpy(-ws[q*n+j], vs[q*n+j:][:n-j], row[j:])
			}
			t.d[j] = row[j]
			if j == n-1 {
				break
			}
			v := row[j+1:]
			t.tau[j], t.e[j] = reflector(k, v)
			copy(vs[p*n+j+1:], v)
			if t.tau[j] == 0 {
				continue
			}
			// y = τ(A·v - V·(Wᵀv) - W·(Vᵀv)), w = y - ½τ(yᵀv)v.
			y := ws[p*n+j+1:][:n-j-1]
			s.times(a, j+1, v, y)
			for q := range p {
				vq, wq := vs[q*n+j+1:][:len(v)], ws[q*n+j+1:][:len(v)]
				wv, vv := k.inner(wq, v), k.inner(vq, v)
				k.axpy(-wv, vq, y)
				k.axpy(-vv, wq, y)
			}
			for i := range y {
				y[i] *= t.tau[j]
			}
			k.axpy(-t.tau[j]/2*k.inner(y, v), v, y)
		}
		at := from + w
		if at >= n {
			break
		}
		t.update(at, w, vs, ws)
	}
	return t
}

// update subtracts V·Wᵀ + W·Vᵀ from the upper triangle of the rows and columns from at on, in strips of rows.
func (t *tridiagonal) update(at, w int, vs, ws []float64) {
	n := t.n
	v, y := Of64(vs, w, n), Of64(ws, w, n)
	const strip = 4 * reflectors
	strips := (n - at + strip - 1) / strip
	each(strips, t.threads, func(s int) {
		r0 := at + s*strip
		r1 := min(n, r0+strip)
		part := Of64(t.a, n, n).Cut(r0, r1, r0, n)
		Product64(part, -1, v.Cut(0, w, r0, r1).T(), y.Cut(0, w, r0, n), true, 1)
		Product64(part, -1, y.Cut(0, w, r0, r1).T(), v.Cut(0, w, r0, n), true, 1)
	})
}

// each calls do for all i below n on several goroutines, the next free one taking the next i.
func each(n, threads int, do func(i int)) {
	threads = min(threads, n)
	if threads <= 1 {
		for i := range n {
			do(i)
		}
		return
	}
	var wait sync.WaitGroup
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	for range threads {
		wait.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	wait.Wait()
}

// reflector replaces x by v, v[0] = 1, such that (I - τ·v·vᵀ)x = beta·e₀.
func reflector(k *level1, x []float64) (tau, beta float64) {
	rest := math.Sqrt(k.inner(x[1:], x[1:]))
	if rest == 0 {
		beta = x[0]
		x[0] = 1
		return 0, beta
	}
	beta = -math.Copysign(math.Hypot(x[0], rest), x[0])
	tau = (beta - x[0]) / beta
	f := 1 / (x[0] - beta)
	for i := range x[1:] {
		x[1+i] *= f
	}
	x[0] = 1
	return tau, beta
}

// symmetricParts is how many parts the rows of a product are shared out in. The parts' sums meet in their order, so the number must not
// depend on the threads.
const symmetricParts = 4

// symmetricProduct computes A·v from the upper triangle of A.
type symmetricProduct struct {
	k       *level1
	n       int
	threads int
	sums    [symmetricParts][]float64
}

func newSymmetricProduct(k *level1, n, threads int) *symmetricProduct {
	s := &symmetricProduct{k: k, n: n, threads: threads}
	for i := range s.sums {
		s.sums[i] = make([]float64, n)
	}
	return s
}

// times sets y to A·v, of the rows and columns from at on.
func (s *symmetricProduct) times(a []float64, at int, v, y []float64) {
	m := len(v)
	parts, threads := 1, 1
	if m >= 256 {
		parts, threads = symmetricParts, s.threads
	}
	// Rows of equal area: of the triangle left from row r on, (1-r/m)² is the share.
	bound := func(p int) int {
		r := int(float64(m) * (1 - math.Sqrt(1-float64(p)/float64(parts))))
		return min(m, r/4*4)
	}
	each(parts, threads, func(p int) {
		r0, r1 := bound(p), bound(p+1)
		if p == parts-1 {
			r1 = m
		}
		s.part(a, at, r0, r1, v, s.sums[p][:m])
	})
	copy(y, s.sums[0][:m])
	for p := 1; p < parts; p++ {
		// Parts begin below the rows before them.
		from := bound(p)
		to, x := y[from:], s.sums[p][from:m]
		for i, u := range x {
			to[i] += u
		}
	}
}

// part sets sum to what rows [r0, r1) of the upper triangle contribute.
func (s *symmetricProduct) part(a []float64, at, r0, r1 int, v, sum []float64) {
	n, m := s.n, len(v)
	clear(sum)
	row := func(r int) []float64 { return a[(at+r)*n+at:][:m] }
	r := r0
	for ; r+4 <= r1; r += 4 {
		x := [4][]float64{row(r), row(r + 1), row(r + 2), row(r + 3)}
		// The corner on the diagonal, then the columns that the four rows have in common.
		for i := range 4 {
			sum[r+i] = math.FMA(x[i][r+i], v[r+i], sum[r+i])
			for j := i + 1; j < 4; j++ {
				c := x[i][r+j]
				sum[r+i] = math.FMA(c, v[r+j], sum[r+i])
				sum[r+j] = math.FMA(c, v[r+i], sum[r+j])
			}
		}
		if f := r + 4; f < m {
			dots := s.k.symmetric4((*[4]float64)(v[r:]), x[0][f:], x[1][f:], x[2][f:], x[3][f:], v[f:], sum[f:])
			for i, d := range dots {
				sum[r+i] += d
			}
		}
	}
	for ; r < r1; r++ {
		x := row(r)
		sum[r] = math.FMA(x[r], v[r], sum[r])
		if f := r + 1; f < m {
			s.k.axpy(v[r], x[f:], sum[f:])
			sum[r] += s.k.inner(x[f:], v[f:])
		}
	}
}

// back turns rows of eigenvectors of T, [k, n], into those of A: x ← x·Qᵀ, by panels of reflectors I - V·S·Vᵀ. Schreiber and Van Loan,
// 1989, "A storage-efficient WY representation for products of Householder transformations".
func (t *tridiagonal) back(x []float64, k int) {
	n := t.n
	if n < 3 || k == 0 {
		return
	}
	for from := (n - 2) / reflectors * reflectors; from >= 0; from -= reflectors {
		w := min(reflectors, n-1-from)
		at := from + 1 // the first column that the panel touches
		m := n - at
		v := make([]float64, w*m)
		for p := range w {
			copy(v[p*m+p:], t.a[(from+p)*n+at+p:][:m-p])
		}
		vm := Of64(v, w, m)
		// S is upper triangular: S[p,p] = τ, S[:p,p] = -τ·S·(Vᵀv).
		gram, s := make([]float64, w*w), make([]float64, w*w)
		Product64(Of64(gram, w, w), 1, vm, vm.T(), false, t.threads)
		for p := range w {
			tau := t.tau[from+p]
			s[p*w+p] = tau
			for i := range p {
				sum := 0.0
				for q := i; q < p; q++ {
					sum += s[i*w+q] * gram[q*w+p]
				}
				s[i*w+p] = -tau * sum
			}
		}
		part := Of64(x, k, n).Cut(0, k, at, n)
		xv, xvs := make([]float64, k*w), make([]float64, k*w)
		Product64(Of64(xv, k, w), 1, part, vm.T(), false, t.threads)
		Product64(Of64(xvs, k, w), 1, Of64(xv, k, w), Of64(s, w, w).T(), false, t.threads)
		Product64(part, -1, Of64(xvs, k, w), vm, true, t.threads)
	}
}
