package learn

import (
	"context"
	"fmt"
	"math"
	"math/cmplx"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/match"
	"github.com/mergekit/mergekit/model"
)

// Options say how a map is learned. Zero values are the defaults.
type Options struct {
	// Start is the map to begin with; nil: what weight matching finds.
	Start *align.Map
	// Matching says how weights are matched: for Start, and by STE in every step, there from the last map on.
	Matching match.Options
	// Steps is how many batches are learned from: 500 for Refine, 300 for STE.
	Steps int
	// Every is how many steps lie between two looks at the held-out examples; 0: a twentieth of Steps.
	Every int
	// Rate is the learning rate, 1e-2 unless it is given: of Adam in Refine (radians by which two features turn into each other in a step
	// at most), where it falls to zero along a cosine; of SGD with momentum in STE. Between two small Llamas trained apart
	// (scripts/train-pairs) learning from the identity on left barriers of 0.80 at 1e-3, 0.55 at 5e-3, 0.42 at 1e-2 and 0.38 at 5e-2 of
	// one of 1.80 on held-out text; from weight matching on, 0.32 of 0.76.
	Rate float64
	// Momentum of STE; 0: 0.9.
	Momentum float64
	// Lambda is from where to where the share of A is drawn in Refine; zeros: 0.4 to 0.6.
	Lambda [2]float64
	// Groups are what Refine learns: Residual, Phases, VO, QK, or ids of groups; nil: Residual.
	Groups []string
	Seed   uint64
	// Threads that products may use; 0: all.
	Threads int
	// Progress is told how far it is; it may be nil.
	Progress func(done, total int, what string)
}

func (o Options) fill(steps int) Options {
	if o.Steps <= 0 {
		o.Steps = steps
	}
	if o.Every <= 0 {
		o.Every = max(o.Steps/20, 1)
	}
	if o.Rate <= 0 {
		o.Rate = 1e-2
	}
	if o.Momentum == 0 {
		o.Momentum = 0.9
	}
	if o.Lambda == [2]float64{} {
		o.Lambda = [2]float64{0.4, 0.6}
	}
	if len(o.Groups) == 0 {
		o.Groups = []string{Residual}
	}
	if o.Progress == nil {
		o.Progress = func(int, int, string) {}
	}
	return o
}

// Result is a map that was learned.
type Result struct {
	Map *align.Map
	// Train and HeldOut are the losses of the models and of their midpoint, before and after.
	Train, HeldOut Split
	// Steps were taken; Best is the one whose map was taken, 0 if no step made the held-out loss smaller.
	Steps, Best int
	Trace       []Point
	// Learned lists the groups that were learned, in the spec's order.
	Learned []string
}

// pair is the models between which is aligned, read as an objective needs them.
type pair struct {
	o    Objective
	spec *symmetry.Spec
	a    Values
	b    align.Weights
}

// newPair reads A.
func newPair(spec *symmetry.Spec, a, b align.Weights, o Objective) (*pair, error) {
	p := &pair{o: o, spec: spec, b: b}
	var err error
	p.a, err = p.read(a)
	return p, err
}

// read reads the tensors that the loss depends on. What the spec unties may be missing: it is the tensor that it is shared with.
func (p *pair) read(w align.Weights) (Values, error) {
	out := Values{}
	for _, name := range p.o.Names() {
		from := name
		if _, ok := w.Lookup(name); !ok && p.spec.Untie[name] != "" {
			from = p.spec.Untie[name]
		}
		v, err := w.Read(from)
		if err != nil {
			return nil, err
		}
		out[name] = v
	}
	return out, nil
}

// hold keeps the tensors of B that the loss depends on in memory.
func (p *pair) hold() error {
	held := map[string]model.Tensor{}
	for _, name := range p.o.Names() {
		if _, ok := p.b.Lookup(name); !ok && p.spec.Untie[name] != "" {
			name = p.spec.Untie[name]
		}
		info, ok := p.b.Lookup(name)
		if !ok {
			return &align.Error{Tensor: name, Msg: "the other model has no such tensor", Hint: "only models of one architecture can be aligned"}
		}
		v, err := p.b.Read(name)
		if err != nil {
			return err
		}
		held[name] = model.Tensor{Shape: info.Shape, Data: v}
	}
	p.b = align.OfTensors(held)
	return nil
}

// between returns s*A + (1-s)*B.
func (p *pair) between(b Values, s float64) Values {
	out := Values{}
	x, y := float32(s), float32(1-s)
	for name, va := range p.a {
		vb := b[name]
		m := make([]float32, len(va))
		for i := range m {
			m[i] = x*va[i] + y*vb[i]
		}
		out[name] = m
	}
	return out
}

// mean returns the mean loss of weights.
func (p *pair) mean(ctx context.Context, w Values, heldOut bool) (float64, error) {
	r, err := p.o.Loss(ctx, w, heldOut)
	if err != nil {
		return 0, err
	}
	return r.MeanLoss(), nil
}

