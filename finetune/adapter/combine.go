package adapter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/linalg"
)

// CombineMethods lists the ways to combine adapters, with what they do.
var CombineMethods = []struct{ Name, Text string }{
	{"cat", "factors side by side: exact, the ranks add up"},
	{"svd", "the weighted sum of the deltas, truncated to a rank: the best there is"},
	{"linear", "weighted sums of the factors, of equal ranks: not the sum of the deltas; the error is printed"},
	{"ties", "TIES on the factors"},
	{"ties_svd", "TIES on the deltas, then truncated"},
	{"dare_linear", "DARE on the factors, summed"},
	{"dare_linear_svd", "DARE on the deltas, summed, then truncated"},
	{"dare_ties", "DARE on the factors, merged by TIES"},
	{"dare_ties_svd", "DARE on the deltas, merged by TIES, then truncated"},
	{"magnitude_prune", "the largest entries of the factors, summed"},
	{"magnitude_prune_svd", "the largest entries of the deltas, summed, then truncated"},
	{"knots", "TIES on the right singular vectors of all deltas side by side, then truncated (KnOTS)"},
	{"core_space", "the deltas as small cores between shared bases, summed: exact before it is truncated (Core Space)"},
	{"core_space_ties", "TIES on the cores, then truncated"},
	{"core_space_tsv", "the cores' singular vectors turned apart and added (TSV-M), then truncated"},
	{"core_space_iso", "the sum of the cores with all its singular values made equal (Iso-C), then truncated"},
}

// CombineOptions say how adapters are combined.
type CombineOptions struct {
	Method  string            // one of CombineMethods; "": svd
	Weights []float64         // one for each adapter; negative ones subtract; nil: all 1
	Rank    int               // of svd and the methods that end in it; 0: the adapters' largest
	Clamp   float64           // quantile at which the factors of these are clamped; 0: not at all
	Density float64           // share of the entries that ties, DARE and magnitude_prune keep
	Sign    string            // of TIES: total (also "") or frequency
	Seed    uint64            // of DARE
	Started func(total int64) // bytes of the adapters' factors; may be nil
	Done    func(n int64)     // bytes of those that are combined; may be nil
	Warn    func(message string)
}

// CombineReport says what came of it.
type CombineReport struct {
	Method  string   `json:"method"`
	Rank    int      `json:"rank"`
	Modules int      `json:"modules"`
	Error   Float    `json:"relative_error"` // ‖combined - Σ w·ΔW‖ / ‖Σ w·ΔW‖ over all modules
	Worst   string   `json:"worst_module,omitempty"`
	WorstE  Float    `json:"worst_error,omitempty"`
	Kept    []string `json:"kept_whole,omitempty"` // modules that one adapter alone holds whole
}

// Combine makes one adapter of several for the same base. The result's alpha is its rank, so that its scale is 1.
func Combine(ctx context.Context, list []*Adapter, o CombineOptions) (*Adapter, *CombineReport, error) {
	c := &combination{ctx: ctx, o: o, list: list, out: map[string]Tensor{}}
	for _, step := range []func() error{c.check, c.collect, c.checkRanks, c.modules, c.wholes, c.configure} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	return &Adapter{Config: c.config, Tensors: c.out}, c.report, nil
}

// combination is adapters in the making of one.
type combination struct {
	ctx    context.Context
	o      CombineOptions
	op     operator
	full   bool // works on deltas rather than on factors
	list   []*Adapter
	ranks  []int // the largest of each adapter
	rank   int   // of the result
	paths  []string
	parts  map[string][]factorPair // by path
	out    map[string]Tensor
	config *Config
	report *CombineReport
	err2   float64 // squared error and norm over all modules
	norm2  float64
	own    []Pattern // modules whose rank is not the result's
}

// factorPair is one adapter's change of a module: weight·scale·B·A.
type factorPair struct {
	adapter   int
	rank      int
	scale     float64
	a, b      Tensor
	bias      []float32
	embedding bool
}

