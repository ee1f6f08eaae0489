package adapter

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// prefix is what peft puts before every module path in an adapter's file.
const prefix = "base_model.model."

// Target is a module that an adapter changes by low-rank factors, with the names of its tensors in the adapter's file.
type Target struct {
	Module
	Rank         int
	Alpha, Scale float64
	DoRA         bool
	A            string // [rank, in]; of an embedding [rank, vocabulary]
	B            string // [out, rank]; of an embedding [dim, rank]
	BiasB        string // bias of B [out], "" without lora_bias
	Magnitude    string // [out], "" without DoRA
}

// ShapeA returns the shape of A.
func (t *Target) ShapeA() []int { return []int{t.Rank, t.In} }

// ShapeB returns the shape of B.
func (t *Target) ShapeB() []int { return []int{t.Out, t.Rank} }

func newTarget(c *Config, m Module) Target {
	t := Target{Module: m, DoRA: c.DoRA}
	t.Rank, t.Alpha, t.Scale = c.Scale(m.Path)
	at := prefix + m.Path
	if m.Kind == Embedding {
		t.A, t.B = at+".lora_embedding_A", at+".lora_embedding_B"
	} else {
		t.A, t.B = at+".lora_A.weight", at+".lora_B.weight"
		if c.LoraBias {
			t.BiasB = at + ".lora_B.bias"
		}
	}
	if c.DoRA {
		t.Magnitude = at + ".lora_magnitude_vector"
	}
	return t
}

// Whole is a tensor that an adapter holds whole: a weight or bias of modules_to_save, or a bias that is trained.
type Whole struct {
	Module
	Key    string // in the adapter's file
	Tensor string // in the checkpoint
	Shape  []int
}

// DefaultTargets are the modules that peft takes when target_modules is null, by model_type; nil for other families.
func DefaultTargets(modelType string) []string {
	switch modelType {
	case "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "stablelm", "opt", "gptj", "gpt_neo":
		return []string{"q_proj", "v_proj"}
	case "gpt2", "gpt_bigcode":
		return []string{"c_attn"}
	case "bert", "roberta", "xlm-roberta", "electra":
		return []string{"query", "value"}
	case "gpt_neox", "bloom", "falcon", "chatglm":
		return []string{"query_key_value"}
	case "phi":
		return []string{"q_proj", "v_proj", "fc1", "fc2"}
	case "t5", "mt5":
		return []string{"q", "v"}
	}
	return nil
}

// headTasks are the tasks to which peft adds the names of heads to modules_to_save.
var headTasks = map[string][]string{
	"SEQ_CLS": {"classifier", "score"}, "TOKEN_CLS": {"classifier", "score"}, "QUESTION_ANS": {"qa_outputs"},
}

// Saved returns modules_to_save with the heads that the task adds.
func (c *Config) Saved() []string {
	out := slices.Clone(c.ModulesToSave)
	for _, head := range headTasks[c.TaskType] {
		if !slices.Contains(out, head) {
			out = append(out, head)
		}
	}
	return out
}

// Select returns the modules that the configuration targets, in the order of modules, by peft's rules: what exclude_modules
// or modules_to_save name is none; a pattern must match the whole path; a name must be the whole path, which no
// layers_to_transform restricts, or end it after a dot, in one of the layers_to_transform. No match at all is an error.
//
// With null target_modules the caller fills in DefaultTargets first, since the configuration does not know the family.
func Select(c *Config, modules []Module) ([]Target, error) {
	s, err := newSelection(c)
	if err != nil {
		return nil, err
	}
	var out []Target
	for _, m := range modules {
		if !s.hits(m) {
			continue
		}
		if m.Kind == Other {
			return nil, &Error{Where: "target_modules", Msg: fmt.Sprintf("%s is no linear map and no embedding, so it cannot be a target", m.Path), Hint: "put it into modules_to_save"}
		}
		if c.LoraBias && m.Kind == Embedding {
			return nil, &Error{Where: "lora_bias", Msg: fmt.Sprintf("the embedding %s can have no bias", m.Path), Hint: "leave it out of target_modules, or lora_bias"}
		}
		out = append(out, newTarget(c, m))
	}
	if len(out) == 0 {
		return nil, noMatch(c, modules)
	}
	return out, nil
}

// selection is a configuration's rules with their patterns compiled.
type selection struct {
	c       *Config
	exclude *regexp.Regexp
	saved   []*regexp.Regexp
	target  *regexp.Regexp
	layers  []*regexp.Regexp
}

// firstLayer finds the first numbered segment of a path, which is the layer; later ones are experts and the like.
var firstLayer = regexp.MustCompile(`^.*?\.[^.]*\.(\d+)\.`)

func newSelection(c *Config) (*selection, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	s := &selection{c: c}
	var err error
	if c.Exclude.Regex != "" {
		if s.exclude, err = compile("exclude_modules", c.Exclude.Regex); err != nil {
			return nil, err
		}
	}
	if s.saved, err = savedPatterns(c); err != nil {
		return nil, err
	}
	if c.Targets.Regex != "" {
		if s.target, err = compile("target_modules", c.Targets.Regex); err != nil {
			return nil, err
		}
	}
	for _, p := range c.LayersPattern {
		re, err := regexp.Compile(`^(?:|.*?\.)` + p + `\.(\d+)\.`)
		if err != nil {
			return nil, &Error{Where: "layers_pattern", Msg: quoted(p) + " is no pattern for the name of a layer list", Hint: `write for example "layers"`}
		}
		s.layers = append(s.layers, re)
	}
	return s, nil
}

