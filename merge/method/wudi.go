package method

import (
	"errors"
	"math"

	"github.com/mergekit/mergekit/internal/linalg"
)

// WUDI finds the task vector that differs least from each task's own in what that task's inputs see.
//
// Cheng et al., 2025, "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via Task Vectors", ICML, eq. 8.
var WUDI = &Method{
	Name:    "wudi",
	Title:   "WUDI",
	Summary: "Finds the merged task vector whose difference from each task's is as nearly orthogonal as can be to that task's rows, which stand for its inputs.",
	Formula: "δᵢ = wᵢ·(xᵢ − b),  Gᵢ = δᵢᵀ·δᵢ / ‖δᵢ‖²,  c = Σ δᵢ  (toward: sum) or mean δᵢ  (toward: mean)\n" +
		"the least Σ ‖(τ − δᵢ)·δᵢᵀ‖² / ‖δᵢ‖² + ρ·‖τ − c‖²,  ρ = ridge·mean of the diagonal of Σ Gᵢ:\n" +
		"τ = c + (Σ (δᵢ − c)·Gᵢ)·(Σ Gᵢ + ρ)⁻¹                       (solver: closed)\n" +
		"or steps of Adam with the rate lr from c on, without ridge   (solver: adam, as the paper's code)\n" +
		"y = b + λ·τ;  what is no matrix: y = b + λ·mean wᵢ·(xᵢ − b)",
	Paper: Citation{
		Text: "Cheng et al., 2025, \"Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via Task Vectors\", ICML",
		URL:  "https://arxiv.org/abs/2503.08099",
	},
	Base: BaseRequired,
	Min:  1,
	Params: spectralParams(
		Param{Name: "solver", Kind: Text, Default: "closed", Doc: "closed (the minimum itself) or adam (stopped early, as the paper's code)"},
		Param{Name: "ridge", Kind: Float, Default: 0.1, Doc: "closed: pull towards c, as a share of the mean diagonal; 0 is the minimum alone"},
		Param{Name: "toward", Kind: Text, Default: "sum", Doc: "what the ridge pulls towards and adam starts from: the sum or the mean of the task vectors"},
		Param{Name: "steps", Kind: Int, Default: 300, Doc: "adam: number of steps"},
		Param{Name: "lr", Kind: Float, Default: 1e-5, Doc: "adam: learning rate"},
	),
	Reads:  3,
	Check:  checkWUDI,
	Matrix: true,
	Memory: wudi.memory,
	Merge:  wudi.merge,
}

var wudi = spectralMerge{combine: mergeWUDI, holds: wudiBytes}

func checkWUDI(t *Task) error {
	solver, toward := t.Shared["solver"], t.Shared["toward"]
	switch {
	case solver != "closed" && solver != "adam":
		return t.Refuse("solver", -1, "solver %q is unknown; use closed or adam", solver)
	case toward != "sum" && toward != "mean":
		return t.Refuse("toward", -1, "toward %q is unknown; use sum or mean", toward)
	case !(t.Float("ridge") >= 0) || t.Float("ridge") > 1e30: // where sums over it overflow; the result is c long before
		return t.Refuse("ridge", -1, "ridge %g is no strength; use 0 to 1e30", t.Float("ridge"))
	case t.Int("steps") < 0:
		return t.Refuse("steps", -1, "%d steps are none; use 0 or more", t.Int("steps"))
	case !(t.Float("lr") > 0):
		return t.Refuse("lr", -1, "lr %g is no rate; use a value above 0", t.Float("lr"))
	}
	return checkDepth(t)
}

func wudiBytes(t *Task, rows, cols, tasks int64) int64 {
	if t.Turned {
		rows, cols = cols, rows
	}
	hold := 16 * rows * cols // c, and a difference from it
	if t.Shared["solver"] == "adam" {
		return hold + 16*cols*cols + 24*rows*cols
	}
	if k := tasks * rows; k < cols {
		return hold + 8*k*(cols+2*k+rows)
	}
	return hold + 16*cols*cols + 16*rows*cols
}

