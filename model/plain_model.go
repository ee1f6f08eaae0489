package model

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/tensors"
)

// PlainModel is a plain network on a device. Its methods are not safe for concurrent use.
type PlainModel struct {
	D       *PlainDescription
	Backend compute.Backend
	Device  compute.DeviceNum
	// Weights are all tensors that train, Statistics the running ones of batch norms, nil without any.
	Weights, Statistics *Vector

	execs map[string]*Exec
}

// Labels are what examples should give: classes, or values for the squared error.
type Labels struct {
	Classes []int32
	Values  []float32 // row-major, of the shape of the outputs
}

// plainBatch is how many examples are computed at a time where that makes no difference.
const plainBatch = 256

// LoadPlain reads a plain network: config.json and safetensors, tensors under the names of its layers. Errors about the files are
// *ConfigError, *MissingError, *ShapeError or *tensors.FormatError.
func LoadPlain(ctx context.Context, dir string, b compute.Backend, device compute.DeviceNum) (*PlainModel, error) {
	d, err := ReadPlainDescription(dir)
	if err != nil {
		return nil, err
	}
	ckpt, err := tensors.Open(dir)
	if err != nil {
		return nil, err
	}
	defer ckpt.Close()
	values := map[string]Tensor{}
	src := &source{ckpt: ckpt, d: &Description{}}
	for _, t := range slices.Concat(d.Tensors(), d.Statistics()) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f, err := src.floats(t.Name, t.Shape)
		if err != nil {
			return nil, err
		}
		values[t.Name] = Tensor{t.Shape, f}
	}
	for _, name := range ckpt.Names() {
		if _, ok := values[name]; !ok && !strings.HasSuffix(name, ".num_batches_tracked") {
			return nil, &ConfigError{File: filepath.Join(dir, "config.json"), Msg: fmt.Sprintf("describes no layer for the tensor %s of the checkpoint; add the layer, or remove the tensor", name)}
		}
	}
	return NewPlain(d, values, b, device)
}

// NewPlain makes a plain network from values in memory: every tensor of the description and of its statistics.
func NewPlain(d *PlainDescription, values map[string]Tensor, b compute.Backend, device compute.DeviceNum) (*PlainModel, error) {
	m := &PlainModel{D: d, Backend: b, Device: device, execs: map[string]*Exec{}}
	vector := func(list []TensorSpec) (*Vector, error) {
		v := &Vector{Packed: Pack(list)}
		data := make([]float32, v.Packed.Size)
		for _, s := range v.Packed.Segments {
			t, ok := values[s.Name]
			if !ok {
				return nil, &MissingError{d.ModelType, s.Name, s.Shape}
			}
			if len(t.Data) != s.Size() {
				return nil, &ShapeError{d.ModelType, s.Name, t.Shape, s.Shape}
			}
			copy(data[s.Offset:], t.Data)
		}
		return v, m.set(v, data)
	}
	var err error
	if m.Weights, err = vector(d.Tensors()); err != nil {
		return nil, err
	}
	if list := d.Statistics(); len(list) > 0 {
		if m.Statistics, err = vector(list); err != nil {
			m.Close()
			return nil, err
		}
	}
	return m, nil
}

func (m *PlainModel) set(v *Vector, data []float32) error {
	t, err := plainPut(m, data, len(data))
	if err != nil {
		return err
	}
	free(v.Value)
	v.Value = t
	return nil
}

func plainPut[T float32 | int32](m *PlainModel, data []T, dims ...int) (*gt.Tensor, error) {
	t := gt.FromFlatDataAndDimensions(data, dims...)
	return t, t.ToDevice(m.Backend, m.Device)
}

// Close frees what the network holds on the device.
func (m *PlainModel) Close() {
	for _, v := range []*Vector{m.Weights, m.Statistics} {
		if v != nil {
			free(v.Value)
		}
	}
	for _, e := range m.execs {
		e.Finalize()
	}
	m.execs = map[string]*Exec{}
}

// Tensors returns all tensors as they are now, running statistics included.
func (m *PlainModel) Tensors() (map[string]Tensor, error) {
	out := map[string]Tensor{}
	for _, v := range []*Vector{m.Weights, m.Statistics} {
		if v == nil {
			continue
		}
		all, err := gt.CopyFlatData[float32](v.Value)
		if err != nil {
			return nil, err
		}
		for _, s := range v.Packed.Segments {
			out[s.Name] = Tensor{s.Shape, all[s.Offset : s.Offset+s.Size()]}
		}
	}
	return out, nil
}

