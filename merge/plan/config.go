package plan

import (
	"encoding/json"
	"slices"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// config computes the keys of config.json that the merge determines.
func (b *builder) config() error {
	c := b.Donor.Config
	if c == nil {
		return nil
	}
	b.configDType(c)
	for _, m := range b.modules {
		if m.stack {
			b.configLayers(c, &m)
		}
	}
	if b.Vocabulary != nil {
		b.configTokens(c)
	} else {
		b.configVocabulary(c)
	}
	b.configTie(c)
	if o := b.Donor.Ref.OverrideArchitecture; o != "" {
		b.Config["architectures"] = []string{o}
	}
	return nil
}

// configDType records the dtype that most of the output's bytes have.
func (b *builder) configDType(c arch.Config) {
	bytes := map[tensors.DType]int64{}
	for _, t := range b.Outputs() {
		if t.DType.IsFloat() {
			bytes[t.DType] += t.Bytes()
		}
	}
	best, most := "", int64(-1)
	for d, n := range bytes {
		name := map[tensors.DType]string{tensors.F64: "float64", tensors.F32: "float32", tensors.F16: "float16", tensors.BF16: "bfloat16"}[d]
		if name != "" && n > most {
			best, most = name, n
		}
	}
	if best == "" {
		return
	}
	for _, key := range c.DTypeKeys() {
		b.Config[key] = best
	}
}

// configLayers records the layer count of a stack, and takes lists with one entry per layer along.
func (b *builder) configLayers(c arch.Config, m *module) {
	total := 0
	for _, s := range m.slices {
		total += s.sources[0].layers
	}
	key, ok := m.desc.CountKey(c)
	if !ok {
		key = arch.LayerCountKey(c)
	}
	if key == "" {
		b.warnf("config.json of %s has no key for the number of layers, so the output's is unchanged although it has %d layers", b.Donor.Name(), total)
		return
	}
	b.Config[key] = total
	var types []any
	for _, s := range m.slices {
		src := s.sources[0]
		list, ok := src.model.Config["layer_types"].([]any)
		if !ok || src.from+src.layers > len(list) {
			return
		}
		types = append(types, list[src.from:src.from+src.layers]...)
	}
	if _, ok := c["layer_types"].([]any); ok {
		b.Config["layer_types"] = types
	}
}

// configVocabulary follows narrowed embeddings.
func (b *builder) configVocabulary(c arch.Config) {
	key := b.Arch.VocabKey
	if key == "" {
		key = "vocab_size"
	}
	for _, t := range b.Tasks {
		if n, ok := c.Int(key); ok && t.rows > 0 && n != t.rows {
			b.Config[key] = t.rows
		}
	}
}

// configTie unties the head when one is written that a loader would otherwise ignore.
func (b *builder) configTie(c arch.Config) {
	if tied, _ := c["tie_word_embeddings"].(bool); !tied {
		return
	}
	for _, t := range b.Tasks {
		if t.Name != "lm_head.weight" {
			continue
		}
		for _, in := range t.Inputs {
			if in.Model.Alignment != nil && slices.Contains(in.Model.Alignment.Added(), in.Name()) {
				b.Config["tie_word_embeddings"] = false
				b.warnf("lm_head.weight is written because aligning %s turns the stream, after which its head and its embedding differ; tie_word_embeddings is set to false (symmetry: signed keeps them one)", in.Model.Name())
				return
			}
			if t, _ := in.Model.Config["tie_word_embeddings"].(bool); !t {
				b.Config["tie_word_embeddings"] = false
				b.warnf("lm_head.weight is written because %s has one of its own; tie_word_embeddings is set to false so that loaders use it", in.Model.Name())
				return
			}
		}
	}
}

// PatchedConfig renders config.json for the output: the donor's, with unknown keys and their order kept, and what the
// merge determines changed. nil when the donor has none.
func (p *Plan) PatchedConfig() ([]byte, error) {
	if p.made != nil {
		return p.made, nil
	}
	if p.Donor.RawConfig == nil {
		return nil, nil
	}
	return arch.PatchConfig(p.Donor.RawConfig, p.Config)
}

// MarshalJSON renders the plan for `mergekit plan --json`.
func (p *Plan) MarshalJSON() ([]byte, error) {
	type input struct {
		Model  string         `json:"model"`
		Tensor []string       `json:"tensors"`
		DType  string         `json:"dtype"`
		Params map[string]any `json:"parameters,omitempty"`
		Base   bool           `json:"base,omitempty"`
	}
	type token struct {
		ID      int    `json:"id"`
		Text    string `json:"token"`
		Special bool   `json:"special,omitempty"`
	}
	type tokens struct {
		From    string  `json:"tokenizer_of"`
		Tokens  int     `json:"tokens"`
		Rows    int     `json:"rows"`
		New     []token `json:"new"`
		Removed []token `json:"removed"`
	}
	type output struct {
		Name   string         `json:"name"`
		Shape  []int          `json:"shape"`
		DType  string         `json:"dtype"`
		Copy   bool           `json:"copy,omitempty"`
		Params map[string]any `json:"parameters,omitempty"`
		Inputs []input        `json:"inputs"`
	}
	out := struct {
		Method       string         `json:"merge_method"`
		Architecture string         `json:"architecture"`
		Inferred     bool           `json:"architecture_inferred"`
		Elements     int64          `json:"elements"`
		BytesRead    int64          `json:"bytes_read"`
		BytesWritten int64          `json:"bytes_written"`
		Config       map[string]any `json:"config"`
		Warnings     []string       `json:"warnings"`
		Aligned      []string       `json:"aligned,omitempty"`
		Reference    string         `json:"reference,omitempty"`
		Vocabulary   *tokens        `json:"vocabulary,omitempty"`
		Template     string         `json:"chat_template,omitempty"`
		Tensors      []output       `json:"tensors"`
	}{p.Method.Name, p.Arch.Name, p.Arch.Inferred, p.Elements(), p.BytesRead(), p.BytesWritten(), p.Config, append([]string{}, p.Warnings...), nil, "", nil, p.Template, nil}
	if v := p.Vocabulary; v != nil {
		out.Vocabulary = &tokens{v.Dir, len(v.Tokenizer.Vocabulary()), v.Rows, []token{}, []token{}}
		for _, one := range v.Tokenizer.New {
			out.Vocabulary.New = append(out.Vocabulary.New, token{one.ID, one.Text, one.Special})
		}
		for _, one := range v.Tokenizer.Removed {
			out.Vocabulary.Removed = append(out.Vocabulary.Removed, token{one.ID, one.Text, one.Special})
		}
	}
	if a := p.Aligned; a != nil {
		for _, m := range a.Models {
			out.Aligned = append(out.Aligned, m.Name())
		}
		if out.Reference = recipe.UniverseReference; a.Reference != nil {
			out.Reference = a.Reference.Name()
		}
	}
	for _, t := range p.Tasks {
		o := output{Name: t.Name, Shape: t.Shape, DType: t.DType.String(), Copy: t.Copy, Params: t.Shared}
		for i, in := range t.Inputs {
			j := input{Model: in.Model.Name(), Tensor: in.Pieces, DType: in.DType.String(), Base: i == t.Base}
			if t.PerInput != nil {
				j.Params = t.PerInput[i]
			}
			o.Inputs = append(o.Inputs, j)
		}
		out.Tensors = append(out.Tensors, o)
	}
	return json.Marshal(out)
}
