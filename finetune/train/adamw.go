package train

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/model"
)

// AdamW are the optimizer's settings (Loshchilov and Hutter, 2019, "Decoupled weight decay regularization"), with torch's
// formula:
//
//	w *= 1 - lr*decay
//	m = b1*m + (1-b1)*g;  v = b2*v + (1-b2)*g*g
//	w -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps)
type AdamW struct {
	Beta1, Beta2 float64
	Eps          float64
	WeightDecay  float64
	DecayAll     bool    // decay vectors too, not matrices alone
	Clip         float64 // largest norm of the gradient; 0: no bound
	RatioB       float64 // multiplies the learning rate of LoRA's B (Hayou et al., 2024, "LoRA+"); 0 or 1: not
}

// moments are the optimizer's state of one vector, on the device.
type moments struct{ m, v *gt.Tensor }

// optimizer applies AdamW to the packed vectors of a model.
type optimizer struct {
	AdamW
	m     *model.Model
	state []moments // for each of Model.Vectors
	execs map[string]*Exec

	// Of a sparse fine-tune: the values at the start, the entries that are chosen, whether those alone change now, and by how much
	// each that changes is pulled to the start.
	start   []*gt.Tensor
	mask    []*gt.Tensor // bool
	masking bool
	pull    float64
}

func newOptimizer(m *model.Model, a AdamW) (*optimizer, error) {
	o := &optimizer{AdamW: a, m: m, state: make([]moments, len(m.Vectors)), execs: map[string]*Exec{}}
	for i, v := range m.Vectors {
		if v == nil {
			continue
		}
		if err := o.setState(i, make([]float32, v.Packed.Size), make([]float32, v.Packed.Size)); err != nil {
			o.close()
			return nil, err
		}
	}
	return o, nil
}

// setState copies moments to the device, in the place of those that are there.
func (o *optimizer) setState(i int, m, v []float32) (err error) {
	o.state[i].free()
	s := &o.state[i]
	if s.m, err = o.m.Put(m, len(m)); err != nil {
		return err
	}
	s.v, err = o.m.Put(v, len(v))
	return err
}

// free gives the moments' memory back.
func (s *moments) free() {
	for _, t := range []*gt.Tensor{s.m, s.v} {
		if t != nil {
			_ = t.FinalizeAll()
		}
	}
	s.m, s.v = nil, nil
}

// total is the sum of a vector. Rows first: a long running sum in float32 would lose its tail.
func total(x *Node) *Node {
	n := x.Shape().Size()
	const row = 1024
	whole := n / row * row
	sum := ScalarZero(x.Graph(), dtypes.Float32)
	if whole > 0 {
		rows := ReduceSum(Reshape(SliceAxis(x, 0, AxisRange(0, whole)), whole/row, row), 1)
		sum = ReduceAllSum(rows)
	}
	if whole < n {
		sum = Add(sum, ReduceAllSum(SliceAxis(x, 0, AxisRange(whole, n))))
	}
	return sum
}

func (o *optimizer) exec(key string, build func(in []*Node) []*Node) (*Exec, error) {
	if e, ok := o.execs[key]; ok {
		return e, nil
	}
	e, err := NewExec(o.m.Backend, build)
	if err != nil {
		return nil, err
	}
	e.WithName(key).SetMaxCache(-1)
	o.execs[key] = e
	return e, nil
}

func (o *optimizer) call(e *Exec, args ...any) ([]*gt.Tensor, error) {
	out, _, err := e.CallWithGraphOnDevice(o.m.Device, args...)
	return out, err
}

// norm returns the norm of all gradients, summed in float64 over the vectors.
func (o *optimizer) norm(g *model.Gradients) (float64, error) {
	var sums []*gt.Tensor
	for _, group := range o.groups() {
		var args []any
		for _, i := range group {
			if t := g.Sums[i]; t != nil {
				args = append(args, t)
			}
		}
		if len(args) == 0 {
			continue
		}
		e, err := o.exec("gradient norm", func(in []*Node) []*Node {
			var squares []*Node
			for _, x := range in {
				squares = append(squares, Reshape(total(Square(x)), 1))
			}
			if len(squares) == 1 {
				return squares
			}
			return []*Node{Concatenate(squares, 0)}
		})
		if err != nil {
			return 0, err
		}
		out, err := o.call(e, args...)
		if err != nil {
			_, _ = add(sums)
			return 0, err
		}
		sums = append(sums, out[0])
	}
	square, err := add(sums)
	return math.Sqrt(square), err
}

// groups are the vectors that one execution takes, by index: one vector, and on a card many small ones, whose calls would cost more than
// their work.
func (o *optimizer) groups() (list [][]int) {
	const most = 32 << 20 // elements of a group
	size := 0
	for i, v := range o.m.Vectors {
		if v == nil {
			continue
		}
		if n := len(list); n > 0 && o.m.OnCard() && size+v.Packed.Size <= most {
			list[n-1] = append(list[n-1], i)
		} else {
			list, size = append(list, []int{i}), 0
		}
		size += v.Packed.Size
	}
	return list
}

// add sums all values of vectors in float64, and frees them.
func add(list []*gt.Tensor) (sum float64, failed error) {
	for _, t := range list {
		v, err := gt.CopyFlatData[float32](t)
		if err == nil {
			for _, x := range v {
				sum += float64(x)
			}
		}
		failed = errors.Join(failed, err)
		_ = t.FinalizeAll()
	}
	return sum, failed
}

