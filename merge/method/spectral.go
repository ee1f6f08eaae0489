package method

import (
	"errors"
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"github.com/mergekit/mergekit/internal/linalg"
)

// spectralMerge is what merges of task vectors by their singular values have in common: the tensor is a matrix [outputs, inputs], or
// several; what is no matrix is averaged.
type spectralMerge struct {
	// combine merges the task vectors of one matrix, scaled by their weights, into one of the same shape, row-major.
	combine func(t *Task, v *taskMatrices) ([]float64, error)
	// holds is how many bytes combine holds at once, for tasks matrices of rows by cols, beside one of them and the result.
	holds func(t *Task, rows, cols, tasks int64) int64
}

// spectralParams are the parameters that the family shares.
func spectralParams(more ...Param) []Param {
	p := append([]Param{
		{Name: "weight", Kind: Float, PerInput: true, Default: 1.0, Doc: "factor of this model's task vector"},
	}, more...)
	return append(p,
		Param{Name: "lambda", Kind: Float, Default: 1.0, Doc: "factor of the merged task vector"},
		depthParam,
		Param{Name: "embeddings", Kind: Bool, Default: false, Doc: "treat embeddings and heads as matrices, too; otherwise their task vectors are averaged"},
	)
}

// matrices is the tensor as matrices: how many, and of how many rows and columns; ok is false for what is none. A convolution's kernel
// is one of [outputs, everything else].
func (t *Task) matrices() (count, rows, cols int, ok bool) {
	if len(t.Shape) < 2 || t.N == 0 || t.Table && !t.Bool("embeddings") {
		return 0, 0, 0, false
	}
	count, shape := 1, t.Shape
	if t.Stacked && len(shape) > 2 {
		count, shape = shape[0], shape[1:]
	}
	rows = shape[0]
	cols = int(t.N) / (count * rows)
	return count, rows, cols, rows > 1 && cols > 1
}

// memory is Method.Memory of the family.
func (m spectralMerge) memory(t *Task) int64 {
	count, rows, cols, ok := t.matrices()
	if tasks := len(t.Others()); ok && tasks > 0 {
		n := int64(rows) * int64(cols)
		hold := 4*t.N + 20*n + m.holds(t, int64(rows), int64(cols), int64(tasks)) // the result, one task vector twice, and its sum
		if count > 1 {
			hold += 4 * t.N * int64(tasks)
		}
		return hold
	}
	return 0
}

// eigenBytes is what the decomposition of a symmetric matrix of some order holds, the matrix included.
func eigenBytes(n int64) int64 { return 56 * n * n }

func (m spectralMerge) merge(t *Task) error {
	others := t.Others()
	if len(others) == 0 {
		return t.Copy(t.Base)
	}
	count, rows, cols, ok := t.matrices()
	if !ok {
		return averageTaskVectors(t)
	}
	v := &taskMatrices{t: t, inputs: others, rows: rows, cols: cols, stacked: count > 1}
	merged := make([]float32, t.N)
	lambda := t.lambda()
	for k := range count {
		v.at = k * rows * cols
		x, err := m.combine(t, v)
		if errors.Is(err, linalg.ErrNotFinite) {
			return t.Errorf("a task vector holds NaN or infinite values; look with `mergekit inspect` and leave that model out")
		}
		if err != nil {
			return err
		}
		for i, y := range x {
			merged[v.at+i] = float32(lambda * y)
		}
	}
	return t.addToBase(merged)
}

// averageTaskVectors adds the mean of the weighted task vectors.
func averageTaskVectors(t *Task) error {
	v := Values{}
	others := t.Others()
	for _, i := range others {
		w, _ := t.InputFloat("weight", i)
		v[weightName(i)] = w * t.lambda() / float64(len(others))
	}
	_, err := t.Run(&Kernel{Name: "task vectors/mean", Build: func(c *Chunk) {
		terms := make([]*Node, 0, len(c.Others()))
		for _, i := range c.Others() {
			terms = append(terms, c.Mul(c.Delta(i), c.Scalar(weightName(i))))
		}
		c.Emit(c.Add(c.B(), c.Sum(terms...)))
		c.reportTaskVectors(nil)
	}}, v)
	return err
}

