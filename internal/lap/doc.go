// Package lap solves the dense linear assignment problem exactly: given an n x n matrix, the permutation that maximises (or
// minimises) the sum of one entry a row, with a certificate that no other permutation is better.
//
// Vocabulary. A row is assigned a column; an assignment cols reads as a gather array, new[i] = old[cols[i]]. The solver minimises
// costs c (minus the scores when it maximises). Duals are a price u[i] a row and v[j] a column. The reduced cost of an entry is
// c[i,j] - u[i] - v[j]; an entry is tight when that is zero. Duals are feasible when no reduced cost is negative, and an
// assignment of tight entries under feasible duals is optimal: that pair is the certificate, which Solution.Verify checks.
//
// The method is the shortest augmenting path algorithm with the reductions of Jonker and Volgenant, 1987, "A shortest augmenting path
// algorithm for dense and sparse linear assignment problems", in the form of Crouse, 2016, "On implementing 2D rectangular assignment
// algorithms". Costs stay the caller's float32; duals and path lengths are float64. The steps, each the input of the next:
//
//   - column reduction, which is the whole solve when every column has another best row;
//   - augmenting row reduction from zero prices, two passes;
//   - where that leaves many rows free, an auction with scaling (Bertsekas, 1988) for better prices, and the reduction again;
//   - a shortest path for each row left. The searches read lists of each row's smallest entries: column prices only ever fall, so
//     c[i,j] - v[j] only ever grows, and a list made once stays valid with its last value as a lower bound for all other columns; whole
//     rows are read where that bound does not decide. The result is the exact optimum all the same;
//   - rows go back to their initial columns along ties.
//
// A solve is sequential and deterministic; vector kernels and the plain ones give the same bits.
package lap
