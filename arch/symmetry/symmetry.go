package symmetry

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Kind says which maps a group allows.
type Kind string

// The kinds. x is the vector of a group's features.
const (
	// Perm exchanges features: new x[i] = x[p[i]].
	Perm Kind = "perm"
	// SignedPerm also flips signs: new x[i] = s[i] x[p[i]], s of ±1.
	SignedPerm Kind = "signed_perm"
	// ScaledPerm also scales: new x[i] = s[i] x[p[i]], s not 0 (positive if Group.Positive).
	ScaledPerm Kind = "scaled_perm"
	// Orthogonal turns the features: new x = Q x.
	Orthogonal Kind = "orthogonal"
	// RopePlane multiplies each rotary plane, read as a complex number, by a complex number: new x[j] = c[j] x[j]. Group.Restrict
	// narrows the numbers.
	RopePlane Kind = "rope_plane"
	// HeadGroup exchanges heads, or blocks of heads: a permutation whose features are blocks (Ref.Block).
	HeadGroup Kind = "head_group"
	// Invertible allows any invertible matrix: new x = A x.
	Invertible Kind = "invertible"
)

// Role says how an element g of a group acts on a ref's axis.
type Role string

// The roles.
const (
	// Write is an axis that holds the features themselves, such as the rows of the map that makes them, its bias, or the
	// columns of an embedding: multiplied by g.
	Write Role = "write"
	// Read is an axis that consumes the features, such as the columns of the map that follows: multiplied by the inverse transpose of g,
	// which for permutations, signs and rotations is g itself. Queries read what keys write.
	Read Role = "read"
	// Gain is an axis that multiplies the features one by one, such as the gain of a norm, or the gate of a gated unit: only the
	// permutation acts, no sign and no scale. A group that is turned has no such axis left: gains are folded (Norm).
	Gain Role = "gain"
)

// Restrict narrows the numbers of a RopePlane group.
type Restrict string

// The restrictions.
const (
	AnyPhase Restrict = ""      // any complex number but 0
	SignOnly Restrict = "sign"  // ±1: a norm of heads stands between the projection and the rotation (Qwen3, Gemma 3)
	Positive Restrict = "scale" // positive numbers: the gains of such norms
)

// Ref is a stretch of an axis of a tensor on which a group acts. It is Size*Block*Tile long, or twice that for rotary planes.
type Ref struct {
	Tensor string
	Axis   int
	Offset int // first index of the stretch
	Block  int // consecutive indices that make up one feature: P ⊗ I_Block; at least 1
	Tile   int // how often the features repeat in the stretch: I_Tile ⊗ P; at least 1
	Whole  int // length of the whole axis in the checkpoint that the spec was made for; 0: not known
	Role   Role
	Shift  float64 // the group acts on Shift + the tensor, which has this one axis: 1 for gains of 1 + w
	Silent bool    // moves along but is no evidence for matching: running statistics
}

// Group is one group of a spec.
type Group struct {
	ID     string // such as "res", "mlp.3", "kv.3", "vo.3.1"
	Kind   Kind   // the default
	Kinds  []Kind // all that the architecture allows, the narrowest first
	Size   int    // features: units, blocks, planes, or the order of the matrix
	Parent string // a group that exchanges blocks inside of which this one acts; "" for none. Parents act first.
	// Block is which of the parent's blocks this group acts inside of, counted after the parent has acted.
	Block    int
	Positive bool // scales of a ScaledPerm are positive (ReLU)
	Restrict Restrict
	// Interleaved planes are (2j, 2j+1); otherwise plane j is (j, j+Size).
	Interleaved bool
	Refs        []Ref
}

// Norm is a normalisation that reads a group's features and gives them a gain before other maps read them.
type Norm struct {
	Group   string
	Gain    string   // tensor
	Offset  float64  // the effective gain is Offset + the tensor: 1 for Gemma
	Readers []string // tensors that read the normed features on an axis with a ref of Group
}

// Spec is the symmetry spec of one model: its sizes are filled in.
type Spec struct {
	Name   string // family
	Groups []Group
	Norms  []Norm
	// Untie names the tensor that takes the place of a shared one (lm_head.weight for the embedding) when the stream is turned,
	// because folding the last gain makes the two differ: from new name to shared name. Nil if nothing is shared. The new tensor has
	// refs like any other and is listed among readers, but it exists in no file yet (or as a copy of the shared one that nobody
	// reads): until a group is turned, those refs are void.
	Untie map[string]string
	// Copies are the names in Untie under which the checkpoint stores the shared tensor a second time. Nobody reads a copy, but it moves
	// along, since programs take two tensors that differ for tensors that are not shared.
	Copies []string `json:",omitempty"`
}

// Group returns the group with an id.
func (s *Spec) Group(id string) (*Group, bool) {
	for i := range s.Groups {
		if s.Groups[i].ID == id {
			return &s.Groups[i], true
		}
	}
	return nil, false
}

// Span is the length of the stretch on which g acts at r.
func (g *Group) Span(r Ref) int {
	n := g.Size * r.Block * r.Tile
	if g.Kind == RopePlane {
		n *= 2
	}
	return n
}

// Hash is a digest of everything in the spec, for telling whether two maps belong to the same one.
func (s *Spec) Hash() string {
	data, err := json.Marshal(s) // keys of maps are sorted, the order of groups and refs counts
	if err != nil {
		panic(err) // strings and numbers can be written
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
