// Package inspect looks at checkpoints: sizes, norms, values that are not finite, and differences between two of them.
package inspect

import (
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
	c *tensors.Checkpoint
	v tensors.View
}

func (s source) DType() tensors.DType { return s.v.DType }
func (s source) String() string       { return s.v.Name + " of " + s.c.Path() }
func (s source) Bytes(off, n int64, _ []byte) ([]byte, error) {
	size := int64(s.v.DType.Size())
	return s.v.Data[off*size : (off+n)*size], nil
}
func (s source) WillNeed(off, n int64) {
	size := int64(s.v.DType.Size())
	s.c.WillNeed(s.v.Name, off*size, n*size)
}
func (s source) Release(off, n int64) {
	size := int64(s.v.DType.Size())
	s.c.Release(s.v.Name, off*size, n*size)
}

// job makes a job that only gathers statistics.
func job(m *method.Method, name string, shape []int, inputs ...source) *stream.Job {
	t := method.Task{Name: name, Shape: shape, N: 1, Inputs: len(inputs), Base: -1, D: dtypes.InvalidDType}
	for _, d := range shape {
		t.N *= int64(d)
	}
	j := &stream.Job{Method: m, Out: tensors.F32, AllowNonFinite: true}
	for _, in := range inputs {
		t.D = stream.Promote(t.D, plan.GraphDType(in.v.DType))
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
		v, err := c.View(name)
		if err != nil {
			return nil, err
		}
		t := &out[at[name]]
		jobs = append(jobs, job(&method.Method{Name: "inspect", Merge: func(mt *method.Task) error {
			s, err := mt.Run(inspectKernel, nil)
			if err != nil {
				return err
			}
			finite := float64(mt.N) - s.Totals["nan"] - s.Totals["inf"]
			t.Norm, t.MaxAbs = math.Sqrt(s.Totals["squares"]), s.Totals["max"]
			t.Zeros, t.NaN, t.Inf = int64(s.Totals["zeros"]), int64(s.Totals["nan"]), int64(s.Totals["inf"])
			if finite > 0 {
				t.Mean = s.Totals["sum"] / finite
			}
			return nil
		}}, name, info.Shape, source{c, v}))
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

var inspectKernel = &method.Kernel{Name: "inspect", Build: func(c *method.Chunk) {
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
}}

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
			va, err := a.View(name)
			if err != nil {
				return nil, err
			}
			vb, err := b.View(name)
			if err != nil {
				return nil, err
			}
			if !ia.DType.IsFloat() {
				d.Equal = string(va.Data) == string(vb.Data)
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
			}}, name, ia.Shape, source{a, va}, source{b, vb}))
		}
	}
	return out, runJobs(ctx, jobs, o)
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
