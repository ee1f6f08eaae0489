package survey

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Place is where a tensor belongs, by its name.
type Place struct {
	Stack string // what holds the layers ("model.layers"); of a tensor outside of layers, the module that it is of
	Layer int    // -1: outside of layers
	Role  string // what it is within the layer ("self_attn.q_proj"), or within its module ("weight")
}

// PlaceOf reads a tensor's name: the first number is the layer, later ones (experts) do not count, and ".weight" goes without saying.
func PlaceOf(tensor string) Place {
	parts := strings.Split(tensor, ".")
	for i, p := range parts {
		if n, err := strconv.Atoi(p); err == nil && n >= 0 {
			role := parts[i+1:]
			for k, r := range role {
				if _, err := strconv.Atoi(r); err == nil {
					role[k] = "*"
				}
			}
			return Place{Stack: strings.Join(parts[:i], "."), Layer: n, Role: spoken(strings.Join(role, "."))}
		}
	}
	last := len(parts) - 1
	return Place{Stack: strings.Join(parts[:last], "."), Layer: -1, Role: parts[last]}
}

// spoken leaves out what every role ends with.
func spoken(name string) string {
	if short, ok := strings.CutSuffix(name, ".weight"); ok {
		return short
	}
	return name
}

// places lists the places in their order: by stack as names are ordered, layers by number.
func (s *Survey) places() []Place {
	if s.ordered == nil {
		for p := range s.cells {
			s.ordered = append(s.ordered, p)
		}
		slices.SortFunc(s.ordered, func(a, b Place) int {
			return cmp.Or(cmp.Compare(a.Stack, b.Stack), cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Role, b.Role))
		})
	}
	return s.ordered
}

// line is a row of a map: a layer, a tensor outside of layers, or a role.
type line struct {
	name  string
	takes func(Place) bool
}

// layered tells whether any tensor is in a layer. If none is, modules stand for layers.
func (s *Survey) layered() bool {
	for p := range s.cells {
		if p.Layer >= 0 {
			return true
		}
	}
	return false
}

// inside tells whether a place is a row with roles.
func (s *Survey) inside(p Place) bool { return p.Layer >= 0 || !s.layered() }

// layers lists the layers, and then what is outside of them.
func (s *Survey) layers() []line {
	layered := s.layered()
	stacks := map[string]bool{}
	for p := range s.cells {
		if p.Layer >= 0 {
			stacks[p.Stack] = true
		}
	}
	var inside, outside []line
	seen := map[layerKey]bool{}
	for _, p := range s.places() {
		switch {
		case p.Layer >= 0:
			key := layerKey{p.Stack, p.Layer}
			if seen[key] {
				continue
			}
			seen[key] = true
			name := strconv.Itoa(p.Layer)
			if len(stacks) > 1 && p.Stack != "" {
				name = p.Stack + "." + name
			}
			inside = append(inside, line{name, func(q Place) bool { return q.Stack == key.stack && q.Layer == key.layer }})
		case layered:
			name := spoken(joined(p.Stack, p.Role))
			outside = append(outside, line{name, func(q Place) bool { return q == p }})
		default:
			key := layerKey{p.Stack, -1}
			if seen[key] {
				continue
			}
			seen[key] = true
			name := p.Stack
			if name == "" {
				name = "–"
			}
			inside = append(inside, line{name, func(q Place) bool { return q.Stack == key.stack }})
		}
	}
	return append(inside, outside...)
}

type layerKey struct {
	stack string
	layer int
}

func joined(stack, role string) string {
	if stack == "" {
		return role
	}
	return stack + "." + role
}

// roles lists the roles within layers, by their shortest names that tell them apart.
func (s *Survey) roles() []line {
	var roles []string
	for p := range s.cells {
		if s.inside(p) && !slices.Contains(roles, p.Role) {
			roles = append(roles, p.Role)
		}
	}
	slices.Sort(roles)
	var list []line
	for _, r := range roles {
		name := r
		for rest, more := r, true; more; {
			_, rest, more = strings.Cut(rest, ".")
			if !more || rest == "bias" || rest == "*" {
				break
			}
			if slices.ContainsFunc(roles, func(o string) bool { return o != r && (o == rest || strings.HasSuffix(o, "."+rest)) }) {
				break
			}
			if !strings.HasPrefix(rest, "*") {
				name = rest
			}
		}
		if name == "" {
			name = "weight"
		}
		list = append(list, line{name, func(p Place) bool { return s.inside(p) && p.Role == r }})
	}
	return list
}
