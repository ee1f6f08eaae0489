package lmc

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// Gammas are the thresholds γ for which R is computed.
var Gammas = []float64{0, 0.3}

// Options say how matrices are compared.
type Options struct {
	// FullUpTo is the smaller side up to which a matrix is decomposed in full; 0: 1024. A full decomposition takes seconds at 512 and
	// minutes at 2,048; what γ = 0.3 needs is among the first values.
	FullUpTo int
	Rank     int    // values that are found of larger matrices; 0: 256
	Seed     uint64 // of the random projections
	Threads  int    // layers that are compared at the same time; 0: one per processor
	// KeepVectors keeps what Analysis.Read needs.
	KeepVectors bool
	Progress    func(done, total int)
}

// Alignment says how the singular vectors of two layers, or of all layers of two models, lie to each other.
type Alignment struct {
	R        []float64 `json:"r"`        // for each of Gammas
	Weighted float64   `json:"weighted"` // by the product of values
}

// totals are what alignments are computed from.
type totals struct {
	sum, count      []float64 // of each γ
	weighted, bound float64
}

func newTotals() totals {
	return totals{make([]float64, len(Gammas)), make([]float64, len(Gammas)), 0, 0}
}

func (t *totals) add(o totals) {
	for g := range Gammas {
		t.sum[g] += o.sum[g]
		t.count[g] += o.count[g]
	}
	t.weighted += o.weighted
	t.bound += o.bound
}

func (t *totals) alignment() Alignment {
	a := Alignment{}
	for g := range Gammas {
		a.R = append(a.R, ratio(t.sum[g], t.count[g]))
	}
	a.Weighted = ratio(t.weighted, t.bound)
	return a
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Layer is what was found about one layer.
type Layer struct {
	Tensor string `json:"tensor"`
	Shape  []int  `json:"shape"`
	// Values are the singular values of both, the largest first: all, or as many as were looked for.
	A    []float64 `json:"values_a"`
	B    []float64 `json:"values_b"`
	Full bool      `json:"full"`
	// Spectra is the distance of the singular values.
	Spectra float64    `json:"spectrum_distance"`
	Before  Alignment  `json:"before"`
	After   *Alignment `json:"after,omitempty"`
	// Distances of the weights.
	L2Before float64  `json:"l2_before"`
	L2After  *float64 `json:"l2_after,omitempty"`
	// Identity is by how much the formula of the distance misses it, relative to ‖A‖² + ‖B‖²; only for full decompositions.
	Identity *float64 `json:"identity_error,omitempty"`

	// Energy is what Analysis.Read has found.
	Energy *Energy `json:"input_energy,omitempty"`

	before, after totals
	vectors       *factors // of A
	inputs        inputs
}

// Analysis compares two models before and after the second was aligned.
type Analysis struct {
	Layers   []Layer    `json:"layers"`
	Gammas   []float64  `json:"gammas"`
	Before   Alignment  `json:"before"`
	After    *Alignment `json:"after,omitempty"`
	Spectra  float64    `json:"spectrum_distance"` // over all layers
	Identity float64    `json:"identity_error"`    // the largest of all layers
	// Distances over all tensors, biases included.
	L2Before float64  `json:"l2_before"`
	L2After  *float64 `json:"l2_after,omitempty"`
	L2Ratio  *float64 `json:"l2_ratio,omitempty"` // after over before
	Energy   *Energy  `json:"input_energy,omitempty"`
}

// Analyze compares the layers of a and b, and of a and the aligned b, which may be nil.
func Analyze(ctx context.Context, a, b, aligned align.Weights, o Options) (*Analysis, error) {
	if o.FullUpTo == 0 {
		o.FullUpTo = 1024
	}
	if o.Rank == 0 {
		o.Rank = 256
	}
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	names, err := common(a, b, aligned)
	if err != nil {
		return nil, err
	}
	found := make([]*finding, len(names))
	var next atomic.Int64
	var failed atomic.Bool
	var told sync.Mutex
	done := 0
	errs := make([]error, len(names))
	var wait sync.WaitGroup
	for range min(o.Threads, len(names)) {
		wait.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(names) || failed.Load() {
					return
				}
				if errs[i] = ctx.Err(); errs[i] == nil {
					found[i], errs[i] = compare(names[i], a, b, aligned, &o)
				}
				if errs[i] != nil {
					failed.Store(true)
					return
				}
				told.Lock()
				if done++; o.Progress != nil {
					o.Progress(done, len(names))
				}
				told.Unlock()
			}
		})
	}
	wait.Wait()
	for _, err := range errs { // the first in the models' order
		if err != nil {
			return nil, err
		}
	}
	return gather(found, aligned != nil), nil
}

// gather adds up what was found, in the order of the tensors.
func gather(found []*finding, aligned bool) *Analysis {
	out := &Analysis{Gammas: Gammas}
	before, after := newTotals(), newTotals()
	var l2, l2After, spread, size float64
	for _, f := range found {
		l2 += f.l2
		l2After += f.l2After
		if f.layer == nil {
			continue
		}
		before.add(f.layer.before)
		after.add(f.layer.after)
		spread += f.spread
		size += f.size
		if f.layer.Identity != nil {
			out.Identity = max(out.Identity, *f.layer.Identity)
		}
		out.Layers = append(out.Layers, *f.layer)
	}
	out.Before, out.Spectra, out.L2Before = before.alignment(), ratio(math.Sqrt(spread), math.Sqrt(size/2)), math.Sqrt(l2)
	if aligned {
		a, d := after.alignment(), math.Sqrt(l2After)
		r := ratio(d, out.L2Before)
		out.After, out.L2After, out.L2Ratio = &a, &d, &r
	}
	return out
}

