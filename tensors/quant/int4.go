package quant

import (
	"fmt"

	"github.com/mergekit/mergekit/tensors"
)

// columns are integers as GPTQ and AWQ pack them: the stored matrix has a row for each input and is read across, so that a group of inputs
// shares scales. Its words hold several inputs of one output (GPTQ), or several outputs of one input (AWQ).
//
// Frantar et al., 2022, "GPTQ: accurate post-training quantization for generative pre-trained transformers"; Lin et al., 2023, "AWQ:
// activation-aware weight quantization for LLM compression and acceleration".
type columns struct {
	codes, zeros, scales *tensors.Reader
	outputs, inputs      int
	groups, size         int // groups of inputs, and how many are in one
	bits                 int
	across               bool // AWQ
	plus                 float32
	order                *indices // the group of every input
}

// place is where in a word of AWQ output i of eight is.
var place = [8]int{0, 4, 1, 5, 2, 6, 3, 7}

func (s *columns) decode(dst []float32, r0, r1, c0, c1 int, b *buffers) error {
	order, err := s.order.get()
	if err != nil {
		return err
	}
	outputs, width := r1-r0, c1-c0
	group := func(input int) int {
		if order != nil {
			return int(order[input])
		}
		return min(input/s.size, s.groups-1)
	}
	first, last := group(c0), group(c0)
	for c := c0; c < c1; c++ {
		first, last = min(first, group(c)), max(last, group(c))
	}
	scales := grown(&b.scales, (last-first+1)*outputs)
	zeros := grown(&b.zeros, len(scales))
	for g := first; g <= last; g++ {
		at := (g - first) * outputs
		if err := numbers(scales[at:][:outputs], s.scales, g*s.outputs+r0, b, 2); err != nil {
			return err
		}
		if err := s.zero(zeros[at:][:outputs], g, r0, b); err != nil {
			return err
		}
	}
	for c := c0; c < c1; c += tileColumns {
		n := min(tileColumns, c1-c)
		tile := grown(&b.tile, n*outputs)
		for k := range n {
			at := (group(c+k) - first) * outputs
			if err := s.column(tile[k*outputs:][:outputs], c+k, r0, zeros[at:][:outputs], scales[at:][:outputs], b); err != nil {
				return err
			}
		}
		turn(dst[c-c0:], width, tile, outputs)
	}
	return nil
}

// column decodes an input of outputs from r0 on.
func (s *columns) column(dst []float32, input, r0 int, zeros, scales []float32, b *buffers) error {
	per := 32 / s.bits
	mask := uint32(1)<<s.bits - 1
	zeros, scales = zeros[:len(dst)], scales[:len(dst)]
	if s.across {
		from, to := r0/per, (r0+len(dst)+per-1)/per
		data, err := read(s.codes, input*(s.outputs/per)+from, to-from, b, 0)
		if err != nil {
			return err
		}
		for i := range dst {
			r := r0 + i
			q := le.Uint32(data[4*(r/per-from):]) >> (s.bits * place[r%per]) & mask
			dst[i] = (float32(q) - zeros[i]) * scales[i]
		}
		return nil
	}
	data, err := read(s.codes, input/per*s.outputs+r0, len(dst), b, 0)
	if err != nil {
		return err
	}
	shift := s.bits * (input % per)
	for i := range dst {
		dst[i] = (float32(le.Uint32(data[4*i:])>>shift&mask) - zeros[i]) * scales[i]
	}
	return nil
}

// zero reads the zero points of a group for outputs from r0 on.
func (s *columns) zero(dst []float32, g, r0 int, b *buffers) error {
	per := 32 / s.bits
	words := s.outputs / per
	from, to := r0/per, (r0+len(dst)+per-1)/per
	data, err := read(s.zeros, g*words+from, to-from, b, 1)
	if err != nil {
		return err
	}
	for i := range dst {
		r := r0 + i
		at := r % per
		if s.across {
			at = place[at]
		}
		dst[i] = float32(le.Uint32(data[4*(r/per-from):])>>(s.bits*at)&(1<<s.bits-1)) + s.plus
	}
	return nil
}

// newColumns checks the parts of a matrix of GPTQ or AWQ, and returns the weight's shape.
func newColumns(p *parts, cfg *Config) (*columns, []int, error) {
	s := &columns{codes: p.main, bits: cfg.Bits, across: cfg.Method == "awq"}
	if !s.across && cfg.CheckpointFormat != "gptq_v2" {
		s.plus = 1 // the first format stores zero points less one
	}
	var err error
	if s.zeros, err = p.needed(".qzeros"); err != nil {
		return nil, nil, err
	}
	if s.scales, err = p.needed(".scales"); err != nil {
		return nil, nil, err
	}
	per := 32 / s.bits
	have := p.main.Shape
	if p.main.DType != tensors.I32 || s.zeros.DType != tensors.I32 || !s.scales.DType.IsFloat() || len(have) != 2 || len(s.scales.Shape) != 2 {
		return nil, nil, fmt.Errorf("has codes of %s %v, scales of %s %v and zero points of %s", p.main.DType, have, s.scales.DType, s.scales.Shape, s.zeros.DType)
	}
	s.groups, s.outputs = s.scales.Shape[0], s.scales.Shape[1]
	s.inputs = have[0]
	wide := have[1]
	if s.across {
		wide *= per
	} else {
		s.inputs *= per
	}
	s.size = cfg.GroupSize
	if s.size <= 0 {
		s.size = s.inputs
	}
	if s.inputs < 1 || s.outputs < 1 || wide != s.outputs || s.outputs%per != 0 || s.groups < 1 || s.groups != (s.inputs+s.size-1)/s.size || !equal(s.zeros.Shape, []int{s.groups, s.outputs / per}) {
		return nil, nil, fmt.Errorf("has codes %v, scales %v and zero points %v, which do not belong together in %d bits and groups of %d", have, s.scales.Shape, s.zeros.Shape, s.bits, cfg.GroupSize)
	}
	if !s.across {
		if s.order, err = p.indices(".g_idx", s.inputs, s.groups); err != nil {
			return nil, nil, err
		}
	}
	return s, []int{s.outputs, s.inputs}, nil
}
