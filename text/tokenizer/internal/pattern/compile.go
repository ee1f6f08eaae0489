package pattern

type op uint8

const (
	opRunes   op = iota // one code point of set
	opLiteral           // the bytes of text
	opSplit             // go on at x; if that fails, at y
	opJump              // go on at x
	opRepeat            // min to max code points of set
	opPlace             // an anchor
	opLook              // sub matches here, or does not
	opAtomic            // sub matches, and only its first way
	opMatch
)

type inst struct {
	op       op
	mode     mode
	kind     byte // of an anchor
	behind   bool
	negate   bool
	x, y     int
	min, max int // code points of opRepeat, or of what opLook looks back over
	set      *set
	text     string
	sub      []inst
}

// maxProgram bounds the instructions of a pattern: {n,m} is compiled by copying.
const maxProgram = 20_000

type compiler struct {
	code  []inst
	total *int
	err   error
}

func (c *compiler) emit(in inst) int {
	if *c.total++; *c.total > maxProgram && c.err == nil {
		c.err = errTooLarge
	}
	if c.err == nil {
		c.code = append(c.code, in)
	}
	return len(c.code) - 1
}

// patch sets the targets of a split or a jump.
func (c *compiler) patch(at, x, y int) {
	if c.err == nil {
		c.code[at].x, c.code[at].y = x, y
	}
}

func (c *compiler) sub(n node) []inst {
	inner := &compiler{total: c.total, err: c.err}
	inner.node(n)
	inner.emit(inst{op: opMatch})
	c.err = inner.err
	return inner.code
}

func (c *compiler) node(n node) {
	if c.err != nil {
		return
	}
	switch n := n.(type) {
	case runes:
		if r, ok := n.set.single(); ok {
			c.emit(inst{op: opLiteral, text: string(r)})
			return
		}
		c.emit(inst{op: opRunes, set: n.set})
	case seq:
		for i := 0; i < len(n.list); i++ {
			text := ""
			for ; i < len(n.list); i++ {
				r, ok := literal(n.list[i])
				if !ok {
					break
				}
				text += string(r)
			}
			if text != "" {
				c.emit(inst{op: opLiteral, text: text})
			}
			if i < len(n.list) {
				c.node(n.list[i])
			}
		}
	case alt:
		var ends []int
		for i, m := range n.list {
			split := -1
			if i+1 < len(n.list) {
				split = c.emit(inst{op: opSplit})
			}
			c.node(m)
			if split >= 0 {
				ends = append(ends, c.emit(inst{op: opJump}))
				c.patch(split, split+1, len(c.code))
			}
		}
		for _, e := range ends {
			c.patch(e, len(c.code), 0)
		}
	case times:
		c.times(n)
	case look:
		in := inst{op: opLook, behind: n.behind, negate: n.negate, sub: c.sub(n.body)}
		if n.behind {
			if in.min, in.max = width(n.body); in.max == unbounded && c.err == nil {
				c.err = errLookBehind
			}
		}
		c.emit(in)
	case atomic:
		c.emit(inst{op: opAtomic, sub: c.sub(n.body)})
	case place:
		c.emit(inst{op: opPlace, kind: n.kind})
	}
}

// literal returns the code point of a node that matches only one.
func literal(n node) (rune, bool) {
	if r, ok := n.(runes); ok {
		return r.set.single()
	}
	return 0, false
}

func (c *compiler) times(n times) {
	if r, ok := n.body.(runes); ok {
		c.emit(inst{op: opRepeat, set: r.set, min: n.min, max: n.max, mode: n.mode})
		return
	}
	if n.mode == possessive {
		c.emit(inst{op: opAtomic, sub: c.sub(times{n.body, n.min, n.max, greedy})})
		return
	}
	split := func() int { return c.emit(inst{op: opSplit}) }
	fork := func(at, body, out int) {
		if n.mode == lazy {
			body, out = out, body
		}
		c.patch(at, body, out)
	}
	for range n.min {
		c.node(n.body)
	}
	if n.max == unbounded {
		if least, _ := width(n.body); least == 0 {
			if c.err == nil {
				c.err = errEmptyLoop
			}
			return
		}
		at := split()
		c.node(n.body)
		c.patch(c.emit(inst{op: opJump}), at, 0)
		fork(at, at+1, len(c.code))
		return
	}
	var splits []int
	for range n.max - n.min {
		if c.err != nil {
			return
		}
		splits = append(splits, split())
		c.node(n.body)
	}
	for _, at := range splits {
		fork(at, at+1, len(c.code))
	}
}

// width returns the least and the most code points that a node can match; the most can be unbounded.
func width(n node) (least, most int) {
	const limit = 1 << 20 // beyond it, no exact number is of use
	switch n := n.(type) {
	case runes:
		return 1, 1
	case seq:
		for _, m := range n.list {
			a, b := width(m)
			least = min(least+a, limit)
			if b == unbounded || most == unbounded {
				most = unbounded
			} else {
				most += b
			}
		}
	case alt:
		for i, m := range n.list {
			a, b := width(m)
			if i == 0 || a < least {
				least = a
			}
			if b == unbounded || most == unbounded {
				most = unbounded
			} else {
				most = max(most, b)
			}
		}
	case times:
		a, b := width(n.body)
		least = min(a*n.min, limit)
		if b == unbounded || n.max == unbounded {
			most = unbounded
		} else {
			most = b * n.max
		}
	case atomic:
		return width(n.body)
	}
	if most > limit {
		most = unbounded
	}
	return least, most
}

// first marks the bytes with which a match of n can begin, and says whether it can be empty.
func first(n node, marks *[256]bool) (empty bool) {
	switch n := n.(type) {
	case runes:
		n.set.first(marks)
		return false
	case seq:
		for _, m := range n.list {
			if !first(m, marks) {
				return false
			}
		}
		return true
	case alt:
		for _, m := range n.list {
			empty = first(m, marks) || empty
		}
		return empty
	case times:
		return first(n.body, marks) || n.min == 0
	case atomic:
		return first(n.body, marks)
	}
	return true // anchors and look-arounds
}
