package search

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// cma is the covariance matrix adaptation evolution strategy: points are drawn from a normal distribution whose mean moves to the better
// half of them, and whose covariance and step size learn from how it moved. Hansen, 2016, "The CMA evolution strategy: a tutorial",
// with the tutorial's constants and without its negative weights. Where the distribution has become a point while trials are left, it
// begins anew elsewhere with twice the points: Auger and Hansen, 2005, "A restart CMA evolution strategy with increasing population
// size".
//
// gonum has optimize.CmaEsChol, which is not used: it draws from N(mean, C) and leaves the step size out, so that neither a first step
// nor its adaptation reach the points (v0.17.0, sendTask).
type cma struct {
	n      int
	seed   uint64
	first  float64 // step size at the beginning
	points int     // in a generation
	run    int     // restarts so far
	drawn  int     // generations of this run

	weights            []float64
	muEff              float64
	cc, cs, c1, cmu, d float64
	chi                float64 // expected length of a normal vector

	mean, pc, ps []float64
	sigma        float64
	cov          *mat.SymDense
	axes         *mat.Dense // eigenvectors of cov in columns
	lengths      []float64  // square roots of its eigenvalues

	asked [][]float64
}

func newCMA(start []float64, sigma float64, seed uint64) *cma {
	n := len(start)
	c := &cma{n: n, seed: seed, first: sigma, points: 4 + int(3*math.Log(float64(n)))}
	c.begin(start)
	return c
}

// begin sets the distribution to a ball around a point.
func (c *cma) begin(mean []float64) {
	n := float64(c.n)
	mu := c.points / 2
	c.weights = make([]float64, mu)
	var sum, squares float64
	for i := range c.weights {
		c.weights[i] = math.Log(float64(c.points+1)/2) - math.Log(float64(i+1))
		sum += c.weights[i]
	}
	for i := range c.weights {
		c.weights[i] /= sum
		squares += c.weights[i] * c.weights[i]
	}
	c.muEff = 1 / squares
	c.cc = (4 + c.muEff/n) / (n + 4 + 2*c.muEff/n)
	c.cs = (c.muEff + 2) / (n + c.muEff + 5)
	c.c1 = 2 / ((n+1.3)*(n+1.3) + c.muEff)
	c.cmu = min(1-c.c1, 2*(c.muEff-2+1/c.muEff)/((n+2)*(n+2)+c.muEff))
	c.d = 1 + 2*max(0, math.Sqrt((c.muEff-1)/(n+1))-1) + c.cs
	c.chi = math.Sqrt(n) * (1 - 1/(4*n) + 1/(21*n*n))

	c.mean = append([]float64(nil), mean...)
	c.pc, c.ps = make([]float64, c.n), make([]float64, c.n)
	c.sigma, c.drawn = c.first, 0
	c.cov, c.axes, c.lengths = mat.NewSymDense(c.n, nil), mat.NewDense(c.n, c.n, nil), make([]float64, c.n)
	for i := range c.n {
		c.cov.SetSym(i, i, 1)
		c.axes.Set(i, i, 1)
		c.lengths[i] = 1
	}
}

// ask draws mean + sigma * B D z.
func (c *cma) ask() [][]float64 {
	c.asked = make([][]float64, c.points)
	for k := range c.asked {
		z := normal(c.n, c.seed, fmt.Sprintf("search cma_es %d %d %d", c.run, c.drawn, k))
		for i := range z {
			z[i] *= c.lengths[i]
		}
		x := c.turned(z)
		for i := range x {
			x[i] = c.mean[i] + c.sigma*x[i]
		}
		c.asked[k] = x
	}
	c.drawn++
	return c.asked
}

// turned is B v.
func (c *cma) turned(v []float64) []float64 {
	var out mat.VecDense
	out.MulVec(c.axes, mat.NewVecDense(c.n, v))
	return out.RawVector().Data
}

// whitened is C^(-1/2) v.
func (c *cma) whitened(v []float64) []float64 {
	var in mat.VecDense
	in.MulVec(c.axes.T(), mat.NewVecDense(c.n, v))
	w := in.RawVector().Data
	for i := range w {
		w[i] /= c.lengths[i]
	}
	return c.turned(w)
}

// tell moves the distribution.
func (c *cma) tell(order []int) {
	step := make([]float64, c.n) // of the mean, in units of sigma
	for i, w := range c.weights {
		for k, x := range c.asked[order[i]] {
			step[k] += w * (x - c.mean[k]) / c.sigma
		}
	}
	old := c.mean
	c.mean = make([]float64, c.n)
	for k := range c.mean {
		c.mean[k] = old[k] + c.sigma*step[k]
	}
	white := c.whitened(step)
	grow := math.Sqrt(c.cs * (2 - c.cs) * c.muEff)
	var length float64
	for k := range c.ps {
		c.ps[k] = (1-c.cs)*c.ps[k] + grow*white[k]
		length += c.ps[k] * c.ps[k]
	}
	length = math.Sqrt(length)
	// A step size that grows fast is not to stretch the covariance as well.
	steady := length/math.Sqrt(1-math.Pow(1-c.cs, 2*float64(c.drawn))) < (1.4+2/(float64(c.n)+1))*c.chi
	grow = 0
	if steady {
		grow = math.Sqrt(c.cc * (2 - c.cc) * c.muEff)
	}
	for k := range c.pc {
		c.pc[k] = (1-c.cc)*c.pc[k] + grow*step[k]
	}
	keep := 1 - c.c1 - c.cmu
	if !steady {
		keep += c.c1 * c.cc * (2 - c.cc)
	}
	for i := range c.n {
		for j := i; j < c.n; j++ {
			v := keep*c.cov.At(i, j) + c.c1*c.pc[i]*c.pc[j]
			for k, w := range c.weights {
				x := c.asked[order[k]]
				v += c.cmu * w * (x[i] - old[i]) * (x[j] - old[j]) / (c.sigma * c.sigma)
			}
			c.cov.SetSym(i, j, v)
		}
	}
	c.sigma *= math.Exp(c.cs / c.d * (length/c.chi - 1))
	if !c.decompose() {
		c.restart()
	}
}

// Bounds of a distribution that can still find something.
const (
	smallestStep   = 1e-4 // of a range
	largestStep    = 1e3
	mostElongation = 1e7 // of the longest axis to the shortest
)

// decompose finds axes and lengths. It says whether the distribution is still of use.
func (c *cma) decompose() bool {
	var e mat.EigenSym
	if !e.Factorize(c.cov, true) {
		return false
	}
	values := e.Values(nil)
	e.VectorsTo(c.axes)
	var longest float64
	shortest := math.Inf(1)
	for i, v := range values {
		if !(v > 0) {
			return false
		}
		c.lengths[i] = math.Sqrt(v)
		longest, shortest = max(longest, c.lengths[i]), min(shortest, c.lengths[i])
	}
	reach := c.sigma * longest
	return reach > smallestStep && reach < largestStep && longest < mostElongation*shortest
}

func (c *cma) restart() {
	c.run++
	c.points *= 2
	c.begin(uniform(c.n, c.seed, fmt.Sprintf("search cma_es start %d", c.run)))
}