// ends fills in the losses of the models and of the first midpoint.
func (p *pair) ends(ctx context.Context, b Values, r *Result) error {
	for _, s := range []struct {
		to      *Split
		heldOut bool
	}{{&r.Train, false}, {&r.HeldOut, true}} {
		for _, x := range []struct {
			to *float64
			w  Values
		}{{&s.to.A, p.a}, {&s.to.B, b}, {&s.to.Before, p.between(b, 0.5)}} {
			var err error
			if *x.to, err = p.mean(ctx, x.w, s.heldOut); err != nil {
				return err
			}
			if !finite(*x.to) {
				return &align.Error{Msg: fmt.Sprintf("the loss of the models is %v", *x.to), Hint: "check the models on these rows with mergekit eval"}
			}
		}
		s.to.After = s.to.Before
	}
	return nil
}

// check refuses shapes of A and B that differ, where an aligned B is read later.
func (p *pair) check(b Values) error {
	for name, v := range p.a {
		if len(b[name]) != len(v) {
			return &align.Error{Tensor: name, Msg: fmt.Sprintf("has %d values in the reference and %d in the other model", len(v), len(b[name])), Hint: "only models of one size can be aligned"}
		}
	}
	return nil
}

// start finds the first map.
func (p *pair) start(ctx context.Context, a align.Weights, o Options) (*align.Map, error) {
	if o.Start != nil {
		return o.Start, nil
	}
	o.Progress(0, o.Steps, "weight matching")
	found, err := match.Pair(ctx, p.spec, a, p.b, o.Matching)
	if err != nil {
		return nil, err
	}
	return found.Map, nil
}

