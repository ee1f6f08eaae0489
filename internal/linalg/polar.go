package linalg

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// ErrSingular says that a matrix has no inverse in float64.
var ErrSingular = errors.New("the matrix is singular")

// panelWidth is how many columns the factorisation works on before the rest of the matrix is updated by one product.
const panelWidth = 64

// Inverse returns the inverse of a row-major [n, n] matrix: an LU factorisation with partial pivoting in panels, then two
// triangular solutions in blocks, so that nearly all work is products. Golub and Van Loan, "Matrix Computations", 3.2 and 3.4.
func Inverse(a []float64, n, threads int) ([]float64, error) {
	lu := Of64(append([]float64(nil), a[:n*n]...), n, n)
	rows := make([]int, n) // rows[i] is the row of a that lies in row i
	for i := range rows {
		rows[i] = i
	}
	for k := 0; k < n; k += panelWidth {
		w := min(panelWidth, n-k)
		if err := panel(lu, k, w, rows); err != nil {
			return nil, err
		}
		if k+w == n {
			break
		}
		top := lu.Cut(k, k+w, k+w, n)
		lower(lu.Cut(k, k+w, k, k+w), top)
		Product64(lu.Cut(k+w, n, k+w, n), -1, lu.Cut(k+w, n, k, k+w), top, true, threads)
	}
	x := make([]float64, n*n)
	for i, r := range rows {
		x[i*n+r] = 1
	}
	inv := Of64(x, n, n)
	for k := 0; k < n; k += panelWidth {
		w := min(panelWidth, n-k)
		part := inv.Cut(k, k+w, 0, n)
		Product64(part, -1, lu.Cut(k, k+w, 0, k), inv.Cut(0, k, 0, n), true, threads)
		lower(lu.Cut(k, k+w, k, k+w), part)
	}
	for k := (n - 1) / panelWidth * panelWidth; k >= 0; k -= panelWidth {
		w := min(panelWidth, n-k)
		part := inv.Cut(k, k+w, 0, n)
		Product64(part, -1, lu.Cut(k, k+w, k+w, n), inv.Cut(k+w, n, 0, n), true, threads)
		upper(lu.Cut(k, k+w, k, k+w), part)
	}
	return x, nil
}

// panel factorises columns [k, k+w) of rows k and below, and exchanges whole rows.
func panel(lu Matrix64, k, w int, rows []int) error {
	n, d := lu.Rows, lu.Data
	for c := k; c < k+w; c++ {
		p, best := c, 0.0
		for i := c; i < n; i++ {
			if x := math.Abs(d[i*n+c]); x > best {
				p, best = i, x
			}
		}
		if best == 0 || math.IsNaN(best) || math.IsInf(best, 0) {
			return ErrSingular
		}
		if p != c {
			rows[p], rows[c] = rows[c], rows[p]
			x, y := d[p*n:][:n], d[c*n:][:n]
			for j := range x {
				x[j], y[j] = y[j], x[j]
			}
		}
		pivot, row := d[c*n+c], d[c*n+c+1:c*n+k+w]
		for i := c + 1; i < n; i++ {
			f := d[i*n+c] / pivot
			d[i*n+c] = f
			if f == 0 {
				continue
			}
			to := d[i*n+c+1:][:len(row)]
			for j, x := range row {
				to[j] -= f * x
			}
		}
	}
	return nil
}

// lower solves L·X = B in place, L the unit lower triangle of a small square matrix.
func lower(l, b Matrix64) {
	for i := range l.Rows {
		row := b.Data[i*b.Stride:][:b.Cols]
		for j := range i {
			subtract(row, l.Data[i*l.Stride+j], b.Data[j*b.Stride:][:b.Cols])
		}
	}
}

// upper solves U·X = B in place.
func upper(u, b Matrix64) {
	for i := u.Rows - 1; i >= 0; i-- {
		row := b.Data[i*b.Stride:][:b.Cols]
		for j := i + 1; j < u.Rows; j++ {
			subtract(row, u.Data[i*u.Stride+j], b.Data[j*b.Stride:][:b.Cols])
		}
		f := 1 / u.Data[i*u.Stride+i]
		for j := range row {
			row[j] *= f
		}
	}
}

func subtract(to []float64, f float64, from []float64) {
	if f == 0 {
		return
	}
	for i, x := range from {
		to[i] -= f * x
	}
}

// polarSmall is the order up to which the decomposition by singular values is the faster way to the polar factor.
const polarSmall = 96

// Polar returns the orthogonal polar factor of a row-major [n, n] matrix, U·Vᵀ of its singular value decomposition: the
// orthogonal matrix Q with the largest trace of Qᵀ·M. First prior times the root mean square of the singular values is added to
// the diagonal, so that directions about which a matrix says less than that stay as they are.
//
// Large matrices take Newton's iteration with the scaling of Higham, "Functions of Matrices", 2008, 8.6:
// X ← (ζX + (ζX)⁻ᵀ)/2, ζ² = ‖X⁻¹‖/‖X‖. It is as accurate as the decomposition by singular values, and all products.
func Polar(m []float64, n int, prior float64, threads int) ([]float64, error) {
	x := append([]float64(nil), m[:n*n]...)
	norm := norm64(x)
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		return nil, ErrNotFinite
	}
	if norm == 0 {
		return identity64(n), nil
	}
	// The singular values' root mean square becomes one.
	for i := range x {
		x[i] *= math.Sqrt(float64(n)) / norm
	}
	for i := range n {
		x[i*n+i] += prior
	}
	if n <= polarSmall {
		return polarSVD(x, n)
	}
	for range 60 {
		inv, err := Inverse(x, n, threads)
		if errors.Is(err, ErrSingular) {
			// Exactly singular, by a prior that hits a value or by having none: another prior cannot be hit as well.
			for i := range n {
				x[i*n+i] += 3.7*prior + 1e-14
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		zeta := math.Sqrt(norm64(inv) / norm64(x))
		if math.Abs(zeta-1) < 1e-2 {
			zeta = 1 // near the end the scaling only disturbs the quadratic convergence
		}
		change, size := 0.0, 0.0
		for i := range n {
			for j := range n {
				old := x[i*n+j]
				now := (zeta*old + inv[j*n+i]/zeta) / 2
				change += (now - old) * (now - old)
				size += now * now
				x[i*n+j] = now
			}
		}
		if change < 1e-14*size {
			return x, nil // the next change would be of the order of this one's square
		}
	}
	return nil, fmt.Errorf("the polar factor of a matrix of %d by %d did not converge", n, n)
}

func polarSVD(x []float64, n int) ([]float64, error) {
	var d mat.SVD
	if !d.Factorize(mat.NewDense(n, n, x), mat.SVDFull) {
		return nil, fmt.Errorf("the singular value decomposition of a matrix of %d by %d did not converge", n, n)
	}
	var u, v mat.Dense
	d.UTo(&u)
	d.VTo(&v)
	out := make([]float64, n*n)
	mat.NewDense(n, n, out).Mul(&u, v.T())
	return out, nil
}

func identity64(n int) []float64 {
	x := make([]float64, n*n)
	for i := range n {
		x[i*n+i] = 1
	}
	return x
}

func norm64(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum)
}
