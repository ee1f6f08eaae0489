package repair

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/internal/moments"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// Plain repairs a plain network. data may be nil for the mode Norms; labels are not looked at.
func Plain(ctx context.Context, d *model.PlainDescription, merged align.Weights, parents []Parent, data *samples.Set, o Options) (Changes, *Report, error) {
	units, norms := layers(d)
	switch o.Mode {
	case None, "":
		return Changes{}, &Report{Mode: None}, nil
	case Norms:
		var list []matrix
		for _, u := range units {
			list = append(list, matrix{u.Name, u.Name + ".weight", 0})
		}
		return matchNorms(ctx, list, merged, parents, o)
	case Activations, ResetNorm:
		if data == nil || data.N == 0 {
			return nil, nil, &model.InputError{Msg: fmt.Sprintf("repair mode %s measures activations and needs calibration data", o.Mode)}
		}
	default:
		return nil, nil, unknownMode(o.Mode)
	}
	values, err := load(d, merged)
	if err != nil {
		return nil, nil, err
	}
	m, err := model.NewPlain(d, values, o.Backend, o.Device)
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	if o.Mode == ResetNorm {
		return resetNorms(m, norms, data, o)
	}
	share, err := shares(parents)
	if err != nil {
		return nil, nil, err
	}
	r := &plainRepair{m: m, data: data, changes: Changes{}, report: &Report{Mode: Activations, Rows: data.N}}
	wanted := map[string]bool{}
	for _, u := range units {
		wanted[u.Name] = true
	}
	goal := map[string]*goals{}
	for i, p := range parents {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		other, err := load(d, p.Weights)
		if err != nil {
			return nil, nil, err
		}
		if err := m.SetTensors(other); err != nil { // what is compiled serves all
			return nil, nil, err
		}
		found := map[string]*moments.Columns{}
		if err := m.Outputs(data.X, data.N, func(module string) bool { return wanted[module] }, sums(found)); err != nil {
			return nil, nil, err
		}
		for name, c := range found {
			if goal[name] == nil {
				goal[name] = &goals{}
			}
			mean, deviation := c.Mean(), c.Deviation()
			if err := finite(name, fmt.Sprintf("network %d that was merged", i+1), mean, deviation); err != nil {
				return nil, nil, err
			}
			goal[name].toward(share[i], mean, deviation)
		}
	}
	if err := m.SetTensors(values); err != nil {
		return nil, nil, err
	}
	// In the order of computation, so that each is measured behind what is repaired already.
	steps := order(d)
	for k, l := range steps {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		switch {
		case l.Type == "batch_norm":
			err = r.norm(l)
		case wanted[l.Name] && !r.normed(d, l):
			err = r.unit(l, goal[l.Name])
		}
		if err != nil {
			return nil, nil, err
		}
		o.progress(k+1, len(steps), l.Name)
	}
	return r.changes, r.report, nil
}

// load reads the tensors of a network.
func load(d *model.PlainDescription, w align.Weights) (map[string]model.Tensor, error) {
	values := map[string]model.Tensor{}
	for _, s := range append(d.Tensors(), d.Statistics()...) {
		x, _, err := read(w, s.Name)
		if err != nil {
			return nil, err
		}
		values[s.Name] = model.Tensor{Shape: s.Shape, Data: x}
	}
	return values, nil
}

func sums(into map[string]*moments.Columns) model.Feature {
	return func(module string, x []float32, rows, width int) error {
		if into[module] == nil {
			into[module] = &moments.Columns{}
		}
		into[module].Add(x, rows, width)
		return nil
	}
}

// order lists linear maps, convolutions and batch norms in the order of computation.
func order(d *model.PlainDescription) (list []*model.PlainLayer) {
	var walk func(layers []model.PlainLayer)
	walk = func(layers []model.PlainLayer) {
		for i := range layers {
			switch l := &layers[i]; l.Type {
			case "linear", "conv2d", "batch_norm":
				list = append(list, l)
			case "residual":
				walk(l.Layers)
				walk(l.Shortcut)
			}
		}
	}
	walk(d.Layers)
	return list
}

// layers returns the maps with hidden units and the batch norms. What a map gives to the outputs of the network is not hidden: its
// scale is the answer.
func layers(d *model.PlainDescription) (units, norms []*model.PlainLayer) {
	last := map[string]bool{}
	lastOf(d.Layers, last)
	for _, l := range order(d) {
		switch {
		case l.Type == "batch_norm":
			norms = append(norms, l)
		case !last[l.Name]:
			units = append(units, l)
		}
	}
	return units, norms
}

