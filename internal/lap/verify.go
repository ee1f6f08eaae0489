package lap

import (
	"fmt"
	"math"
)

// CertificateError says where the duals do not prove the assignment optimal.
type CertificateError struct {
	Row, Col int
	// Reduced is the reduced cost of the entry; Tolerance is what rounding may explain.
	Reduced, Tolerance float64
	// Assigned is true when the entry is one of the assignment.
	Assigned bool
}

func (e *CertificateError) Error() string {
	what := "is below zero, a better assignment may exist"
	if e.Assigned {
		what = "should be zero, the entry is assigned"
	}
	return fmt.Sprintf("assignment: the certificate fails at row %d, column %d: its reduced cost %g %s (tolerance %g)",
		e.Row, e.Col, e.Reduced, what, e.Tolerance)
}

// Verify proves that the solution is optimal for the matrix that it was solved for: cols is a permutation, u[i]+v[j] <= c[i,j] for
// all entries and equal to it on the assignment, both within 1e-5 of the largest |c|. The error is a *CertificateError that names
// the worst entry. score: [n, n] row-major, the costs after Minimize.
func (s Solution) Verify(n int, score []float32) error {
	if n < 0 || n > math.MaxInt32 || len(score) != n*n || len(s.U) != n || len(s.V) != n {
		return &ShapeError{fmt.Sprintf("%d entries and %d, %d duals are not those of %d rows", len(score), len(s.U), len(s.V), n)}
	}
	if err := permutation(n, s.Cols); err != nil {
		return err
	}
	sign := -1.0
	if s.minimized {
		sign = 1
	}
	largest := 0.0
	worst := CertificateError{Row: -1}
	excess := 0.0 // how far the worst entry is from what it should be
	for i := range n {
		row := score[i*n : (i+1)*n]
		for j, c := range row {
			if c-c != 0 {
				return &NotFiniteError{i, j, c}
			}
			largest = max(largest, math.Abs(float64(c)))
			reduced := sign*float64(c) - s.U[i] - s.V[j]
			off := -reduced
			if j == s.Cols[i] {
				off = math.Abs(reduced)
			}
			if math.IsNaN(off) {
				off = math.Inf(1) // a dual that is not a number proves nothing
			}
			if off > excess {
				excess = off
				worst = CertificateError{Row: i, Col: j, Reduced: reduced, Assigned: j == s.Cols[i]}
			}
		}
	}
	worst.Tolerance = 1e-5 * largest
	if excess <= worst.Tolerance {
		return nil
	}
	return &worst
}
