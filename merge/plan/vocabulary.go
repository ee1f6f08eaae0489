package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/vocabulary"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/text/chat"
)

// Gather says how an input with an axis of the vocabulary is put together, row by row, from the rows of all inputs.
type Gather struct {
	Rows   *vocabulary.Rows
	Inputs []Input       // that rows are taken of: the task's own, then other models'
	Own    int           // this one's place among them
	Shape  []int         // of what is put together
	DType  tensors.DType // in which rows come
	Native bool          // means are rounded to it after every addition, as arithmetic in the dtype does
}

// TokenizerDir is where the model's tokenizer is: an adapter may bring its own.
func (m *Model) TokenizerDir() string {
	if m.AdapterDir != "" {
		if st, err := os.Stat(filepath.Join(m.AdapterDir, "tokenizer.json")); err == nil && st.Mode().IsRegular() {
			return m.AdapterDir
		}
	}
	return m.Dir
}

// VocabularyRows is how many rows the tensors with an axis of the vocabulary have, in the smallest of them; 0 without any.
func (p *Plan) VocabularyRows(m *Model) int {
	rows := 0
	for i := range p.Arch.Modules {
		desc := &p.Arch.Modules[i]
		for _, w := range slices.Concat(desc.Pre, desc.Post) {
			if w.VocabAxis != 0 {
				continue
			}
			for _, name := range append([]string{w.Name}, w.Aliases...) {
				if info, ok := m.Own(name); ok && len(info.Shape) == 2 && (rows == 0 || info.Shape[0] < rows) {
					rows = info.Shape[0]
				}
			}
		}
	}
	return rows
}

// vocabulary plans the output's tokens, if the recipe asks for a tokenizer.
func (b *builder) vocabulary() error {
	r := b.Recipe
	t := r.Tokenizer
	if t == nil && r.TokenizerSource == "" {
		return nil
	}
	if t == nil {
		t = &recipe.Tokenizer{Source: r.TokenizerSource, SourceRef: r.TokenizerSourceRef, Pos: r.TokenizerPos}
	}
	if b.Method.Whole && !b.Method.Blends {
		return b.errorf(t.Pos, "tokenizer: %s merges networks as wholes and takes their embeddings as they are; give models with one vocabulary, or bring them to one first (merge_method: passthrough with this tokenizer, for each of them)", b.Method.Name)
	}
	o := vocabulary.Options{Source: *t, File: r.File, Model: func(ref recipe.ModelRef) int {
		return slices.IndexFunc(b.Models, func(m *Model) bool { return m.Ref.Same(ref) })
	}}
	var models []vocabulary.Model
	for _, m := range b.Models {
		rows := b.VocabularyRows(m)
		if rows == 0 {
			return b.errorf(t.Pos, "tokenizer: %s has no embedding that is known as one of tokens (architecture %s), so there are no rows to put in order", m.Name(), b.Arch.Name)
		}
		models = append(models, vocabulary.Model{Name: m.Name(), Dir: m.TokenizerDir(), Rows: rows})
	}
	if t.SourceRef != nil {
		ref := *t.SourceRef
		own := b.model(ref)
		if own == nil {
			var err error
			own, err = b.resolver().tokenizerOf(ref)
			if e := (*FetchError)(nil); errors.As(err, &e) { // its cause decides what kind of failure it is
				return fmt.Errorf("%s:%d:%d: %w", r.File, ref.Pos.Line, ref.Pos.Col, err)
			}
			if err != nil {
				return b.errorf(ref.Pos, "%s", err)
			}
			b.Speller = own
		}
		o.Own = &vocabulary.Model{Name: own.Name(), Dir: own.TokenizerDir()}
	}
	var err error
	if b.Vocabulary, err = vocabulary.New(models, o); err != nil {
		return err
	}
	b.Warnings = append(b.Warnings, b.Vocabulary.Warnings...)
	return nil
}

