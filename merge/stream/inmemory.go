package stream

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/tensors"
)

// Input is one in-memory tensor of MergeTensors.
type Input struct {
	DType  tensors.DType
	Data   []byte
	Params map[string]any // per-input parameters; defaults are filled in
}

// MergeTensors merges equally shaped tensors in memory with one method: the recipe's arithmetic without files. base is the
// index of the base or -1; the output has dtype out.
func MergeTensors(ctx context.Context, b compute.Backend, o Options, name string, t method.Task, base int, inputs []Input, shared map[string]any, out tensors.DType) ([]byte, *method.Task, error) {
	job, sink, err := memoryJob(name, t, base, inputs, shared, out)
	if err != nil {
		return nil, nil, err
	}
	e, err := NewEngine(b, o)
	if err == nil {
		err = e.Run(ctx, []*Job{job})
	}
	if err != nil {
		return nil, nil, err
	}
	return sink.Data, &job.Task, nil
}

// memoryJob makes the job of merging tensors in memory, and what it writes to.
func memoryJob(name string, t method.Task, base int, inputs []Input, shared map[string]any, out tensors.DType) (*Job, *Memory, error) {
	m, ok := method.Get(name)
	if !ok {
		return nil, nil, fmt.Errorf("unknown merge method %q", name)
	}
	if m.Whole {
		return nil, nil, fmt.Errorf("%s merges whole models, no single tensors", name)
	}
	t.Inputs, t.Base, t.N = len(inputs), base, 1
	for _, d := range t.Shape {
		t.N *= int64(d)
	}
	job := &Job{Method: m, Out: out}
	t.D = dtypes.InvalidDType
	for i, in := range inputs {
		g, _, ok := graphDType(in.DType)
		if !ok {
			return nil, nil, fmt.Errorf("input %d: values of dtype %s cannot be merged", i, in.DType)
		}
		t.D = Promote(t.D, g)
		job.Inputs = append(job.Inputs, &Memory{Name: fmt.Sprintf("input %d", i), Type: in.DType, Data: in.Data})
	}
	t.Out, _ = emitDType(out)
	t.Shared = map[string]any{}
	t.PerInput = make([]map[string]any, len(inputs))
	for i := range t.PerInput {
		t.PerInput[i] = map[string]any{}
	}
	for _, p := range m.Params {
		for i := range inputs {
			if p.PerInput && (p.ForBase || i != base) {
				if v, ok := inputs[i].Params[p.Name]; ok {
					t.PerInput[i][p.Name] = v
				} else if p.Default != nil {
					t.PerInput[i][p.Name] = p.Default
				} else if p.Required {
					return nil, nil, fmt.Errorf("input %d: %s needs %q", i, name, p.Name)
				}
			}
		}
		if !p.PerInput {
			if v, ok := shared[p.Name]; ok {
				t.Shared[p.Name] = v
			} else if p.Default != nil {
				t.Shared[p.Name] = p.Default
			} else if p.Required {
				return nil, nil, fmt.Errorf("%s needs %q", name, p.Name)
			}
		}
	}
	sink := &Memory{Name: t.Name, Type: out, Data: make([]byte, t.N*int64(out.Size()))}
	job.Task, job.Sink, job.AllowNonFinite = t, sink, true
	if m.Check != nil {
		if err := m.Check(&job.Task); err != nil {
			return nil, nil, err
		}
	}
	return job, sink, nil
}

// Promote returns the dtype to which two float dtypes are promoted: bfloat16 and float16 meet in float32.
func Promote(a, b dtypes.DType) dtypes.DType {
	switch {
	case a == dtypes.InvalidDType || a == b:
		return b
	case b == dtypes.InvalidDType:
		return a
	case a == dtypes.Float64 || b == dtypes.Float64:
		return dtypes.Float64
	}
	return dtypes.Float32
}
