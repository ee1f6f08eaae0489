package quant

import (
	"math"

	"github.com/mergekit/mergekit/tensors"
)

// scaled are 8-bit floats or integers, each an element: (code - zero) times scale.
type scaled struct {
	codes *tensors.Reader
	cols  int
	scale *grid
	zero  *grid // nil: 0
}

func (s *scaled) decode(dst []float32, r0, r1, c0, c1 int, b *buffers) error {
	for r := r0; r < r1; r++ {
		row := dst[(r-r0)*(c1-c0):][:c1-c0]
		if err := numbers(row, s.codes, r*s.cols+c0, b, 0); err != nil {
			return err
		}
		if s.zero != nil {
			zeros, err := s.zero.row(&b.zeros, r, c0, c1, b, 1)
			if err != nil {
				return err
			}
			s.zero.apply(row, zeros, c0, subtract)
		}
		scales, err := s.scale.row(&b.scales, r, c0, c1, b, 2)
		if err != nil {
			return err
		}
		s.scale.apply(row, scales, c0, multiply)
	}
	return nil
}

// levelsFP4 are the values of a four-bit float (E2M1). OCP Microscaling Formats (MX) Specification 1.0.
var levelsFP4 = [16]float32{0, 0.5, 1, 1.5, 2, 3, 4, 6, float32(math.Copysign(0, -1)), -0.5, -1, -1.5, -2, -3, -4, -6}

// fp4 are four-bit floats, two to a byte, the low nibble first: level times scale. NVFP4 has one more scale for the whole matrix, by which
// the others are divided (compressed-tensors) or multiplied (modelopt).
type fp4 struct {
	codes  *tensors.Reader
	cols   int // an even number
	scale  *grid
	global *tensors.Reader // nil: 1
	divide bool
}

func (s *fp4) decode(dst []float32, r0, r1, c0, c1 int, b *buffers) error {
	whole := float32(1)
	if s.global != nil {
		var one [1]float32
		if err := numbers(one[:], s.global, 0, b, 3); err != nil {
			return err
		}
		whole = one[0]
	}
	for r := r0; r < r1; r++ {
		row := dst[(r-r0)*(c1-c0):][:c1-c0]
		from, to := c0/2, (c1+1)/2
		data, err := read(s.codes, r*s.cols/2+from, to-from, b, 0)
		if err != nil {
			return err
		}
		for i := range row {
			c := c0 + i
			row[i] = levelsFP4[data[c/2-from]>>(c%2*4)&15]
		}
		scales, err := s.scale.row(&b.scales, r, c0, c1, b, 2)
		if err != nil {
			return err
		}
		for i := range scales {
			if s.divide {
				scales[i] /= whole
			} else {
				scales[i] *= whole
			}
		}
		s.scale.apply(row, scales, c0, multiply)
	}
	return nil
}

// across is a stack of matrices whose rows are the columns of what is decoded: MXFP4 as gpt-oss stores it.
type across struct {
	codes
	rows, cols int // of a matrix as it is read: the columns and rows of the stored one
}

func (s *across) decode(dst []float32, r0, r1, c0, c1 int, b *buffers) error {
	// A column is a stored row. Some stored rows are decoded for the part that is wanted, and turned.
	for r := r0; r < r1; {
		m := r / s.rows
		end := min(r1, (m+1)*s.rows)
		n := end - r
		for c := c0; c < c1; c += tileColumns {
			width := min(tileColumns, c1-c)
			tile := grown(&b.tile, width*n)
			for i := range width {
				at := m*s.cols + c + i
				if err := s.codes.decode(tile[i*n:][:n], at, at+1, r-m*s.rows, end-m*s.rows, b); err != nil {
					return err
				}
			}
			turn(dst[(r-r0)*(c1-c0)+c-c0:], c1-c0, tile, n)
		}
		r = end
	}
	return nil
}

// tileColumns is how many columns of the result are made before they are turned into rows: writing them one by one would touch a line of
// cache for every value.
const tileColumns = 32

// turn writes a tile, whose rows of n values are columns of the result, into rows of a stride.
func turn(dst []float32, stride int, tile []float32, n int) {
	width := len(tile) / n
	for i := range n {
		row := dst[i*stride:][:width]
		for j := range row {
			row[j] = tile[j*n+i]
		}
	}
}
