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
// order of keys, anchors, or the spelling of paths and numbers only. File names and positions do not count, and neither do evaluate and
// search: measuring a merge changes none of its bytes, and what a search has found stands under parameters. A method that selects by
// what evaluate measures adds Measure.Fingerprint.
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
	p.alignment(r)
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

// alignment hashes the keys about alignment. A recipe without them hashes to what it did before there were any. What a recipe requires
// changes nothing.
func (p print) alignment(r *Recipe) {
	if a := r.Align; a != nil {
		p.text("align")
		p.ref(a.Reference)
		p.flag(a.Universe)
		for _, s := range []string{a.Method, a.Symmetry, a.Groups.Residual, a.Groups.VO, cleanPath(a.Spec), a.Normalize, a.Init, a.OnSameBase} {
			p.text(s)
		}
		for _, b := range []bool{a.Groups.MLP, a.Groups.Heads, a.Groups.QK} {
			p.flag(b)
		}
		p.count(a.Rounds)
		p.count(a.Restarts)
		p.count(int(a.Seed))
		p.number(a.Lambda)
		p.count(len(a.Learn.Groups))
		for _, g := range a.Learn.Groups {
			p.text(g)
		}
		p.count(a.Learn.Steps)
		p.count(a.Learn.Batch)
		for _, v := range []float64{a.Learn.HeldOut, a.Learn.LR, a.Learn.Lambda[0], a.Learn.Lambda[1]} {
			p.number(v)
		}
		p.count(len(a.Maps))
		for i := range a.Maps {
			p.ref(a.Maps[i].Model)
			p.text(cleanPath(a.Maps[i].File))
		}
	}
	if r.Repair != nil {
		p.text("repair")
		p.text(r.Repair.Mode)
		p.count(r.Repair.Samples)
	}
	if c := r.Calibration; c != nil {
		p.text("calibration")
		p.count(len(c.Data))
		for _, file := range c.Data {
			p.text(cleanPath(file))
		}
		p.text(c.Field)
		p.count(c.Samples)
		p.count(c.SeqLen)
		p.count(int(c.Seed))
		p.count(c.Batch)
		p.number(c.Divide)
		p.flag(c.LabelFirst)
	}
	if r.SaveAlignment != "" {
		p.text("save_alignment")
		p.text(r.SaveAlignment)
	}
}

func (p print) number(v float64) { p.count(int(math.Float64bits(v))) }
