package search

import (
	"fmt"
	"math"
	"strconv"
)

// Dimension is a number that is searched.
type Dimension struct {
	Name      string  `json:"path"`
	Low       float64 `json:"low"` // Low < High
	High      float64 `json:"high"`
	Start     float64 `json:"start"`           // where the search begins, within the range
	Log       bool    `json:"log,omitempty"`   // steps are factors; Low > 0
	Whole     bool    `json:"whole,omitempty"` // whole numbers only
	whole     [2]float64
	low, size float64 // of the scale
}

// digits are the significant digits that values keep: more say nothing about a merge, and these are the same on every machine,
// whatever its logarithms round to in the last place.
const digits = 6

func (d *Dimension) prepare() error {
	switch {
	case !(d.Low < d.High) || math.IsInf(d.Low, 0) || math.IsInf(d.High, 0):
		return fmt.Errorf("%s: the range [%g, %g] is empty", d.Name, d.Low, d.High)
	case d.Log && d.Low <= 0:
		return fmt.Errorf("%s: a range on a logarithmic scale begins above 0; here is %g", d.Name, d.Low)
	case !(d.Start >= d.Low && d.Start <= d.High):
		return fmt.Errorf("%s: the start %g is outside of the range [%g, %g]", d.Name, d.Start, d.Low, d.High)
	}
	d.whole = [2]float64{math.Ceil(d.Low), math.Floor(d.High)}
	if d.Whole && d.whole[0] >= d.whole[1] {
		return fmt.Errorf("%s: the range [%g, %g] holds fewer than two whole numbers", d.Name, d.Low, d.High)
	}
	low, high := d.scale(d.Low), d.scale(d.High)
	d.low, d.size = low, high-low
	return nil
}

func (d *Dimension) scale(v float64) float64 {
	if d.Log {
		return math.Log(v)
	}
	return v
}

// unit is where a value lies in the range, from 0 to 1.
func (d *Dimension) unit(v float64) float64 {
	return (d.scale(v) - d.low) / d.size
}

// value is the value at a place, which is folded back into the range at both ends like a path between mirrors.
func (d *Dimension) value(u float64) float64 {
	u = math.Abs(math.Mod(u, 2))
	if u > 1 {
		u = 2 - u
	}
	v := d.low + u*d.size
	if d.Log {
		v = math.Exp(v)
	}
	if d.Whole {
		return min(max(math.Round(v), d.whole[0]), d.whole[1])
	}
	if r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64); err == nil {
		v = r
	}
	if v == 0 {
		v = 0 // no negative zero
	}
	return min(max(v, d.Low), d.High)
}
