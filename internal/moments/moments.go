// Package moments sums up mean and variance of many features at once, in float64, as their rows stream by.
package moments

import "math"

// Columns sums up rows of features. The zero value is ready; all rows have the same width.
type Columns struct {
	n     float64
	shift []float64 // the first row: sums of differences from it lose nothing where a mean is large beside its deviation
	sum   []float64
	sq    []float64
}

// Add takes rows: x is [rows, width], row-major.
func (c *Columns) Add(x []float32, rows, width int) {
	if rows == 0 {
		return
	}
	if c.shift == nil {
		c.shift, c.sum, c.sq = make([]float64, width), make([]float64, width), make([]float64, width)
		for i, v := range x[:width] {
			c.shift[i] = float64(v)
		}
	}
	c.n += float64(rows)
	for r := range rows {
		row := x[r*width : (r+1)*width]
		for i, v := range row {
			d := float64(v) - c.shift[i]
			c.sum[i] += d
			c.sq[i] += d * d
		}
	}
}

// N is the number of rows.
func (c *Columns) N() int { return int(c.n) }

// Mean returns the mean of every feature.
func (c *Columns) Mean() []float64 {
	out := make([]float64, len(c.sum))
	for i, s := range c.sum {
		out[i] = c.shift[i] + s/c.n
	}
	return out
}

// Variance returns the variance of every feature, over all rows, not the unbiased one.
func (c *Columns) Variance() []float64 {
	out := make([]float64, len(c.sum))
	for i, s := range c.sum {
		m := s / c.n
		out[i] = max(c.sq[i]/c.n-m*m, 0)
	}
	return out
}

// Deviation returns the standard deviation of every feature.
func (c *Columns) Deviation() []float64 {
	out := c.Variance()
	for i, v := range out {
		out[i] = math.Sqrt(v)
	}
	return out
}
