package quant

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// lookup are four-bit codes of bitsandbytes, two to a byte, the high nibble first, in the order of the elements: a level of a table times the
// largest magnitude of their block. Dettmers et al., 2023, "QLoRA: efficient finetuning of quantized LLMs", whose double quantisation codes
// those magnitudes too.
type lookup struct {
	codes  *tensors.Reader
	cols   int
	levels [16]float32
	block  int
	absmax *tensors.Reader
	nested *nestedMax // nil: absmax are numbers
}

// nestedMax are magnitudes in codes.
type nestedMax struct {
	levels [256]float32
	absmax *tensors.Reader
	block  int
	offset float32
}

func (s *lookup) decode(dst []float32, r0, r1, c0, c1 int, b *buffers) error {
	for r := r0; r < r1; r++ {
		row := dst[(r-r0)*(c1-c0):][:c1-c0]
		at := r*s.cols + c0
		from, to := at/2, (at+len(row)+1)/2
		data, err := read(s.codes, from, to-from, b, 0)
		if err != nil {
			return err
		}
		first := at / s.block
		scales, err := s.magnitudes(first, (at+len(row)-1)/s.block+1, b)
		if err != nil {
			return err
		}
		for i := range row {
			e := at + i
			row[i] = s.levels[data[e/2-from]>>(4-e%2*4)&15] * scales[e/s.block-first]
		}
	}
	return nil
}

// magnitudes are the scales of blocks from to to.
func (s *lookup) magnitudes(from, to int, b *buffers) ([]float32, error) {
	out := grown(&b.scales, to-from)
	if s.nested == nil {
		return out, numbers(out, s.absmax, from, b, 2)
	}
	data, err := read(s.absmax, from, len(out), b, 2)
	if err != nil {
		return nil, err
	}
	first := from / s.nested.block
	outer := grown(&b.zeros, (to-1)/s.nested.block-first+1)
	if err := numbers(outer, s.nested.absmax, first, b, 1); err != nil {
		return nil, err
	}
	for i := range out {
		out[i] = s.nested.levels[data[i]]*outer[(from+i)/s.nested.block-first] + s.nested.offset
	}
	return out, nil
}

// quantState is what bitsandbytes keeps of a matrix beside its tensors, as JSON in a tensor of bytes.
type quantState struct {
	Type         string  `json:"quant_type"`
	Block        int     `json:"blocksize"`
	DType        string  `json:"dtype"`
	Shape        []int   `json:"shape"`
	NestedBlock  int     `json:"nested_blocksize"`
	NestedOffset float32 `json:"nested_offset"`
}

// maxState bounds the JSON of a quantState.
const maxState = 4096

// states are the suffixes of the tensor that holds it.
var states = []string{".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"}

// newLookup checks the parts of a matrix, and returns its shape and dtype.
func newLookup(p *parts) (*lookup, []int, tensors.DType, error) {
	var state *tensors.Reader
	for _, s := range states {
		r, err := p.optional(s)
		if err != nil {
			return nil, nil, 0, err
		}
		if r != nil {
			state = r
		}
	}
	if state == nil || state.DType != tensors.U8 || state.Info.Bytes() > maxState {
		return nil, nil, 0, fmt.Errorf("has no quant_state that can be read")
	}
	raw, err := state.Bytes(0, state.Info.Bytes(), nil)
	if err != nil {
		return nil, nil, 0, err
	}
	q := quantState{}
	if err := json.Unmarshal(raw, &q); err != nil {
		return nil, nil, 0, fmt.Errorf("has a quant_state that cannot be read: %w", err)
	}
	dtype := map[string]tensors.DType{"float32": tensors.F32, "float16": tensors.F16, "bfloat16": tensors.BF16}[q.DType]
	elems := tensors.Info{Shape: q.Shape}.Elems()
	if dtype == 0 || len(q.Shape) != 2 || elems < 1 || q.Block < 1 || p.main.DType != tensors.U8 || p.main.Elems() != (elems+1)/2 {
		return nil, nil, 0, fmt.Errorf("has codes of %s %v for weights of %.20s %v in blocks of %d", p.main.DType, p.main.Shape, q.DType, q.Shape, q.Block)
	}
	s := &lookup{codes: p.main, cols: q.Shape[1], block: q.Block}
	if s.absmax, err = p.needed(".absmax"); err != nil {
		return nil, nil, 0, err
	}
	if err := p.table(".quant_map", s.levels[:]); err != nil {
		return nil, nil, 0, err
	}
	blocks := (elems + int64(q.Block) - 1) / int64(q.Block)
	if s.absmax.Elems() != blocks {
		return nil, nil, 0, fmt.Errorf("has %d scales for %d blocks", s.absmax.Elems(), blocks)
	}
	nested, err := p.optional(".nested_absmax")
	if err != nil || nested == nil {
		if err == nil && !s.absmax.DType.IsFloat() {
			err = fmt.Errorf("has scales of %s", s.absmax.DType)
		}
		return s, q.Shape, dtype, err
	}
	s.nested = &nestedMax{absmax: nested, block: q.NestedBlock, offset: q.NestedOffset}
	if err := p.table(".nested_quant_map", s.nested.levels[:]); err != nil {
		return nil, nil, 0, err
	}
	if q.NestedBlock < 1 || s.absmax.DType != tensors.U8 || !nested.DType.IsFloat() || nested.Elems() != (blocks+int64(q.NestedBlock)-1)/int64(q.NestedBlock) {
		return nil, nil, 0, fmt.Errorf("has scales of scales %s %v for %d blocks", nested.DType, nested.Shape, blocks)
	}
	return s, q.Shape, dtype, nil
}

// table reads a table of levels.
func (p *parts) table(suffix string, into []float32) error {
	r, err := p.needed(suffix)
	if err != nil {
		return err
	}
	if !r.DType.IsFloat() || !slices.Equal(r.Shape, []int{len(into)}) {
		return fmt.Errorf("has a table of levels of %s %v", r.DType, r.Shape)
	}
	return numbers(into, r, 0, &buffers{}, 0)
}

// rowMajor sees that bytes are not in an order that an older device wanted: 0 is the plain one.
func (p *parts) rowMajor() error {
	r, err := p.optional(".weight_format")
	if err != nil || r == nil {
		return err
	}
	var format [1]float32
	if r.Elems() == 1 && isNumber(r.DType) {
		if err := numbers(format[:], r, 0, &buffers{}, 0); err != nil || format[0] == 0 {
			return err
		}
	}
	return fmt.Errorf("has bytes in an order for a device (weight_format), which is not read")
}

// int8Rows are 8-bit codes of bitsandbytes: code times the largest magnitude of the row, over 127. Dettmers et al., 2022, "LLM.int8():
// 8-bit matrix multiplication for transformers at scale".
type int8Rows struct {
	codes  *tensors.Reader
	cols   int
	absmax *tensors.Reader
}

func (s *int8Rows) decode(dst []float32, r0, r1, c0, c1 int, b *buffers) error {
	scales := grown(&b.scales, r1-r0)
	if err := numbers(scales, s.absmax, r0, b, 2); err != nil {
		return err
	}
	for r := r0; r < r1; r++ {
		row := dst[(r-r0)*(c1-c0):][:c1-c0]
		if err := numbers(row, s.codes, r*s.cols+c0, b, 0); err != nil {
			return err
		}
		for i := range row {
			row[i] = row[i] * scales[r-r0] * (1.0 / 127)
		}
	}
	return nil
}