func (c *combination) check() error {
	o := &c.o
	if len(c.list) == 0 {
		return &Error{Msg: "no adapter to combine"}
	}
	for _, a := range c.list {
		if err := a.checkBase(); err != nil {
			return err
		}
	}
	if o.Weights == nil {
		o.Weights = slices.Repeat([]float64{1}, len(c.list))
	}
	if len(o.Weights) != len(c.list) {
		return &Error{Where: "weights", Msg: fmt.Sprintf("%d weights for %d adapters", len(o.Weights), len(c.list)), Hint: "give one for each"}
	}
	for _, w := range o.Weights {
		if math.IsNaN(w) || math.IsInf(w, 0) {
			return &Error{Where: "weights", Msg: fmt.Sprintf("%v is no weight", w)}
		}
	}
	if o.Method == "" {
		o.Method = "svd"
	}
	names := make([]string, len(CombineMethods))
	for i, m := range CombineMethods {
		names[i] = m.Name
	}
	if !slices.Contains(names, o.Method) {
		hint := ""
		if n := nearest(o.Method, names); n != "" {
			hint = fmt.Sprintf("did you mean %q?", n)
		}
		return &Error{Where: "method", Msg: fmt.Sprintf("%q is unknown; there are %s", o.Method, strings.Join(names, ", ")), Hint: hint}
	}
	if len(c.list) == 1 { // nothing to elect or to truncate
		o.Method = "linear"
	}
	kind := strings.TrimSuffix(o.Method, "_svd")
	c.full = strings.HasSuffix(o.Method, "svd") || shared(o.Method)
	c.op = operator{density: 1, seed: o.Seed}
	switch kind {
	case "ties", "magnitude_prune", "knots", "core_space_ties":
		c.op.prune = "magnitude"
	case "dare_linear", "dare_ties":
		c.op.prune, c.op.rescale = "random", true
	}
	if strings.HasSuffix(kind, "ties") || kind == "knots" {
		c.op.elect = o.Sign
		if o.Sign == "" {
			c.op.elect = "total"
		}
		if c.op.elect != "total" && c.op.elect != "frequency" {
			return &Error{Where: "sign", Msg: fmt.Sprintf("%q is unknown; use total or frequency", o.Sign)}
		}
	}
	if c.op.prune != "" {
		if !(o.Density > 0 && o.Density <= 1) {
			return &Error{Where: "density", Msg: fmt.Sprintf("%s needs the share of entries to keep, above 0 and at most 1; got %v", o.Method, o.Density)}
		}
		c.op.density = o.Density
	}
	switch {
	case o.Rank < 0 || o.Rank > maxRank:
		return &Error{Where: "rank", Msg: fmt.Sprintf("%d is no rank", o.Rank)}
	case o.Rank > 0 && !c.full:
		return &Error{Where: "rank", Msg: fmt.Sprintf("the rank of %s follows from the adapters", o.Method), Hint: "choose svd, or leave the rank out"}
	case o.Clamp != 0 && (!c.full || !(o.Clamp > 0 && o.Clamp <= 1)):
		return &Error{Where: "clamp", Msg: fmt.Sprintf("%v is no quantile of the factors of an svd method", o.Clamp)}
	}
	for _, a := range c.list {
		if a.Config.DoRA {
			return &Error{File: a.Dir, Where: "use_dora", Msg: "DoRA adapters cannot be combined: what they do to a weight is no sum", Hint: "fuse them one after the other, or merge base+adapter models in a recipe"}
		}
	}
	return nil
}

