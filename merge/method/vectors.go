package method

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// vectors says which vectors a method sees in a tensor. Angles and norms then exist once per vector.
type vectors uint8

const (
	wholeTensor vectors = iota // one vector, the flattened tensor
	alongLast                  // the last axis: one vector for each index of the other axes; a 1-D tensor is one vector
	alongFirst                 // the first axis: one vector for each index of the other axes
)

// String names the choice in kernels' names.
func (v vectors) String() string { return [...]string{"whole", "last", "first"}[v] }

func (v vectors) layout() Layout { return [...]Layout{Flat, LastAxis, FirstAxis}[v] }

// sum yields the float64 sum of x over each vector.
func (v vectors) sum(c *Chunk, name string, x *Node) {
	switch v {
	case alongLast:
		c.PerRow(name, x)
	case alongFirst:
		c.PerCol(name, x)
	default:
		c.Total(name, x)
	}
}

// sums returns what a pass gathered by sum, one value per vector.
func (v vectors) sums(s *Stats, name string) []float64 {
	switch v {
	case alongLast:
		return s.Rows[name]
	case alongFirst:
		return s.Cols[name]
	}
	return []float64{s.Totals[name]}
}

// value returns each element's value of a quantity that exists once per vector.
func (v vectors) value(c *Chunk, name string) *Node {
	switch v {
	case alongLast:
		return c.Row(name)
	case alongFirst:
		return c.Col(name)
	}
	return c.Scalar(name)
}

// set gives such a quantity to a kernel.
func (v vectors) set(values Values, name string, x []float64) {
	switch v {
	case alongLast:
		values[name] = RowValues(x)
	case alongFirst:
		values[name] = ColValues(x)
	default:
		values[name] = x[0]
	}
}

// gram holds the inner products of a task's vectors. From them every norm, angle and projection of the vectors and of
// their linear combinations follows on the host, so that methods whose result is such a combination read the tensors only
// twice.
type gram struct {
	n        int         // inputs
	products [][]float64 // of each pair i <= j, row by row: one value per vector
}

// pair is the place of inputs i and j among products.
func (g *gram) pair(i, j int) []float64 {
	if i > j {
		i, j = j, i
	}
	return g.products[i*g.n-i*(i-1)/2+j-i]
}

// vectors is how many vectors each input has.
func (g *gram) vectors() int { return len(g.products[0]) }

// of copies the products of one vector into an n x n matrix.
func (g *gram) of(vector int, m [][]float64) {
	for i := range m {
		for j := range m {
			m[i][j] = g.pair(i, j)[vector]
		}
	}
}

// square makes an n x n matrix.
func square(n int) [][]float64 {
	m := make([][]float64, n)
	for i := range m {
		m[i] = make([]float64, n)
	}
	return m
}

// gram computes the inner products between what x builds for the inputs: products of float32 values are exact in float64,
// in which they are summed. name must identify x as a kernel's name does.
func (t *Task) gram(name string, v vectors, inputs []int, x func(c *Chunk, i int) *Node) (*gram, error) {
	s, err := t.Run(&Kernel{Name: fmt.Sprintf("%s/gram/%s", name, v), Layout: v.layout(), Build: func(c *Chunk) {
		for i := range inputs {
			for j := i; j < len(inputs); j++ {
				v.sum(c, fmt.Sprintf("%d.%d", i, j), Mul(c.Wide(x(c, inputs[i])), c.Wide(x(c, inputs[j]))))
			}
		}
	}}, nil)
	if err != nil {
		return nil, err
	}
	g := &gram{n: len(inputs)}
	for i := range inputs {
		for j := i; j < len(inputs); j++ {
			g.products = append(g.products, v.sums(s, fmt.Sprintf("%d.%d", i, j)))
		}
	}
	return g, nil
}

// input is the vector that input i is as it stands.
func (c *Chunk) input(i int) *Node { return c.X(i) }

// taskVector is input i's difference from the base, or the input itself where there is no base.
func (c *Chunk) taskVector(i int) *Node {
	if c.Base < 0 {
		return c.X(i)
	}
	return c.Delta(i)
}

// fromBase adds the base to a combination of task vectors, where there is a base.
func (c *Chunk) fromBase(y *Node) *Node {
	if c.Base < 0 {
		return y
	}
	return c.Add(c.B(), y)
}

// lengthOf is the length of the combination of vectors with the given coefficients, from their inner products m. What is
// below the rounding of the sum is zero: a small length that is left of large terms would be noise.
func lengthOf(m [][]float64, coef []float64) float64 {
	sum, size := 0.0, 0.0
	for i, row := range m {
		for j, p := range row {
			x := coef[i] * coef[j] * p
			sum += x
			size += math.Abs(x)
		}
	}
	const rounding = 1.0 / (1 << 50) // a few units in the last place of the largest terms
	if sum <= rounding*size {
		return 0
	}
	return math.Sqrt(sum)
}

// unitClamp keeps a cosine within [-1, 1].
func unitClamp(c float64) float64 { return max(-1, min(1, c)) }