// run executes a graph on the network's tensors: build gets them and the data's nodes.
func (m *PlainModel) run(role string, train bool, build func(g *plainGraph, in []*Node) []*Node, data ...any) ([]*gt.Tensor, error) {
	args := []any{m.Weights.Value}
	if m.Statistics != nil {
		args = append(args, m.Statistics.Value)
	}
	tensors := len(args)
	e, ok := m.execs[role]
	if !ok {
		var err error
		e, err = NewExec(m.Backend, func(in []*Node) []*Node {
			g := &plainGraph{params: map[string]*Node{}, train: train, seen: map[string]*Node{}}
			for i, v := range []*Vector{m.Weights, m.Statistics} {
				if v == nil {
					continue
				}
				for _, s := range v.Packed.Segments {
					g.params[s.Name] = Reshape(SliceAxis(in[i], 0, AxisRange(s.Offset, s.Offset+s.Size())), s.Shape...)
				}
			}
			return build(g, in[tensors:])
		})
		if err != nil {
			return nil, err
		}
		e.WithName(role).SetMaxCache(-1)
		m.execs[role] = e
	}
	out, _, err := e.CallWithGraphOnDevice(m.Device, append(args, data...)...)
	if err != nil {
		return nil, explain(role, "the network", err)
	}
	return out, nil
}

// width returns the number of values of one example, and checks that x holds n of them.
func (m *PlainModel) width(x []float32, n int) (int, error) {
	w, _ := plainElems(m.D.Input)
	if n < 1 || len(x) != n*w {
		return 0, badInput("%d values are not %d examples of %v", len(x), n, m.D.Input)
	}
	return w, nil
}

// batches calls do with pieces of the examples, the last one filled up with zeros. size is the number of examples to compute, n
// how many of them are real.
func (m *PlainModel) batches(x []float32, n int, do func(x *gt.Tensor, from, n, size int) error) error {
	w, err := m.width(x, n)
	if err != nil {
		return err
	}
	size := min(n, plainBatch)
	for from := 0; from < n; from += size {
		some := min(size, n-from)
		part := x[from*w : (from+some)*w]
		if some < size {
			part = append(slices.Clone(part), make([]float32, (size-some)*w)...)
		}
		t, err := plainPut(m, part, append([]int{size}, m.D.Input...)...)
		if err != nil {
			return err
		}
		err = do(t, from, some, size)
		free(t)
		if err != nil {
			return err
		}
	}
	return nil
}

// Forward returns the outputs of n examples, [n, ...]: logits of classes. Batch norms use their running statistics.
func (m *PlainModel) Forward(x []float32, n int) (*Output, error) {
	out := &Output{Shape: append([]int{n}, m.D.Output...)}
	each, _ := plainElems(m.D.Output)
	err := m.batches(x, n, func(x *gt.Tensor, _, n, _ int) error {
		got, err := m.run("forward", false, func(g *plainGraph, in []*Node) []*Node {
			return []*Node{g.list(m.D.Layers, in[0])}
		}, x)
		if err != nil {
			return err
		}
		defer free(got...)
		data, err := gt.CopyFlatData[float32](got[0])
		if err != nil {
			return err
		}
		out.Data = append(out.Data, data[:n*each]...)
		return nil
	})
	return out, err
}

// labels copies labels of examples from ... from+n-1 to the device, filled up to size.
func (m *PlainModel) labels(l Labels, from, n, size int) (*gt.Tensor, error) {
	if m.D.Loss == SquaredError {
		each, _ := plainElems(m.D.Output)
		if len(l.Values) < (from+n)*each {
			return nil, badInput("%d values are too few for %d examples of %v", len(l.Values), from+n, m.D.Output)
		}
		part := make([]float32, size*each)
		copy(part, l.Values[from*each:(from+n)*each])
		return plainPut(m, part, append([]int{size}, m.D.Output...)...)
	}
	if len(l.Classes) < from+n {
		return nil, badInput("%d labels are too few for %d examples", len(l.Classes), from+n)
	}
	part := make([]int32, size)
	copy(part, l.Classes[from:from+n])
	for i, c := range part {
		if c < 0 || int(c) >= m.D.Output[0] {
			return nil, badInput("example %d has the class %d; the network tells classes from 0 to %d", from+i+1, c, m.D.Output[0]-1)
		}
	}
	return plainPut(m, part, size)
}

// Loss returns loss and accuracy of n examples. Batch norms use their running statistics.
func (m *PlainModel) Loss(x []float32, l Labels, n int) (Result, error) {
	var sum Result
	err := m.batches(x, n, func(x *gt.Tensor, from, n, size int) error {
		labels, err := m.labels(l, from, n, size)
		if err != nil {
			return err
		}
		defer free(labels)
		w := make([]float32, size)
		for i := range n {
			w[i] = 1
		}
		weights, err := plainPut(m, w, size)
		if err != nil {
			return err
		}
		defer free(weights)
		got, err := m.run("loss", false, func(g *plainGraph, in []*Node) []*Node {
			loss, correct := plainLoss(m.D.Loss, g.list(m.D.Layers, in[0]), in[1], in[2])
			return []*Node{loss, correct}
		}, x, labels, weights)
		if err != nil {
			return err
		}
		sum.Weight += float64(n)
		return sum.read(got[0], got[1])
	})
	return sum, err
}

