package lap

import "math"

// solver holds one problem: minimise the sum of sign * entries over assignments.
type solver struct {
	n       int
	entries []float32 // [n, n], the caller's
	sign    float64   // 1 to minimise, -1 to maximise
	kernel  kernels

	u, v  []float64
	colOf []int32 // row -> column, -1 is free
	rowOf []int32 // column -> row, -1 is free
}

// newSolver prepares a problem; initial (row -> column, or nil) decides ties of the column reduction.
func newSolver(n int, entries []float32, sign float64, initial []int32) *solver {
	s := &solver{n: n, entries: entries, sign: sign, kernel: bestKernels(),
		u: make([]float64, n), v: make([]float64, n), colOf: make([]int32, n), rowOf: make([]int32, n)}
	s.free()
	for i, j := range initial {
		s.rowOf[j] = int32(i)
	}
	return s
}

// at is the cost of an entry.
func (s *solver) at(i, j int32) float64 { return s.sign * float64(s.entries[int(i)*s.n+int(j)]) }

func (s *solver) row(i int32) []float32 { return s.entries[int(i)*s.n : (int(i)+1)*s.n] }

func (s *solver) assign(i, j int32) { s.colOf[i], s.rowOf[j] = j, i }

// free undoes the whole assignment and returns all rows.
func (s *solver) free() []int32 {
	rows := make([]int32, s.n)
	for i := range s.n {
		s.colOf[i], s.rowOf[i], rows[i] = -1, -1, int32(i)
	}
	return rows
}

// twoSmallest returns the smallest and the second-smallest c[i,j] - v[j] of a row, and their columns.
func (s *solver) twoSmallest(i int32) (first float64, j int32, second float64, other int32) {
	return s.kernel.twoSmallest(s.row(i), s.v, s.sign)
}

// solve finds the assignment and its duals.
func (s *solver) solve() error {
	free, err := s.reduceColumns()
	if err != nil {
		return err
	}
	if len(free) > 0 {
		// The prices start again from zero. Columns keep their rows once they have one, so all free columns share the price zero
		// (until bidding), and a row that does not care which it takes (a dead unit) finds a free one at once. From the reduced prices, which
		// differ, hundreds of dead rows search paths through each other's columns: fifty times slower with half of 2,048 units dead.
		clear(s.v)
		free = s.reduceRows(s.reduceRows(s.free()))
		// Where many rows are left they all want the same columns (rows of networks share a common direction, and some columns are long).
		// Tiny steps settle such prices slowly and augmenting paths one row at a time; bidding does it at once. At less than a sixth
		// (noise leaves a tenth) the paths are as fast.
		if len(free) > s.n/6 {
			s.bid()
			free = s.reduceRows(s.reduceRows(s.free()))
		}
		if len(free) > 0 {
			p := newPaths(s)
			for _, f := range free {
				p.augment(f)
			}
		}
	}
	for i, j := range s.colOf {
		s.u[i] = s.at(int32(i), j) - s.v[j]
	}
	return nil
}

// reduceColumns sets v[j] to the smallest cost of column j and assigns the row that has it, once a row: to its initial column when
// that is among those it is best for, else to the first of them. Rows that are best nowhere are returned, in order. A permuted copy
// and a model aligned already are solved by this pass, which also sees every entry once and refuses what is not finite.
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
				j = s.freeTie(i, first, other)
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

// freeTie returns a free column of row i with c[i,j] - v[j] not above value, or other when there is none: rows that do not care
// (dead units) take what nobody has.
func (s *solver) freeTie(i int32, value float64, other int32) int32 {
	if s.rowOf[other] < 0 {
		return other
	}
	var found [16 * blockColumns]int32
	limit := math.Nextafter(value, math.Inf(1))
	for at := 0; at < s.n; {
		var count int
		count, at = s.kernel.below(s.row(i), s.v, s.sign, limit, at, found[:])
		for _, j := range found[:count] {
			if s.rowOf[j] < 0 {
				return j
			}
		}
	}
	return other
}

// The scales of bidding: from steps of five standard deviations of a row down to 0.005 of one. Of the values tried on Gram matrices
// of embeddings, gates and noise (steps 0.3 to 5, factors 0.05 to 0.3), these left the least work; they are no matter of exactness.
const (
	firstBid  = 5.0
	bidFactor = 0.1
	bidPhases = 4
	bidBudget = 32 // bids a row in one phase, at most
)

// bid finds prices near the optimum by the auction algorithm with scaling (Bertsekas, 1988, "The auction algorithm"): a free row takes
// its best column and lowers the price to where the second-best is better by epsilon. It displaces the row that was there, and
// epsilon ends price wars. Then again with a smaller epsilon, from the prices found. The assignments are good to n epsilon only and
// are thrown away: the prices are feasible duals as any are, which the exact steps start from.
func (s *solver) bid() {
	epsilon := firstBid * s.spread()
	if epsilon == 0 {
		return
	}
	for range bidPhases {
		waiting := s.free()
		for budget := bidBudget * s.n; len(waiting) > 0 && budget > 0; budget-- {
			i := waiting[len(waiting)-1]
			waiting = waiting[:len(waiting)-1]
			first, j, second, _ := s.twoSmallest(i)
			s.v[j] -= second - first + epsilon
			displaced := s.rowOf[j]
			s.assign(i, j)
			if displaced >= 0 {
				s.colOf[displaced] = -1
				waiting = append(waiting, displaced)
			}
		}
		epsilon *= bidFactor
	}
}

// spread is the standard deviation of c[i,j] - v[j] within a row, the mean of up to 64 rows.
func (s *solver) spread() float64 {
	sampled := min(s.n, 64)
	total := 0.0
	for k := range sampled {
		i := int32(k * s.n / sampled)
		sum, squares := 0.0, 0.0
		shift := s.at(i, 0) - s.v[0] // near enough to the mean for the squares not to cancel
		for j, c := range s.row(i) {
			x := s.sign*float64(c) - s.v[j] - shift
			sum += x
			squares += x * x
		}
		mean := sum / float64(s.n)
		total += math.Sqrt(max(0, squares/float64(s.n)-mean*mean))
	}
	return total / float64(sampled)
}
