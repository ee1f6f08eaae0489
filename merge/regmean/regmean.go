// Package regmean averages linear maps by what they read: a map counts for the directions in which its own inputs vary.
//
// W = (Σ Wᵢ·Gᵢ)(Σ Gᵢ)⁻¹ is the map that comes closest, in the mean square, to what each map Wᵢ does on its inputs; Gᵢ = XᵢᵀXᵢ, with its
// entries off the diagonal scaled by Options.Reduce. Everything that is no linear map is averaged. Jin et al., 2023, "Dataless Knowledge
// Fusion by Merging Weights of Language Models". With Options.Prefix the inputs are those that the merged model makes of every model's
// data. Nguyen et al., 2025, "RegMean++".
package regmean

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/internal/ridge"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
)

// Options say how to merge.
type Options struct {
	Reduce    float64 // factor of the entries off the diagonal, 0 to 1
	Prefix    bool    // inputs from the merged model
	KeepNorms bool    // running statistics of batch norms are averaged, not measured anew
	Names     []string
	Backend   compute.Backend
	Device    compute.DeviceNum
	Gram      *gram.Engine // nil: on the processor
	Progress  func(done, total int, what string)
}

// Layer reports on maps that read the same.
type Layer struct {
	Module string  `json:"module"`
	Rows   int     `json:"rows"`
	Change float64 `json:"change"` // distance from the average, over the average's norm
}

// Report says what was done.
type Report struct {
	Layers []Layer `json:"layers"`
	Norms  int     `json:"norms,omitempty"` // batch norms that were measured
}

func bad(format string, args ...any) error {
	return &model.InputError{Msg: fmt.Sprintf(format, args...)}
}

func (o *Options) complete(models, sets int) error {
	if !(o.Reduce >= 0 && o.Reduce <= 1) {
		return bad("reduce %v is not between 0 and 1", o.Reduce)
	}
	if models < 2 {
		return bad("there is one model, and nothing to merge it with")
	}
	if sets != 1 && sets != models {
		return bad("%d sets of data for %d models; give one for all, or one for each", sets, models)
	}
	if o.Prefix && sets == 1 {
		return bad("with inputs from the merged model and the same data for all models every map is the plain average; give each model its own data (per_model: true)")
	}
	for i := len(o.Names); i < models; i++ {
		o.Names = append(o.Names, fmt.Sprint("model ", i+1))
	}
	if o.Gram == nil {
		o.Gram = gram.New(nil, 0)
	}
	return nil
}

func (o *Options) progress(done, total int, what string) {
	if o.Progress != nil {
		o.Progress(done, total, what)
	}
}

// average is the mean of all tensors.
func average(values []map[string]model.Tensor) map[string]model.Tensor {
	out := map[string]model.Tensor{}
	for name, t := range values[0] {
		mean := make([]float32, len(t.Data))
		for k := range mean {
			sum := 0.0
			for _, v := range values {
				sum += float64(v[name].Data[k])
			}
			mean[k] = float32(sum / float64(len(values)))
		}
		out[name] = model.Tensor{Shape: t.Shape, Data: mean}
	}
	return out
}

// inputs are the Gram matrices of what maps read, one for every model.
type inputs struct {
	width int
	sums  [][]float64
	rows  int
}

func newInputs(width, models int) *inputs {
	g := &inputs{width: width}
	for range models {
		g.sums = append(g.sums, make([]float64, width*width))
	}
	return g
}

func (g *inputs) add(e *gram.Engine, i int, x []float32, rows int) error {
	g.rows += rows
	return e.Inner(g.sums[i], x, x, rows, g.width, g.width)
}

// floor is the ridge that leaves directions which nothing varies in as the average has them.
const floor = 1e-9

// solve replaces the average of a map's weight [out, in], or [in, out] if turned, by the weighted one, and returns how far that is.
func (g *inputs) solve(mean []float32, each [][]float32, turned bool, reduce float64) (float64, error) {
	in := g.width
	out := len(mean) / in
	s := ridge.New(in, out, false)
	s.Rows = g.rows
	at := func(o, i int) int {
		if turned {
			return i*out + o
		}
		return o*in + i
	}
	left := make([]float64, in*out)
	for m, sum := range g.sums {
		reduced := slices.Clone(sum)
		for i := range in {
			for j := range in {
				if i != j {
					reduced[i*in+j] *= reduce
				}
			}
		}
		for i, v := range reduced {
			s.G[i] += v
		}
		for i := range in {
			for o := range out {
				left[i*out+o] = float64(each[m][at(o, i)]) - float64(mean[at(o, i)])
			}
		}
		linalg.Product64(linalg.Of64(s.K, in, out), 1, linalg.Of64(reduced, in, in), linalg.Of64(left, in, out), true, 0)
	}
	c, err := s.Solve(nil, nil, floor)
	if err != nil {
		return 0, err
	}
	moved, norm := 0.0, 0.0
	for o := range out {
		for i := range in {
			d, k := c.Weight[o*in+i], at(o, i)
			moved, norm = moved+d*d, norm+float64(mean[k])*float64(mean[k])
			mean[k] = float32(float64(mean[k]) + d)
		}
	}
	return ratio(moved, norm), nil
}

// read returns the tensors that a model computes with, by the names of its class.
func read(w align.Weights, name string, shapes map[string][]int, find func(name string) string) (map[string]model.Tensor, error) {
	values := map[string]model.Tensor{}
	for _, class := range slices.Sorted(maps.Keys(shapes)) {
		own := find(class)
		info, ok := w.Lookup(own)
		if !ok {
			return nil, &model.MissingError{Checkpoint: name, Tensor: class, Shape: shapes[class]}
		}
		if !slices.Equal(info.Shape, shapes[class]) {
			return nil, &model.ShapeError{Checkpoint: name, Tensor: own, Have: info.Shape, Want: shapes[class]}
		}
		x, err := w.Read(own)
		if err != nil {
			return nil, err
		}
		values[class] = model.Tensor{Shape: shapes[class], Data: x}
	}
	return values, nil
}

// pick are some tensor's values of all models.
func pick(values []map[string]model.Tensor, name string, from, n int) [][]float32 {
	var list [][]float32
	for _, v := range values {
		list = append(list, v[name].Data[from:from+n])
	}
	return list
}

// checked stops when the context ends.
func checked(ctx context.Context, err error) error {
	if err != nil {
		return err
	}
	return ctx.Err()
}
