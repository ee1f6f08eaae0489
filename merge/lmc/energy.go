package lmc

import (
	"fmt"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/model"
)

// Energy says how much of what a layer reads lies along its large singular vectors, those of at least the largest of Gammas: the mean
// over rows x of Σ (vi·x)² / ‖x‖². That the vectors of large values decide about a path takes that inputs lie along them.
type Energy struct {
	Vectors int     `json:"vectors"`
	Share   float64 `json:"share"`
	Chance  float64 `json:"chance"` // the share of inputs without direction: vectors over dimensions
	Rows    int     `json:"rows"`
}

// inputs sums over rows.
type inputs struct {
	sum    float64
	rows   int
	width  int
	counts int // vectors
}

// large keeps the vectors of the large values alone.
func (f *factors) large() *factors {
	k := f.above(Gammas[len(Gammas)-1])
	keep := func(x []float64, rows int) []float64 {
		stride := len(x) / rows
		out := make([]float64, rows*k)
		for i := range rows {
			copy(out[i*k:(i+1)*k], x[i*stride:])
		}
		return out
	}
	return &factors{m: f.m, n: f.n, values: f.values[:k], u: keep(f.u, f.m), v: keep(f.v, f.n)}
}

// Read takes what the map with a weight of the first model reads: rows of width values. transposed says that the weight has its inputs
// on its first axis. Tensors that are no layers are passed over. The analysis must have been made with KeepVectors.
func (a *Analysis) Read(tensor string, transposed bool, in []float32, rows, width int) error {
	for i := range a.Layers {
		l := &a.Layers[i]
		if l.Tensor != tensor || l.vectors == nil {
			continue
		}
		v, n := l.vectors.right(), l.vectors.n
		if transposed {
			v, n = l.vectors.left(), l.vectors.m
		}
		if n != width {
			return &model.InputError{Msg: fmt.Sprintf("%s reads rows of %d, its weight has %d columns", tensor, width, n)}
		}
		k := v.Cols
		l.inputs.width, l.inputs.counts = n, k
		along := make([]float64, rows*k)
		linalg.Product64(linalg.Of64(along, rows, k), 1, linalg.Of64(widen(in[:rows*width]), rows, width), v, false, 0)
		for r := range rows {
			all := square(in[r*width : (r+1)*width])
			if all == 0 {
				continue
			}
			part := 0.0
			for _, x := range along[r*k : (r+1)*k] {
				part += x * x
			}
			l.inputs.sum += part / all
			l.inputs.rows++
		}
	}
	return nil
}

// Finish makes energies of what was read. Over all layers it is the mean of theirs.
func (a *Analysis) Finish() {
	var all Energy
	layers := 0
	for i := range a.Layers {
		l := &a.Layers[i]
		if l.inputs.rows == 0 {
			continue
		}
		l.Energy = &Energy{Vectors: l.inputs.counts, Share: l.inputs.sum / float64(l.inputs.rows), Chance: float64(l.inputs.counts) / float64(l.inputs.width), Rows: l.inputs.rows}
		all.Vectors += l.Energy.Vectors
		all.Share += l.Energy.Share
		all.Chance += l.Energy.Chance
		all.Rows = max(all.Rows, l.Energy.Rows)
		layers++
	}
	if layers > 0 {
		all.Share /= float64(layers)
		all.Chance /= float64(layers)
		a.Energy = &all
	}
}
