package plan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/vocabulary"
	"github.com/mergekit/mergekit/tensors"
)

// Options change how a recipe is understood.
type Options struct {
	Arith              method.Arith
	RNG                method.RNG
	Seed               uint64
	Strict             bool        // warnings about the recipe are errors
	AllowCrimes        bool        // inputs may have different architectures
	TruncateVocabulary bool        // narrow vocabulary tensors to the smallest input
	KeepUndescribed    bool        // copy tensors of the base (or first model) that its architecture's description does not name
	FuseExperts        bool        // write fused expert tensors even where the inputs have one tensor per expert
	Fetch              Fetch       `json:"-"` // brings models from elsewhere; nil: what is in the cache of this machine counts, and nobody is asked
	Raw                Raw         // inputs are files of tensors, not models; "": they are models
	OpenAdapter        OpenAdapter `json:"-"` // for references of the form base+adapter; nil: they are refused
	OpenStage          OpenStage   `json:"-"` // for references to other recipes of a file; nil: there are none
	Close              bool        // drop the checkpoints' mappings after planning (for callers that only print the plan)
}

// Plan is a recipe made concrete.
type Plan struct {
	Recipe   *recipe.Recipe
	Method   *method.Method
	Options  Options
	Models   []*Model // base first when there is one, then in order of appearance
	Donor    *Model   // whose configuration and side files the output gets
	Speller  *Model   `json:"-"` // whose tokenizer the output gets where it is none of Models: no tensor of it is opened; nil otherwise
	Arch     *arch.Arch
	Tasks    []*Task        // in ascending order of the inputs' names, the order of the peer's random sequence
	Config   map[string]any // keys of config.json that the merge determines (dotted)
	Aligned  *Aligned       // nil: no model is aligned
	Warnings []string
	// Vocabulary is what the output's tokens are, if the recipe asks for a tokenizer; nil: those of the donor.
	Vocabulary *vocabulary.Vocabulary
	Template   string     // the output's chat template; "": that of the donor
	TextDir    string     `json:"-"` // a temporary directory with the output's tokenizer, which Close removes; "": none was needed
	Searched   []Searched // what the recipe's search moves, one for each of its parameters

	Shared map[string]any // parameters of a method that sees models as wholes; nil for others
	made   []byte         // the config.json that such a method has written

	before []string // warnings from before the tensors were enumerated
}

// Input is one input tensor of a task.
type Input struct {
	Model  *Model
	Pieces []string // names in the checkpoint; several when expert tensors are read as one
	DType  tensors.DType
	Gather *Gather // how its rows are put together; nil: it is read as it is
	fused  string  // the name that the architecture gives the tensor
	shape  []int   // of the tensor as the model has it
}

// Name is the tensor's name, or the first piece's.
func (in *Input) Name() string { return in.Pieces[0] }

// Task is one output tensor, or one fused expert tensor that is written in pieces.
type Task struct {
	Name     string
	Shape    []int
	Pieces   []tensors.Info // what is written: one tensor, or the pieces in memory order
	Inputs   []Input
	Base     int // index among Inputs, or -1
	Copy     bool
	Check    bool // Copy: all inputs must hold the same bytes
	DType    tensors.DType
	D        tensors.DType // promoted dtype of the inputs, or the recipe's dtype
	Shared   map[string]any
	PerInput []map[string]any
	rows     int // vocabulary rows that are merged when truncated; 0: all
	order    string

	depth      float64 // place among the layers, from 0 to 1; NaN: there are none
	vocabulary bool    // an axis is that of the vocabulary
}

// Elems returns the number of elements.
func (t *Task) Elems() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n
}