// addToBase makes the base plus a task vector that the host computed the output.
func (t *Task) addToBase(x []float32) error {
	_, err := t.Run(&Kernel{Name: "task vectors/given", Build: func(c *Chunk) {
		given := Bitcast(c.Stream("task vector"), dtypes.Float32)
		if c.Work != dtypes.Float32 {
			given = ConvertDType(given, c.Work)
		}
		c.Emit(c.Add(c.B(), given))
		c.reportTaskVectors(nil)
	}}, Values{"task vector": Stream(func(dst []uint32, off int64) {
		for k, v := range x[off : off+int64(len(dst))] {
			dst[k] = math.Float32bits(v)
		}
	})})
	return err
}

// taskMatrices hands out the task vectors of one matrix after the other, so that not all are held.
type taskMatrices struct {
	t          *Task
	inputs     []int
	rows, cols int
	at         int // first element of the matrix
	stacked    bool
	whole      map[int][]float32 // of several matrices, all
}

// len is the number of task vectors.
func (v *taskMatrices) len() int { return len(v.inputs) }

// matrix is task vector k times its weight, [rows, cols] in float64.
func (v *taskMatrices) matrix(k int) (linalg.Matrix64, error) {
	i := v.inputs[k]
	x := v.whole[i]
	if x == nil {
		var err error
		if x, err = v.t.Difference(i, v.t.Base); err != nil {
			return linalg.Matrix64{}, err
		}
		if v.stacked {
			if v.whole == nil {
				v.whole = map[int][]float32{}
			}
			v.whole[i] = x
		}
	}
	w, _ := v.t.InputFloat("weight", i)
	n := v.rows * v.cols
	out := make([]float64, n)
	for j, y := range x[v.at : v.at+n] {
		if y-y != 0 {
			return linalg.Matrix64{}, linalg.ErrNotFinite
		}
		out[j] = w * float64(y)
	}
	return linalg.Of64(out, v.rows, v.cols), nil
}

// sum is the sum of all task vectors.
func (v *taskMatrices) sum() (linalg.Matrix64, error) {
	sum, err := v.matrix(0)
	for k := 1; k < v.len() && err == nil; k++ {
		var x linalg.Matrix64
		if x, err = v.matrix(k); err == nil {
			for i, y := range x.Data {
				sum.Data[i] += y
			}
		}
	}
	return sum, err
}

// frobenius is the root of the sum of squares.
func frobenius(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum)
}

// directions are singular values and vectors gathered from several matrices.
type directions struct {
	rows, cols int
	s          []float64
	u, v       []float64 // the vectors as rows
}

func (d *directions) add(f *linalg.Factors) {
	d.s, d.u, d.v = append(d.s, f.S...), append(d.u, f.U...), append(d.v, f.V...)
}

// matrix is Σ s·u·vᵀ with the vectors of each side replaced by the closest ones that are orthonormal (their polar factor, which minimises
// the distance; Schönemann, 1966).
func (d *directions) matrix(threads int) ([]float64, error) {
	out := make([]float64, d.rows*d.cols)
	k := len(d.s)
	if k == 0 {
		return out, nil
	}
	u, _, err := linalg.Isometry(linalg.Of64(d.u, k, d.rows), threads)
	if err != nil {
		return nil, err
	}
	d.u = nil
	v, _, err := linalg.Isometry(linalg.Of64(d.v, k, d.cols), threads)
	if err != nil {
		return nil, err
	}
	d.v = nil
	for i, s := range d.s {
		for j := range d.rows {
			u[i*d.rows+j] *= s
		}
	}
	linalg.Product64(linalg.Of64(out, d.rows, d.cols), 1, linalg.Of64(u, k, d.rows).T(), linalg.Of64(v, k, d.cols), false, threads)
	return out, nil
}

// directionsBytes is what gathering directions and making a matrix of them holds, decompositions included.
func directionsBytes(rows, cols int64) int64 {
	short, long := min(rows, cols), max(rows, cols)
	return 16*short*(rows+cols) + 24*short*long + eigenBytes(short)
}
