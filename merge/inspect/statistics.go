package inspect

import (
	"context"
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// Bins is how many bins a tensor's histogram has.
const Bins = 64

// Statistics is what there is to see in the values of one tensor. All figures but the counts are of the finite values.
type Statistics struct {
	Tensor
	Min float64 `json:"min"`
	Max float64 `json:"max"`
	Std float64 `json:"std"` // over all finite values, not an estimate for more of them
	// Histogram counts the finite values in Bins parts of equal width, from Min to Max; nil where there are none or all are the same.
	Histogram []int64 `json:"histogram,omitempty"`
}

// Look gathers the statistics of one tensor, chunk by chunk, in two passes over it. A tensor of whole numbers has a shape and no more.
func Look(ctx context.Context, c *tensors.Checkpoint, name string, o Options) (*Statistics, error) {
	info, ok := c.Lookup(name)
	if !ok {
		return nil, &tensors.FormatError{File: c.Path(), Tensor: name, Msg: "there is no such tensor", Hint: "'mergekit inspect' lists them all"}
	}
	s := &Statistics{Tensor: Tensor{Name: name, DType: info.DType.String(), Shape: info.Shape, Bytes: info.Bytes(), Float: info.DType.IsFloat()}}
	if !s.Float || info.Elems() == 0 {
		return s, nil
	}
	in, err := newSource(c, name)
	if err != nil {
		return nil, err
	}
	j := job(&method.Method{Name: "look", Merge: s.gather}, name, info.Shape, in)
	return s, runJobs(ctx, []*stream.Job{j}, o)
}

// gather runs the passes.
func (s *Statistics) gather(t *method.Task) error {
	first, err := t.Run(rangeKernel, nil)
	if err != nil {
		return err
	}
	finite := s.take(t, first)
	if finite == 0 {
		return nil
	}
	n := first.Totals
	s.Max, s.Min = n["above"], -n["below"]
	if positive, negative := n["positive"], n["negative"]; positive == 0 || negative == 0 {
		// Zero is no value of the tensor then, or it is an end of the range.
		ends, err := t.Run(endsKernel, method.Values{"bound": s.MaxAbs})
		if err != nil {
			return err
		}
		s.Min, s.Max = s.MaxAbs-ends.Totals["low"], ends.Totals["high"]-s.MaxAbs
	}
	scale := 0.0
	if width := s.Max - s.Min; width > 0 && !math.IsInf(width, 0) {
		scale = Bins / width
	}
	second, err := t.Run(histogramKernel, method.Values{"center": s.Mean, "low": s.Min, "scale": scale})
	if err != nil {
		return err
	}
	s.Std = math.Sqrt(second.Totals["deviation"] / finite)
	if scale > 0 && !math.IsInf(scale, 0) {
		s.Histogram = second.Histograms["values"]
	}
	return nil
}

var rangeKernel = &method.Kernel{Name: "look/range", Build: func(c *method.Chunk) {
	value := figures(c)
	c.Max("above", Max(value, c.Zero()))
	c.Max("below", Max(Neg(value), c.Zero()))
	c.Count("positive", GreaterThan(value, c.Zero()))
	c.Count("negative", LessThan(value, c.Zero()))
}}

// endsKernel measures from a bound that no magnitude passes, since the largest of a chunk is only known of what is not negative. In
// float64 the differences are as good as exact.
var endsKernel = &method.Kernel{Name: "look/ends", Build: func(c *method.Chunk) {
	x := c.X(0)
	finite := IsFinite(x)
	wide, bound := c.Wide(x), ConvertDType(c.Scalar("bound"), dtypes.Float64)
	none := ZerosLike(wide)
	c.Max("low", Where(finite, Sub(bound, wide), none))
	c.Max("high", Where(finite, Add(bound, wide), none))
}}

// histogramKernel counts values by their place in the range, and squares deviations from a center near the mean. A value at the upper end
// is in the last bin; what is not finite has the number of no bin.
var histogramKernel = &method.Kernel{Name: "look/histogram", Build: func(c *method.Chunk) {
	x := c.X(0)
	finite := IsFinite(x)
	d := c.Wide(c.Select(finite, Sub(x, c.Scalar("center"))))
	c.Total("deviation", Mul(d, d))
	place := Mul(Sub(c.Select(finite, x), c.Scalar("low")), c.Scalar("scale"))
	last := Const(c.Graph, uint32(Bins-1))
	bin := Min(ConvertDType(Max(place, c.Zero()), dtypes.Uint32), last)
	outside := Add(ZerosLike(bin), Const(c.Graph, uint32(Bins)))
	c.Histogram("values", Where(finite, bin, outside), Bins)
}}
