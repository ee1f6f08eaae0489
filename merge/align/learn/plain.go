package learn

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// HoldOut splits examples at random: a share of them is held out.
func HoldOut(all *samples.Set, part float64, seed uint64) (train, heldOut *samples.Set, err error) {
	n := int(part * float64(all.N))
	if !(part > 0 && part < 1) || n < 1 || n >= all.N {
		return nil, nil, &model.InputError{Msg: fmt.Sprintf("a share of %v of %d examples cannot be held out; at least one must be, and one must stay", part, all.N)}
	}
	at := samples.Shuffle(all.N, number(seed, 1))
	return all.Only(at[n:]), all.Only(at[:n]), nil
}

// evalRows is how many examples of a network with batch norms are evaluated together: it decides what their statistics are.
const evalRows = 512

// Plain is the objective of a network without attention. Batch norms take the statistics of the batch, everywhere: those that a midpoint
// would inherit say nothing about it.
type Plain struct {
	d              *model.PlainDescription
	m              *model.PlainModel
	train, heldOut *samples.Set
	batch          int
}

// NewPlain makes the objective. batch is how many examples a step takes; the last ones of an epoch that make no whole batch are left out.
func NewPlain(d *model.PlainDescription, train, heldOut *samples.Set, batch int, b compute.Backend, device compute.DeviceNum) (*Plain, error) {
	for _, s := range []*samples.Set{train, heldOut} {
		if s == nil || s.N < 1 || !s.Labelled {
			return nil, &model.InputError{Msg: "learning an alignment needs examples with labels: some to learn from, and some that are held out"}
		}
	}
	values := map[string]model.Tensor{}
	for _, t := range append(d.Tensors(), d.Statistics()...) {
		values[t.Name] = model.Tensor{Shape: t.Shape, Data: make([]float32, size(t.Shape))}
	}
	m, err := model.NewPlain(d, values, b, device)
	if err != nil {
		return nil, err
	}
	return &Plain{d: d, m: m, train: train, heldOut: heldOut, batch: min(max(batch, 1), train.N)}, nil
}

// Close implements Objective.
func (p *Plain) Close() { p.m.Close() }

// Names implements Objective.
func (p *Plain) Names() []string {
	var names []string
	for _, s := range p.m.Weights.Packed.Segments {
		names = append(names, s.Name)
	}
	return names
}

// Steps implements Objective.
func (p *Plain) Steps() int { return p.train.N / p.batch }

// set puts weights on the device.
func (p *Plain) set(weights Values) error {
	flat := make([]float32, p.m.Weights.Packed.Size)
	for _, s := range p.m.Weights.Packed.Segments {
		if len(weights[s.Name]) != s.Size() {
			return &model.ShapeError{Checkpoint: p.d.ModelType, Tensor: s.Name, Have: []int{len(weights[s.Name])}, Want: s.Shape}
		}
		copy(flat[s.Offset:], weights[s.Name])
	}
	return p.m.SetVector(p.m.Weights, flat)
}

// backward returns sums over examples, and the gradient of factor times the loss.
func (p *Plain) backward(e *samples.Set, factor float32) (r model.Result, gradient []float32, err error) {
	g, err := p.m.NewGradients()
	if err != nil {
		return r, nil, err
	}
	defer g.Free()
	if r, err = p.m.Backward(e.X, e.Labels, e.N, g, factor, true); err != nil {
		return r, nil, err
	}
	gradient, err = gt.CopyFlatData[float32](g.Sums[0])
	return r, gradient, err
}

// Gradient implements Objective.
func (p *Plain) Gradient(ctx context.Context, weights Values, seed uint64, step int) (float64, Values, error) {
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	if err := p.set(weights); err != nil {
		return 0, nil, err
	}
	epoch, k := step/p.Steps(), step%p.Steps()
	at := order(p.train.N, seed, epoch)[k*p.batch : (k+1)*p.batch]
	r, flat, err := p.backward(p.train.Only(at), 1/float32(p.batch))
	if err != nil {
		return 0, nil, err
	}
	out := Values{}
	for _, s := range p.m.Weights.Packed.Segments {
		out[s.Name] = flat[s.Offset : s.Offset+s.Size()]
	}
	return r.MeanLoss(), out, nil
}

// Loss implements Objective.
func (p *Plain) Loss(ctx context.Context, weights Values, heldOut bool) (model.Result, error) {
	var sum model.Result
	if err := p.set(weights); err != nil {
		return sum, err
	}
	e := p.train
	if heldOut {
		e = p.heldOut
	}
	if p.m.Statistics == nil {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		return p.m.Loss(e.X, e.Labels, e.N)
	}
	for from := 0; from < e.N; from += evalRows {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		r, _, err := p.backward(e.Range(from, min(from+evalRows, e.N)), 0)
		if err != nil {
			return sum, err
		}
		sum.Add(r)
	}
	return sum, nil
}
