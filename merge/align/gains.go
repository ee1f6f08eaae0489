package align

import (
	"fmt"

	"github.com/mergekit/mergekit/arch/symmetry"
)

// OwnGains are the effective gains of a checkpoint by the gain's tensor: what is stored plus Norm.Offset.
type OwnGains map[string][]float64

// ReadGains reads the gains of all norms that a spec lists.
func ReadGains(s *symmetry.Spec, w Weights) (OwnGains, error) {
	out := OwnGains{}
	for _, n := range s.Norms {
		g, ok := s.Group(n.Group)
		if !ok {
			return nil, &Error{Group: n.Group, Tensor: n.Gain, Msg: "the spec gives the gain of a group that it does not have"}
		}
		x, err := w.Read(n.Gain)
		if err != nil {
			return nil, err
		}
		if len(x) != g.Size {
			return nil, &Error{Group: n.Group, Tensor: n.Gain, Msg: fmt.Sprintf("is the gain of %d features, but has %d entries", g.Size, len(x)), Hint: "the spec is for a model of another size"}
		}
		gain := make([]float64, len(x))
		for i, v := range x {
			gain[i] = float64(v) + n.Offset
		}
		out[n.Gain] = gain
	}
	return out, nil
}

// WithGains returns the map with other gains: own are those of the model that is mapped, to are those that the mapped model gets,
// the reference's. Either may be nil, which leaves the map's as they are.
func (m *Map) WithGains(own, to OwnGains) *Map {
	c := m.Clone()
	for _, n := range m.Spec.Norms {
		if !m.Turned(n.Group) {
			continue
		}
		g := c.Gains[n.Gain]
		if x, ok := own[n.Gain]; ok {
			g.From = x
		}
		if x, ok := to[n.Gain]; ok {
			g.To = x
		}
		c.Gains[n.Gain] = g
	}
	return c
}

// norm returns the norm whose gain stands between the features of a group and a tensor that reads them.
func normOf(s *symmetry.Spec, group, reader string) (*symmetry.Norm, bool) {
	for i := range s.Norms {
		n := &s.Norms[i]
		if n.Group != group {
			continue
		}
		for _, r := range n.Readers {
			if r == reader {
				return n, true
			}
		}
	}
	return nil, false
}

// signedHint is the way out of a gain that cannot be divided by.
const signedHint = "align with symmetry: signed, which does not turn the stream"

// target returns the gain that the mapped model gets at a norm of a turned group.
func (m *Map) target(g *symmetry.Group, n *symmetry.Norm) ([]float64, error) {
	to := m.Gains[n.Gain].To
	if len(to) != g.Size {
		return nil, &Error{Group: g.ID, Tensor: n.Gain, Msg: fmt.Sprintf("the stream is turned, but the map has %d gains for its %d features", len(to), g.Size), Hint: "the map is damaged or for another spec"}
	}
	for i, x := range to {
		if x == 0 || !finite(x) {
			return nil, &Error{Group: g.ID, Tensor: n.Gain, Msg: fmt.Sprintf("the reference's gain %d is %v, and a turned stream must be divided by it", i, x), Hint: signedHint}
		}
	}
	return to, nil
}

// source returns the gain that a checkpoint has of its own at a norm of a turned group.
func (own OwnGains) source(g *symmetry.Group, n *symmetry.Norm) ([]float64, error) {
	x := own[n.Gain]
	if len(x) != g.Size {
		return nil, &Error{Group: g.ID, Tensor: n.Gain, Msg: fmt.Sprintf("the stream is turned, so the checkpoint's own gain is needed, but %d of its %d entries are known", len(x), g.Size)}
	}
	for i, v := range x {
		if !finite(v) {
			return nil, &Error{Group: g.ID, Tensor: n.Gain, Msg: fmt.Sprintf("entry %d is %v", i, v), Hint: "the checkpoint is damaged"}
		}
	}
	return x, nil
}

// checkGains checks the gains of turned groups.
func (m *Map) checkGains() error {
	norms := map[string]bool{}
	for i := range m.Spec.Norms {
		n := &m.Spec.Norms[i]
		norms[n.Gain] = true
		g, ok := m.Spec.Group(n.Group)
		if !ok {
			return &Error{Group: n.Group, Tensor: n.Gain, Msg: "the spec gives the gain of a group that it does not have"}
		}
		if !m.Turned(n.Group) {
			continue
		}
		if _, err := m.target(g, n); err != nil {
			return err
		}
		if from := m.Gains[n.Gain].From; from != nil {
			if _, err := (OwnGains{n.Gain: from}).source(g, n); err != nil {
				return err
			}
		}
	}
	for name := range m.Gains {
		if !norms[name] {
			return &Error{Tensor: name, Msg: "the map has gains for it, but it is no norm of the spec"}
		}
	}
	return nil
}
