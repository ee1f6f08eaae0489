package linalg

import "math"

// lanes is how many partial sums an inner product has, whatever the processor: the bits are those of the sums, and the order in which
// they meet.
const lanes = 16

// level1 are the kernels of the tridiagonal reduction, for vectors of float64.
type level1 struct {
	name string
	// dot adds x·y to the partial sums, of a multiple of lanes elements.
	dot func(sums *[lanes]float64, x, y []float64)
	// axpy adds a·x to y.
	axpy func(a float64, x, y []float64)
	// rows adds a[0]·r0 + … + a[3]·r3 to y, and r0·v … r3·v to partial sums of half as many lanes each; of a multiple of lanes elements.
	rows func(a *[4]float64, r0, r1, r2, r3, v, y []float64, sums *[4][lanes / 2]float64)
}

// scalarLevel1 computes what the vector kernels do, with the same roundings.
var scalarLevel1 = level1{
	name: "scalar",
	dot: func(sums *[lanes]float64, x, y []float64) {
		for i := 0; i+lanes <= len(x); i += lanes {
			a, b := x[i:][:lanes], y[i:][:lanes]
			for l := range sums {
				sums[l] = math.FMA(a[l], b[l], sums[l])
			}
		}
	},
	axpy: func(a float64, x, y []float64) {
		y = y[:len(x)]
		for i, v := range x {
			y[i] = math.FMA(a, v, y[i])
		}
	},
	rows: func(a *[4]float64, r0, r1, r2, r3, v, y []float64, sums *[4][lanes / 2]float64) {
		const half = lanes / 2
		for i := 0; i+half <= len(r0); i += half {
			for l := range half {
				x0, x1, x2, x3 := r0[i+l], r1[i+l], r2[i+l], r3[i+l]
				y[i+l] = math.FMA(a[3], x3, math.FMA(a[2], x2, math.FMA(a[1], x1, math.FMA(a[0], x0, y[i+l]))))
				b := v[i+l]
				sums[0][l] = math.FMA(x0, b, sums[0][l])
				sums[1][l] = math.FMA(x1, b, sums[1][l])
				sums[2][l] = math.FMA(x2, b, sums[2][l])
				sums[3][l] = math.FMA(x3, b, sums[3][l])
			}
		}
	},
}

// bestLevel1 are the fastest kernels that this processor runs.
var bestLevel1 = func() *level1 {
	all := levels1()
	return &all[len(all)-1]
}()

// inner is x·y.
func (k *level1) inner(x, y []float64) float64 {
	var sums [lanes]float64
	whole := len(x) / lanes * lanes
	k.dot(&sums, x[:whole], y[:whole])
	for i := whole; i < len(x); i++ {
		sums[i-whole] = math.FMA(x[i], y[i], sums[i-whole])
	}
	return fold(sums[:])
}

// fold adds partial sums pair by pair; their number is a power of two.
func fold(sums []float64) float64 {
	for n := len(sums) / 2; n > 0; n /= 2 {
		for i := range n {
			sums[i] += sums[i+n]
		}
	}
	return sums[0]
}

// symmetric4 adds what four rows of a symmetric matrix and their mirror image contribute to y = A·v: rows are A's from the columns of v
// and y on, a the entries of v that belong to the rows. It returns the rows' own products with v.
func (k *level1) symmetric4(a *[4]float64, r0, r1, r2, r3, v, y []float64) (dots [4]float64) {
	const half = lanes / 2
	var sums [4][half]float64
	n := len(v)
	whole := n / half * half
	k.rows(a, r0[:whole], r1[:whole], r2[:whole], r3[:whole], v[:whole], y[:whole], &sums)
	for r, row := range [4][]float64{r0, r1, r2, r3} {
		for i := whole; i < n; i++ {
			y[i] = math.FMA(a[r], row[i], y[i])
			sums[r][i-whole] = math.FMA(row[i], v[i], sums[r][i-whole])
		}
		dots[r] = fold(sums[r][:])
	}
	return dots
}
