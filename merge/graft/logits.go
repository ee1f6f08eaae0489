package graft

import (
	"context"
	"math"
	"sync"

	"github.com/mergekit/mergekit/merge/evaluation"
)

// Learning moves a real number for each element of the space, the logit of its mask. Panigrahi et al. write the mask as
// γ = γb + (1-2γb)·σ(S-c) with the first mask γb, which is γ = σ(l) with l = (1-2γb)·(S-c): so l starts at c inside the first mask and at
// -c outside, and a step of S is one of l up to its sign. The gradient follows by the chain rule from that of the loss at the weights
// θ = b + γ·Δ, which the model gives: ∂L/∂l = ∂L/∂θ · Δ · σ'(l).
//
// The sum of the mask is held at the asked count by a multiplier: what it subtracts from every logit is the gradient of an L1 penalty whose
// weight adapts (Learn without Penalty). With a Penalty the weight is fixed and the mask shrinks from a larger first one, as He et al.
// have it.

// The optimizers of logits.
const (
	// Adam moves each element by its own scale (Kingma and Ba, 2015), on the gradient as it stands.
	Adam = "adam"
	// Momentum gives all elements one scale, the root mean square of their gradients, so that an element of twice the gain moves twice as
	// fast. σ' is left out: it would leave the decided where they are, and those are all in the beginning.
	Momentum = "momentum"
)

// logits are the state of a mask that is learned: two numbers for each element of the space, three with Adam.
type logits struct {
	s    *Space
	o    LearnOptions
	l    [][]float32
	m, v [][]float32 // moments; v is nil without scales of their own
	step int
	rms  float64 // running mean square of the gains gradient·Δ of the elements that differ
}

func (s *Space) newLogits(first *Mask, o LearnOptions) *logits {
	g := &logits{s: s, o: o}
	for t := range s.pairs {
		n := s.pairs[t].n
		l := make([]float32, n)
		for i := range l {
			if l[i] = float32(-o.Anchor); first.has(t, int64(i)) {
				l[i] = float32(o.Anchor)
			}
		}
		g.l, g.m = append(g.l, l), append(g.m, make([]float32, n))
		if o.Optimizer == Adam {
			g.v = append(g.v, make([]float32, n))
		}
	}
	return g
}

// sigmoid is σ(x).
func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// soft fills dst with the weights of the soft mask.
func (g *logits) soft(t int, dst []float32) error {
	return g.pieces(t, func(b *scratch, off, n int64) error {
		if err := g.s.pairs[t].read(b.base[:n], b.tuned[:n], off); err != nil {
			return err
		}
		for i, l := range g.l[t][off : off+n] {
			base, tuned := b.base[i], b.tuned[i]
			if base != tuned { // else there is nothing to mask, and no exponential to take
				base += float32(sigmoid(float64(l))) * (tuned - base)
			}
			dst[off+int64(i)] = base
		}
		return nil
	})
}

