package model

import (
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Rope is a table of rotary position embeddings (Su et al., 2021, "RoFormer") with the scaling rules of the field.
type Rope struct {
	Dim    int     // rotated width of a head, even; the rest of the head passes
	Theta  float64 // base
	Type   string  // default, linear, dynamic, llama3, yarn, longrope
	Factor float64
	// Original is the number of positions the unscaled table was trained on, Max that of the model.
	Original, Max int

	LowFreq, HighFreq   float64 // llama3
	BetaFast, BetaSlow  float64 // yarn
	MScale, MScaleAll   float64 // yarn, DeepSeek's keys; 0: absent
	Attention           float64 // factor on cos and sin; 0: by rule
	NoTruncate          bool    // yarn
	ShortFactor, LongBy []float64
}

// Inverse returns the Dim/2 inverse frequencies for texts of length positions, and the factor on cosine and sine.
func (r Rope) Inverse(length int) (inv []float64, scale float64) {
	n := r.Dim / 2
	inv, scale = make([]float64, n), 1
	theta := r.Theta
	if r.Type == "dynamic" && length > r.Max {
		// NTK-aware scaling that grows with the text.
		theta *= math.Pow(r.Factor*float64(length)/float64(r.Max)-(r.Factor-1), float64(r.Dim)/float64(r.Dim-2))
	}
	for i := range inv {
		inv[i] = math.Pow(theta, -2*float64(i)/float64(r.Dim))
	}
	switch r.Type {
	case "linear":
		for i := range inv {
			inv[i] /= r.Factor
		}
	case "llama3":
		for i, f := range inv {
			wave := 2 * math.Pi / f
			switch {
			case wave > float64(r.Original)/r.LowFreq:
				inv[i] = f / r.Factor
			case wave >= float64(r.Original)/r.HighFreq:
				t := (float64(r.Original)/wave - r.LowFreq) / (r.HighFreq - r.LowFreq)
				inv[i] = f * ((1-t)/r.Factor + t)
			}
		}
	case "yarn":
		// Peng et al., 2023, "YaRN".
		cut := func(rotations float64) float64 {
			return float64(r.Dim) * math.Log(float64(r.Original)/(2*math.Pi*rotations)) / (2 * math.Log(r.Theta))
		}
		low, high := cut(r.BetaFast), cut(r.BetaSlow)
		if !r.NoTruncate {
			low, high = math.Floor(low), math.Ceil(high)
		}
		low, high = max(low, 0), min(high, float64(r.Dim-1))
		if low == high {
			high += 0.001
		}
		for i, f := range inv {
			ramp := min(max((float64(i)-low)/(high-low), 0), 1)
			inv[i] = f*(1-ramp) + f/r.Factor*ramp
		}
		mscale := func(m float64) float64 {
			if r.Factor <= 1 {
				return 1
			}
			return 0.1*m*math.Log(r.Factor) + 1
		}
		scale = mscale(1)
		if r.MScale != 0 && r.MScaleAll != 0 {
			scale = mscale(r.MScale) / mscale(r.MScaleAll)
		}
	case "longrope":
		by := r.ShortFactor
		if length > r.Original {
			by = r.LongBy
		}
		for i := range inv {
			inv[i] /= by[i]
		}
		if r.Factor > 1 {
			scale = math.Sqrt(1 + math.Log(r.Factor)/math.Log(float64(r.Original)))
		}
	}
	if r.Attention != 0 {
		scale = r.Attention
	}
	return inv, scale
}

// Dynamic reports whether the table depends on the length of the text.
func (r Rope) Dynamic() bool { return r.Type == "dynamic" || r.Type == "longrope" }

// validate refuses a table that cannot be computed.
func (r Rope) validate() error {
	if r.Dim < 2 || r.Dim%2 != 0 {
		return fmt.Errorf("rotary width %d must be even and positive", r.Dim)
	}
	if !(r.Theta > 1) {
		return fmt.Errorf("rope_theta %v must be above 1", r.Theta)
	}
	switch r.Type {
	case "default":
		return nil
	case "linear", "dynamic", "llama3", "yarn":
		if !(r.Factor > 0) {
			return fmt.Errorf("rope scaling %q needs a positive factor, not %v", r.Type, r.Factor)
		}
		if r.Type == "llama3" && !(r.HighFreq > r.LowFreq && r.LowFreq > 0) {
			return fmt.Errorf("rope scaling llama3 needs 0 < low_freq_factor < high_freq_factor, not %v and %v", r.LowFreq, r.HighFreq)
		}
		if r.Type == "dynamic" && r.Dim < 4 {
			return fmt.Errorf("rope scaling dynamic needs a rotary width of at least 4, not %d", r.Dim)
		}
	case "longrope":
		if len(r.ShortFactor) != r.Dim/2 || len(r.LongBy) != r.Dim/2 {
			return fmt.Errorf("rope scaling longrope has %d short and %d long factors; a rotary width of %d needs %d of each", len(r.ShortFactor), len(r.LongBy), r.Dim, r.Dim/2)
		}
	default:
		return fmt.Errorf("rope scaling %q is not known; default, linear, dynamic, llama3, yarn and longrope are", r.Type)
	}
	if r.Original < 1 && r.Type != "linear" && r.Type != "dynamic" {
		return fmt.Errorf("rope scaling %q needs original_max_position_embeddings", r.Type)
	}
	return nil
}

// rotaryTables returns cosine and sine, float32 [B,S,Dim/2]. positions: int32 [B,S]; inverse: float32 [Dim/2].
func rotaryTables(positions, inverse *Node, scale float64) (cos, sin *Node) {
	p := InsertAxes(ConvertDType(positions, dtypes.Float32), -1)
	angle := Mul(p, ExpandLeftToRank(inverse, 3))
	cos, sin = Cos(angle), Sin(angle)
	if scale != 1 {
		cos, sin = MulScalar(cos, scale), MulScalar(sin, scale)
	}
	return cos, sin
}

// rotate applies the rotary embedding in its half-split form. x: [B,S,heads,D]; cos, sin: float32 [B,S,d/2] with d <= D.
func rotate(x, cos, sin *Node) *Node {
	dtype := x.DType()
	half := cos.Shape().Dim(-1)
	width := x.Shape().Dim(-1)
	cos, sin = InsertAxes(cos, 2), InsertAxes(sin, 2)
	x32 := ConvertDType(x, dtypes.Float32)
	last := x.Rank() - 1
	x1 := SliceAxis(x32, last, AxisRange(0, half))
	x2 := SliceAxis(x32, last, AxisRange(half, 2*half))
	parts := []*Node{Sub(Mul(x1, cos), Mul(x2, sin)), Add(Mul(x2, cos), Mul(x1, sin))}
	if width > 2*half {
		parts = append(parts, SliceAxis(x32, last, AxisRange(2*half, width)))
	}
	return ConvertDType(Concatenate(parts, last), dtype)
}
