package learn

import (
	"context"
	"math"

	"github.com/mergekit/mergekit/model"
)

// Objective is the loss of a network as a function of its weights, over examples that are split in two: those to learn from, and
// held-out ones to choose by. Weights are float32 by the names of the spec. Its methods are not safe for concurrent use.
type Objective interface {
	// Names lists the tensors that the loss depends on and is differentiated by.
	Names() []string
	// Steps is how many batches the examples to learn from make.
	Steps() int
	// Gradient returns the mean loss over a batch and its gradient by every tensor of Names. Which batch a step has is determined by
	// seed and step alone; Steps of them in a row go once through the examples.
	Gradient(ctx context.Context, weights Values, seed uint64, step int) (loss float64, gradient Values, err error)
	// Loss sums over the examples to learn from, or over those held out.
	Loss(ctx context.Context, weights Values, heldOut bool) (model.Result, error)
	// Close frees the network.
	Close()
}

// Values are tensors by name, row-major.
type Values map[string][]float32

// Split is the loss of the models between which is aligned, on one split.
type Split struct {
	A, B   float64 // mean loss of the models
	Before float64 // of the midpoint of A and the B that the method began with
	After  float64 // of the midpoint of A and the aligned B
}

// Barriers returns how far the midpoint's loss lies above the mean of both models', before and after.
func (s Split) Barriers() (before, after float64) {
	mean := (s.A + s.B) / 2
	return s.Before - mean, s.After - mean
}

// Point is the loss of the midpoint after so many steps.
type Point struct {
	Step    int
	HeldOut float64
}

// order returns a permutation of n that seed and epoch determine (Fisher and Yates).
func order(n int, seed uint64, epoch int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	for i := n - 1; i > 0; i-- {
		j := int(number(seed, uint64(epoch), uint64(i)) % uint64(i+1))
		p[i], p[j] = p[j], p[i]
	}
	return p
}

// number is a random number that its arguments determine (SplitMix64's finaliser; Steele et al., 2014).
func number(words ...uint64) uint64 {
	var z uint64
	for _, w := range words {
		z += w + 0x9E3779B97F4A7C15
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
	}
	return z
}

// share is a random number in [0, 1).
func share(words ...uint64) float64 { return float64(number(words...)>>11) / (1 << 53) }

// finite reports whether a loss can be compared.
func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
