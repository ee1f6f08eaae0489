package quant

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/tensors"
)

// Apply gives a checkpoint the weights that its codes stand for, in place of the codes and their scales. dtype is that of the model, for
// weights whose scales do not say. It returns how many weights there are. Errors are *tensors.FormatError.
func Apply(c *tensors.Checkpoint, cfg *Config, dtype tensors.DType) (int, error) {
	b := &builder{c: c, cfg: cfg, dtype: dtype, made: map[string]tensors.Listing{}, used: map[string]bool{}}
	for _, name := range c.Names() {
		if err := b.weight(name); err != nil {
			return 0, err
		}
	}
	if len(b.made) == 0 {
		return 0, nil
	}
	var list []tensors.Listing
	for _, name := range c.Names() {
		switch l, ok := b.made[name]; {
		case ok:
			list = append(list, l)
		case b.used[name], b.dropped(name):
		default:
			list = append(list, tensors.Listing{Info: tensors.Info{Name: name}, Of: name})
		}
	}
	return len(b.made), c.Relist(list)
}

// builder finds weights among the tensors.
type builder struct {
	c     *tensors.Checkpoint
	cfg   *Config
	dtype tensors.DType
	made  map[string]tensors.Listing // by the name of the codes
	used  map[string]bool            // the other parts
}

// activations are scales of what flows through the model and of its cache, which a model with plain weights has no use for.
var activations = []string{"input_scale", "output_scale", "input_global_scale", "input_zero_point", "output_zero_point", "activation_scale", "input_scale_ub",
	"k_scale", "v_scale", "q_scale", "k_zero_point", "v_zero_point", "q_zero_point"}

func (b *builder) dropped(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch b.cfg.Method {
	case "gptq", "awq", "mxfp4":
		return false
	case "bitsandbytes":
		return last == "weight_format" // how rows were laid out for a device
	}
	return slices.Contains(activations, last)
}

// weight looks whether a tensor is the codes of a weight.
func (b *builder) weight(name string) error {
	info, _ := b.c.Lookup(name)
	var err error
	switch b.cfg.Method {
	case "gptq", "awq":
		if stem, ok := strings.CutSuffix(name, ".qweight"); ok {
			err = b.columns(name, stem)
		}
	case "bitsandbytes":
		err = b.bitsandbytes(name)
	case "mxfp4":
		if stem, ok := strings.CutSuffix(name, "_blocks"); ok {
			err = b.blocks(name, stem)
		}
	default:
		if stem, ok := strings.CutSuffix(name, "_packed"); ok {
			err = b.packed(name, stem)
		} else if info.DType == tensors.U8 && b.has(name+"_scale_2") {
			err = b.nibbles(name, name, "_scale_2", false)
		} else if b.has(name+"_scale_inv") || b.has(name+"_scale") {
			err = b.scaled(name)
		}
	}
	if err == nil {
		return nil
	}
	hint := "download it again, or use the model as it was before it was quantised"
	return &tensors.FormatError{File: b.c.Path(), Tensor: name, Msg: "is quantised by " + b.cfg.Method + " and " + err.Error(), Hint: hint, Err: err}
}

func (b *builder) has(name string) bool { _, ok := b.c.Lookup(name); return ok }

// parts are the tensors that belong to one weight.
type parts struct {
	b    *builder
	stem string
	main *tensors.Reader
}

func (b *builder) parts(name, stem string) (*parts, error) {
	r, err := b.c.Reader(name)
	if err != nil {
		return nil, err
	}
	if r.Info.Elems() == 0 || r.DType.Size() == 0 {
		return nil, fmt.Errorf("has codes of %s %v", r.DType, r.Shape)
	}
	return &parts{b, stem, r}, nil
}

// optional finds a part, nil if there is none.
func (p *parts) optional(suffix string) (*tensors.Reader, error) {
	name := p.stem + suffix
	if !p.b.has(name) {
		return nil, nil
	}
	p.b.used[name] = true
	r, err := p.b.c.Reader(name)
	if err == nil && (r.Info.Elems() == 0 || r.DType.Size() == 0) {
		return nil, fmt.Errorf("has %s of %s %v", suffix, r.DType, r.Shape)
	}
	return r, err
}

func (p *parts) needed(suffix string) (*tensors.Reader, error) {
	r, err := p.optional(suffix)
	if err == nil && r == nil {
		return nil, fmt.Errorf("has no %s%s", p.stem, suffix)
	}
	return r, err
}

