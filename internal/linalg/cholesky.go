package linalg

import "math"

// SolveRight replaces b, [m, n], by b·G⁻¹ for a symmetric positive definite row-major G, [n, n], of which it reads the lower triangle and
// uses all as its memory: G = L·Lᵀ in panels, then two triangular solutions in blocks. It returns ErrSingular where G is not positive
// definite in float64. Golub and Van Loan, "Matrix Computations", 4.2.
func SolveRight(b Matrix64, g []float64, threads int) error {
	threads = processors(threads)
	n := b.Cols
	l := Of64(g, n, n)
	inverses := make([]float64, 0, n*panelWidth) // of the blocks on L's diagonal
	for k := 0; k < n; k += panelWidth {
		w := min(panelWidth, n-k)
		block := l.Cut(k, k+w, k, k+w)
		if !factor(block) {
			return ErrSingular
		}
		inverses = append(inverses, invertLower(block)...)
		if k+w == n {
			break
		}
		// L₂₁ = A₂₁·L₁₁⁻ᵀ, A₂₂ ← A₂₂ - L₂₁·L₂₁ᵀ below the diagonal, in strips.
		below := l.Cut(k+w, n, k, k+w)
		solveBlock(below, Of64(inverses[len(inverses)-w*w:], w, w).T(), threads)
		const strip = 4 * panelWidth
		rest := n - k - w
		each((rest+strip-1)/strip, threads, func(s int) {
			r0, r1 := s*strip, min(rest, (s+1)*strip)
			Product64(l.Cut(k+w+r0, k+w+r1, k+w, k+w+r1), -1, below.Cut(r0, r1, 0, w), below.Cut(0, r1, 0, w).T(), true, 1)
		})
	}
	inverse := func(k int) Matrix64 {
		w := min(panelWidth, n-k)
		return Of64(inverses[k/panelWidth*panelWidth*panelWidth:][:w*w], w, w)
	}
	// Rows are independent: Y·Lᵀ = B from the first columns on, X·L = Y from the last.
	for k := 0; k < n; k += panelWidth {
		to := min(n, k+panelWidth)
		part := b.Cut(0, b.Rows, k, to)
		if k > 0 {
			Product64(part, -1, b.Cut(0, b.Rows, 0, k), l.Cut(k, to, 0, k).T(), true, threads)
		}
		solveBlock(part, inverse(k).T(), threads)
	}
	for k := (n - 1) / panelWidth * panelWidth; k >= 0; k -= panelWidth {
		to := min(n, k+panelWidth)
		part := b.Cut(0, b.Rows, k, to)
		if to < n {
			Product64(part, -1, b.Cut(0, b.Rows, to, n), l.Cut(to, n, k, to), true, threads)
		}
		solveBlock(part, inverse(k), threads)
	}
	return nil
}

// solveBlock replaces x by x·m for a small square m.
func solveBlock(x, m Matrix64, threads int) {
	w := m.Rows
	copied := make([]float64, x.Rows*w)
	for i := range x.Rows {
		copy(copied[i*w:][:w], x.Data[i*x.Stride:])
	}
	Product64(x, 1, Of64(copied, x.Rows, w), m, false, threads)
}

// factor makes a small matrix its lower Cholesky factor; what is above the diagonal stays.
func factor(a Matrix64) bool {
	for j := range a.Rows {
		rj := a.Data[j*a.Stride:][:j+1]
		d := rj[j]
		for _, v := range rj[:j] {
			d -= v * v
		}
		if !(d > 0) || math.IsInf(d, 0) {
			return false
		}
		rj[j] = math.Sqrt(d)
		for i := j + 1; i < a.Rows; i++ {
			ri := a.Data[i*a.Stride:][:j+1]
			sum := ri[j]
			for k, v := range rj[:j] {
				sum -= ri[k] * v
			}
			ri[j] = sum / rj[j]
		}
	}
	return true
}

// invertLower returns the inverse of a small lower triangle, [w, w].
func invertLower(l Matrix64) []float64 {
	w := l.Rows
	x := make([]float64, w*w)
	for c := range w {
		for i := c; i < w; i++ {
			sum := 0.0
			if i == c {
				sum = 1
			}
			for k := c; k < i; k++ {
				sum -= l.Data[i*l.Stride+k] * x[k*w+c]
			}
			x[i*w+c] = sum / l.Data[i*l.Stride+i]
		}
	}
	return x
}
