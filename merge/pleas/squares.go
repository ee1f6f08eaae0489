package pleas

import (
	"context"
	"fmt"

	"github.com/mergekit/mergekit/internal/moments"
	"github.com/mergekit/mergekit/internal/ridge"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// fit goes through the new network in the order of computation: maps get their least squares, batch norms the statistics of what they
// read.
func (p *job) fit(ctx context.Context) error {
	squares := p.o.Squares.Mode != None
	norms := !p.o.KeepNorms && len(p.made.Statistics()) > 0
	if !squares && !norms {
		return nil
	}
	var err error
	if p.net, err = model.NewPlain(p.made, p.values, p.o.Backend, p.o.Device); err != nil {
		return err
	}
	steps := order(p.made.Layers, nil)
	for k, l := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case l.Type == "batch_norm" && norms:
			err = p.norm(ctx, l)
		case l.Type != "batch_norm" && squares:
			err = p.squares(ctx, find(p.d[0].Layers, l.Name), l)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.Name, err)
		}
		p.progress(k+1, len(steps), "fitting "+l.Name)
	}
	return nil
}

// order lists maps and batch norms in the order of computation.
func order(layers []model.PlainLayer, list []*model.PlainLayer) []*model.PlainLayer {
	for i := range layers {
		switch l := &layers[i]; l.Type {
		case "linear", "conv2d", "batch_norm":
			list = append(list, l)
		case "residual":
			list = order(l.Shortcut, order(l.Layers, list))
		}
	}
	return list
}