// lastOf marks the maps whose outputs reach the end of a list of layers; through says that its input does too.
func lastOf(list []model.PlainLayer, last map[string]bool) (through bool) {
	for i := len(list) - 1; i >= 0; i-- {
		switch l := &list[i]; l.Type {
		case "linear", "conv2d":
			last[l.Name] = true
			return false
		case "residual":
			a, b := lastOf(l.Layers, last), lastOf(l.Shortcut, last)
			if !a && !b {
				return false
			}
		}
	}
	return true
}

type plainRepair struct {
	m       *model.PlainModel
	data    *samples.Set
	changes Changes
	report  *Report
}

// normed says that a batch norm comes right behind a layer: then that restores the units.
func (r *plainRepair) normed(d *model.PlainDescription, l *model.PlainLayer) bool {
	var find func(list []model.PlainLayer) bool
	find = func(list []model.PlainLayer) bool {
		for i := range list {
			if &list[i] == l {
				return i+1 < len(list) && list[i+1].Type == "batch_norm"
			}
			if find(list[i].Layers) || find(list[i].Shortcut) {
				return true
			}
		}
		return false
	}
	return find(d.Layers)
}

// unit repairs the units of a map: W <- diag(s) W, b <- s (b - mean) + goal. A map without a bias cannot be shifted.
func (r *plainRepair) unit(l *model.PlainLayer, goal *goals) error {
	found := map[string]*moments.Columns{}
	if err := r.m.Outputs(r.data.X, r.data.N, func(module string) bool { return module == l.Name }, sums(found)); err != nil {
		return err
	}
	c := found[l.Name]
	mean, deviation := c.Mean(), c.Deviation()
	if err := finite(l.Name, "the merged network", mean, deviation); err != nil {
		return err
	}
	s, report := factors(l.Name, deviation, goal.deviation)
	r.report.add(report)
	now, err := r.m.Tensors()
	if err != nil {
		return err
	}
	r.changes[l.Name+".weight"] = Change{Axis: 0, Scale: s}
	set := map[string]model.Tensor{}
	w := now[l.Name+".weight"]
	r.changes.Apply(l.Name+".weight", w.Shape, 0, w.Data)
	set[l.Name+".weight"] = w
	if b, ok := now[l.Name+".bias"]; ok {
		for i, v := range b.Data {
			b.Data[i] = float32(s[i]*(float64(v)-mean[i]) + goal.mean[i])
		}
		r.changes[l.Name+".bias"] = Change{Set: b.Data}
		set[l.Name+".bias"] = b
	}
	return r.m.SetTensors(set)
}

// norm gives a batch norm the statistics of what it reads now, over all examples.
func (r *plainRepair) norm(l *model.PlainLayer) error {
	found := map[string]*moments.Columns{}
	if err := r.m.NormInputs(r.data.X, r.data.N, func(name string) bool { return name == l.Name }, sums(found)); err != nil {
		return err
	}
	c := found[l.Name]
	if err := finite(l.Name, "the merged network", c.Mean(), c.Variance()); err != nil {
		return err
	}
	n := float64(c.N())
	mean, variance := make([]float32, l.In[0]), make([]float32, l.In[0])
	for i, v := range c.Mean() {
		mean[i] = float32(v)
	}
	for i, v := range c.Variance() {
		variance[i] = float32(v * n / max(n-1, 1)) // as torch keeps it
	}
	set := map[string]model.Tensor{l.Name + ".running_mean": {Shape: []int{l.In[0]}, Data: mean}, l.Name + ".running_var": {Shape: []int{l.In[0]}, Data: variance}}
	for name, t := range set {
		r.changes[name] = Change{Set: t.Data}
	}
	r.report.Norms++
	return r.m.SetTensors(set)
}

// resetNorms computes running statistics anew.
func resetNorms(m *model.PlainModel, norms []*model.PlainLayer, data *samples.Set, o Options) (Changes, *Report, error) {
	if len(norms) == 0 {
		return nil, nil, &model.InputError{Msg: "repair mode reset_norm resets the running statistics of batch norms, and this network has none; use activations"}
	}
	batch := o.Batch
	if batch <= 0 {
		batch = 128
	}
	if err := m.ResetNorms(data.X, data.N, batch); err != nil {
		return nil, nil, err
	}
	now, err := m.Tensors()
	if err != nil {
		return nil, nil, err
	}
	changes := Changes{}
	for _, s := range m.D.Statistics() {
		for _, v := range now[s.Name].Data {
			if err := finite(s.Name, "the merged network", []float64{float64(v)}); err != nil {
				return nil, nil, err
			}
		}
		changes[s.Name] = Change{Set: now[s.Name].Data}
	}
	o.progress(1, 1, "batch norms")
	return changes, &Report{Mode: ResetNorm, Rows: data.N, Norms: len(norms)}, nil
}
