package method

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// BasePolicy says what a base model is to a method.
type BasePolicy uint8

// What a method does with a base model.
const (
	BaseIgnored  BasePolicy = iota // a configured base that is an input is an input like any other
	BaseOptional                   // with a base the method works on task vectors
	BaseRequired                   // the recipe must name a base model
)

// String returns the policy as a word for documentation.
func (p BasePolicy) String() string {
	return [...]string{"ignored", "optional", "required"}[p]
}

// Kind is the type of a parameter's value.
type Kind uint8

// The kinds of values.
const (
	Float  Kind = iota // float64; gradients interpolate
	Int                // integer; a gradient must hit integers
	Bool               // gradients step
	Text               // a word of the method's
	Pair               // two numbers, [a, b]: no gradient
	Either             // a number, or a word of the method's
)

// String returns the kind's name in recipes' terms.
func (k Kind) String() string {
	return [...]string{"float", "int", "bool", "text", "pair", "float or text"}[k]
}

// Param describes one parameter that a method reads from a recipe.
type Param struct {
	Name     string // one that ends with ".*" stands for all names with what is before the *
	Kind     Kind
	PerInput bool // one value per input model; otherwise one per output tensor
	ForBase  bool // with PerInput: the base model needs a value too
	Required bool
	Default  any // float64, int, bool or string; nil: unset unless the recipe sets it
	Doc      string
}

// Citation names the source of a published method.
type Citation struct {
	Text string // authors, year, "title", place
	URL  string
}

// Action is what happens to an optional tensor that only some inputs have.
type Action uint8

// What to do about a tensor that some models lack.
const (
	ActMerge Action = iota // merge over the inputs that have it
	ActCopy                // exactly one input has it: pass it through
	ActDrop                // leave it out of the output, with a warning
	ActFail                // refuse
)

// Method is one way to merge tensors.
type Method struct {
	Name    string // as users write it in merge_method
	Title   string // display name
	Summary string // one sentence
	Formula string // plain text, one line per step
	Paper   Citation
	Base    BasePolicy
	Min     int // fewest inputs, base included
	Max     int // most inputs, base included; 0: no limit
	Params  []Param
	Aligns  bool // models are aligned to the first before the merge, also without align: in the recipe

	// Reads is about how often the method reads each input element; the plan's estimate of traffic uses it.
	Reads int

	// Missing decides about an optional tensor present in only some of the inputs. nil: merge over those present if the
	// base (where required) is among them, else fail.
	Missing func(present int, hasBase bool) Action

	// Check refuses parameter values that cannot work, before any weight is read. nil: nothing to check.
	Check func(t *Task) error

	// Draws lists how many random values each input consumes, in the order of consumption, for the peer's sequential
	// generator. nil: the method is deterministic.
	Draws func(t *Task) []Draw

	// Whole says that the method sees models as wholes and needs data: package merge runs it, and Merge is nil.
	Whole bool

	// Blends says that a method that sees models as wholes makes of each tensor a sum of the inputs': the plan lists its tensors as for
	// any other, and inputs and output stream. Without it the method holds all models in memory.
	Blends bool

	// Selects says that what the method makes depends on what evaluate: held_out measures.
	Selects bool

	// Localizes says that inputs may keep only the largest entries of their task vectors over the whole model (SparsityParam): package
	// merge finds the cuts before the merge and hands them over by Task.SetCut. DefaultSparsity is the share of dense fine-tunes for
	// which the recipe gives none; 0: all that differs from the base.
	Localizes       bool
	DefaultSparsity float64

	// Matrix says that the method treats tensors of two axes as matrices and reads them whole (Task.Read).
	Matrix bool

	// Memory is how many bytes Merge holds of a tensor at once, beside the chunks of kernels. nil: of a method that treats
	// matrices as such, all inputs and two matrices more in float32; of any other, nothing.
	Memory func(t *Task) int64

	// Merge makes the output tensor by running kernels on t.
	Merge func(t *Task) error
}

// Holds is how many bytes merging t holds at once beside the chunks of kernels. Tasks that hold something run one after the other
// where there is no memory for several.
func (m *Method) Holds(t *Task) int64 {
	switch {
	case m.Memory != nil:
		return m.Memory(t)
	case m.Matrix:
		return 4 * t.N * int64(t.Inputs+2)
	}
	return 0
}

// Draw is a block of consecutive values of the peer's sequential random generator: Count 32-bit outputs (two per value
// when Wide) for Input's stream.
type Draw struct {
	Input int
	Count int64
	Wide  bool // float64 probabilities: two outputs a value, high word first
}

// Param returns the parameter called name, or nil.
func (m *Method) Param(name string) *Param {
	for i := range m.Params {
		p := &m.Params[i]
		if stem, all := strings.CutSuffix(p.Name, "*"); p.Name == name || all && len(name) > len(stem) && strings.HasPrefix(name, stem) {
			return p
		}
	}
	return nil
}

// ParamNames lists the names of all parameters in their documented order.
func (m *Method) ParamNames() []string {
	names := make([]string, len(m.Params))
	for i, p := range m.Params {
		names[i] = p.Name
	}
	return names
}

// MissingAction applies Missing, or its default, to a tensor that present of the inputs have.
func (m *Method) MissingAction(present int, hasBase bool) Action {
	if m.Missing != nil {
		return m.Missing(present, hasBase)
	}
	if m.Base == BaseRequired && !hasBase {
		return ActFail
	}
	return ActMerge
}

// registry maps names to methods; filled once from methods, the explicit list in all.go.
var registry = func() map[string]*Method {
	out := make(map[string]*Method, len(methods)+len(wholes))
	for _, m := range slices.Concat(methods, wholes) {
		if _, twice := out[m.Name]; twice {
			panic(fmt.Sprintf("merge method %q is registered twice", m.Name))
		}
		out[m.Name] = m
	}
	for alias, name := range aliases {
		if out[name] == nil || out[alias] != nil {
			panic(fmt.Sprintf("merge method alias %q of %q is wrong", alias, name))
		}
		out[alias] = out[name]
	}
	return out
}()

// Get returns the method that recipes call name.
func Get(name string) (*Method, bool) {
	m, ok := registry[name]
	return m, ok
}

// Names lists every name that merge_method accepts, aliases included, sorted.
func Names() []string {
	names := make([]string, 0, len(registry))
	for n := range registry {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// All lists the methods that merge tensor by tensor, in their documented order.
func All() []*Method { return methods }

// Wholes lists the methods that see models as wholes.
func Wholes() []*Method { return wholes }

// Aliases maps the second names to the methods' own.
func Aliases() map[string]string { return aliases }