// grid finds scales or zero points.
func (p *parts) grid(suffix string, shape []int, cfg *Config) (*grid, error) {
	r, err := p.needed(suffix)
	if err != nil {
		return nil, err
	}
	rows, cols := cfg.block()
	g, err := newGrid(r, shape, rows, cols)
	if err != nil {
		return nil, fmt.Errorf("%s%s %w", p.stem, suffix, err)
	}
	return g, nil
}

// indices finds the groups of columns.
func (p *parts) indices(suffix string, columns, groups int) (*indices, error) {
	r, err := p.optional(suffix)
	if err != nil || r == nil {
		return nil, err
	}
	if r.DType != tensors.I32 || !equal(r.Shape, []int{columns}) {
		return nil, fmt.Errorf("has groups %s %v for %d columns", r.DType, r.Shape, columns)
	}
	return &indices{r: r, most: groups}, nil
}

// make lists a weight in the place of its codes.
func (p *parts) make(name string, shape []int, dtype tensors.DType, how codes, alongRows bool) {
	cols := shape[len(shape)-1]
	rows := 1
	for _, d := range shape[:len(shape)-1] {
		rows *= d
	}
	s := &source{codes: how, rows: rows, cols: cols, dtype: dtype}
	if alongRows {
		s.main = p.main
	}
	p.b.made[p.main.Name] = tensors.Listing{Info: tensors.Info{Name: name, DType: dtype, Shape: shape}, Source: s}
}

// of is the dtype of weights with these scales.
func (b *builder) of(scale *tensors.Reader) tensors.DType {
	if scale.DType == tensors.F16 || scale.DType == tensors.BF16 {
		return scale.DType
	}
	return b.dtype
}

// scaled makes a weight of codes that are elements.
func (b *builder) scaled(name string) error {
	p, err := b.parts(name, name)
	if err != nil {
		return err
	}
	switch p.main.DType {
	case tensors.F8E4M3, tensors.F8E5M2, tensors.I8:
	case tensors.F64, tensors.F32, tensors.F16, tensors.BF16:
		return nil // a plain weight that happens to have a neighbour of such a name
	default:
		return fmt.Errorf("has codes of %s, which are not read", p.main.DType)
	}
	// What changes a weight beside its scale: the order in which columns were grouped, and what the layer's input is multiplied by.
	stem := strings.TrimSuffix(name, ".weight")
	for _, part := range []string{name + "_g_idx", stem + ".pre_quant_scale"} {
		if b.has(part) {
			return fmt.Errorf("has %s, which is not read beside codes of %s", part, p.main.DType)
		}
	}
	if len(p.main.Shape) < 1 {
		return fmt.Errorf("has codes of shape %v", p.main.Shape)
	}
	suffix := "_scale"
	if b.has(name + "_scale_inv") {
		suffix = "_scale_inv"
	}
	s := &scaled{codes: p.main, cols: p.main.Shape[len(p.main.Shape)-1]}
	if s.scale, err = p.grid(suffix, p.main.Shape, b.cfg); err != nil {
		return err
	}
	if b.has(name + "_zero_point") {
		if s.zero, err = p.grid("_zero_point", p.main.Shape, b.cfg); err != nil {
			return err
		}
		s.zero.exponent = false
	}
	p.make(name, p.main.Shape, b.of(s.scale.r), s, true)
	return nil
}

// packed makes a weight of compressed-tensors' packed integers, or of its four-bit floats.
func (b *builder) packed(name, stem string) error {
	info, _ := b.c.Lookup(name)
	if info.DType == tensors.U8 {
		return b.nibbles(name, stem, "_global_scale", true)
	}
	p, err := b.parts(name, stem)
	if err != nil {
		return err
	}
	shape, err := p.shape()
	if err != nil {
		return err
	}
	s, err := newPacked(p, shape, b.cfg)
	if err != nil {
		return err
	}
	p.make(stem, shape, b.of(s.scale.r), s, true)
	return nil
}

// shape reads the weight's shape, which the codes do not tell because rows are filled up.
func (p *parts) shape() ([]int, error) {
	r, err := p.needed("_shape")
	if err != nil {
		return nil, err
	}
	const most = 8 // dimensions
	if r.DType != tensors.I64 && r.DType != tensors.I32 || len(r.Shape) != 1 || r.Shape[0] > most {
		return nil, fmt.Errorf("has a shape of %s %v", r.DType, r.Shape)
	}
	data, err := r.Bytes(0, r.Info.Bytes(), nil)
	if err != nil {
		return nil, err
	}
	shape := make([]int, r.Shape[0])
	for i := range shape {
		n := int64(0)
		if r.DType == tensors.I64 {
			n = int64(le.Uint64(data[8*i:]))
		} else {
			n = int64(int32(le.Uint32(data[4*i:])))
		}
		if n < 1 || n > 1<<40 {
			return nil, fmt.Errorf("has weights of %d in a dimension", n)
		}
		shape[i] = int(n)
	}
	return shape, nil
}

