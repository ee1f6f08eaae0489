package moe

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// PlanOptions change how a configuration is understood.
type PlanOptions struct {
	Layout      string // LayoutExperts (default) or LayoutFused
	Seed        uint64 // of noise and of routers that are drawn
	Useless     bool   // also experts that are all one model
	AllowCrimes bool   // models of different model types
	Models      plan.Options
}

// Part is a run of elements of an output tensor: a tensor of a model, zeros, or rows of a router.
type Part struct {
	Model  *plan.Model // nil for rows of a router and for zeros
	Tensor string
	Expert int     // whose it is; -1: of no expert. Shared experts count from 0 too
	Shared bool    // Expert counts shared experts
	Scale  float64 // factor; 1: none
	Noise  float64 // standard deviation; 0: none
	Router bool    // rows of a router: all experts' or, with Shared, the shared expert's
	elems  int64
	stream string // names the noise, the same in every layout
}

// Task is one output tensor.
type Task struct {
	tensors.Info
	Layer int // -1 outside of layers
	Parts []Part
}

// Plan is a configuration made concrete.
type Plan struct {
	Config   *Config
	Options  PlanOptions
	Family   string // of the output, as people call it
	Models   []*plan.Model
	Base     *plan.Model
	Layers   int
	Hidden   int // width of the hidden states
	Width    int // of an expert
	DType    tensors.DType
	Tasks    []*Task
	JSON     []byte // config.json
	Warnings []string
	embed    string // name of the embedding in the base
}

// Outputs lists the tensors of the output.
func (p *Plan) Outputs() []tensors.Info {
	list := make([]tensors.Info, len(p.Tasks))
	for i, t := range p.Tasks {
		list[i] = t.Info
	}
	return list
}

// Bytes is the size of the output's tensors.
func (p *Plan) Bytes() int64 {
	n := int64(0)
	for _, t := range p.Tasks {
		n += t.Bytes()
	}
	return n
}

// Parameters counts the output's elements, and those that one token meets.
func (p *Plan) Parameters() (all, active int64) {
	for _, t := range p.Tasks {
		for _, part := range t.Parts {
			all += part.elems
			if part.Expert < 0 || part.Shared {
				active += part.elems
			}
		}
	}
	routed := int64(p.Layers) * 3 * int64(p.Hidden) * int64(p.Width)
	return all, active + routed*int64(p.Config.PerToken)
}

// Close lets go of the models.
func (p *Plan) Close() {
	for _, m := range p.Models {
		m.Close()
	}
}

// builder holds a plan in the making.
type builder struct {
	c        *Config
	o        PlanOptions
	models   []*plan.Model
	base     *plan.Model
	arch     *arch.Arch // of the base
	module   *arch.Module
	family   *family
	layers   int
	hidden   int
	width    int
	tied     bool // the base has no head of its own
	warnings []string
}

func (b *builder) warnf(format string, args ...any) {
	b.warnings = append(b.warnings, fmt.Sprintf(format, args...))
}

// Build makes the plan of a configuration from headers alone. The caller closes it. Errors about configuration and models are
// *recipe.Error.
func Build(c *Config, o PlanOptions) (p *Plan, err error) {
	b := &builder{c: c, o: o}
	defer func() {
		if err != nil {
			for _, m := range b.models {
				m.Close()
			}
		}
	}()
	for _, w := range c.Warnings {
		b.warnings = append(b.warnings, w.String())
	}
	for _, step := range []func() error{b.checkUse, b.open, b.describe, b.checkModels, b.choose, b.checkLayout} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	p = &Plan{Config: c, Options: o, Family: b.family.name, Models: b.models, Base: b.base, Layers: b.layers, Hidden: b.hidden, Width: b.width}
	if p.DType, err = b.dtype(); err != nil {
		return nil, err
	}
	if p.Tasks, err = b.tasks(p); err != nil {
		return nil, err
	}
	if p.JSON, err = b.configJSON(p.DType); err != nil {
		return nil, c.errorf(c.Base.Pos, "%s", err)
	}
	if n := len(c.Experts); n&(n-1) != 0 {
		b.warnf("%d experts are no power of two, which some programs that run mixtures ask for", n)
	}
	p.Warnings = b.warnings
	return p, nil
}

