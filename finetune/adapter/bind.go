package adapter

import (
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// Tie says what happens when an adapter changes the input embedding or the output head of a model in which both are one
// matrix.
type Tie int

// The policies for tied embeddings.
const (
	Refuse Tie = iota // an error that names the two others; adapters trained with ensure_weight_tying are kept tied
	Untie             // the head gets a matrix of its own
	Keep              // one matrix, which both modules use, gets the change
)

// ParseTie reads a policy: refuse, untie or keep.
func ParseTie(s string) (Tie, error) {
	switch s {
	case "", "refuse":
		return Refuse, nil
	case "untie":
		return Untie, nil
	case "keep":
		return Keep, nil
	}
	return 0, &Error{Where: "tie", Msg: fmt.Sprintf("%q is unknown; use refuse, untie or keep", s)}
}

// Bind matches the adapter to the modules of a base and returns what it does to each of the base's tensors. An adapter that
// changes tied embeddings is refused: see BindTied.
func (a *Adapter) Bind(modules []Module) ([]Delta, error) { return a.BindTied(modules, Refuse) }

// BindTied is Bind with a policy for tied embeddings. Every tensor of the adapter must find its place, with the shape that
// the module has: an adapter for another base is an error, never a silent nothing.
func (a *Adapter) BindTied(modules []Module, tie Tie) ([]Delta, error) {
	if err := a.checkBase(); err != nil {
		return nil, err
	}
	b := &binding{a: a, modules: modules, parts: map[int]*part{}, tie: tie}
	b.index()
	steps := []func() error{b.collect, b.complete, b.makeDeltas, b.resolveTies}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, b.locate(err)
		}
	}
	return b.deltas, nil
}

// binding is a match in the making.
type binding struct {
	a       *Adapter
	modules []Module
	tie     Tie
	exact   map[string]int
	loose   map[string]int // by the path without what wraps the model; -1 where several have it
	parts   map[int]*part
	heads   []Delta // whole tensors of modules that the base lacks: a classification head
	deltas  []Delta
}

// part is the keys that an adapter has for one module.
type part struct {
	path string // as the adapter writes it
	keys map[string]string
}

// locate puts the adapter's directory into an error.
func (b *binding) locate(err error) error {
	if e, ok := err.(*Error); ok && e.File == "" { //nolint:errorlint // only errors made here lack the file
		e.File = b.a.Dir
	}
	return err
}

// wrappers are the attributes under which classes hold a model within a model. The same weights have them or not, depending
// on the class that they were loaded into.
var wrappers = []string{"model", "language_model", "transformer", "bert", "roberta", "distilbert", "electra", "gpt_neox", "base_model", "text_model"}

// core is a path without its wrappers.
func core(path string) string {
	for {
		head, rest, ok := strings.Cut(path, ".")
		if !ok || !slices.Contains(wrappers, head) {
			return path
		}
		path = rest
	}
}

func (b *binding) index() {
	b.exact, b.loose = map[string]int{}, map[string]int{}
	for i, m := range b.modules {
		b.exact[m.Path] = i
		c := core(m.Path)
		if _, twice := b.loose[c]; twice {
			b.loose[c] = -1
		} else {
			b.loose[c] = i
		}
	}
}

// find returns the module of a path: the very path, or the only one that differs in its wrappers.
func (b *binding) find(path string) (int, bool) {
	if i, ok := b.exact[path]; ok {
		return i, true
	}
	i, ok := b.loose[core(path)]
	return i, ok && i >= 0
}

// newHead tells whether a whole tensor belongs to a head that its task adds to the base.
func (b *binding) newHead(path, end string) bool {
	if end != endWeight && end != endBias {
		return false
	}
	return slices.ContainsFunc(b.a.Config.Saved(), func(m string) bool {
		return path == m || strings.HasPrefix(path, m+".")
	})
}

