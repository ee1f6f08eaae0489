package chat

import (
	"strings"
	"time"
)

// limits bound what one rendering may cost, so that no template hangs the program or takes all memory. A conversation of
// many megabytes stays far below.
type limits struct {
	steps int // nodes visited, items walked
	work  int // bytes read by operations
	grow  int // bytes made by operations
	depth int // of nested nodes, so of macros as well
}

var defaultLimits = limits{steps: 1 << 25, work: 8 << 30, grow: 1 << 30, depth: 2500}

// state is one rendering.
type state struct {
	limits limits // what is left
	depth  int
	out    *output // where text goes
	root   *output
	date   time.Time
	spans  []Span
	texts  []string // of the spans
}

// output is the text of the template, of a macro or of a block that is captured.
type output struct{ strings.Builder }

func (st *state) step(n int) error {
	if st.limits.steps -= n; st.limits.steps < 0 {
		return failf(KindLimit, "the template takes too many steps; does it loop without end?")
	}
	return nil
}

// work accounts for reading n bytes.
func (st *state) work(n int) error {
	if st.limits.work -= n; st.limits.work < 0 {
		return failf(KindLimit, "the template takes too long; does it loop without end?")
	}
	return nil
}

// grow accounts for making n bytes; it is called before they are made.
func (st *state) grow(n int) error {
	if n < 0 || n > st.limits.grow {
		st.limits.grow = 0
		return failf(KindLimit, "the template makes too much text; does it grow without end?")
	}
	st.limits.grow -= n
	return st.work(n)
}

// growItems accounts for a list of n items.
func (st *state) growItems(n int) error {
	if n < 0 || n > st.limits.grow/16 {
		return st.grow(-1)
	}
	if err := st.step(n/4 + 1); err != nil {
		return err
	}
	return st.grow(16 * n)
}

// enter goes one node deeper; every caller leaves again.
func (st *state) enter() error {
	if st.depth++; st.depth > st.limits.depth {
		return failf(KindLimit, "the template nests too deeply; does a macro call itself without end?")
	}
	return st.step(1)
}

func (st *state) leave() { st.depth-- }

func (st *state) write(s string) error {
	if err := st.grow(len(s)); err != nil {
		return err
	}
	st.out.WriteString(s)
	return nil
}

// capture runs f with the output going to a string.
func (st *state) capture(f func() error) (string, error) {
	around := st.out
	st.out = &output{}
	err := f()
	s := st.out.String()
	st.out = around
	return s, err
}

// scope holds the names that one block has set.
type scope struct {
	names  []string
	values []any
	parent *scope
}

func (s *scope) get(name string) (any, bool) {
	for ; s != nil; s = s.parent {
		for i := len(s.names) - 1; i >= 0; i-- {
			if s.names[i] == name {
				return s.values[i], true
			}
		}
	}
	return nil, false
}

func (s *scope) set(name string, v any) {
	for i, n := range s.names {
		if n == name {
			s.values[i] = v
			return
		}
	}
	s.names, s.values = append(s.names, name), append(s.values, v)
}

func (s *scope) child() *scope { return &scope{parent: s} }
