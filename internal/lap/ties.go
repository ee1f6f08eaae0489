package lap

import "math"

// returnToInitial moves rows back to their initial columns along tight entries, where that leaves the sum as it is, and says
// whether the result is the initial assignment as a whole. Rows that have their initial column never leave it for another's sake.
func (s *solver) returnToInitial(initial []int32) bool {
	n := s.n
	largest := 0.0
	for i := range initial {
		largest = max(largest, math.Abs(s.at(int32(i), s.colOf[i])), math.Abs(s.at(int32(i), initial[i])))
	}
	// A tie is a reduced cost within float32's rounding of the entries themselves, not of the largest entry: weak units count. The floor
	// is what rounding of the float64 duals may leave.
	floor := 1e-13 * largest * math.Sqrt(float64(n))
	slack := func(i, j int32) float64 { return s.at(i, j) - s.v[j] - s.u[i] }
	tight := func(i, j int32) bool {
		return slack(i, j) <= 1e-6*max(math.Abs(s.at(i, j)), math.Abs(s.at(i, s.colOf[i])))+floor
	}
	away := 0
	all := true
	for i, j := range initial {
		if s.colOf[i] != j {
			away++
			all = all && tight(int32(i), j)
		}
	}
	if all {
		for i, j := range initial {
			s.assign(int32(i), j)
		}
		return true
	}

	// A row i takes its initial column j; the row that had j needs a way, over tight entries and rows that are not at home, to the column
	// that i left. The searches are breadth first; together they read 8 n rows at most.
	budget := 8 * n
	from := make([]int32, n) // the row that reached a row; -1 unreached
	for i := range from {
		from[i] = -1
	}
	var order []int32
	found := make([]int32, 256)
	for i := range int32(n) {
		j := initial[i]
		left := s.colOf[i]
		if left == j || !tight(i, j) {
			continue
		}
		displaced := s.rowOf[j]
		if initial[displaced] == j {
			continue
		}
		order = append(order[:0], displaced)
		from[displaced] = displaced
		end := int32(-1)
		for at := 0; at < len(order) && end < 0 && budget > 0; at++ {
			r := order[at]
			if tight(r, left) {
				end = r
				break
			}
			budget--
			row := s.row(r)
			// Wide enough for every entry that tight accepts; tight decides.
			reach := s.u[r] + 1e-6*largest + floor
			for col := 0; col < n; {
				var count int
				count, col = s.kernel.below(row, s.v, s.sign, math.Nextafter(reach, math.Inf(1)), col, found)
				for _, c := range found[:count] {
					next := s.rowOf[c]
					if from[next] < 0 && next != i && initial[next] != c && tight(r, c) {
						from[next] = r
						order = append(order, next)
					}
				}
			}
		}
		if end >= 0 {
			// Along the way back each row takes the column of the row that it reached.
			c := left
			for r := end; ; r = from[r] {
				c, s.colOf[r] = s.colOf[r], c
				s.rowOf[s.colOf[r]] = r
				if r == displaced {
					break
				}
			}
			s.assign(i, j)
			away--
		}
		for _, r := range order {
			from[r] = -1
		}
	}
	for i, j := range initial {
		if s.colOf[i] != j {
			return false
		}
	}
	return true
}
