package method

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph" //nolint:revive // graph files read like the formula
)

// Cut is where a ranking by magnitude is cut: elements whose key lies above Key are in, and of those equal to Key the
// ones before position End (the lower index goes first).
type Cut struct {
	Key uint32
	End Position
}

// Nothing is a cut that keeps no element: no key lies above it and none of the equal ones is taken.
var Nothing = Cut{Key: 1<<32 - 1}

// Everything is a cut that keeps every element.
func (t *Task) Everything() Cut { return Cut{Key: 0, End: Position(t.N)} }

// SetCut passes a cut to a kernel that uses Chunk.Above under the same name.
func (v Values) SetCut(name string, c Cut) {
	v[name+".key"] = c.Key
	v[name+".end"] = c.End
}

// Above marks the elements that a cut keeps, given their keys (Uint32).
func (c *Chunk) Above(key *Node, name string) *Node {
	limit := c.Uint(name + ".key")
	return LogicalOr(GreaterThan(key, limit),
		LogicalAnd(Equal(key, limit), c.Before(name+".end")))
}

const (
	highBins = 1 << 15 // keys are below 2^31
	lowBins  = 1 << 16
)

// Rank asks for the Count largest keys of one array.
type Rank struct {
	Array int   // index into what the keys function returns
	Count int64 // how many of the largest keys are in
}

// LargestCuts finds, exactly and without sorting, where the Count largest keys end: a histogram of the high half of the
// keys over all chunks, one of the low half inside the bin found, and a count of ties where only some of them are in.
// keys builds the arrays (Uint32, below 2^31) on a chunk; name must identify them as a Kernel's name does. v holds the
// Values that keys needs.
func (t *Task) LargestCuts(name string, layout Layout, inputs []int, keys func(c *Chunk) []*Node, v Values, ranks []Rank) ([]Cut, error) {
	cuts := make([]Cut, len(ranks))
	open := make([]int, 0, len(ranks)) // ranks that need a search
	for r, rank := range ranks {
		switch {
		case rank.Count <= 0:
			cuts[r] = Nothing
		case rank.Count >= t.N:
			cuts[r] = t.Everything()
		default:
			open = append(open, r)
		}
	}
	if len(open) == 0 {
		return cuts, nil
	}
	arrays := map[int]bool{}
	for _, r := range open {
		arrays[ranks[r].Array] = true
	}

	high, err := t.Run(&Kernel{Name: fmt.Sprintf("%s/high%v", name, sortedKeys(arrays)), Layout: layout, Inputs: inputs, Build: func(c *Chunk) {
		for a, key := range keys(c) {
			if arrays[a] {
				c.Histogram(fmt.Sprint(a), BitwiseShiftRightLogicalScalar(key, uint32(16)), highBins)
			}
		}
	}}, v)
	if err != nil {
		return nil, err
	}
	bins := make([]uint32, len(ranks))
	left := make([]int64, len(ranks)) // how many are still to be taken within the bin
	values := v.clone()
	for _, r := range open {
		bins[r], left[r] = cutBin(high.Histograms[fmt.Sprint(ranks[r].Array)], ranks[r].Count)
		values[fmt.Sprintf("bin.%d", r)] = bins[r]
	}

	outside := uint32(lowBins)
	low, err := t.Run(&Kernel{Name: fmt.Sprintf("%s/low%v", name, arraysOf(ranks, open)), Layout: layout, Inputs: inputs, Build: func(c *Chunk) {
		ks := keys(c)
		for _, r := range open {
			key := ks[ranks[r].Array]
			in := Equal(BitwiseShiftRightLogicalScalar(key, uint32(16)), c.Uint(fmt.Sprintf("bin.%d", r)))
			c.Histogram(fmt.Sprint(r), Where(in, BitwiseAnd(key, Const(c.Graph, uint32(lowBins-1))), Const(c.Graph, outside)), lowBins)
		}
	}}, values)
	if err != nil {
		return nil, err
	}
	var split []int // ranks that take only some of the elements equal to their key
	for _, r := range open {
		h := low.Histograms[fmt.Sprint(r)]
		bin, take := cutBin(h, left[r])
		cuts[r] = Cut{Key: bins[r]<<16 | bin, End: Position(t.N)}
		left[r] = take
		if take < h[bin] {
			split = append(split, r)
			values[fmt.Sprintf("key.%d", r)] = cuts[r].Key
		}
	}
	if len(split) == 0 {
		return cuts, nil
	}
	return cuts, t.splitTies(name, layout, inputs, keys, values, ranks, split, left, cuts)
}

