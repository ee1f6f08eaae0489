package arch

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Source is a checkpoint as far as inference looks at it: the names of its tensors.
type Source interface{ Names() []string }

// Infer makes a description of any checkpoints from the names of their tensors; cfgs holds their configurations in the same
// order, nil for those without one, and may be shorter than models.
//
// A name is split at its first number between dots: what stands before is the stack of layers, the number is the layer,
// what follows belongs to the template. One stack gives one module, default, which also takes the names without a number;
// several give a module each, named by the stack, and default takes the rest. Further numbers in a name (blocks of a UNet,
// experts) stay what they are, so every tensor of every model comes up exactly once.
//
// A weight is required if every model has it, in every layer that the model has; otherwise it is optional. Layer counts are
// those of the deepest model. Experts that one model holds in single tensors and another as a fused one come up fused.
// Vocabulary axes are known by name: the usual input and output embeddings.
func Infer(models []Source, cfgs []Config) (*Arch, error) {
	if len(models) == 0 {
		return nil, errors.New("no checkpoint to infer an architecture from")
	}
	in := &inference{stacks: map[string]*stack{}, loose: &tally{seen: map[string]int{}}, models: len(models)}
	sets, err := effectiveNames(models)
	if err != nil {
		return nil, err
	}
	in.findStacks(sets)
	for i, names := range sets {
		if len(names) == 0 {
			return nil, fmt.Errorf("checkpoint %d has no tensors", i+1)
		}
		if other := sets[0]; !shareName(other, names) {
			return nil, fmt.Errorf("checkpoints 1 and %d have no tensor name in common (%q in one, %q in the other): they are of different architectures, or one was saved with a prefix before its names", i+1, other[0], names[0])
		}
		in.add(names)
	}
	return in.describe(cfgs), nil
}

// effectiveNames lists every model's names without repetition. A name that another model has and that pieces of this model
// make takes the pieces' place.
func effectiveNames(models []Source) ([][]string, error) {
	sets := make([][]string, len(models))
	have := make([]map[string]bool, len(models))
	for i, m := range models {
		have[i] = map[string]bool{}
		for _, n := range m.Names() {
			if !have[i][n] {
				have[i][n] = true
				sets[i] = append(sets[i], n)
			}
		}
	}
	var fused []string
	for _, s := range sets {
		for _, n := range s {
			if _, _, ok := fusedStem(n); ok {
				fused = appendNew(fused, n)
			}
		}
	}
	for i := range sets {
		replaced := map[string]string{} // a piece's name to the fused one
		for _, f := range fused {
			if have[i][f] {
				continue
			}
			pieces, _, err := new(Arch).Pieces(f, func(n string) bool { return have[i][n] })
			if err != nil {
				return nil, err
			}
			for _, p := range pieces {
				replaced[p] = f
			}
		}
		if len(replaced) == 0 {
			continue
		}
		var names []string
		for _, n := range sets[i] {
			if f, ok := replaced[n]; ok {
				if have[i][f] {
					continue
				}
				have[i][f] = true
				n = f
			}
			names = append(names, n)
		}
		sets[i] = names
	}
	return sets, nil
}

func shareName(a, b []string) bool {
	in := make(map[string]bool, len(a))
	for _, n := range a {
		in[n] = true
	}
	return slices.ContainsFunc(b, func(n string) bool { return in[n] })
}

// inference counts what the models have.
type inference struct {
	models int
	stacks map[string]*stack
	order  []string // stacks in order of appearance
	loose  *tally
}

// stack is what the names with one and the same beginning have in common.
type stack struct {
	depth    int   // layers of the deepest model
	depths   []int // layers of each model
	template tally
}

// tally counts in how many places a name is.
type tally struct {
	order []string
	seen  map[string]int
}

func (t *tally) add(name string) {
	if t.seen[name]++; t.seen[name] == 1 {
		t.order = append(t.order, name)
	}
}

// splitLayer splits a name at its first number between dots: a.3.b.4.c gives a, 3 and b.4.c. A number is written without
// leading zeros and is one that a layer can have, since names are made from numbers again.
func splitLayer(name string) (stack string, layer int, rest string, ok bool) {
	for from := 0; ; {
		dot := strings.IndexByte(name[from:], '.')
		if dot < 0 {
			return "", 0, "", false
		}
		start := from + dot + 1
		end := start
		for end < len(name) && '0' <= name[end] && name[end] <= '9' {
			end++
		}
		if end > start && end < len(name) && name[end] == '.' {
			layer, err := strconv.Atoi(name[start:end])
			if err != nil || layer >= maxLayers || strconv.Itoa(layer) != name[start:end] {
				return "", 0, "", false
			}
			return name[:start-1], layer, name[end+1:], true
		}
		from = start
	}
}

// findStacks decides which beginnings are stacks of layers. A few names with a huge number are none: a template over all
// layers would list far more names than there are.
func (in *inference) findStacks(sets [][]string) {
	type count struct {
		depth, names int
		rests        map[string]bool
	}
	counts := map[string]*count{}
	for _, names := range sets {
		for _, n := range names {
			p, layer, rest, ok := splitLayer(n)
			if !ok {
				continue
			}
			c := counts[p]
			if c == nil {
				c = &count{rests: map[string]bool{}}
				counts[p] = c
				in.order = append(in.order, p)
			}
			c.depth = max(c.depth, layer+1)
			c.names++
			c.rests[rest] = true
		}
	}
	in.order = slices.DeleteFunc(in.order, func(p string) bool {
		c := counts[p]
		return c.depth*len(c.rests) > 4096+64*c.names
	})
	for _, p := range in.order {
		in.stacks[p] = &stack{depth: counts[p].depth, template: tally{seen: map[string]int{}}}
	}
}