// collect sorts the adapter's keys by module.
func (b *binding) collect() error {
	var lost []string
	heads := map[string][]int{}
	for _, key := range b.a.Keys() {
		path, end, ok := splitKey(key)
		if !ok {
			lost = append(lost, key)
			continue
		}
		i, found := b.find(path)
		if !found {
			if b.newHead(path, end) {
				heads[path+end], _ = b.a.shape(key)
				continue
			}
			lost = append(lost, key)
			continue
		}
		p := b.parts[i]
		if p == nil {
			p = &part{path: path, keys: map[string]string{}}
			b.parts[i] = p
		}
		if other, twice := p.keys[end]; twice {
			return &Error{Where: key, Msg: "means the same tensor of the base as " + other}
		}
		p.keys[end] = key
	}
	if len(b.parts) == 0 {
		return b.nothing(lost)
	}
	if len(lost) > 0 {
		return &Error{Msg: fmt.Sprintf("%d tensors of the adapter have no place in this base: %s", len(lost), some(lost)),
			Hint: "the adapter is for another base; " + b.compare(lost[0])}
	}
	for _, name := range sortedKeys(heads) {
		path, end, _ := splitKey(prefix + name)
		b.heads = append(b.heads, Delta{Module: Module{Path: path, Kind: Linear, OutputHead: true}, Tensor: path + end, Shape: heads[name], New: true,
			What: "replaced", whole: b.a.whole(prefix + name)})
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// nothing says why no tensor matched: prefixes of modules are the usual reason.
func (b *binding) nothing(lost []string) error {
	first := ""
	if len(lost) > 0 {
		first = lost[0]
	}
	return &Error{Msg: "no tensor of the adapter matches a module of this base, so it would change nothing", Hint: b.compare(first)}
}

// compare shows one name of each side.
func (b *binding) compare(key string) string {
	example := "none"
	for _, m := range b.modules {
		if (m.Kind == Linear || m.Kind == Conv1D) && !m.OutputHead {
			example = m.Path
			break
		}
	}
	return fmt.Sprintf("the adapter has for example %s, the base %s", key, prefix+example)
}

// complete checks that nothing is missing: each factor has its other half, and each module that the configuration targets
// has factors.
func (b *binding) complete() error {
	for _, i := range b.order() {
		p := b.parts[i]
		for _, pair := range [][2]string{{endA, endB}, {endB, endA}, {endEmbA, endEmbB}, {endEmbB, endEmbA}, {endBiasB, endB}} {
			if p.keys[pair[0]] != "" && p.keys[pair[1]] == "" {
				return &Error{Where: p.keys[pair[0]], Msg: "is there without " + prefix + p.path + pair[1], Hint: "the adapter is damaged; download it again"}
			}
		}
		factors := p.keys[endA] != "" || p.keys[endEmbA] != ""
		switch mag := p.keys[endMag]; {
		case mag != "" && (!factors || !b.a.Config.DoRA):
			return &Error{Where: mag, Msg: "is a magnitude, but the configuration does not say use_dora for this module"}
		case mag == "" && factors && b.a.Config.DoRA:
			return &Error{Where: prefix + p.path + endMag, Msg: "is missing, though the configuration says use_dora", Hint: "the adapter is damaged; download it again"}
		}
	}
	targets, err := Select(b.a.Config, b.modules)
	if err != nil {
		// The tensors say what is changed. A pattern that this program cannot match, or that matches through another class's
		// paths, is no reason to refuse them; only completeness cannot be checked then.
		return nil
	}
	var missing []string
	for i := range targets {
		at := b.exact[targets[i].Path]
		if p := b.parts[at]; p == nil || p.keys[endA] == "" && p.keys[endEmbA] == "" {
			missing = append(missing, targets[i].A)
		}
	}
	if len(missing) > 0 {
		return &Error{Msg: fmt.Sprintf("the configuration targets %d modules for which the adapter has no tensors: %s", len(missing), some(missing)),
			Hint: "the adapter is damaged, or for a base with fewer modules"}
	}
	for _, name := range b.a.Config.ModulesToSave {
		if !slices.ContainsFunc(b.a.Keys(), func(key string) bool {
			path, end, ok := splitKey(key)
			return ok && (end == endWeight || end == endBias) && saves(path, name)
		}) && !slices.Contains(headTasks[b.a.Config.TaskType], name) {
			return &Error{Where: "modules_to_save", Msg: fmt.Sprintf("names %s, of which the adapter holds no tensor", name), Hint: "the adapter is damaged; download it again"}
		}
	}
	return nil
}

// order is the modules that the adapter has something for, as the base lists them.
func (b *binding) order() []int {
	var out []int
	for i := range b.parts {
		out = append(out, i)
	}
	sort.Ints(out)
	return out
}

func (b *binding) makeDeltas() error {
	for _, i := range b.order() {
		m, p := b.modules[i], b.parts[i]
		weight, err := b.weightDelta(m, p)
		if err != nil {
			return err
		}
		if weight != nil {
			b.deltas = append(b.deltas, *weight)
		}
		bias, err := b.biasDelta(m, p)
		if err != nil {
			return err
		}
		if bias != nil {
			b.deltas = append(b.deltas, *bias)
		}
	}
	b.deltas = append(b.deltas, b.heads...)
	return nil
}

// weightDelta gathers what is done to a module's weight; nil for nothing.
func (b *binding) weightDelta(m Module, p *part) (*Delta, error) {
	d := &Delta{Module: m, Tensor: m.Weight, From: m.Weight, Shape: slices.Clone(m.Shape)}
	full := p.keys[endWeight]
	if full == "" {
		full = p.keys[endBaseW]
	}
	if full != "" {
		shape, _ := b.a.shape(full)
		if !sameButRows(m, shape) {
			return nil, b.anotherBase(full, shape, m.Weight, m.Shape)
		}
		d.whole, d.Shape, d.From, d.What = b.a.whole(full), slices.Clone(shape), "", "replaced"
		if m.Kind == Embedding {
			m.In = shape[0]
		}
		if m.Kind == Linear && len(shape) == 2 {
			m.Out = shape[0]
		}
		d.Module = m
	}
	keyA, keyB := p.keys[endA], p.keys[endB]
	if m.Kind == Embedding {
		keyA, keyB = p.keys[endEmbA], p.keys[endEmbB]
	}
	if (p.keys[endA] != "" || p.keys[endEmbA] != "") && keyA == "" || (keyA != "" && m.Kind == Other) {
		return nil, &Error{Where: prefix + p.path, Msg: fmt.Sprintf("the adapter has factors of another kind of module: %s is %s", p.path, m.Kind)}
	}
	if keyA != "" {
		if err := b.factors(d, m, p, keyA, keyB); err != nil {
			return nil, err
		}
	}
	if key := p.keys[endTokens]; key != "" {
		if err := b.tokenRows(d, m, p, key); err != nil {
			return nil, err
		}
	}
	if d.What == "" {
		return nil, nil
	}
	return d, nil
}

// factors takes A, B and the magnitude.
func (b *binding) factors(d *Delta, m Module, p *part, keyA, keyB string) error {
	t := newTarget(b.a.Config, Module{Path: p.path, Kind: m.Kind, In: m.In, Out: m.Out})
	ta, tb := b.a.Tensors[keyA], b.a.Tensors[keyB]
	if len(ta.Shape) != 2 || len(tb.Shape) != 2 || ta.Shape[0] != tb.Shape[1] {
		return &Error{Where: keyA, Msg: fmt.Sprintf("A %v and B %v do not make a product", ta.Shape, tb.Shape), Hint: "the adapter is damaged; download it again"}
	}
	if ta.Shape[1] != m.In || tb.Shape[0] != m.Out {
		return &Error{Where: p.path, Msg: fmt.Sprintf("the adapter's factors are for a weight of %d outputs and %d inputs, %s of this base has %d and %d (A %v, B %v, weight %v)",
			tb.Shape[0], ta.Shape[1], m.Weight, m.Out, m.In, ta.Shape, tb.Shape, m.Shape), Hint: "the adapter is for another base"}
	}
	if ta.Shape[0] != t.Rank {
		return &Error{Where: keyA, Msg: fmt.Sprintf("has rank %d, the configuration says %d", ta.Shape[0], t.Rank), Hint: "r or rank_pattern belongs to another adapter"}
	}
	d.low, d.Rank = newLowRank(m, ta.Data, tb.Data, t.Rank, t.Scale), t.Rank
	d.What = "low rank"
	if key := p.keys[endMag]; key != "" {
		mag := b.a.Tensors[key]
		if len(mag.Data) != m.Out {
			return b.anotherBase(key, mag.Shape, m.Weight, m.Shape)
		}
		d.mag, d.factor, d.What = mag.Data, &factors{}, "DoRA"
	}
	return nil
}

// tokenRows takes the rows of trainable_token_indices.
func (b *binding) tokenRows(d *Delta, m Module, p *part, key string) error {
	var indices []int
	for _, t := range b.a.Config.TrainableTokens {
		if endsWith(p.path, t.Module) || len(b.a.Config.TrainableTokens) == 1 && t.Module == "embed_tokens" {
			indices = t.Indices
		}
	}
	t := b.a.Tensors[key]
	if b.a.views[key].DType != 0 {
		var err error
		if t, err = decode(b.a.views[key]); err != nil {
			return err
		}
	}
	if len(t.Shape) != 2 || t.Shape[0] != len(indices) || t.Shape[1] != m.Out || m.Kind != Embedding {
		return &Error{Where: key, Msg: fmt.Sprintf("has shape %v; the configuration lists %d tokens and %s has shape %v", t.Shape, len(indices), m.Weight, m.Shape), Hint: "the adapter is for another base"}
	}
	d.rows, d.What = map[int][]float32{}, strings.TrimPrefix(d.What+" and rows", " and ")
	for i, row := range indices {
		if row >= d.Shape[0] {
			return &Error{Where: key, Msg: fmt.Sprintf("changes token %d; %s has %d", row, m.Weight, d.Shape[0]), Hint: "the adapter is for a base with a larger vocabulary"}
		}
		d.rows[row] = t.Data[i*m.Out : (i+1)*m.Out]
	}
	return nil
}

// biasDelta gathers what is done to a module's bias; nil for nothing.
func (b *binding) biasDelta(m Module, p *part) (*Delta, error) {
	full := p.keys[endBias]
	if full == "" {
		full = p.keys[endBaseBias]
	}
	added := p.keys[endBiasB]
	if full == "" && added == "" {
		return nil, nil
	}
	key := full + added
	if !m.Bias {
		return nil, &Error{Where: key, Msg: fmt.Sprintf("is a bias, but %s of this base has none to change", p.path), Hint: "a model of this class cannot hold the result; train without bias and lora_bias"}
	}
	d := &Delta{Module: m, Tensor: m.BiasName, From: m.BiasName, Shape: []int{biasLen(m)}, What: "bias"}
	if full != "" {
		shape, _ := b.a.shape(full)
		if len(shape) != 1 || shape[0] != d.Shape[0] && !m.OutputHead {
			return nil, b.anotherBase(full, shape, m.BiasName, d.Shape)
		}
		d.whole, d.From, d.Shape = b.a.whole(full), "", slices.Clone(shape)
	}
	if added != "" {
		t := b.a.Tensors[added]
		if len(t.Data) != d.Shape[0] {
			return nil, b.anotherBase(added, t.Shape, m.BiasName, d.Shape)
		}
		_, _, scale := b.a.Config.Scale(p.path)
		d.bias = make([]float32, len(t.Data))
		for i, x := range t.Data {
			d.bias[i] = x * float32(scale)
		}
	}
	return d, nil
}

func (b *binding) anotherBase(key string, shape []int, tensor string, want []int) error {
	return &Error{Where: key, Msg: fmt.Sprintf("has shape %v, but %s of this base has %v", shape, tensor, want), Hint: "the adapter is for another base: " + b.baseName()}
}

func (b *binding) baseName() string {
	if n := b.a.Config.BaseModel; n != "" {
		return "it names " + filepath.Base(n)
	}
	return "it does not name its base"
}

// sameButRows says whether a whole weight may take the place of a module's: the number of rows may differ where it is a
// vocabulary or the classes of a head.
func sameButRows(m Module, shape []int) bool {
	if slices.Equal(shape, m.Shape) {
		return true
	}
	return (m.Kind == Embedding || m.OutputHead) && len(shape) == 2 && len(m.Shape) == 2 && shape[1] == m.Shape[1]
}