// nothing is the error where the groups that were asked for have no continuous map.
func nothing(spec *symmetry.Spec, words []string) error {
	var kinds []string
	id := ""
	for i := range spec.Groups {
		g := &spec.Groups[i]
		if slices.ContainsFunc(words, func(w string) bool { return asked(w, g) }) {
			if id == "" {
				id = g.ID
			}
			if k := string(g.Kind); !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	if id == "" {
		return &align.Error{Msg: fmt.Sprintf("the spec %s has no group that %s means", spec.Name, strings.Join(words, ", ")), Hint: "learn.groups takes residual, phases, vo, qk and ids of groups"}
	}
	const hint = "symmetry: full turns the stream where the architecture allows it (a head that is the embedding becomes its own); or learn vo, qk or phases (learn.groups), or use method: weight"
	return &align.Error{Group: id, Msg: "there is nothing to learn: its maps are " + strings.Join(kinds, ", ") + ", which are not continuous", Hint: hint}
}

// Refine learns the rotation of the residual stream, and what else Groups names, from the map of weight matching on: the loss of
// s*A + (1-s)*B with s drawn anew in every step falls along Adam's steps, taken on the group itself (Cayley's map of a skew-symmetric
// step), so that every map on the way is exact. The gradient by the rotation is that by the merged weights, carried over by the chain
// rule: for new W = (I+D) W it is (dL/dW) W', of which the skew-symmetric part counts.
//
// It is the data-driven matching of section 7.6 of our notes (after Verma and Elbayad, 2024, and Ainsworth et al., 2022), with permutations
// left alone: they hardly change from where weight matching puts them.
func Refine(ctx context.Context, spec *symmetry.Spec, a, b align.Weights, obj Objective, o Options) (*Result, error) {
	o = o.fill(500)
	if !(o.Lambda[0] >= 0 && o.Lambda[0] <= o.Lambda[1] && o.Lambda[1] <= 1) {
		return nil, &align.Error{Msg: fmt.Sprintf("lambda %v is no range between 0 and 1", o.Lambda)}
	}
	if len(choose(spec, o.Groups)) == 0 {
		return nil, nothing(spec, o.Groups)
	}
	p, err := newPair(spec, a, b, obj)
	if err != nil {
		return nil, err
	}
	first, err := p.start(ctx, a, o)
	if err != nil {
		return nil, err
	}
	if err := p.hold(); err != nil {
		return nil, err
	}
	t, err := newTurner(p, a, first, o)
	if err != nil {
		return nil, err
	}
	r := &Result{Map: first, Steps: o.Steps}
	for _, l := range t.groups {
		r.Learned = append(r.Learned, l.group.ID)
	}
	if err := p.ends(ctx, t.base, r); err != nil {
		return nil, err
	}
	best := r.HeldOut.Before
	r.Trace = append(r.Trace, Point{0, best})
	for step := range o.Steps {
		now, err := t.weights()
		if err != nil {
			return nil, err
		}
		s := o.Lambda[0] + (o.Lambda[1]-o.Lambda[0])*share(o.Seed, uint64(step), 1)
		loss, grad, err := obj.Gradient(ctx, p.between(now, s), o.Seed, step)
		if err != nil {
			return nil, err
		}
		if !finite(loss) {
			return nil, &align.Error{Msg: fmt.Sprintf("the loss between the models is %v after %d steps", loss, step), Hint: "lower learn.lr"}
		}
		rate := o.Rate * (1 + math.Cos(math.Pi*float64(step)/float64(o.Steps))) / 2
		for _, l := range t.groups {
			g := l.gradient(now, grad, t.to, o.Threads)
			for i := range g {
				g[i] *= 1 - s
			}
			if err := l.move(g, rate); err != nil {
				return nil, err
			}
		}
		o.Progress(step+1, o.Steps, fmt.Sprintf("loss between the models %.4g", loss))
		if (step+1)%o.Every != 0 && step+1 != o.Steps {
			continue
		}
		if now, err = t.weights(); err != nil {
			return nil, err
		}
		l, err := p.mean(ctx, p.between(now, 0.5), true)
		if err != nil {
			return nil, err
		}
		r.Trace = append(r.Trace, Point{step + 1, l})
		if l < best {
			best, r.Best = l, step+1
			if r.Map, err = t.found(); err != nil {
				return nil, err
			}
		}
	}
	if r.Best == 0 {
		return r, nil
	}
	end, err := p.read(align.Aligned(p.b, r.Map))
	if err != nil {
		return nil, err
	}
	return r, p.finish(ctx, end, r)
}

// finish measures the midpoint of the map that was chosen.
func (p *pair) finish(ctx context.Context, b Values, r *Result) (err error) {
	mid := p.between(b, 0.5)
	if r.Train.After, err = p.mean(ctx, mid, false); err != nil {
		return err
	}
	r.HeldOut.After, err = p.mean(ctx, mid, true)
	return err
}

// turner applies what is learned to B on top of a first map.
type turner struct {
	spec   *symmetry.Spec
	groups []*learned
	b      align.Weights
	first  *align.Map           // that learning began with
	base   Values               // the tensors of B under it
	to     map[string][]float64 // gains of the reference, which the aligned model has
	from   map[string][]float64 // gains of the B that was mapped before
}

// newTurner finds the groups to learn and where they act.
func newTurner(p *pair, a align.Weights, first *align.Map, o Options) (*turner, error) {
	moved := align.Aligned(p.b, first)
	t := &turner{spec: p.spec, b: p.b, first: first}
	var err error
	if t.base, err = p.read(moved); err != nil {
		return nil, err
	}
	if err := p.check(t.base); err != nil {
		return nil, err
	}
	if t.to, err = align.ReadGains(p.spec, a); err != nil {
		return nil, err
	}
	if t.from, err = align.ReadGains(p.spec, moved); err != nil { // the reference's, where the first map has turned the stream already
		return nil, err
	}
	shape := func(name string) ([]int, bool) {
		info, ok := moved.Lookup(name)
		if from := p.spec.Untie[name]; !ok && from != "" {
			info, ok = moved.Lookup(from)
		}
		return info.Shape, ok && p.a[name] != nil
	}
	for _, g := range choose(p.spec, o.Groups) {
		t.groups = append(t.groups, newLearned(p.spec, g, shape))
	}
	return t, nil
}

// choose returns the groups that words mean and about which there is something to learn.
func choose(spec *symmetry.Spec, words []string) (out []*symmetry.Group) {
	for i := range spec.Groups {
		g := &spec.Groups[i]
		if continuous(g) && slices.ContainsFunc(words, func(w string) bool { return asked(w, g) }) {
			out = append(out, g)
		}
	}
	return out
}

// element is what was learned, as a map that comes after the first.
func (t *turner) element() *align.Map {
	m := align.Identity(t.spec)
	for _, l := range t.groups {
		if l.phases != nil {
			e := align.Element{Kind: symmetry.RopePlane, Plane: make([]complex128, len(l.phases))}
			for j, x := range l.phases {
				e.Plane[j] = cmplx.Rect(1, x)
			}
			m.Elements[l.group.ID] = e
			continue
		}
		m.Elements[l.group.ID] = align.Element{Kind: symmetry.Orthogonal, Matrix: slices.Clone(l.matrix)}
	}
	return m.WithGains(t.from, t.to)
}

// found is the whole map of B as it is now.
func (t *turner) found() (*align.Map, error) { return align.Compose(t.element(), t.first) }

// weights are those of the aligned B as it is now. Tensors that nothing learned acts on are shared with base.
func (t *turner) weights() (Values, error) {
	touched := map[string]bool{}
	for _, l := range t.groups {
		for _, p := range l.places {
			touched[p.tensor] = true
		}
		for _, n := range t.spec.Norms {
			touched[n.Gain] = touched[n.Gain] || n.Group == l.group.ID
		}
	}
	m, err := t.found()
	if err != nil {
		return nil, err
	}
	now := align.Aligned(t.b, m)
	out := Values{}
	for name, v := range t.base {
		if !touched[name] {
			out[name] = v
			continue
		}
		x, err := now.Read(name)
		if err != nil {
			return nil, err
		}
		out[name] = x
	}
	return out, nil
}
