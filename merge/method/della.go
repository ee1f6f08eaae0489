package method

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// dropRanked keeps each entry with a probability that grows with the rank of its magnitude among its row: from density−ε
// for the smallest to density+ε for the largest. A row runs along a tensor's second axis; a vector is one row.
//
// Deep et al., 2024, "DELLA-Merging" (MagPrune).
type dropRanked struct{}

func (dropRanked) name() string { return "della" }
func (dropRanked) widens() bool { return true }

func (dropRanked) fate(t *Task, i int) fate {
	switch d, _ := t.InputFloat("density", i); {
	case d >= 1:
		return dense
	case d <= 0 || t.N == 0:
		return empty
	}
	return sparse
}

func (dropRanked) prepare(*Task, []int, Values) error { return nil }

func (dropRanked) kernel(t *Task, masked []int, k *Kernel) {
	k.Layout = FirstAxis
	ranked, inner := t.rankedAxis()
	tables := map[int][]uint32{}
	for _, i := range masked {
		tables[i] = dellaProbabilities(t, i, ranked)
	}
	k.Before = &Kernel{Name: fmt.Sprintf("della/keys%v", masked), Layout: FirstAxis, Inputs: append([]int{t.Base}, masked...), Build: func(c *Chunk) {
		for _, i := range masked {
			c.Array(rankName(i), c.Key(c.Delta(i)))
		}
	}}
	k.Host = func(arrays map[string][]uint32, rows, cols int, streams map[string][]uint32) {
		var s ranker
		for _, i := range masked {
			keys, out := arrays[rankName(i)], streams[rankName(i)]
			for r := range rows {
				for o := range inner {
					s.rank(keys[r*cols+o:], out[r*cols+o:], ranked, inner, tables[i])
				}
			}
		}
	}
}

func (dropRanked) keep(c *Chunk, i int) *Node {
	return c.memo(cutName("bernoulli", i), func() *Node { return c.Bernoulli(i, c.Stream(rankName(i))) })
}

func rankName(i int) string { return cutName("rank", i) }

// rankedAxis returns the length of the axis along which entries are ranked and the distance between its elements, within
// one index of the first axis.
func (t *Task) rankedAxis() (length, stride int) {
	if len(t.Shape) < 2 {
		return int(t.N), 1
	}
	stride = 1
	for _, d := range t.Shape[2:] {
		stride *= d
	}
	return t.Shape[1], stride
}

// dellaProbabilities returns, for each rank from the smallest magnitude up, the draws' limit for the probability to stay.
// Where the peer's numbers are asked for, each step is rounded as there. A row of one entry, on which the peer fails, has
// the density itself.
func dellaProbabilities(t *Task, i, length int) []uint32 {
	density, _ := t.InputFloat("density", i)
	epsilon, _ := t.InputFloat("epsilon", i)
	round := func(x float64) float64 { return x }
	if t.peerProbabilities() {
		round = t.single
		if t.D == dtypes.BFloat16 {
			round = func(x float64) float64 { return RoundTo(x, dtypes.BFloat16) }
		}
	}
	table := make([]uint32, length)
	for rank := range table {
		p := density
		if length > 1 {
			at := round(round(round(float64(rank+1))-1) / float64(length-1)) // 0 … 1
			p = round(round(round(at*2)*epsilon) + round(density-epsilon))
		}
		table[rank] = t.drawLimit(float64(float32(p)))
	}
	return table
}

// ranker ranks rows by a radix sort, stable, so that of equal keys the earlier ranks lower.
type ranker struct {
	keys, swapKeys   []uint32
	order, swapOrder []uint32
}

const (
	radixBits = 11
	radixBins = 1 << radixBits
)

