package arch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Descriptions name the fused tensors of a layer's experts, as transformers 5 holds them in memory:
//
//	….mlp.experts.gate_up_proj  [experts, 2·intermediate, hidden], of each expert the gate's rows, then the up projection's
//	….mlp.experts.down_proj     [experts, hidden, intermediate]
//
// while most checkpoints hold one tensor per expert and projection, with [intermediate, hidden] for gate and up and [hidden,
// intermediate] for down. Laid end to end in the right order the latter are the former, byte for byte: no copy is needed to
// see one as the other.
const (
	fusedGateUp = "mlp.experts.gate_up_proj"
	fusedDown   = "mlp.experts.down_proj"
)

// expertLayout is one way in which checkpoints name single experts.
type expertLayout struct {
	block          string // takes the place of mlp
	gate, up, down string
}

var expertLayouts = []expertLayout{
	{"mlp", "gate_proj", "up_proj", "down_proj"}, // Qwen-MoE, GLM-4-MoE, DeepSeek
	{"block_sparse_moe", "w1", "w3", "w2"},       // Mixtral
	{"mlp", "w1", "w3", "w2"},                    // Mixtral, half renamed
	{"block_sparse_moe", "gate_proj", "up_proj", "down_proj"},
}

func (l expertLayout) name(stem string, expert int, projection string) string {
	return stem + l.block + ".experts." + strconv.Itoa(expert) + "." + projection + ".weight"
}

// maxExpertGap is how many absent experts in a row end the search for more, so that a hole is told from the end.
const maxExpertGap = 64

// fusedStem splits the name of a fused tensor into what stands before mlp and whether it is gate and up or down.
func fusedStem(name string) (stem string, gateUp, ok bool) {
	if stem, ok = strings.CutSuffix(name, fusedGateUp); ok {
		gateUp = true
	} else if stem, ok = strings.CutSuffix(name, fusedDown); !ok {
		return "", false, false
	}
	return stem, gateUp, stem == "" || strings.HasSuffix(stem, ".")
}

// Pieces finds what a tensor that a checkpoint does not have under its own name is made of there: the experts' tensors of a
// fused one, or the tensor under the name that its block had before transformers 5 (block_sparse_moe for mlp). The pieces
// come in memory order: laid end to end they are the tensor; FusedShape tells its shape. ok is false where the checkpoint
// has nothing of it. Experts of which one has a tensor and another lacks it are an error that names the missing one.
func (a *Arch) Pieces(name string, has func(string) bool) (pieces []string, ok bool, err error) {
	if i := strings.Index("."+name, ".mlp."); i >= 0 {
		if old := name[:i] + "block_sparse_moe" + name[i+len("mlp"):]; has(old) {
			return []string{old}, true, nil
		}
	}
	stem, gateUp, fused := fusedStem(name)
	if !fused {
		return nil, false, nil
	}
	for _, l := range expertLayouts {
		experts, some := 0, "" // experts: one more than the highest number seen
		for e := 0; e <= experts+maxExpertGap && e < maxExperts; e++ {
			for _, p := range []string{l.gate, l.up, l.down} {
				if n := l.name(stem, e, p); has(n) {
					experts, some = e+1, n
					break
				}
			}
		}
		if experts == 0 {
			continue
		}
		for e := range experts {
			for _, p := range []string{l.gate, l.up, l.down} {
				n := l.name(stem, e, p)
				if !has(n) {
					return nil, false, fmt.Errorf("%s is missing while %s is there: a layer's experts must be complete to be merged as %s", n, some, name)
				}
				if (p != l.down) == gateUp {
					pieces = append(pieces, n)
				}
			}
		}
		return pieces, true, nil
	}
	return nil, false, nil
}

// FusedShape returns the shape of the tensor that pieces make, from their shapes in the order of Pieces. A single piece that
// is no expert's keeps its shape. Experts of different shapes are an error.
func FusedShape(name string, pieceShapes [][]int) ([]int, error) {
	_, gateUp, fused := fusedStem(name)
	switch {
	case len(pieceShapes) == 0:
		return nil, fmt.Errorf("%s: made of no tensor", name)
	case !fused && len(pieceShapes) > 1:
		return nil, fmt.Errorf("%s: made of %d tensors, but it is no fused expert tensor", name, len(pieceShapes))
	case len(pieceShapes) == 1 && (!fused || len(pieceShapes[0]) != 2):
		return slices.Clone(pieceShapes[0]), nil
	}
	first := pieceShapes[0]
	if len(first) != 2 {
		return nil, fmt.Errorf("%s: expert 0 has shape %v, a matrix is expected", name, first)
	}
	per := 1
	role := func(int) string { return "down projection" }
	if gateUp {
		per = 2
		role = func(i int) string { return [...]string{"gate projection", "up projection"}[i%2] }
	}
	for i, s := range pieceShapes {
		if !slices.Equal(s, first) {
			return nil, fmt.Errorf("%s: the %s of expert %d has shape %v, that of expert 0 %v: experts of different shapes cannot be merged as one tensor", name, role(i), i/per, s, first)
		}
	}
	if len(pieceShapes)%per != 0 {
		return nil, fmt.Errorf("%s: the last expert has a gate projection and no up projection", name)
	}
	return []int{len(pieceShapes) / per, per * first[0], first[1]}, nil
}

// PiecesFor gives the names under which the pieces of one tensor are written as those of another: pieces of the source
// tensor in, its name, and the output tensor's name out. Layers may differ, as they do where layers are stacked anew.
func PiecesFor(out, in string, pieces []string) []string {
	if len(pieces) == 1 && pieces[0] == in {
		return []string{out}
	}
	from, to := blockStem(in), blockStem(out)
	names := make([]string, len(pieces))
	for i, p := range pieces {
		names[i] = p
		if rest, ok := strings.CutPrefix(p, from); ok {
			names[i] = to + rest
		}
	}
	return names
}

// blockStem is what stands before the feed-forward block in a name.
func blockStem(name string) string {
	if i := strings.Index("."+name, ".mlp."); i >= 0 {
		return name[:i]
	}
	return name
}

// expertCountKeys are the keys of config.json that count experts.
var expertCountKeys = []string{"num_local_experts", "num_experts", "n_routed_experts", "text_config.num_local_experts", "text_config.num_experts", "text_config.n_routed_experts"}

// CheckExperts compares the pieces of a fused tensor with the number of experts that the configuration tells. It finds what
// Pieces cannot see: experts that are missing at the end. Configurations that tell no number pass.
func CheckExperts(c Config, name string, pieces []string) error {
	_, gateUp, fused := fusedStem(name)
	if !fused || len(pieces) == 0 || len(pieces) == 1 && !strings.Contains(pieces[0], ".experts.0.") {
		return nil
	}
	found := len(pieces)
	if gateUp {
		found /= 2
	}
	for _, k := range expertCountKeys {
		n, ok := c.Int(k)
		if !ok || n == found {
			continue
		}
		if n < found {
			return fmt.Errorf("%s: the checkpoint has %d experts where config.json says %s %d", name, found, k, n)
		}
		missing := strings.Replace(pieces[0], ".experts.0.", ".experts."+strconv.Itoa(found)+".", 1)
		return fmt.Errorf("%s is missing: the checkpoint has %d experts where config.json says %s %d; is a shard missing?", missing, found, k, n)
	}
	return nil
}
