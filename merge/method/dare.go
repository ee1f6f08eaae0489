package method

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// dropRandom keeps each entry of a task vector with the probability that is its density.
//
// Yu et al., 2024, "Language models are super Mario" (DARE).
type dropRandom struct{}

func (dropRandom) name() string { return "dare" }
func (dropRandom) widens() bool { return true }

func (dropRandom) fate(t *Task, i int) fate {
	if d, _ := t.InputFloat("density", i); d >= 1 {
		return dense
	}
	return sparse
}

func (dropRandom) prepare(t *Task, masked []int, v Values) error {
	for _, i := range masked {
		d, _ := t.InputFloat("density", i)
		v[limitName(i)] = t.drawLimit(t.roundProbability(d))
	}
	return nil
}

func (dropRandom) kernel(*Task, []int, *Kernel) {}

func (dropRandom) keep(c *Chunk, i int) *Node {
	return c.memo(cutName("bernoulli", i), func() *Node { return c.Bernoulli(i, c.Uint(limitName(i))) })
}

func limitName(i int) string { return cutName("limit", i) }

// peerProbabilities tells whether probabilities are rounded as the peer's are: where its arithmetic or its very generator
// is asked for.
func (t *Task) peerProbabilities() bool { return t.Arith == Native || t.RNG == Peer }

// roundProbability rounds a probability to the peer's dtype for it where that is asked for: bfloat16 for a bfloat16 merge,
// else float32.
func (t *Task) roundProbability(p float64) float64 {
	if t.peerProbabilities() && t.D == dtypes.BFloat16 {
		return RoundTo(p, dtypes.BFloat16)
	}
	return p
}

// dareDraws announces one random value per entry of each task vector that is thinned.
func dareDraws(t *Task) []Draw {
	var out []Draw
	for _, i := range t.Others() {
		if (dropRandom{}).fate(t, i) == sparse {
			out = append(out, Draw{Input: i, Count: t.N, Wide: t.D == dtypes.Float64})
		}
	}
	return out
}

var dareCitation = Citation{
	Text: "Yu et al., 2024, \"Language models are super Mario: absorbing abilities from homologous models as a free lunch\"",
	URL:  "https://arxiv.org/abs/2311.03099",
}

// DareLinear drops random entries of the task vectors and adds the weighted rest to the base.
//
// Yu et al., 2024, "Language models are super Mario".
var DareLinear = &Method{
	Name:    "dare_linear",
	Title:   "Linear DARE",
	Summary: "Task arithmetic over task vectors of which a random part is dropped and the rest rescaled.",
	Formula: "δᵢ = xᵢ − b\nmᵢ ~ Bernoulli(densityᵢ),  δᵢ ← mᵢ·δᵢ · ‖δᵢ‖₁ / ‖mᵢ·δᵢ‖₁   (rescale)\ny = b + λ·Σ wᵢ·δᵢ",
	Paper:   dareCitation,
	Base:    BaseRequired,
	Min:     1,
	Params:  taskVectorParams(false, true),
	Reads:   2,
	Check:   checkTaskVectors,
	Draws:   dareDraws,
	Merge:   taskVectorMerge{sparsify: dropRandom{}}.merge,
}

// DareTies is DareLinear with a sign election.
//
// Yu et al., 2024, with the election of Yadav et al., 2023.
var DareTies = &Method{
	Name:    "dare_ties",
	Title:   "DARE TIES",
	Summary: "DARE's random dropping followed by TIES' sign election.",
	Formula: "δᵢ as in dare_linear\ns = sign Σ wᵢ·δᵢ  (0 counts as +)\ny = b + λ·Σ {wᵢ·δᵢ : sign(wᵢ·δᵢ) = s}",
	Paper:   dareCitation,
	Base:    BaseRequired,
	Min:     1,
	Params:  taskVectorParams(false, true),
	Reads:   2,
	Check:   checkTaskVectors,
	Draws:   dareDraws,
	Merge:   taskVectorMerge{sparsify: dropRandom{}, consensus: true}.merge,
}