// savedPatterns compiles what modules_to_save match: a module of that name and everything inside of it.
func savedPatterns(c *Config) ([]*regexp.Regexp, error) {
	var out []*regexp.Regexp
	for _, m := range c.Saved() {
		re, err := regexp.Compile(`^(?:|.*\.)` + m + `(?:$|\..*$)`)
		if err != nil {
			return nil, &Error{Where: "modules_to_save", Msg: quoted(m) + " is no name of a module"}
		}
		out = append(out, re)
	}
	return out, nil
}

func matchAny(list []*regexp.Regexp, path string) bool {
	return slices.ContainsFunc(list, func(re *regexp.Regexp) bool { return re.MatchString(path) })
}

// endsWith tells whether a path is the name or ends with it after a dot.
func endsWith(path, name string) bool { return path == name || strings.HasSuffix(path, "."+name) }

func (s *selection) hits(m Module) bool {
	path := m.Path
	if s.exclude != nil && s.exclude.MatchString(path) || slices.ContainsFunc(s.c.Exclude.Names, func(n string) bool { return endsWith(path, n) }) {
		return false
	}
	if matchAny(s.saved, path) {
		return false
	}
	switch {
	case s.c.Targets.AllLinear:
		return (m.Kind == Linear || m.Kind == Conv1D) && !m.OutputHead
	case s.target != nil:
		return s.target.MatchString(path)
	case slices.Contains(s.c.Targets.Names, path):
		return true // peft does not look at layers_to_transform then
	}
	if !slices.ContainsFunc(s.c.Targets.Names, func(n string) bool { return endsWith(path, n) }) {
		return false
	}
	if len(s.c.LayersToTransform) == 0 {
		return true
	}
	layer, ok := s.layer(path)
	return ok && slices.Contains(s.c.LayersToTransform, layer)
}

func (s *selection) layer(path string) (int, bool) {
	list := s.layers
	if len(list) == 0 {
		list = []*regexp.Regexp{firstLayer}
	}
	for _, re := range list {
		if m := re.FindStringSubmatch(path); m != nil {
			n, err := strconv.Atoi(m[len(m)-1])
			return n, err == nil
		}
	}
	return 0, false
}

// noMatch explains why nothing is targeted, with the names that the model has.
func noMatch(c *Config, modules []Module) error {
	var names []string
	for _, m := range modules {
		if m.Kind == Other {
			continue
		}
		if last := m.Path[strings.LastIndexByte(m.Path, '.')+1:]; !slices.Contains(names, last) {
			names = append(names, last)
		}
	}
	what := "[" + strings.Join(c.Targets.Names, ", ") + "]"
	hint := ""
	switch {
	case c.Targets.AllLinear:
		what = `"all-linear"`
	case c.Targets.Regex != "":
		what = quoted(c.Targets.Regex)
	case c.Targets.IsZero():
		return &Error{Where: "target_modules", Msg: fmt.Sprintf("is null, and there is no default for this family; this model has %s", some(names)), Hint: `name modules, or use "all-linear"`}
	case len(c.LayersToTransform) > 0 && slices.ContainsFunc(c.Targets.Names, func(n string) bool { return slices.Contains(names, n) }):
		return &Error{Where: "layers_to_transform", Msg: fmt.Sprintf("none of the layers %v has a module of target_modules %s", c.LayersToTransform, what)}
	}
	for _, n := range c.Targets.Names {
		if near := nearest(n, names); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
			break
		}
	}
	return &Error{Msg: fmt.Sprintf("no module matches target_modules %s; this model has %s", what, some(names)), Hint: hint}
}

// saves tells whether peft wraps the module of a path for an entry of modules_to_save: the path, or that of a module around it,
// ends with the entry. Unlike a target, the entry may begin within a component: norm is every input_layernorm too.
func saves(path, entry string) bool {
	for {
		if strings.HasSuffix(path, entry) {
			return true
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return false
		}
		path = path[:i]
	}
}

// SelectWhole returns the tensors that the adapter holds whole: those of the modules that modules_to_save name, and the
// biases of bias: all (every bias) or lora_only (those of targets). A modules_to_save entry without a module in the model is
// an error, except for the heads that the task adds by itself.
func SelectWhole(c *Config, modules []Module, targets []Target) ([]Whole, error) {
	wrapped := map[string]bool{}
	for i := range targets {
		wrapped[targets[i].Path] = true
	}
	entries := c.Saved()
	used := make([]bool, len(entries))
	var out []Whole
	for _, m := range modules {
		at := prefix + m.Path
		saved := false
		for i, entry := range entries {
			if saves(m.Path, entry) {
				used[i], saved = true, true
				if wrapped[m.Path] {
					return nil, &Error{Where: "modules_to_save", Msg: fmt.Sprintf("%s ends with %s and is a target too", m.Path, entry), Hint: "write more of the name"}
				}
			}
		}
		switch {
		case saved:
			out = append(out, Whole{m, at + ".weight", m.Weight, m.Shape})
			if m.Bias {
				out = append(out, Whole{m, at + ".bias", m.BiasName, []int{biasLen(m)}})
			}
		case !m.Bias || c.Bias == "none" || c.Bias == "":
		case wrapped[m.Path]:
			out = append(out, Whole{m, at + ".base_layer.bias", m.BiasName, []int{biasLen(m)}})
		case c.Bias == "all":
			out = append(out, Whole{m, at + ".bias", m.BiasName, []int{biasLen(m)}})
		}
	}
	for i, name := range entries {
		if !used[i] && slices.Contains(c.ModulesToSave, name) && !slices.Contains(headTasks[c.TaskType], name) {
			return nil, &Error{Where: "modules_to_save", Msg: fmt.Sprintf("no module of this model is called %s", name)}
		}
	}
	return out, nil
}

func biasLen(m Module) int {
	if m.Kind == Other && len(m.Shape) > 0 {
		return m.Shape[len(m.Shape)-1]
	}
	return m.Out
}
