package model

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Objective is what a pass measures and goes backwards from.
type Objective uint8

// The objectives of passes.
const (
	// ObjectiveLoss is the loss of the targets: the cross-entropy, or the squared error of a plain network that has it.
	ObjectiveLoss Objective = iota
	// ObjectiveEntropy is the entropy, in nats, of what is predicted at the targets. Their labels are not looked at, and nothing is
	// counted as correct. A model that is sure of itself has little; Yang et al., 2024, "AdaMerging: Adaptive Model Merging for
	// Multi-Task Learning", ICLR, take it for the loss that cannot be measured without labels.
	ObjectiveEntropy
)

// String names the objective.
func (o Objective) String() string { return [...]string{"loss", "entropy"}[o] }

// crossEntropy returns the sums of Result over targets, with what their gradients need. logits: float32 [c,V]; ids: int32 [c];
// weights: float32 [c]. picked marks the targets' logits, lse [c] is the logarithm of the sum of their exponentials.
func crossEntropy(logits, ids, weights *Node) (loss, correct, picked, lse *Node) {
	dims := logits.Shape().Dimensions
	top := ReduceMax(logits, 1)
	picked = Equal(Iota(logits.Graph(), shapes.Make(dtypes.Int32, dims...), 1), BroadcastToDims(InsertAxes(ids, -1), dims...))
	value := ReduceSum(Where(picked, logits, ZerosLike(logits)), 1)
	lse = Add(Log(ReduceSum(Exp(Sub(logits, InsertAxes(top, -1))), 1)), top)
	loss = ReduceAllSum(Mul(weights, Sub(lse, value)))
	correct = ReduceAllSum(Mul(weights, ConvertDType(GreaterOrEqual(value, top), dtypes.Float32)))
	return loss, correct, picked, lse
}

// entropy returns the entropies [c] of the distributions with logits [c,V], their probabilities, and the logarithms of those.
func entropy(logits *Node) (h, p, logs *Node) {
	shifted := Sub(logits, StopGradient(InsertAxes(ReduceMax(logits, 1), -1)))
	logs = Sub(shifted, InsertAxes(Log(ReduceSum(Exp(shifted), 1)), -1))
	p = Exp(logs)
	return Neg(ReduceSum(Mul(p, logs), 1)), p, logs
}

// objectiveGraph builds the sums of Result of a chunk and dz [c,V], the gradient of each target's objective, unweighted, by its logits.
// scale: the factor of the logits, a scalar; nil: 1.
func objectiveGraph(objective Objective, logits, ids, weights, scale *Node) (value, correct, dz *Node) {
	z := logits
	if scale != nil {
		z = Mul(logits, scale)
	}
	if objective == ObjectiveEntropy {
		h, p, logs := entropy(z)
		value, correct = ReduceAllSum(Mul(weights, h)), ScalarZero(logits.Graph(), dtypes.Float32)
		// The derivative of -sum p log p by a logit.
		dz = Neg(Mul(p, Add(logs, InsertAxes(h, -1))))
	} else {
		var picked, lse *Node
		value, correct, picked, lse = crossEntropy(z, ids, weights)
		// Softmax minus one-hot: the gradient of the cross-entropy.
		dz = Sub(Exp(Sub(z, InsertAxes(lse, -1))), ConvertDType(picked, dtypes.Float32))
	}
	if scale != nil {
		dz = Mul(dz, scale)
	}
	return value, correct, dz
}
