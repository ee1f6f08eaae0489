package adapter

import (
	"strings"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/internal/subspace"
)

// shared tells of methods that work in coordinates that the adapters share.
func shared(method string) bool { return method == "knots" || strings.HasPrefix(method, "core_space") }

// inSharedBases merges one module's deltas in shared coordinates and truncates the result. Nothing of the size of the module's weight is
// made: the factors go into the coordinates and come out of them.
//
// Stoica et al., 2025, "Model merging with SVD to tie the KnOTS"; Panariello et al., 2025, "Accurate and efficient low-rank model merging in
// core space".
func (c *combination) inSharedBases(parts []factorPair, rank int) (*linalg.SVD, error) {
	in, out := parts[0].a.Shape[1], parts[0].b.Shape[0]
	list, weights := make([]subspace.Change, len(parts)), make([]float64, len(parts))
	for i, p := range parts {
		b := make([]float32, len(p.b.Data))
		for j, x := range p.b.Data {
			b[j] = x * float32(p.scale)
		}
		list[i] = subspace.Change{Left: linalg.Of(b, out, p.rank), Right: linalg.Of(p.a.Data, p.rank, in)}
		weights[i] = c.o.Weights[p.adapter]
	}
	var merged subspace.Change
	if c.o.Method == "knots" {
		j, err := subspace.Join(list, 0)
		if err != nil {
			return nil, err
		}
		merged = j.Change(c.op.merge(j.Right, weights))
	} else {
		core, err := subspace.NewCore(list, 0)
		if err != nil {
			return nil, err
		}
		m, err := c.mergeCores(core, weights)
		if err != nil {
			return nil, err
		}
		merged = core.Change(m, 0)
	}
	if k := merged.Left.Cols; k <= min(in, out) {
		return linalg.OfProduct(merged.Left, merged.Right, rank, 0)
	}
	d := make([]float32, in*out)
	linalg.Product(d, merged.Left, merged.Right, false, 0)
	return linalg.Truncated(linalg.Of(d, out, in), rank, linalg.Options{ExactUpTo: min(in, out)})
}

// mergeCores merges the small matrices as the method's ending says.
func (c *combination) mergeCores(core *subspace.Core, weights []float64) ([]float32, error) {
	k, l := core.B.Cols, core.A.Cols
	switch c.o.Method {
	case "core_space_tsv":
		return subspace.TaskSingularVectors(weighted(core.M, weights), k, l)
	case "core_space_iso":
		return subspace.Isotropic(c.op.merge(core.M, weights), k, l)
	}
	return c.op.merge(core.M, weights), nil
}

func weighted(list [][]float32, weights []float64) [][]float32 {
	out := make([][]float32, len(list))
	for i, x := range list {
		out[i] = make([]float32, len(x))
		for j, v := range x {
			out[i][j] = v * float32(weights[i])
		}
	}
	return out
}
