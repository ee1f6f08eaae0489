package moe

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/linalg"
)

// Gates are the rows of the routers.
type Gates struct {
	Layers, Experts, Shared, Hidden int
	Rows                            []float32 // [Layers, Experts, Hidden]
	SharedRows                      []float32 // [Layers, Shared, Hidden]; empty where shared experts have no gate
	Notes                           []string  // what is worth knowing about them
	Backend                         string    // the kind of backend that computed hidden states; "": none was asked
}

// Row is the row of an expert.
func (g *Gates) Row(layer, expert int) []float32 {
	at := (layer*g.Experts + expert) * g.Hidden
	return g.Rows[at : at+g.Hidden]
}

// SharedRow is the row of a shared expert.
func (g *Gates) SharedRow(layer, expert int) []float32 {
	at := (layer*g.Shared + expert) * g.Hidden
	return g.SharedRows[at : at+g.Hidden]
}

// GateOptions say how gates are made.
type GateOptions struct {
	// Backend opens where the forward pass of the hidden modes runs, and says how to close it.
	Backend func() (compute.Backend, func(), error)
	// Progress is told what is done of the forward pass. It may be nil.
	Progress func(done, total int, what string)
}

// Gates makes the rows of the routers.
func (p *Plan) Gates(ctx context.Context, o GateOptions) (*Gates, error) {
	g := &Gates{Layers: p.Layers, Experts: len(p.Config.Experts), Hidden: p.Hidden}
	if p.gatesShared() {
		g.Shared = len(p.Config.Shared)
	}
	g.Rows = make([]float32, g.Layers*g.Experts*g.Hidden)
	g.SharedRows = make([]float32, g.Layers*g.Shared*g.Hidden)
	switch p.Config.Gate {
	case GateRandom, GateUniformRandom:
		g.draw(p.Config.Gate == GateUniformRandom, p.Options.Seed)
		return g, nil
	}
	var vectors func(prompts []string) ([][]float64, error) // one for each layer
	groups := p.promptGroups(g)
	texts, err := p.tokenize(groups)
	if err != nil {
		return nil, err
	}
	if p.Config.Gate == GateCheapEmbed {
		vectors = p.embedded(texts)
	} else {
		vectors, g.Backend, err = p.hidden(ctx, texts, o)
	}
	if err != nil {
		return nil, err
	}
	for _, x := range groups {
		pos, err := vectors(x.positive)
		if err != nil {
			return nil, err
		}
		var neg [][]float64
		if len(x.negative) > 0 {
			if neg, err = vectors(x.negative); err != nil {
				return nil, err
			}
		}
		for layer := range g.Layers {
			v := pos[layer]
			if neg != nil {
				subtract(v, neg[layer])
			}
			if !normalise(v) {
				return nil, p.Config.errorf(x.expert.Pos, "%s: positive and negative prompts cancel out, so there is no direction for layer %d; change them", x.expert.Model, layer)
			}
			for i, f := range v {
				x.row(layer)[i] = float32(f)
			}
		}
	}
	g.condition()
	return g, nil
}

// gatesShared says whether shared experts have rows.
func (p *Plan) gatesShared() bool {
	for _, t := range p.Tasks {
		if t.Parts[0].Router && t.Parts[0].Shared {
			return true
		}
	}
	return false
}

// promptGroup is an expert with prompts and the rows that they make.
type promptGroup struct {
	expert             *Expert
	positive, negative []string
	row                func(layer int) []float32
}

func (p *Plan) promptGroups(g *Gates) []promptGroup {
	var list []promptGroup
	for e := range p.Config.Experts {
		x := &p.Config.Experts[e]
		list = append(list, promptGroup{x, x.Positive, x.Negative, func(layer int) []float32 { return g.Row(layer, e) }})
	}
	for e := range g.Shared {
		x := &p.Config.Shared[e]
		list = append(list, promptGroup{x, x.Positive, x.Negative, func(layer int) []float32 { return g.SharedRow(layer, e) }})
	}
	return list
}

