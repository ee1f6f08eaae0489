package block

import (
	"math"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// Operations that no graph has: they stand for several.
const (
	opFused    = compute.OpTypeLast + iota // x*y + z of float32 values with one rounding
	opXorShift                             // x ^ x>>k of uint32 values
	opMix                                  // (x ^ x>>k) * m of uint32 values
)

// fuse replaces some groups of nodes by one:
//
//   - A sum of Bool values counts the masks themselves.
//   - x ^ x>>k, and its product with a scalar, are one pass: hashes, and so random draws, consist of them.
//   - float32(float64(x)*float64(y) + float64(z)) is a fused multiply-add. The product of two float32 values is exact in
//     float64, so both mean the same but for a second rounding once in about 2^29 results, which the fused form avoids.
func (f *function) fuse() {
	widened := func(n *node) *node {
		if n.op == compute.OpTypeConvertDType && n.shape.DType == dtypes.Float64 && n.in[0].shape.DType == dtypes.Float32 {
			return n.in[0]
		}
		return nil
	}
	for _, n := range f.nodes {
		if n.shape.DType == dtypes.Uint32 {
			n.fuseHash()
			continue
		}
		if n.op == compute.OpTypeReduceSum && n.shape.Rank() == 0 && n.shape.DType == dtypes.Int32 && n.in[0].op == compute.OpTypeConvertDType && n.in[0].in[0].shape.DType == dtypes.Bool &&
			n.in[0].shape.Size() > 1 { // the sum of one value is that value, for which a mask will not do
			n.in = []*node{n.in[0].in[0]} // a sum of masks: counted as they stand
			continue
		}
		if n.op != compute.OpTypeConvertDType || n.shape.DType != dtypes.Float32 || n.in[0].op != compute.OpTypeAdd || n.in[0].shape.DType != dtypes.Float64 {
			continue
		}
		sum := n.in[0]
		for i, product := range sum.in {
			if product.op != compute.OpTypeMul {
				continue
			}
			x, y, z := widened(product.in[0]), widened(product.in[1]), widened(sum.in[1-i])
			if x != nil && y != nil && z != nil {
				n.op, n.in = opFused, []*node{x, y, z}
				break
			}
		}
	}
}

// fuseHash recognises the two steps of a hash.
func (n *node) fuseHash() {
	switch n.op {
	case compute.OpTypeBitwiseXor:
		x, shifted := n.in[0], n.in[1]
		if shifted.op == compute.OpTypeShiftRightLogical && shifted.in[0] == x {
			if k := shifted.in[1].scalar(); k != nil {
				n.op, n.in = opXorShift, []*node{x, k}
			}
		}
	case compute.OpTypeMul:
		for i, x := range n.in {
			if m := n.in[1-i].scalar(); m != nil && x.op == opXorShift {
				n.op, n.in = opMix, []*node{x.in[0], x.in[1], m}
				return
			}
		}
	}
}

// scalar is the single value that a node spreads, nil if there are several.
func (n *node) scalar() *node {
	for n.op == compute.OpTypeBroadcastInDim || n.op == compute.OpTypeReshape {
		n = n.in[0]
	}
	if n.shape.Rank() != 0 {
		return nil
	}
	return n
}

// mix is the scalar kernel of opXorShift (without m) and opMix; bits of variant say which operands are scalars.
func mix(variant int, multiplies bool) kernel {
	return func(d, a, b, c unsafe.Pointer, n int) {
		if n == 0 {
			return
		}
		step := func(bit int) int { return 1 - min(variant&bit, 1) }
		sa, sb, sc := step(1), step(2), step(4)
		x, p, q := span[uint32](d, n), span[uint32](a, sa*(n-1)+1), span[uint32](b, sb*(n-1)+1)
		for i := range x {
			v := p[i*sa]
			x[i] = v ^ v>>q[i*sb]
		}
		if multiplies {
			m := span[uint32](c, sc*(n-1)+1)
			for i := range x {
				x[i] *= m[i*sc]
			}
		}
	}
}

// fused32 is the fused multiply-add of float32 values, by way of float64 rounded to odd: rounding that to float32 then
// gives the correctly rounded result.
func fused32(x, y, z float32) float32 {
	p, a := float64(x)*float64(y), float64(z)
	s := p + a
	v := s - p
	e := (p - (s - v)) + (a - v) // the sum's error, exactly
	if b := math.Float64bits(s); e != 0 && b&1 == 0 && s-s == 0 {
		if (e > 0) == (s > 0) {
			b++
		} else {
			b--
		}
		s = math.Float64frombits(b)
	}
	return float32(s)
}

// fused is the scalar kernel; bits of variant say which operands are scalars.
func fused(variant int) kernel {
	return func(d, a, b, c unsafe.Pointer, n int) {
		if n == 0 {
			return
		}
		step := func(bit int) int { return 1 - min(variant&bit, 1) }
		sa, sb, sc := step(1), step(2), step(4)
		x := span[float32](d, n)
		p, q, r := span[float32](a, sa*(n-1)+1), span[float32](b, sb*(n-1)+1), span[float32](c, sc*(n-1)+1)
		for i := range x {
			x[i] = fused32(p[i*sa], q[i*sb], r[i*sc])
		}
	}
}
