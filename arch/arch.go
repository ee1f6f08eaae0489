package arch

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxLayers bounds layer counts from configurations, so that a wrong number is an error and not an endless list.
const maxLayers = 100_000

// Weight is one tensor of a description, or one template of tensors in a layer.
type Weight struct {
	Name       string   // whole name, the module's prefix included; variables in braces until Expand
	VocabAxis  int      // axis of the vocabulary, -1 if there is none
	Optional   bool     // models of the family may lack it
	Aliases    []string // other names of the same tensor, tried in order after Name
	Tied       []string // tensors that stand in for it, tried after the aliases
	ForceDType string   // dtype in the safetensors spelling that the tensor keeps, "" if the recipe decides
}

// Expand puts a layer's number and the number of layers into name, aliases and tied names. Weights outside the layers take
// any layer number. It never changes w.
func (w Weight) Expand(layer, layers int) Weight {
	w.Name = expand(w.Name, layer, layers)
	w.Aliases = expandAll(w.Aliases, layer, layers)
	w.Tied = expandAll(w.Tied, layer, layers)
	return w
}

func expandAll(names []string, layer, layers int) []string {
	for i, n := range names {
		if strings.IndexByte(n, '{') < 0 {
			continue
		}
		names = slices.Clone(names)
		for j := i; j < len(names); j++ {
			names[j] = expand(names[j], layer, layers)
		}
		break
	}
	return names
}

// expand replaces the variables of one name. A doubled brace is a brace of the name itself.
func expand(s string, layer, layers int) string {
	if strings.IndexByte(s, '{') < 0 {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '{')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		if strings.HasPrefix(s, "{{") {
			b.WriteByte('{')
			s = s[2:]
			continue
		}
		end := strings.IndexByte(s, '}')
		if v, ok := variable(s[:end+1], layer, layers); ok {
			b.WriteString(strconv.Itoa(v))
		} else {
			b.WriteString(s[:end+1])
		}
		if end < 0 { // a lone brace: nothing to replace from here on
			b.WriteString(s)
			return b.String()
		}
		s = s[end+1:]
	}
}

func variable(v string, layer, layers int) (int, bool) {
	switch v {
	case "{i}":
		return layer, true
	case "{i+1}":
		return layer + 1, true
	case "{i-1}":
		return layer - 1, true
	case "{2i}":
		return 2 * layer, true
	case "{L}":
		return layers, true
	case "{L+1}":
		return layers + 1, true
	case "{L-1}":
		return layers - 1, true
	}
	return 0, false
}

// escape doubles the braces of a tensor's real name, so that Expand gives it back unchanged.
func escape(name string) string { return strings.ReplaceAll(name, "{", "{{") }

// Module is a part of a model with its own stack of layers.
type Module struct {
	Name   string // default for families with a single module
	Prefix string // what all names of the module begin with; already part of them
	Pre    []Weight
	Layer  []Weight // template of a layer
	Post   []Weight

	// Later is the template of the layers from LaterFrom on where a family changes its blocks after the first layers
	// (dense, then mixture of experts); nil where all layers are alike. LayerAt chooses.
	Later     []Weight
	LaterFrom int

	LayersKey   string // dotted key of config.json that counts the layers, "" if no key does
	FixedLayers int    // number of layers whatever the configuration says; -1: from the configuration
}

// LayerAt returns the template of a layer, which callers must not change.
func (m *Module) LayerAt(layer int) []Weight {
	if m.Later != nil && layer >= m.LaterFrom {
		return m.Later
	}
	return m.Layer
}

// Layers returns how many layers the module has in a model with this configuration. It fails where the configuration has no
// such key or the number is none that a model can have.
func (m *Module) Layers(c Config) (int, error) {
	if m.FixedLayers >= 0 {
		return m.FixedLayers, nil
	}
	key, ok := m.CountKey(c)
	if !ok {
		return 0, fmt.Errorf("config.json has no number under %q, so the layers of module %s cannot be counted; add the key to the model's config.json", m.LayersKey, m.Name)
	}
	n, _ := c.Int(key)
	if n < 0 || n > maxLayers {
		return 0, fmt.Errorf("config.json: %q is %d; a number of layers is expected", key, n)
	}
	return n, nil
}

// CountKey returns the dotted key under which this configuration really keeps the module's layer count: LayersKey, or one
// of the spellings that transformers maps to it. It is the key to change when the output has another number of layers.
func (m *Module) CountKey(c Config) (string, bool) {
	if m.LayersKey == "" {
		return "", false
	}
	for _, k := range countKeyVariants(m.LayersKey) {
		if _, ok := c.Int(k); ok {
			return k, true
		}
	}
	return "", false
}

