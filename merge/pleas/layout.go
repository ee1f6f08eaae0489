package pleas

import (
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/model"
)

// side says whose a feature is.
type side uint8

const (
	both  side = iota // merged
	onlyA             // A's own
	onlyB             // B's own
)

// entry is one feature of the new network.
type entry struct {
	side side
	at   int // index on the parents' axis
}

// layout is an axis of the new network.
type layout []entry

// fixed is the layout of an axis that stays as it is.
func fixed(n int) layout {
	l := make(layout, n)
	for i := range l {
		l[i].at = i
	}
	return l
}

// spread makes every feature block consecutive entries.
func (l layout) spread(block int) layout {
	if block == 1 {
		return l
	}
	out := make(layout, 0, len(l)*block)
	for _, e := range l {
		for k := range block {
			out = append(out, entry{e.side, e.at*block + k})
		}
	}
	return out
}

// gathered is the inverse of spread.
func (l layout) gathered(block int) layout {
	out := make(layout, len(l)/block)
	for i := range out {
		out[i] = entry{l[i*block].side, l[i*block].at / block}
	}
	return out
}

// of are the positions of entries of some sides.
func (l layout) of(sides ...side) []int {
	list := []int{}
	for i, e := range l {
		if slices.Contains(sides, e.side) {
			list = append(list, i)
		}
	}
	return list
}

// units are a group with the order in which its units are kept separate.
type units struct {
	group    *symmetry.Group
	order    []int     // units, the first is the first to be kept separate
	residual float64   // squared distance of the parents' units, over the sum of their squares
	gain     []float64 // of keeping the first n separate, n from 0 on: their part of the residual
	separate int
	held     string // why no unit can be separate; "" if they can
}

// layout is the group's axis: the merged units in their order, then those of either parent.
func (u *units) layout() layout {
	apart := slices.Clone(u.order[:u.separate])
	slices.Sort(apart)
	var l layout
	for i := range u.group.Size {
		if _, found := slices.BinarySearch(apart, i); !found {
			l = append(l, entry{both, i})
		}
	}
	for _, s := range []side{onlyA, onlyB} {
		for _, i := range apart {
			l = append(l, entry{s, i})
		}
	}
	return l
}

// stretch is a part of an axis on which a group acts.
type stretch struct {
	u      *units
	offset int
	block  int
}

// axes finds what acts on an axis.
type axes map[string][]stretch

func axisKey(tensor string, axis int) string { return fmt.Sprint(axis, " ", tensor) }

func axesOf(groups []*units) (axes, error) {
	all := axes{}
	for _, u := range groups {
		for _, r := range u.group.Refs {
			if r.Tile != 1 {
				return nil, &model.InputError{Msg: fmt.Sprintf("group %s is tiled on %s, which is no plain network's", u.group.ID, r.Tensor)}
			}
			key := axisKey(r.Tensor, r.Axis)
			all[key] = append(all[key], stretch{u, r.Offset, r.Block})
		}
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b stretch) int { return a.offset - b.offset })
	}
	return all, nil
}

// layout is that of an axis which is size long in the parents.
func (x axes) layout(tensor string, axis, size int) layout {
	var l layout
	at := 0
	keep := func(to int) {
		for ; at < to; at++ {
			l = append(l, entry{both, at})
		}
	}
	for _, s := range x[axisKey(tensor, axis)] {
		keep(s.offset)
		for _, e := range s.u.layout().spread(s.block) {
			l = append(l, entry{e.side, e.at + s.offset})
		}
		at = s.offset + s.u.group.Size*s.block
	}
	keep(size)
	return l
}

// hold finds the groups whose units cannot be separate, and says why.
func hold(d *model.PlainDescription, groups []*units, x axes) {
	var list func(layers []model.PlainLayer, flow map[*units]bool) map[*units]bool
	written := func(l *model.PlainLayer) map[*units]bool {
		flow := map[*units]bool{}
		for _, s := range x[axisKey(l.Name+".weight", 0)] {
			flow[s.u] = true
		}
		return flow
	}
	list = func(layers []model.PlainLayer, flow map[*units]bool) map[*units]bool {
		for i := range layers {
			switch l := &layers[i]; l.Type {
			case "linear":
				flow = written(l)
			case "conv2d":
				if l.Groups > 1 && l.Groups == l.In[0] {
					continue // depthwise: the same features
				}
				flow = written(l)
				if l.Groups > 1 {
					for u := range flow {
						u.held = fmt.Sprintf("%s has %d groups of channels, which must stay equal", l.Name, l.Groups)
					}
				}
			case "layer_norm":
				for u := range flow {
					u.held = "a layer norm reads it, and no norm over both parents' units does what their two norms do"
				}
			case "residual":
				out := map[*units]bool{}
				for _, branch := range [][]model.PlainLayer{l.Layers, l.Shortcut} {
					for u := range list(branch, flow) {
						out[u] = true
					}
				}
				flow = out
			}
		}
		return flow
	}
	list(d.Layers, map[*units]bool{})
}

// depthwise says that a layer is a convolution of every channel by itself.
func depthwise(l *model.PlainLayer) bool {
	return l.Type == "conv2d" && l.Groups > 1 && l.Groups == l.In[0]
}
