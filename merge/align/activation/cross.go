package activation

import (
	"fmt"
	"math"

	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/internal/moments"
	"github.com/mergekit/mergekit/model"
)

// cross collects how features of two networks vary together. Rows of the two belong together.
type cross struct {
	columns int
	shift   [2][]float32 // means of the first rows: products of what is left lose nothing to large means
	side    [2]moments.Columns
	sum     []float64 // products of shifted features, [columns of A, columns of B]
}

func newCross(columns int) *cross {
	return &cross{columns: columns, sum: make([]float64, columns*columns)}
}

// add takes rows of both.
func (c *cross) add(e *gram.Engine, a, b []float32, rows int) error {
	if rows == 0 {
		return nil
	}
	var shifted [2][]float32
	for k, x := range [][]float32{a, b} {
		if c.shift[k] == nil {
			var first moments.Columns
			first.Add(x, rows, c.columns)
			c.shift[k] = make([]float32, c.columns)
			for i, m := range first.Mean() {
				c.shift[k][i] = float32(m)
			}
		}
		y := make([]float32, len(x))
		for r := range rows {
			row := x[r*c.columns : (r+1)*c.columns]
			for i, v := range row {
				y[r*c.columns+i] = v - c.shift[k][i]
			}
		}
		c.side[k].Add(y, rows, c.columns)
		shifted[k] = y
	}
	return e.Inner(c.sum, shifted[0], shifted[1], rows, c.columns, c.columns)
}

// finite refuses features from which no scores come.
func (c *cross) finite(module string) error {
	for k := range c.side {
		for i, v := range c.side[k].Deviation() {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return &model.InputError{Msg: fmt.Sprintf("%s: input %d of the %s model is NaN or infinite on the calibration data; look for NaN, infinite or huge values in the weights and in the data", module, i, [2]string{"first", "second"}[k])}
			}
		}
	}
	return nil
}

// covariance turns the sums into covariances, in place, and returns the deviations of both sides.
func (c *cross) covariance() (cov []float64, a, b []float64) {
	n := float64(c.side[0].N())
	ma, mb := c.side[0].Mean(), c.side[1].Mean()
	for i := range c.columns {
		row := c.sum[i*c.columns : (i+1)*c.columns]
		for j := range row {
			row[j] = row[j]/n - ma[i]*mb[j]
		}
	}
	return c.sum, c.side[0].Deviation(), c.side[1].Deviation()
}

// correlation turns the sums into correlations, in place: cov / (σA σB + ε). ε is 1e-4 of the product of the two networks' typical
// deviations, so that features that hardly vary, whose correlation is noise, weigh little.
func (c *cross) correlation() []float64 {
	cov, a, b := c.covariance()
	eps := 1e-4 * rms(a) * rms(b)
	for i, v := range cov {
		if d := a[i/c.columns]*b[i%c.columns] + eps; d > 0 {
			cov[i] = v / d
		} else {
			cov[i] = 0
		}
	}
	return cov
}

func rms(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum / float64(max(len(x), 1)))
}