// rank writes, for each of the n keys (below 2^31, stride apart), the table's entry of its rank.
func (s *ranker) rank(keys, out []uint32, n, stride int, table []uint32) {
	if cap(s.keys) < n {
		s.keys, s.swapKeys = make([]uint32, n), make([]uint32, n)
		s.order, s.swapOrder = make([]uint32, n), make([]uint32, n)
	}
	k, k2, o, o2 := s.keys[:n], s.swapKeys[:n], s.order[:n], s.swapOrder[:n]
	var counts [3][radixBins]uint32
	for i := range k {
		x := keys[i*stride]
		k[i], o[i] = x, uint32(i)
		counts[0][x&(radixBins-1)]++
		counts[1][x>>radixBits&(radixBins-1)]++
		counts[2][x>>(2*radixBits)&(radixBins-1)]++
	}
	for pass := range counts {
		count, shift := &counts[pass], uint(pass*radixBits)
		if count[k[0]>>shift&(radixBins-1)] == uint32(n) {
			continue // all share this digit
		}
		sum := uint32(0)
		for d, c := range count {
			count[d], sum = sum, sum+c
		}
		for i, x := range k {
			d := x >> shift & (radixBins - 1)
			k2[count[d]], o2[count[d]] = x, o[i]
			count[d]++
		}
		k, k2, o, o2 = k2, k, o2, o
	}
	for r, i := range o {
		out[int(i)*stride] = table[r]
	}
}

// checkDella refuses what cannot be probabilities.
func checkDella(t *Task) error {
	if err := checkTaskVectors(t); err != nil {
		return err
	}
	for _, i := range t.Others() {
		if (dropRanked{}).fate(t, i) != sparse {
			continue
		}
		d, _ := t.InputFloat("density", i)
		e, _ := t.InputFloat("epsilon", i)
		if !(d+e < 1 && d-e > 0) {
			return t.Refuse("epsilon", i, "density %g ± epsilon %g of model %d leaves the range between 0 and 1; lower epsilon below %.3g", d, e, i+1, min(d, 1-d))
		}
	}
	return nil
}

// dellaDraws announces one random value per entry of each task vector that is thinned.
func dellaDraws(t *Task) []Draw {
	var out []Draw
	for _, i := range t.Others() {
		if (dropRanked{}).fate(t, i) == sparse {
			out = append(out, Draw{Input: i, Count: t.N, Wide: t.D == dtypes.Float64})
		}
	}
	return out
}

var dellaCitation = Citation{
	Text: "Deep et al., 2024, \"DELLA-Merging: reducing interference in model merging through magnitude-based sampling\"",
	URL:  "https://arxiv.org/abs/2406.11617",
}

var epsilonParam = Param{Name: "epsilon", Kind: Float, PerInput: true, Default: 0.15,
	Doc: "half the range of keep probabilities around the density"}

// DellaLinear drops random entries of the task vectors, small ones more often, and adds the weighted rest to the base.
//
// Deep et al., 2024, "DELLA-Merging".
var DellaLinear = &Method{
	Name:    "della_linear",
	Title:   "Linear DELLA",
	Summary: "Task arithmetic over task vectors whose entries are dropped at random, the smaller of a row more often.",
	Formula: "δᵢ = xᵢ − b,  rₑ = rank of |δᵢₑ| in its row of m, from 0\n" +
		"pₑ = densityᵢ − εᵢ + 2εᵢ·rₑ/(m−1),  mᵢ ~ Bernoulli(p)\n" +
		"δᵢ ← mᵢ·δᵢ · ‖δᵢ‖₁ / ‖mᵢ·δᵢ‖₁   (rescale)\ny = b + λ·Σ wᵢ·δᵢ",
	Paper:  dellaCitation,
	Base:   BaseRequired,
	Min:    1,
	Params: taskVectorParams(false, true, epsilonParam),
	Reads:  4,
	Check:  checkDella,
	Draws:  dellaDraws,
	Merge:  taskVectorMerge{sparsify: dropRanked{}}.merge,
}

// Della is DellaLinear with a sign election.
//
// Deep et al., 2024, "DELLA-Merging".
var Della = &Method{
	Name:    "della",
	Title:   "DELLA",
	Summary: "DELLA's ranked random dropping followed by TIES' sign election.",
	Formula: "δᵢ as in della_linear\ns = sign Σ wᵢ·δᵢ  (0 counts as +),  Aᵢ = [sign(wᵢ·δᵢ) = s]\ny = b + λ·Σ Aᵢ·wᵢ·δᵢ / Σ Aᵢ·wᵢ",
	Paper:   dellaCitation,
	Base:    BaseRequired,
	Min:     1,
	Params:  taskVectorParams(true, true, epsilonParam),
	Reads:   4,
	Check:   checkDella,
	Draws:   dellaDraws,
	Merge:   taskVectorMerge{sparsify: dropRanked{}, consensus: true}.merge,
}