func mergeWUDI(t *Task, v *taskMatrices) ([]float64, error) {
	p := &wudiProblem{t: t, v: v, rows: v.rows, cols: v.cols}
	if t.Turned {
		p.rows, p.cols = v.cols, v.rows
	}
	c, err := v.sum()
	if err != nil {
		return nil, err
	}
	if t.Shared["toward"] == "mean" {
		for i := range c.Data {
			c.Data[i] /= float64(v.len())
		}
	}
	p.c = p.turn(c)
	var x []float64
	switch {
	case t.Shared["solver"] == "adam":
		x, err = p.adam()
	case v.len()*p.rows < p.cols:
		x, err = p.dual()
	default:
		x, err = p.closed()
	}
	if errors.Is(err, linalg.ErrSingular) {
		return nil, t.Errorf("the task vectors leave directions of the inputs undetermined; set ridge above 0 (0.1), which leaves those as their %s has them", t.Shared["toward"])
	}
	if err != nil || !t.Turned {
		return x, err
	}
	back := make([]float64, len(x))
	for i := range p.rows {
		for j := range p.cols {
			back[j*p.rows+i] = x[i*p.cols+j]
		}
	}
	return back, nil
}

// wudiProblem is the least squares of one matrix [rows, cols] = [outputs, inputs].
type wudiProblem struct {
	t          *Task
	v          *taskMatrices
	rows, cols int
	c          linalg.Matrix64
}

// turn is a matrix as [outputs, inputs].
func (p *wudiProblem) turn(m linalg.Matrix64) linalg.Matrix64 {
	if p.t.Turned {
		return m.T()
	}
	return m
}

// each calls do with δ/‖δ‖ and δ - c of all task vectors that are not zero; do may use them up. Both are dense [rows, cols].
func (p *wudiProblem) each(do func(k int, unit, left linalg.Matrix64) error) error {
	for k := range p.v.len() {
		x, err := p.v.matrix(k)
		if err != nil {
			return err
		}
		d, norm := p.turn(x), frobenius(x.Data)
		if norm == 0 {
			continue
		}
		left := linalg.Of64(make([]float64, p.rows*p.cols), p.rows, p.cols)
		unit := linalg.Of64(make([]float64, p.rows*p.cols), p.rows, p.cols)
		for i := range p.rows {
			for j := range p.cols {
				y := d.At(i, j)
				left.Data[i*p.cols+j] = y - p.c.At(i, j)
				unit.Data[i*p.cols+j] = y / norm
			}
		}
		if err := do(k, unit, left); err != nil {
			return err
		}
	}
	return nil
}

// sums are Σ Gᵢ [cols, cols] and Σ (δᵢ - c)·Gᵢ [rows, cols].
func (p *wudiProblem) sums() (g, r []float64, err error) {
	g, r = make([]float64, p.cols*p.cols), make([]float64, p.rows*p.cols)
	err = p.each(func(_ int, unit, left linalg.Matrix64) error {
		linalg.AddGram(g, 1, unit.T(), p.t.Threads)
		// (δ - c)·unitᵀ·unit by the smaller of the two orders.
		small := make([]float64, p.rows*p.rows)
		linalg.Product64(linalg.Of64(small, p.rows, p.rows), 1, left, unit.T(), false, p.t.Threads)
		linalg.Product64(linalg.Of64(r, p.rows, p.cols), 1, linalg.Of64(small, p.rows, p.rows), unit, true, p.t.Threads)
		return nil
	})
	return g, r, err
}

// ridge is ρ: the trace of every Gᵢ is 1.
func (p *wudiProblem) ridge(tasks int) float64 {
	return p.t.Float("ridge") * float64(tasks) / float64(p.cols)
}

