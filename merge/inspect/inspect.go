// Package inspect looks at checkpoints: sizes, norms, values that are not finite, and differences between two of them.
package inspect

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"sort"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// Tensor is what Inspect finds about one tensor. Figures are of its finite and non-finite values alike.
type Tensor struct {
	Name   string  `json:"name"`
	DType  string  `json:"dtype"`
	Shape  []int   `json:"shape"`
	Bytes  int64   `json:"bytes"`
	Float  bool    `json:"float"`
	Norm   float64 `json:"norm"`    // Euclidean, of the finite values
	Mean   float64 `json:"mean"`    // of the finite values
	MaxAbs float64 `json:"max_abs"` // of the finite values
	Zeros  int64   `json:"zeros"`
	NaN    int64   `json:"nan"`
	Inf    int64   `json:"inf"`
}

// Options of Inspect and Diff.
type Options struct {
	Backend compute.Backend
	Threads int
	Read    func(n int64) // progress in bytes
}

// source is a tensor of a checkpoint as the engine reads it.
type source struct {
	path string
	r    *tensors.Reader
	size int64 // bytes of an element
}

func newSource(c *tensors.Checkpoint, name string) (source, error) {
	r, err := c.Reader(name)
	if err != nil {
		return source{}, err
	}
	return source{c.Path(), r, int64(r.DType.Size())}, nil
}

func (s source) DType() tensors.DType { return s.r.DType }
func (s source) String() string       { return s.r.Name + " of " + s.path }
func (s source) Bytes(off, n int64, scratch []byte) ([]byte, error) {
	return s.r.Bytes(off*s.size, n*s.size, scratch)
}
func (s source) WillNeed(off, n int64) { s.r.WillNeed(off*s.size, n*s.size) }
func (s source) Release(off, n int64)  { s.r.Release(off*s.size, n*s.size) }

// job makes a job that only gathers statistics.
func job(m *method.Method, name string, shape []int, inputs ...source) *stream.Job {
	t := method.Task{Name: name, Shape: shape, N: 1, Inputs: len(inputs), Base: -1, D: dtypes.InvalidDType}
	for _, d := range shape {
		t.N *= int64(d)
	}
	j := &stream.Job{Method: m, Out: tensors.F32, AllowNonFinite: true}
	for _, in := range inputs {
		t.D = stream.Promote(t.D, plan.GraphDType(in.DType()))
		j.Inputs = append(j.Inputs, in)
	}
	j.Task = t
	return j
}

// Inspect looks at every tensor of a checkpoint; with values false it reads headers only.
func Inspect(ctx context.Context, c *tensors.Checkpoint, values bool, o Options) ([]Tensor, error) {
	out := make([]Tensor, 0, len(c.Names()))
	var jobs []*stream.Job
	at := map[string]int{}
	for _, name := range c.Names() {
		info, _ := c.Lookup(name)
		at[name] = len(out)
		out = append(out, Tensor{Name: name, DType: info.DType.String(), Shape: info.Shape, Bytes: info.Bytes(), Float: info.DType.IsFloat()})
		if !values || !info.DType.IsFloat() {
			continue
		}
		in, err := newSource(c, name)
		if err != nil {
			return nil, err
		}
		t := &out[at[name]]
		jobs = append(jobs, job(&method.Method{Name: "inspect", Merge: func(mt *method.Task) error {
			s, err := mt.Run(inspectKernel, nil)
			if err != nil {
				return err
			}
			t.take(mt, s)
			return nil
		}}, name, info.Shape, in))
	}
	return out, runJobs(ctx, jobs, o)
}

func runJobs(ctx context.Context, jobs []*stream.Job, o Options) error {
	if len(jobs) == 0 {
		return nil
	}
	e, err := stream.NewEngine(o.Backend, stream.Options{Threads: o.Threads, Finished: func(j *stream.Job) error {
		if o.Read != nil {
			for _, in := range j.Inputs {
				o.Read(j.Task.N * int64(in.DType().Size()))
			}
		}
		return nil
	}})
	if err != nil {
		return err
	}
	return e.Run(ctx, jobs)
}