// common lists the float tensors that all models have, in the order of the first.
func common(a, b, aligned align.Weights) (names []string, err error) {
	for _, name := range a.Names() {
		info, _ := a.Lookup(name)
		if !info.DType.IsFloat() || info.Elems() == 0 {
			continue
		}
		ok := true
		for _, w := range []align.Weights{b, aligned} {
			if w == nil {
				continue
			}
			other, found := w.Lookup(name)
			if !found || !other.DType.IsFloat() {
				ok = false
				break
			}
			if !slices.Equal(other.Shape, info.Shape) {
				return nil, &model.InputError{Msg: fmt.Sprintf("%s is %v in the first model and %v in the second: the models have different sizes; only models of one architecture and one size can be compared", name, info.Shape, other.Shape)}
			}
		}
		if ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, &model.InputError{Msg: "the models have no tensor in common: they are of different architectures, or their files use other names"}
	}
	return names, nil
}

// finding is what one tensor gives.
type finding struct {
	layer        *Layer // nil: no matrix
	l2, l2After  float64
	spread, size float64 // squared distance and squared sizes of the spectra
}

// matrix is the shape of a layer; ok is false for tensors that are none.
func matrix(info tensors.Info) (m, n int, ok bool) {
	if len(info.Shape) < 2 {
		return 0, 0, false
	}
	m = info.Shape[0]
	n = int(info.Elems()) / m
	return m, n, m > 1 && n > 1
}

// compare compares one tensor.
func compare(name string, a, b, aligned align.Weights, o *Options) (*finding, error) {
	xa, err := a.Read(name)
	if err != nil {
		return nil, err
	}
	xb, err := b.Read(name)
	if err != nil {
		return nil, err
	}
	f := &finding{l2: distance(xa, xb)}
	var xc []float32
	if aligned != nil {
		if xc, err = aligned.Read(name); err != nil {
			return nil, err
		}
		f.l2After = distance(xa, xc)
	}
	info, _ := a.Lookup(name)
	m, n, ok := matrix(info)
	if !ok {
		return f, finite(name, f)
	}
	l := &Layer{Tensor: name, Shape: info.Shape, L2Before: math.Sqrt(f.l2), before: newTotals(), after: newTotals()}
	fa, err := factorise(xa, m, n, name, o)
	if err != nil {
		return nil, bad(err)
	}
	fb, err := factorise(xb, m, n, name, o)
	if err != nil {
		return nil, bad(err)
	}
	if o.KeepVectors {
		l.vectors = fa.large()
	}
	l.A, l.B, l.Full = fa.values, fb.values, fa.full
	for i := range max(len(l.A), len(l.B)) {
		x, y := at(l.A, i), at(l.B, i)
		f.spread += (x - y) * (x - y)
		f.size += x*x + y*y
	}
	l.Spectra = ratio(math.Sqrt(f.spread), math.Sqrt(f.size/2))
	miss := l.align(&l.before, fa, fb, xa, xb, f.l2)
	l.Before = l.before.alignment()
	if aligned != nil {
		fc, err := factorise(xc, m, n, name, o)
		if err != nil {
			return nil, bad(err)
		}
		miss = max(miss, l.align(&l.after, fa, fc, xa, xc, f.l2After))
		after, d := l.after.alignment(), math.Sqrt(f.l2After)
		l.After, l.L2After = &after, &d
	}
	if l.Full {
		l.Identity = &miss
	}
	f.layer = l
	return f, nil
}

// align fills totals in and returns by how much the formula of the distance misses it.
func (l *Layer) align(t *totals, a, b *factors, xa, xb []float32, l2 float64) (miss float64) {
	p := pairs(a, b)
	kb := len(b.values)
	for g, gamma := range Gammas {
		ra, rb := a.above(gamma), b.above(gamma)
		for i := range ra {
			for j := range rb {
				t.sum[g] += p[i*kb+j]
			}
		}
		t.count[g] = float64(min(ra, rb))
	}
	for i, x := range a.values {
		for j, y := range b.values {
			t.weighted += x * y * p[i*kb+j]
		}
	}
	for i := range min(len(a.values), kb) {
		t.bound += a.values[i] * b.values[i]
	}
	na, nb := square(xa), square(xb)
	return ratio(math.Abs(na+nb-2*t.weighted-l2), na+nb)
}

// bad makes what is wrong with the weights an error about the input.
func bad(err error) error { return &model.InputError{Msg: err.Error()} }

func finite(name string, f *finding) error {
	if math.IsNaN(f.l2+f.l2After) || math.IsInf(f.l2+f.l2After, 0) {
		return &model.InputError{Msg: name + ": the tensor holds NaN or infinite values"}
	}
	return nil
}

func at(x []float64, i int) float64 {
	if i < len(x) {
		return x[i]
	}
	return 0
}

// distance is the squared distance.
func distance(a, b []float32) (sum float64) {
	for i, x := range a {
		d := float64(x) - float64(b[i])
		sum += d * d
	}
	return sum
}

func square(a []float32) (sum float64) {
	for _, x := range a {
		sum += float64(x) * float64(x)
	}
	return sum
}
