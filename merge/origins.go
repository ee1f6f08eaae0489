package merge

import (
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/stages"
)

// origin is a model that an output was made of and that was there before: itself an input, or the input of a stage.
type origin struct {
	ref             recipe.ModelRef
	dir, adapterDir string
	files           []string
	base            bool // it is the base model
	remote          bool // it is named as a hub or an object store has it
	speller         bool // it gives its tokenizer alone, and files are those of it
}

func originOf(m *plan.Model, r *recipe.Recipe) origin {
	return origin{ref: m.Ref, dir: m.Dir, adapterDir: m.AdapterDir, files: m.Files(), remote: m.Remote, base: r.Base != nil && m.Ref.Same(*r.Base)}
}

// spelling is a model whose tokenizer alone is read.
func spelling(m *plan.Model) origin {
	o := origin{ref: m.Ref, dir: m.Dir, adapterDir: m.AdapterDir, remote: m.Remote, speller: true}
	for _, f := range besideFiles(&plan.Model{Dir: m.TokenizerDir()}, vocabularyFiles...) {
		o.files = append(o.files, f.from)
	}
	return o
}

// same says whether two origins are one model, read for the same.
func (o origin) same(other origin) bool { return o.ref.Same(other.ref) && o.speller == other.speller }

// direct lists the inputs of a plan that no stage makes.
func direct(p *plan.Plan) (list []origin) {
	for _, m := range p.Models {
		if m.Stage == nil {
			list = append(list, originOf(m, p.Recipe))
		}
	}
	if m := p.Speller; m != nil && m.Stage == nil {
		list = append(list, spelling(m))
	}
	return list
}

// origins lists what a plan's output is made of: its own inputs, then those of the stages that it uses. A nil staging has none.
func (st *staging) origins(p *plan.Plan) []origin {
	list := direct(p)
	for _, m := range p.Read() {
		if m.Stage != nil {
			s := st.g.Named(m.Stage.Name)
			list = st.join(list, append([]*stages.Stage{s}, s.Upstream(nil)...))
		}
	}
	return list
}

// join adds what stages are made of.
func (st *staging) join(list []origin, of []*stages.Stage) []origin {
	for _, s := range of {
		for _, m := range st.reads[s] {
			if !slices.ContainsFunc(list, m.same) {
				m.base = m.base && s == st.g.Output // other bases are those of stages
				list = append(list, m)
			}
		}
	}
	return list
}

// read lists what the output of the recipes of a file is made of.
func read(list []*recipe.Recipe, o Options) ([]origin, error) {
	if len(list) == 1 {
		p, err := plan.Build(list[0], o.Plan)
		if err != nil {
			return nil, &InputError{err}
		}
		defer p.Close()
		return direct(p), nil
	}
	st, err := newStaging(list, o)
	if err != nil {
		return nil, err
	}
	defer st.forget()
	if err := st.check(nil); err != nil {
		return nil, err
	}
	for _, s := range st.wanted() {
		if st.reads[s] != nil {
			continue
		}
		for _, ref := range s.Recipe.References() { // of a recipe that cannot be planned yet
			if st.g.Named(ref.Path) != nil {
				continue
			}
			m, err := plan.OpenModel(ref, filepath.Dir(s.Recipe.File), st.o.Plan)
			if err != nil {
				return nil, &InputError{err}
			}
			st.reads[s] = append(st.reads[s], originOf(m, s.Recipe))
			m.Close()
		}
		if ref := s.Recipe.TokenizerModel(); ref != nil && st.g.Named(ref.Path) == nil && !slices.ContainsFunc(s.Recipe.References(), ref.Same) {
			m, err := plan.OpenTokenizer(*ref, filepath.Dir(s.Recipe.File), st.o.Plan)
			if err != nil {
				return nil, &InputError{err}
			}
			st.reads[s] = append(st.reads[s], spelling(m))
		}
	}
	return st.join(nil, append([]*stages.Stage{st.g.Output}, st.g.Output.Upstream(nil)...)), nil
}
