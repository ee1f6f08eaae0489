package model

import (
	"errors"
	"fmt"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"
)

// Modules returns the layers that are linear maps or convolutions, in the order of computation.
func (d *PlainDescription) Modules() (list []*PlainLayer) {
	walk(d.Layers, func(l *PlainLayer) {
		if l.Type == "linear" || l.Type == "conv2d" {
			list = append(list, l)
		}
	})
	return list
}

// Taps computes n examples and shows what the linear maps and convolutions that want chooses read and gave, in the order of
// computation. Modules are named as their tensors are, without ".weight". Batch norms use their running statistics.
func (m *PlainModel) Taps(x []float32, n int, want func(module string) bool, visit Tap) error {
	return m.taps(m.D.Modules(), x, n, both(want), func(l *PlainLayer, in, out []float32, n int) error {
		rows, width := n, l.In[0]
		if l.Type == "conv2d" {
			in, width = l.Patches(in, n)
			out, rows = positions(out, n, l.Out)
		}
		return visit(l.Name, in, out, rows, width, l.Out[0])
	})
}

// Features is Taps for what the maps read alone, images by position instead of patches.
func (m *PlainModel) Features(x []float32, n int, want func(module string) bool, visit Feature) error {
	sides := func(module string) Sides {
		if want(module) {
			return TapIn
		}
		return 0
	}
	return m.taps(m.D.Modules(), x, n, sides, func(l *PlainLayer, in, _ []float32, n int) error {
		rows := n
		if l.Type == "conv2d" {
			in, rows = positions(in, n, l.In)
		}
		return visit(l.Name, in, rows, l.In[0])
	})
}

// Outputs is Taps for what the maps give alone.
func (m *PlainModel) Outputs(x []float32, n int, want func(module string) bool, visit Feature) error {
	sides := func(module string) Sides {
		if want(module) {
			return TapOut
		}
		return 0
	}
	return m.taps(m.D.Modules(), x, n, sides, func(l *PlainLayer, _, out []float32, n int) error {
		rows := n
		if l.Type == "conv2d" {
			out, rows = positions(out, n, l.Out)
		}
		return visit(l.Name, out, rows, l.Out[0])
	})
}

// NormInputs shows what the batch norms that want chooses read: [rows, channels], a row for every example, or every position of an
// image.
func (m *PlainModel) NormInputs(x []float32, n int, want func(name string) bool, visit Feature) error {
	var norms []*PlainLayer
	walk(m.D.Layers, func(l *PlainLayer) {
		if l.Type == "batch_norm" {
			norms = append(norms, l)
		}
	})
	sides := func(name string) Sides {
		if want(name) {
			return TapIn
		}
		return 0
	}
	return m.taps(norms, x, n, sides, func(l *PlainLayer, in, _ []float32, n int) error {
		rows := n
		if len(l.In) == 3 {
			in, rows = positions(in, n, l.In)
		}
		return visit(l.Name, in, rows, l.In[0])
	})
}

// taps brings inputs and outputs of layers to the host as the graph has them: [n, features] or [n, C, height, width].
func (m *PlainModel) taps(all []*PlainLayer, x []float32, n int, want func(module string) Sides, visit func(l *PlainLayer, in, out []float32, n int) error) error {
	var list []*PlainLayer
	role := "taps"
	for _, l := range all {
		if s := want(l.Name); s != 0 {
			list = append(list, l)
			role += fmt.Sprintf(" %q:%d", l.Name, s)
		}
	}
	if len(list) == 0 {
		_, err := m.width(x, n)
		return err
	}
	return m.batches(x, n, func(x *gt.Tensor, _, n, _ int) error {
		got, err := m.run(role, false, func(g *plainGraph, in []*Node) []*Node {
			nodes := map[string][2]*Node{}
			g.tap = func(l *PlainLayer, x, y *Node) { nodes[l.Name] = [2]*Node{x, y} }
			g.list(m.D.Layers, in[0])
			var out []*Node
			for _, l := range list {
				for side, node := range nodes[l.Name] {
					if want(l.Name)&(1<<side) != 0 {
						out = append(out, node)
					}
				}
			}
			return out
		}, x)
		if err != nil {
			return err
		}
		defer free(got...)
		at := 0
		for _, l := range list {
			var data [2][]float32
			for side, shape := range [][]int{l.In, l.Out} {
				if want(l.Name)&(1<<side) == 0 {
					continue
				}
				if data[side], err = gt.CopyFlatData[float32](got[at]); err != nil {
					return err
				}
				at++
				each, _ := plainElems(shape)
				data[side] = data[side][:n*each]
			}
			if err := visit(l, data[0], data[1], n); err != nil {
				return err
			}
		}
		return nil
	})
}

