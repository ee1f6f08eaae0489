package match

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/tensors"
)

// Tensor compares one tensor of the reference with the other model's, as it was and aligned.
type Tensor struct {
	Name          string
	Before, After float64 // cosines
	Distance      float64 // of the aligned one, over the norm of the reference's
	Values        int64

	matrix bool
}

// Relation says how two checkpoints are related, whatever their features' order, scales and directions.
type Relation string

// The relations.
const (
	Unknown     Relation = ""            // not asked
	SameWeights Relation = "identical"   // the same function in other coordinates, to the rounding of the files' dtypes
	Derived     Relation = "derived"     // one comes from the other, or both from one: fine-tunes
	Independent Relation = "independent" // trained apart
)

// Verdict is the answer with its numbers. Matching raises cosines even of models that have nothing to do with each other, so the agreement
// is measured against that: Null is what the same search reaches when the other model's tensors are each shuffled along every axis, which
// keeps their values and spectra and leaves nothing to find.
type Verdict struct {
	Relation Relation
	Median   float64 // cosine of the aligned matrices
	Null     float64 // the same for shuffled ones
	// Score is how far Median stands above Null, of what is possible: 0 for models without anything in common, 1 for copies. The line
	// between Independent and Derived is at 0.4: see derivedFrom.
	Score    float64
	Distance float64 // of the aligned model, over the reference's norm; of the canonical forms where that is less: tiny gains make rounding large
	Tensors  []Tensor
}

// alike is the median cosine of matrices beyond which models are close without any alignment.
const alike = 0.9

// derivedFrom is the score from which on two models have a common origin. Measured, with shuffled and rescaled features: networks of
// 3 x 512 units trained apart on the same images 0.18 to 0.22, random transformers 0.02 at most; the same networks trained on for five epochs
// 0.99, on other labels until their weights had moved by half of their norm 0.88 to 0.90, on random labels by 1.2 norms 0.65, and by 1.7 norms
// 0.45 to 0.49.
const derivedFrom = 0.4

// rounded is how far copies may differ by the rounding of what they are stored in, over the norm: some units in the last place.
func rounded(d tensors.DType) float64 {
	switch d {
	case tensors.F64, tensors.F32:
		return 1e-5
	case tensors.F16:
		return 1e-3
	}
	return 6e-3
}

func pointless(list []Tensor) bool {
	return median(list, func(t Tensor) float64 { return t.Before }) > alike
}

// median is that of the matrices.
func median(list []Tensor, of func(Tensor) float64) float64 {
	var x []float64
	for _, t := range list {
		if t.matrix {
			x = append(x, of(t))
		}
	}
	if len(x) == 0 {
		return 0
	}
	slices.SortFunc(x, func(a, b float64) int { return cmp.Compare(a, b) })
	return x[len(x)/2]
}

// ancestry judges by the comparison of all tensors. distance is that of the
// whole models, relative.
func (p *problem) ancestry(ctx context.Context, list []Tensor, distance float64) (Verdict, error) {
	v := Verdict{Tensors: list, Median: median(list, func(t Tensor) float64 { return t.After }), Distance: distance}
	tolerance := 0.0
	for _, n := range p.order {
		for _, s := range []*side{p.a, p.b} {
			info, _ := s.w.Lookup(s.at(n))
			tolerance = max(tolerance, rounded(info.DType))
		}
	}
	if distance <= tolerance {
		v.Relation, v.Score = SameWeights, 1
		return v, nil // no null: nothing reaches that by chance
	}
	null, err := p.null(ctx)
	if err != nil {
		return v, err
	}
	v.Null = null
	v.Score = (v.Median - null) / max(1-null, 1e-9)
	v.Relation = Independent
	if v.Score >= derivedFrom {
		v.Relation = Derived
	}
	return v, nil
}

// sampled is how many bundles of a large model are matched with shuffled tensors.
const sampled = 3

// null is the median cosine that matching reaches on shuffled tensors: of all of a small model, of some bundles of a large one.
func (p *problem) null(ctx context.Context) (float64, error) {
	o := *p.o
	o.Progress, o.Scores, o.Verify, o.Rounds, o.MaxIter = nil, nil, false, 2, 5
	q, l, err := prepare(p.spec, p.a.w, shuffledAxes{p.b.w, o.Seed}, &o)
	if err != nil {
		return 0, err
	}
	var names []string
	total := int64(0)
	for _, t := range q.tensors {
		total += 2 * t.size()
	}
	if l == nil || total <= inMemory {
		if _, err := q.ascend(ctx, l, o.Seed, Anchors); err != nil {
			return 0, err
		}
		names = q.order
	} else {
		q.reset()
		r := &run{p: q, ctx: ctx, l: l, round: 1}
		for i := range min(sampled, len(l.bundles)) {
			b := &l.bundles[i*len(l.bundles)/sampled]
			if err := r.bundle(b, &solved{}, q.engine(), false); err != nil {
				return 0, err
			}
			for _, t := range b.tensors {
				names = append(names, t.name)
			}
		}
	}
	var list []Tensor
	for _, n := range names {
		x, err := q.load(q.tensors[n], q.engine())
		if err != nil {
			return 0, err
		}
		list = append(list, Tensor{matrix: len(x.t.shape) > 1, After: cosine(dot(x.a, x.b), dot(x.a, x.a), dot(x.b, x.b))})
	}
	null := median(list, func(t Tensor) float64 { return t.After })
	if l != nil && l.hub != nil && total > inMemory && l.hub.stream() {
		null += streamChance(q, l.hub)
	}
	return null, nil
}

// streamChance is the cosine that turning a stream reaches on normal numbers: of the inner products of K rows of width d the singular values
// sum up to 8/(3π) d^(3/2) K^(1/2), by the quarter circle law, against norms of K·d.
func streamChance(p *problem, hub *unit) float64 {
	values := int64(0)
	for _, n := range hub.tensors {
		values += p.tensors[n].size()
	}
	d := float64(hub.root.Size)
	return 8 / (3 * math.Pi) * math.Sqrt(d/(float64(values)/d))
}

// shuffledAxes reads tensors shuffled along every axis, each in its own way.
type shuffledAxes struct {
	align.Weights
	seed uint64
}

// Read shuffles.
func (s shuffledAxes) Read(name string) ([]float32, error) {
	x, err := s.Weights.Read(name)
	if err != nil {
		return nil, err
	}
	info, _ := s.Lookup(name)
	for axis, n := range info.Shape {
		order := shuffled(n, s.seed, name+" axis "+string(rune('0'+axis)))
		outer, length, inner := view(info.Shape, axis)
		y := make([]float32, len(x))
		for o := range outer {
			for i, j := range order {
				copy(y[(o*length+i)*inner:][:inner], x[(o*length+j)*inner:][:inner])
			}
		}
		x = y
	}
	return x, nil
}
