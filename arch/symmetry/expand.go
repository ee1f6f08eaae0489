package symmetry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/internal/strictyaml"
	"github.com/mergekit/mergekit/tensors"
)

// Source tells the tensors of a checkpoint.
type Source interface {
	Lookup(name string) (tensors.Info, bool)
}

// Bounds of a spec. The largest models have some ten thousand groups and a hundred thousand refs.
const (
	maxGroups = 1 << 17
	maxRefs   = 1 << 19 // optional ones that are not there count as well
	maxCount  = 1 << 20 // of an index
)

// expander fills in a spec file for a model.
type expander struct {
	f       *specFile
	config  arch.Config
	src     Source
	vars    map[string]float64
	index   map[string]int // the bounds
	at      map[string]int // the values, of the indexes that are bound
	order   []string       // of the indexes
	names   map[string]tensors.Info
	tied    map[string]string // a tensor that does not exist, and the shared one, as the spec file names them
	spec    *Spec
	dropped map[string]bool // ids
	refs    int
	errs    []*strictyaml.Error
}

// value implements scope.
func (x *expander) value(name string) (float64, bool, error) {
	if n, ok := x.at[name]; ok {
		return float64(n), true, nil
	}
	if v, ok := x.vars[name]; ok {
		return v, true, nil
	}
	if _, ok := x.index[name]; ok {
		return 0, false, fmt.Errorf("the index %s has no value here", name)
	}
	raw, ok := x.config.Get(name)
	if !ok || raw == nil {
		return 0, false, nil
	}
	switch v := raw.(type) {
	case bool:
		if v {
			return 1, true, nil
		}
		return 0, true, nil
	case interface{ Float64() (float64, error) }: // json.Number
		f, err := v.Float64()
		if err != nil {
			return 0, false, fmt.Errorf("config.json: %q is no number that a model can have", name)
		}
		return f, true, nil
	}
	return 0, false, fmt.Errorf("config.json: %q must be a number, or true or false", name)
}

func (x *expander) has(tensor string) bool {
	_, ok := x.find(tensor)
	return ok
}

func (x *expander) class(end string) bool {
	list := x.config.Architectures()
	return len(list) > 0 && strings.HasSuffix(list[0], end)
}

// find looks a tensor up under its name and under the other names that files give it.
func (x *expander) find(name string) (tensors.Info, bool) {
	if info, ok := x.names[name]; ok {
		return info, true
	}
	for _, n := range x.f.spellings(name) {
		if info, ok := x.src.Lookup(n); ok {
			info.Name = n
			x.names[name] = info
			return info, true
		}
	}
	return tensors.Info{}, false
}

// spellings lists the names under which files may keep a tensor, the given one first.
func (f *specFile) spellings(name string) []string {
	list := []string{name}
	for _, p := range f.prefixes {
		if rest, ok := strings.CutPrefix(name, p); ok {
			list = append(list, rest)
			for _, q := range f.prefixes {
				list = append(list, q+rest)
			}
		}
		list = append(list, p+name)
	}
	for _, a := range f.also {
		for _, n := range slices.Clone(list) {
			if stem, ok := strings.CutSuffix(n, a.name); ok {
				list = append(list, stem+a.value)
			}
		}
	}
	return list
}

func (x *expander) fail(p place, format string, args ...any) {
	for _, e := range x.errs {
		if e.File == p.file && e.Pos == p.pos {
			return // one fault of a line tells about those of all layers
		}
	}
	if len(x.errs) < strictyaml.MaxErrors {
		x.errs = append(x.errs, &strictyaml.Error{File: p.file, Pos: p.pos, Msg: fmt.Sprintf(format, args...)})
	}
}