// checkUse refuses a mixture whose experts are one and the same, unless that is meant.
func (b *builder) checkUse() error {
	c := b.c
	if b.o.Useless || c.random() || len(c.Experts) < 2 {
		return nil
	}
	for _, e := range c.Experts {
		if !e.Model.Same(c.Experts[0].Model) || e.Noise != 0 {
			return nil
		}
	}
	return c.errorf(c.Experts[0].Pos, "all experts are %s, so a mixture of them computes what that model does; list different models, or say --i-understand-this-is-not-useful-without-training", c.Experts[0].Model)
}

func (b *builder) open() error {
	for _, ref := range b.c.models() {
		m, err := plan.OpenModel(ref, filepath.Dir(b.c.File), b.o.Models)
		if e := (*plan.FetchError)(nil); errors.As(err, &e) { // its cause decides what kind of failure it is
			return fmt.Errorf("%s:%s: %w", b.c.File, ref.Pos, err)
		}
		if err != nil {
			return b.c.errorf(ref.Pos, "%s", err)
		}
		b.models = append(b.models, m)
		if m.Config == nil {
			return b.c.errorf(ref.Pos, "model %s: has no config.json, which says what kind of model it is", ref)
		}
	}
	b.base = b.models[0]
	return nil
}

// of is the opened model of a reference.
func (b *builder) of(ref recipe.ModelRef) *plan.Model {
	for _, m := range b.models {
		if m.Ref.Same(ref) {
			return m
		}
	}
	return nil
}

