// Package lmc explains why two models are linearly connected, or why not: it compares the singular vectors of their matrices.
//
// A permutation of units leaves a matrix's singular values as they are and only turns its singular vectors. So what matching can do is
// bring the vectors of large values onto each other, and the squared distance of two matrices says the same thing in other words:
//
//	‖A − B‖² = ‖A‖² + ‖B‖² − 2 Σij σi σ'j (ui·u'j)(vi·v'j)
//
// with A = Σ σi ui viᵀ and B = Σ σ'j u'j v'jᵀ (Ito, Yamada and Kumagai, 2025, "Analysis of linear mode connectivity via
// permutation-based weight matching").
//
// The words:
//
//   - A layer is a tensor with two axes or more, such as the weight of a linear map. Of a convolution all axes but the first, which are
//     the outputs, are one. Biases and gains are no layers; they count in distances alone.
//   - R(γ) of two layers is Σij (ui·u'j)(vi·v'j) over the values that are at least γ of the largest of their layer, divided by the
//     number of such pairs that there can be: 1 for equal layers, about 0 for layers that have nothing to do with each other. R(0) takes
//     all values; γ = 0.3 those that carry most of what the layer computes. Over several layers, sums and numbers are added up.
//   - The weighted alignment takes every pair as often as the product of its values: Σij σi σ'j (ui·u'j)(vi·v'j) / Σi σi σ'i, at most 1
//     (von Neumann, 1937).
//   - The distance of spectra is ‖σ − σ'‖ / √(½(‖σ‖² + ‖σ'‖²)): models of one recipe have nearly the same values, and where they do not,
//     no permutation will bring them together.
package lmc
