package model

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

func sqrt(n int) float64 { return math.Sqrt(float64(n)) }

// activation maps the names that configs use to graph functions.
var activation = map[string]func(x *Node) *Node{
	"silu":              silu,
	"swish":             silu,
	"gelu":              geluErf,
	"gelu_new":          geluTanh,
	"gelu_fast":         geluTanh,
	"gelu_pytorch_tanh": geluTanh,
	"relu":              func(x *Node) *Node { return MaxScalar(x, 0) },
}

func activations() []string {
	return []string{"silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu"}
}

// silu is x*sigmoid(x) (Elfwing et al., 2017).
func silu(x *Node) *Node { return Mul(x, Sigmoid(x)) }

// geluErf is the exact Gaussian error linear unit (Hendrycks and Gimpel, 2016).
func geluErf(x *Node) *Node {
	return Mul(MulScalar(x, 0.5), OnePlus(Erf(MulScalar(x, 1/math.Sqrt2))))
}

// geluTanh is its approximation by tanh.
func geluTanh(x *Node) *Node {
	inner := MulScalar(Add(x, MulScalar(Mul(Mul(x, x), x), 0.044715)), math.Sqrt(2/math.Pi))
	return Mul(MulScalar(x, 0.5), OnePlus(Tanh(inner)))
}

// softcap bounds x smoothly: c*tanh(x/c).
func softcap(x *Node, c float64) *Node {
	if c == 0 {
		return x
	}
	return MulScalar(Tanh(MulScalar(x, 1/c)), c)
}

// norm applies a normalisation over the last axis. weight, bias: the width; bias is nil but for LayerNorm. The result has x's
// dtype.
func norm(n Norm, x, weight, bias *Node) *Node {
	dtype := x.DType()
	x = ConvertDType(x, dtypes.Float32)
	if n.Kind == LayerNorm {
		x = Sub(x, ReduceAndKeep(x, ReduceMean, -1))
	}
	// The gradient of Rsqrt is not known to GoMLX; that of a quotient is.
	x = Div(x, Sqrt(AddScalar(ReduceAndKeep(Square(x), ReduceMean, -1), n.Eps)))
	w := ExpandLeftToRank(ConvertDType(weight, dtypes.Float32), x.Rank())
	switch n.Kind {
	case RMSNormOffset:
		return ConvertDType(Mul(x, OnePlus(w)), dtype)
	case LayerNorm:
		return ConvertDType(Add(Mul(x, w), ExpandLeftToRank(ConvertDType(bias, dtypes.Float32), x.Rank())), dtype)
	}
	// The cast before the weight is the reference's order.
	return Mul(ConvertDType(x, dtype), ConvertDType(w, dtype))
}
