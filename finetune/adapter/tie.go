package adapter

import (
	"fmt"
	"math"
	"slices"
)

// resolveTies applies the policy to a head and an embedding that share one matrix.
func (b *binding) resolveTies() error {
	head := -1
	for i, m := range b.modules {
		if m.Tied {
			head = i
		}
	}
	if head < 0 {
		return nil
	}
	tied := b.modules[head]
	ofHead, ofInput := -1, -1
	for i := range b.deltas {
		switch d := &b.deltas[i]; {
		case d.Tensor != tied.Weight:
		case d.Module.Tied:
			ofHead = i
		default:
			ofInput = i
		}
	}
	if ofHead < 0 && ofInput < 0 {
		return nil
	}
	// Rows of single tokens are shared by both modules while they are trained, so nothing is ambiguous about them.
	if ofHead < 0 && b.deltas[ofInput].low == nil && b.deltas[ofInput].whole == nil {
		return nil
	}
	policy := b.tie
	if policy == Refuse && b.a.Config.EnsureWeightTying {
		policy = Keep
	}
	switch policy {
	case Untie:
		return b.untie(tied, ofHead, ofInput)
	case Keep:
		return b.keep(ofHead, ofInput)
	}
	what := tied.Path
	if ofHead < 0 {
		what = b.deltas[ofInput].Module.Path
	}
	return &Error{Where: what, Msg: fmt.Sprintf("the adapter changes it, and in this base %s and the input embedding are one matrix, %s", tied.Path, tied.Weight),
		Hint: "choose tie: untie (the head gets a matrix of its own, as the adapter was trained unless ensure_weight_tying was set) or tie: keep (both use the changed one)"}
}

// untie gives the head a matrix of its own, which starts as the embedding was.
func (b *binding) untie(tied Module, ofHead, ofInput int) error {
	name := tied.Path + endWeight
	if ofHead >= 0 {
		d := &b.deltas[ofHead]
		d.Tensor, d.New = name, true // From stays the embedding where values of the base remain
		return nil
	}
	b.deltas = append(b.deltas, Delta{Module: tied, Tensor: name, From: tied.Weight, Shape: slices.Clone(tied.Shape), New: true, What: "untied"})
	if ofInput >= 0 && b.deltas[ofInput].Shape[0] != tied.Shape[0] {
		return &Error{Where: tied.Path, Msg: fmt.Sprintf("cannot be untied: the adapter's embedding has %d rows, the head that would be left as it was has %d", b.deltas[ofInput].Shape[0], tied.Shape[0]), Hint: "choose tie: keep"}
	}
	return nil
}

// keep applies one change to the matrix that both use.
func (b *binding) keep(ofHead, ofInput int) error {
	if ofHead < 0 {
		return nil
	}
	if ofInput < 0 {
		return nil // the head's change lands on the shared tensor
	}
	h, e := &b.deltas[ofHead], &b.deltas[ofInput]
	same, err := sameChange(h, e)
	if err != nil {
		return err
	}
	if !same {
		return &Error{Where: h.Module.Path, Msg: "the adapter changes it otherwise than the input embedding, so one matrix cannot hold both", Hint: "choose tie: untie"}
	}
	b.deltas = slices.Delete(b.deltas, ofHead, ofHead+1)
	return nil
}

// sameChange compares what two deltas make of one base, exactly for whole tensors and to rounding for products.
func sameChange(x, y *Delta) (bool, error) {
	if !slices.Equal(x.Shape, y.Shape) || (x.whole == nil) != (y.whole == nil) || (x.low == nil) != (y.low == nil) || x.mag != nil || y.mag != nil {
		return false, nil
	}
	const piece = 1 << 16
	n := x.Elems()
	p, q := make([]float32, min(n, piece)), make([]float32, min(n, piece))
	for off := int64(0); off < n; off += piece {
		m := min(piece, n-off)
		clear(p)
		clear(q)
		if err := x.before(p[:m], off); err != nil {
			return false, err
		}
		if err := y.before(q[:m], off); err != nil {
			return false, err
		}
		for i := range m {
			a, b := float64(p[i]), float64(q[i])
			if !(math.Abs(a-b) <= 1e-6*(1+math.Abs(a)+math.Abs(b))) {
				return false, nil
			}
		}
	}
	return true, nil
}
