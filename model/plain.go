package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// PlainDescription is a network without attention that config.json writes down layer by layer: a multilayer perceptron
// ("model_type": "mlp") or a convolutional network ("convnet"). docs/models.md has the form. Layouts are torch's: images are
// [B,C,H,W], weights of linear layers (out, in), of convolutions (out, in/groups, kh, kw).
type PlainDescription struct {
	ModelType string
	Input     []int // of one example: [features], or [channels, height, width]
	Layers    []PlainLayer
	Output    []int // of one example
	Loss      string
}

// The losses of plain networks.
const (
	CrossEntropy = "cross_entropy" // of classes, from logits
	SquaredError = "mse"           // the mean over an example's outputs
)

// PlainLayer is one layer.
type PlainLayer struct {
	Type                              string
	Name                              string // prefix of its tensors, without the dot
	In, Out                           []int  // shapes of one example before and after it
	Bias                              bool
	Kernel, Stride, Padding, Dilation [2]int
	Groups                            int
	Eps, Momentum, Slope              float64
	CountPadding, Affine              bool
	Layers, Shortcut                  []PlainLayer // of a residual block
}

// Bounds of a description.
const (
	maxPlainLayers = 1 << 12
	maxPlainDepth  = 8
	maxPlainDim    = 1 << 24
	maxPlainElems  = 1 << 34 // of one example at any layer, and of one weight
)

// pair is a number, or one for the height and one for the width.
type pair [2]int

func (p *pair) UnmarshalJSON(data []byte) error {
	var one int
	if json.Unmarshal(data, &one) == nil {
		*p = pair{one, one}
		return nil
	}
	var two []int
	if err := json.Unmarshal(data, &two); err != nil || len(two) != 2 {
		return fmt.Errorf("%s must be a number, or two: one for the height and one for the width", data)
	}
	*p = pair{two[0], two[1]}
	return nil
}

// plainJSON is a layer as config.json has it.
type plainJSON struct {
	Type         string            `json:"type"`
	Name         string            `json:"name"`
	Out          int               `json:"out"`
	Bias         *bool             `json:"bias"`
	Kernel       *pair             `json:"kernel"`
	Stride       *pair             `json:"stride"`
	Padding      *pair             `json:"padding"`
	Dilation     *pair             `json:"dilation"`
	Groups       *int              `json:"groups"`
	Eps          *float64          `json:"eps"`
	Momentum     *float64          `json:"momentum"`
	Slope        *float64          `json:"slope"`
	P            *float64          `json:"p"`
	CountPadding *bool             `json:"count_include_pad"`
	Affine       *bool             `json:"affine"`
	Layers       []json.RawMessage `json:"layers"`
	Shortcut     []json.RawMessage `json:"shortcut"`
}

// plainTypes are the types of layers with the keys that each takes beside "type".
var plainTypes = map[string][]string{
	"linear":          {"name", "out", "bias"},
	"conv2d":          {"name", "out", "bias", "kernel", "stride", "padding", "dilation", "groups"},
	"batch_norm":      {"name", "eps", "momentum", "affine"},
	"layer_norm":      {"name", "eps", "bias", "affine"},
	"max_pool":        {"kernel", "stride", "padding"},
	"avg_pool":        {"kernel", "stride", "padding", "count_include_pad"},
	"global_avg_pool": {},
	"flatten":         {},
	"dropout":         {"p"},
	"leaky_relu":      {"slope"},
	"residual":        {"layers", "shortcut"},
	"relu":            {}, "gelu": {}, "gelu_tanh": {}, "silu": {}, "tanh": {}, "sigmoid": {},
}

// IsPlain reports whether a config.json describes a plain network.
func IsPlain(config []byte) bool {
	var c struct {
		ModelType string `json:"model_type"`
	}
	return json.Unmarshal(config, &c) == nil && (c.ModelType == "mlp" || c.ModelType == "convnet")
}