// pieces runs do over one tensor on several threads. What do sums up must not depend on their number: see sums.
func (g *logits) pieces(t int, do func(b *scratch, off, n int64) error) error {
	n, threads := g.s.pairs[t].n, int64(g.s.threads)
	each := ((n+threads-1)/threads + chunk - 1) / chunk * chunk
	var group sync.WaitGroup
	errs := make([]error, threads)
	for w := range threads {
		from, to := w*each, min(n, (w+1)*each)
		if from >= to {
			break
		}
		group.Add(1)
		go func() {
			defer group.Done()
			b := newScratch()
			for off := from; off < to && errs[w] == nil; off += chunk {
				errs[w] = do(b, off, min(chunk, to-off))
			}
		}()
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// slope is ∂L/∂l of one element, from the gradient of the loss at the weights and the element's difference.
func slope(gradient, delta, l float32) float32 {
	s := sigmoid(float64(l))
	return float32(float64(gradient) * float64(delta) * s * (1 - s))
}

// The constants of the optimizers. Slopes are tiny: σ' is 4.5e-5 at the start.
const (
	beta1   = 0.9
	beta2   = 0.999
	epsilon = 1e-20
)

// move takes one step of the optimizer, from the gradient that the learner has.
func (g *logits) move(l *evaluation.Learner) error {
	g.step++
	if g.v == nil || g.o.Penalty > 0 {
		if err := g.measureGains(l); err != nil {
			return err
		}
	}
	first, second := 1-math.Pow(beta1, float64(g.step)), 1-math.Pow(beta2, float64(g.step))
	common := math.Sqrt(g.rms / second)
	price := g.o.Penalty * common // of an element, in units of the typical gain
	return g.visit(l, func(t int, at int64, gain float64) {
		d := gain + price
		if g.v != nil {
			s := sigmoid(float64(g.l[t][at]))
			d *= s * (1 - s)
		}
		m := beta1*float64(g.m[t][at]) + (1-beta1)*d
		g.m[t][at] = float32(m)
		scale := common
		if g.v != nil {
			v := beta2*float64(g.v[t][at]) + (1-beta2)*d*d
			g.v[t][at] = float32(v)
			scale = math.Sqrt(v / second)
		}
		g.l[t][at] -= float32(g.o.LR * m / first / (scale + epsilon))
	})
}

// visit calls do with the gain gradient·Δ of every element that differs.
func (g *logits) visit(l *evaluation.Learner, do func(t int, at int64, gain float64)) error {
	return l.Visit(func(name string, grad []float32) error {
		t := g.s.at[name]
		return g.pieces(t, func(b *scratch, off, n int64) error {
			if err := g.s.pairs[t].read(b.base[:n], b.tuned[:n], off); err != nil {
				return err
			}
			for i := range n {
				if delta := b.tuned[i] - b.base[i]; delta != 0 {
					do(t, off+i, float64(grad[off+i])*float64(delta))
				}
			}
			return nil
		})
	})
}

// measureGains updates the mean square of the gains.
func (g *logits) measureGains(l *evaluation.Learner) error {
	sums := newSums(g.s)
	err := g.visit(l, func(t int, at int64, gain float64) {
		sums.add(t, at, gain*gain)
	})
	g.rms = beta2*g.rms + (1-beta2)*sums.total()/float64(max(g.s.Moved, 1))
	return err
}

// sums adds numbers up by pieces of the tensors, so that the result does not depend on the threads.
type sums [][]float64

func newSums(s *Space) sums {
	out := make(sums, len(s.pairs))
	for t := range out {
		out[t] = make([]float64, (s.pairs[t].n+chunk-1)/chunk)
	}
	return out
}

func (s sums) add(t int, at int64, x float64) { s[t][at/chunk] += x }

func (s sums) total() (x float64) {
	for _, list := range s {
		for _, v := range list {
			x += v
		}
	}
	return x
}

// settle moves all logits by one number so that the mask sums to k: Newton's steps, cut where nearly all are decided. From step to step
// little changes, so a few do.
func (g *logits) settle(k int64) error {
	const (
		enough  = 0.01 // of k
		longest = 2
		tries   = 8
	)
	by := 0.0
	for range tries {
		size, rise := newSums(g.s), newSums(g.s)
		for t := range g.l {
			err := g.pieces(t, func(_ *scratch, off, n int64) error {
				for i, l := range g.l[t][off : off+n] {
					l -= float32(by)
					g.l[t][off+int64(i)] = l
					s := sigmoid(float64(l))
					size.add(t, off, s)
					rise.add(t, off, s*(1-s))
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		over := size.total() - float64(k)
		if math.Abs(over) <= enough*float64(k) {
			return nil
		}
		by = min(max(over/max(rise.total(), 1e-9), -longest), longest)
	}
	return nil
}

// round is the mask of the k elements with the largest logits; equal ones go by what fine-tuning moved most.
func (g *logits) round(ctx context.Context, k int64) (*Mask, error) {
	of := func(dst []uint64, base, tuned []float32, t int, off int64) error {
		p := &g.s.pairs[t]
		if err := p.read(base, tuned, off); err != nil {
			return err
		}
		for i := range dst {
			dst[i] = 0
			if size := p.magnitude(off+int64(i), base[i], tuned[i]); size > 0 {
				dst[i] = uint64(ordered(g.l[t][off+int64(i)]))<<32 | uint64(size)
			}
		}
		return nil
	}
	c, _, err := g.s.largest(ctx, k, 64, of)
	if err != nil {
		return nil, err
	}
	return g.s.mask(ctx, c, of)
}