// expand fills in a spec file whose same has been carried out.
func (f *specFile) expand(name string, config arch.Config, src Source) (*Spec, error) {
	x := &expander{f: f, config: config, src: src, vars: map[string]float64{}, index: map[string]int{}, at: map[string]int{},
		names: map[string]tensors.Info{}, tied: map[string]string{}, dropped: map[string]bool{}, spec: &Spec{Name: name}}
	for _, v := range f.vars {
		value, err := v.value.whole(x)
		if err != nil {
			x.fail(v.place, "the variable %s: %v", v.name, err)
			continue
		}
		x.vars[v.name] = float64(value)
	}
	for _, v := range f.index {
		n, err := v.value.whole(x)
		if err == nil && (n < 0 || n > maxCount) {
			err = fmt.Errorf("counts to %d; at most %d is possible", n, maxCount)
		}
		if err != nil {
			x.fail(v.place, "the index %s: %v", v.name, err)
		}
		x.order = append(x.order, v.name)
		x.index[v.name] = n
	}
	if len(x.errs) > 0 {
		return nil, strictyaml.Join(x.errs) // what follows would repeat it
	}
	x.ties()
	for _, g := range f.groups {
		x.groups(g)
		if len(x.errs) == strictyaml.MaxErrors {
			break
		}
	}
	if len(x.errs) > 0 {
		return nil, strictyaml.Join(x.errs)
	}
	if len(x.spec.Groups) == 0 {
		x.fail(f.place, "the spec has no group for this model: none of its optional tensors is there")
		return nil, strictyaml.Join(x.errs)
	}
	x.untie()
	return x.spec, x.spec.Validate(src)
}

// ties finds out which tensors are shared.
func (x *expander) ties() {
	for _, t := range x.f.tied {
		v, ok := x.vars["tied"]
		if !ok {
			x.fail(t.place, `the variable tied says whether tensors are shared; add it to vars, such as "tied: tie_word_embeddings or false"`)
		}
		if v == 0 {
			continue
		}
		if _, ok := x.find(t.value); ok {
			x.tied[t.name] = t.value
		}
	}
}

// untie drops from the spec what is said about a shared tensor's other name where no group can be turned.
func (x *expander) untie() {
	s := x.spec
	for name, shared := range x.tied {
		stored := name
		info, copied := x.find(name)
		if copied {
			stored = info.Name // a copy that nobody reads
		}
		for i := range s.Groups {
			g := &s.Groups[i]
			if !slices.ContainsFunc(g.Refs, func(r Ref) bool { return r.Tensor == stored }) {
				continue
			}
			if !slices.Contains(g.Kinds, Orthogonal) {
				continue
			}
			if s.Untie == nil {
				s.Untie = map[string]string{}
			}
			s.Untie[stored] = x.names[shared].Name
			if g.Kind == Orthogonal {
				g.Kind = widest(g.Kinds, func(k Kind) bool { return k != Orthogonal && k != Invertible })
			}
		}
		switch _, ok := s.Untie[stored]; {
		case !ok:
			s.forget(stored, x.src)
		case copied:
			s.Copies = append(s.Copies, stored)
		}
	}
	slices.Sort(s.Copies)
}

// widest returns the last kind that may be, "" if none may.
func widest(kinds []Kind, may func(Kind) bool) Kind {
	for _, k := range slices.Backward(kinds) {
		if may(k) {
			return k
		}
	}
	return ""
}

// forget removes a tensor's refs if the tensor does not exist.
func (s *Spec) forget(tensor string, src Source) {
	if src != nil {
		if _, ok := src.Lookup(tensor); ok {
			return
		}
	}
	for i := range s.Groups {
		s.Groups[i].Refs = slices.DeleteFunc(s.Groups[i].Refs, func(r Ref) bool { return r.Tensor == tensor })
	}
	for i := range s.Norms {
		s.Norms[i].Readers = slices.DeleteFunc(s.Norms[i].Readers, func(r string) bool { return r == tensor })
	}
}

// loop calls visit for all values of the indexes, and stops when it says false.
func (x *expander) loop(indexes []string, visit func() bool) bool {
	if len(indexes) == 0 {
		return visit()
	}
	name := indexes[0]
	defer delete(x.at, name)
	for i := range x.index[name] {
		x.at[name] = i
		if !x.loop(indexes[1:], visit) {
			return false
		}
	}
	return true
}

