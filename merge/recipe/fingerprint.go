package recipe

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// Fingerprint is the SHA-256, in hexadecimal, of what the recipe says: equal for recipes that differ in comments, layout, quoting,
// order of keys, anchors, or the spelling of paths and numbers only. File names and positions do not count.
func (r *Recipe) Fingerprint() string {
	p := print{sha256.New()}
	p.text("recipe 1") // version of what follows
	p.text(r.Method)
	p.ref(r.Base)
	p.sources(r.Models)
	p.slices(r.Slices)
	p.count(len(r.Modules))
	for i := range r.Modules {
		m := &r.Modules[i]
		p.text(m.Name)
		p.sources(m.Models)
		p.slices(m.Slices)
		p.params(m.Params)
	}
	p.params(r.Params)
	p.text(r.DType)
	p.text(r.OutDType)
	p.tokenizer(r)
	p.text(r.ChatTemplate)
	p.text(r.Name)
	return hex.EncodeToString(p.Sum(nil))
}

// print writes values with their lengths, so that no two recipes write the same bytes.
type print struct{ hash.Hash }

func (p print) count(n int) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	p.Write(b[:])
}

func (p print) text(s string) {
	p.count(len(s))
	p.Write([]byte(s))
}

func (p print) flag(b bool) {
	if b {
		p.count(1)
	} else {
		p.count(0)
	}
}

func (p print) ref(m *ModelRef) {
	if m == nil {
		p.flag(false)
		return
	}
	p.flag(true)
	n := m.normal()
	for _, s := range []string{n.Path, n.Revision, n.LoraPath, n.LoraRevision, n.OverrideArchitecture} {
		p.text(s)
	}
}

func (p print) sources(list []Source) {
	p.count(len(list))
	for i := range list {
		s := &list[i]
		p.ref(&s.Model)
		p.flag(s.HasRange)
		p.count(s.LayerRange[0])
		p.count(s.LayerRange[1])
		p.params(s.Params)
	}
}

func (p print) slices(list []Slice) {
	p.count(len(list))
	for i := range list {
		s := &list[i]
		p.ref(s.Base)
		p.sources(s.Sources)
		p.params(s.Params)
	}
}

// params hashes settings by name, since their order says nothing.
func (p print) params(list Params) {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	p.count(len(sorted))
	for _, param := range sorted {
		p.text(param.Name)
		p.count(len(param.Setting.conds))
		for i := range param.Setting.conds {
			c := &param.Setting.conds[i]
			if c.matchesAll() {
				p.text("")
			} else {
				p.text(c.filter)
			}
			p.count(len(c.values))
			for _, v := range c.values {
				p.scalar(v)
			}
		}
	}
}

// scalar hashes a value so that 1 and 1.0, which every kind of parameter takes alike, are equal.
func (p print) scalar(s scalar) {
	switch {
	case s.Form == strictyaml.FormBool:
		p.text("bool")
		p.flag(s.Bool)
	case s.Form == strictyaml.FormInt && int64(float64(s.Int)) != s.Int:
		p.text("int")
		p.count(int(s.Int))
	case s.Form == strictyaml.FormInt:
		p.text("number")
		p.count(int(math.Float64bits(float64(s.Int))))
	case s.Form == strictyaml.FormFloat:
		p.text("number")
		p.count(int(math.Float64bits(s.Float)))
	default:
		p.text("text")
		p.text(s.Text)
	}
}

func (p print) tokenizer(r *Recipe) {
	t := r.Tokenizer
	if t == nil && r.TokenizerSource != "" { // the short form of the same
		t = &Tokenizer{Source: r.TokenizerSource, SourceRef: r.TokenizerSourceRef}
	}
	if t == nil {
		p.flag(false)
		return
	}
	p.flag(true)
	if t.SourceRef == nil {
		p.text(t.Source)
	}
	p.ref(t.SourceRef)
	p.count(len(t.Tokens))
	for i := range t.Tokens {
		rule := &t.Tokens[i]
		p.text(rule.Token)
		p.text(string(rule.Kind))
		p.ref(rule.Model)
		p.text(rule.From)
		p.count(rule.FromID)
		p.flag(rule.Force)
	}
	p.count(t.PadToMultipleOf)
}
