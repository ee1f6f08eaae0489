package method

import (
	"math"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
)

// ArceeFusion takes over only those elements of the other model whose change is important: the difference times the
// divergence of the rows' softmax distributions, above the upper fence of its box plot.
var ArceeFusion = &Method{
	Name:    "arcee_fusion",
	Title:   "Arcee Fusion",
	Summary: "Takes from the other model only the elements whose difference from the base, weighted by their row's divergence, is an outlier.",
	Formula: "p = softmax(x), q = softmax(b) along the last axis\n" +
		"I = |x − b| · Σ (p+10⁻⁸)·log((p+10⁻⁸)/(q+10⁻⁸))\n" +
		"y = x where I ≥ Q₂ + 1.5·(Q₃ − Q₁), else b   (Q: quartiles of I over the tensor)",
	Paper: Citation{
		Text: "Arcee AI, 2024, \"Arcee Fusion\" in mergekit's documentation",
		URL:  "https://github.com/arcee-ai/mergekit",
	},
	Base:    BaseRequired,
	Min:     2,
	Max:     2,
	Reads:   4,
	Missing: copyTheOnly,
	Draws: func(t *Task) []Draw {
		if t.N <= fusionSample {
			return nil
		}
		count := int64(fusionSample)
		if t.N >= 1<<28 {
			count *= 2
		}
		return []Draw{{Input: -1, Count: count}}
	},
	Merge: mergeArceeFusion,
}

const (
	fusionSample = 1_000_000 // elements above which the peer estimates quartiles from a sample
	fusionFloor  = 1e-8      // added to probabilities
)

func mergeArceeFusion(t *Task) error {
	if t.N == 0 {
		return t.Copy(t.Base)
	}
	s, err := t.Run(&Kernel{Name: "arcee_fusion/divergence", Layout: LastAxis, Build: func(c *Chunk) {
		c.PerRow("kl", fusionDivergence(c))
	}}, nil)
	if err != nil {
		return err
	}
	kl := s.Rows["kl"]
	for r, x := range kl {
		if t.Arith == Wide {
			kl[r] = max(x, 0) // a divergence is not negative; what rounding leaves below zero is zero
		} else {
			kl[r] = t.Round(x)
		}
	}
	v := Values{"kl": RowValues(kl)}
	quartiles, err := fusionQuartiles(t, v)
	if err != nil {
		return err
	}
	spread := t.Round(1.5 * t.Round(quartiles[2]-quartiles[0]))
	v["threshold"] = t.Round(quartiles[1] + spread)
	_, err = t.Run(&Kernel{Name: "arcee_fusion", Layout: LastAxis, Build: func(c *Chunk) {
		take := GreaterOrEqual(fusionImportance(c), c.Scalar("threshold"))
		i := c.Others()[0]
		if c.Arith == Native {
			c.Emit(Add(c.B(), c.Select(take, c.Delta(i))))
		} else {
			c.Emit(Where(take, c.X(i), c.B()))
		}
		c.reportTaskVectors(func(i int) *Node { return c.Select(take, c.Delta(i)) })
	}}, v)
	return err
}

// fusionDivergence is each element's term of its row's Kullback-Leibler divergence, in float64 unless arithmetic is native:
// the terms of close rows nearly cancel.
func fusionDivergence(c *Chunk) *Node {
	x, b := c.X(c.Others()[0]), c.B()
	softmax := func(x *Node) *Node {
		e := Exp(Sub(x, c.RowMax(x)))
		return Div(e, c.RowSum(e))
	}
	if c.Arith == Native {
		p := c.Round(Add(c.Round(softmax(x)), c.Const(c.roundConst(fusionFloor))))
		q := c.Round(Add(c.Round(softmax(b)), c.Const(c.roundConst(fusionFloor))))
		return c.Mul(p, c.Round(Log(c.Div(p, q))))
	}
	floor := c.Wide(c.Const(fusionFloor))
	wide := func(x *Node) *Node {
		e := Exp(Sub(c.Wide(x), c.Wide(c.RowMax(x))))
		return Add(Div(e, c.RowSumWide(e)), floor)
	}
	p, q := wide(x), wide(b)
	return Mul(p, Log(Div(p, q)))
}

// fusionImportance is what the quartiles are taken of.
func fusionImportance(c *Chunk) *Node {
	return c.Mul(Abs(c.Delta(c.Others()[0])), c.Row("kl"))
}

// fusionQuartiles returns the lower order statistics at 1/4, 1/2 and 3/4. The peer's generator means the peer's sample of
// a large tensor; otherwise all of its elements count.
func fusionQuartiles(t *Task, v Values) ([]float64, error) {
	n := t.N
	var counted Stream
	if t.RNG == Peer && n > fusionSample {
		sample, err := t.Runner.Sample(t, fusionSample, n)
		if err != nil {
			return nil, err
		}
		slices.Sort(sample)
		n = fusionSample
		counted = func(dst []uint32, off int64) {
			clear(dst)
			at, _ := slices.BinarySearch(sample, off)
			for _, s := range sample[at:] {
				if s -= off; s >= int64(len(dst)) {
					break
				}
				dst[s]++
			}
		}
	}
	ranks := make([]int64, 3)
	for k, q := range []float64{0.25, 0.5, 0.75} {
		ranks[k] = int64(float64(float32(q)) * float64(n-1))
	}
	keys, err := t.orderStatistics("arcee_fusion", LastAxis, func(c *Chunk) *Node { return signedKey(c, fusionImportance(c)) }, v, counted, ranks)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(keys))
	for k, key := range keys {
		out[k] = signedValue(t, key)
	}
	return out, nil
}

// signedKey orders by value, not magnitude. Sixteen-bit values may be negative under native arithmetic; they leave the last
// bit of a float32 unused, so that the sign has room.
func signedKey(c *Chunk, x *Node) *Node {
	if !fusionSigned(c.Arith, c.D == c.Work) {
		return c.Key(x)
	}
	bits := Bitcast(x, uint32Type)
	flipped := Where(GreaterOrEqual(x, c.Zero()), BitwiseOr(bits, Const(c.Graph, uint32(1<<31))), BitwiseNot(bits))
	return BitwiseShiftRightLogicalScalar(flipped, uint32(1))
}

// signedValue is the inverse of signedKey.
func signedValue(t *Task, key uint32) float64 {
	if !fusionSigned(t.Arith, t.D == t.Work()) {
		return float64(math.Float32frombits(key))
	}
	if key >= 1<<30 {
		return float64(math.Float32frombits(key << 1 &^ (1 << 31)))
	}
	return float64(math.Float32frombits(^(key<<1 | 1)))
}

func fusionSigned(a Arith, full bool) bool { return a == Native && !full }
