package pleas

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// What becomes of the last maps of the parents (Options.Heads).
const (
	MergeHeads    = "merge"    // one head; both must tell the same classes
	SeparateHeads = "separate" // the outputs of A, then those of B
	DropHeads     = "drop"     // none: the network ends with what the heads read
)

// How units are told apart (Options.Scores).
const (
	ByActivations = "activations" // by the distance of what they do on the data
	ByWeights     = "weights"     // by the inner products of their weights
)

// The equations of least squares (Squares.Mode) and what a map reads in them (Squares.Inputs).
const (
	Mean     = "mean"    // merged units are to do what the parents' units do in the mean
	Stacked  = "stacked" // and what either does, each on its own data
	None     = "none"    // no least squares
	Merged   = "merged"  // inputs from the new network, whose earlier maps are done
	Original = "original"
)

// Squares say how least squares fits the maps. The zero value is a sound choice.
type Squares struct {
	Mode   string  // Mean (or "") | Stacked | None
	Inputs string  // Merged (or "") | Original
	Ridge  float64 // strength of the pull towards the weights of the first step, as a share of the mean square of the inputs; 0: 1e-3
}

// Widths say which units are separate. If neither field is set, the budget decides.
type Widths struct {
	// Ratios are shares of the units that are separate, by a group's id ("hidden.fc1"), the part before its first point ("res"), or
	// "default".
	Ratios map[string]float64
	// TailFrom, if it is not 0, keeps all units separate that the map of this number, counted from 1, or a later one writes first.
	TailFrom int
}

// Options say how to merge.
type Options struct {
	Budget  float64 // how often the cost of one parent the network may have, 1 to 2; 0: 1
	Widths  Widths
	Squares Squares
	Heads   string // MergeHeads (or "") | SeparateHeads | DropHeads
	Scores  string // ByActivations (or "") | ByWeights
	// KeepNorms leaves the running statistics of batch norms as the parents have them, instead of measuring them anew.
	KeepNorms bool
	Names     [2]string // of the parents, for the configuration; "": a and b
	Backend   compute.Backend
	Device    compute.DeviceNum
	Gram      *gram.Engine // nil: on the processor
	Progress  func(done, total int, what string)
}

// Network is a parent: its config.json and its weights. B's are in the coordinates of A.
type Network struct {
	Config  []byte
	Weights align.Weights
}

// Group reports on the units of a group.
type Group struct {
	ID       string  `json:"group"`
	Units    int     `json:"units"`
	Separate int     `json:"separate"`
	Residual float64 `json:"residual"` // squared distance of the parents' units, over the sum of their squares
	Kept     float64 `json:"kept"`     // share of that which separate units keep
	Held     string  `json:"held,omitempty"`
}

// Layer reports on a map.
type Layer struct {
	Module string  `json:"module"`
	Rows   int     `json:"rows"`
	Before float64 `json:"before"` // squared error over the targets' variance, before least squares
	After  float64 `json:"after"`
}

// Report says what was done.
type Report struct {
	Cost       float64 `json:"cost"`       // products per example, over those without separate units
	Size       float64 `json:"size"`       // values in the file, over those of A
	Parameters int64   `json:"parameters"` // in the file
	Groups     []Group `json:"groups"`
	Layers     []Layer `json:"layers,omitempty"`
	Norms      int     `json:"norms,omitempty"` // batch norms that were measured
}

// Result is the merged network: what its config.json says, and its tensors.
type Result struct {
	Config      []byte
	Description *model.PlainDescription
	Tensors     map[string]model.Tensor
	Report      Report
}

// Plain merges two plain networks. data is what both see, or with two sets what each of them sees; labels are not looked at. It may
// be empty if nothing is measured: Scores by weights, no least squares, no norms. Faults of what is given are *model.InputError or the
// errors of package align.
func Plain(ctx context.Context, a, b Network, data []*samples.Set, o Options) (*Result, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	p, err := open(a, b, o)
	if err != nil {
		return nil, err
	}
	defer p.close()
	rows := 0
	for _, s := range data {
		rows += s.N
	}
	needs := o.Scores == ByActivations || o.Squares.Mode != None || !o.KeepNorms && len(p.d[0].Statistics()) > 0
	if needs && rows == 0 {
		return nil, bad("PLeaS measures what the parents do and needs calibration data; any inputs do, no labels are needed")
	}
	if len(data) > 2 {
		return nil, bad("%d sets of data for two networks", len(data))
	}
	p.data = data
	if needs {
		if err := p.load(); err != nil {
			return nil, err
		}
	}
	if err := p.partial(ctx); err != nil {
		return nil, err
	}
	if err := p.choose(); err != nil {
		return nil, err
	}
	r := &Result{}
	if r.Config, r.Description, err = p.describe(); err != nil {
		return nil, err
	}
	p.made = r.Description
	if r.Tensors, err = p.initial(); err != nil {
		return nil, err
	}
	p.values, p.report = r.Tensors, &r.Report
	if err := p.fit(ctx); err != nil {
		return nil, err
	}
	p.summarise(r)
	return r, nil
}

