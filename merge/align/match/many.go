package match

import (
	"context"
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// Ways to a consensus (ManyOptions.Way).
const (
	// Cyclic aligns one model after the other to the mean of the others, in a new random order every sweep: coordinate ascent on the sum of
	// the inner products of all pairs. Ainsworth et al., 2023, algorithm 2 (MergeMany).
	Cyclic = "cyclic"
	// Universe aligns all models to the mean of all, then takes the mean again. No model comes before another, but each holds on to the mean
	// that it is part of.
	Universe = "universe"
)

// ManyOptions are those of Many.
type ManyOptions struct {
	Options
	Way string // Cyclic (or "") | Universe
	// ToFirst gives maps into the coordinates of the first model, which then stays as it is. Otherwise all models move a little.
	ToFirst bool
}

// ManyResult is a consensus.
type ManyResult struct {
	Maps          []*align.Map // of every model into the common coordinates
	Before, After float64      // mean cosine of all pairs of models
	Moved         []float64    // of every model
	Sweeps        int
	Certificates  int
}

// Many brings three or more models to common coordinates, so that any two of them are aligned: the map from one to another is that to
// the consensus and back. The maps begin with those to the first model.
func Many(ctx context.Context, spec *symmetry.Spec, models []align.Weights, o ManyOptions) (*ManyResult, error) {
	if len(models) < 2 {
		return nil, &align.Error{Msg: fmt.Sprintf("%d models have no consensus", len(models)), Hint: "name two or more"}
	}
	if o.Way == "" {
		o.Way = Cyclic
	}
	if o.Way != Cyclic && o.Way != Universe {
		return nil, &align.Error{Msg: fmt.Sprintf("consensus %q is not known", o.Way), Hint: "cyclic and universe are"}
	}
	if o.Tokens != nil || o.Scores != nil {
		return nil, &align.Error{Msg: "a consensus is one of weights, of models with one vocabulary", Hint: "align each model to a reference instead"}
	}
	if err := o.fill(); err != nil {
		return nil, err
	}
	o.NoReport = true
	c := &consensus{ctx: ctx, spec: spec, o: o, models: models, res: &ManyResult{Maps: make([]*align.Map, len(models)), Moved: make([]float64, len(models))}}
	if err := c.begin(); err != nil {
		return nil, err
	}
	limit, least := o.Rounds, 1e-4
	if c.small {
		limit, least = o.MaxIter, 1e-6
	}
	for c.res.Sweeps = 1; c.res.Sweeps <= limit; c.res.Sweeps++ {
		gain, err := c.sweep()
		if err != nil {
			return nil, err
		}
		if gain < least {
			break
		}
	}
	c.res.Sweeps = min(c.res.Sweeps, limit)
	return c.finish()
}

// consensus is a search for common coordinates.
type consensus struct {
	ctx    context.Context
	spec   *symmetry.Spec
	o      ManyOptions
	models []align.Weights
	now    []align.Weights // as they are aligned
	small  bool            // so that now is held in memory
	res    *ManyResult
}

func (c *consensus) begin() error {
	total := int64(0)
	for _, w := range c.models {
		for _, n := range w.Names() {
			info, _ := w.Lookup(n)
			total += info.Elems()
		}
	}
	c.small = total <= inMemory
	c.now = slices.Clone(c.models)
	for i := range c.models {
		c.res.Maps[i] = align.Identity(c.spec)
		if i == 0 {
			continue
		}
		o := c.options(fmt.Sprintf("model %d of %d", i+1, len(c.models)))
		res, err := Pair(c.ctx, c.spec, c.models[0], c.models[i], o)
		if err != nil {
			return err
		}
		c.res.Certificates += res.Certificates
		if err := c.take(i, res.Map); err != nil {
			return err
		}
	}
	return nil
}

func (c *consensus) options(what string) Options {
	o := c.o.Options
	if progress := o.Progress; progress != nil {
		o.Progress = func(done, total int, step string) { progress(done, total, what+": "+step) }
	}
	return o
}

// take makes a map a model's.
func (c *consensus) take(i int, m *align.Map) error {
	c.res.Maps[i] = m
	c.now[i] = align.Aligned(c.models[i], m)
	if !c.small {
		return nil
	}
	held := map[string]model.Tensor{}
	for _, n := range c.now[i].Names() {
		info, _ := c.now[i].Lookup(n)
		if !info.DType.IsFloat() {
			continue
		}
		x, err := c.now[i].Read(n)
		if err != nil {
			return err
		}
		held[n] = model.Tensor{Shape: info.Shape, Data: x}
	}
	c.now[i] = align.OfTensors(held)
	return nil
}

// sweep aligns every model once more and returns the largest gain of the objective between a model and its reference.
func (c *consensus) sweep() (float64, error) {
	best := 0.0
	n := len(c.models)
	whole := mean{list: slices.Clone(c.now), shared: c.spec.Untie}
	for k, i := range shuffled(n, c.o.Seed, fmt.Sprint("sweep ", c.res.Sweeps)) {
		ref := whole
		if c.o.Way == Cyclic {
			ref.list = slices.Concat(c.now[:i], c.now[i+1:])
		}
		o := c.options(fmt.Sprintf("sweep %d, model %d of %d", c.res.Sweeps, k+1, n))
		o.Init, o.Restarts = Identity, 0
		res, err := Pair(c.ctx, c.spec, ref, c.now[i], o)
		if err != nil {
			return 0, err
		}
		c.res.Certificates += res.Certificates
		gain := res.Trace[len(res.Trace)-1] - res.Trace[0]
		best = max(best, gain)
		if gain <= 0 || len(res.Map.Elements) == 0 {
			continue
		}
		// A model that was turned before has a head of its own by now, but what the maps are for shares it still.
		second := *res.Map
		second.Spec = c.res.Maps[i].Spec
		m, err := align.Compose(&second, c.res.Maps[i])
		if err != nil {
			return 0, err
		}
		if err := c.take(i, m); err != nil {
			return 0, err
		}
	}
	return best, nil
}

func (c *consensus) finish() (*ManyResult, error) {
	var err error
	if c.res.Before, err = agreement(c.ctx, c.models, c.spec); err != nil {
		return nil, err
	}
	if c.res.After, err = agreement(c.ctx, c.now, c.spec); err != nil {
		return nil, err
	}
	if c.o.ToFirst {
		back, err := c.res.Maps[0].Inverse()
		if err != nil {
			return nil, err
		}
		for i, m := range c.res.Maps {
			if i == 0 {
				c.res.Maps[0] = align.Identity(c.spec)
				continue
			}
			second := *back
			second.Spec = m.Spec
			if c.res.Maps[i], err = align.Compose(&second, m); err != nil {
				return nil, err
			}
		}
	}
	for i, m := range c.res.Maps {
		c.res.Moved[i] = moved(m)
		m.Seed = c.o.Seed
		m.Note["matching"] = "weights, consensus of " + fmt.Sprint(len(c.models)) + " models"
	}
	return c.res, nil
}

// moved is the share of features that a map exchanges, of those that it could exchange.
func moved(m *align.Map) float64 {
	counted, n := 0, 0
	for i := range m.Spec.Groups {
		g := &m.Spec.Groups[i]
		e := m.Elements[g.ID]
		if e.Matrix != nil || e.Index == nil && (g.Kind == symmetry.RopePlane || g.Kind == symmetry.Orthogonal || g.Kind == symmetry.Invertible) {
			continue
		}
		counted += g.Size
		for i, j := range e.Index {
			if i != j {
				n++
			}
		}
	}
	if counted == 0 {
		return 0
	}
	return float64(n) / float64(counted)
}

// mean reads the mean of several models.
type mean struct {
	list   []align.Weights
	shared map[string]string // tensors that some of them may share
}

// source is the tensor of a model that stands for one.
func (m mean) source(w align.Weights, name string) string {
	if _, ok := w.Lookup(name); !ok && m.shared[name] != "" {
		return m.shared[name]
	}
	return name
}

// Lookup finds a tensor that any of the models has.
func (m mean) Lookup(name string) (tensors.Info, bool) {
	for _, w := range m.list {
		if info, ok := w.Lookup(name); ok {
			info.DType = tensors.F32
			return info, true
		}
	}
	return tensors.Info{}, false
}

// Names lists the tensors of all models.
func (m mean) Names() []string {
	var names []string
	seen := map[string]bool{}
	for _, w := range m.list {
		for _, n := range w.Names() {
			if info, _ := w.Lookup(n); info.DType.IsFloat() && !seen[n] {
				seen[n] = true
				names = append(names, n)
			}
		}
	}
	return names
}

// Read sums in float64.
func (m mean) Read(name string) ([]float32, error) {
	var sum []float64
	var out []float32
	for _, w := range m.list {
		x, err := w.Read(m.source(w, name))
		if err != nil {
			return nil, err
		}
		if sum == nil {
			sum, out = make([]float64, len(x)), make([]float32, len(x))
		}
		if len(x) != len(sum) {
			return nil, &align.Error{Tensor: name, Msg: fmt.Sprintf("has %d values in one model and %d in another", len(sum), len(x)), Hint: "models of different sizes have no consensus"}
		}
		for i, v := range x {
			sum[i] += float64(v)
		}
	}
	for i, v := range sum {
		out[i] = float32(v / float64(len(m.list)))
	}
	return out, nil
}

// agreement is the mean cosine of all pairs, over all tensors as one vector.
func agreement(ctx context.Context, list []align.Weights, spec *symmetry.Spec) (float64, error) {
	n := len(list)
	products := make([]float64, n*n)
	all := mean{list, spec.Untie}
	for _, name := range all.Names() {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		values := make([][]float32, n)
		for i, w := range list {
			var err error
			if values[i], err = w.Read(all.source(w, name)); err != nil {
				return 0, err
			}
		}
		for i := range n {
			for j := range i + 1 {
				products[i*n+j] += dot(values[i], values[j])
			}
		}
	}
	sum := 0.0
	for i := range n {
		for j := range i {
			sum += cosine(products[i*n+j], products[i*n+i], products[j*n+j])
		}
	}
	return sum / float64(n*(n-1)/2), nil
}
