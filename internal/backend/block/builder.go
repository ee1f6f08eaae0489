package block

import (
	"reflect"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/notimplemented"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// arity lists the element-wise operations and how many operands they take.
var arity = map[compute.OpType]int{
	compute.OpTypeAbs: 1, compute.OpTypeNeg: 1, compute.OpTypeSign: 1, compute.OpTypeSqrt: 1, compute.OpTypeRsqrt: 1, compute.OpTypeExp: 1,
	compute.OpTypeLog: 1, compute.OpTypeSin: 1, compute.OpTypeCos: 1, compute.OpTypeTanh: 1, compute.OpTypeFloor: 1, compute.OpTypeCeil: 1,
	compute.OpTypeRound: 1, compute.OpTypeIsFinite: 1, compute.OpTypeIsNaN: 1, compute.OpTypeLogicalNot: 1, compute.OpTypeBitwiseNot: 1,
	compute.OpTypeAdd: 2, compute.OpTypeSub: 2, compute.OpTypeMul: 2, compute.OpTypeDiv: 2, compute.OpTypeRem: 2, compute.OpTypePow: 2, compute.OpTypeMax: 2, compute.OpTypeMin: 2,
	compute.OpTypeBitwiseAnd: 2, compute.OpTypeBitwiseOr: 2, compute.OpTypeBitwiseXor: 2, compute.OpTypeShiftLeft: 2, compute.OpTypeShiftRightLogical: 2,
	compute.OpTypeLogicalAnd: 2, compute.OpTypeLogicalOr: 2, compute.OpTypeLogicalXor: 2,
	compute.OpTypeEqual: 2, compute.OpTypeNotEqual: 2, compute.OpTypeLessThan: 2, compute.OpTypeLessOrEqual: 2, compute.OpTypeGreaterThan: 2, compute.OpTypeGreaterOrEqual: 2,
}

// node is one value of the graph.
type node struct {
	fn    *function
	id    int
	op    compute.OpType
	shape shapes.Shape
	in    []*node
	axes  []int // reductions
	axis  int   // Iota
	slot  int   // Parameter
	data  []byte
}

type builder struct {
	notimplemented.Builder
	backend *Backend
	name    string
	main    *function
}

func newBuilder(b *Backend, name string) *builder {
	bl := &builder{backend: b, name: name}
	bl.main = &function{builder: bl}
	bl.main.ErrFn = func(op compute.OpType) error { return unsupported("operation %s", op) }
	return bl
}

func (b *builder) Name() string           { return b.name }
func (b *builder) Main() compute.Function { return b.main }
func (b *builder) NewFunction(name string) (compute.Function, error) {
	return nil, unsupported("functions (%s)", name)
}
func (b *builder) OpShape(v compute.Value) (shapes.Shape, error) { return b.main.Shape(v) }
func (b *builder) Compile() (compute.Executable, error)          { return compile(b) }

type function struct {
	notimplemented.Function
	builder *builder
	nodes   []*node
	params  []*node
	names   []string
	outputs []*node
}

func (f *function) Name() string             { return compute.MainName }
func (f *function) Builder() compute.Builder { return f.builder }
func (f *function) Parent() compute.Function { return nil }

func (f *function) Shape(v compute.Value) (shapes.Shape, error) {
	n, err := f.cast(v)
	if err != nil {
		return shapes.Invalid(), err
	}
	return n.shape, nil
}

func (f *function) cast(v compute.Value) (*node, error) {
	n, ok := v.(*node)
	if !ok || n.fn != f {
		return nil, errors.Errorf("block: a value of type %T does not belong to this computation", v)
	}
	return n, nil
}

func (f *function) add(op compute.OpType, shape shapes.Shape, in ...*node) *node {
	n := &node{fn: f, id: len(f.nodes), op: op, shape: shape, in: in}
	f.nodes = append(f.nodes, n)
	return n
}

func (f *function) casts(vs ...compute.Value) ([]*node, error) {
	out := make([]*node, len(vs))
	for i, v := range vs {
		n, err := f.cast(v)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

func (f *function) Parameter(name string, shape shapes.Shape, spec *compute.ShardingSpec) (compute.Value, error) {
	if spec != nil {
		return nil, unsupported("sharded parameters")
	}
	n := f.add(compute.OpTypeParameter, shape)
	n.slot = len(f.params)
	f.params = append(f.params, n)
	f.names = append(f.names, name)
	return n, nil
}

func (f *function) Constant(flat any, dims ...int) (compute.Value, error) {
	v := reflect.ValueOf(flat)
	if v.Kind() != reflect.Slice {
		return nil, errors.Errorf("block: a constant must be a slice, not %T", flat)
	}
	d := dtypes.FromGoType(v.Type().Elem())
	shape := shapes.Make(d, dims...)
	if shape.Size() != v.Len() {
		return nil, errors.Errorf("block: a constant of %d elements does not fit shape %s", v.Len(), shape)
	}
	n := f.add(compute.OpTypeConstant, shape)
	bytes := v.Len() * d.Size()
	n.data = make([]byte, bytes)
	if bytes > 0 {
		copy(n.data, unsafe.Slice((*byte)(v.UnsafePointer()), bytes))
	}
	return n, nil
}

func (f *function) Return(outputs []compute.Value, shardings []*compute.ShardingSpec) error {
	for _, s := range shardings {
		if s != nil {
			return unsupported("sharded outputs")
		}
	}
	var err error
	f.outputs, err = f.casts(outputs...)
	return err
}

func (f *function) Identity(x compute.Value) (compute.Value, error) { return f.cast(x) }

func (f *function) unary(op compute.OpType, x compute.Value) (compute.Value, error) {
	in, err := f.casts(x)
	if err != nil {
		return nil, err
	}
	shape := in[0].shape
	if op == compute.OpTypeIsFinite || op == compute.OpTypeIsNaN {
		shape = shapes.Make(dtypes.Bool, shape.Dimensions...)
	} else if shape, err = shapeinference.UnaryOp(op, shape); err != nil {
		return nil, err
	}
	return f.add(op, shape, in...), nil
}

func (f *function) binary(op compute.OpType, a, b compute.Value) (compute.Value, error) {
	in, err := f.casts(a, b)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.BinaryOp(op, in[0].shape, in[1].shape)
	if err != nil {
		return nil, err
	}
	return f.add(op, shape, in...), nil
}

func (f *function) comparison(op compute.OpType, a, b compute.Value) (compute.Value, error) {
	in, err := f.casts(a, b)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.ComparisonOp(op, in[0].shape, in[1].shape)
	if err != nil {
		return nil, err
	}
	return f.add(op, shape, in...), nil
}

func (f *function) Where(c, a, b compute.Value) (compute.Value, error) {
	in, err := f.casts(c, a, b)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.Where(in[0].shape, in[1].shape, in[2].shape)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeWhere, shape, in...), nil
}

func (f *function) Clamp(lo, x, hi compute.Value) (compute.Value, error) {
	m, err := f.Max(x, lo)
	if err != nil {
		return nil, err
	}
	return f.Min(m, hi)
}

func (f *function) ConvertDType(x compute.Value, d dtypes.DType) (compute.Value, error) {
	in, err := f.casts(x)
	if err != nil {
		return nil, err
	}
	if in[0].shape.DType == d {
		return in[0], nil
	}
	return f.add(compute.OpTypeConvertDType, shapes.Make(d, in[0].shape.Dimensions...), in...), nil
}

func (f *function) Bitcast(x compute.Value, d dtypes.DType) (compute.Value, error) {
	in, err := f.casts(x)
	if err != nil {
		return nil, err
	}
	// A Bool is a mask of 32 bits in a register, not the byte that its size says.
	if from := in[0].shape.DType; from.Size() != d.Size() || (from == dtypes.Bool) != (d == dtypes.Bool) {
		return nil, unsupported("bitcast from %s to %s", in[0].shape.DType, d)
	}
	return f.add(compute.OpTypeBitcast, shapes.Make(d, in[0].shape.Dimensions...), in...), nil
}

func (f *function) Reshape(x compute.Value, dims ...int) (compute.Value, error) {
	in, err := f.casts(x)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.Reshape(in[0].shape, dims)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeReshape, shape, in...), nil
}

func (f *function) BroadcastInDim(x compute.Value, shape shapes.Shape, axes []int) (compute.Value, error) {
	in, err := f.casts(x)
	if err != nil {
		return nil, err
	}
	n := f.add(compute.OpTypeBroadcastInDim, shape, in...)
	n.axes = append([]int(nil), axes...)
	return n, nil
}

func (f *function) Iota(shape shapes.Shape, axis int) (compute.Value, error) {
	if axis < 0 || axis >= shape.Rank() {
		return nil, errors.Errorf("block: Iota over axis %d of %s", axis, shape)
	}
	n := f.add(compute.OpTypeIota, shape)
	n.axis = axis
	return n, nil
}

func (f *function) reduce(op compute.OpType, x compute.Value, axes []int) (compute.Value, error) {
	in, err := f.casts(x)
	if err != nil {
		return nil, err
	}
	if len(axes) == 0 {
		for i := range in[0].shape.Dimensions {
			axes = append(axes, i)
		}
	}
	shape, err := shapeinference.Reduce(in[0].shape, axes)
	if err != nil {
		return nil, err
	}
	n := f.add(op, shape, in...)
	n.axes = append([]int(nil), axes...)
	return n, nil
}

func (f *function) ScatterSum(operand, indices, updates compute.Value, indexVectorAxis int, updateWindowAxes, insertedWindowAxes, scatterAxesToOperandAxes []int, _, _ bool) (compute.Value, error) {
	in, err := f.casts(operand, indices, updates)
	if err != nil {
		return nil, err
	}
	o, i, u := in[0].shape, in[1].shape, in[2].shape
	if o.Rank() != 1 || i.Rank() != 2 || i.Dimensions[1] != 1 || u.Rank() != 1 || indexVectorAxis != 1 || len(updateWindowAxes) != 0 ||
		o.DType != dtypes.Int32 || i.DType != dtypes.Int32 && i.DType != dtypes.Uint32 {
		return nil, unsupported("ScatterSum other than an Int32 histogram: operand %s, indices %s, updates %s", o, i, u)
	}
	return f.add(compute.OpTypeScatterSum, o, in...), nil
}