func bad(format string, args ...any) error {
	return &model.InputError{Msg: fmt.Sprintf(format, args...)}
}

// complete fills in defaults and refuses what is not known.
func (o *Options) complete() error {
	for _, c := range []struct {
		name  string
		value *string
		known []string
	}{
		{"heads", &o.Heads, []string{MergeHeads, SeparateHeads, DropHeads}},
		{"scores", &o.Scores, []string{ByActivations, ByWeights}},
		{"mode of least squares", &o.Squares.Mode, []string{Mean, Stacked, None}},
		{"inputs of least squares", &o.Squares.Inputs, []string{Merged, Original}},
	} {
		if *c.value == "" {
			*c.value = c.known[0]
		}
		if !slices.Contains(c.known, *c.value) {
			return bad("%s %q is not known; %s are", c.name, *c.value, strings.Join(c.known, ", "))
		}
	}
	if o.Budget == 0 {
		o.Budget = 1
	}
	if !(o.Budget >= 1 && o.Budget <= 2) {
		return bad("budget %v is not between 1, the cost of one network, and 2, that of both", o.Budget)
	}
	if o.Squares.Ridge == 0 {
		o.Squares.Ridge = 1e-3
	}
	if !(o.Squares.Ridge > 0 && o.Squares.Ridge <= 1e6) {
		return bad("ridge %v must be positive", o.Squares.Ridge)
	}
	for i, name := range []string{"a", "b"} {
		if o.Names[i] == "" {
			o.Names[i] = name
		}
	}
	if o.Gram == nil {
		o.Gram = gram.New(nil, 0)
	}
	return nil
}

// job is a merge at work.
type job struct {
	o      Options
	config []byte
	d      [2]*model.PlainDescription
	w      [2]align.Weights
	shapes map[string][]int // of A's tensors
	head   *model.PlainLayer
	groups []*units
	axes   axes
	terms  []term
	data   []*samples.Set
	nets   [2]*model.PlainModel // the parents, if something is measured
	made   *model.PlainDescription
	values map[string]model.Tensor // of the new network
	net    *model.PlainModel       // the new network, while maps read what it makes
	report *Report
}

// open reads both descriptions and compares them.
func open(a, b Network, o Options) (*job, error) {
	p := &job{o: o, config: a.Config, w: [2]align.Weights{a.Weights, b.Weights}, shapes: map[string][]int{}}
	for i, n := range []Network{a, b} {
		d, err := model.DescribePlain(n.Config)
		if err != nil {
			return nil, err
		}
		p.d[i] = d
	}
	d := p.d[0]
	for i := range d.Layers { // the last map, if it is not inside of a residual block
		switch l := &d.Layers[i]; l.Type {
		case "linear", "conv2d", "residual":
			p.head = l
		}
	}
	if p.head == nil {
		return nil, bad("%s has no linear map and no convolution", p.o.Names[0])
	}
	if err := p.compare(); err != nil {
		return nil, err
	}
	spec, err := d.Symmetry()
	if err != nil {
		return nil, err
	}
	for i := range spec.Groups {
		p.groups = append(p.groups, &units{group: &spec.Groups[i]})
	}
	if p.axes, err = axesOf(p.groups); err != nil {
		return nil, err
	}
	hold(d, p.groups, p.axes)
	for _, t := range p.all(0) {
		p.shapes[t.Name] = t.Shape
	}
	return p, nil
}

func (p *job) all(i int) []model.TensorSpec {
	return slices.Concat(p.d[i].Tensors(), p.d[i].Statistics())
}