// draw fills the rows with random numbers that depend on seed, layer and expert alone.
func (g *Gates) draw(uniform bool, seed uint64) {
	row := func(x []float32, kind string, layer, e int) {
		name := fmt.Sprintf("router of %s %d, layer %d", kind, e, layer)
		if !uniform {
			linalg.Normal(x, seed, name)
			return
		}
		linalg.Uniform(x, seed, name)
		bound := 1 / math.Sqrt(float64(g.Hidden)) // as a linear map of this width is initialised
		for i, u := range x {
			x[i] = float32((2*float64(u) - 1) * bound)
		}
	}
	for layer := range g.Layers {
		for e := range g.Experts {
			row(g.Row(layer, e), "expert", layer, e)
		}
		for e := range g.Shared {
			row(g.SharedRow(layer, e), "shared", layer, e)
		}
	}
}

// embedded sums the embeddings of all tokens of prompts; the unit vector of the sum serves every layer.
func (p *Plan) embedded(texts map[string][]int32) func(prompts []string) ([][]float64, error) {
	read := reader{m: p.Base}
	return func(prompts []string) ([][]float64, error) {
		var ids []int32
		for _, text := range prompts {
			ids = append(ids, texts[text]...)
		}
		rows, err := read.rowsOf(p.embed, ids, p.Hidden)
		if err != nil {
			return nil, err
		}
		sum := pool(rows, p.Hidden, true) // the mean has the direction of the sum
		normalise(sum)
		list := make([][]float64, p.Layers)
		for i := range list {
			list[i] = slices.Clone(sum)
		}
		return list, nil
	}
}

func subtract(a, b []float64) {
	for i := range a {
		a[i] -= b[i]
	}
}

// normalise makes x a unit vector; false means that it has no direction.
func normalise(x []float64) bool {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	norm := math.Sqrt(sum)
	if !(norm > 1e-8) || math.IsInf(norm, 0) {
		return false
	}
	for i := range x {
		x[i] /= norm
	}
	return true
}

// muchAlike is the condition number from which the rows of a router are called alike.
const muchAlike = 5

// condition notes layers whose rows are so alike that the router hardly tells the experts apart: the ratio of the largest to the smallest
// singular value.
func (g *Gates) condition() {
	if g.Experts < 2 {
		return
	}
	var layers []int
	worst := 0.0
	for layer := range g.Layers {
		c := conditionNumber(g.Rows[layer*g.Experts*g.Hidden:(layer+1)*g.Experts*g.Hidden], g.Experts, g.Hidden)
		if c > muchAlike {
			layers = append(layers, layer)
		}
		worst = max(worst, c)
	}
	if len(layers) == 0 {
		return
	}
	g.Notes = append(g.Notes, fmt.Sprintf("in %d of %d layers the experts' prompts point in much the same direction (condition number up to %s, more than %d is much), so the router tells the experts badly apart; choose prompts that differ more",
		len(layers), g.Layers, conditionText(worst), muchAlike))
}

func conditionText(c float64) string {
	if math.IsInf(c, 0) {
		return "infinity"
	}
	return fmt.Sprintf("%.3g", c)
}

// conditionNumber is the ratio of a matrix's largest to its smallest singular value.
func conditionNumber(a []float32, rows, cols int) float64 {
	wide := make([]float64, len(a))
	for i, x := range a {
		wide[i] = float64(x)
	}
	m, n := linalg.Of64(wide, rows, cols), rows
	if rows > cols {
		m, n = m.T(), cols
	}
	values, _, err := linalg.Eigen(linalg.Gram(m, 0), n, 0)
	if err != nil || values[0] <= values[n-1]*1e-14 { // what the sums round away is no direction
		return math.Inf(1)
	}
	return math.Sqrt(values[n-1] / values[0])
}
