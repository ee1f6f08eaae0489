package data

import "slices"

// packings are the ways to put examples into sequences.
var packings = []string{"none", "bfd", "bfd_split", "wrapped"}

// piece is a stretch of an example that goes into a sequence.
type piece struct{ example, from, to int }

func (p piece) len() int { return p.to - p.from }

// pack puts examples, in the given order, into sequences of at most capacity tokens.
//
//   - bfd: best fit, decreasing: the longest first, each into the fullest sequence that has room, ties to the oldest. What is
//     longer than capacity loses its end.
//   - bfd_split: the same after longer ones are cut into pieces.
//   - wrapped: one stream, cut every capacity tokens.
//   - none: one example a sequence.
func pack(how string, order []int, length func(i int) int, capacity int) [][]piece {
	var pieces []piece
	for _, i := range order {
		n := length(i)
		switch how {
		case "bfd_split":
			for from := 0; from < n; from += capacity {
				pieces = append(pieces, piece{i, from, min(from+capacity, n)})
			}
		case "wrapped":
			pieces = append(pieces, piece{i, 0, n})
		default:
			pieces = append(pieces, piece{i, 0, min(n, capacity)})
		}
	}
	switch how {
	case "wrapped":
		return wrap(pieces, capacity)
	case "bfd", "bfd_split":
		return bestFit(pieces, capacity)
	}
	out := make([][]piece, len(pieces))
	for i, p := range pieces {
		out[i] = []piece{p}
	}
	return out
}

// wrap cuts one stream every capacity tokens.
func wrap(pieces []piece, capacity int) (out [][]piece) {
	room := 0
	for _, p := range pieces {
		for p.len() > 0 {
			if room == 0 {
				out, room = append(out, nil), capacity
			}
			n := min(p.len(), room)
			out[len(out)-1] = append(out[len(out)-1], piece{p.example, p.from, p.from + n})
			p.from, room = p.from+n, room-n
		}
	}
	return out
}

// bestFit packs the longest first. Sequences with the same room wait in a queue, so that the oldest of the fullest comes out.
func bestFit(pieces []piece, capacity int) (out [][]piece) {
	pieces = slices.Clone(pieces)
	slices.SortStableFunc(pieces, func(a, b piece) int { return b.len() - a.len() })
	open := make([][]int, capacity+1) // sequences by room that is left
	tree := newMinTree(capacity + 1)  // which rooms exist
	for _, p := range pieces {
		room := tree.atLeast(p.len())
		k := len(out)
		if room < 0 {
			out, room = append(out, nil), capacity
		} else {
			k, open[room] = open[room][0], open[room][1:]
			if len(open[room]) == 0 {
				tree.set(room, false)
			}
		}
		out[k] = append(out[k], p)
		if left := room - p.len(); left > 0 {
			at, _ := slices.BinarySearch(open[left], k)
			open[left] = slices.Insert(open[left], at, k)
			tree.set(left, true)
		}
	}
	return out
}

// minTree is a set of small numbers that finds the next one at or above a bound.
type minTree struct {
	size int
	has  []bool // a heap-shaped tree: a node says whether a leaf below it is set
}

func newMinTree(n int) *minTree {
	size := 1
	for size < n {
		size *= 2
	}
	return &minTree{size, make([]bool, 2*size)}
}

func (t *minTree) set(i int, on bool) {
	i += t.size
	t.has[i] = on
	for i /= 2; i > 0; i /= 2 {
		t.has[i] = t.has[2*i] || t.has[2*i+1]
	}
}

// atLeast returns the smallest member that is n or more, -1 if there is none.
func (t *minTree) atLeast(n int) int {
	i := n + t.size
	if n >= t.size {
		return -1
	}
	if !t.has[i] {
		for i > 1 && (i%2 == 1 || !t.has[i+1]) {
			i /= 2
		}
		if i <= 1 {
			return -1
		}
		i++
	}
	for i < t.size {
		i *= 2
		if !t.has[i] {
			i++
		}
	}
	return i - t.size
}