// compare refuses parents that differ in more than the number of outputs.
func (p *job) compare() error {
	a, b := p.d[0], p.d[1]
	if !slices.Equal(a.Input, b.Input) {
		return bad("%s reads %v and %s reads %v", p.o.Names[0], a.Input, p.o.Names[1], b.Input)
	}
	if a.Loss != b.Loss && p.o.Heads == MergeHeads {
		return bad("%s was trained for %s and %s for %s; use heads: separate, or drop", p.o.Names[0], a.Loss, p.o.Names[1], b.Loss)
	}
	if p.o.Heads != MergeHeads {
		if p.head.Type != "linear" && p.head.Type != "conv2d" {
			return bad("heads: %s needs a network whose last map is not inside of a residual block", p.o.Heads)
		}
		for i := len(a.Layers) - 1; &a.Layers[i] != p.head; i-- {
			switch t := a.Layers[i].Type; t {
			case "batch_norm", "layer_norm", "residual":
				return bad("heads: %s is for networks that end with a map, and this one ends with a %s", p.o.Heads, t)
			}
		}
	}
	own := map[string][]int{}
	for _, t := range p.all(1) {
		own[t.Name] = t.Shape
	}
	for _, t := range p.all(0) {
		other, ok := own[t.Name]
		if !ok {
			return bad("%s has a tensor %s and %s has none; PLeaS merges networks of one architecture", p.o.Names[0], t.Name, p.o.Names[1])
		}
		delete(own, t.Name)
		if slices.Equal(t.Shape, other) {
			continue
		}
		if slices.Contains([]string{p.head.Name + ".weight", p.head.Name + ".bias"}, t.Name) && slices.Equal(t.Shape[1:], other[1:]) {
			if p.o.Heads == MergeHeads {
				return bad("%s: %v in %s and %v in %s: they tell different classes; use heads: separate, or drop", t.Name, t.Shape, p.o.Names[0], other, p.o.Names[1])
			}
			continue
		}
		return bad("%s: %v in %s and %v in %s; PLeaS merges networks of one architecture", t.Name, t.Shape, p.o.Names[0], other, p.o.Names[1])
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		return bad("%s has a tensor %s and %s has none; PLeaS merges networks of one architecture", p.o.Names[1], name, p.o.Names[0])
	}
	if x, y := signature(a.Layers, p.head.Name), signature(b.Layers, p.head.Name); x != y {
		return bad("%s and %s have the same tensors and compute differently; PLeaS merges networks of one architecture", p.o.Names[0], p.o.Names[1])
	}
	return nil
}

// signature renders layers but for the number of outputs of the head.
func signature(layers []model.PlainLayer, head string) string {
	s := ""
	for _, l := range layers {
		if l.Name == head {
			l.Out = nil
		}
		inner, shortcut := signature(l.Layers, head), signature(l.Shortcut, head)
		l.Layers, l.Shortcut, l.In = nil, nil, nil
		if l.Type != "linear" && l.Type != "conv2d" {
			l.Out = nil
		}
		s += fmt.Sprintf("%+v{%s|%s}", l, inner, shortcut)
	}
	return s
}

// read returns a tensor of a parent.
func (p *job) read(i int, name string, shape []int) ([]float32, error) {
	info, ok := p.w[i].Lookup(name)
	if !ok {
		return nil, &model.MissingError{Checkpoint: p.o.Names[i], Tensor: name, Shape: shape}
	}
	if !slices.Equal(info.Shape, shape) {
		return nil, &model.ShapeError{Checkpoint: p.o.Names[i], Tensor: name, Have: info.Shape, Want: shape}
	}
	return p.w[i].Read(name)
}

// load puts the parents on the device.
func (p *job) load() error {
	for i := range p.nets {
		values := map[string]model.Tensor{}
		for _, t := range p.all(i) {
			x, err := p.read(i, t.Name, t.Shape)
			if err != nil {
				return err
			}
			values[t.Name] = model.Tensor{Shape: t.Shape, Data: x}
		}
		var err error
		if p.nets[i], err = model.NewPlain(p.d[i], values, p.o.Backend, p.o.Device); err != nil {
			return err
		}
	}
	return nil
}

func (p *job) close() {
	for _, n := range []*model.PlainModel{p.nets[0], p.nets[1], p.net} {
		if n != nil {
			n.Close()
		}
	}
}

func (p *job) progress(done, total int, what string) {
	if p.o.Progress != nil {
		p.o.Progress(done, total, what)
	}
}

// summarise completes the report.
func (p *job) summarise(r *Result) {
	now := total(p.terms)
	had := make([]int, len(p.groups))
	for i, u := range p.groups {
		had[i], u.separate = u.separate, 0
	}
	r.Report.Cost = now / total(p.terms)
	for i, u := range p.groups {
		u.separate = had[i]
		r.Report.Groups = append(r.Report.Groups, u.report())
	}
	one := int64(0)
	for _, s := range p.shapes {
		one += int64(size(s))
	}
	for _, t := range r.Tensors {
		r.Report.Parameters += int64(len(t.Data))
	}
	r.Report.Size = float64(r.Report.Parameters) / float64(one)
}

// report is what the group has come to.
func (u *units) report() Group {
	g := Group{ID: u.group.ID, Units: u.group.Size, Separate: u.separate, Residual: u.residual, Held: u.held}
	if u.residual > 0 {
		g.Kept = u.gain[u.separate] / u.residual
	}
	return g
}

func size(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}
