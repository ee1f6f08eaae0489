// Package learn finds alignments with data and a loss, from where weight matching (merge/align/match) ends: STE moves permutations by a
// straight-through estimator, Refine turns what can be turned continuously, such as the residual stream.
//
// Both go by the loss of models between A and the aligned B on examples to learn from, and take the map that is best on held-out ones,
// which they do not learn from. The map that comes out is an element of the spec's group, so the aligned B computes what B does.
//
// An Objective is the network and its examples. Neither method differentiates anything itself: an objective gives the gradient by the
// weights, and the chain rule from weights to the map is a product of two matrices for each tensor.
package learn