var inspectKernel = &method.Kernel{Name: "inspect", Build: func(c *method.Chunk) { figures(c) }}

// figures asks for the sums that take reads, and returns the values with zero in place of what is not finite.
func figures(c *method.Chunk) *Node {
	x := c.X(0)
	finite := IsFinite(x)
	value := c.Select(finite, x)
	nan := NotEqual(x, x)
	c.Total("sum", value)
	c.Total("squares", Mul(c.Wide(value), c.Wide(value)))
	c.Max("max", Abs(value))
	c.Count("zeros", Equal(x, c.Zero()))
	c.Count("nan", nan)
	c.Count("inf", LogicalNot(LogicalOr(finite, nan)))
	return value
}

// take reads the sums that figures has asked for, and returns how many values are finite.
func (t *Tensor) take(task *method.Task, s *method.Stats) (finite float64) {
	finite = float64(task.N) - s.Totals["nan"] - s.Totals["inf"]
	t.Norm, t.MaxAbs = math.Sqrt(s.Totals["squares"]), s.Totals["max"]
	t.Zeros, t.NaN, t.Inf = int64(s.Totals["zeros"]), int64(s.Totals["nan"]), int64(s.Totals["inf"])
	if finite > 0 {
		t.Mean = s.Totals["sum"] / finite
	}
	return finite
}

// Difference is what Diff finds about one tensor.
type Difference struct {
	Name    string  `json:"name"`
	Only    string  `json:"only,omitempty"`    // "a" or "b": the other checkpoint does not have it
	Problem string  `json:"problem,omitempty"` // shapes or kinds that cannot be compared
	Equal   bool    `json:"equal"`             // the same values
	Max     float64 `json:"max_abs"`
	Mean    float64 `json:"mean_abs"`
	Cosine  float64 `json:"cosine"`
	ULPs    float64 `json:"ulps"`  // largest difference in units in the last place of the coarser dtype
	Scale   float64 `json:"scale"` // largest magnitude in a
	NaN     int64   `json:"nan"`   // elements that are NaN in exactly one
}

// Diff compares two checkpoints tensor by tensor, in ascending order of names.
func Diff(ctx context.Context, a, b *tensors.Checkpoint, o Options) ([]Difference, error) {
	names := map[string]bool{}
	for _, n := range append(append([]string{}, a.Names()...), b.Names()...) {
		names[n] = true
	}
	sorted := make([]string, 0, len(names))
	for n := range names {
		sorted = append(sorted, n)
	}
	sort.Strings(sorted)
	out := make([]Difference, len(sorted))
	var jobs []*stream.Job
	var mu sync.Mutex
	for i, name := range sorted {
		d := &out[i]
		d.Name = name
		ia, inA := a.Lookup(name)
		ib, inB := b.Lookup(name)
		switch {
		case !inB:
			d.Only = "a"
		case !inA:
			d.Only = "b"
		case fmt.Sprint(ia.Shape) != fmt.Sprint(ib.Shape):
			d.Problem = fmt.Sprintf("shapes %v and %v", ia.Shape, ib.Shape)
		case ia.DType.IsFloat() != ib.DType.IsFloat() || !ia.DType.IsFloat() && ia.DType != ib.DType:
			d.Problem = fmt.Sprintf("dtypes %s and %s", ia.DType, ib.DType)
		default:
			sa, err := newSource(a, name)
			if err != nil {
				return nil, err
			}
			sb, err := newSource(b, name)
			if err != nil {
				return nil, err
			}
			if !ia.DType.IsFloat() {
				if d.Equal, err = sameBytes(sa.r, sb.r); err != nil {
					return nil, err
				}
				if !d.Equal {
					d.Max = math.Inf(1)
				}
				continue
			}
			bits := min(mantissa(ia.DType), mantissa(ib.DType))
			jobs = append(jobs, job(&method.Method{Name: "diff", Merge: func(t *method.Task) error {
				s, err := t.Run(diffKernel, method.Values{"ulp": math.Ldexp(1, -bits), "least": math.Ldexp(1, leastExponent(ia.DType, ib.DType))})
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				n := float64(max(t.N, 1))
				d.Max, d.Mean, d.ULPs, d.Scale = s.Totals["max"], s.Totals["sum"]/n, s.Totals["ulps"], s.Totals["scale"]
				d.NaN = int64(s.Totals["nan"])
				d.Equal = s.Totals["differ"] == 0
				if norm := math.Sqrt(s.Totals["aa"] * s.Totals["bb"]); norm > 0 {
					d.Cosine = s.Totals["ab"] / norm
				} else if d.Equal {
					d.Cosine = 1
				}
				return nil
			}}, name, ia.Shape, sa, sb))
		}
	}
	return out, runJobs(ctx, jobs, o)
}