// Expanded lists every weight of the module for a number of layers: pre, each layer in turn, post, with all variables
// replaced.
func (m *Module) Expanded(layers int) []Weight {
	out := make([]Weight, 0, len(m.Pre)+layers*len(m.Layer)+len(m.Post))
	for _, w := range m.Pre {
		out = append(out, w.Expand(0, layers))
	}
	for i := range layers {
		for _, w := range m.LayerAt(i) {
			out = append(out, w.Expand(i, layers))
		}
	}
	for _, w := range m.Post {
		out = append(out, w.Expand(0, layers))
	}
	return out
}

// Arch describes a family of models, or the checkpoints that it was inferred from.
type Arch struct {
	Name      string   // file name of the description; "inferred" for descriptions made from names
	ModelType string   // model_type of config.json
	Classes   []string // class names in architectures of config.json
	Modules   []Module
	TagAlong  []string // files to copy with the output
	VocabKey  string   // dotted key of config.json with the vocabulary size
	Inferred  bool

	rules *rules // what a configuration adds; nil where nothing depends on it
}

// Module finds a module by name.
func (a *Arch) Module(name string) (*Module, bool) {
	for i := range a.Modules {
		if a.Modules[i].Name == name {
			return &a.Modules[i], true
		}
	}
	return nil, false
}

// Resolve finds a weight (expanded) in a checkpoint: its name, then its aliases, then its tied names, then the pieces that a
// fused or renamed tensor is made of. Several names are pieces in memory order, see FusedShape. ok is false where the
// checkpoint has nothing of it; an incomplete set of pieces is an error.
func (a *Arch) Resolve(w Weight, has func(string) bool) (names []string, ok bool, err error) {
	for _, list := range [][]string{{w.Name}, w.Aliases, w.Tied} {
		for _, n := range list {
			if has(n) {
				return []string{n}, true, nil
			}
		}
	}
	for _, n := range append([]string{w.Name}, w.Aliases...) {
		if names, ok, err = a.Pieces(n, has); ok || err != nil {
			return names, ok, err
		}
	}
	return nil, false, nil
}

// Match compares the description with a checkpoint's names: missing are the required weights that the checkpoint does not
// have, undescribed the tensors that no weight accounts for, in the order of names. It fails where the configuration does
// not tell the number of layers or an expert's tensor is missing.
func (a *Arch) Match(c Config, names []string) (missing, undescribed []string, err error) {
	present := make(map[string]bool, len(names))
	for _, n := range names {
		present[n] = true
	}
	has := func(n string) bool { return present[n] }
	used := make(map[string]bool, len(names))
	for i := range a.Modules {
		m := &a.Modules[i]
		layers, err := m.Layers(c)
		if err != nil {
			return nil, nil, err
		}
		for _, w := range m.Expanded(layers) {
			found, ok, err := a.Resolve(w, has)
			if err != nil {
				return nil, nil, err
			}
			for _, n := range found {
				used[n] = true
			}
			if !ok && !w.Optional {
				missing = append(missing, w.Name)
			}
		}
	}
	for _, n := range names {
		if !used[n] {
			undescribed = append(undescribed, n)
		}
	}
	return missing, undescribed, nil
}

// Unfit returns the required weights that none of the checkpoints has, cfgs holding their configurations in the same order.
// One checkpoint that lacks a tensor is damaged; where all lack the same one, it is the description that is wrong about
// this variant of the family, and Infer describes the checkpoints better.
func (a *Arch) Unfit(models []Source, cfgs []Config) ([]string, error) {
	var unfit []string
	for i, m := range models {
		missing, _, err := a.Match(cfgs[i], m.Names())
		if err != nil {
			return nil, err
		}
		if i == 0 {
			unfit = missing
		} else {
			unfit = slices.DeleteFunc(unfit, func(n string) bool { return !slices.Contains(missing, n) })
		}
	}
	return unfit, nil
}

// recomputed matches the buffers of Recomputed: rotary tables, position numbers, and the causal masks that GPT-2 and
// GPT-NeoX kept under the name bias.
var recomputed = regexp.MustCompile(`(^|\.)(rotary(_pos)?_emb\.(inv_freq|cos_cached|sin_cached)|position_ids|att(n|ention)\.masked_bias|h\.\d+\.attn\.bias)$|^gpt_neox\.layers\.\d+\.attention\.bias$`)

// Recomputed tells whether a tensor is a buffer that loaders work out again from the configuration, such as rotary
// frequencies and attention masks: leaving it out of an output loses nothing.
func Recomputed(name string) bool { return recomputed.MatchString(name) }
