package quant

import (
	"fmt"

	"github.com/mergekit/mergekit/tensors"
)

// packing is how integers of a few bits lie in words of 32.
type packing struct {
	bits  int
	dense bool // one after the other, also across the border of a word; else as many as a word holds whole
}

// words is how many words n integers take.
func (p packing) words(n int) int {
	if p.dense {
		return (n*p.bits + 31) / 32
	}
	per := 32 / p.bits
	return (n + per - 1) / per
}

// bit is where integer i begins.
func (p packing) bit(i int) int {
	if p.dense {
		return i * p.bits
	}
	per := 32 / p.bits
	return i/per*32 + i%per*p.bits
}

// packingOf chooses among widths and ways of packing the one that makes n integers fill so many words.
func packingOf(bits []int, n, words int) (packing, bool) {
	var found []packing
	for _, b := range bits {
		for _, dense := range []bool{true, false} {
			p := packing{b, dense}
			if 32%b == 0 && !dense { // both ways are the same
				continue
			}
			if p.words(n) == words {
				found = append(found, p)
			}
		}
	}
	if len(found) == 0 {
		return packing{}, false
	}
	for _, p := range found[1:] {
		if p.bits != found[0].bits { // two widths in one model that this matrix does not tell apart
			return packing{}, false
		}
	}
	return found[0], true
}

// integer reads the integer that begins at a bit of a run of words.
func integer(words []byte, bit, bits int) uint32 {
	at := bit / 32 * 4
	v := uint64(le.Uint32(words[at:]))
	if bit%32+bits > 32 {
		v |= uint64(le.Uint32(words[at+4:])) << 32
	}
	return uint32(v>>(bit%32)) & (1<<bits - 1)
}

// packed are integers of compressed-tensors' pack-quantized format, packed along rows: (code - offset - zero) times scale.
type packed struct {
	codes      *tensors.Reader
	rows, cols int // of a matrix
	packing
	scale *grid
	zero  *tensors.Reader // packed down the rows; nil: 0
	order *indices        // the group of every column; nil: groups are neighbours
}

func (s *packed) decode(dst []float32, r0, r1, c0, c1 int, b *buffers) error {
	order, err := s.order.get()
	if err != nil {
		return err
	}
	words := s.words(s.cols)
	from, to := s.bit(c0)/32, min(words, (s.bit(c1-1)+s.bits+31)/32)
	half := float32(int(1) << (s.bits - 1))
	for r := r0; r < r1; r++ {
		data, err := read(s.codes, r*words+from, to-from, b, 0)
		if err != nil {
			return err
		}
		row := dst[(r-r0)*(c1-c0):][:c1-c0]
		s.unpack(row, data, c0, from, half)
		if order != nil {
			if err := s.reordered(row, r, c0, order, b); err != nil {
				return err
			}
			continue
		}
		if s.zero != nil {
			zeros, err := s.zeros(r, c0/s.scale.bc, (c1-1)/s.scale.bc+1, b)
			if err != nil {
				return err
			}
			s.scale.apply(row, zeros, c0, subtract)
		}
		scales, err := s.scale.row(&b.scales, r, c0, c1, b, 2)
		if err != nil {
			return err
		}
		s.scale.apply(row, scales, c0, multiply)
	}
	return nil
}

// unpack reads the integers of columns from c0 on out of words that begin with word from.
func (s *packed) unpack(row []float32, data []byte, c0, from int, half float32) {
	switch s.bits {
	case 4: // two to a byte, the low nibble first
		for i := range row {
			c := c0 + i
			row[i] = float32(data[c/2-4*from]>>(c%2*4)&15) - half
		}
	case 8:
		for i := range row {
			row[i] = float32(data[c0+i-4*from]) - half
		}
	default:
		for i := range row {
			row[i] = float32(integer(data, s.bit(c0+i)-32*from, s.bits)) - half
		}
	}
}

// reordered finishes a row whose columns belong to any groups.
func (s *packed) reordered(row []float32, r, c0 int, order []int32, b *buffers) error {
	scales, err := s.scale.row(&b.scales, r, 0, s.cols, b, 2)
	if err != nil {
		return err
	}
	var zeros []float32
	if s.zero != nil {
		if zeros, err = s.zeros(r, 0, s.scale.cols, b); err != nil {
			return err
		}
	}
	for i := range row {
		g := order[c0+i]
		if zeros != nil {
			row[i] -= zeros[g]
		}
		row[i] *= scales[g]
	}
	return nil
}

// zeros reads the zero points of groups g0 to g1 of a row. They are packed down the rows of a matrix.
func (s *packed) zeros(r, g0, g1 int, b *buffers) ([]float32, error) {
	out := grown(&b.zeros, g1-g0)
	down := s.words(s.rows)
	m, r := r/s.rows, r%s.rows
	bit := s.bit(r)
	word := bit / 32
	half := float32(int(1) << (s.bits - 1))
	for i := range out {
		at := (m*down + word) * s.scale.cols
		first, err := read(s.zero, at+g0+i, 1, b, 1)
		if err != nil {
			return nil, err
		}
		v := uint64(le.Uint32(first))
		if bit%32+s.bits > 32 {
			second, err := read(s.zero, at+s.scale.cols+g0+i, 1, b, 1)
			if err != nil {
				return nil, err
			}
			v |= uint64(le.Uint32(second)) << 32
		}
		out[i] = float32(uint32(v>>(bit%32))&(1<<s.bits-1)) - half
	}
	return out, nil
}

// newPacked checks the parts of a packed matrix. shape is that of the weight.
func newPacked(p *parts, shape []int, cfg *Config) (*packed, error) {
	n := len(shape)
	if n < 2 {
		return nil, fmt.Errorf("has the shape %v, which is no matrix", shape)
	}
	s := &packed{codes: p.main, rows: shape[n-2], cols: shape[n-1]}
	have := p.main.Shape
	if p.main.DType != tensors.I32 || len(have) != n || !equal(have[:n-1], shape[:n-1]) {
		return nil, fmt.Errorf("has %s %v for weights of shape %v", p.main.DType, have, shape)
	}
	bits := cfg.packedBits()
	if len(bits) == 0 {
		bits = []int{4, 8}
	}
	var ok bool
	if s.packing, ok = packingOf(bits, s.cols, have[n-1]); !ok {
		return nil, fmt.Errorf("has %d words in a row for %d weights of %v bits", have[n-1], s.cols, bits)
	}
	scale, err := p.grid("_scale", shape, cfg)
	if err != nil {
		return nil, err
	}
	s.scale = scale
	if scale.br != 1 && scale.rows != 1 {
		return nil, fmt.Errorf("has scales %v for weights of shape %v", scale.r.Shape, shape)
	}
	if s.zero, err = p.optional("_zero_point"); err != nil {
		return nil, err
	}
	if z := s.zero; z != nil {
		want := append(append([]int{}, shape[:n-2]...), s.words(s.rows), scale.cols)
		if z.DType != tensors.I32 || !equal(z.Shape, want) {
			return nil, fmt.Errorf("has zero points of %s %v; %v is expected", z.DType, z.Shape, want)
		}
	}
	if s.order, err = p.indices("_g_idx", s.cols, scale.cols); err != nil {
		return nil, err
	}
	return s, nil
}

func equal(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
