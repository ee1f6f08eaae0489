package pleas

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/model"
)

// choose decides which units are separate.
func (p *job) choose() error {
	p.costs()
	w := p.o.Widths
	switch {
	case w.Ratios != nil && w.TailFrom != 0:
		return bad("widths has ratios and tail_from; give one of them")
	case w.TailFrom < 0:
		return bad("tail_from %d must be the number of a map, counted from 1", w.TailFrom)
	case w.TailFrom > 0:
		number := map[string]int{}
		for i, l := range p.d[0].Modules() {
			number[l.Name] = i + 1
		}
		if w.TailFrom > len(number) {
			return bad("tail_from %d: the networks have %d maps", w.TailFrom, len(number))
		}
		for _, u := range p.groups {
			_, writer, _ := strings.Cut(u.group.ID, ".")
			if u.held == "" && number[writer] >= w.TailFrom {
				u.separate = u.group.Size
			}
		}
	case w.Ratios != nil:
		return p.ratios()
	default:
		search(p.groups, p.terms, p.o.Budget)
	}
	return nil
}

// ratios sets explicit widths.
func (p *job) ratios() error {
	used := map[string]bool{}
	for _, u := range p.groups {
		kind, _, _ := strings.Cut(u.group.ID, ".")
		for _, key := range []string{u.group.ID, kind, "default"} {
			r, ok := p.o.Widths.Ratios[key]
			if !ok {
				continue
			}
			used[key] = true
			if !(r >= 0 && r <= 1) {
				return bad("the share %v of separate units of %s is not between 0 and 1", r, key)
			}
			if u.separate = int(math.Round(r * float64(u.group.Size))); u.separate > 0 && u.held != "" {
				if key != u.group.ID {
					u.separate = 0
					break
				}
				return bad("the units of %s cannot be separate: %s", key, u.held)
			}
			break
		}
	}
	for key := range p.o.Widths.Ratios {
		if !used[key] && key != "default" && !slices.ContainsFunc(p.groups, func(u *units) bool { return strings.HasPrefix(u.group.ID, key+".") }) {
			var known []string
			for _, u := range p.groups {
				known = append(known, u.group.ID)
			}
			return bad("widths: no group %q; this network has %s", key, strings.Join(known, ", "))
		}
	}
	return nil
}

// costs writes down what every map of the new network costs.
func (p *job) costs() {
	of := func(tensor string, axis, n int) axisOf {
		x := axisOf{rest: count{both: float64(n)}}
		for _, s := range p.axes[axisKey(tensor, axis)] {
			x.units, x.block = append(x.units, s.u), append(x.block, float64(s.block))
			x.rest.both -= float64(s.u.group.Size * s.block)
		}
		return x
	}
	for _, l := range p.d[0].Modules() {
		if l == p.head && p.o.Heads == DropHeads {
			continue
		}
		weight := l.Name + ".weight"
		t := term{times: 1, out: of(weight, 0, l.Out[0])}
		if l.Type == "conv2d" {
			t.times = float64(l.Out[1]) * float64(l.Out[2]) * float64(l.Kernel[0]*l.Kernel[1])
		}
		switch {
		case depthwise(l):
			t.narrow = true
		case l.Groups > 1:
			t.in = axisOf{rest: count{both: float64(l.In[0] / l.Groups)}}
		default:
			t.in = of(weight, 1, p.shapes[weight][1])
		}
		if l == p.head && p.o.Heads == SeparateHeads {
			t.out = axisOf{rest: count{a: float64(l.Out[0]), b: float64(p.headSize(1))}}
		}
		p.terms = append(p.terms, t)
	}
}

// headSize is the number of outputs of a parent's head.
func (p *job) headSize(i int) int { return find(p.d[i].Layers, p.head.Name).Out[0] }

// out is the layout of what a map of the new network gives.
func (p *job) out(l *model.PlainLayer) layout {
	if l.Name == p.head.Name && p.o.Heads == SeparateHeads {
		var o layout
		for i, s := range []side{onlyA, onlyB} {
			for k := range p.headSize(i) {
				o = append(o, entry{s, k})
			}
		}
		return o
	}
	return p.axes.layout(l.Name+".weight", 0, p.shapes[l.Name+".weight"][0])
}

// in is the layout of the features or channels that a map of the parents reads.
func (p *job) in(l *model.PlainLayer) layout {
	switch {
	case depthwise(l):
		return p.out(l).gathered(l.Out[0] / l.In[0])
	case l.Groups > 1:
		return fixed(l.In[0])
	}
	return p.axes.layout(l.Name+".weight", 1, l.In[0])
}

