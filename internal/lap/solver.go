package lap

import "math"

// listLength is how many of a row's smallest entries are kept; see rows.go.
const listLength = 64

// solver holds one problem: minimise the sum of sign * entries over assignments.
type solver struct {
	n       int
	entries []float32 // [n, n], the caller's
	sign    float64   // 1 to minimise, -1 to maximise
	kernel  kernels

	u, v  []float64
	colOf []int32 // row -> column, -1 is free
	rowOf []int32 // column -> row, -1 is free

	rows  lists
	paths paths
}

// newSolver prepares a problem; initial (row -> column, or nil) decides ties of the column reduction.
func newSolver(n int, entries []float32, sign float64, initial []int32) *solver {
	s := &solver{n: n, entries: entries, sign: sign, kernel: bestKernels(),
		u: make([]float64, n), v: make([]float64, n), colOf: make([]int32, n), rowOf: make([]int32, n)}
	for i := range n {
		s.colOf[i], s.rowOf[i] = -1, -1
	}
	for i, j := range initial {
		s.rowOf[j] = int32(i)
	}
	return s
}

// at is the cost of an entry.
func (s *solver) at(i, j int32) float64 { return s.sign * float64(s.entries[int(i)*s.n+int(j)]) }

func (s *solver) row(i int32) []float32 { return s.entries[int(i)*s.n : (int(i)+1)*s.n] }

// solve finds the assignment and its duals.
func (s *solver) solve() error {
	free, err := s.reduceColumns()
	if err != nil {
		return err
	}
	if len(free) > 0 {
		s.rows = newLists(s.n)
		s.transferReduction()
		for range 2 {
			free = s.reduceRows(free)
		}
		s.paths = newPaths(s.n)
		for _, f := range free {
			s.augment(f)
		}
	}
	for i, j := range s.colOf {
		s.u[i] = s.at(int32(i), j) - s.v[j]
	}
	return nil
}

// reduceColumns sets v[j] to the smallest cost of column j and assigns the row that has it, once a row: to its initial column when
// that is among those it is best for, else to the first of them. Rows that are best nowhere are returned, in order.
//
// The search starts from the initial assignment's own entries, which only a strictly smaller one displaces: dead units, whose
// entries are all the same, begin where they were.
func (s *solver) reduceColumns() ([]int32, error) {
	n := s.n
	least := make([]float32, n)
	best := make([]int32, n)
	initialRow := make([]int32, n)
	copy(initialRow, s.rowOf)
	sign := float32(s.sign)
	for j, i := range initialRow {
		if i >= 0 {
			least[j], best[j] = sign*s.entries[int(i)*n+j], i
		} else {
			least[j] = float32(math.Inf(1))
		}
		s.rowOf[j] = -1
	}
	for i := range int32(n) {
		if !s.kernel.columnMinima(s.row(i), sign, i, least, best) {
			for j, x := range s.row(i) {
				if x-x != 0 {
					return nil, &NotFiniteError{int(i), j, x}
				}
			}
		}
	}
	for j := range int32(n) {
		s.v[j] = float64(least[j])
		if i := best[j]; i == initialRow[j] {
			s.assign(i, j)
		}
	}
	for j := range int32(n) {
		if i := best[j]; s.rowOf[j] < 0 && s.colOf[i] < 0 {
			s.assign(i, j)
		}
	}
	var free []int32
	for i, j := range s.colOf {
		if j < 0 {
			free = append(free, int32(i))
		}
	}
	return free, nil
}

func (s *solver) assign(i, j int32) { s.colOf[i], s.rowOf[j] = j, i }

// transferReduction lowers the price of each assigned column as far as its row allows: to where the row's second-best column is
// as good. The row's own reduced costs pay for it, so other rows see larger ones.
func (s *solver) transferReduction() {
	// Rows that are best for two columns have no slack to give: their second-best is as good already.
	for i, j := range s.colOf {
		if j >= 0 {
			first, _, second, _ := s.twoSmallest(int32(i))
			// The assigned column has the smallest reduced cost, or shares it.
			if lower := s.v[j] - (second - first); lower < s.v[j] {
				s.v[j] = lower
			}
		}
	}
}

// reduceRows is augmenting row reduction: a free row takes its best column and lowers the price to where the second-best is as good,
// so that the displaced row has the least reason to come back. Rows still free are returned.
func (s *solver) reduceRows(free []int32) []int32 {
	var left []int32
	// A displaced row is tried again at once. Chains can be long where many rows compete by tiny steps; augmentation is the faster way
	// then, so a pass retries n times at most.
	retries := s.n
	for _, i := range free {
		for {
			first, j, second, other := s.twoSmallest(i)
			// Whether the price really falls is decided by the new price: a difference that rounding swallows would repeat for ever.
			lower := s.v[j] - (second - first)
			falls := lower < s.v[j]
			if falls {
				s.v[j] = lower
			} else if s.rowOf[j] >= 0 {
				j = other // as good
			}
			displaced := s.rowOf[j]
			s.assign(i, j)
			if displaced < 0 {
				break
			}
			s.colOf[displaced] = -1
			if !falls || retries == 0 {
				// Out of retries it stays free: its second-best column would break the certificate.
				left = append(left, displaced)
				break
			}
			retries--
			i = displaced
		}
	}
	return left
}
