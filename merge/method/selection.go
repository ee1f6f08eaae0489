package method

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Cut is where a ranking by magnitude is cut: elements whose key lies above Key are in, and of those equal to Key the
// ones before position End (the lower index goes first).
type Cut struct {
	Key uint32
	End Position
}

// Nothing is a cut that keeps no element: keys are below 2^31.
var Nothing = Cut{Key: 1 << 31}

// Everything is a cut that keeps every element.
func (t *Task) Everything() Cut { return Cut{Key: 0, End: Position(t.N)} }

// SetCut passes a cut to a kernel that uses Chunk.Above under the same name.
func (v Values) SetCut(name string, c Cut) {
	v[name+".key"] = c.Key
	v[name+".end"] = c.End
}

// Above marks the elements that a cut keeps, given their keys (Uint32). Where equal keys are out, the smallest key that is
// in lies one higher.
func (c *Chunk) Above(key *Node, name string) *Node {
	limit := c.Uint(name + ".key")
	return GreaterOrEqual(key, Where(c.Before(name+".end"), limit, AddScalar(limit, uint32(1))))
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

// selection is one search for cuts.
type selection struct {
	t      *Task
	name   string
	layout Layout
	inputs []int
	keys   func(c *Chunk) []*Node
	values Values
	ranks  []Rank
	open   []int // ranks that need a search
	cuts   []Cut
}

// LargestCuts finds, exactly and without sorting, where the Count largest keys end. A sparse sample tells in which narrow
// window of keys each cut lies; one pass over all elements counts what is above the window and, by key, what is in it. Where
// there is no sample, or it misled, a histogram of the high half of the keys finds the window first. keys builds the arrays
// (Uint32, below 2^31) on a chunk; name must identify them as a Kernel's name does. v holds the Values that keys needs.
func (t *Task) LargestCuts(name string, layout Layout, inputs []int, keys func(c *Chunk) []*Node, v Values, ranks []Rank) ([]Cut, error) {
	s := &selection{t: t, name: name, layout: layout, inputs: inputs, keys: keys, values: v.clone(), ranks: ranks, cuts: make([]Cut, len(ranks))}
	for r, rank := range ranks {
		switch {
		case rank.Count <= 0:
			s.cuts[r] = Nothing
		case rank.Count >= t.N:
			s.cuts[r] = t.Everything()
		default:
			s.open = append(s.open, r)
		}
	}
	if len(s.open) == 0 {
		return s.cuts, nil
	}
	found, err := s.bySample()
	if err == nil && !found {
		err = s.byHistogram()
	}
	return s.cuts, err
}

// sampleEvery is how sparse the sample is that finds the windows.
const sampleEvery = 16

// windowBins is the width of a window: two bins of the high half, so that a cut is nowhere near both of its ends.
const windowBins = 2 * lowBins

// bySample looks for the cuts in windows that a sample proposes; found is false when a cut lies elsewhere.
func (s *selection) bySample() (found bool, err error) {
	high, ok, err := s.t.Runner.RunSparse(s.t, s.highKernel(), s.values, sampleEvery)
	if err != nil || !ok {
		return false, err
	}
	lows := make([]uint32, len(s.ranks))
	for _, r := range s.open {
		h := high.Histograms[fmt.Sprint(s.ranks[r].Array)]
		sampled := int64(0)
		for _, n := range h {
			sampled += n
		}
		bin, take := cutBin(h, int64(float64(s.ranks[r].Count)*float64(sampled)/float64(s.t.N)))
		if bin > 0 && (2*take >= h[bin] || bin == highBins-1) {
			bin--
		}
		lows[r] = bin << 16
	}
	return s.within(lows, windowBins, nil)
}

// byHistogram finds the bin of each cut's high half first.
func (s *selection) byHistogram() error {
	high, err := s.t.Run(s.highKernel(), s.values)
	if err != nil {
		return err
	}
	lows, above := make([]uint32, len(s.ranks)), make([]int64, len(s.ranks))
	for _, r := range s.open {
		count := s.ranks[r].Count
		bin, take := cutBin(high.Histograms[fmt.Sprint(s.ranks[r].Array)], count)
		lows[r], above[r] = bin<<16, count-take
	}
	found, err := s.within(lows, lowBins, above)
	if err == nil && !found {
		err = s.t.Errorf("%s: a cut was found and not found again: the input changed during the merge", s.name)
	}
	return err
}

// highKernel counts the high halves of the keys.
func (s *selection) highKernel() *Kernel {
	arrays := map[int]bool{}
	for _, r := range s.open {
		arrays[s.ranks[r].Array] = true
	}
	return &Kernel{Name: fmt.Sprintf("%s/high%v", s.name, sortedKeys(arrays)), Layout: s.layout, Inputs: s.inputs, Build: func(c *Chunk) {
		for a, key := range s.keys(c) {
			if arrays[a] {
				c.Histogram(fmt.Sprint(a), BitwiseShiftRightLogicalScalar(key, uint32(16)), highBins)
			}
		}
	}}
}

// within finds the cuts if each lies among the width keys from its low on. above says how many keys lie beyond each window;
// nil: that is counted, too.
func (s *selection) within(lows []uint32, width uint32, above []int64) (found bool, err error) {
	counts := above == nil
	for _, r := range s.open {
		s.values[fmt.Sprintf("low.%d", r)], s.values[fmt.Sprintf("end.%d", r)] = lows[r], lows[r]+width
	}
	stats, err := s.t.Run(&Kernel{Name: fmt.Sprintf("%s/within%d%v%v", s.name, width, s.open, arraysOf(s.ranks, s.open)), Layout: s.layout, Inputs: s.inputs, Build: func(c *Chunk) {
		ks := s.keys(c)
		for _, r := range s.open {
			key := ks[s.ranks[r].Array]
			if counts {
				c.Count(fmt.Sprintf("above.%d", r), GreaterOrEqual(key, c.Uint(fmt.Sprintf("end.%d", r))))
			}
			// Keys below the window wrap around to large numbers, which are not counted either.
			c.HistogramByChunk(fmt.Sprint(r), Sub(key, c.Uint(fmt.Sprintf("low.%d", r))), int(width))
		}
	}}, s.values)
	if err != nil {
		return false, err
	}
	for _, r := range s.open {
		left := s.ranks[r].Count
		if counts {
			left -= int64(stats.Totals[fmt.Sprintf("above.%d", r)])
		} else {
			left -= above[r]
		}
		h := stats.Histograms[fmt.Sprint(r)]
		inside := int64(0)
		for _, n := range h {
			inside += n
		}
		if left <= 0 || left > inside {
			return false, nil
		}
		bin, take := cutBin(h, left)
		s.cuts[r] = Cut{Key: lows[r] + bin, End: Position(s.t.N)}
		if take < h[bin] {
			if s.cuts[r].End, err = s.tieEnd(r, bin, take, stats); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// tieEnd finds the position after the take-th element whose key is the cut's.
func (s *selection) tieEnd(r int, bin uint32, take int64, stats *Stats) (Position, error) {
	chunk, before := 0, int64(0)
	for _, bins := range stats.ByChunk[fmt.Sprint(r)] {
		n := int64(0)
		if i, ok := slices.BinarySearchFunc(bins, bin, func(b BinCount, bin uint32) int { return cmp.Compare(b.Bin, bin) }); ok {
			n = int64(bins[i].Count)
		}
		if before+n >= take {
			break
		}
		before += n
		chunk++
	}
	key := fmt.Sprintf("key.%d", r)
	s.values[key] = s.cuts[r].Key
	found, err := s.t.RunChunk(&Kernel{Name: fmt.Sprintf("%s/tie%d.%d", s.name, r, s.ranks[r].Array), Layout: s.layout, Inputs: s.inputs, Build: func(c *Chunk) {
		c.Array("equal", ConvertDType(Equal(s.keys(c)[s.ranks[r].Array], c.Uint(key)), uint32Type))
	}}, s.values, chunk)
	if err != nil {
		return 0, err
	}
	want := take - before
	for i, e := range found.Arrays["equal"] {
		if e != 0 {
			if want--; want == 0 {
				return Position(stats.Starts[chunk] + int64(i) + 1), nil
			}
		}
	}
	return 0, s.t.Errorf("%s: equal magnitudes were counted and not found again: the input changed during the merge", s.name)
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