// tokenizerOf finds the tokenizer of a reference that is none of the merged models. Its weights are not looked at, and may be missing.
func (r resolver) tokenizerOf(ref recipe.ModelRef) (*Model, error) {
	m := &Model{Ref: ref}
	if r.stage != nil {
		var err error
		if m.Stage, err = r.stage(ref.Path); err != nil {
			return nil, err
		}
	}
	var err error
	switch s := m.Stage; {
	case s == nil:
		m.Remote = !r.here(ref.Path, ref.Revision)
		if m.Dir, err = r.find(ref, ref.Path, ref.Revision, "tokenizer"); err != nil {
			return nil, err
		}
	case s.Made == nil:
		m.Dir = s.Dir
	default: // it has no tokenizer of its own, or this recipe would not be planned yet
		m.Dir, m.AdapterDir = s.Made.Donor.Dir, s.Made.Donor.AdapterDir
	}
	if ref.LoraPath != "" {
		if m.AdapterDir, err = r.find(ref, ref.LoraPath, ref.LoraRevision, "adapter"); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// OpenTokenizer finds the model of a reference for the sake of its tokenizer alone. Relative paths start in dir or in the working directory.
func OpenTokenizer(ref recipe.ModelRef, dir string, o Options) (*Model, error) {
	return resolver{recipeDir: dir, fetch: o.Fetch}.tokenizerOf(ref)
}

// Read lists the models that the output is made of: those whose tensors are merged, and one that gives its tokenizer alone.
func (p *Plan) Read() []*Model {
	if p.Speller == nil {
		return p.Models
	}
	return append(slices.Clone(p.Models), p.Speller)
}

// widen gives the shape of a tensor with an axis of the vocabulary the output's rows.
func (b *builder) widen(t *Task, info tensors.Info, m *Model) error {
	if len(t.Inputs) == 1 {
		t.Shape = slices.Clone(info.Shape)
		t.Shape[0] = b.Vocabulary.Rows
		return nil
	}
	if len(info.Shape) != len(t.Shape) || !slices.Equal(info.Shape[1:], t.Shape[1:]) {
		return fmt.Errorf("%s: %v in %s, %v in %s: the models have different sizes beside their vocabularies; align or resize first", info.Name, t.Inputs[0].shape, t.Inputs[0].Model.Name(), info.Shape, m.Name())
	}
	return nil
}

// gather says how a task's inputs are put together where the output has a vocabulary of its own.
func (b *builder) gather(t *Task, m *module, s *slice, w arch.Weight) error {
	index := func(model *Model) int { return slices.Index(b.Models, model) }
	var inputs []vocabulary.Input
	base := -1
	for i, in := range t.Inputs {
		if len(in.Pieces) != 1 {
			return fmt.Errorf("%s: %s has it in %d pieces, so its rows cannot be put in the order of the tokens", t.Name, in.Model.Name(), len(in.Pieces))
		}
		inputs = append(inputs, vocabulary.Input{Model: index(in.Model), Rows: in.shape[0]})
		if s.base != nil && in.Model.Ref.Same(*s.base) {
			base = i
		}
	}
	others := map[int]Input{}
	rows := func(k int) (int, bool) {
		other := b.Models[k]
		layers, err := m.desc.Layers(other.Config)
		if err != nil {
			return 0, false
		}
		pieces, _, err := b.find(other, w.Expand(0, layers))
		if err != nil || len(pieces) != 1 {
			return 0, false
		}
		info, _ := other.Lookup(pieces[0])
		if len(info.Shape) != len(t.Shape) || len(info.Shape) == 0 || !slices.Equal(info.Shape[1:], t.Shape[1:]) {
			return 0, false
		}
		others[k] = Input{Model: other, Pieces: pieces, DType: info.DType, shape: info.Shape}
		return info.Shape[0], true
	}
	list, more, missing, err := b.Vocabulary.Gather(inputs, base, rows)
	if err != nil {
		return err
	}
	if n := len(missing); n > 0 && !b.zeros {
		b.zeros = true // embedding and head lack the same tokens
		few := missing[:min(n, 3)]
		b.warnf("tokenizer: no model has a row for %d of the output's tokens, which start as zeros: %s%s", n, strings.Join(few, ", "), map[bool]string{true: ", …"}[n > len(few)])
	}
	from := slices.Clone(t.Inputs)
	for _, k := range more {
		from = append(from, others[k])
	}
	for i, r := range list {
		if r == nil {
			continue
		}
		for _, in := range from {
			if !graphFloat(in.DType) {
				return fmt.Errorf("%s: %s holds it as %s, and rows that are put in the order of other tokens must be floating point", t.Name, in.Model.Name(), in.DType)
			}
		}
		t.Inputs[i].Gather = &Gather{Rows: r, Inputs: from, Own: i, Shape: t.Shape, Native: b.Options.Arith == method.Native}
	}
	return nil
}

// gatherDTypes chooses the dtype in which gathered rows come: that of the file where rows only change places, else one that rounds
// means once.
func (b *builder) gatherDTypes(t *Task) {
	for i := range t.Inputs {
		g := t.Inputs[i].Gather
		if g == nil {
			continue
		}
		g.DType = g.Inputs[0].DType
		same := true
		for _, in := range g.Inputs {
			same = same && in.DType == g.DType
		}
		switch {
		case same && g.Rows.Moves():
		case g.Native:
			g.DType = t.D
		case t.D == tensors.F64:
			g.DType = tensors.F64
		default:
			g.DType = tensors.F32
		}
	}
}

// template chooses the output's chat template.
func (b *builder) template() error {
	r := b.Recipe
	switch r.ChatTemplate {
	case "":
		return nil
	case "auto":
		b.Template = b.commonTemplate()
		if b.Template == "" {
			b.warnf("%s:%d:%d: chat_template: auto: no model has a chat template, so the output has none", r.File, r.ChatTemplatePos.Line, r.ChatTemplatePos.Col)
		}
		return nil
	}
	source, named := chat.Bundled(r.ChatTemplate)
	if !named {
		source = r.ChatTemplate
	}
	if _, err := chat.Parse(source); err != nil {
		return b.errorf(r.ChatTemplatePos, "chat_template: %s", err)
	}
	b.Template = source
	return nil
}

// commonTemplate is the template that most models have, the first of equally common ones.
func (b *builder) commonTemplate() string {
	var order []string
	votes := map[string]int{}
	for _, m := range b.Models {
		t, err := chat.Find(m.TokenizerDir(), "")
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			b.warnf("chat_template: auto: the template of %s has no vote: %s", m.Name(), err)
			continue
		}
		source := strings.TrimSpace(t.Source())
		if source == "" {
			continue
		}
		if votes[source]++; votes[source] == 1 {
			order = append(order, source)
		}
	}
	best := ""
	for _, source := range order {
		if best == "" || votes[source] > votes[best] {
			best = source
		}
	}
	return best
}

// tokenKeys are the endings of keys of config.json and generation_config.json that name tokens by their ids.
var tokenKeys = []string{"_token_id", "_token_ids", "_token_index"}

// wordKeys are those of lists of tokens, or of words of several tokens, that must not be written, or must.
var wordKeys = []string{"suppress_tokens", "begin_suppress_tokens", "bad_words_ids", mustWords}

const mustWords = "force_words_ids"

// TokenIDs says which ids in a configuration have to change because their tokens have others in the output: dotted keys and their
// values. lost are the keys whose tokens the output does not have.
func (p *Plan) TokenIDs(config map[string]any) (changes map[string]any, lost []string) {
	changes = map[string]any{}
	if p.Vocabulary == nil {
		return changes, nil
	}
	var walk func(prefix string, m map[string]any)
	walk = func(prefix string, m map[string]any) {
		for key, value := range m {
			if inner, ok := value.(map[string]any); ok && prefix == "" {
				walk(key+".", inner)
				continue
			}
			if list, ok := value.([]any); ok && slices.Contains(wordKeys, key) {
				now, changed, short := p.words(list)
				if changed {
					changes[prefix+key] = now
				}
				if len(now) == 0 && changed { // transformers refuses an empty list
					changes[prefix+key] = nil
				}
				if short && key == mustWords { // what the output does not have is not written anyway
					lost = append(lost, prefix+key)
				}
				continue
			}
			if !slices.ContainsFunc(tokenKeys, func(end string) bool { return strings.HasSuffix(key, end) }) {
				continue
			}
			now, changed, gone := p.renumber(key, value)
			if changed {
				changes[prefix+key] = now
			}
			if gone {
				lost = append(lost, prefix+key)
			}
		}
	}
	walk("", config)
	slices.Sort(lost)
	return changes, lost
}

// renumber gives the id, or the list of ids, that a key has in the output.
func (p *Plan) renumber(key string, value any) (now any, changed, gone bool) {
	switch v := value.(type) {
	case json.Number:
		id, err := strconv.Atoi(v.String())
		if err != nil || id < 0 {
			return value, false, false
		}
		out, text, ok := p.Vocabulary.ID(id)
		switch {
		case ok:
			return out, out != id, false
		case text == "": // the donor itself has no such token
			return value, false, false
		}
		if role, ok := p.role(key); ok {
			return role, role != id, false
		}
		return value, false, true
	case []any:
		list := make([]any, 0, len(v))
		for _, one := range v {
			x, c, g := p.renumber("", one)
			changed, gone = changed || c, gone || g
			if !g {
				list = append(list, x)
			}
		}
		if gone && len(list) > 0 { // the others go on
			return list, true, false
		}
		return list, changed, gone
	}
	return value, false, false
}

// words gives a list of ids, or of words that are lists of ids, or of alternatives that are lists of words, as the output has them. What the
// output does not have is left out (short): an id; a word as a whole, which would be another one without it; alternatives if none is left.
func (p *Plan) words(list []any) (now []any, changed, short bool) {
	now = make([]any, 0, len(list))
	for _, one := range list {
		inner, nested := one.([]any)
		if !nested {
			x, c, gone := p.renumber("", one)
			changed, short = changed || c || gone, short || gone
			if !gone {
				now = append(now, x)
			}
			continue
		}
		x, c, s := p.words(inner)
		changed, short = changed || c, short || s
		word := !slices.ContainsFunc(inner, func(v any) bool { _, deeper := v.([]any); return deeper })
		if whole := len(inner) > 0 && len(x) == 0; whole || word && s {
			continue
		}
		now = append(now, x)
	}
	return now, changed, short
}

// role is the token that the output's tokenizer has for the purpose of a key.
func (p *Plan) role(key string) (int, bool) {
	t := p.Vocabulary.Tokenizer
	for name, role := range map[string]func() (string, int, bool){"bos_token_id": t.BOS, "eos_token_id": t.EOS, "pad_token_id": t.PAD, "unk_token_id": t.UNK} {
		if key == name {
			_, id, ok := role()
			return id, ok
		}
	}
	return 0, false
}

// configTokens records the size of the vocabulary, and ids of tokens that have changed.
func (b *builder) configTokens(c arch.Config) {
	v := b.Vocabulary
	for _, key := range []string{b.Arch.VocabKey, "vocab_size", "text_config.vocab_size"} {
		if n, ok := c.Int(key); ok && key != "" && n != v.Rows {
			b.Config[key] = v.Rows
		}
	}
	changes, lost := b.TokenIDs(c)
	for _, key := range sortedNames(changes) {
		b.Config[key] = changes[key]
		was, _ := c.Get(key)
		b.notef("config.json: %s is %v instead of %v: the token has another id in the output", key, changes[key], was)
	}
	for _, key := range lost {
		b.notef("config.json: %s is of a token of %s that the output does not have; set it to one that it has", key, b.Donor.Name())
	}
}

func sortedNames(m map[string]any) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// notef keeps what is to be told and is no fault of the recipe: --strict does not refuse it.
func (b *builder) notef(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}