// Build makes the plan of a recipe. It opens every model; Plan.Close lets go of them.
func Build(r *recipe.Recipe, o Options) (p *Plan, err error) {
	b := &builder{Plan: &Plan{Recipe: r, Options: o, Config: map[string]any{}}}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	for _, w := range r.Warnings {
		b.Warnings = append(b.Warnings, fmt.Sprintf("%s:%d:%d: %s", w.File, w.Pos.Line, w.Pos.Col, w.Msg))
	}
	steps := []func() error{b.chooseMethod, b.checkParameterNames, b.searched, b.openModels, b.chooseArch, b.alignment, b.vocabulary, b.template, b.keepWarnings, b.normalise, b.checkShape, b.enumerate, b.undescribed, b.config}
	if m, ok := method.Get(r.Method); ok && m.Whole {
		wholes := []func() error{b.chooseMethod, b.checkParameterNames, b.searched, b.openModels, b.chooseArch, b.alignment, b.vocabulary, b.template, b.whole}
		if m.Blends { // its tensors are known before it has run
			wholes = append(wholes, b.keepWarnings, b.normalise, b.checkShape, b.enumerate, b.undescribed, b.config)
		}
		steps = wholes
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if o.Strict && len(b.Warnings) > 0 {
		return nil, fmt.Errorf("%s (refused because of --strict)", b.Warnings[0])
	}
	b.Warnings = append(b.Warnings, b.notes...)
	b.sortTasks()
	return b.Plan, nil
}

func (b *builder) sortTasks() {
	sort.SliceStable(b.Tasks, func(i, j int) bool { return b.Tasks[i].order < b.Tasks[j].order })
}

// keepWarnings notes the warnings so far, so that planning anew repeats no others.
func (b *builder) keepWarnings() error {
	b.before = slices.Clone(b.Warnings)
	return nil
}

// Close lets go of the checkpoints.
func (p *Plan) Close() {
	if p.TextDir != "" {
		_ = os.RemoveAll(p.TextDir) // a few files among other temporary ones
	}
	for _, m := range p.Models {
		m.Close()
	}
}

// Outputs lists what the checkpoint will hold, in the order of the tasks.
func (p *Plan) Outputs() []tensors.Info {
	var out []tensors.Info
	for _, t := range p.Tasks {
		out = append(out, t.Pieces...)
	}
	return out
}

// BytesWritten is the size of the output's tensors.
func (p *Plan) BytesWritten() int64 {
	n := int64(0)
	for _, i := range p.Outputs() {
		n += i.Bytes()
	}
	return n
}

// Widest returns the largest number of inputs that a task has, with what stages that are computed on the way hold counted as inputs.
func (p *Plan) Widest() int {
	n := 0
	for _, t := range p.Tasks {
		n = max(n, len(t.Inputs))
	}
	return n + p.nested()
}

// Holds returns the most bytes that the method holds of a tensor at once, beside the chunks that stream.
func (p *Plan) Holds() int64 {
	n := int64(0)
	for _, t := range p.Tasks {
		if !t.Copy {
			mt := t.MethodTask(p)
			n = max(n, p.Method.Holds(&mt))
		}
	}
	return n
}

// BytesRead is an estimate of the traffic from the inputs: methods with several passes read an input more than once, the
// later times mostly from memory.
func (p *Plan) BytesRead() int64 {
	n := int64(0)
	for _, t := range p.Tasks {
		passes := int64(1)
		if !t.Copy {
			passes = int64(max(1, p.Method.Reads))
		}
		for _, in := range t.Inputs {
			n += passes * t.Elems() * int64(in.DType.Size())
		}
	}
	return n
}

// Elements counts the output's elements.
func (p *Plan) Elements() int64 {
	n := int64(0)
	for _, t := range p.Tasks {
		n += t.Elems()
	}
	return n
}

// builder holds a plan in the making.
type builder struct {
	*Plan
	modules []module
	numbers []int // that names end with; see endings
	zeros   bool  // tokens without a row in any model have been told of
	notes   []string
}

// module is a module of the output with its slices, after normalisation: `models` has become one slice.
type module struct {
	desc   *arch.Module
	slices []slice
	params recipe.Params
	stack  bool // given as slices: the layer count is theirs
}

type slice struct {
	sources []source
	base    *recipe.ModelRef
	params  recipe.Params
	pos     recipe.Pos
}

type source struct {
	model  *Model
	params recipe.Params
	from   int // first layer
	layers int
	pos    recipe.Pos
}

func (b *builder) errorf(pos recipe.Pos, format string, args ...any) error {
	return &recipe.Error{File: b.Recipe.File, Pos: pos, Msg: fmt.Sprintf(format, args...)}
}

func (b *builder) warnf(format string, args ...any) {
	b.Warnings = append(b.Warnings, fmt.Sprintf(format, args...))
}

func (b *builder) chooseMethod() error {
	m, ok := method.Get(b.Recipe.Method)
	if !ok {
		hint := "`mergekit methods` lists them all"
		if near := recipe.Nearest(b.Recipe.Method, method.Names()); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return b.errorf(b.Recipe.MethodPos, "unknown merge method %q; %s", b.Recipe.Method, hint)
	}
	b.Method = m
	return nil
}

func (p *Plan) recipeDir() string { return filepath.Dir(p.Recipe.File) }

func (b *builder) resolver() resolver {
	return resolver{recipeDir: b.recipeDir(), fetch: b.Options.Fetch, openAdapter: b.Options.OpenAdapter, base: b.Recipe.Base, stage: b.Options.OpenStage,
		raw: b.Options.Raw != ""}
}

func (b *builder) openModels() error {
	res := b.resolver()
	for _, ref := range b.Recipe.References() {
		m, err := res.open(ref)
		if m != nil {
			b.Models = append(b.Models, m) // also after an error, so that it is closed
		}
		if e := (*FetchError)(nil); errors.As(err, &e) { // its cause decides what kind of failure it is
			return fmt.Errorf("%s:%d:%d: %w", b.Recipe.File, ref.Pos.Line, ref.Pos.Col, err)
		}
		if err != nil {
			return b.errorf(ref.Pos, "%s", err)
		}
	}
	if len(b.Models) == 0 {
		return b.errorf(b.Recipe.Pos, "the recipe names no model")
	}
	b.Donor = b.Models[0]
	return nil
}

// model returns the opened model of a reference.
func (b *builder) model(ref recipe.ModelRef) *Model {
	for _, m := range b.Models {
		if m.Ref.Same(ref) {
			return m
		}
	}
	return nil
}

// chooseArch finds one description for all models: a built-in one, or one inferred from the tensors' names.
func (b *builder) chooseArch() error {
	if b.Options.Raw != "" {
		return b.rawArch()
	}
	var first *arch.Arch
	described := true
	for _, m := range b.Models {
		a, ok := arch.Lookup(m.Config)
		if !ok {
			described = false
			break
		}
		switch {
		case first == nil:
			first = a
		case a.Name != first.Name && !b.Options.AllowCrimes:
			cannot := "models of different architectures cannot be merged (--allow-crimes tries, pairing tensors by their place in the description)"
			if b.Recipe.Align != nil {
				cannot = "models of different architectures have no map between them, so they cannot be aligned"
			}
			return b.errorf(m.Ref.Pos, "%s is a %s model and %s is %s; %s", b.Models[0].Name(), first.Name, m.Name(), a.Name, cannot)
		}
	}
	sources := make([]arch.Source, len(b.Models))
	configs := make([]arch.Config, len(b.Models))
	for i, m := range b.Models {
		sources[i], configs[i] = m.Checkpoint, m.Config
	}
	if described {
		missing, err := first.Unfit(sources, configs)
		if err != nil {
			return b.errorf(b.Models[0].Ref.Pos, "%s", err)
		}
		if len(missing) == 0 {
			b.Arch = first
			return nil
		}
		b.warnf("the description of %s does not fit: no model has %s; the architecture is inferred from the tensors' names instead", first.Name, missing[0])
	}
	a, err := arch.Infer(sources, configs)
	if err != nil {
		return b.errorf(b.Models[0].Ref.Pos, "%s", err)
	}
	b.Arch = a
	return nil
}

// graphFloat tells whether a dtype takes part in arithmetic.
func graphFloat(d tensors.DType) bool { return d.IsFloat() }

// GraphDType maps a stored dtype to the one that graphs promote and round to.
func GraphDType(d tensors.DType) dtypes.DType {
	switch d {
	case tensors.F64:
		return dtypes.Float64
	case tensors.F16:
		return dtypes.Float16
	case tensors.BF16:
		return dtypes.BFloat16
	}
	return dtypes.Float32
}

// parseDType maps a recipe's dtype name to a stored dtype.
func parseDType(name string) (tensors.DType, bool) {
	switch name {
	case "float64":
		return tensors.F64, true
	case "float32":
		return tensors.F32, true
	case "float16":
		return tensors.F16, true
	case "bfloat16":
		return tensors.BF16, true
	case "float8_e4m3fn":
		return tensors.F8E4M3, true
	case "float8_e5m2":
		return tensors.F8E5M2, true
	case "int64":
		return tensors.I64, true
	}
	return 0, false
}