// DescribePlain reads the config.json of a plain network. The error is a *ConfigError.
func DescribePlain(data []byte) (*PlainDescription, error) {
	var c struct {
		ModelType string            `json:"model_type"`
		Input     []int             `json:"input_shape"`
		Layers    []json.RawMessage `json:"layers"`
		Loss      string            `json:"loss"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, &ConfigError{Msg: fmt.Sprintf("cannot be read: %v", err)}
	}
	bad := func(format string, args ...any) (*PlainDescription, error) {
		return nil, &ConfigError{Msg: fmt.Sprintf(format, args...)}
	}
	if !IsPlain(data) {
		return bad(`model_type %q is no plain network; mlp and convnet are`, c.ModelType)
	}
	if len(c.Input) != 1 && len(c.Input) != 3 {
		return bad(`"input_shape" must be [features] or [channels, height, width], not %v`, c.Input)
	}
	if _, ok := plainElems(c.Input); !ok {
		return bad(`"input_shape" %v must be positive numbers that an example can have`, c.Input)
	}
	if c.ModelType == "convnet" && len(c.Input) != 3 {
		return bad(`the "input_shape" of a convnet must be [channels, height, width], not %v`, c.Input)
	}
	d := &PlainDescription{ModelType: c.ModelType, Input: c.Input, Loss: c.Loss}
	if d.Loss == "" {
		d.Loss = CrossEntropy
	}
	if d.Loss != CrossEntropy && d.Loss != SquaredError {
		return bad(`loss %q is not known; %s and %s are`, d.Loss, CrossEntropy, SquaredError)
	}
	if len(c.Layers) == 0 {
		return bad(`"layers" must list the layers`)
	}
	b := &plainBuilder{names: map[string]bool{}}
	var err error
	if d.Layers, d.Output, err = b.list(c.Layers, c.Input, "layers"); err != nil {
		return nil, err
	}
	if d.Loss == CrossEntropy && len(d.Output) != 1 {
		return bad(`the last layer gives %v for an example; classes need one number each, so end with "flatten" or "global_avg_pool" and a "linear" layer`, d.Output)
	}
	return d, nil
}

// plainElems multiplies dimensions out; ok is false when one is not positive or the product too large.
func plainElems(shape []int) (n int, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 1 || d > maxPlainDim || n > maxPlainElems/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// plainBuilder works out shapes layer by layer.
type plainBuilder struct {
	names map[string]bool
	count int
	depth int
}

// list reads layers one after the other. at says where they are, for messages.
func (b *plainBuilder) list(raw []json.RawMessage, shape []int, at string) (out []PlainLayer, end []int, err error) {
	for i, r := range raw {
		where := fmt.Sprintf("%s[%d]", at, i)
		l, err := b.layer(r, shape, where)
		if err != nil {
			var c *ConfigError
			if !errors.As(err, &c) {
				err = &ConfigError{Msg: where + ": " + err.Error()}
			}
			return nil, nil, err
		}
		out, shape = append(out, l), l.Out
	}
	return out, shape, nil
}

// layer reads one layer that takes examples of a shape.
func (b *plainBuilder) layer(raw json.RawMessage, shape []int, at string) (PlainLayer, error) {
	var none PlainLayer
	if b.count++; b.count > maxPlainLayers {
		return none, fmt.Errorf("there are more than %d layers", maxPlainLayers)
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return none, fmt.Errorf(`must be an object like {"type": "relu"}`)
	}
	keys, known := plainTypes[head.Type]
	if !known {
		var list []string
		for k := range plainTypes {
			list = append(list, k)
		}
		slices.Sort(list)
		return none, fmt.Errorf("type %q is not known; %s are", head.Type, strings.Join(list, ", "))
	}
	var present map[string]json.RawMessage
	if err := json.Unmarshal(raw, &present); err != nil {
		return none, err
	}
	for k := range present {
		if k != "type" && !slices.Contains(keys, k) {
			return none, fmt.Errorf("%s does not take %q; it takes %s", head.Type, k, orNothing(keys))
		}
	}
	var j plainJSON
	if err := json.Unmarshal(raw, &j); err != nil {
		return none, err
	}
	l := PlainLayer{Type: j.Type, Name: j.Name, In: shape, Out: shape, Bias: j.Bias == nil || *j.Bias, Affine: j.Affine == nil || *j.Affine,
		Kernel: [2]int{1, 1}, Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1, Eps: 1e-5, Momentum: 0.1, Slope: 0.01, CountPadding: j.CountPadding == nil || *j.CountPadding}
	for _, p := range []struct {
		from *pair
		to   *[2]int
	}{{j.Kernel, &l.Kernel}, {j.Stride, &l.Stride}, {j.Padding, &l.Padding}, {j.Dilation, &l.Dilation}} {
		if p.from != nil {
			*p.to = *p.from
		}
	}
	if strings.HasSuffix(l.Type, "_pool") && j.Stride == nil {
		l.Stride = l.Kernel // as torch has it
	}
	for _, p := range []struct {
		from *float64
		to   *float64
	}{{j.Eps, &l.Eps}, {j.Momentum, &l.Momentum}, {j.Slope, &l.Slope}} {
		if p.from != nil {
			*p.to = *p.from
		}
	}
	if j.Groups != nil {
		l.Groups = *j.Groups
	}
	if slices.Contains(keys, "name") {
		switch {
		case l.Name == "":
			return none, fmt.Errorf(`%s needs a "name", the prefix of its tensors`, l.Type)
		case b.names[l.Name]:
			return none, fmt.Errorf("two layers have the name %q", l.Name)
		}
		b.names[l.Name] = true
	}
	if l.Type == "residual" {
		if b.depth++; b.depth > maxPlainDepth {
			return none, fmt.Errorf("residual blocks are nested more than %d deep", maxPlainDepth)
		}
		defer func() { b.depth-- }()
		var err error
		var side []int
		if l.Layers, l.Out, err = b.list(j.Layers, shape, at+".layers"); err != nil {
			return none, err
		}
		if l.Shortcut, side, err = b.list(j.Shortcut, shape, at+".shortcut"); err != nil {
			return none, err
		}
		if !slices.Equal(l.Out, side) {
			return none, fmt.Errorf("the layers of the residual block end with %v, its shortcut with %v; they are added, so give it a shortcut that ends alike", l.Out, side)
		}
		return l, nil
	}
	return l, l.shapes(j.Out)
}

func orNothing(keys []string) string {
	if len(keys) == 0 {
		return "nothing but \"type\""
	}
	return strings.Join(keys, ", ")
}

// shapes works out what a layer gives, and refuses what it cannot take.
func (l *PlainLayer) shapes(out int) error {
	image := len(l.In) == 3
	switch l.Type {
	case "linear":
		if len(l.In) != 1 {
			return fmt.Errorf(`linear takes a row of features, but %v comes in; put "flatten" or "global_avg_pool" before it`, l.In)
		}
		if out < 1 || out > maxPlainDim {
			return fmt.Errorf(`linear needs "out", the number of features that it gives`)
		}
		l.Out = []int{out}
		return l.weightFits()
	case "flatten":
		n, _ := plainElems(l.In)
		if n > maxPlainDim {
			return fmt.Errorf("flatten makes %d features, more than a layer can have", n)
		}
		l.Out = []int{n}
	case "conv2d", "max_pool", "avg_pool", "global_avg_pool":
		if !image {
			return fmt.Errorf("%s takes images [channels, height, width], but %v comes in", l.Type, l.In)
		}
		return l.windowed(out)
	case "batch_norm", "layer_norm":
		if !(l.Eps >= 0) || !(l.Momentum >= 0 && l.Momentum <= 1) {
			return fmt.Errorf("%s: eps %v must not be negative, and momentum %v must be from 0 to 1", l.Type, l.Eps, l.Momentum)
		}
	}
	return nil
}

// windowed works out the shape after a layer that moves a window over images.
func (l *PlainLayer) windowed(out int) error {
	c, h, w := l.In[0], l.In[1], l.In[2]
	if l.Type == "global_avg_pool" {
		l.Out = []int{c}
		return nil
	}
	size := [2]int{h, w}
	for i := range size {
		if l.Kernel[i] < 1 || l.Stride[i] < 1 || l.Dilation[i] < 1 || l.Padding[i] < 0 || max(l.Kernel[i], l.Stride[i], l.Dilation[i], l.Padding[i]) > 1<<16 {
			return fmt.Errorf("%s: kernel %v, stride %v and dilation %v must be positive, padding %v not negative", l.Type, l.Kernel, l.Stride, l.Dilation, l.Padding)
		}
		if l.Type != "conv2d" && 2*l.Padding[i] > l.Kernel[i] {
			return fmt.Errorf("%s: padding %v is more than half of the kernel %v", l.Type, l.Padding, l.Kernel)
		}
		reach := l.Dilation[i]*(l.Kernel[i]-1) + 1
		if size[i]+2*l.Padding[i] < reach {
			return fmt.Errorf("%s: a kernel of %d does not fit into images of %v", l.Type, reach, l.In[1:])
		}
		size[i] = (size[i]+2*l.Padding[i]-reach)/l.Stride[i] + 1
	}
	if l.Type == "conv2d" {
		switch {
		case out < 1 || out > maxPlainDim:
			return fmt.Errorf(`conv2d needs "out", the number of channels that it gives`)
		case l.Groups < 1 || c%l.Groups != 0 || out%l.Groups != 0:
			return fmt.Errorf("conv2d: %d channels in and %d out do not divide into %d groups", c, out, l.Groups)
		case l.Stride != [2]int{1, 1} && l.Dilation != [2]int{1, 1}:
			return fmt.Errorf("conv2d: stride %v and dilation %v cannot be computed together", l.Stride, l.Dilation)
		}
		c = out
	}
	l.Out = []int{c, size[0], size[1]}
	if _, ok := plainElems(l.Out); !ok {
		return fmt.Errorf("%s gives %v for an example, which is more than can be computed", l.Type, l.Out)
	}
	return l.weightFits()
}

// weightFits refuses a weight that no machine holds.
func (l *PlainLayer) weightFits() error {
	for _, t := range l.tensors() {
		if _, ok := plainElems(t.Shape); !ok {
			return fmt.Errorf("%s would need a weight of %v, which is more than can be computed", l.Type, t.Shape)
		}
	}
	return nil
}

// tensors returns the tensors of a layer that train.
func (l *PlainLayer) tensors() []TensorSpec {
	var list []TensorSpec
	add := func(shape []int, width int) {
		list = append(list, TensorSpec{l.Name + ".weight", shape})
		if l.Bias {
			list = append(list, TensorSpec{l.Name + ".bias", []int{width}})
		}
	}
	switch l.Type {
	case "linear":
		add([]int{l.Out[0], l.In[0]}, l.Out[0])
	case "conv2d":
		add([]int{l.Out[0], l.In[0] / l.Groups, l.Kernel[0], l.Kernel[1]}, l.Out[0])
	case "batch_norm":
		if l.Affine {
			add([]int{l.In[0]}, l.In[0])
		}
	case "layer_norm":
		if l.Affine {
			list = append(list, TensorSpec{l.Name + ".weight", l.In})
			if l.Bias {
				list = append(list, TensorSpec{l.Name + ".bias", l.In})
			}
		}
	}
	return list
}

// walk visits layers in the order of computation, those of residual blocks included.
func walk(layers []PlainLayer, visit func(l *PlainLayer)) {
	for i := range layers {
		visit(&layers[i])
		walk(layers[i].Layers, visit)
		walk(layers[i].Shortcut, visit)
	}
}

// Tensors returns the tensors that train.
func (d *PlainDescription) Tensors() (list []TensorSpec) {
	walk(d.Layers, func(l *PlainLayer) { list = append(list, l.tensors()...) })
	return list
}

// Statistics returns the running means and variances of batch norms, which do not train.
func (d *PlainDescription) Statistics() (list []TensorSpec) {
	walk(d.Layers, func(l *PlainLayer) {
		if l.Type == "batch_norm" {
			list = append(list, TensorSpec{l.Name + ".running_mean", []int{l.In[0]}}, TensorSpec{l.Name + ".running_var", []int{l.In[0]}})
		}
	})
	return list
}

// ReadPlainDescription reads the config.json of a directory.
func ReadPlainDescription(dir string) (*PlainDescription, error) {
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &ConfigError{File: path, Msg: fmt.Sprintf("cannot be read: %v; a plain network is computed from its config.json and its weights", err)}
	}
	d, err := DescribePlain(data)
	var c *ConfigError
	if errors.As(err, &c) {
		c.File = path
	}
	return d, err
}
