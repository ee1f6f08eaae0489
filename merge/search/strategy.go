package search

import (
	"fmt"

	"github.com/mergekit/mergekit/internal/linalg"
)

// strategy chooses points. Coordinates are places in the ranges, 0 to 1; places outside mean those inside that lie as far from the end.
type strategy interface {
	// ask returns the points of the next generation.
	ask() [][]float64
	// tell orders the points of the last generation, the best first.
	tell(order []int)
}

// The names of the strategies.
const (
	CMAES  = "cma_es"
	Random = "random"
)

func newStrategy(o *Options) (strategy, error) {
	start := make([]float64, len(o.Dimensions))
	for i := range o.Dimensions {
		start[i] = o.Dimensions[i].unit(o.Dimensions[i].Start)
	}
	switch o.Method {
	case CMAES:
		return newCMA(start, o.Sigma, o.Seed), nil
	case Random:
		return &random{n: len(start), seed: o.Seed}, nil
	}
	return nil, fmt.Errorf("search method %q is unknown; it is %s or %s", o.Method, CMAES, Random)
}

// random draws points uniformly. Bergstra and Bengio, 2012, "Random search for hyper-parameter optimization".
type random struct {
	n    int
	seed uint64
	drew int
}

// ask returns a few points: a generation is what can run at once, and no point depends on another.
func (r *random) ask() [][]float64 {
	const generation = 16
	points := make([][]float64, generation)
	for i := range points {
		points[i] = uniform(r.n, r.seed, fmt.Sprintf("search random %d", r.drew))
		r.drew++
	}
	return points
}

func (r *random) tell([]int) {}

func uniform(n int, seed uint64, name string) []float64 {
	x := make([]float32, n)
	linalg.Uniform(x, seed, name)
	return widened(x)
}

func normal(n int, seed uint64, name string) []float64 {
	x := make([]float32, n)
	linalg.Normal(x, seed, name)
	return widened(x)
}

func widened(x []float32) []float64 {
	w := make([]float64, len(x))
	for i, v := range x {
		w[i] = float64(v)
	}
	return w
}
