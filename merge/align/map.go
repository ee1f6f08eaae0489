// Package align applies symmetries to checkpoints: it keeps the maps that leave a network's function as it is, applies them to
// tensors as they stream, saves them, and carries them over to other checkpoints and to adapters.
//
// A Map is one element of a spec's group. Package merge/align/match finds the map that brings a model close to another.
package align

import "github.com/mergekit/mergekit/arch/symmetry"

// Element is what a map does to the features of one group. Which fields are set depends on the group's kind.
type Element struct {
	Kind   symmetry.Kind // what the element really is: never more than the group allows, often less
	Index  []int         // perm, signed_perm, scaled_perm, head_group: new x[i] = Scale[i] * x[Index[i]]; nil: identity
	Scale  []float64     // signed_perm (±1) and scaled_perm; nil: ones
	Matrix []float64     // orthogonal, invertible: row-major [Size, Size]
	Plane  []complex128  // rope_plane: one number per plane
}

// Gain is a gain that was folded: the aligned model has the reference's gain in its place.
type Gain struct {
	From []float64 // effective gain of the model that the map was found for, needed to carry adapters over
	To   []float64 // effective gain that the aligned model gets
}

// Map is an element of every group of a spec, applied in the order of the spec's groups. A group without an entry stays as it is.
//
// If the stream of a group is turned (orthogonal), the gains that read it are folded first and the reference's gains are taken out
// again: for a tensor that reads the features, new W = W · diag(own gain) · Qᵀ · diag(1/To), and the gain becomes To. So the
// reference model is never touched: the aligned model lives in its coordinates.
type Map struct {
	Spec     *symmetry.Spec
	Elements map[string]Element
	Gains    map[string]Gain // by the gain's tensor; only for groups that are turned
	Seed     uint64
	Note     map[string]string // how it was found: objective, models, version; saved along
}