// describe writes the configuration of the new network: A's with other widths.
func (p *job) describe() ([]byte, *model.PlainDescription, error) {
	var c map[string]any
	d := json.NewDecoder(strings.NewReader(string(p.config)))
	d.UseNumber()
	if err := d.Decode(&c); err != nil {
		return nil, nil, &model.ConfigError{Msg: fmt.Sprintf("cannot be read: %v", err)}
	}
	layers, _ := c["layers"].([]any)
	if p.o.Heads == DropHeads {
		i := slices.IndexFunc(p.d[0].Layers, func(l model.PlainLayer) bool { return l.Name == p.head.Name })
		if layers = layers[:i]; len(layers) == 0 {
			return nil, nil, bad("nothing is left of the networks without their heads")
		}
		c["layers"] = layers
	}
	p.rewrite(layers)
	note := map[string]any{"parents": p.o.Names[:], "groups": map[string]any{}}
	for _, u := range p.groups {
		note["groups"].(map[string]any)[u.group.ID] = map[string]int{"merged": u.group.Size - u.separate, "separate": u.separate}
	}
	if p.o.Heads == SeparateHeads {
		n := p.headSize(0)
		note["heads"] = []any{
			map[string]any{"parent": p.o.Names[0], "outputs": []int{0, n}},
			map[string]any{"parent": p.o.Names[1], "outputs": []int{n, n + p.headSize(1)}},
		}
	}
	c["pleas"] = note
	out, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, nil, err
	}
	made, err := model.DescribePlain(out)
	return append(out, '\n'), made, err
}

// rewrite gives layers their new widths.
func (p *job) rewrite(layers []any) {
	for _, each := range layers {
		j, _ := each.(map[string]any)
		for _, key := range []string{"layers", "shortcut"} {
			if inner, ok := j[key].([]any); ok {
				p.rewrite(inner)
			}
		}
		name, _ := j["name"].(string)
		l := find(p.d[0].Layers, name)
		if name == "" || l == nil || l.Type != "linear" && l.Type != "conv2d" {
			continue
		}
		j["out"] = len(p.out(l))
		if depthwise(l) {
			j["groups"] = len(p.in(l))
		}
	}
}

// initial makes the tensors of the first step.
//
// A merged output is the mean of the parents'; where it reads a separate unit, it has half of what that parent has there. A separate
// output is the parent's, which reads merged units as if they were its own.
func (p *job) initial() (map[string]model.Tensor, error) {
	values := map[string]model.Tensor{}
	for _, t := range slices.Concat(p.made.Tensors(), p.made.Statistics()) {
		name, _, _ := cutLast(t.Name)
		l := find(p.d[0].Layers, name)
		rows := p.axes.layout(t.Name, 0, p.shapes[t.Name][0])
		if l.Type == "linear" || l.Type == "conv2d" {
			rows = p.out(l)
		}
		inner, columns := 1, fixed(1)
		if len(t.Shape) > 1 {
			columns = p.axes.layout(t.Name, 1, p.shapes[t.Name][1])
			inner = size(t.Shape[2:])
		}
		if len(rows) != t.Shape[0] || len(rows)*len(columns)*inner != size(t.Shape) {
			return nil, fmt.Errorf("%s: %d x %d x %d values do not make %v", t.Name, len(rows), len(columns), inner, t.Shape)
		}
		var x [2][]float32
		for i := range x {
			shape := slices.Clone(p.shapes[t.Name])
			if l.Name == p.head.Name {
				shape[0] = p.headSize(i)
			}
			var err error
			if x[i], err = p.read(i, t.Name, shape); err != nil {
				return nil, err
			}
		}
		values[t.Name] = model.Tensor{Shape: t.Shape, Data: blocks(rows, columns, x, size(p.shapes[t.Name][1:])/inner, inner)}
	}
	return values, nil
}

// blocks makes a tensor of the first step; in the parents an axis 1 is width long, each entry of it inner values.
func blocks(rows, columns layout, x [2][]float32, width, inner int) []float32 {
	out := make([]float32, len(rows)*len(columns)*inner)
	at := 0
	for _, r := range rows {
		for _, c := range columns {
			from := (r.at*width + c.at) * inner
			share := [2]float64{0.5, 0.5}
			switch {
			case r.side != both && c.side != both && r.side != c.side:
				share = [2]float64{}
			case r.side == onlyA:
				share = [2]float64{1, 0}
			case r.side == onlyB:
				share = [2]float64{0, 1}
			case c.side == onlyA:
				share = [2]float64{0.5, 0}
			case c.side == onlyB:
				share = [2]float64{0, 0.5}
			}
			for k := range inner {
				sum := 0.0
				for i, s := range share {
					if s != 0 {
						sum += s * float64(x[i][from+k])
					}
				}
				out[at] = float32(sum)
				at++
			}
		}
	}
	return out
}

// cutLast cuts a name at its last point.
func cutLast(name string) (before, after string, found bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}
