// Package match finds the map that brings one model close to another: weight matching over every kind of group that a symmetry spec
// has, for two models or many, and the verdict whether two checkpoints have a common origin.
//
// The words:
//
//   - A unit is a top-level group with the groups inside of its blocks. It is what one update solves, with all other units held.
//   - The hub is the unit that touches nearly everything: the residual stream. What is left without it falls apart into bundles, the
//     attention and the MLP of each layer, which know nothing of each other and are solved in parallel. Networks without such a hub
//     (MLPs, residual stages) are solved unit by unit.
//   - Evidence for a group are the inner products of its features in both models, over everything else that the tensors have.
//   - The canonical form of a model is the one with balanced scales: every unit of a gated MLP writes and reads with equal norm, and so
//     does every rotary plane, every layer of a ReLU network and every head's pair of value and output. What is left to choose then
//     keeps lengths: permutations, signs, phases, rotations. So the objective, the sum of the inner products of all tensors, is the
//     distance of the canonical forms, and one update after another can only raise it.
//
// The map that comes out brings the second model to the first one's own scales and coordinates; the first is never touched.
//
// Ainsworth, Hayase and Srinivasa, 2023, "Git Re-Basin" (coordinate descent over permutations); Theus et al., 2025, "Generalized linear mode connectivity for transformers"
// (rotations of the stream); Stock et al., 2019, "Equi-normalization of neural networks" (the canonical scales).
package match
