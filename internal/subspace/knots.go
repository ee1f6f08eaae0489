package subspace

import "github.com/mergekit/mergekit/internal/linalg"

// Joint is changes in one basis of their outputs: [ΔW₁ … ΔWₙ] = U·Σ·[V₁ … Vₙ]. The V are what differs from change to change.
//
// Stoica et al., 2025, "Model merging with SVD to tie the KnOTS", ICLR.
type Joint struct {
	Left  linalg.Matrix // U·Σ [out, k], most important column first
	Right [][]float32   // Vᵢ [k, in]
	In    int
}

// Join finds the basis. With Aᵢ = Fᵢ·Pᵢᵀ of orthonormal columns Pᵢ, [ΔW₁ … ΔWₙ] is [B₁·F₁ … Bₙ·Fₙ] times something orthonormal, so that
// the small stack has the singular values and the left vectors of the large one.
func Join(list []Change, threads int) (*Joint, error) {
	if err := check(list); err != nil {
		return nil, err
	}
	rights, lefts := make([]linalg.Matrix, len(list)), make([]linalg.Matrix, len(list))
	for i, c := range list {
		a, err := decompose(c.Right, threads) // Aᵢ = u·s·vᵀ
		if err != nil {
			return nil, err
		}
		k := len(a.s)
		rights[i] = linalg.Of(a.v, c.Right.Cols, k).T()
		lefts[i] = product(c.Left, linalg.Of(scaled(a.u, a.s), c.Right.Rows, k), threads)
	}
	stack := beside(lefts)
	d, err := decompose(stack, threads)
	if err != nil {
		return nil, err
	}
	k := len(d.s)
	j := &Joint{Left: linalg.Of(scaled(d.u, d.s), stack.Rows, k), In: list[0].Right.Cols}
	v := linalg.Of(d.v, stack.Cols, k)
	at := 0
	for i := range list {
		n := lefts[i].Cols
		j.Right = append(j.Right, product(v.Cut(at, at+n, 0, k).T(), rights[i], threads).Data)
		at += n
	}
	return j, nil
}

// Change is what V, merged, means for the weight.
func (j *Joint) Change(merged []float32) Change {
	return Change{Left: j.Left, Right: linalg.Of(merged, j.Left.Cols, j.In)}
}

// scaled multiplies columns.
func scaled(x []float32, by []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = v * float32(by[i%len(by)])
	}
	return out
}