// nibbles makes a weight of four-bit floats, two to a byte.
func (b *builder) nibbles(name, stem, global string, divide bool) error {
	p, err := b.parts(name, stem)
	if err != nil {
		return err
	}
	if p.main.DType != tensors.U8 || len(p.main.Shape) < 2 {
		return fmt.Errorf("has codes of %s %v", p.main.DType, p.main.Shape)
	}
	if part := strings.TrimSuffix(stem, ".weight") + ".pre_quant_scale"; b.has(part) { // the layer's input is multiplied by it
		return fmt.Errorf("has %s, which is not read", part)
	}
	shape := slices.Clone(p.main.Shape)
	shape[len(shape)-1] *= 2
	s := &fp4{codes: p.main, cols: shape[len(shape)-1], divide: divide}
	if s.scale, err = p.grid("_scale", shape, b.cfg); err != nil {
		return err
	}
	if s.global, err = p.optional(global); err != nil {
		return err
	}
	if s.global != nil && (s.global.Elems() != 1 || !s.global.DType.IsFloat()) {
		return fmt.Errorf("has a scale of %s %v for all of a matrix", s.global.DType, s.global.Shape)
	}
	p.make(stem, shape, b.dtype, s, true)
	return nil
}

// blocks makes a weight of gpt-oss: [experts, outputs, groups, 16] bytes of four-bit floats with an exponent for each group, which the
// model's class has as [experts, inputs, outputs].
func (b *builder) blocks(name, stem string) error {
	p, err := b.parts(name, stem)
	if err != nil {
		return err
	}
	scale, err := p.needed("_scales")
	if err != nil {
		return err
	}
	have := p.main.Shape
	if p.main.DType != tensors.U8 || scale.DType != tensors.U8 || len(have) != 4 || have[3] != 16 || !equal(scale.Shape, have[:3]) {
		return fmt.Errorf("has codes of %s %v and scales of %s %v", p.main.DType, have, scale.DType, scale.Shape)
	}
	outputs, inputs := have[1], have[2]*32
	g, err := newGrid(scale, []int{have[0], outputs, inputs}, 0, 32)
	if err != nil {
		return err
	}
	s := &across{codes: &fp4{codes: p.main, cols: inputs, scale: g}, rows: inputs, cols: outputs}
	p.make(stem, []int{have[0], inputs, outputs}, b.dtype, s, false)
	return nil
}

// columns makes a weight of GPTQ or AWQ.
func (b *builder) columns(name, stem string) error {
	p, err := b.parts(name, stem)
	if err != nil {
		return err
	}
	s, shape, err := newColumns(p, b.cfg)
	if err != nil {
		return err
	}
	p.make(stem+".weight", shape, b.of(s.scales), s, false)
	return nil
}

// bitsandbytes makes a weight of four-bit codes, or of bytes with a scale for each row.
func (b *builder) bitsandbytes(name string) error {
	stem, ok := strings.CutSuffix(name, ".weight")
	if !ok {
		return nil
	}
	switch {
	case b.has(name + ".absmax"):
		p, err := b.parts(name, name)
		if err != nil {
			return err
		}
		s, shape, dtype, err := newLookup(p)
		if err != nil {
			return err
		}
		p.make(name, shape, dtype, s, true)
	case b.has(stem + ".SCB"):
		p, err := b.parts(name, stem)
		if err != nil {
			return err
		}
		scale, err := p.needed(".SCB")
		if err != nil {
			return err
		}
		if p.main.DType != tensors.I8 || len(p.main.Shape) != 2 || !scale.DType.IsFloat() || scale.Elems() != int64(p.main.Shape[0]) {
			return fmt.Errorf("has codes of %s %v and scales of %s %v", p.main.DType, p.main.Shape, scale.DType, scale.Shape)
		}
		if err := p.rowMajor(); err != nil {
			return err
		}
		p.make(name, p.main.Shape, b.dtype, &int8Rows{p.main, p.main.Shape[1], scale}, true)
	}
	return nil
}
