package foreign

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/internal/strictyaml"
)

// Tool is a program whose configurations are read.
type Tool struct {
	// Name for --from.
	Name string
	// Base is the key that every configuration of the tool has.
	Base string
	// convert takes what it knows.
	convert func(c *converter)
	// because tells why a key is dropped: a key, or the beginning of one that ends in "*".
	because map[string]string
}

var tools = []*Tool{axolotl, torchtune, mlx, llamaFactory, trl}

// Names lists the tools.
func Names() []string {
	names := make([]string, len(tools))
	for i, t := range tools {
		names[i] = t.Name
	}
	return names
}

// Options are what a file does not tell.
type Options struct {
	// Layers gives the number of layers of a checkpoint; 0 if it cannot be told. May be nil.
	Layers func(checkpoint string) int
}

// Dropped is a key that has not been converted.
type Dropped struct {
	Key  string `json:"key"`
	Line int    `json:"line"`
	Why  string `json:"why"`
}

// Result is a converted configuration.
type Result struct {
	// YAML is our configuration, with what should be looked at as comments.
	YAML []byte
	// Dropped are the keys that have no counterpart, in the order of the file.
	Dropped []Dropped
	// Notes are what a person has to do or to know.
	Notes []string
}

// Convert reads the configuration of a tool. The result is one that config.Parse takes. Faults of the file are *config.Error.
func Convert(tool, file string, data []byte, o Options) (*Result, error) {
	i := slices.IndexFunc(tools, func(t *Tool) bool { return t.Name == tool })
	if i < 0 {
		return nil, &config.Error{File: file, Msg: fmt.Sprintf("unknown tool %s; it is one of %s", strictyaml.Quoted(tool), strictyaml.Listed(Names()))}
	}
	t := tools[i]
	root, fault := strictyaml.ReadDocument(file, data, strictyaml.Kind{Noun: "configuration", Empty: "give a configuration of " + t.Name})
	if fault != nil {
		return nil, fault
	}
	c := &converter{Decoder: &strictyaml.Decoder{File: file, Noun: "configuration"}, tool: t, options: o, index: map[string]int{}, ours: map[string]setting{}}
	c.flatten(c.Open(root, strictyaml.Node{}), "")
	if len(c.Errs) > 0 {
		return nil, strictyaml.Join(c.Errs)
	}
	if !c.has(t.Base) {
		return nil, &config.Error{File: file, Pos: strictyaml.PosOf(root), Msg: fmt.Sprintf("%s is missing, which every configuration of %s has; is this one of another tool?", t.Base, t.Name)}
	}
	t.convert(c)
	if len(c.Errs) > 0 {
		return nil, strictyaml.Join(c.Errs)
	}
	r := &Result{Dropped: c.dropped(), Notes: c.notes}
	r.YAML = c.write(filepath.Base(file), r)
	if _, err := config.Parse(file+" (converted)", r.YAML, nil); err != nil {
		return nil, fmt.Errorf("%s: what it says cannot be said in a configuration of ours: %w", file, err)
	}
	return r, nil
}

// converter holds a foreign file, flattened, and what has been made of it.
type converter struct {
	*strictyaml.Decoder
	tool    *Tool
	options Options
	entries []entry
	index   map[string]int // of entries, by path
	ours    map[string]setting
	notes   []string
}

// entry is a value of theirs: a scalar, or a list of scalars.
type entry struct {
	path  string // a.b[0].c
	value strictyaml.Node
	key   strictyaml.Pos
	taken bool
	why   string // why it is dropped, if a converter has looked at it
}

// setting is a value of ours, as it is written.
type setting struct{ text, comment string }

// Bounds of a configuration. An alias within what it refers to makes a document that has no end.
const (
	maxLevels = 32
	maxValues = 10000
)

