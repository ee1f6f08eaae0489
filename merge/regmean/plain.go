package regmean

import (
	"context"
	"fmt"
	"math"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// ratio is the root of a ratio of sums of squares.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return math.Sqrt(a / b)
}

// Plain merges networks of one description. data is one set for all or one for each; labels are not looked at.
func Plain(ctx context.Context, d *model.PlainDescription, models []align.Weights, data []*samples.Set, o Options) (map[string]model.Tensor, *Report, error) {
	if err := o.complete(len(models), len(data)); err != nil {
		return nil, nil, err
	}
	shapes := map[string][]int{}
	for _, s := range append(d.Tensors(), d.Statistics()...) {
		shapes[s.Name] = s.Shape
	}
	var values []map[string]model.Tensor
	for i, w := range models {
		v, err := read(w, o.Names[i], shapes, func(name string) string { return name })
		if err != nil {
			return nil, nil, err
		}
		values = append(values, v)
	}
	merged := average(values)
	net, err := model.NewPlain(d, merged, o.Backend, o.Device)
	if err != nil {
		return nil, nil, err
	}
	defer net.Close()
	report := &Report{}
	maps := d.Modules()
	for k, l := range maps {
		// A convolution with groups of channels is several maps.
		in, out := l.In[0]/l.Groups*l.Kernel[0]*l.Kernel[1], l.Out[0]/l.Groups
		grams := make([]*inputs, l.Groups)
		for g := range grams {
			grams[g] = newInputs(in, len(models))
		}
		for i := range models {
			if !o.Prefix {
				if err := net.SetTensors(values[i]); err != nil {
					return nil, nil, err
				}
			}
			set := data[min(i, len(data)-1)]
			err := pieces(ctx, d, l, set, func(x []float32, n int) error {
				return net.Taps(x, n, func(m string) bool { return m == l.Name }, func(_ string, x, _ []float32, rows, width, _ int) error {
					for g := range grams {
						if err := grams[g].add(o.Gram, i, columns(x, rows, width, g*in, in), rows); err != nil {
							return err
						}
					}
					return nil
				})
			})
			if err != nil {
				return nil, nil, err
			}
		}
		weight := l.Name + ".weight"
		moved := 0.0
		for g := range grams {
			from, n := g*in*out, in*out
			change, err := grams[g].solve(merged[weight].Data[from:from+n], pick(values, weight, from, n), false, o.Reduce)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", l.Name, err)
			}
			moved = max(moved, change)
		}
		report.Layers = append(report.Layers, Layer{l.Name, grams[0].rows, moved})
		if o.Prefix {
			if err := net.SetTensors(map[string]model.Tensor{weight: merged[weight]}); err != nil {
				return nil, nil, err
			}
		}
		o.progress(k+1, len(maps), "maps")
	}
	if n := len(d.Statistics()) / 2; n > 0 && !o.KeepNorms {
		if err := net.SetTensors(merged); err != nil {
			return nil, nil, err
		}
		var x []float32
		rows := 0
		for _, s := range data {
			x, rows = append(x, s.X...), rows+s.N
		}
		const batch = 128
		if err := net.ResetNorms(x, rows, batch); err != nil {
			return nil, nil, err
		}
		if merged, err = net.Tensors(); err != nil {
			return nil, nil, err
		}
		report.Norms = n
	}
	return merged, report, nil
}

// pieces cuts examples so that what a map reads of them stays small in memory.
func pieces(ctx context.Context, d *model.PlainDescription, l *model.PlainLayer, s *samples.Set, do func(x []float32, n int) error) error {
	const most = 16 << 20 // float32 values
	each, width := l.In[0]*l.Kernel[0]*l.Kernel[1], 1
	if len(l.Out) == 3 {
		each *= l.Out[1] * l.Out[2]
	}
	for _, k := range d.Input {
		width *= k
	}
	some := min(256, max(1, most/each))
	for from := 0; from < s.N; from += some {
		n := min(some, s.N-from)
		if err := checked(ctx, do(s.X[from*width:(from+n)*width], n)); err != nil {
			return err
		}
	}
	return nil
}

// columns are a part of the columns of a matrix.
func columns(x []float32, rows, width, from, n int) []float32 {
	if n == width {
		return x
	}
	out := make([]float32, rows*n)
	for r := range rows {
		copy(out[r*n:(r+1)*n], x[r*width+from:])
	}
	return out
}