func (b *builder) modelTypes() []string {
	var list []string
	for _, m := range b.models {
		if t := m.Config.ModelType(); !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	return list
}

// has tells whether a model has a tensor of a name.
func has(m *plan.Model) func(string) bool {
	return func(name string) bool { _, ok := m.Lookup(name); return ok }
}

// describe finds the base's description and what it says.
func (b *builder) describe() error {
	c := b.base.Config
	pos := b.c.Base.Pos
	known := func(t string) bool {
		return slices.ContainsFunc(families, func(f *family) bool { return slices.Contains(f.inputs, t) })
	}
	for _, m := range b.models {
		if t := m.Config.ModelType(); !known(t) {
			return b.c.errorf(m.Ref.Pos, "%s is of model_type %q; mixtures can be made of llama, mistral, qwen2 and qwen3 models, whose blocks existing mixtures share", m.Name(), t)
		}
		if list := m.Config.Architectures(); len(list) > 0 && !strings.HasSuffix(list[0], "ForCausalLM") {
			return b.c.errorf(m.Ref.Pos, "%s is a %s; mixtures are made of causal language models", m.Name(), list[0])
		}
	}
	a, ok := arch.Lookup(c)
	if !ok || len(a.Modules) != 1 {
		return b.c.errorf(pos, "%s: no description fits its config.json (architectures %v, model_type %q)", b.base.Name(), c.Architectures(), c.ModelType())
	}
	b.arch, b.module = a, &a.Modules[0]
	var err error
	if b.layers, err = b.module.Layers(c); err != nil {
		return b.c.errorf(pos, "%s: %s", b.base.Name(), err)
	}
	if b.layers == 0 {
		return b.c.errorf(pos, "%s has no layers", b.base.Name())
	}
	for _, n := range []struct {
		key string
		to  *int
	}{{"hidden_size", &b.hidden}, {"intermediate_size", &b.width}} {
		v, ok := c.Int(n.key)
		if !ok || v < 1 || v > 1<<28 {
			return b.c.errorf(pos, "%s: config.json has no usable %q", b.base.Name(), n.key)
		}
		*n.to = v
	}
	_, head := b.base.Lookup("lm_head.weight")
	b.tied = !head
	return nil
}

// layerNames lists what layers of the base have beside their feed-forward blocks, by names in the layer.
func (b *builder) layerNames() []string {
	seen := map[string]bool{}
	for i := range b.layers {
		prefix := fmt.Sprintf("model.layers.%d.", i)
		for _, n := range b.base.Checkpoint.Names() {
			if rest, ok := strings.CutPrefix(n, prefix); ok && !strings.HasPrefix(rest, "mlp.") && !arch.Recomputed(n) {
				seen[rest] = true
			}
		}
	}
	list := make([]string, 0, len(seen))
	for n := range seen {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}

// checkModels compares the experts with the base.
func (b *builder) checkModels() error {
	kin := func(t string) string { return strings.Replace(t, "mistral", "llama", 1) } // the same block
	for _, m := range b.models {
		pos := m.Ref.Pos
		if a, o := b.base.Config.ModelType(), m.Config.ModelType(); kin(a) != kin(o) && !b.o.AllowCrimes {
			return b.c.errorf(pos, "%s is a %s model and the base %s is %s; their hidden states have nothing in common (--allow-crimes puts them together all the same)", m.Name(), o, b.base.Name(), a)
		}
		if what := sizes(b.base.Config, m.Config); what != "" {
			return b.c.errorf(pos, "%s does not fit the base %s: %s", m.Name(), b.base.Name(), what)
		}
		if x, y := activation(b.base.Config), activation(m.Config); x != y {
			return b.c.errorf(pos, "%s has the activation %s and the base %s; a mixture has one activation", m.Name(), y, x)
		}
	}
	for _, e := range slices.Concat(b.c.Experts, b.c.Shared) {
		m := b.of(e.Model)
		for i := range b.layers {
			for k, p := range projectionNames {
				name := fmt.Sprintf("model.layers.%d.mlp.%s.weight", i, p)
				info, ok := m.Lookup(name)
				want := b.shape(k)
				switch {
				case !ok:
					return b.c.errorf(e.Pos, "%s has no tensor %s, which its config.json promises; is a shard missing?", m.Name(), name)
				case !slices.Equal(info.Shape, want):
					return b.c.errorf(e.Pos, "%s: %s has shape %v, an expert of this base has %v", m.Name(), name, info.Shape, want)
				case !info.DType.IsFloat():
					return b.c.errorf(e.Pos, "%s: %s has dtype %s; experts are made of floats", m.Name(), name, info.DType)
				}
				if bias := strings.TrimSuffix(name, "weight") + "bias"; has(m)(bias) {
					return b.c.errorf(e.Pos, "%s has %s; experts of these architectures have no biases", m.Name(), bias)
				}
			}
		}
	}
	return nil
}

// shape is that of an expert's matrix.
func (b *builder) shape(projection int) []int {
	if projection == 2 {
		return []int{b.hidden, b.width}
	}
	return []int{b.width, b.hidden}
}

func (b *builder) checkLayout() error {
	switch b.o.Layout {
	case "", LayoutExperts:
	case LayoutFused:
		if !b.family.fused {
			return b.c.errorf(b.c.archPos, "%s has no fused layout; leave --layout out", b.family.name)
		}
	default:
		return b.c.errorf(recipe.Pos{}, "layout %q is unknown; there are %s and %s", b.o.Layout, LayoutExperts, LayoutFused)
	}
	return nil
}

// dtype is that of the output's floats.
func (b *builder) dtype() (tensors.DType, error) {
	name := b.c.DType
	if name == "" {
		// The base's: what most of its bytes have.
		bytes := map[tensors.DType]int64{}
		var best tensors.DType
		for _, n := range b.base.Checkpoint.Names() {
			if info, _ := b.base.Checkpoint.Lookup(n); info.DType.IsFloat() {
				if bytes[info.DType] += info.Bytes(); bytes[info.DType] > bytes[best] {
					best = info.DType
				}
			}
		}
		switch best {
		case tensors.F64, tensors.F32, tensors.F16, tensors.BF16:
			return best, nil
		}
		return tensors.BF16, nil
	}
	for _, d := range []tensors.DType{tensors.F64, tensors.F32, tensors.F16, tensors.BF16, tensors.F8E4M3, tensors.F8E5M2} {
		if d.TorchName() == name {
			return d, nil
		}
	}
	return 0, b.c.errorf(recipe.Pos{}, "dtype %s cannot be written; use float32, bfloat16 or float16", name)
}