// flatten lists the values below a node. Empty values say nothing and are left out.
func (c *converter) flatten(x strictyaml.Node, path string) {
	switch {
	case strings.Count(path, ".")+strings.Count(path, "[") > maxLevels || len(c.entries) >= maxValues:
		if len(c.Errs) == 0 {
			c.Errorf(x, "more than %d levels or %d values; is this a configuration of %s?", maxLevels, maxValues, c.tool.Name)
		}
	case x.Kind == yaml.MappingNode || path == "":
		fields, _ := c.Mapping(x, "a configuration")
		for _, f := range fields {
			if len(c.Errs) > 0 {
				return
			}
			at := f.Key
			if path != "" {
				at = path + "." + f.Key
			}
			c.flatten(f.Value, at)
		}
	case x.Kind == yaml.SequenceNode && hasStructure(x):
		items, _ := c.Items(x, path)
		for i, item := range items {
			if len(c.Errs) > 0 {
				return
			}
			c.flatten(item, fmt.Sprintf("%s[%d]", path, i))
		}
	case strictyaml.IsNull(x), x.Kind == yaml.SequenceNode && len(x.Content) == 0:
	default:
		c.index[path] = len(c.entries)
		c.entries = append(c.entries, entry{path: path, value: x, key: x.Pos})
	}
}

func hasStructure(x strictyaml.Node) bool {
	return slices.ContainsFunc(x.Content, func(n *yaml.Node) bool {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		return n.Kind != yaml.ScalarNode
	})
}

// has says whether the file has a value at a path, or values below it.
func (c *converter) has(path string) bool {
	if _, ok := c.index[path]; ok {
		return true
	}
	return slices.ContainsFunc(c.entries, func(e entry) bool {
		return strings.HasPrefix(e.path, path+".") || strings.HasPrefix(e.path, path+"[")
	})
}

// take gives the value at a path and notes that it is dealt with.
func (c *converter) take(path string) (strictyaml.Node, bool) {
	i, ok := c.index[path]
	if !ok {
		return strictyaml.Node{}, false
	}
	c.entries[i].taken = true
	return c.entries[i].value, true
}

// drop notes why the value at a path is dropped.
func (c *converter) drop(path, why string, args ...any) {
	if i, ok := c.index[path]; ok {
		c.entries[i].taken, c.entries[i].why = false, fmt.Sprintf(why, args...)
	}
}

// text takes a word, whatever its YAML type.
func (c *converter) text(path string) (string, bool) {
	x, ok := c.take(path)
	if !ok {
		return "", false
	}
	if x.Kind != yaml.ScalarNode {
		c.Errorf(x, "%s must be a single value; here is %s", path, strictyaml.Describe(x))
		return "", false
	}
	return c.expand(x.Value), true
}

// expand carries out OmegaConf's ${key}, which refers to another value of the file.
func (c *converter) expand(text string) string {
	for range 8 {
		begin := strings.Index(text, "${")
		if begin < 0 {
			return text
		}
		length := strings.IndexByte(text[begin:], '}')
		if length < 0 {
			return text
		}
		i, ok := c.index[text[begin+2:begin+length]]
		if !ok || c.entries[i].value.Kind != yaml.ScalarNode || len(text) > 1<<12 {
			return text
		}
		c.entries[i].taken = true
		text = text[:begin] + c.entries[i].value.Value + text[begin+length+1:]
	}
	return text
}

func (c *converter) boolean(path string) (value, ok bool) {
	x, ok := c.take(path)
	if !ok {
		return false, false
	}
	if x.Kind == yaml.ScalarNode {
		if s := strictyaml.Meaning(x.Node); s.Form == strictyaml.FormBool {
			return s.Bool, true
		}
	}
	c.Errorf(x, "%s must be true or false; here is %s", path, strictyaml.Describe(x))
	return false, false
}

func (c *converter) number(path string) (float64, bool) {
	x, ok := c.take(path)
	if !ok {
		return 0, false
	}
	if x.Kind == yaml.ScalarNode {
		switch s := strictyaml.Meaning(x.Node); s.Form {
		case strictyaml.FormInt:
			return float64(s.Int), true
		case strictyaml.FormFloat:
			return s.Float, true
		case strictyaml.FormText:
			if f, ok := strictyaml.NumericText(s.Text); ok {
				return f, true
			}
		}
	}
	c.Errorf(x, "%s must be a number; here is %s", path, strictyaml.Describe(x))
	return 0, false
}

// words takes a list, or one word, or words with commas between them.
func (c *converter) words(path string) ([]string, bool) {
	x, ok := c.take(path)
	if !ok {
		return nil, false
	}
	var list []string
	if x.Kind == yaml.ScalarNode {
		for w := range strings.SplitSeq(x.Value, ",") {
			if w = strings.TrimSpace(w); w != "" {
				list = append(list, w)
			}
		}
		return list, true
	}
	for _, n := range x.Content {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		list = append(list, n.Value)
	}
	return list, true
}

