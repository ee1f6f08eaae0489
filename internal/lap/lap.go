package lap

import (
	"fmt"
	"math"
)

// Solution is an assignment and the duals that prove it optimal.
type Solution struct {
	// Cols[i] is the column assigned to row i: the gather array new[i] = old[Cols[i]].
	Cols []int
	// U and V are the duals of the minimised cost, which is minus the score after Maximize and after Minimize the cost itself.
	U, V []float64
	// Value is the sum of the caller's entries over the assignment.
	Value float64
	// FromInitial is true when the assignment is Options.Initial (or the identity in its place) as it was.
	FromInitial bool

	minimized bool
}

// Options says which of several optimal assignments to take.
type Options struct {
	// Initial is the assignment to keep where nothing is strictly better; nil is the identity. Rows move back to their initial columns
	// along ties, so dead units (rows of equal scores) do not shuffle. A tie is a difference within 1e-6 of the entries that it
	// concerns: weak units that another column suits better by more than rounding do move, however little they weigh in the sum.
	Initial []int
	// NoInitial takes any optimal assignment.
	NoInitial bool
}

// NotFiniteError says that an entry is NaN or infinite.
type NotFiniteError struct {
	Row, Col int
	Value    float32
}

func (e *NotFiniteError) Error() string {
	return fmt.Sprintf("assignment: the entry in row %d, column %d is %v; every entry must be finite", e.Row, e.Col, e.Value)
}

// ShapeError says that the matrix or the initial assignment does not fit the size.
type ShapeError struct{ Reason string }

func (e *ShapeError) Error() string { return "assignment: " + e.Reason }

// Maximize returns the assignment with the largest sum of scores. score: [n, n] row-major, not modified.
func Maximize(n int, score []float32, options Options) (Solution, error) {
	return run(n, score, -1, options)
}

// Minimize returns the assignment with the smallest sum of costs. cost: [n, n] row-major, not modified.
func Minimize(n int, cost []float32, options Options) (Solution, error) {
	return run(n, cost, 1, options)
}

// Value is the sum of score[i, cols[i]] in float64. score: [n, n] row-major.
func Value(n int, score []float32, cols []int) float64 {
	sum := 0.0
	for i, j := range cols {
		sum += float64(score[i*n+j])
	}
	return sum
}

func run(n int, entries []float32, sign float64, options Options) (Solution, error) {
	initial, err := checked(n, entries, options)
	if err != nil {
		return Solution{}, err
	}
	s := newSolver(n, entries, sign, initial)
	if err := s.solve(); err != nil {
		return Solution{}, err
	}
	same := false
	if initial != nil {
		same = s.returnToInitial(initial)
	}
	cols := make([]int, n)
	for i, j := range s.colOf {
		cols[i] = int(j)
	}
	return Solution{Cols: cols, U: s.u, V: s.v, Value: Value(n, entries, cols), FromInitial: same, minimized: sign > 0}, nil
}

// checked returns the initial assignment as indices, nil when there is none.
func checked(n int, entries []float32, options Options) ([]int32, error) {
	if n < 0 || n > math.MaxInt32 || len(entries) != n*n {
		return nil, &ShapeError{fmt.Sprintf("%d entries are not a square matrix of %d rows", len(entries), n)}
	}
	if options.NoInitial {
		return nil, nil
	}
	initial := make([]int32, n)
	if options.Initial == nil {
		for i := range initial {
			initial[i] = int32(i)
		}
		return initial, nil
	}
	if err := permutation(n, options.Initial); err != nil {
		return nil, fmt.Errorf("initial assignment: %w", err)
	}
	for i, j := range options.Initial {
		initial[i] = int32(j)
	}
	return initial, nil
}

// permutation says why cols is no permutation of 0..n-1.
func permutation(n int, cols []int) error {
	if len(cols) != n {
		return &ShapeError{fmt.Sprintf("%d columns for %d rows", len(cols), n)}
	}
	taken := make([]bool, n)
	for i, j := range cols {
		if j < 0 || j >= n {
			return &ShapeError{fmt.Sprintf("row %d has column %d of %d", i, j, n)}
		}
		if taken[j] {
			return &ShapeError{fmt.Sprintf("column %d is assigned twice, the second time to row %d", j, i)}
		}
		taken[j] = true
	}
	return nil
}