// NewGradients returns a sum of zero for Backward.
func (m *PlainModel) NewGradients() (*Gradients, error) {
	t, err := plainPut(m, make([]float32, m.Weights.Packed.Size), m.Weights.Packed.Size)
	return &Gradients{Sums: []*gt.Tensor{t}}, err
}

// PlainPass says how a pass of a plain network goes backwards.
type PlainPass struct {
	// Objective is what is measured and differentiated; the loss unless another is named. The entropy needs no labels, and classes.
	Objective Objective
	// Scale multiplies the logits, as the inverse of a temperature; 0: 1.
	Scale float32
	// Factor multiplies the sum of the objective over the examples before it is differentiated.
	Factor float32
	// Train lets batch norms take the statistics of these examples and move their running ones, as torch does in training.
	Train bool
}

// Backward is BackwardOf for the loss.
func (m *PlainModel) Backward(x []float32, l Labels, n int, g *Gradients, factor float32, train bool) (Result, error) {
	return m.BackwardOf(x, l, n, g, PlainPass{Factor: factor, Train: train})
}

// BackwardOf computes the objective of n examples, all together, and adds the gradient of Factor times its sum to g, for every weight.
func (m *PlainModel) BackwardOf(x []float32, l Labels, n int, g *Gradients, o PlainPass) (Result, error) {
	sum := Result{Weight: float64(n)}
	if o.Objective == ObjectiveEntropy {
		if m.D.Loss != CrossEntropy {
			return sum, badInput("a network with the loss %s predicts values and no distribution, so it has no entropy", m.D.Loss)
		}
		l = Labels{Classes: make([]int32, max(n, 0))} // nobody looks at them
	}
	if _, err := m.width(x, n); err != nil {
		return sum, err
	}
	labels, err := m.labels(l, 0, n, n)
	if err != nil {
		return sum, err
	}
	defer free(labels)
	data, err := plainPut(m, x, append([]int{n}, m.D.Input...)...)
	if err != nil {
		return sum, err
	}
	defer free(data)
	factor, scale := gt.FromScalar(o.Factor), gt.FromScalar(o.Scale)
	defer free(factor, scale)
	moves := o.Train && m.Statistics != nil
	scaled := o.Scale != 0 && o.Scale != 1
	args := []any{data, labels, factor, g.Sums[0]}
	if scaled {
		args = append(args, scale)
	}
	got, err := m.run(fmt.Sprintf("gradient of the %v train=%v scaled=%v", o.Objective, o.Train, scaled), o.Train, func(pg *plainGraph, in []*Node) []*Node {
		ones := Ones(in[0].Graph(), shapes.Make(dtypes.Float32, in[0].Shape().Dim(0)))
		y := pg.list(m.D.Layers, in[0])
		if scaled {
			y = Mul(y, in[4])
		}
		loss, correct := plainObjective(o.Objective, m.D.Loss, y, in[1], ones)
		var params []*Node
		for _, s := range m.Weights.Packed.Segments {
			params = append(params, pg.params[s.Name])
		}
		grads := Gradient(Mul(loss, in[2]), params...)
		for i := range grads {
			grads[i] = Reshape(grads[i], grads[i].Shape().Size())
		}
		out := []*Node{loss, correct, Add(in[3], Concatenate(grads, 0))}
		if moves {
			var parts []*Node
			for _, s := range m.Statistics.Packed.Segments {
				parts = append(parts, Reshape(pg.seen[s.Name], s.Size()))
			}
			out = append(out, Concatenate(parts, 0))
		}
		return out
	}, args...)
	if err != nil {
		return sum, err
	}
	free(g.Sums[0])
	g.Sums[0] = got[2]
	if moves {
		free(m.Statistics.Value)
		m.Statistics.Value = got[3]
	}
	return sum, sum.read(got[0], got[1])
}

// Gradients returns the values of sums that Backward filled, by tensor.
func (m *PlainModel) Gradients(g *Gradients) (map[string]Tensor, error) {
	all, err := gt.CopyFlatData[float32](g.Sums[0])
	if err != nil {
		return nil, err
	}
	out := map[string]Tensor{}
	for _, s := range m.Weights.Packed.Segments {
		out[s.Name] = Tensor{s.Shape, all[s.Offset : s.Offset+s.Size()]}
	}
	return out, nil
}