// norm measures what a batch norm reads, over all data.
func (p *job) norm(ctx context.Context, l *model.PlainLayer) error {
	c := &moments.Columns{}
	for _, s := range p.data {
		err := p.pieces(ctx, s, size(l.In), func(x []float32, n int) error {
			return p.net.NormInputs(x, n, func(name string) bool { return name == l.Name }, func(_ string, x []float32, rows, width int) error {
				c.Add(x, rows, width)
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	n := float64(c.N())
	mean, variance := p.values[l.Name+".running_mean"], p.values[l.Name+".running_var"]
	for i, v := range c.Mean() {
		mean.Data[i] = float32(v)
	}
	for i, v := range c.Variance() {
		variance.Data[i] = float32(v * n / max(n-1, 1)) // as torch keeps it
	}
	p.report.Norms++
	return p.net.SetTensors(map[string]model.Tensor{l.Name + ".running_mean": mean, l.Name + ".running_var": variance})
}

// part is a system of equations of a map: a convolution has one for every group of channels.
type part struct {
	inner, outer layout
	sums         *ridge.System
	variance
}

// squares fits one map of the new network: was is the parents' layer.
func (p *job) squares(ctx context.Context, was, l *model.PlainLayer) error {
	kernel := l.Kernel[0] * l.Kernel[1]
	in, out := p.in(was).spread(kernel), p.out(was)
	weight, bias := p.values[l.Name+".weight"], p.values[l.Name+".bias"]
	inWidth, outWidth := len(in)/l.Groups, len(out)/l.Groups
	parts := make([]*part, l.Groups)
	for g := range parts {
		parts[g] = &part{inner: in[g*inWidth : (g+1)*inWidth], outer: out[g*outWidth : (g+1)*outWidth], sums: ridge.New(inWidth, outWidth, l.Bias)}
	}
	turned := make([]float32, len(weight.Data)) // of every part, [inputs, outputs]
	for g := range parts {
		w := weight.Data[g*inWidth*outWidth : (g+1)*inWidth*outWidth]
		for i := range outWidth {
			for j := range inWidth {
				turned[g*inWidth*outWidth+j*outWidth+i] = w[i*inWidth+j]
			}
		}
	}
	rows := 0
	add := func(x, y []float32, n int) error {
		for g, q := range parts {
			xs, ys := columns(x, n, len(in), g*inWidth, inWidth), columns(y, n, len(out), g*outWidth, outWidth)
			q.add(ys, n, outWidth)
			made := make([]float32, n*outWidth)
			if err := p.o.Gram.Multiply(made, xs, turned[g*inWidth*outWidth:(g+1)*inWidth*outWidth], n, inWidth, outWidth); err != nil {
				return err
			}
			left := make([]float32, n*outWidth)
			for i := range left {
				left[i] = ys[i] - made[i]
				if l.Bias {
					left[i] -= bias.Data[g*outWidth+i%outWidth]
				}
			}
			if err := q.sums.Add(p.o.Gram, xs, left, n); err != nil {
				return err
			}
		}
		rows += n
		return nil
	}
	if err := p.equations(ctx, was, l, in, out, add); err != nil {
		return err
	}
	before, after, spread := 0.0, 0.0, 0.0
	for g, q := range parts {
		w := weight.Data[g*inWidth*outWidth : (g+1)*inWidth*outWidth]
		spread += q.total()
		// The zeros between the parents' own units make three problems of one.
		for _, s := range []side{both, onlyA, onlyB} {
			outs, ins := q.outer.of(s), []int(nil)
			if s != both {
				ins = q.inner.of(both, s)
			}
			if len(outs) == 0 {
				continue
			}
			c, err := q.sums.Solve(ins, outs, p.o.Squares.Ridge)
			if err != nil {
				return err
			}
			before, after = before+c.Before, after+c.After
			if ins == nil {
				ins = q.inner.of(both, onlyA, onlyB)
			}
			for k, o := range outs {
				for m, i := range ins {
					w[o*inWidth+i] = float32(float64(w[o*inWidth+i]) + c.Weight[k*len(ins)+m])
				}
				if l.Bias {
					bias.Data[g*outWidth+o] = float32(float64(bias.Data[g*outWidth+o]) + c.Bias[k])
				}
			}
		}
	}
	if spread == 0 {
		spread = 1
	}
	p.report.Layers = append(p.report.Layers, Layer{l.Name, rows, before / spread, after / spread})
	set := map[string]model.Tensor{l.Name + ".weight": weight}
	if l.Bias {
		set[l.Name+".bias"] = bias
	}
	return p.net.SetTensors(set)
}

// equations gives what a map of the new network reads and what it ought to give, some rows at a time.
//
// In the mean, a merged unit stands for the mean of the parents' units, as input and as target. Stacked, the data of each parent gives
// rows in which merged units are those of that parent; separate ones are their parent's on any data. From the new network itself come
// the inputs of all.
func (p *job) equations(ctx context.Context, was, l *model.PlainLayer, in, out layout, add func(x, y []float32, n int) error) error {
	type domain struct {
		set  *samples.Set
		from []int // whose values merged units have
	}
	var domains []domain
	for i := range 2 {
		if p.o.Squares.Mode == Stacked {
			domains = append(domains, domain{p.data[min(i, len(p.data)-1)], []int{i}})
		} else if i < len(p.data) {
			domains = append(domains, domain{p.data[i], []int{0, 1}})
		}
	}
	positions := 1
	if l.Type == "conv2d" {
		positions = l.Out[1] * l.Out[2]
	}
	want := func(module string) bool { return module == l.Name }
	for _, d := range domains {
		err := p.pieces(ctx, d.set, positions*(len(in)+len(out)), func(x []float32, n int) error {
			var xs, ys [2][]float32
			for i, net := range p.nets {
				err := net.Taps(x, n, want, func(_ string, in, out []float32, _, _, _ int) error {
					xs[i], ys[i] = append(xs[i], in...), append(ys[i], out...)
					return nil
				})
				if err != nil {
					return err
				}
			}
			rows := n * positions
			var read []float32
			if p.o.Squares.Inputs == Merged {
				err := p.net.Taps(x, n, want, func(_ string, in, _ []float32, _, _, _ int) error {
					read = append(read, in...)
					return nil
				})
				if err != nil {
					return err
				}
			} else {
				read = mixed(xs, in, rows, d.from)
			}
			return add(read, mixed(ys, out, rows, d.from), rows)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// mixed lays rows of the parents out as the new network has them; merged units are the mean of those parents' that from names.
func mixed(x [2][]float32, l layout, rows int, from []int) []float32 {
	width := [2]int{len(x[0]) / rows, len(x[1]) / rows}
	out := make([]float32, rows*len(l))
	for r := range rows {
		to := out[r*len(l) : (r+1)*len(l)]
		a, b := x[0][r*width[0]:(r+1)*width[0]], x[1][r*width[1]:(r+1)*width[1]]
		for i, e := range l {
			switch {
			case e.side == onlyA:
				to[i] = a[e.at]
			case e.side == onlyB:
				to[i] = b[e.at]
			case len(from) == 2:
				to[i] = (a[e.at] + b[e.at]) / 2
			case from[0] == 0:
				to[i] = a[e.at]
			default:
				to[i] = b[e.at]
			}
		}
	}
	return out
}

// columns are a part of the columns of a matrix.
func columns(x []float32, rows, width, from, n int) []float32 {
	if n == width {
		return x
	}
	out := make([]float32, rows*n)
	for r := range rows {
		copy(out[r*n:(r+1)*n], x[r*width+from:])
	}
	return out
}

// variance sums targets, so that an error can be told as a share of what there is to explain.
type variance struct{ c moments.Columns }

func (v *variance) add(y []float32, rows, width int) { v.c.Add(y, rows, width) }

func (v *variance) total() float64 {
	sum := 0.0
	for _, s := range v.c.Variance() {
		sum += s * float64(v.c.N())
	}
	return sum
}
