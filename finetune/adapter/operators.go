package adapter

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/internal/linalg"
)

// operator merges several tensors of one shape to one, each with a weight.
type operator struct {
	prune   string  // "", "magnitude" or "random"
	rescale bool    // divide what random pruning keeps by the density
	density float64 // share of the entries that are kept
	elect   string  // "", "total" or "frequency": TIES' election of signs
	seed    uint64
	name    string // with seed the key of the random numbers
}

// merge is Σ w_i·x_i over what pruning and election keep; with an election each place is divided by the number of tensors
// that were kept in it.
// Yadav et al., 2023, "TIES-merging: resolving interference when merging models"; Yu et al., 2023, "Language models are
// super Mario: absorbing abilities from homologous models as a free lunch" (DARE).
func (o operator) merge(xs [][]float32, weights []float64) []float32 {
	if o.prune != "" && o.density < 1 {
		kept := make([][]float32, len(xs))
		for i, x := range xs {
			kept[i] = o.sparse(x, i)
		}
		xs = kept
	}
	out := make([]float32, len(xs[0]))
	if o.elect == "" {
		for i, x := range xs {
			w := float32(weights[i])
			for j, v := range x {
				out[j] += float32(v * w) // the conversion keeps the compiler from fusing product and sum
			}
		}
		return out
	}
	for j := range out {
		vote := float32(0)
		for _, x := range xs {
			if o.elect == "total" {
				vote += x[j]
			} else {
				vote += sign(x[j])
			}
		}
		elected := float32(1)
		if vote < 0 {
			elected = -1
		}
		sum, count := float32(0), float32(0)
		for i, x := range xs {
			if sign(x[j]) == elected { // an exact zero never is
				sum += float32(x[j] * float32(weights[i])) // as above
				count++
			}
		}
		out[j] = sum / max(count, 1)
	}
	return out
}

func sign(x float32) float32 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

// sparse returns a copy of x of which only a share is left.
func (o operator) sparse(x []float32, i int) []float32 {
	out := slices.Clone(x)
	if o.prune == "random" {
		linalg.Bernoulli(len(out), o.density, o.seed, fmt.Sprintf("%s %d", o.name, i), func(j int) { out[j] = 0 })
		if o.rescale {
			for j := range out {
				out[j] /= float32(o.density)
			}
		}
		return out
	}
	linalg.KeepLargest(out, int(o.density*float64(len(x))))
	return out
}
