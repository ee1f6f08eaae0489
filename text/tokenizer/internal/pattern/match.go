package pattern

import (
	"math"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/mergekit/mergekit/text/tokenizer/internal/ucd"
)

// frame is what to try when the way taken fails.
type frame struct {
	kind    uint8
	pc, pos int
	low     int  // frameGive: the least end
	left    int  // frameTake: how many more it can take
	set     *set // frameTake: of what
}

const (
	framePlain = iota
	frameGive  // a greedy repetition gives back one code point
	frameTake  // a lazy repetition takes one more
)

type machine struct {
	text  string
	stack []frame
	steps int
}

var machines = sync.Pool{New: func() any { return new(machine) }}

// run matches a program at pos and returns where the match ends, or -1. With ends not negative, the match must end there.
func (m *machine) run(code []inst, pos, ends int) int {
	base := len(m.stack)
	pc := 0
	for {
		if m.steps--; m.steps < 0 {
			break
		}
		in := &code[pc]
		ok := true
		pc++
		switch in.op {
		case opRunes:
			r, n := m.next(pos)
			ok = n > 0 && in.set.has(r)
			pos += n
		case opLiteral:
			ok = strings.HasPrefix(m.text[pos:], in.text)
			pos += len(in.text)
		case opSplit:
			m.stack = append(m.stack, frame{pc: in.y, pos: pos})
			pc = in.x
		case opJump:
			pc = in.x
		case opRepeat:
			pos, ok = m.repeat(in, pc, pos)
		case opPlace:
			ok = m.at(in.kind, pos)
		case opAtomic:
			end := m.run(in.sub, pos, -1)
			ok = end >= 0
			pos = end
		case opLook:
			ok = m.look(in, pos) != in.negate
		case opMatch:
			if ok = ends < 0 || pos == ends; ok {
				m.stack = m.stack[:base]
				return pos
			}
		}
		if !ok {
			if pc, pos, ok = m.back(base); !ok {
				break
			}
		}
	}
	m.stack = m.stack[:base]
	return -1
}

// back goes on at the newest frame above base.
func (m *machine) back(base int) (pc, pos int, ok bool) {
	for len(m.stack) > base {
		top := &m.stack[len(m.stack)-1]
		switch top.kind {
		case framePlain:
			m.stack = m.stack[:len(m.stack)-1]
			return top.pc, top.pos, true
		case frameGive:
			if top.pos > top.low {
				_, n := utf8.DecodeLastRuneInString(m.text[top.low:top.pos])
				top.pos -= n
				return top.pc, top.pos, true
			}
		case frameTake:
			if r, n := m.next(top.pos); n > 0 && top.left > 0 && top.set.has(r) {
				top.pos += n
				top.left--
				return top.pc, top.pos, true
			}
		}
		m.stack = m.stack[:len(m.stack)-1]
	}
	return 0, 0, false
}

// next returns the code point at pos and its length, which is 0 at the end.
func (m *machine) next(pos int) (rune, int) {
	if pos >= len(m.text) {
		return 0, 0
	}
	if c := m.text[pos]; c < utf8.RuneSelf {
		return rune(c), 1
	}
	return utf8.DecodeRuneInString(m.text[pos:])
}

func (m *machine) repeat(in *inst, pc, pos int) (end int, ok bool) {
	most := in.max
	if most == unbounded {
		most = math.MaxInt
	}
	low, count := pos, 0
	for count < most && (in.mode != lazy || count < in.min) {
		r, n := m.next(pos)
		if n == 0 || !in.set.has(r) {
			break
		}
		pos += n
		if count++; count == in.min {
			low = pos
		}
	}
	m.steps -= count
	if count < in.min {
		return pos, false
	}
	if in.mode == lazy && most > count {
		m.stack = append(m.stack, frame{kind: frameTake, pc: pc, pos: pos, left: most - count, set: in.set})
	} else if in.mode == greedy && pos > low {
		m.stack = append(m.stack, frame{kind: frameGive, pc: pc, pos: pos, low: low})
	}
	return pos, true
}

func (m *machine) look(in *inst, pos int) bool {
	if !in.behind {
		return m.run(in.sub, pos, -1) >= 0
	}
	start := pos
	for n := 0; n <= in.max; n++ {
		if n >= in.min && m.run(in.sub, start, pos) >= 0 {
			return true
		}
		if start == 0 {
			return false
		}
		_, size := utf8.DecodeLastRuneInString(m.text[:start])
		start -= size
	}
	return false
}

// at says whether an anchor holds at pos.
func (m *machine) at(kind byte, pos int) bool {
	end := len(m.text)
	switch kind {
	case '^':
		return pos == 0 || m.text[pos-1] == '\n' && pos < end
	case '$':
		return pos == end || m.text[pos] == '\n'
	case 'A':
		return pos == 0
	case 'z':
		return pos == end
	case 'Z':
		return pos == end || pos == end-1 && m.text[pos] == '\n'
	}
	before, after := false, false
	if pos > 0 {
		r, _ := utf8.DecodeLastRuneInString(m.text[:pos])
		before = word().has(r)
	}
	if r, n := m.next(pos); n > 0 {
		after = word().has(r)
	}
	return (before != after) == (kind == 'b')
}

var word = sync.OnceValue(func() *set {
	r, _ := ucd.Set("pattern:word")
	return newSet(r)
})
