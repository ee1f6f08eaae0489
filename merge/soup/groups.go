package soup

import (
	"strings"
)

// The granularities: which tensors share their numbers.
const (
	ByModel  = "model"  // all of them
	ByLayer  = "layer"  // those of a block; outside of blocks those of a module
	ByTensor = "tensor" // every one has its own
)

// Groups are tensors that share their numbers.
type Groups struct {
	Names []string
	of    map[string]int
}

// GroupTensors sorts tensors into groups, in the order of the tensors.
func GroupTensors(s *Set, granularity string) *Groups {
	g := &Groups{of: map[string]int{}}
	at := map[string]int{}
	for _, t := range s.Tensors {
		name := groupName(t.Name, granularity)
		i, ok := at[name]
		if !ok {
			i = len(g.Names)
			at[name], g.Names = i, append(g.Names, name)
		}
		g.of[t.Name] = i
	}
	return g
}

// groupName is the group of a tensor. A block is what a name has up to its first number (model.layers.3); what is in no block goes by
// its module (lm_head, model.norm).
func groupName(tensor, granularity string) string {
	switch granularity {
	case ByTensor:
		return tensor
	case ByLayer:
		parts := strings.Split(tensor, ".")
		for i, p := range parts[:len(parts)-1] {
			if p != "" && strings.Trim(p, "0123456789") == "" {
				return strings.Join(parts[:i+1], ".")
			}
		}
		if len(parts) > 1 {
			return strings.Join(parts[:len(parts)-1], ".")
		}
		return tensor
	}
	return "all"
}
