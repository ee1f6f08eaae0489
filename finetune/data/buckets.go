package data

import "slices"

// maxCandidates bounds the lengths among which buckets are chosen, since choosing takes the square of their number.
const maxCandidates = 256

// buckets chooses at most count lengths, multiples of step, to which sequences of the given ascending lengths are padded, such
// that padding is least; the last one holds longest. Fewer are taken where more would save less than a fiftieth.
//
// Dynamic programming over the sums of what was taken: cost[k][j] is the padded total of all lengths up to candidate j with k
// buckets, the last one at j.
func buckets(lengths []int, longest, step, count int) []int {
	for roundUp(longest, step)/step > maxCandidates {
		step *= 2
	}
	n := roundUp(longest, step) / step
	below := make([]int, n+1) // sequences of at most j steps
	for _, l := range lengths {
		below[roundUp(l, step)/step]++
	}
	for j := 1; j <= n; j++ {
		below[j] += below[j-1]
	}
	cost := make([][]int64, count+1)
	from := make([][]int, count+1)
	for k := 1; k <= count; k++ {
		cost[k], from[k] = make([]int64, n+1), make([]int, n+1)
		for j := 1; j <= n; j++ {
			cost[k][j] = int64(below[j]) * int64(j)
			if k == 1 {
				continue
			}
			for i := 1; i < j; i++ {
				if c := cost[k-1][i] + int64(below[j]-below[i])*int64(j); c < cost[k][j] {
					cost[k][j], from[k][j] = c, i
				}
			}
		}
	}
	k := 1
	for k < count && 50*(cost[k][n]-cost[count][n]) > cost[k][n] {
		k++
	}
	var out []int
	for j := n; j > 0; j, k = from[k][j], k-1 {
		out = append(out, j*step)
	}
	slices.Reverse(out)
	return out
}
