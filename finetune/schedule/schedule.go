package schedule

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Curve gives the learning rate of optimizer step t, counted from 1.
type Curve func(t int) float64

// Params are the numbers of a curve. Which of them count beside the first four depends on its kind.
type Params struct {
	LR     float64 // the highest learning rate
	MinLR  float64 // the lowest, at the end
	Total  int     // steps of the run
	Warmup int     // steps of the warm-up; more than Total is a run that ends within it

	DecaySteps int    // wsd, infinite: steps of the decay at the end
	Decay      string // wsd: its shape, linear (also ""), 1-sqrt or cosine

	ConstLR       float64 // infinite: the learning rate of the long middle
	CooldownSteps int     // infinite: steps from the highest to that
	Cooldown      string  // infinite: the shape of these, cosine (also ""), inv_sqrt or linear

	Offset string // where the curve is read for step t: none (also ""), hf or late_decay
}

// The offsets. With None, step t reads the curve at t, so that the first step learns and the last is at the end of the curve, which
// with MinLR 0 learns nothing. HF reads it at t-1, as transformers does: the first step of a warm-up learns nothing. LateDecay reads
// the warm-up at t and what follows at t-1, so that no step is wasted at 0.
const (
	None      = "none"
	HF        = "hf"
	LateDecay = "late_decay"
)

// Kind is a family of curves.
type Kind struct {
	// Name in configurations.
	Name string
	// Summary is the formula and its source.
	Summary string
	// after gives the learning rate behind the warm-up, at w <= t <= total. New has checked and completed p.
	after func(p Params) (func(t float64) float64, error)
}

// kinds are all curves.
var kinds = []*Kind{linear, cosine, constant, invSqrt, wsd, infinite, rewarm}

// Kinds lists the families of curves.
func Kinds() []*Kind { return slices.Clone(kinds) }

// Names lists the names of the families.
func Names() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	return names
}

// WarmupSteps is the steps of a warm-up that is given as a share of all, rounded up as transformers does.
func WarmupSteps(ratio float64, total int) int { return int(math.Ceil(ratio * float64(total))) }

// New builds a curve.
func New(kind string, p Params) (Curve, error) {
	i := slices.IndexFunc(kinds, func(k *Kind) bool { return k.Name == kind })
	if i < 0 {
		return nil, fmt.Errorf("unknown schedule %q; it is one of %s", kind, strings.Join(Names(), ", "))
	}
	fail := func(format string, args ...any) (Curve, error) {
		return nil, fmt.Errorf("schedule %s: "+format, append([]any{kind}, args...)...)
	}
	finite := func(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
	switch {
	case !finite(p.LR) || p.LR <= 0:
		return fail("the learning rate must be above 0; here is %v", p.LR)
	case !finite(p.MinLR) || p.MinLR < 0 || p.MinLR > p.LR:
		return fail("the lowest learning rate must be from 0 to the highest, %v; here is %v", p.LR, p.MinLR)
	case p.Total < 1:
		return fail("a run needs at least one step; here are %d", p.Total)
	case p.Warmup < 0 || p.DecaySteps < 0 || p.CooldownSteps < 0:
		return fail("steps must not be below 0; here are %d of warm-up, %d of cooldown and %d of decay", p.Warmup, p.CooldownSteps, p.DecaySteps)
	}
	if p.Offset == "" {
		p.Offset = None
	}
	if !slices.Contains([]string{None, HF, LateDecay}, p.Offset) {
		return fail("unknown offset %q; it is one of none, hf and late_decay", p.Offset)
	}
	after, err := kinds[i].after(p)
	if err != nil {
		return fail("%w", err)
	}
	return func(t int) float64 {
		if p.Offset == HF || p.Offset == LateDecay && t > p.Warmup {
			t--
		}
		t = max(0, min(t, p.Total))
		if t < p.Warmup {
			return p.LR * float64(t) / float64(p.Warmup)
		}
		return after(float64(t))
	}, nil
}

// progress is how far t is from a to b, 0 to 1. An empty interval has been passed.
func progress(t, a, b float64) float64 {
	if b <= a {
		return 1
	}
	return min(max((t-a)/(b-a), 0), 1)
}

// between goes from a high to a low value; keep is the share of the way that is left, 1 to 0.
func between(high, low, keep float64) float64 { return low + (high-low)*keep }

// halfCosine falls from 1 to 0 as f goes from 0 to 1.
func halfCosine(f float64) float64 { return (1 + math.Cos(math.Pi*f)) / 2 }
