package main

import (
	"fmt"
	"math"

	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// side is that of all images here, in pixels; values are from 0 to 1.
const side = 28

// view makes an image of another; which is the number of the image, by which chance is keyed.
type view func(to, from []float32, which int)

// seen is examples as a view shows them, with the labels that they have.
func seen(d *model.PlainDescription, s *samples.Set, v view) (*samples.Set, error) {
	const pixels = side * side
	x := make([]float32, len(s.X))
	for i := range s.N {
		v(x[i*pixels:(i+1)*pixels], s.X[i*pixels:(i+1)*pixels], i)
	}
	return samples.Of(d, x, s.N, s.Labels)
}

// at is the brightness between pixels, by bilinear interpolation; nothing is outside.
func at(x []float32, row, col float64) float32 {
	r, c := math.Floor(row), math.Floor(col)
	sum := 0.0
	for dr := 0.0; dr < 2; dr++ {
		for dc := 0.0; dc < 2; dc++ {
			i, j := int(r+dr), int(c+dc)
			if i >= 0 && j >= 0 && i < side && j < side {
				sum += float64(x[i*side+j]) * (1 - math.Abs(row-r-dr)) * (1 - math.Abs(col-c-dc))
			}
		}
	}
	return float32(sum)
}

// moved turns an image about its centre and shifts it.
func moved(to, from []float32, degrees, down, right float64) {
	const centre = (side - 1) / 2.0
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	for i := range side {
		for j := range side {
			y, x := float64(i)-centre-down, float64(j)-centre-right
			to[i*side+j] = at(from, centre+cos*y-sin*x, centre+sin*y+cos*x)
		}
	}
}

func turned(degrees float64) view {
	return func(to, from []float32, _ int) { moved(to, from, degrees, 0, 0) }
}

func shifted(down, right float64) view {
	return func(to, from []float32, _ int) { moved(to, from, 0, down, right) }
}

// jittered turns by up to some degrees and shifts by up to some pixels, each image by its own chance.
func jittered(degrees, pixels float64, seed uint64) view {
	return func(to, from []float32, which int) {
		var u [3]float32
		linalg.Uniform(u[:], seed, fmt.Sprint("jitter ", which))
		for i := range u {
			u[i] = 2*u[i] - 1
		}
		moved(to, from, degrees*float64(u[0]), math.Round(pixels*float64(u[1])), math.Round(pixels*float64(u[2])))
	}
}

// varied turns by any angle, shifts a little, and mirrors, inverts or quarters one image in four each, by its own chance.
func varied(seed uint64) view {
	return func(to, from []float32, which int) {
		var u [6]float32
		linalg.Uniform(u[:], seed, fmt.Sprint("varied ", which))
		var a, b [side * side]float32
		moved(a[:], from, 360*float64(u[0]), math.Round(4*float64(u[1])-2), math.Round(4*float64(u[2])-2))
		x, y := a[:], b[:]
		for i, change := range []view{mirrored, quartered, inverted} {
			if u[3+i] < 0.25 {
				change(y, x, which)
				x, y = y, x
			}
		}
		copy(to, x)
	}
}

// noisy adds normal noise, and stays between black and white.
func noisy(sigma float64, seed uint64) view {
	return func(to, from []float32, which int) {
		linalg.Normal(to, seed, fmt.Sprint("noise ", which))
		for i, x := range from {
			to[i] = min(max(x+float32(sigma)*to[i], 0), 1)
		}
	}
}

// faint lowers the contrast about the middle grey.
func faint(factor float64) view {
	return func(to, from []float32, _ int) {
		for i, x := range from {
			to[i] = 0.5 + (x-0.5)*float32(factor)
		}
	}
}

func inverted(to, from []float32, _ int) {
	for i, x := range from {
		to[i] = 1 - x
	}
}

func mirrored(to, from []float32, _ int) {
	for i := range side {
		for j := range side {
			to[i*side+j] = from[i*side+side-1-j]
		}
	}
}

// quartered exchanges the quarters across the centre.
func quartered(to, from []float32, _ int) {
	const half = side / 2
	for i := range side {
		for j := range side {
			to[i*side+j] = from[(i+half)%side*side+(j+half)%side]
		}
	}
}

// enlarged makes images of 28x28 out of 8x8, with a margin of two pixels as MNIST has more or less.
func enlarged(d *model.PlainDescription, s *samples.Set) (*samples.Set, error) {
	const small, margin = 8, 2
	x := make([]float32, s.N*side*side)
	scale := float64(small) / (side - 2*margin)
	for k := range s.N {
		from, to := s.X[k*small*small:(k+1)*small*small], x[k*side*side:(k+1)*side*side]
		for i := margin; i < side-margin; i++ {
			for j := margin; j < side-margin; j++ {
				row, col := (float64(i-margin)+0.5)*scale-0.5, (float64(j-margin)+0.5)*scale-0.5
				r, c := math.Floor(row), math.Floor(col)
				for dr := 0.0; dr < 2; dr++ {
					for dc := 0.0; dc < 2; dc++ {
						a, b := min(max(int(r+dr), 0), small-1), min(max(int(c+dc), 0), small-1)
						to[i*side+j] += from[a*small+b] * float32((1-math.Abs(row-r-dr))*(1-math.Abs(col-c-dc)))
					}
				}
			}
		}
	}
	return samples.Of(d, x, s.N, s.Labels)
}

// relabelled gives examples other classes.
func relabelled(d *model.PlainDescription, s *samples.Set, class func(digit int32) int32) (*samples.Set, error) {
	l := model.Labels{Classes: make([]int32, s.N)}
	for i, c := range s.Labels.Classes {
		l.Classes[i] = class(c)
	}
	return samples.Of(d, s.X, s.N, l)
}
