package block

import (
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// copyKernel moves values of a lane size.
func copyKernel(lane int) kernel {
	return func(d, a, _, _ unsafe.Pointer, n int) { move(d, a, n*lane) }
}

// spreadStep expands a scalar, row or column register over the block.
func spreadStep(f *frame, in *instr) {
	switch in.arg & 0xff {
	case 8:
		spread[uint64](f, in)
	case 4:
		spread[uint32](f, in)
	case 2:
		spread[uint16](f, in)
	default:
		spread[uint8](f, in)
	}
}

func spread[T any](f *frame, in *instr) {
	x := span[T](f.p[in.dst], f.n)
	switch kind(in.arg >> 8) {
	case kindScalar:
		v := *(*T)(f.p[in.a])
		for i := range x {
			x[i] = v
		}
	case kindRow:
		for r, v := range span[T](f.p[in.a], f.k) {
			row := x[r*f.width : (r+1)*f.width]
			for i := range row {
				row[i] = v
			}
		}
	default:
		col := span[T](f.p[in.a], f.width)
		for r := 0; r < f.k; r++ {
			copy(x[r*f.width:], col)
		}
	}
}

// iotaStep fills positions along an axis of the whole space.
func iotaStep(f *frame, in *instr) {
	x := span[uint32](f.p[in.dst], f.n)
	switch {
	case len(f.e.space) == 1:
		for i := range x {
			x[i] = uint32(f.off + i)
		}
	case in.arg == 0:
		for r := 0; r < f.k; r++ {
			row := x[r*f.width : (r+1)*f.width]
			for i := range row {
				row[i] = uint32(f.row + r)
			}
		}
	default:
		for r := 0; r < f.k; r++ {
			row := x[r*f.width : (r+1)*f.width]
			for i := range row {
				row[i] = uint32(i)
			}
		}
	}
}

func (f *frame) size1(in *instr) int {
	if in.kind == kindRow {
		return f.k
	}
	return f.n
}

// totalStep gathers a reduction over everything.
func totalStep(op compute.OpType, d dtypes.DType) (func(*frame, *instr), error) {
	if op == compute.OpTypeReduceSum {
		switch d {
		case dtypes.Float64:
			return func(f *frame, in *instr) { f.sums[in.acc].float += sumFloat64(span[float64](f.p[in.a], f.size1(in))) }, nil
		case dtypes.Float32:
			return func(f *frame, in *instr) { f.sums[in.acc].float += sumFloat32(span[float32](f.p[in.a], f.size1(in))) }, nil
		case dtypes.Bool:
			return func(f *frame, in *instr) { f.sums[in.acc].int += countMasks(span[uint32](f.p[in.a], f.size1(in))) }, nil
		case dtypes.Int32:
			return func(f *frame, in *instr) { f.sums[in.acc].int += sumInt32(span[int32](f.p[in.a], f.size1(in))) }, nil
		case dtypes.Uint32:
			return sumIntegers[uint32], nil
		case dtypes.Int64:
			return sumIntegers[int64], nil
		case dtypes.Uint64:
			return sumIntegers[uint64], nil
		}
		return nil, unsupported("%s of %s", op, d)
	}
	least := op == compute.OpTypeReduceMin
	switch d {
	case dtypes.Float32:
		return func(f *frame, in *instr) { extreme(f, in, span[float32](f.p[in.a], f.size1(in)), least) }, nil
	case dtypes.Float64:
		return func(f *frame, in *instr) { extreme(f, in, span[float64](f.p[in.a], f.size1(in)), least) }, nil
	}
	return nil, unsupported("%s of %s", op, d)
}

func sumIntegers[T integer](f *frame, in *instr) {
	s := int64(0)
	for _, v := range span[T](f.p[in.a], f.size1(in)) {
		s += int64(v)
	}
	f.sums[in.acc].int += s
}

func extreme[T float](f *frame, in *instr, x []T, least bool) {
	if len(x) == 0 {
		return
	}
	m := extremeOf(x, least)
	s := &f.sums[in.acc]
	switch {
	case !s.any:
		s.float, s.any = float64(m), true
	case least:
		s.float = min(s.float, float64(m))
	default:
		s.float = max(s.float, float64(m))
	}
}

func extremeOf[T float](x []T, least bool) T {
	m := x[0]
	if least {
		for _, v := range x {
			m = min(m, v)
		}
		return m
	}
	for _, v := range x {
		m = max(m, v)
	}
	return m
}

// rowStep reduces each row of the block.
func rowStep(op compute.OpType, d dtypes.DType) (func(*frame, *instr), error) {
	least := op == compute.OpTypeReduceMin
	switch {
	case d == dtypes.Float64 && op == compute.OpTypeReduceSum:
		return func(f *frame, in *instr) {
			x, y := span[float64](f.p[in.a], f.n), span[float64](f.p[in.dst], f.k)
			for r := range y {
				y[r] = sumFloat64(x[r*f.width : (r+1)*f.width])
			}
		}, nil
	case d == dtypes.Float32 && op == compute.OpTypeReduceSum:
		return func(f *frame, in *instr) {
			x, y := span[float32](f.p[in.a], f.n), span[float32](f.p[in.dst], f.k)
			for r := range y {
				y[r] = float32(sumFloat32(x[r*f.width : (r+1)*f.width]))
			}
		}, nil
	case d == dtypes.Float32:
		return func(f *frame, in *instr) { rowExtreme[float32](f, in, least) }, nil
	case d == dtypes.Float64:
		return func(f *frame, in *instr) { rowExtreme[float64](f, in, least) }, nil
	}
	return nil, unsupported("%s of rows of %s", op, d)
}

func rowExtreme[T float](f *frame, in *instr, least bool) {
	x, y := span[T](f.p[in.a], f.n), span[T](f.p[in.dst], f.k)
	for r := range y {
		y[r] = extremeOf(x[r*f.width:(r+1)*f.width], least)
	}
}

// columnStep adds the block's rows to per-column sums.
func columnStep(f *frame, in *instr) {
	acc := f.p[f.e.accumulators[in.acc].reg]
	for r := 0; r < f.k; r++ {
		addFloat64(acc, acc, unsafe.Add(f.p[in.a], 8*r*f.width), nil, f.width)
	}
}

// countStep counts indices; histogramStep adds updates. Indices out of range are skipped. The last bin is where graphs send
// what they do not want counted, often nearly everything: it is counted in a register, as increments of one address would
// wait for each other.
func countStep(f *frame, in *instr) {
	h := span[int32](f.p[in.dst], in.arg)
	one := *(*int32)(f.p[in.b])
	last := len(h) - 1
	h[last] += one * countBins(h[:last], one, span[uint32](f.p[in.a], f.n))
}

// countBinsScalar adds one to the bin of each index and returns how many indices are the one after the last.
func countBinsScalar(bins []int32, one int32, indices []uint32) (rest int32) {
	last := uint32(len(bins))
	for _, i := range indices {
		if uint64(i) < uint64(len(bins)) {
			bins[i] += one
		} else if i == last {
			rest++
		}
	}
	return rest
}

func histogramStep(f *frame, in *instr) {
	h, u := span[int32](f.p[in.dst], in.arg), span[int32](f.p[in.b], f.n)
	for j, i := range span[uint32](f.p[in.a], f.n) {
		if uint64(i) < uint64(len(h)) {
			h[i] += u[j]
		}
	}
}
