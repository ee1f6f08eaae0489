// Package lap solves the dense linear assignment problem exactly: given an n x n matrix, the permutation that maximises (or
// minimises) the sum of one entry a row, with a certificate that no other permutation is better.
//
// Vocabulary. A row is assigned a column; an assignment cols reads as a gather array, new[i] = old[cols[i]]. The solver minimises
// costs c (minus the scores when it maximises). Duals are a price u[i] a row and v[j] a column. The reduced cost of an entry is
// c[i,j] - u[i] - v[j]; an entry is tight when that is zero. Duals are feasible when no reduced cost is negative, and an
// assignment of tight entries under feasible duals is optimal: that pair is the certificate, which Solution.Verify checks.
//
// The method is the shortest augmenting path algorithm with the initialisation of Jonker and Volgenant, 1987, "A shortest
// augmenting path algorithm for dense and sparse linear assignment problems", in the form of Crouse, 2016, "On implementing 2D
// rectangular assignment algorithms". Costs stay the caller's float32; duals and path lengths are float64.
//
// What is ours beside that. Where the reductions leave many rows free, an auction with scaling finds better prices first. Shortest paths
// are searched on lists of each row's smallest entries: column prices only ever fall, so c[i,j] - v[j] only ever grows, and a list made
// once stays valid with its last value as a lower bound for all columns outside of it; whole rows are read only where that bound does
// not decide. The result is the exact optimum all the same.
//
// A solve is sequential and deterministic; vector kernels and the plain ones give the same bits.
package lap