// set writes a value of ours.
func (c *converter) set(path, value string) { c.ours[path] = setting{text: value} }

// setDefault writes the tool's default where the file says nothing and ours is another.
func (c *converter) setDefault(path, value string) {
	if _, ok := c.ours[path]; !ok {
		c.ours[path] = setting{value, "the default of " + c.tool.Name}
	}
}

// note tells a person something.
func (c *converter) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// asText carries text over.
func (c *converter) asText(theirs, ours string) {
	if v, ok := c.text(theirs); ok {
		c.set(ours, strictyaml.WriteText(v))
	}
}

// asNumber carries a number over.
func (c *converter) asNumber(theirs, ours string) {
	if v, ok := c.number(theirs); ok {
		c.set(ours, number(v))
	}
}

// asBool carries a boolean over.
func (c *converter) asBool(theirs, ours string) {
	if v, ok := c.boolean(theirs); ok {
		c.set(ours, fmt.Sprint(v))
	}
}

// asWords carries a list over.
func (c *converter) asWords(theirs, ours string) {
	if list, ok := c.words(theirs); ok {
		c.set(ours, flow(list))
	}
}

// asNumbers carries a list of numbers over.
func (c *converter) asNumbers(theirs, ours string) {
	list, ok := c.words(theirs)
	if !ok {
		return
	}
	for i, w := range list {
		v, ok := strictyaml.NumericText(w)
		if !ok {
			x, _ := c.take(theirs)
			c.Errorf(x, "%s must be a list of numbers; here is %s among them", theirs, strictyaml.Quoted(w))
			return
		}
		list[i] = number(v)
	}
	c.set(ours, "["+strings.Join(list, ", ")+"]")
}

// number writes whole numbers without a point and others with one.
func number(v float64) string {
	if v == float64(int64(v)) && v > -1e15 && v < 1e15 {
		return fmt.Sprint(int64(v))
	}
	return strictyaml.Scalar{Form: strictyaml.FormFloat, Float: v}.String()
}

// share writes a number that must be read as a share of all steps.
func share(v float64) string {
	return strictyaml.Scalar{Form: strictyaml.FormFloat, Float: v}.String()
}

func flow(words []string) string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = strictyaml.WriteText(w)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// dropped lists what has not been taken.
func (c *converter) dropped() []Dropped {
	var list []Dropped
	for _, e := range c.entries {
		if e.taken {
			continue
		}
		why := e.why
		if why == "" {
			why = c.because(e.path)
		}
		list = append(list, Dropped{e.path, e.key.Line, why})
	}
	return list
}

// because tells why a key is dropped.
func (c *converter) because(path string) string {
	if why := c.tool.because[path]; why != "" {
		return why
	}
	best := ""
	why := "nothing here corresponds to it"
	for _, table := range []map[string]string{c.tool.because, everywhere} {
		for key, text := range table {
			if begin, ok := strings.CutSuffix(key, "*"); (ok && strings.HasPrefix(path, begin) || key == path) && len(key) > len(best) {
				best, why = key, text
			}
		}
	}
	return why
}

// everywhere are reasons that hold for every tool.
var everywhere = map[string]string{
	"wandb*": "nothing is sent anywhere; log.plot draws the curves", "use_wandb": "nothing is sent anywhere; log.plot draws the curves",
	"mlflow*": "nothing is sent anywhere; log.plot draws the curves", "report_to": "nothing is sent anywhere; log.plot draws the curves",
	"hub_*": "nothing is sent anywhere", "push_to_hub": "nothing is sent anywhere",
	"deepspeed*": "devices share the work by train.replicas", "fsdp*": "devices share the work by train.replicas",
	"flash_attention": "attention is chosen by the compiler", "flash_attn": "attention is chosen by the compiler",
	"xformers_attention": "attention is chosen by the compiler", "sdp_attention": "attention is chosen by the compiler",
	"attn_implementation": "attention is chosen by the compiler", "torch_compile*": "every step is compiled",
	"load_in_8bit": "the base is kept in model.dtype, not in fewer bits", "load_in_4bit": "the base is kept in model.dtype, not in fewer bits",
	"trust_remote_code": "no code of a model is run", "tf32": "the compiler chooses how products are computed",
	"resume_from_checkpoint": "a run is resumed from the command line",
	"fp16":                   "there is no float16; model.dtype is bfloat16 or float32",
}
