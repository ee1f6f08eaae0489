package align

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// CheckTolerance is how far outputs may be from those of the unchanged model, as a part of the largest one: what float32 leaves.
const CheckTolerance = 1e-4

// CheckReport says for which groups of a spec a random element left a model's outputs as they are.
type CheckReport struct {
	Model   string // directory or family
	Results []CheckResult
	// Unchecked lists tensors that the spec names and the forward pass does not read, such as those of a head that cannot be computed:
	// nothing is known about their refs.
	Unchecked []string
}

// CheckResult is one trial: a random element of some groups, all of one kind.
type CheckResult struct {
	Model  string        // which of several, such as llama with a shared embedding
	Groups []string      // ids; more than one where they were tried together
	Kind   symmetry.Kind // "" for all groups together, each with its own kind
	Worst  float64       // largest difference of outputs, as a part of the largest output
}

// OK says whether the outputs stayed.
func (r *CheckResult) OK() bool { return r.Worst <= CheckTolerance }

// Failed lists the trials that changed the outputs.
func (r *CheckReport) Failed() []CheckResult {
	return slices.DeleteFunc(slices.Clone(r.Results), func(c CheckResult) bool { return c.OK() })
}

// Err is nil if all outputs stayed; otherwise an *Error that names the first group that is no symmetry.
func (r *CheckReport) Err() error {
	failed := r.Failed()
	if len(failed) == 0 {
		return nil
	}
	f := failed[0]
	e := &Error{File: r.Model, Group: f.Groups[0], Msg: fmt.Sprintf("is no symmetry of this model: a random %s changed its outputs by %.2g of the largest one", f.Kind, f.Worst),
		Hint: "correct its refs, or take the kind from those that it allows; docs/symmetries.md says what each kind needs"}
	if f.Kind == "" {
		e.Group, e.Msg = "", fmt.Sprintf("every group passed alone, but all together change the outputs by %.2g of the largest one", f.Worst)
		e.Hint = "two groups act on the same features; look for refs that should be of one group"
	}
	if f.Model != "" && f.Model != r.Model {
		e.Msg += " (" + f.Model + ")"
	}
	if n := len(failed); n > 1 {
		e.Msg += fmt.Sprintf("; %d trials failed", n)
	}
	return e
}

// maxCheckWork bounds the weights that are transformed if every group is tried alone. Larger models are tried with all groups of a
// sort together (the MLPs of all layers), and alone only where that fails.
var maxCheckWork int64 = 2 << 30

// Check applies random elements of a spec's groups to a model and compares its outputs: every kind that a group allows, and then all
// groups together. A nil spec means the built-in one. The report is there even where the error says that a group failed.
func Check(ctx context.Context, dir string, spec *symmetry.Spec, seed uint64, b compute.Backend) (*CheckReport, error) {
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, &Error{File: dir, Msg: "config.json cannot be read, and without it nothing can be computed: " + err.Error(), Err: err}
	}
	c, err := checkpoint.Open(dir)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	report := &CheckReport{Model: dir}
	if err := check(ctx, report, "", config, c, spec, seed, b); err != nil {
		return nil, err
	}
	return report, report.Err()
}

// CheckTensors is Check for a model that is in memory, its tensors under the names of its class. name is for messages.
func CheckTensors(ctx context.Context, name string, config []byte, values map[string]model.Tensor, spec *symmetry.Spec, seed uint64, b compute.Backend) (*CheckReport, error) {
	report := &CheckReport{Model: name}
	if err := checkTensors(ctx, report, name, config, values, spec, seed, b); err != nil {
		return nil, err
	}
	return report, report.Err()
}

