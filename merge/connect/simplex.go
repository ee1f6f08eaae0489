package connect

import (
	"context"
	"fmt"
	"math"

	"github.com/mergekit/mergekit/internal/linalg"
)

// Excess is the point of the simplex that rises the most above the weighted sum of what the models measure.
type Excess struct {
	Value   float64   `json:"value"` // at least 0: the models are points of the simplex
	Weights []float64 `json:"weights,omitempty"`
}

// SimplexCurve is what the simplex measures on one set: its barrier over all points, and over each kind of them. Fields of the
// error are nil where there is no right and wrong.
type SimplexCurve struct {
	Set             string   `json:"set"`
	LossBarrier     Excess   `json:"loss_barrier"`
	LossOfPairs     Excess   `json:"loss_barrier_of_middles"`
	LossOfSamples   Excess   `json:"loss_barrier_of_samples"`
	CentroidLoss    float64  `json:"centroid_loss"`
	CentroidExcess  float64  `json:"centroid_loss_excess"` // below 0 where the average is better than its parts
	ErrorBarrier    *Excess  `json:"error_barrier,omitempty"`
	CentroidError   *float64 `json:"centroid_error,omitempty"`
	CentroidErrorUp *float64 `json:"centroid_error_excess,omitempty"`
}

// Simplex is what was measured between three models or more.
type Simplex struct {
	Samples int            `json:"samples"`
	Seed    uint64         `json:"seed"`
	Curves  []SimplexCurve `json:"curves"` // of each set
}

// simplex measures the centroid, the middle of every pair, and random points that are spread evenly over the simplex.
func (m *measured) simplex(ctx context.Context, o Options) (*Simplex, error) {
	out := &Simplex{Samples: max(o.Samples, 0), Seed: o.Seed}
	var ends [][]Score
	for i := range m.n {
		s, err := m.at(ctx, m.single(i))
		if err != nil {
			return nil, err
		}
		ends = append(ends, s)
	}
	for k, set := range m.e.Sets() {
		c := SimplexCurve{Set: set}
		if !math.IsNaN(ends[0][k].Error) {
			c.ErrorBarrier = &Excess{}
		}
		out.Curves = append(out.Curves, c)
	}
	raise := func(e *Excess, over float64, weights []float64) {
		if over > e.Value {
			e.Value, e.Weights = over, weights
		}
	}
	// visit measures a point and returns how far it lies above the models, for each set.
	visit := func(weights []float64, of func(c *SimplexCurve) *Excess) (losses, errors []float64, scores []Score, err error) {
		scores, err = m.at(ctx, weights)
		if err != nil {
			return nil, nil, nil, err
		}
		for k, s := range scores {
			loss, wrong := s.Loss, s.Error
			for i, w := range weights {
				loss -= w * ends[i][k].Loss
				wrong -= w * ends[i][k].Error
			}
			c := &out.Curves[k]
			raise(&c.LossBarrier, loss, weights)
			if of != nil {
				raise(of(c), loss, weights)
			}
			if c.ErrorBarrier != nil {
				raise(c.ErrorBarrier, wrong, weights)
			}
			losses, errors = append(losses, loss), append(errors, wrong)
		}
		return losses, errors, scores, nil
	}
	centre := make([]float64, m.n)
	for i := range centre {
		centre[i] = 1 / float64(m.n)
	}
	losses, errors, scores, err := visit(centre, nil)
	if err != nil {
		return nil, err
	}
	for k := range out.Curves {
		c := &out.Curves[k]
		c.CentroidLoss, c.CentroidExcess = scores[k].Loss, losses[k]
		if c.ErrorBarrier != nil {
			c.CentroidError, c.CentroidErrorUp = &scores[k].Error, &errors[k]
		}
	}
	for i := range m.n {
		for j := i + 1; j < m.n; j++ {
			w := make([]float64, m.n)
			w[i], w[j] = 0.5, 0.5
			if _, _, _, err := visit(w, func(c *SimplexCurve) *Excess { return &c.LossOfPairs }); err != nil {
				return nil, err
			}
		}
	}
	for i := range out.Samples {
		if _, _, _, err := visit(Dirichlet(m.n, o.Seed, i), func(c *SimplexCurve) *Excess { return &c.LossOfSamples }); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Dirichlet returns the weights of random point i of n models, spread evenly over the simplex: exponential variables divided by
// their sum, the Dirichlet distribution whose parameters are 1.
func Dirichlet(n int, seed uint64, i int) []float64 {
	u := make([]float32, n)
	linalg.Uniform(u, seed, fmt.Sprint("simplex ", i))
	w := make([]float64, n)
	var sum float64
	for k, v := range u {
		w[k] = -math.Log1p(-float64(v)) // v is below 1
		sum += w[k]
	}
	if sum == 0 {
		w[0], sum = 1, 1
	}
	for k := range w {
		w[k] /= sum
	}
	return w
}