// groups makes the groups of a definition.
func (x *expander) groups(g *groupDef) {
	all := 1
	for _, name := range g.indexes {
		n, ok := x.index[name]
		if !ok {
			x.fail(g.place, "the group %s counts with %s, which is not under index", strictyaml.Clip(g.key), strictyaml.Clip(name))
			return
		}
		if n > 0 && all > maxGroups/n {
			all = maxGroups + 1
			break
		}
		all *= n
	}
	if len(x.spec.Groups)+all > maxGroups {
		x.fail(g.place, "the group %s would be there more than %d times, which no model needs", strictyaml.Clip(g.key), maxGroups)
		return
	}
	x.loop(g.indexes, func() bool { return x.group(g) })
}

// group makes one group. It returns false after a fault.
func (x *expander) group(d *groupDef) bool {
	id, err := d.id.render(x)
	number := func(e *expr, what string, least int) int {
		if e == nil || err != nil {
			return least
		}
		n, fault := e.whole(x)
		if fault == nil && (n < least || n > maxNumber) {
			fault = fmt.Errorf("is %d", n)
		}
		if fault != nil {
			err = fmt.Errorf("its %s %w", what, fault)
		}
		return n
	}
	g := Group{ID: id, Kinds: slices.Clone(d.kinds), Kind: d.def, Interleaved: d.interleaved, Positive: d.positive, Restrict: d.restrict}
	if g.Kind == "" {
		g.Kind = g.Kinds[len(g.Kinds)-1]
	}
	if d.cond != nil && number(d.cond, "if", 0) == 0 && err == nil {
		x.dropped[id] = true
		return true
	}
	g.Size = number(d.size, "size", 1)
	if d.parent != nil && err == nil {
		g.Parent, err = d.parent.render(x)
		g.Block = number(d.block, "block", 0)
		switch _, ok := x.spec.Group(g.Parent); {
		case err != nil || ok:
		case x.dropped[g.Parent]:
			g.Parent, g.Block = "", 0
		default:
			err = fmt.Errorf("its parent %s is not there; parents stand before what lies inside of them", strictyaml.Quoted(g.Parent))
		}
	}
	if err != nil {
		x.fail(d.place, "group %s: %v", strictyaml.Clip(id), err)
		return false
	}
	m := &maker{x: x, g: &g, norms: map[string]int{}}
	for _, l := range d.lines {
		if !x.loop(l.indexes(x.order, d.indexes), func() bool { return m.line(l) }) {
			return false
		}
	}
	has := func(role Role) bool {
		return slices.ContainsFunc(g.Refs, func(r Ref) bool { return r.Role == role })
	}
	alone := g.Size == 1 && (g.Kinds[len(g.Kinds)-1] == Perm || g.Kinds[len(g.Kinds)-1] == HeadGroup)
	switch {
	case m.missing && !(has(Read) && has(Write)), alone:
		x.dropped[id] = true
		return true
	case !has(Write):
		x.fail(d.place, "group %s: no ref writes its features; mark the tensors that make them", strictyaml.Clip(id))
		return false
	case !has(Read):
		x.fail(d.place, "group %s: no ref reads its features; mark the tensors that take them", strictyaml.Clip(id))
		return false
	}
	x.spec.Groups = append(x.spec.Groups, g)
	x.spec.Norms = append(x.spec.Norms, m.made...)
	return true
}

// maker makes the refs of one group.
type maker struct {
	x       *expander
	g       *Group
	norms   map[string]int // index in made, by gain
	made    []Norm
	missing bool // an optional tensor is not there
}

// line adds the refs of a line for the present values of the indexes. It returns false after a fault.
func (m *maker) line(l *refLine) bool {
	x := m.x
	if l.cond != nil {
		on, err := l.cond.whole(x)
		if err != nil {
			x.fail(l.place, "group %s: if %v", strictyaml.Clip(m.g.ID), err)
			return false
		}
		if on == 0 {
			m.missing = true
			return true
		}
	}
	var gains []string
	for i := range l.targets {
		t := &l.targets[i]
		name, there, ok := m.ref(l, t, l.role)
		if !ok {
			return false
		}
		if there && l.role == Gain {
			gains = append(gains, name)
		}
	}
	var readers []string
	for i := range l.readers {
		name, there, ok := m.ref(l, &l.readers[i], Read)
		if !ok {
			return false
		}
		if there {
			readers = append(readers, name)
		}
	}
	if len(l.readers) == 0 {
		return true
	}
	for _, gain := range gains {
		at, ok := m.norms[gain]
		if !ok {
			at = len(m.made)
			m.norms[gain] = at
			m.made = append(m.made, Norm{Group: m.g.ID, Gain: gain, Offset: l.gain})
		}
		m.made[at].Readers = append(m.made[at].Readers, readers...)
	}
	return true
}

