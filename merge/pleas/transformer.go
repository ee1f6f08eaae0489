package pleas

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// In a transformer the stream stays merged: no norm over both parents' streams does what their two norms do. What can be separate are
// hidden units of MLPs and groups of heads that share keys and values, the same number in every block, so that the result is a model
// of the family with other widths.

// Parent is a transformer to merge: a checkpoint's config.json and weights under the names of its files. B's are in the coordinates of
// A.
type Parent = Network

// Transformer merges two transformers of one shape. batches is what both see, or with two lists what each of them sees.
//
// Blocks are visited in order, and in each the maps in the order in which they are applied. With merged inputs, which is the default,
// maps that write to the stream aim at the mean of the parents' streams behind them, so that every block also repairs what the ones
// before it have left.
func Transformer(ctx context.Context, a, b Parent, batches [][]model.Input, o Options) (*Result, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	t, err := newTransformer(a, b, o)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if t.d.Mixture != nil {
		return nil, bad("a %s has experts that see some of the tokens, which PLeaS does not fit; merge it by another method", t.d.ModelType)
	}
	if len(batches) > 2 {
		return nil, bad("%d sets of data for two models", len(batches))
	}
	wide := o.Budget > 1 || o.Widths.Ratios != nil
	if rows := slices.Concat(batches...); len(rows) == 0 && (o.Squares.Mode != None || wide && o.Scores == ByActivations) {
		return nil, bad("PLeaS measures what the parents do and needs calibration data; any texts do")
	}
	if o.Scores == ByWeights && wide {
		return nil, bad("units of transformers are compared by activations; remove scores")
	}
	t.batches = batches
	for i := range t.nets {
		if t.nets[i], err = t.put(ctx, t.d, t.values[i]); err != nil {
			return nil, err
		}
	}
	if err := t.partial(ctx, wide); err != nil {
		return nil, err
	}
	r := &Result{}
	if r.Config, err = t.describe(); err != nil {
		return nil, err
	}
	if t.made, err = model.Describe(r.Config); err != nil {
		return nil, err
	}
	t.report = &r.Report
	if err := t.initial(); err != nil {
		return nil, err
	}
	if o.Squares.Mode != None {
		if t.net, err = t.put(ctx, t.made, t.values[2]); err != nil {
			return nil, err
		}
		if err := t.fit(ctx); err != nil {
			return nil, err
		}
	}
	r.Tensors = map[string]model.Tensor{}
	for name, v := range t.values[2] {
		if info, ok := t.d.Find(a.Weights, name); ok {
			name = info.Name
		}
		r.Tensors[name] = v
	}
	t.summarise(r)
	return r, nil
}

type transformer struct {
	o       Options
	config  []byte
	d       *model.Description // of the parents, its head untied where B's has been
	made    *model.Description
	batches [][]model.Input
	values  [3]map[string]model.Tensor // of A, B and the new model, by the names of the model's class
	nets    [2]*model.Model
	net     *model.Model
	mlp     []*units // of every block
	heads   []*units // of every block, groups of heads
	untied  bool
	report  *Report
}

func newTransformer(a, b Parent, o Options) (*transformer, error) {
	t := &transformer{o: o, config: a.Config}
	d, err := model.Describe(a.Config)
	if err != nil {
		return nil, err
	}
	other, err := model.Describe(b.Config)
	if err != nil {
		return nil, err
	}
	if o.Heads != MergeHeads {
		return nil, bad("heads: %s is for networks that are described layer by layer", o.Heads)
	}
	if o.Widths.TailFrom != 0 {
		return nil, bad("tail_from: all blocks of a transformer have the same widths; give shares of mlp and heads")
	}
	if d.Tied && d.Head == model.HeadLM {
		free := *d
		free.Tied = false
		if _, own := free.Find(b.Weights, d.Names.LMHead+".weight"); own { // aligning has made one that differs from the embedding
			d, t.untied = &free, true
		}
	}
	t.d = d
	if x, y := other.Shapes(), d.Shapes(); d.ModelType != other.ModelType || !maps.EqualFunc(x, y, slices.Equal[[]int]) && !t.untied {
		for _, name := range slices.Sorted(maps.Keys(y)) {
			if !slices.Equal(x[name], y[name]) && name != d.Names.LMHead+".weight" {
				return nil, bad("%s: %v in %s and %v in %s; PLeaS merges models of one shape", name, y[name], o.Names[0], x[name], o.Names[1])
			}
		}
		if d.ModelType != other.ModelType {
			return nil, bad("%s is a %s and %s a %s; PLeaS merges models of one architecture", o.Names[0], d.ModelType, o.Names[1], other.ModelType)
		}
	}
	for i, w := range []align.Weights{a.Weights, b.Weights} {
		t.values[i] = map[string]model.Tensor{}
		for name, shape := range d.Shapes() {
			info, ok := d.Find(w, name)
			if !ok && name == d.Names.LMHead+".weight" {
				info, ok = d.Find(w, d.Names.Embed+".weight")
			}
			if !ok {
				return nil, &model.MissingError{Checkpoint: o.Names[i], Tensor: name, Shape: shape}
			}
			if !slices.Equal(info.Shape, shape) {
				return nil, &model.ShapeError{Checkpoint: o.Names[i], Tensor: name, Have: info.Shape, Want: shape}
			}
			x, err := w.Read(info.Name)
			if err != nil {
				return nil, err
			}
			t.values[i][name] = model.Tensor{Shape: shape, Data: x}
		}
	}
	for i := range d.Layers {
		t.mlp = append(t.mlp, &units{group: &symmetry.Group{ID: fmt.Sprint("mlp.", i), Size: d.FFN}})
		t.heads = append(t.heads, &units{group: &symmetry.Group{ID: fmt.Sprint("heads.", i), Size: d.KVHeads}})
	}
	return t, nil
}

