// Package pleas merges two networks in part: what they have in common is averaged, what they do not is kept from both, and least
// squares fits every map to what the parents compute. Nasery et al., 2025, "PLeaS: Merging Models with Permutations and Least Squares".
//
// The words:
//
//   - The parents A and B come in the same coordinates: B has been aligned to A (merge/align, merge/align/match).
//   - A unit is a feature of a group of the symmetry spec. It is merged, and then one unit of the new network stands for one of each
//     parent, or separate: then both parents' units are there.
//   - A layout is what an axis of a tensor of the new network is made of, in the order merged, A's own, B's own.
//   - The width of a group is its size and as many more as it has separate units. A budget says how much more the whole may cost.
//   - A map never leads from A's own units to B's own or back.
//
// With no separate unit the first step is the plain average of aligned networks; with all of them separate it is the ensemble of the
// two in one network.
//
// What it is worth, measured on networks trained apart from nothing (scripts/train-pairs; one pair each). Perceptrons of width 32, share
// of the test set that is right: on digits 0.749 matched by weights, 0.978 fitted at the same size (the first parent: 0.976); on MNIST
// 0.606, then 0.910, and 0.931 at 1.2 times the cost. Two small Llamas, loss on held-out text: parents 1.50 and 1.52, matched by weights
// 2.26, fitted 1.82 (2.01 where only permutations were matched), 1.75 at 1.2 times the cost, 1.59 with all heads and hidden units of
// both. Inputs from the merged network matter: with the parents' own the same networks reach 0.938, 0.767 and 2.07.
package pleas