// collect gathers the factors of every module.
func (c *combination) collect() error {
	c.parts = map[string][]factorPair{}
	for i, a := range c.list {
		largest := 0
		for _, key := range a.Keys() {
			path, end, ok := splitKey(key)
			if !ok {
				return &Error{File: a.Dir, Where: key, Msg: "is no tensor of an adapter that peft writes"}
			}
			if end != endA && end != endEmbA {
				continue
			}
			p := factorPair{adapter: i, a: a.Tensors[key], embedding: end == endEmbA}
			other := endB
			if p.embedding {
				other = endEmbB
			}
			var there bool
			if p.b, there = a.Tensors[prefix+path+other]; !there {
				return &Error{File: a.Dir, Where: key, Msg: "is there without its other half", Hint: "the adapter is damaged"}
			}
			var rank int
			rank, _, p.scale = a.Config.Scale(path)
			if len(p.a.Shape) != 2 || len(p.b.Shape) != 2 || p.a.Shape[0] != rank || p.b.Shape[1] != rank {
				return &Error{File: a.Dir, Where: key, Msg: fmt.Sprintf("A %v and B %v are not of the rank %d that the configuration gives", p.a.Shape, p.b.Shape, rank)}
			}
			p.rank = rank
			p.bias = a.Tensors[prefix+path+endBiasB].Data
			largest = max(largest, rank)
			if have := c.parts[path]; len(have) > 0 {
				if f := have[0]; f.embedding != p.embedding || f.a.Shape[1] != p.a.Shape[1] || f.b.Shape[0] != p.b.Shape[0] || p.bias != nil && len(p.bias) != p.b.Shape[0] {
					return &Error{File: a.Dir, Where: path, Msg: fmt.Sprintf("is for a weight of %d outputs and %d inputs, in %s of %d and %d", p.b.Shape[0], p.a.Shape[1], c.list[f.adapter].Dir, f.b.Shape[0], f.a.Shape[1]),
						Hint: "the adapters are for different bases"}
				}
			} else {
				c.paths = append(c.paths, path)
			}
			c.parts[path] = append(c.parts[path], p)
		}
		c.ranks = append(c.ranks, largest)
	}
	if len(c.paths) == 0 {
		return &Error{Msg: "the adapters hold no factors to combine"}
	}
	slices.Sort(c.paths)
	if len(c.list) > 1 && !slices.ContainsFunc(c.paths, func(p string) bool { return len(c.parts[p]) > 1 }) {
		c.warn("no module is changed by more than one of the adapters")
	}
	return nil
}

func (c *combination) warn(format string, args ...any) {
	if c.o.Warn != nil {
		c.o.Warn(fmt.Sprintf(format, args...))
	}
}

func (c *combination) checkRanks() error {
	switch {
	case c.o.Method == "cat":
		for _, r := range c.ranks {
			c.rank += r
		}
	case c.full:
		c.rank = c.o.Rank
		if c.rank == 0 {
			c.rank = slices.Max(c.ranks)
		}
	default:
		for _, path := range c.paths {
			for _, p := range c.parts[path] {
				if p.rank != c.parts[path][0].rank {
					return &Error{Where: path, Msg: fmt.Sprintf("%s needs adapters of equal ranks; here they are %d and %d", c.o.Method, c.parts[path][0].rank, p.rank), Hint: "choose cat or svd"}
				}
			}
		}
		c.rank = slices.Max(c.ranks)
	}
	return nil
}

// modules combines one module after the other.
func (c *combination) modules() error {
	c.report = &CombineReport{Method: c.o.Method, Rank: c.rank, Modules: len(c.paths)}
	if c.o.Started != nil {
		total := int64(0)
		for _, path := range c.paths {
			total += bytesOf(c.parts[path])
		}
		c.o.Started(total)
	}
	for _, path := range c.paths {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.module(path); err != nil {
			return err
		}
		if c.o.Done != nil {
			c.o.Done(bytesOf(c.parts[path]))
		}
	}
	if c.norm2 > 0 {
		c.report.Error = Float(math.Sqrt(c.err2 / c.norm2))
	}
	return nil
}

// bytesOf is the size of a module's factors.
func bytesOf(parts []factorPair) (n int64) {
	for _, p := range parts {
		n += 4 * int64(len(p.a.Data)+len(p.b.Data))
	}
	return n
}

