package match

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
)

// plan says how a group that exchanges blocks is built: which tensors hold its blocks, and what acts inside of them. Every block has the
// same groups inside.
type plan struct {
	size   int
	tracks []*track
	slots  []*slot
	nested *nested // blocks inside of blocks: the query heads that share a key; nil: none
}

// track is a stretch of tensors with one feature after the other, cut into blocks. Tensors that are cut and acted on alike, such as a weight
// and its bias, are one track: their inner products are summed.
type track struct {
	block int
	refs  []symmetry.Ref
	rest  []spot // what no slot acts on
}

// slot is one group inside of a block, in all blocks.
type slot struct {
	groups    []*symmetry.Group // by block
	stretches []stretch
	within    bool // some stretch lies inside of the nested blocks
}

func (s *slot) first() *symmetry.Group { return s.groups[0] }

// spot is an entry of a track: relative to the block, or to nested block sub of it.
type spot struct{ sub, off int }

// stretch is where a slot's features lie in a block.
type stretch struct {
	track int
	spot
	read  bool
	block int // entries of one feature
}

// nested are the blocks inside of a block.
type nested struct {
	size   int
	groups []*symmetry.Group // by block
	at     map[int][2]int    // by track: offset in the block, and entries of one nested block
}

// inside is a ref of a child within one of its root's blocks.
type inside struct {
	child      int // which of the block's children
	role       symmetry.Role
	offset     int
	block, per int // entries of one feature, and of all of them: one tile
	tile       int
}

// newPlan sorts a unit's groups.
func newPlan(u *unit) (*plan, error) {
	root := u.root
	fault := func(g *symmetry.Group, format string, args ...any) error {
		return &align.Error{Group: g.ID, Msg: fmt.Sprintf(format, args...), Hint: "give every block of the parent the same groups, one level deep but for a head_group"}
	}
	if root.Kind != symmetry.HeadGroup && root.Kind != symmetry.Perm {
		return nil, fault(root, "has groups inside, but is %s and not head_group", root.Kind)
	}
	p := &plan{size: root.Size}
	children := make([][]*symmetry.Group, root.Size)
	for _, c := range u.children {
		switch {
		case c.Parent != root.ID:
			return nil, fault(c, "is inside of %s, which is inside of %s", c.Parent, root.ID)
		case c.Block < 0 || c.Block >= root.Size:
			return nil, fault(c, "is in block %d of %d", c.Block, root.Size)
		}
		children[c.Block] = append(children[c.Block], c)
	}
	for b, list := range children {
		if !slices.EqualFunc(list, children[0], func(x, y *symmetry.Group) bool {
			return x.Kind == y.Kind && x.Size == y.Size && x.Restrict == y.Restrict && x.Interleaved == y.Interleaved && x.Positive == y.Positive
		}) {
			return nil, fault(root, "blocks 0 and %d have different groups inside", b)
		}
	}
	number := map[*symmetry.Group]int{} // of a group inside: which slot
	for i, c := range children[0] {
		if c.Kind == symmetry.HeadGroup && p.nested != nil {
			return nil, fault(c, "a second head_group inside of a block")
		}
		if c.Kind == symmetry.HeadGroup {
			p.nested = &nested{size: c.Size, at: map[int][2]int{}}
			for _, list := range children {
				p.nested.groups = append(p.nested.groups, list[i])
				number[list[i]] = -1
			}
			continue
		}
		s := &slot{}
		for _, list := range children {
			s.groups = append(s.groups, list[i])
			number[list[i]] = len(p.slots)
		}
		p.slots = append(p.slots, s)
	}
	byLook := map[string]*track{}
	for _, ref := range root.Refs {
		if ref.Silent {
			continue
		}
		for tile := range ref.Tile {
			r := ref
			r.Offset += tile * root.Size * ref.Block
			r.Tile = 1
			var look []inside
			for b := range root.Size {
				now := insides(children[b], number, r, b)
				if b == 0 {
					look = now
				} else if !slices.Equal(look, now) {
					return nil, fault(root, "what acts inside of blocks 0 and %d of %s is different", b, r.Tensor)
				}
			}
			key := fmt.Sprint(r.Block, look)
			t := byLook[key]
			if t == nil {
				t = &track{block: r.Block}
				byLook[key] = t
				p.tracks = append(p.tracks, t)
				if err := p.cut(t, look, fault, u); err != nil {
					return nil, err
				}
			}
			t.refs = append(t.refs, r)
		}
	}
	return p, nil
}

// insides lists the children's refs inside of block b of r.
func insides(children []*symmetry.Group, number map[*symmetry.Group]int, r symmetry.Ref, b int) []inside {
	from := r.Offset + b*r.Block
	var out []inside
	for _, c := range children {
		for _, x := range c.Refs {
			if x.Silent || x.Tensor != r.Tensor || x.Axis != r.Axis || x.Offset < from || x.Offset >= from+r.Block {
				continue
			}
			out = append(out, inside{number[c], x.Role, x.Offset - from, x.Block, c.Span(x) / x.Tile, x.Tile})
		}
	}
	slices.SortFunc(out, func(x, y inside) int { return cmp.Or(cmp.Compare(x.offset, y.offset), cmp.Compare(x.child, y.child)) })
	return out
}

// cut says where in a track's blocks the slots lie.
func (p *plan) cut(t *track, look []inside, fault func(*symmetry.Group, string, ...any) error, u *unit) error {
	n := len(p.tracks) - 1
	covered := make([]bool, t.block)
	locate := func(off, length int) (spot, bool) {
		at, ok := [2]int{}, false
		if p.nested != nil {
			at, ok = p.nested.at[n]
		}
		if !ok || off < at[0] || off >= at[0]+p.nested.size*at[1] {
			return spot{-1, off}, true
		}
		s := spot{(off - at[0]) / at[1], (off - at[0]) % at[1]}
		return s, s.off+length <= at[1]
	}
	for _, x := range look {
		if x.child != -1 {
			continue
		}
		if _, twice := p.nested.at[n]; twice || x.tile != 1 {
			return fault(p.nested.groups[0], "acts twice on one block of %s", u.root.ID)
		}
		p.nested.at[n] = [2]int{x.offset, x.block}
	}
	for _, x := range look {
		if x.child == -1 {
			continue
		}
		s := p.slots[x.child]
		for tile := range x.tile {
			off := x.offset + tile*x.per
			at, ok := locate(off, x.per)
			if !ok || off+x.per > t.block {
				return fault(s.first(), "reaches over the border of a block of %s", u.root.ID)
			}
			if s.first().Restrict != symmetry.Positive {
				for i := range x.per {
					covered[off+i] = true
				}
			}
			if x.role == symmetry.Gain && s.first().Kind != symmetry.Perm {
				return fault(s.first(), "has gains inside of a block")
			}
			s.within = s.within || at.sub >= 0
			s.stretches = append(s.stretches, stretch{track: n, spot: at, read: x.role == symmetry.Read, block: x.block})
		}
	}
	for i, c := range covered {
		if !c {
			at, _ := locate(i, 1)
			t.rest = append(t.rest, at)
		}
	}
	return nil
}

// start is the first entry of a nested block in a block of a track; 0 for what is in none.
func (p *plan) start(track, sub int) int {
	if sub < 0 {
		return 0
	}
	at := p.nested.at[track]
	return at[0] + sub*at[1]
}