// factors returns, for each element of a packed vector, what multiplies decay and learning rate.
func (o *optimizer) factors(g *Graph, p model.Packed) (decay, rate *Node) {
	constant := func(value func(s model.Segment) float64) *Node {
		first, same := value(p.Segments[0]), true
		for _, s := range p.Segments {
			same = same && value(s) == first
		}
		if same {
			return Scalar(g, dtypes.Float32, first)
		}
		var parts []*Node
		for _, s := range p.Segments {
			parts = append(parts, FillScalar(g, shapes.Make(dtypes.Float32, s.Size()), value(s)))
		}
		return Concatenate(parts, 0)
	}
	decay = constant(func(s model.Segment) float64 {
		if len(s.Shape) < 2 && !o.DecayAll {
			return 0
		}
		return o.WeightDecay
	})
	rate = constant(func(s model.Segment) float64 {
		if o.RatioB > 0 && (strings.HasSuffix(s.Name, ".lora_B.weight") || strings.HasSuffix(s.Name, ".lora_embedding_B")) {
			return o.RatioB
		}
		return 1
	})
	return decay, rate
}

// update makes update t (from 1) with the gradients times coefficient, and sets them to zero.
func (o *optimizer) update(g *model.Gradients, t int, lr, coefficient float64) error {
	scalars := []float32{float32(lr), float32(coefficient), float32(1 / (1 - math.Pow(o.Beta1, float64(t)))), float32(math.Sqrt(1 - math.Pow(o.Beta2, float64(t))))}
	s, err := o.m.Put(scalars, len(scalars))
	if err != nil {
		return err
	}
	defer func() { _ = s.FinalizeAll() }()
	for _, group := range o.groups() {
		if err := o.updateGroup(group, g, s); err != nil {
			return err
		}
	}
	return nil
}

// updateGroup makes the update of some vectors. s: learning rate, coefficient and the corrections of the moments.
func (o *optimizer) updateGroup(group []int, g *model.Gradients, s *gt.Tensor) error {
	each := 4 // inputs of a vector
	if o.masking {
		each = 5
	}
	key := fmt.Sprint("adamw ", o.masking)
	var args []any
	var gone []*gt.Tensor
	for _, i := range group {
		v, st := o.m.Vectors[i], &o.state[i]
		key += fmt.Sprint(" ", v.Packed.Segments)
		for _, t := range []*gt.Tensor{v.Value, g.Sums[i], st.m, st.v} {
			args = append(args, o.give(t, &gone))
		}
		if o.masking {
			args = append(args, o.mask[i])
		}
	}
	e, err := o.exec(key, func(in []*Node) (out []*Node) {
		for k, i := range group {
			out = append(out, o.updated(o.m.Vectors[i].Packed, in[k*each:(k+1)*each], in[len(in)-1])...)
		}
		return out
	})
	if err != nil {
		return err
	}
	out, err := o.call(e, append(args, s)...)
	if err != nil {
		return fmt.Errorf("adamw of %s: %w", o.m.Vectors[group[0]].Prefix, err)
	}
	freeAll(gone)
	for k, i := range group {
		st := &o.state[i]
		o.m.Vectors[i].Value, st.m, st.v, g.Sums[i] = out[4*k], out[4*k+1], out[4*k+2], out[4*k+3]
	}
	return nil
}

// give gives a tensor's memory to an execution. XLA does not take it, so it is for the caller to free then.
func (o *optimizer) give(t *gt.Tensor, gone *[]*gt.Tensor) any {
	if !strings.HasPrefix(o.m.Backend.Name(), "xla") {
		if d, err := DonateTensorBuffer(t, o.m.Backend, o.m.Device); err == nil {
			return d
		}
	}
	*gone = append(*gone, t)
	return t
}

// updated builds the update of a vector from its values, gradient and moments (and mask): the new ones, and a gradient of zero.
func (o *optimizer) updated(p model.Packed, in []*Node, s *Node) []*Node {
	w, grad, m, v2 := in[0], in[1], in[2], in[3]
	before := w
	at := func(i int) *Node { return Reshape(SliceAxis(s, 0, AxisElem(i))) }
	decay, rate := o.factors(w.Graph(), p)
	lr := Mul(at(0), rate)
	grad = Mul(grad, at(1))
	w = Mul(w, OneMinus(Mul(lr, decay)))
	m = Add(MulScalar(m, o.Beta1), MulScalar(grad, 1-o.Beta1))
	v2 = Add(MulScalar(v2, o.Beta2), MulScalar(Square(grad), 1-o.Beta2))
	w = Sub(w, Mul(Mul(lr, at(2)), Div(m, AddScalar(Div(Sqrt(v2), at(3)), o.Eps))))
	if o.masking { // the update is masked, not the gradient alone: weight decay moves what has no gradient
		w = Where(in[4], w, before)
	}
	return []*Node{w, m, v2, ZerosLike(grad)}
}

// close frees the state.
func (o *optimizer) close() {
	for i := range o.state {
		o.state[i].free()
	}
	freeAll(o.start)
	freeAll(o.mask)
	for _, e := range o.execs {
		e.Finalize()
	}
}
