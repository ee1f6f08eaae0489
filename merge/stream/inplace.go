package stream

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"github.com/mergekit/mergekit/merge/method"
)

// executeInPlace runs a kernel on views of the inputs; only the output chunk is buffered, in cache.
func (w *worker) executeInPlace(c *call, u *unit) (*outputs, error) {
	b := w.engine.backend.(zeroCopy)
	wrap := func(d dtypes.DType, data []byte, dims ...int) (compute.Buffer, error) {
		return b.Wrap(shapes.Make(d, dims...), data)
	}
	dims := []int{int(u.n)}
	if c.geom.layout != method.Flat {
		dims = []int{int(u.rows), int(u.cols)}
	}
	inputs := make([]compute.Buffer, len(c.program.Slots))
	for i, s := range c.program.Slots {
		if inputs[i] = c.fixed[i]; inputs[i] != nil {
			continue
		}
		var err error
		switch s.Kind {
		case method.SlotInput:
			var data []byte
			if data, err = w.input(c, s.Input, u); err == nil {
				inputs[i], err = wrap(s.Shape.DType, data, dims...)
			}
		case method.SlotStream:
			var data []uint32
			if data, err = w.stream(c, s, u); err == nil {
				inputs[i], err = wrap(dtypes.Uint32, bytesOf(data), dims...)
			}
		case method.SlotRow:
			x := c.values[s.Name].(method.RowValues)[u.rowOff : u.rowOff+u.rows]
			inputs[i], err = floatBuffer(w.engine.backend, s.Shape.DType, x, int(u.rows), 1)
		default:
			x, ok := c.unitScalar(s, u)
			if !ok {
				return nil, fmt.Errorf("kernel %q: slot %q has no value", c.kernel.Name, s.Name)
			}
			inputs[i], err = wrap(dtypes.Uint32, bytesOf([]uint32{x}))
		}
		if err != nil {
			return nil, err
		}
	}

	results := c.program.Results
	o := w.prepareOutputs(len(results))
	outs := make([]compute.Buffer, len(results))
	mem := make([][]byte, len(results))
	shapesOut := c.program.Exec.Outputs()
	for i, r := range results {
		s := c.resultShape(r, u)
		if s.DType == dtypes.InvalidDType {
			s = shapes.Make(shapesOut[i].DType)
		}
		mem[i] = w.buffer(resultNames[min(i, len(resultNames)-1)]+suffix(i), int64(s.Size())*int64(s.DType.Size()))
		var err error
		if outs[i], err = b.Wrap(s, mem[i]); err != nil {
			return nil, err
		}
	}
	if err := c.program.Exec.(intoExecutable).ExecuteInto(inputs, outs); err != nil {
		return nil, fmt.Errorf("kernel %q: %w", c.kernel.Name, err)
	}
	for i, r := range results {
		if err := w.collect(c, u, o, i, r, mem[i], shapesOut[i].DType); err != nil {
			return nil, err
		}
	}
	return o, nil
}

var resultNames = func() (s [64]string) {
	for i := range s {
		s[i] = fmt.Sprintf("result %d", i)
	}
	return s
}()

func suffix(i int) string {
	if i < len(resultNames) {
		return ""
	}
	return fmt.Sprint(i)
}

// collect reads one result's bytes, without padding, into o, or writes the emitted chunk.
func (w *worker) collect(c *call, u *unit, o *outputs, i int, r method.Result, mem []byte, d dtypes.DType) error {
	switch r.Kind {
	case method.ResultEmit:
		return w.emitted(c, mem, u)
	case method.ResultTotal, method.ResultMax, method.ResultReport:
		x, err := scalarOf(mem, d)
		if err != nil {
			return fmt.Errorf("kernel %q, result %q: %w", c.kernel.Name, r.Name, err)
		}
		o.scalars[i] = x
	case method.ResultRow, method.ResultCol:
		o.vectors[i] = viewOf[float64](mem)
	case method.ResultHistogram:
		o.counts[i] = viewOf[int32](mem)
	case method.ResultArray:
		o.arrays[i] = viewOf[uint32](mem)
	}
	return nil
}

func scalarOf(mem []byte, d dtypes.DType) (float64, error) {
	switch d {
	case dtypes.Float64:
		return viewOf[float64](mem)[0], nil
	case dtypes.Float32:
		return float64(viewOf[float32](mem)[0]), nil
	case dtypes.Int32:
		return float64(viewOf[int32](mem)[0]), nil
	}
	return 0, fmt.Errorf("scalar results of dtype %s are not read", d)
}