// closed solves the normal equations, [cols, cols].
func (p *wudiProblem) closed() ([]float64, error) {
	g, r, err := p.sums()
	if err != nil {
		return nil, err
	}
	trace := 0.0
	for i := range p.cols {
		trace += g[i*p.cols+i]
	}
	if trace == 0 { // nothing but zeros
		return p.dense(p.c), nil
	}
	rho := p.ridge(int(math.Round(trace)))
	for i := range p.cols {
		g[i*p.cols+i] += rho
	}
	if err := linalg.SolveRight(linalg.Of64(r, p.rows, p.cols), g, p.t.Threads); err != nil {
		return nil, err
	}
	return p.onto(r), nil
}

// dual solves the same with fewer rows than inputs: with S the rows of all δᵢ/‖δᵢ‖, (Σ (δᵢ - c)·Gᵢ)·(SᵀS + ρ)⁻¹ is
// [(δᵢ - c)·Sᵢᵀ]·(SSᵀ + ρ)⁻¹·S.
func (p *wudiProblem) dual() ([]float64, error) {
	most := p.v.len() * p.rows
	s, b := make([]float64, 0, most*p.cols), make([]float64, p.rows*most)
	tasks := 0
	err := p.each(func(_ int, unit, left linalg.Matrix64) error {
		part := linalg.Of64(b, p.rows, most).Cut(0, p.rows, tasks*p.rows, (tasks+1)*p.rows)
		linalg.Product64(part, 1, left, unit.T(), false, p.t.Threads)
		s = append(s, unit.Data...)
		tasks++
		return nil
	})
	if err != nil {
		return nil, err
	}
	if tasks == 0 {
		return p.dense(p.c), nil
	}
	k := tasks * p.rows
	sm, bm := linalg.Of64(s, k, p.cols), linalg.Of64(b, p.rows, most).Cut(0, p.rows, 0, k)
	g := linalg.Gram(sm, p.t.Threads)
	rho := p.ridge(tasks)
	for i := range k {
		g[i*k+i] += rho
	}
	if err := linalg.SolveRight(bm, g, p.t.Threads); err != nil {
		return nil, err
	}
	d := make([]float64, p.rows*p.cols)
	linalg.Product64(linalg.Of64(d, p.rows, p.cols), 1, bm, sm, false, p.t.Threads)
	return p.onto(d), nil
}

// adam is what the paper's code does: steps from c on along the gradient 2·((τ - c)·Σ Gᵢ - Σ (δᵢ - c)·Gᵢ). Kingma and Ba, 2015, "Adam: a
// method for stochastic optimization".
func (p *wudiProblem) adam() ([]float64, error) {
	g64, r64, err := p.sums()
	if err != nil {
		return nil, err
	}
	const beta1, beta2, eps = 0.9, 0.999, 1e-8
	g, n := narrow(g64), p.rows*p.cols
	x, grad := make([]float32, n), make([]float32, n)
	m, s := make([]float32, n), make([]float32, n)
	lr := p.t.Float("lr")
	power1, power2 := 1.0, 1.0
	for range p.t.Int("steps") {
		linalg.Product(grad, linalg.Of(x, p.rows, p.cols), linalg.Of(g, p.cols, p.cols), false, p.t.Threads)
		power1, power2 = power1*beta1, power2*beta2
		rate, root := lr/(1-power1), math.Sqrt(1-power2)
		for i := range x {
			d := 2 * (float64(grad[i]) - r64[i])
			mi := beta1*float64(m[i]) + (1-beta1)*d
			si := beta2*float64(s[i]) + (1-beta2)*d*d
			m[i], s[i] = float32(mi), float32(si)
			x[i] -= float32(rate * mi / (math.Sqrt(si)/root + eps))
		}
	}
	for i, v := range x {
		r64[i] = float64(v)
	}
	return p.onto(r64), nil
}

// onto adds c.
func (p *wudiProblem) onto(d []float64) []float64 {
	for i := range p.rows {
		for j := range p.cols {
			d[i*p.cols+j] += p.c.At(i, j)
		}
	}
	return d
}

func (p *wudiProblem) dense(m linalg.Matrix64) []float64 {
	return p.onto(make([]float64, m.Rows*m.Cols))
}

func narrow(x []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}
