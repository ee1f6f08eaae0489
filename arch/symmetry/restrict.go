package symmetry

import (
	"fmt"
	"slices"
	"strings"
)

// How much of a model's symmetry is used: the argument of Restrict.
const (
	Auto        = "auto"        // all, but a stream whose tensors are shared is not turned
	Permutation = "permutation" // features are exchanged: every value of the aligned model is one of the original
	Signed      = "signed"      // signs are flipped too
	Full        = "full"        // all that the architecture allows; a shared embedding is untied
)

// Choice switches groups on and off. See AllGroups for all of them.
type Choice struct {
	Residual       string // auto, none, permutation, signed or orthogonal: the groups res and res.*
	MLP, Heads, QK bool   // the groups mlp.* and hidden.*, kv.* with qh.*, and qk*
	VO             string // none, orthogonal or invertible: the groups vo.*
}

// AllGroups is the choice of everything, values and outputs of heads by orthogonal maps.
func AllGroups() Choice {
	return Choice{Residual: Auto, MLP: true, Heads: true, QK: true, VO: "orthogonal"}
}

// part is the beginning of a group's id: what Choice goes by.
func part(id string) string {
	p, _, _ := strings.Cut(id, ".")
	return p
}

// Restrict returns the spec with fewer kinds and groups: symmetry says how much is used, the choice which groups. What the
// architecture does not allow is an *Error if it was asked for by name. Groups whose parent is left out act inside of blocks that stay
// where they are.
func (s *Spec) Restrict(symmetry string, c Choice) (*Spec, error) {
	allowed := map[string][]Kind{
		Permutation: {Perm, HeadGroup},
		Signed:      {Perm, SignedPerm, HeadGroup, RopePlane},
		Full:        {Perm, SignedPerm, ScaledPerm, HeadGroup, RopePlane, Orthogonal, Invertible},
	}
	if symmetry == "" {
		symmetry = Auto
	}
	allowed[Auto] = allowed[Full]
	if allowed[symmetry] == nil {
		return nil, &Error{Spec: s.Name, Msg: fmt.Sprintf("symmetry %q is not known", symmetry), Hint: "auto, permutation, signed and full are"}
	}
	residual, err := s.residual(symmetry, c.Residual)
	if err != nil {
		return nil, err
	}
	if c.VO != "" && !slices.Contains([]string{"none", "orthogonal", "invertible"}, c.VO) {
		return nil, &Error{Spec: s.Name, Group: "vo", Msg: fmt.Sprintf("vo %q is not known", c.VO), Hint: "none, orthogonal and invertible are"}
	}
	out := &Spec{Name: s.Name}
	kept := map[string]bool{}
	for _, g := range s.Groups {
		kinds := allowed[symmetry]
		switch p := part(g.ID); {
		case p == "res":
			kinds = residual
		case (p == "mlp" || p == "hidden") && !c.MLP, (p == "kv" || p == "qh") && !c.Heads, strings.HasPrefix(p, "qk") && !c.QK, p == "vo" && (c.VO == "none" || c.VO == ""):
			continue
		case p == "vo" && c.VO == "orthogonal":
			kinds = slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool { return k == Invertible || k == ScaledPerm })
		}
		g.Kinds = slices.DeleteFunc(slices.Clone(g.Kinds), func(k Kind) bool { return !slices.Contains(kinds, k) })
		if len(g.Kinds) == 0 {
			continue
		}
		if symmetry == Signed && g.Kind == RopePlane {
			if g.Restrict == Positive {
				continue
			}
			g.Restrict = SignOnly
		}
		g.Kind = widest(g.Kinds, func(Kind) bool { return true })
		if !kept[g.Parent] {
			g.Parent, g.Block = "", 0
		}
		g.Refs = slices.Clone(g.Refs)
		kept[g.ID] = true
		out.Groups = append(out.Groups, g)
	}
	if len(out.Groups) == 0 {
		return nil, &Error{Spec: s.Name, Msg: fmt.Sprintf("nothing is left to align: the choice of groups with symmetry %q leaves none out of %s", symmetry, s.parts()), Hint: "allow more groups, or another symmetry"}
	}
	turned := false
	for _, n := range s.Norms {
		if g, ok := out.Group(n.Group); ok && g.Kind == Orthogonal {
			n.Readers = slices.Clone(n.Readers)
			out.Norms = append(out.Norms, n)
			turned = true
		}
	}
	for name, shared := range s.Untie {
		if turned {
			if out.Untie == nil {
				out.Untie = map[string]string{}
			}
			out.Untie[name] = shared
			continue
		}
		if slices.Contains(s.Copies, name) {
			out.silence(name)
			continue
		}
		out.forget(name, nil)
	}
	out.Copies = slices.Clone(s.Copies)
	return out, nil
}

// silence takes a tensor as evidence away: it moves along.
func (s *Spec) silence(tensor string) {
	for i := range s.Groups {
		for j := range s.Groups[i].Refs {
			if r := &s.Groups[i].Refs[j]; r.Tensor == tensor {
				r.Silent = true
			}
		}
	}
}

// residual returns the kinds that the stream may have.
func (s *Spec) residual(symmetry, choice string) ([]Kind, error) {
	most := map[string]Kind{Permutation: Perm, Signed: SignedPerm, "orthogonal": Orthogonal}
	all := []Kind{Perm, SignedPerm, Orthogonal}
	upTo := func(k Kind) []Kind { return all[:slices.Index(all, k)+1] }
	switch choice {
	case "none":
		return nil, nil
	case Auto, "":
		switch {
		case symmetry == Permutation:
			return upTo(Perm), nil
		case symmetry == Signed, symmetry == Auto && len(s.Untie) > 0:
			return upTo(SignedPerm), nil
		}
		return append(all, ScaledPerm, Invertible), nil // streams of plain networks may be scaled
	}
	kind, ok := most[choice]
	if !ok {
		return nil, &Error{Spec: s.Name, Group: "res", Msg: fmt.Sprintf("residual %q is not known", choice), Hint: "auto, none, permutation, signed and orthogonal are"}
	}
	if symmetry == Permutation && kind != Perm || symmetry == Signed && kind == Orthogonal {
		return nil, &Error{Spec: s.Name, Group: "res", Msg: fmt.Sprintf("residual %q is more than symmetry %q allows", choice, symmetry), Hint: "leave one of them at auto"}
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		if part(g.ID) == "res" && !slices.Contains(g.Kinds, kind) {
			return nil, &Error{Spec: s.Name, Group: g.ID, Msg: fmt.Sprintf("residual %q is no symmetry of this architecture, which allows %s here", choice, kindList(g.Kinds)),
				Hint: "leave it at auto; only RMS norms before attention and MLP let a stream be turned, and the mean of a layer norm lets no sign be flipped"}
		}
	}
	return upTo(kind), nil
}

func kindList(kinds []Kind) string {
	var out []string
	for _, k := range kinds {
		out = append(out, string(k))
	}
	return strings.Join(out, ", ")
}

// parts lists what the groups' ids begin with.
func (s *Spec) parts() string {
	var out []string
	for i := range s.Groups {
		if p := part(s.Groups[i].ID); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return strings.Join(out, ", ")
}
