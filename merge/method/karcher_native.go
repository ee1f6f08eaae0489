package method

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// karcherRounded runs the iteration with every operation rounded to the storage dtype. The mean is never stored: the graph
// of iteration k computes it again from the inputs and the numbers that the k earlier iterations found. In sixteen bits
// small angles round to zero, so that there rarely is more than one.
func karcherRounded(t *Task) error {
	n, tol := float64(t.Inputs), t.Float("tol")
	s, err := t.Run(&Kernel{Name: "karcher/norms", Build: func(c *Chunk) {
		for i := range c.Inputs {
			c.Total(normName(i), Mul(c.Wide(c.X(i)), c.Wide(c.X(i))))
		}
	}}, nil)
	if err != nil {
		return err
	}
	v := Values{}
	scale := 0.0
	var valid []int
	for i := range t.Inputs {
		length := t.single(math.Sqrt(s.Totals[normName(i)]))
		scale += length / n
		v[normName(i)] = divisor(length)
		if length > tol {
			valid = append(valid, i)
		}
	}
	if len(valid) == 0 {
		scale = 0
	}
	v["scale"] = t.single(scale)
	share := 0.0
	if len(valid) > 0 {
		share = t.single(1 / float64(len(valid)))
	}
	for i := range t.Inputs {
		v[weightName(i)] = 0.0
	}
	for _, i := range valid {
		v[weightName(i)] = share
	}
	v["step.0.norm"] = 1.0
	length, err := karcherLength(t, "mean", v, func(c *Chunk) *Node { return karcherMean(c, 0) })
	if err != nil {
		return err
	}
	if length < tol && len(valid) > 0 {
		for i := range t.Inputs {
			v[weightName(i)] = 0.0
		}
		v[weightName(valid[0])] = 1.0
	} else if len(valid) > 0 {
		v["step.0.norm"] = length
	}

	steps := 0
	for len(valid) > 0 && steps < t.Int("max_iter") {
		more, err := karcherStep(t, v, valid, share, steps)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		steps++
	}
	_, err = t.Run(&Kernel{Name: fmt.Sprintf("karcher/%d", steps), Build: func(c *Chunk) {
		c.Emit(c.Mul(karcherMean(c, steps), c.Scalar("scale")))
	}}, v)
	return err
}

// karcherStep finds the numbers of the iteration that follows steps earlier ones; more is false when the mean has
// converged and the iteration does not take place.
func karcherStep(t *Task, v Values, valid []int, share float64, steps int) (more bool, err error) {
	tol := t.Float("tol")
	s, err := t.Run(&Kernel{Name: fmt.Sprintf("karcher/%d/cosines", steps), Build: func(c *Chunk) {
		m := c.Wide(karcherMean(c, steps))
		for i := range c.Inputs {
			c.Total(weightName(i), Mul(m, c.Wide(karcherUnit(c, i))))
		}
	}}, v)
	if err != nil {
		return false, err
	}
	next := steps + 1
	for i := range t.Inputs {
		v[karcherName(next, "pull", i)], v[karcherName(next, "cos", i)] = 0.0, 0.0
	}
	for _, i := range valid {
		cos := unitClamp(t.Round(s.Totals[weightName(i)]))
		angle := t.Round(math.Acos(cos))
		sin := t.Round(math.Sin(angle))
		if angle < tol || sin < karcherAntipode && cos < 0 {
			continue
		}
		more = true
		v[karcherName(next, "pull", i)], v[karcherName(next, "cos", i)] = t.Round(share*t.Round(angle/sin)), cos
	}
	if !more {
		return false, nil
	}
	length, err := karcherLength(t, fmt.Sprintf("%d/tangent", steps), v, func(c *Chunk) *Node {
		return karcherTangent(c, karcherMean(c, steps), next)
	})
	if err != nil || length < tol {
		return false, err
	}
	name := func(what string) string { return fmt.Sprintf("step.%d.%s", next, what) }
	v[name("cosine")], v[name("sine")], v[name("length")], v[name("norm")] = t.single(math.Cos(length)), t.single(math.Sin(length)), length, 1.0
	norm, err := karcherLength(t, fmt.Sprintf("%d/mean", next), v, func(c *Chunk) *Node { return karcherMean(c, next) })
	if err != nil {
		return false, err
	}
	if norm > tol {
		v[name("norm")] = norm
	}
	return true, nil
}

// single rounds a number that the peer holds in float32 whatever the storage dtype.
func (t *Task) single(x float64) float64 {
	if t.Work() == float64Type {
		return x
	}
	return float64(float32(x))
}

// karcherLength is the length of what x builds.
func karcherLength(t *Task, name string, v Values, x func(c *Chunk) *Node) (float64, error) {
	s, err := t.Run(&Kernel{Name: "karcher/length/" + name, Build: func(c *Chunk) {
		y := c.Wide(x(c))
		c.Total("length", Mul(y, y))
	}}, v)
	if err != nil {
		return 0, err
	}
	return t.single(math.Sqrt(s.Totals["length"])), nil
}

func karcherName(step int, what string, i int) string {
	return fmt.Sprintf("step.%d.%s.%d", step, what, i)
}

func karcherUnit(c *Chunk, i int) *Node { return c.Div(c.X(i), c.Scalar(normName(i))) }

// karcherMean is the mean after a number of steps.
func karcherMean(c *Chunk, steps int) *Node {
	var m *Node
	for i := range c.Inputs {
		term := c.Mul(karcherUnit(c, i), c.Scalar(weightName(i)))
		if m == nil {
			m = term
		} else {
			m = c.Add(m, term)
		}
	}
	m = c.Div(m, c.Scalar("step.0.norm"))
	for k := 1; k <= steps; k++ {
		value := func(what string) *Node { return c.Scalar(fmt.Sprintf("step.%d.%s", k, what)) }
		arc := c.Div(karcherTangent(c, m, k), value("length"))
		m = c.Add(c.Mul(m, value("cosine")), c.Mul(arc, value("sine")))
		m = c.Div(m, value("norm"))
	}
	return m
}

// karcherTangent is the mean of the arcs from m to all models, in the given step.
func karcherTangent(c *Chunk, m *Node, step int) *Node {
	var sum *Node
	for i := range c.Inputs {
		away := c.Sub(karcherUnit(c, i), c.Mul(m, c.Scalar(karcherName(step, "cos", i))))
		term := c.Mul(away, c.Scalar(karcherName(step, "pull", i)))
		if sum == nil {
			sum = term
		} else {
			sum = c.Add(sum, term)
		}
	}
	return sum
}