// positions turns n images [C, height, width] into rows of channels, [n*height*width, C].
func positions(x []float32, n int, shape []int) ([]float32, int) {
	c, size := shape[0], shape[1]*shape[2]
	out := make([]float32, n*c*size)
	for i := range n {
		from, to := x[i*c*size:(i+1)*c*size], out[i*c*size:(i+1)*c*size]
		for k := range c {
			for p, v := range from[k*size : (k+1)*size] {
				to[p*c+k] = v
			}
		}
	}
	return out, n * size
}

// Patches returns what a convolution's kernel sees at every position of its output: x, [n, C, height, width], becomes
// [n*height*width of the output, C*kh*kw], in the order of the weight's axes.
func (l *PlainLayer) Patches(x []float32, n int) (patches []float32, width int) {
	c, h, w := l.In[0], l.In[1], l.In[2]
	oh, ow := l.Out[1], l.Out[2]
	kh, kw := l.Kernel[0], l.Kernel[1]
	width = c * kh * kw
	patches = make([]float32, n*oh*ow*width)
	at := 0
	for i := range n {
		image := x[i*c*h*w : (i+1)*c*h*w]
		for oy := range oh {
			for ox := range ow {
				for k := range c {
					for ky := range kh {
						y := oy*l.Stride[0] - l.Padding[0] + ky*l.Dilation[0]
						if y < 0 || y >= h {
							at += kw
							continue
						}
						row := image[(k*h+y)*w : (k*h+y+1)*w]
						for kx := range kw {
							if x := ox*l.Stride[1] - l.Padding[1] + kx*l.Dilation[1]; x >= 0 && x < w {
								patches[at] = row[x]
							}
							at++
						}
					}
				}
			}
		}
	}
	return patches, width
}

// SetTensors gives tensors new values, running statistics of batch norms included. What was compiled stays so.
func (m *PlainModel) SetTensors(values map[string]Tensor) error {
	placed := 0
	for _, v := range []*Vector{m.Weights, m.Statistics} {
		if v == nil {
			continue
		}
		var all []float32
		for _, s := range v.Packed.Segments {
			t, ok := values[s.Name]
			if !ok {
				continue
			}
			if len(t.Data) != s.Size() {
				return &ShapeError{m.D.ModelType, s.Name, t.Shape, s.Shape}
			}
			if all == nil {
				var err error
				if all, err = gt.CopyFlatData[float32](v.Value); err != nil {
					return err
				}
			}
			copy(all[s.Offset:], t.Data)
			placed++
		}
		if all == nil {
			continue
		}
		if err := m.set(v, all); err != nil {
			return err
		}
	}
	if placed < len(values) {
		for name := range values {
			known := func(s TensorSpec) bool { return s.Name == name }
			if !slices.ContainsFunc(m.D.Tensors(), known) && !slices.ContainsFunc(m.D.Statistics(), known) {
				return badInput("the network has no tensor %s", name)
			}
		}
	}
	return nil
}

// ResetNorms computes the running statistics of all batch norms anew, as torch does with momentum None: the mean over batches of
// every batch's mean and unbiased variance, while batch norms use the statistics of their batch. x, n examples, is cut into
// batches of nearly equal size, at most batch; one of a single example has no variance.
func (m *PlainModel) ResetNorms(x []float32, n, batch int) error {
	if m.Statistics == nil {
		return nil
	}
	w, err := m.width(x, n)
	if err != nil {
		return err
	}
	if batch < 2 {
		return errors.New("batches of a single example have no variance; use 2 at least")
	}
	count := (n + batch - 1) / batch
	sums := make([]float64, m.Statistics.Packed.Size)
	for k := range count {
		from, to := k*n/count, (k+1)*n/count
		data, err := plainPut(m, x[from*w:to*w], append([]int{to - from}, m.D.Input...)...)
		if err != nil {
			return err
		}
		got, err := m.run("statistics", true, func(g *plainGraph, in []*Node) []*Node {
			g.fresh = true
			g.list(m.D.Layers, in[0])
			var parts []*Node
			for _, s := range m.Statistics.Packed.Segments {
				parts = append(parts, Reshape(g.seen[s.Name], s.Size()))
			}
			return []*Node{Concatenate(parts, 0)}
		}, data)
		free(data)
		if err != nil {
			return err
		}
		seen, err := gt.CopyFlatData[float32](got[0])
		free(got...)
		if err != nil {
			return err
		}
		for i, v := range seen {
			sums[i] += float64(v)
		}
	}
	mean := make([]float32, len(sums))
	for i, v := range sums {
		mean[i] = float32(v / float64(count))
	}
	return m.set(m.Statistics, mean)
}
