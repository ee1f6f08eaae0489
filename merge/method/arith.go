package method

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Round rounds x to the storage dtype under native arithmetic and is the identity otherwise.
func (c *Chunk) Round(x *Node) *Node {
	if c.Arith != Native || c.D == c.Work {
		return x
	}
	return ConvertDType(ConvertDType(x, c.D), c.Work)
}

// Add returns x+y, rounded.
func (c *Chunk) Add(x, y *Node) *Node { return c.Round(Add(x, y)) }

// Sub returns x-y, rounded.
func (c *Chunk) Sub(x, y *Node) *Node { return c.Round(Sub(x, y)) }

// Mul returns x*y, rounded.
func (c *Chunk) Mul(x, y *Node) *Node { return c.Round(Mul(x, y)) }

// Div returns x/y, rounded.
func (c *Chunk) Div(x, y *Node) *Node { return c.Round(Div(x, y)) }

// MulAdd returns x*y + z with a single rounding to the work dtype (a fused multiply-add): it keeps what cancels when a
// product is added to one of nearly the same size. x, y and z are in the work dtype; for float32 the product is exact in
// float64, which is how the graph says it. Backends that contract a float32 product and sum themselves get just those.
func (c *Chunk) MulAdd(x, y, z *Node) *Node {
	if c.Work != dtypes.Float32 || c.contracts {
		return Add(Mul(x, y), z)
	}
	return ConvertDType(Add(Mul(c.wide(x), c.wide(y)), c.wide(z)), dtypes.Float32)
}

// Sum adds nodes in order and rounds once at the end, as a reduction over a stacked axis does.
func (c *Chunk) Sum(xs ...*Node) *Node {
	acc := xs[0]
	for _, x := range xs[1:] {
		acc = Add(acc, x)
	}
	if len(xs) == 1 {
		return acc
	}
	return c.Round(acc)
}

// Const returns a rank-0 constant of the work dtype.
func (c *Chunk) Const(v float64) *Node { return ConstAsDType(c.Graph, c.Work, v) }

// Zero returns a rank-0 zero of the work dtype.
func (c *Chunk) Zero() *Node { return c.Const(0) }

// Select returns x where mask holds and zero elsewhere.
func (c *Chunk) Select(mask, x *Node) *Node { return Where(mask, x, c.Zero()) }

// ToWork turns a Bool or integer node into the work dtype.
func (c *Chunk) ToWork(x *Node) *Node { return ConvertDType(x, c.Work) }

// Key returns the magnitude of x as an order-preserving Uint32: the bits of float32 |x|, below 2^31.
func (c *Chunk) Key(x *Node) *Node {
	if x.DType() != dtypes.Float32 {
		x = ConvertDType(x, dtypes.Float32)
	}
	// Clearing the sign bit, rather than Abs, also maps -0 to 0 on every backend.
	return BitwiseAnd(Bitcast(x, dtypes.Uint32), Const(c.Graph, uint32(1<<31-1)))
}

// NonZero marks the elements of x that are not zero.
func (c *Chunk) NonZero(x *Node) *Node { return NotEqual(x, c.Zero()) }