func (c *combination) module(path string) error {
	parts := c.parts[path]
	var a, b []float32
	var err error
	rank := c.rank
	switch {
	case c.o.Method == "cat":
		a, b = c.cat(parts, rank)
	case c.full:
		a, b, err = c.truncated(path, parts, rank)
	default:
		rank = parts[0].rank
		a, b = c.onFactors(path, parts)
	}
	if err != nil {
		if errors.Is(err, linalg.ErrNotFinite) {
			return &Error{Where: path, Msg: "the adapters hold NaN or infinite values here"}
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	in, out := parts[0].a.Shape[1], parts[0].b.Shape[0]
	endOfA, endOfB := endA, endB
	if parts[0].embedding {
		endOfA, endOfB = endEmbA, endEmbB
	}
	if rank != c.rank {
		c.own = append(c.own, Pattern{path, float64(rank)})
	}
	c.out[prefix+path+endOfA] = Tensor{[]int{rank, in}, a}
	c.out[prefix+path+endOfB] = Tensor{[]int{out, rank}, b}
	c.bias(path, parts)
	c.measure(path, parts, a, b, rank)
	return nil
}

// weight is how much of a pair's B·A goes into the sum.
func (c *combination) weight(p factorPair) float64 { return c.o.Weights[p.adapter] * p.scale }

// cat puts the factors side by side, zeros beyond them where an adapter does not have the module.
func (c *combination) cat(parts []factorPair, rank int) (a, b []float32) {
	in, out := parts[0].a.Shape[1], parts[0].b.Shape[0]
	a, b = make([]float32, rank*in), make([]float32, out*rank)
	row := 0
	for _, p := range parts {
		w := float32(c.weight(p))
		for i, x := range p.a.Data {
			a[row*in+i] = x * w
		}
		for i := range out {
			copy(b[i*rank+row:], p.b.Data[i*p.rank:(i+1)*p.rank])
		}
		row += p.rank
	}
	return a, b
}

// onFactors merges the A's and the B's each for themselves, with the square roots of the weights; the sign goes to A.
func (c *combination) onFactors(path string, parts []factorPair) (a, b []float32) {
	var as, bs [][]float32
	var wa, wb []float64
	for _, p := range parts {
		w := c.weight(p)
		root := math.Sqrt(math.Abs(w))
		as, bs, wb = append(as, p.a.Data), append(bs, p.b.Data), append(wb, root)
		wa = append(wa, math.Copysign(root, w))
	}
	op := c.op
	op.name = path + " A"
	a = op.merge(as, wa)
	op.name = path + " B"
	return a, op.merge(bs, wb)
}

// truncated merges the deltas and truncates the result to a rank.
func (c *combination) truncated(path string, parts []factorPair, rank int) (a, b []float32, err error) {
	in, out := parts[0].a.Shape[1], parts[0].b.Shape[0]
	var s *linalg.SVD
	total := 0
	for _, p := range parts {
		total += p.rank
	}
	if shared(c.o.Method) {
		s, err = c.inSharedBases(parts, rank)
	} else if c.o.Method == "svd" && total < min(in, out) {
		wa, wb := c.cat(parts, total)
		s, err = linalg.OfProduct(linalg.Of(wb, out, total), linalg.Of(wa, total, in), rank, 0)
	} else {
		var deltas [][]float32
		var weights []float64
		for _, p := range parts {
			m := Module{Kind: Linear, In: in, Out: out}
			d := make([]float32, in*out)
			newLowRank(m, p.a.Data, p.b.Data, p.rank, p.scale).add(d, 0)
			deltas, weights = append(deltas, d), append(weights, c.o.Weights[p.adapter])
		}
		op := c.op
		op.name = path
		s, err = linalg.Truncated(linalg.Of(op.merge(deltas, weights), out, in), rank, linalg.Options{Seed: c.o.Seed, Name: path, Iterations: 4, ExactUpTo: exactSide})
	}
	if err != nil {
		return nil, nil, err
	}
	a, b = make([]float32, rank*in), make([]float32, out*rank)
	for k := range s.Rank {
		for i := range out {
			b[i*rank+k] = s.U[i*s.Rank+k] * float32(s.S[k])
		}
		for j := range in {
			a[k*in+j] = s.V[j*s.Rank+k]
		}
	}
	if c.o.Clamp > 0 {
		clampAt(c.o.Clamp, b, a)
	}
	return a, b, nil
}

// clampAt bounds both factors by the quantile of all their entries.
func clampAt(q float64, b, a []float32) {
	all := slices.Concat(b, a)
	slices.Sort(all)
	at := q * float64(len(all)-1)
	low := int(at)
	h := float64(all[low])
	if low+1 < len(all) {
		h += (at - float64(low)) * (float64(all[low+1]) - h)
	}
	bound := float32(h)
	for _, x := range [][]float32{a, b} {
		for i, v := range x {
			x[i] = max(min(v, bound), -bound)
		}
	}
}

// bias sums the biases of B, which is exact whatever is done to the factors.
func (c *combination) bias(path string, parts []factorPair) {
	if !slices.ContainsFunc(parts, func(p factorPair) bool { return p.bias != nil }) {
		return
	}
	sum := make([]float32, parts[0].b.Shape[0])
	for _, p := range parts {
		for i, x := range p.bias {
			sum[i] += x * float32(c.weight(p))
		}
	}
	c.out[prefix+path+endBiasB] = Tensor{[]int{len(sum)}, sum}
}

// measure adds the difference between the result and the exact sum.
func (c *combination) measure(path string, parts []factorPair, a, b []float32, rank int) {
	in, out := parts[0].a.Shape[1], parts[0].b.Shape[0]
	m := Module{Kind: Linear, In: in, Out: out}
	got := newLowRank(m, a, b, rank, 1)
	var exact []*lowRank
	for _, p := range parts {
		exact = append(exact, newLowRank(m, p.a.Data, p.b.Data, p.rank, c.weight(p)))
	}
	err2, norm2 := 0.0, 0.0
	rows := max(1, (1<<20)/in)
	x, y := make([]float32, rows*in), make([]float32, rows*in)
	for r := 0; r < out; r += rows {
		n := min(rows, out-r) * in
		clear(x)
		clear(y)
		got.add(x[:n], int64(r)*int64(in))
		for _, e := range exact {
			e.add(y[:n], int64(r)*int64(in))
		}
		for i, v := range y[:n] {
			d := float64(x[i]) - float64(v)
			err2 += d * d
			norm2 += float64(v) * float64(v)
		}
	}
	c.err2 += err2
	c.norm2 += norm2
	if e := math.Sqrt(err2 / norm2); norm2 > 0 && Float(e) > c.report.WorstE {
		c.report.Worst, c.report.WorstE = path, Float(e)
	}
}

// wholes takes over what single adapters hold whole. Two whole matrices of one module cannot be combined.
func (c *combination) wholes() error {
	owner := map[string]int{}
	for i, a := range c.list {
		for _, key := range a.Keys() {
			path, end, ok := splitKey(key)
			if !ok || end == endA || end == endB || end == endEmbA || end == endEmbB || end == endBiasB {
				continue
			}
			if first, twice := owner[key]; twice {
				if end == endBaseW { // the untouched matrix of the base
					continue
				}
				return &Error{File: a.Dir, Where: path, Msg: fmt.Sprintf("is held whole by %s too, and whole modules cannot be combined", filepath.Base(c.list[first].Dir)), Hint: "fuse the adapters and merge the models by a recipe"}
			}
			owner[key] = i
			if t, ok := a.Tensors[key]; ok {
				c.out[key] = t
			} else if t, err := decode(a.views[key]); err == nil {
				c.out[key] = t
			} else {
				return err
			}
			if end != endBaseW {
				c.report.Kept = append(c.report.Kept, path+end)
			}
		}
	}
	if len(c.report.Kept) > 0 {
		slices.Sort(c.report.Kept)
		c.warn("%d whole tensors are taken over as they are, whatever their adapter's weight: %s", len(c.report.Kept), some(c.report.Kept))
	}
	return nil
}