// ref adds the refs of a target. there: the tensor exists, or will when it is untied. ok is false after a fault.
func (m *maker) ref(l *refLine, t *target, role Role) (name string, there, ok bool) {
	x, g := m.x, m.g
	group := strictyaml.Clip(g.ID)
	if x.refs++; x.refs > maxRefs {
		x.fail(l.place, "group %s: the spec has more than %d refs, which no model needs", group, maxRefs)
		return "", false, false
	}
	written, err := t.name.render(x)
	if err != nil {
		x.fail(l.place, "group %s: %v", group, err)
		return "", false, false
	}
	info, found := x.find(written)
	if !found && x.tied[written] != "" {
		info, found = x.find(x.tied[written])
		info.Name = written
	}
	if !found {
		if t.optional {
			m.missing = true
			return "", false, true
		}
		x.fail(l.place, "group %s: the checkpoint has no tensor %s; correct the name, or mark it as optional: %s?", group, strictyaml.Clip(written), strictyaml.Clip(written))
		return "", false, false
	}
	if role == Gain {
		if slices.ContainsFunc(g.Refs, func(r Ref) bool { return r.Tensor == info.Name && r.Role == Gain }) {
			return info.Name, true, true // the same norm again, for other readers
		}
	}
	r := Ref{Tensor: info.Name, Axis: t.axis, Block: 1, Tile: 1, Role: role, Silent: l.silent}
	step, shift := 0, 0
	for _, o := range []struct {
		e     *expr
		to    *int
		what  string
		least int
	}{{l.offset, &r.Offset, "offset", 0}, {l.block, &r.Block, "block", 1}, {l.tile, &r.Tile, "tile", 1}, {l.step, &step, "step", 1}, {l.shift, &shift, "shift", 0}} {
		if o.e == nil {
			continue
		}
		n, err := o.e.whole(x)
		if err == nil && n < o.least {
			err = fmt.Errorf("is %d", n)
		}
		if err != nil {
			x.fail(l.place, "group %s: %s: %s %v", group, strictyaml.Clip(info.Name), o.what, err)
			return "", false, false
		}
		*o.to = n
	}
	if t.axis >= len(info.Shape) {
		x.fail(l.place, "group %s: %s has the shape %v and no axis %d", group, strictyaml.Clip(info.Name), info.Shape, t.axis)
		return "", false, false
	}
	r.Whole, r.Shift = info.Shape[t.axis], float64(shift)
	list := []Ref{r}
	if one := r; step > 0 {
		one.Tile = 1
		span, fits := g.span(one)
		if !fits || span > step {
			x.fail(l.place, "group %s: %s: the features are %d long, more than the step of %d", group, strictyaml.Clip(info.Name), span, step)
			return "", false, false
		}
		if span < step && r.Tile > 1 {
			if r.Tile > r.Whole {
				x.fail(l.place, "group %s: %s: %d repetitions do not fit into %d", group, strictyaml.Clip(info.Name), r.Tile, r.Whole)
				return "", false, false
			}
			list = nil
			for i := range r.Tile {
				part := one
				part.Offset += i * step
				list = append(list, part)
			}
			x.refs += len(list)
		}
	}
	for _, r := range list {
		if fault := g.fits(r); fault != "" {
			x.fail(l.place, "group %s: %s: %s", group, strictyaml.Clip(info.Name), fault)
			return "", false, false
		}
		if span, _ := g.span(r); l.offset == nil && step == 0 && span != r.Whole {
			x.fail(l.place, "group %s: %s: axis %d is %d long, and the group's features fill %d of it; correct the size, or write offset=0 if the rest is meant to stay",
				group, strictyaml.Clip(info.Name), r.Axis, r.Whole, span)
			return "", false, false
		}
		g.Refs = append(g.Refs, r)
	}
	return info.Name, true, true
}
