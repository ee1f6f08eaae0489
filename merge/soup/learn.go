package soup

import (
	"context"
	"fmt"
	"math"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
)

// Learner differentiates an objective by the tensors of a model.
type Learner interface {
	// Names are those of the tensors that Set moves.
	Names() []string
	// Set gives them their values, one after the other.
	Set(values func(name string, dst []float32) error) error
	// Temper divides the logits that Gradient sees.
	Temper(temperature float64)
	// GradientTo differentiates the mean of an objective over rows and shows the gradient, tensor by tensor.
	GradientTo(ctx context.Context, rows []int, objective model.Objective, see func(name string, g []float32) error) (model.Result, error)
	// Targets is how many predictions a row asks for, of which Gradient takes the mean.
	Targets(row int) (float64, error)
	// Outcomes measures all rows with the tensors as they were set.
	Outcomes(ctx context.Context) (*evaluation.Outcomes, error)
}

// Of is an evaluation.Learner as soups use it.
func Of(l *evaluation.Learner) Learner { return learner{l} }

type learner struct{ *evaluation.Learner }

func (l learner) Temper(temperature float64) { l.Scale = float32(1 / temperature) }

// Measure makes a judge of a learner, so that one model on the device does both: what is measured takes the place of what was set. key is
// that of the judge which the learner is of.
func Measure(l Learner, key Judge) Judge { return measuring{key, l} }

type measuring struct {
	Judge
	l Learner
}

// Outcomes implements Judge.
func (m measuring) Outcomes(ctx context.Context, w align.Weights) (*evaluation.Outcomes, error) {
	if err := m.l.Set(func(name string, dst []float32) error { return align.ReadAt(w, name, dst, 0) }); err != nil {
		return nil, err
	}
	return m.l.Outcomes(ctx)
}

// Score implements Judge.
func (m measuring) Score(ctx context.Context, w align.Weights) (*evaluation.Score, error) {
	o, err := m.Outcomes(ctx, w)
	if err != nil {
		return nil, err
	}
	return o.Score(), nil
}

// Numbers are the numbers of a mix: of each group, one for each ingredient.
type Numbers [][]float64

// NewNumbers are numbers of one value.
func NewNumbers(groups, ingredients int, value float64) Numbers {
	n := make(Numbers, groups)
	for g := range n {
		n[g] = make([]float64, ingredients)
		for i := range n[g] {
			n[g][i] = value
		}
	}
	return n
}

func (n Numbers) clone() Numbers {
	out := make(Numbers, len(n))
	for g := range n {
		out[g] = append([]float64(nil), n[g]...)
	}
	return out
}

// Form turns the numbers that are learned into shares of ingredients.
type Form interface {
	// Shares are those of a group, one for each ingredient of the set.
	Shares(n []float64) []float64
	// Back turns the derivatives by the shares into those by the numbers.
	Back(n, byShare []float64) []float64
	// Bound keeps numbers where they are allowed.
	Bound(n []float64)
}

// Softmax shares are positive and add up to 1 (Wortsman et al., 2022, appendix on learned soups).
type Softmax struct{}

// Shares implements Form.
func (Softmax) Shares(n []float64) []float64 {
	top := math.Inf(-1)
	for _, a := range n {
		top = max(top, a)
	}
	out := make([]float64, len(n))
	sum := 0.0
	for i, a := range n {
		out[i] = math.Exp(a - top)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

// Back implements Form.
func (s Softmax) Back(n, byShare []float64) []float64 {
	shares := s.Shares(n)
	mean := 0.0
	for i, p := range shares {
		mean += p * byShare[i]
	}
	out := make([]float64, len(n))
	for i, p := range shares {
		out[i] = p * (byShare[i] - mean)
	}
	return out
}

// Bound implements Form.
func (Softmax) Bound([]float64) {}

// TaskVectors are shares of ingredients that stand for base + sum of numbers times (ingredient - base). The base is the set's last
// ingredient and has no number.
type TaskVectors struct {
	// Unit keeps numbers from 0 to 1, as the code of AdaMerging's authors does.
	Unit bool
}

// Shares implements Form.
func (TaskVectors) Shares(n []float64) []float64 {
	out := append(append([]float64(nil), n...), 1)
	for _, l := range n {
		out[len(n)] -= l
	}
	return out
}

// Back implements Form.
func (TaskVectors) Back(n, byShare []float64) []float64 {
	out := make([]float64, len(n))
	for i := range n {
		out[i] = byShare[i] - byShare[len(n)]
	}
	return out
}

// Bound implements Form.
func (t TaskVectors) Bound(n []float64) {
	if !t.Unit {
		return
	}
	for i := range n {
		n[i] = max(0, min(1, n[i]))
	}
}

// Blend is a mix in the making.
type Blend struct {
	Set    *Set
	Groups *Groups
	Form   Form
	N      Numbers
}

// Shares are those of the numbers as they are now.
func (b *Blend) Shares() func(tensor string) Share {
	shares := make([]Share, len(b.N))
	for g, n := range b.N {
		shares[g] = Share{b.Form.Shares(n), 1}
	}
	return func(tensor string) Share { return shares[b.Groups.of[tensor]] }
}

// Mix is the mix that the numbers make.
func (b *Blend) Mix(exact bool) *Mix { return b.Set.Mix(b.Shares(), exact) }

// set gives a learner the mix.
func (b *Blend) set(l Learner, exact bool) error {
	mix := b.Mix(exact)
	return l.Set(func(name string, dst []float32) error { return mix.ReadAt(name, dst, 0) })
}

// Gradient differentiates the mean of an objective over rows by the numbers.
//
// By the chain rule the derivative by an ingredient's share is the inner product of the gradient at the mix with the ingredient, summed
// over the group. So there is one gradient of one model, and the ingredients stream by it: the memory is the same for any number of
// them.
func (b *Blend) Gradient(ctx context.Context, l Learner, rows []int, objective model.Objective) (model.Result, Numbers, error) {
	if err := b.set(l, true); err != nil {
		return model.Result{}, nil, err
	}
	byShare := NewNumbers(len(b.N), len(b.Set.List), 0)
	r, err := l.GradientTo(ctx, rows, objective, func(name string, g []float32) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		group, ok := b.Groups.of[name]
		if !ok {
			return fmt.Errorf("the gradient has a tensor %s that the soup has not", name)
		}
		return parallel(len(b.Set.List), func() func(i int) error {
			part := make([]float32, min(pieceElems, len(g)))
			return func(i int) error {
				for off := 0; off < len(g); off += pieceElems {
					n := min(pieceElems, len(g)-off)
					if err := align.ReadAt(b.Set.List[i].Weights, name, part[:n], int64(off)); err != nil {
						return err
					}
					byShare[group][i] += inner(g[off:off+n], part[:n])
				}
				return nil
			}
		})
	})
	if err != nil {
		return r, nil, err
	}
	out := make(Numbers, len(b.N))
	for g := range out {
		out[g] = b.Form.Back(b.N[g], byShare[g])
	}
	return r, out, nil
}

// inner is the inner product, in float64.
func inner(a, b []float32) float64 {
	var s0, s1, s2, s3 float64
	n := len(a) &^ 3
	for i := 0; i < n; i += 4 {
		s0 += float64(a[i]) * float64(b[i])
		s1 += float64(a[i+1]) * float64(b[i+1])
		s2 += float64(a[i+2]) * float64(b[i+2])
		s3 += float64(a[i+3]) * float64(b[i+3])
	}
	for i := n; i < len(a); i++ {
		s0 += float64(a[i]) * float64(b[i])
	}
	return s0 + s1 + s2 + s3
}