// add counts the names of one model.
func (in *inference) add(names []string) {
	depth := map[string]int{}
	for _, n := range names {
		p, layer, rest, ok := splitLayer(n)
		s := in.stacks[p]
		if !ok || s == nil {
			in.loose.add(n)
			continue
		}
		depth[p] = max(depth[p], layer+1)
		s.template.add(rest)
	}
	for p, s := range in.stacks {
		s.depths = append(s.depths, depth[p])
	}
}

func (in *inference) describe(cfgs []Config) *Arch {
	a := &Arch{Name: "inferred", Inferred: true}
	for _, c := range cfgs {
		if c != nil {
			a.ModelType, a.Classes = c.ModelType(), c.Architectures()
			break
		}
	}
	a.VocabKey = vocabKey(cfgs)
	rest := Module{Name: "default", FixedLayers: 0, Pre: in.loosePart()}
	if len(in.order) == 1 {
		m := in.module(in.order[0])
		m.Name, m.Pre = rest.Name, rest.Pre
		a.Modules = []Module{m}
	} else {
		for _, p := range in.order {
			m := in.module(p)
			if m.Name == rest.Name { // the stack is called default itself
				m.Pre, rest.Pre = rest.Pre, nil
			}
			a.Modules = append(a.Modules, m)
		}
		if len(rest.Pre) > 0 || len(a.Modules) == 0 {
			a.Modules = append(a.Modules, rest)
		}
	}
	in.countKeys(a, cfgs)
	return a
}

// module describes one stack.
func (in *inference) module(p string) Module {
	s := in.stacks[p]
	m := Module{Name: p, FixedLayers: s.depth}
	places := 0 // layers of all models together
	everywhere := true
	for _, d := range s.depths {
		places += d
		everywhere = everywhere && d > 0
	}
	for _, rest := range s.template.order {
		m.Layer = append(m.Layer, Weight{
			Name:      escape(p) + ".{i}." + escape(rest),
			VocabAxis: -1,
			Optional:  !everywhere || s.template.seen[rest] < places,
		})
	}
	return m
}

// loosePart describes the names outside of all stacks.
func (in *inference) loosePart() []Weight {
	var out []Weight
	embedding := "" // the input embedding, if there is just one
	inputs := 0
	for _, n := range in.loose.order {
		w := Weight{Name: escape(n), VocabAxis: -1, Optional: in.loose.seen[n] < in.models}
		input, output := vocabulary(n)
		if input || output {
			w.VocabAxis = 0
		}
		if input {
			embedding, inputs = w.Name, inputs+1
		}
		out = append(out, w)
	}
	if inputs != 1 {
		return out
	}
	// A model without an output matrix where others have one uses its input embedding in its place.
	for i := range out {
		if _, output := vocabulary(out[i].Name); output && out[i].Optional && strings.HasSuffix(out[i].Name, ".weight") {
			out[i].Tied = []string{embedding}
		}
	}
	return out
}

// vocabulary tells whether a tensor is an input embedding or an output matrix with the vocabulary on axis 0, by its name.
func vocabulary(name string) (input, output bool) {
	ends := func(suffixes ...string) bool {
		return slices.ContainsFunc(suffixes, func(s string) bool { return name == s || strings.HasSuffix(name, "."+s) })
	}
	return ends("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight", "embed_in.weight", "backbone.embeddings.weight"),
		ends("lm_head.weight", "lm_head.bias", "embed_out.weight") || name == "output.weight"
}

func vocabKey(cfgs []Config) string {
	for _, k := range []string{"vocab_size", "text_config.vocab_size"} {
		for _, c := range cfgs {
			if _, ok := c.Int(k); ok {
				return k
			}
		}
	}
	return ""
}

// countKeys finds the keys that count the modules' layers, so that the output's configuration can follow: keys that give
// every model's real depth. A key that fits several modules tells nothing about any.
func (in *inference) countKeys(a *Arch, cfgs []Config) {
	if len(cfgs) < in.models || slices.ContainsFunc(cfgs, func(c Config) bool { return c == nil }) {
		return
	}
	fits := map[string][]string{} // module to keys
	owners := map[string]int{}
	for _, p := range in.order {
		for _, k := range layerCountKeys(cfgs[0]) {
			all := true
			for i, d := range in.stacks[p].depths {
				n, ok := cfgs[i].Int(k)
				all = all && ok && n == d
			}
			if all {
				fits[p] = append(fits[p], k)
				owners[k]++
			}
		}
	}
	for i := range a.Modules {
		m := &a.Modules[i]
		p := m.Name
		if len(in.order) == 1 {
			p = in.order[0]
		}
		for _, k := range fits[p] {
			if owners[k] == 1 {
				m.LayersKey = k
				break
			}
		}
	}
}