// checkTensors gives the tensors a file for as long as the check needs one.
func checkTensors(ctx context.Context, report *CheckReport, name string, config []byte, values map[string]model.Tensor, spec *symmetry.Spec, seed uint64, b compute.Backend) (err error) {
	dir, err := os.MkdirTemp("", "mergekit-check-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var infos []tensors.Info
	var data [][]byte
	for _, n := range sortedKeys(values) {
		t := values[n]
		infos = append(infos, tensors.Info{Name: n, DType: tensors.F32, Shape: t.Shape})
		raw := make([]byte, 4*len(t.Data))
		if err := tensors.EncodeFloat32(raw, tensors.F32, t.Data); err != nil {
			return err
		}
		data = append(data, raw)
	}
	file := filepath.Join(dir, "model.safetensors")
	if err := tensors.SaveFile(file, infos, data, nil); err != nil {
		return err
	}
	c, err := tensors.Open(file)
	if err != nil {
		return err
	}
	defer c.Close()
	return check(ctx, report, name, config, c, spec, seed, b)
}

// checked computes a model with changed weights.
type checked struct {
	weights Weights
	spec    *symmetry.Spec
	seed    uint64
	forward func(ctx context.Context, w Weights, untied bool) ([]float32, error)
	// stream is the width of the outputs if they are the features of the group res themselves; 0: they are not.
	stream  int
	before  []float32
	largest float64
}

func check(ctx context.Context, report *CheckReport, name string, config []byte, ckpt *tensors.Checkpoint, spec *symmetry.Spec, seed uint64, b compute.Backend) error {
	var err error
	if spec == nil {
		if spec, err = SpecOf(config, ckpt, ""); err != nil {
			return err
		}
	}
	c := &checked{weights: OfCheckpoint(ckpt), spec: spec, seed: seed}
	var done func()
	var used []string
	if model.IsPlain(config) {
		used, done, err = c.plain(ctx, config, ckpt, b)
	} else {
		used, done, err = c.family(ctx, config, ckpt, b)
	}
	if err != nil {
		return err
	}
	defer done()
	if err := c.spec.Validate(ckpt); err != nil {
		return err
	}
	if c.before, err = c.forward(ctx, c.weights, false); err != nil {
		return err
	}
	for _, v := range c.before {
		c.largest = math.Max(c.largest, math.Abs(float64(v)))
	}
	if c.largest == 0 || math.IsNaN(c.largest) || math.IsInf(c.largest, 0) {
		return &Error{File: name, Msg: fmt.Sprintf("the outputs of the unchanged model are %v at most, so nothing can be compared", c.largest), Hint: "check another checkpoint"}
	}
	computed := map[string]bool{}
	for _, n := range used {
		computed[n] = true
	}
	trials := c.trials(computed, ckpt)
	for _, t := range trials {
		if err := c.try(ctx, report, name, t); err != nil {
			return err
		}
	}
	for i := range c.spec.Groups {
		for _, r := range c.spec.Groups[i].Refs {
			if _, there := ckpt.Lookup(r.Tensor); there && !computed[r.Tensor] && c.spec.Untie[r.Tensor] == "" && !slices.Contains(report.Unchecked, r.Tensor) {
				report.Unchecked = append(report.Unchecked, r.Tensor)
			}
		}
	}
	return nil
}

// trial is some groups and what to draw for each.
type trial struct {
	kinds map[string]symmetry.Kind
	ids   []string // in the spec's order
	kind  symmetry.Kind
}

// trials lists what is to be tried. Groups of which the forward pass reads nothing are left out.
func (c *checked) trials(computed map[string]bool, ckpt *tensors.Checkpoint) []trial {
	var groups []*symmetry.Group
	for i := range c.spec.Groups {
		g := &c.spec.Groups[i]
		if slices.ContainsFunc(g.Refs, func(r symmetry.Ref) bool { return computed[r.Tensor] }) {
			groups = append(groups, g)
		}
	}
	var work int64
	for _, n := range ckpt.Names() {
		info, _ := ckpt.Lookup(n)
		work += info.Elems()
	}
	together := work > maxCheckWork/int64(1+3*len(groups))
	var list []trial
	at := map[string]int{}
	all := trial{kinds: map[string]symmetry.Kind{}}
	for _, g := range groups {
		kinds := g.Kinds
		if len(kinds) == 0 {
			kinds = []symmetry.Kind{g.Kind}
		}
		for _, k := range kinds {
			if g.Size == 1 && k == symmetry.Perm {
				continue // the identity
			}
			key := g.ID + " " + string(k)
			if together {
				sort, _, _ := strings.Cut(g.ID, ".")
				key = sort + " " + string(k)
			}
			i, ok := at[key]
			if !ok {
				i = len(list)
				at[key] = i
				list = append(list, trial{kinds: map[string]symmetry.Kind{}, kind: k})
			}
			list[i].kinds[g.ID] = k
			list[i].ids = append(list[i].ids, g.ID)
		}
		all.kinds[g.ID], all.ids = g.Kind, append(all.ids, g.ID)
	}
	if len(groups) > 1 {
		list = append(list, all)
	}
	return list
}

// try makes a trial; one of many groups that fails is split until the groups at fault are found.
func (c *checked) try(ctx context.Context, report *CheckReport, name string, t trial) error {
	worst, err := c.difference(ctx, t)
	if err != nil {
		return err
	}
	r := CheckResult{Model: name, Groups: t.ids, Kind: t.kind, Worst: worst}
	if r.OK() || t.kind == "" || len(t.ids) == 1 {
		report.Results = append(report.Results, r)
		return nil
	}
	before := len(report.Results)
	for _, half := range [][]string{t.ids[:len(t.ids)/2], t.ids[len(t.ids)/2:]} {
		if err := c.try(ctx, report, name, trial{t.kinds, half, t.kind}); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(report.Results[before:], func(r CheckResult) bool { return !r.OK() }) {
		report.Results = append(report.Results, r) // what failed together and passes alone
	}
	return nil
}

// difference applies a random element and compares the outputs.
func (c *checked) difference(ctx context.Context, t trial) (float64, error) {
	ids := map[string]bool{}
	for _, id := range t.ids {
		ids[id] = true
	}
	// Two heads are left in their order by half of all seeds: such an element would prove nothing.
	for i := range uint64(32) {
		m, err := Random(c.spec, c.seed+i<<32, RandomOptions{Scales: true, Gains: true, Kind: func(g *symmetry.Group) symmetry.Kind {
			if !ids[g.ID] {
				return ""
			}
			return t.kinds[g.ID]
		}})
		if err != nil {
			return 0, err
		}
		if len(t.ids) == 1 && m.Elements[t.ids[0]].Identity() {
			continue
		}
		return c.compare(ctx, m)
	}
	return 0, &Error{Group: t.ids[0], Msg: "every random element of the group is the identity", Hint: "take the group out of the spec"}
}

// compare returns how far a map changes the outputs, as a part of the largest one.
func (c *checked) compare(ctx context.Context, m *Map) (float64, error) {
	after, err := c.forward(ctx, Aligned(c.weights, m), len(m.Untied()) > 0)
	if err != nil {
		return 0, err
	}
	before := c.before
	if e := m.Elements["res"]; c.stream > 0 && !e.Identity() {
		before = e.features(before, c.stream)
	}
	worst := 0.0
	for i, v := range after {
		d := math.Abs(float64(v) - float64(before[i]))
		if !(d <= worst) {
			worst = d // NaN too
		}
	}
	return worst / c.largest, nil
}

// features applies an element to rows of features.
func (e Element) features(x []float32, width int) []float32 {
	out := make([]float32, len(x))
	for r := 0; r < len(x); r += width {
		for i := range width {
			if e.Matrix != nil {
				sum := 0.0
				for j, q := range e.Matrix[i*width : (i+1)*width] {
					sum += q * float64(x[r+j])
				}
				out[r+i] = float32(sum)
				continue
			}
			j, s := e.at(i)
			out[r+i] = float32(s * float64(x[r+j]))
		}
	}
	return out
}

// family gets a model with attention ready. It returns the tensors that the forward pass reads, by their names in the checkpoint.
func (c *checked) family(ctx context.Context, config []byte, ckpt *tensors.Checkpoint, b compute.Backend) (used []string, done func(), err error) {
	d, err := model.Describe(config)
	if err != nil {
		return nil, nil, err
	}
	stored := func(name string) string {
		if info, ok := d.Find(ckpt, name); ok {
			return info.Name
		}
		return name
	}
	for name := range d.Shapes() {
		used = append(used, stored(name))
	}
	head := d.Names.LMHead + ".weight"
	models := map[bool]*model.Model{} // by whether the head is a matrix of its own, though the checkpoint shares it
	done = func() {
		for _, m := range models {
			m.Close()
		}
	}
	input := sampleInput(d, c.seed)
	if d.Head == model.HeadNone {
		c.stream = d.Hidden
	}
	c.forward = func(ctx context.Context, w Weights, untied bool) ([]float32, error) {
		untied = untied && d.Head == model.HeadLM && d.Tied
		m := models[untied]
		if m == nil {
			o, own := model.Options{Backend: b}, d
			if untied {
				copied := *d
				copied.Tied = false
				own = &copied
				o.Replace = map[string]model.Tensor{head: {Shape: []int{d.Vocab, d.Hidden}, Data: make([]float32, d.Vocab*d.Hidden)}}
			}
			var err error
			if m, err = model.LoadFrom(ctx, own, ckpt, o); err != nil {
				return nil, err
			}
			models[untied] = m
		}
		if err := m.Refill(ctx, func(name string, _ []int) ([]float32, error) {
			if untied && name == head {
				return w.Read(c.head(head))
			}
			return w.Read(stored(name))
		}); err != nil {
			return nil, err
		}
		out, err := m.Forward(input)
		if err != nil {
			return nil, err
		}
		return out.Data, nil
	}
	return used, done, nil
}

// head is the name that the spec has for the head that leaves a shared embedding.
func (c *checked) head(name string) string {
	for to := range c.spec.Untie {
		if strings.HasSuffix(name, to) || strings.HasSuffix(to, name) {
			return to
		}
	}
	return name
}

// plain gets a plain network ready.
func (c *checked) plain(ctx context.Context, config []byte, ckpt *tensors.Checkpoint, b compute.Backend) (used []string, done func(), err error) {
	d, err := model.DescribePlain(config)
	if err != nil {
		return nil, nil, err
	}
	list := slices.Concat(d.Tensors(), d.Statistics())
	values := func(w Weights) (map[string]model.Tensor, error) {
		out := map[string]model.Tensor{}
		for _, t := range list {
			x, err := w.Read(t.Name)
			if err != nil {
				return nil, err
			}
			out[t.Name] = model.Tensor{Shape: t.Shape, Data: x}
		}
		return out, nil
	}
	for _, t := range list {
		used = append(used, t.Name)
	}
	var m *model.PlainModel
	done = func() {
		if m != nil {
			m.Close()
		}
	}
	const rows = 4
	n := rows
	for _, dim := range d.Input {
		n *= dim
	}
	input := make([]float32, n)
	linalg.Normal(input, c.seed, "align check input")
	c.forward = func(_ context.Context, w Weights, _ bool) ([]float32, error) {
		v, err := values(w)
		if err != nil {
			return nil, err
		}
		if m == nil {
			if m, err = model.NewPlain(d, v, b, 0); err != nil {
				return nil, err
			}
		} else if err = m.SetTensors(v); err != nil {
			return nil, err
		}
		out, err := m.Forward(input, rows)
		if err != nil {
			return nil, err
		}
		return out.Data, nil
	}
	return used, done, nil
}

// sampleInput draws a batch that a model can read: two rows of tokens, or two images.
func sampleInput(d *model.Description, seed uint64) model.Input {
	const rows = 2
	in := model.Input{Rows: rows}
	if d.Image != nil {
		in.Pixels = make([]float32, rows*d.Image.Pixels())
		linalg.Normal(in.Pixels, seed, "align check input")
		return in
	}
	in.Length = min(12, d.MaxPositions)
	draw := func(name string, n int) []int32 {
		u := make([]float32, rows*in.Length)
		linalg.Uniform(u, seed, name)
		out := make([]int32, len(u))
		for i, x := range u {
			out[i] = min(int32(float64(x)*float64(n)), int32(n-1))
		}
		return out
	}
	in.IDs = draw("align check input", d.Vocab)
	if d.TokenTypes > 0 {
		in.Types = draw("align check types", d.TokenTypes)
	}
	return in
}
