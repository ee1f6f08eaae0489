package learn

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// Batch is a batch of a transformer, with what is to be predicted in it.
type Batch struct {
	Input   model.Input
	Targets model.Targets
}

// NextTokens makes a batch of rows of token ids, all of the same length: every token but the first is to be predicted.
func NextTokens(rows [][]int32) Batch {
	b := Batch{Input: model.Input{Rows: len(rows)}}
	for r, row := range rows {
		b.Input.Length = len(row)
		b.Input.IDs = append(b.Input.IDs, row...)
		for i := 1; i < len(row); i++ {
			b.Targets.Rows = append(b.Targets.Rows, int32(r*len(row)+i-1))
			b.Targets.IDs = append(b.Targets.IDs, row[i])
			b.Targets.Weights = append(b.Targets.Weights, 1)
		}
	}
	return b
}

// NetworkOptions say where a transformer is computed.
type NetworkOptions struct {
	Backend compute.Backend
	Device  compute.DeviceNum
	// Untied gives a model whose head is its embedding a head of its own: a turned stream needs it (symmetry.Spec.Untie).
	Untied bool
	// Recompute saves memory: model.PassOptions.
	Recompute bool
	// Compiling is told what is compiled: model.Options.
	Compiling func(what string, done bool)
}

// Network is the objective of a transformer.
type Network struct {
	m              *model.Model
	names          map[string]string // of the model's class to those of the files
	train, heldOut []Batch
	recompute      bool
}

// NewNetwork makes the objective. The checkpoint gives the names under which the spec knows the tensors, and weights to begin with.
func NewNetwork(ctx context.Context, d *model.Description, c *tensors.Checkpoint, train, heldOut []Batch, o NetworkOptions) (*Network, error) {
	if len(train) == 0 || len(heldOut) == 0 {
		return nil, &model.InputError{Msg: "learning an alignment needs batches to learn from and batches that are held out"}
	}
	values, err := d.Weights(c, nil)
	if err != nil {
		return nil, err
	}
	n := &Network{names: map[string]string{}, train: train, heldOut: heldOut, recompute: o.Recompute}
	for name := range values {
		info, ok := d.Find(c, name)
		if !ok {
			return nil, fmt.Errorf("%s: lost %s", c.Path(), name)
		}
		n.names[name] = info.Name
	}
	head := d.Names.LMHead + ".weight"
	untied := o.Untied && d.Head == model.HeadLM && d.Tied
	if untied {
		values[head] = values[d.Names.Embed+".weight"]
		n.names[head] = head
	}
	n.m, err = model.LoadFrom(ctx, d, c, model.Options{Backend: o.Backend, Device: o.Device, Compiling: o.Compiling,
		Overlay: &model.Overlay{Tensors: values, Untied: untied}})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Close implements Objective.
func (n *Network) Close() { n.m.Close() }

// each visits the tensors with their place in the packed vectors.
func (n *Network) each(visit func(v int, s model.Segment, name string) error) error {
	for i, v := range n.m.Vectors {
		if v == nil {
			continue
		}
		for _, s := range v.Packed.Segments {
			if err := visit(i, s, n.names[v.Prefix+s.Name]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Names implements Objective.
func (n *Network) Names() []string {
	var names []string
	_ = n.each(func(_ int, _ model.Segment, name string) error { // visits that never fail
		names = append(names, name)
		return nil
	})
	return names
}

// Steps implements Objective.
func (n *Network) Steps() int { return len(n.train) }

// set puts weights on the device.
func (n *Network) set(weights Values) error {
	flat := make([][]float32, len(n.m.Vectors))
	for i, v := range n.m.Vectors {
		if v != nil {
			flat[i] = make([]float32, v.Packed.Size)
		}
	}
	err := n.each(func(v int, s model.Segment, name string) error {
		if len(weights[name]) != s.Size() {
			return &model.ShapeError{Checkpoint: n.m.D.ModelType, Tensor: name, Have: []int{len(weights[name])}, Want: s.Shape}
		}
		copy(flat[v][s.Offset:], weights[name])
		return nil
	})
	if err != nil {
		return err
	}
	for i, v := range n.m.Vectors {
		if v != nil {
			if err := n.m.SetVector(v, flat[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Gradient implements Objective.
func (n *Network) Gradient(ctx context.Context, weights Values, seed uint64, step int) (float64, Values, error) {
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	if err := n.set(weights); err != nil {
		return 0, nil, err
	}
	b := n.train[order(len(n.train), seed, step/len(n.train))[step%len(n.train)]]
	var weight float64
	for _, w := range b.Targets.Weights {
		weight += float64(w)
	}
	g, err := n.m.NewGradients()
	if err != nil {
		return 0, nil, err
	}
	defer g.Free()
	r, err := n.m.Backward(b.Input, b.Targets, g, model.PassOptions{Factor: float32(1 / weight), Recompute: n.recompute})
	if err != nil {
		return 0, nil, err
	}
	sums := make([][]float32, len(g.Sums))
	for i, s := range g.Sums {
		if s == nil {
			continue
		}
		if sums[i], err = gt.CopyFlatData[float32](s); err != nil {
			return 0, nil, err
		}
	}
	out := Values{}
	err = n.each(func(v int, s model.Segment, name string) error {
		out[name] = sums[v][s.Offset : s.Offset+s.Size()]
		return nil
	})
	return r.MeanLoss(), out, err
}

// Loss implements Objective.
func (n *Network) Loss(ctx context.Context, weights Values, heldOut bool) (model.Result, error) {
	var sum model.Result
	if err := n.set(weights); err != nil {
		return sum, err
	}
	list := n.train
	if heldOut {
		list = n.heldOut
	}
	for _, b := range list {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		r, err := n.m.Loss(b.Input, b.Targets, 0)
		if err != nil {
			return sum, err
		}
		sum.Add(r)
	}
	return sum, nil
}