// splitTies finds the position after the left[r]-th element whose key equals the cut's.
func (t *Task) splitTies(name string, layout Layout, inputs []int, keys func(c *Chunk) []*Node, v Values, ranks []Rank, split []int, left []int64, cuts []Cut) error {
	equal := func(c *Chunk, r int) *Node {
		return Equal(keys(c)[ranks[r].Array], c.Uint(fmt.Sprintf("key.%d", r)))
	}
	counts, err := t.Run(&Kernel{Name: fmt.Sprintf("%s/ties%v%v", name, split, arraysOf(ranks, split)), Layout: layout, Inputs: inputs, Build: func(c *Chunk) {
		for _, r := range split {
			c.Count(fmt.Sprint(r), equal(c, r))
		}
	}}, v)
	if err != nil {
		return err
	}
	for _, r := range split {
		chunk, before := 0, int64(0)
		for per := counts.Chunks[fmt.Sprint(r)]; before+int64(per[chunk]) < left[r]; chunk++ {
			before += int64(per[chunk])
		}
		found, err := t.RunChunk(&Kernel{Name: fmt.Sprintf("%s/tie%d.%d", name, r, ranks[r].Array), Layout: layout, Inputs: inputs, Build: func(c *Chunk) {
			c.Array("equal", ConvertDType(equal(c, r), uint32Type))
		}}, v, chunk)
		if err != nil {
			return err
		}
		want := left[r] - before
		for i, e := range found.Arrays["equal"] {
			if e != 0 {
				if want--; want == 0 {
					cuts[r].End = Position(counts.Starts[chunk] + int64(i) + 1)
					break
				}
			}
		}
		if want != 0 {
			return t.Errorf("%s: ties of rank %d were counted but not found again: the input changed during the merge", name, r)
		}
	}
	return nil
}

// cutBin finds the bin in which the count-th largest value lies and how many of that bin are still in.
func cutBin(h []int64, count int64) (bin uint32, take int64) {
	for b := len(h) - 1; b >= 0; b-- {
		if count <= h[b] {
			return uint32(b), count
		}
		count -= h[b]
	}
	return 0, 0
}

func arraysOf(ranks []Rank, which []int) []int {
	out := make([]int, len(which))
	for i, r := range which {
		out[i] = ranks[r].Array
	}
	return out
}

func sortedKeys(m map[int]bool) []int {
	var out []int
	for i := 0; len(out) < len(m); i++ {
		if m[i] {
			out = append(out, i)
		}
	}
	return out
}

func (v Values) clone() Values {
	out := make(Values, len(v)+4)
	for k, x := range v {
		out[k] = x
	}
	return out
}

const uint32Type = dtypes.Uint32

// orderStatistics returns the keys at the given ranks, counted from the smallest key, 0. counted, unless nil, says how
// often each element counts.
func (t *Task) orderStatistics(name string, layout Layout, key func(c *Chunk) *Node, v Values, counted Stream, ranks []int64) ([]uint32, error) {
	values := v.clone()
	if counted != nil {
		name += "/counted"
		values["counted"] = counted
	}
	histogram := func(c *Chunk, name string, x *Node, bins int) {
		if counted != nil {
			c.WeightedHistogram(name, x, c.Stream("counted"), bins)
		} else {
			c.Histogram(name, x, bins)
		}
	}
	high, err := t.Run(&Kernel{Name: name + "/high", Layout: layout, Build: func(c *Chunk) {
		histogram(c, "high", BitwiseShiftRightLogicalScalar(key(c), uint32(16)), highBins)
	}}, values)
	if err != nil {
		return nil, err
	}
	bins, rests := make([]uint32, len(ranks)), make([]int64, len(ranks))
	for r, rank := range ranks {
		bins[r], rests[r] = rankBin(high.Histograms["high"], rank)
		values[fmt.Sprintf("bin.%d", r)] = bins[r]
	}
	low, err := t.Run(&Kernel{Name: fmt.Sprintf("%s/low%d", name, len(ranks)), Layout: layout, Build: func(c *Chunk) {
		k := key(c)
		for r := range ranks {
			in := Equal(BitwiseShiftRightLogicalScalar(k, uint32(16)), c.Uint(fmt.Sprintf("bin.%d", r)))
			histogram(c, fmt.Sprint(r), Where(in, BitwiseAnd(k, Const(c.Graph, uint32(lowBins-1))), Const(c.Graph, uint32(lowBins))), lowBins)
		}
	}}, values)
	if err != nil {
		return nil, err
	}
	out := make([]uint32, len(ranks))
	for r := range ranks {
		bin, _ := rankBin(low.Histograms[fmt.Sprint(r)], rests[r])
		out[r] = bins[r]<<16 | bin
	}
	return out, nil
}

// rankBin finds the bin that holds the value of a rank counted from the smallest, and its rank within the bin.
func rankBin(h []int64, rank int64) (bin uint32, within int64) {
	for b, n := range h {
		if rank < n {
			return uint32(b), rank
		}
		rank -= n
	}
	return uint32(len(h) - 1), 0
}