// sameBytes compares two tensors of one dtype and shape piece by piece.
func sameBytes(a, b *tensors.Reader) (bool, error) {
	const piece = 1 << 20
	for off := int64(0); off < a.Info.Bytes(); off += piece {
		n := min(piece, a.Info.Bytes()-off)
		x, err := a.Bytes(off, n, nil)
		if err != nil {
			return false, err
		}
		y, err := b.Bytes(off, n, nil)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(x, y) {
			return false, nil
		}
		a.Release(off, n)
		b.Release(off, n)
	}
	return true, nil
}

// mantissa is the number of explicit significand bits.
func mantissa(d tensors.DType) int {
	switch d {
	case tensors.F64:
		return 52
	case tensors.F16:
		return 10
	case tensors.BF16:
		return 7
	case tensors.F8E4M3:
		return 3
	case tensors.F8E5M2:
		return 2
	}
	return 23
}

// leastExponent bounds a unit in the last place from below: the exponent of the coarser dtype's smallest normal number.
func leastExponent(a, b tensors.DType) int {
	least := func(d tensors.DType) int {
		switch d {
		case tensors.F16, tensors.F8E5M2:
			return -14
		case tensors.F8E4M3:
			return -6
		}
		return -126
	}
	return max(least(a), least(b))
}

// diffKernel compares input 0 with input 1. A unit in the last place at magnitude m is 2^floor(log2 m) times 2^-mantissa;
// the power of two is m with its significand bits cleared.
var diffKernel = &method.Kernel{Name: "diff", Build: func(c *method.Chunk) {
	a, b := c.X(0), c.X(1)
	nanA, nanB := NotEqual(a, a), NotEqual(b, b)
	same := LogicalOr(Equal(a, b), LogicalAnd(nanA, nanB))
	both := LogicalNot(LogicalOr(LogicalOr(nanA, nanB), same))
	d := c.Select(both, Abs(Sub(a, b)))
	ma, mb := c.Select(LogicalNot(nanA), Abs(a)), c.Select(LogicalNot(nanB), Abs(b))
	m := Max(Max(ma, mb), c.Scalar("least"))
	var power *Node
	if c.Work == dtypes.Float64 {
		power = Bitcast(BitwiseAnd(Bitcast(m, dtypes.Uint64), Const(c.Graph, uint64(0x7ff)<<52)), dtypes.Float64)
	} else {
		power = Bitcast(BitwiseAnd(Bitcast(m, dtypes.Uint32), Const(c.Graph, uint32(0xff)<<23)), dtypes.Float32)
	}
	c.Max("max", d)
	c.Total("sum", c.Select(IsFinite(d), d))
	c.Max("ulps", Div(d, Mul(power, c.Scalar("ulp"))))
	c.Max("scale", c.Select(IsFinite(ma), ma))
	c.Count("differ", LogicalNot(same))
	c.Count("nan", LogicalXor(nanA, nanB))
	wa, wb := c.Wide(ma), c.Wide(c.Select(LogicalNot(nanB), b))
	sa := c.Wide(c.Select(LogicalNot(nanA), a))
	c.Total("aa", Mul(wa, wa))
	c.Total("bb", Mul(wb, wb))
	c.Total("ab", Mul(sa, wb))
}}