// put loads a model whose tensors are in memory.
func (t *transformer) put(ctx context.Context, d *model.Description, values map[string]model.Tensor) (*model.Model, error) {
	return model.LoadFrom(ctx, d, &tensors.Checkpoint{}, model.Options{Backend: t.o.Backend, Device: t.o.Device, Replace: values})
}

func (t *transformer) close() {
	for _, m := range []*model.Model{t.nets[0], t.nets[1], t.net} {
		if m != nil {
			m.Close()
		}
	}
}

// partial orders hidden units and heads by how far the parents' are apart in what the next map reads, and chooses how many are separate.
func (t *transformer) partial(ctx context.Context, wide bool) error {
	for _, list := range [][]*units{t.mlp, t.heads} {
		for _, u := range list {
			u.order, u.gain = make([]int, u.group.Size), make([]float64, u.group.Size+1)
			for i := range u.order {
				u.order[i] = i
			}
		}
	}
	if !wide {
		return nil
	}
	n := t.d.Names
	if n.Gate == "" || n.Up == "" || n.Q == "" || n.K == "" || n.V == "" || t.d.Conv1D {
		return bad("a %s keeps its widths: wider models are made of families with gated MLPs and a map each for queries, keys, values, gate and up; leave budget and widths out", t.d.ModelType)
	}
	energies := map[string]*energy{}
	at := map[string]*units{}
	block := map[string]int{}
	for i := range t.d.Layers {
		down, o := t.d.LayerName(i, n.Down), t.d.LayerName(i, n.O)
		at[down], at[o] = t.mlp[i], t.heads[i]
		block[down], block[o] = 1, t.d.Heads/t.d.KVHeads*t.d.HeadDim
	}
	for name, u := range at {
		k := u.group.Size
		energies[name] = &energy{make([]float64, k), make([]float64, k), make([]float64, k)}
	}
	for _, in := range slices.Concat(t.batches...) {
		if err := ctx.Err(); err != nil {
			return err
		}
		first := map[string][]float32{}
		for i, net := range t.nets {
			err := net.Features(in, func(m string) bool { return at[m] != nil }, func(m string, x []float32, rows, width int) error {
				if i == 0 {
					first[m] = x
					return nil
				}
				e := energies[m]
				for k, v := range first[m] {
					va, vb := float64(v), float64(x[k])
					j := k % width / block[m]
					e.apart[j] += (va - vb) * (va - vb)
					e.sum[j] += va*va + vb*vb
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	for name, u := range at {
		e := energies[name]
		for i, v := range e.apart {
			e.score[i] = -v
		}
		u.rank(e)
	}
	return t.choose()
}

// counts sets how many units and groups of heads are separate in every block.
func (t *transformer) counts(mlp, heads int) {
	for i := range t.mlp {
		t.mlp[i].separate, t.heads[i].separate = mlp, heads
	}
}

func (t *transformer) gain() float64 {
	sum := 0.0
	for i := range t.mlp {
		for _, u := range []*units{t.mlp[i], t.heads[i]} {
			sum += u.gain[u.separate] + 1e-6*float64(u.separate)/float64(u.group.Size)
		}
	}
	return sum
}

// cost is products per token: of the maps in blocks and the head.
func (t *transformer) cost() float64 {
	d := t.d
	h := float64(d.Hidden)
	sum := 0.0
	if d.Head == model.HeadLM {
		sum = h * float64(d.Vocab)
	}
	for i := range t.mlp {
		sum += 3 * h * float64(d.FFN+t.mlp[i].separate)
		sum += 2 * h * float64(d.HeadDim*(d.Heads/d.KVHeads+1)*(d.KVHeads+t.heads[i].separate))
	}
	return sum
}

// choose takes given shares, or looks at all widths within the budget.
func (t *transformer) choose() error {
	if r := t.o.Widths.Ratios; r != nil {
		share := map[string]float64{}
		for _, key := range slices.Sorted(maps.Keys(r)) {
			if !(r[key] >= 0 && r[key] <= 1) {
				return bad("the share %v of separate units of %s is not between 0 and 1", r[key], key)
			}
			if key != "mlp" && key != "heads" && key != "default" {
				return bad("widths: a transformer has mlp and heads, which are the same in every block, and no %q", key)
			}
		}
		for _, key := range []string{"mlp", "heads"} {
			if s, ok := r[key]; ok {
				share[key] = s
			} else {
				share[key] = r["default"]
			}
		}
		t.counts(int(math.Round(share["mlp"]*float64(t.d.FFN))), int(math.Round(share["heads"]*float64(t.d.KVHeads))))
		return nil
	}
	most := t.o.Budget * t.cost() * (1 + 1e-12)
	best, mlp, heads := -1.0, 0, 0
	for k := range levels + 1 {
		for h := range t.d.KVHeads + 1 {
			m := (k*t.d.FFN + levels/2) / levels
			t.counts(m, h)
			if g := t.gain(); t.cost() <= most && g > best {
				best, mlp, heads = g, m, h
			}
		}
	}
	t.counts(mlp, heads)
	return nil
}

// describe is A's configuration with other widths.
func (t *transformer) describe() ([]byte, error) {
	var c map[string]any
	dec := json.NewDecoder(strings.NewReader(string(t.config)))
	dec.UseNumber()
	if err := dec.Decode(&c); err != nil {
		return nil, &model.ConfigError{Msg: fmt.Sprintf("cannot be read: %v", err)}
	}
	if t.untied {
		c["tie_word_embeddings"] = false
	}
	mlp, heads := t.mlp[0].separate, t.heads[0].separate
	if mlp > 0 {
		c["intermediate_size"] = t.d.FFN + mlp
	}
	if heads > 0 {
		c["num_key_value_heads"] = t.d.KVHeads + heads
		c["num_attention_heads"] = t.d.Heads / t.d.KVHeads * (t.d.KVHeads + heads)
		c["head_dim"] = t.d.HeadDim
	}
	if mlp+heads > 0 {
		c["pleas"] = map[string]any{"parents": t.o.Names[:], "separate": map[string]int{"mlp": mlp, "heads": heads}}
	}
	return json.MarshalIndent(c, "", "  ")
}

// layouts are those of a map's outputs and inputs; rel is its name in block i.
func (t *transformer) layouts(i int, l model.Linear) (out, in layout) {
	n, d := t.d.Names, t.d
	out, in = fixed(l.Out), fixed(l.In)
	if i == len(t.mlp) {
		return out, in // the head
	}
	queries := d.Heads / d.KVHeads * d.HeadDim
	switch l.Name {
	case n.Q:
		out = t.heads[i].layout().spread(queries)
	case n.K, n.V:
		out = t.heads[i].layout().spread(d.HeadDim)
	case n.O:
		in = t.heads[i].layout().spread(queries)
	case n.Gate, n.Up:
		out = t.mlp[i].layout()
	case n.Down:
		in = t.mlp[i].layout()
	}
	return out, in
}

// initial makes the tensors of the first step.
func (t *transformer) initial() error {
	t.values[2] = map[string]model.Tensor{}
	done := map[string]bool{}
	for i := range t.d.Layers {
		for _, l := range t.d.BlockLinears() {
			out, in := t.layouts(i, l)
			weight, bias := t.d.LayerName(i, l.Name+".weight"), t.d.LayerName(i, l.Name+".bias")
			var x [2][]float32
			for k := range x {
				x[k] = t.values[k][weight].Data
			}
			rows, cols, width := out, in, l.In
			if l.Conv1D {
				rows, cols, width = in, out, l.Out
			}
			t.values[2][weight] = model.Tensor{Shape: []int{len(rows), len(cols)}, Data: blocks(rows, cols, x, width, 1)}
			done[weight] = true
			if l.Bias {
				for k := range x {
					x[k] = t.values[k][bias].Data
				}
				t.values[2][bias] = model.Tensor{Shape: []int{len(out)}, Data: blocks(out, fixed(1), x, 1, 1)}
				done[bias] = true
			}
		}
	}
	for name, a := range t.values[0] {
		if !done[name] {
			n := len(a.Data)
			t.values[2][name] = model.Tensor{Shape: a.Shape, Data: blocks(fixed(n), fixed(1), [2][]float32{a.Data, t.values[1][name].Data}, 1, 1)}
		}
	}
	for name, shape := range t.made.Shapes() {
		if v := t.values[2][name]; !slices.Equal(v.Shape, shape) {
			return fmt.Errorf("%s: %v was made, and config.json means %v", name, v.Shape, shape)
		}
	}
	return nil
}

func (t *transformer) summarise(r *Result) {
	now := t.cost()
	mlp, heads := t.mlp[0].separate, t.heads[0].separate
	t.counts(0, 0)
	r.Report.Cost = now / t.cost()
	t.counts(mlp, heads)
	for _, list := range [][]*units{t.mlp, t.heads} {
		for _, u := range list {
			if u.separate > 0 {
				r.Report.Groups = append(r.Report.Groups, u.report())
			}
		}
	}
	one := 0
	for _, v := range t.values[0] {
		one += len(v.Data)
	}
	for _, v := range r.Tensors {
		r.Report.Parameters += int64(len(v.Data))
	}
	r.Report.Size = float64(r.Report.Parameters) / float64(one)
}
