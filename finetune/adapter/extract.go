package adapter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/tensors"
)

// What is done with embeddings, output heads and norms that differ between base and tuned model.
const (
	Save = "save" // whole, in modules_to_save
	Low  = "lora" // by factors, as other matrices (not norms)
	Skip = "skip" // left out: the adapter does not hold this change
)

// ExtractOptions say how the difference of two checkpoints becomes an adapter.
type ExtractOptions struct {
	Rank       int     // of every module, at most
	Energy     float64 // share of each delta's squared norm that is kept by as few ranks as it takes; 0: Rank ranks
	Embeddings string  // Save (also ""), Low or Skip: input embeddings and the output head
	Others     string  // Save (also "") or Skip: norms, biases and whatever else is no matrix
	Iterations int     // power iterations; 0: 4
	Seed       uint64
	MaxMemory  int64             // bytes for the matrices that are in work; 0: a quarter of the machine's, at most 4 GiB
	Started    func(total int64) // elements to decompose; may be nil
	Done       func(elements int64)
	Warn       func(message string)
}

// ModuleReport says what an adapter keeps of one module's change.
type ModuleReport struct {
	Module string `json:"module"`
	What   string `json:"what"` // low rank, whole, bias, skipped
	Rank   int    `json:"rank,omitempty"`
	Norm   Float  `json:"norm"`   // ‖ΔW‖
	Share  Float  `json:"share"`  // ‖ΔW‖ / ‖W‖
	Energy Float  `json:"energy"` // kept share of ‖ΔW‖²
	Error  Float  `json:"error"`  // ‖ΔW - s·B·A‖ / ‖ΔW‖
}

// ExtractReport says what was extracted.
type ExtractReport struct {
	Modules    []ModuleReport `json:"modules"`
	Unchanged  int            `json:"unchanged"`
	Rank       int            `json:"rank"`
	Parameters int64          `json:"parameters"`
	Energy     Float          `json:"energy"` // over all modules of low rank
	Error      Float          `json:"error"`
}

// Extract makes an adapter that turns base into tuned: the truncated singular value decomposition of each matrix's
// difference, whole tensors for what differs and is no matrix. Both are checkpoints of one architecture. The adapter's alpha
// is its rank, so that its scale is 1.
func Extract(ctx context.Context, base, tuned string, o ExtractOptions) (*Adapter, *ExtractReport, error) {
	x := &extraction{ctx: ctx, o: o, out: map[string]Tensor{}}
	defer x.close()
	for _, step := range []func() error{x.check, func() error { return x.open(base, tuned) }, x.match, x.decompose, x.configure} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	return &Adapter{Config: x.config, Tensors: x.out}, x.report, nil
}

// extraction is an adapter in the making.
type extraction struct {
	ctx         context.Context
	o           ExtractOptions
	base, tuned *side
	pairs       []modulePair
	out         map[string]Tensor
	config      *Config
	report      *ExtractReport

	mu       sync.Mutex
	results  map[string]ModuleReport // by path
	kept     float64                 // squared norms over all decomposed modules
	total    float64
	residual float64
	biases   []Whole // all biases of the model, if one differs
}

// side is one of the two checkpoints.
type side struct {
	dir     string
	ckpt    *tensors.Checkpoint
	raw     []byte
	config  arch.Config
	modules []Module
}

// modulePair is a module in both checkpoints. base has no weight for one that only the tuned model has.
type modulePair struct {
	Module        // as the tuned model has it
	base   Module // as the base has it
	elems  int64
	how    string // Low, Save, Skip, or "" where nothing differs
	biased bool   // its bias differs
}

func (x *extraction) close() {
	for _, s := range []*side{x.base, x.tuned} {
		if s != nil && s.ckpt != nil {
			_ = s.ckpt.Close()
		}
	}
}

func (x *extraction) warn(format string, args ...any) {
	if x.o.Warn != nil {
		x.o.Warn(fmt.Sprintf(format, args...))
	}
}

func (x *extraction) check() error {
	o := &x.o
	if o.Rank <= 0 || o.Rank > maxRank {
		return &Error{Where: "rank", Msg: fmt.Sprintf("%d is no rank; a positive number is expected", o.Rank)}
	}
	if !(o.Energy >= 0 && o.Energy <= 1) {
		return &Error{Where: "energy", Msg: fmt.Sprintf("%v is no share between 0 and 1", o.Energy)}
	}
	if o.Embeddings == "" {
		o.Embeddings = Save
	}
	if o.Others == "" {
		o.Others = Save
	}
	if !slices.Contains([]string{Save, Low, Skip}, o.Embeddings) {
		return &Error{Where: "embeddings", Msg: fmt.Sprintf("%q is unknown; use save, lora or skip", o.Embeddings)}
	}
	if !slices.Contains([]string{Save, Skip}, o.Others) {
		return &Error{Where: "others", Msg: fmt.Sprintf("%q is unknown; use save or skip", o.Others)}
	}
	if o.Iterations == 0 {
		o.Iterations = 4
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = 4 << 30
		if t := memory.Total(); t > 0 {
			o.MaxMemory = min(o.MaxMemory, t/4)
		}
	}
	return nil
}

func (x *extraction) open(base, tuned string) error {
	var err error
	if x.base, err = openSide(base); err != nil {
		return err
	}
	x.tuned, err = openSide(tuned)
	return err
}

func openSide(path string) (*side, error) {
	s := &side{dir: path}
	var err error
	if s.ckpt, err = tensors.Open(path); err != nil {
		return nil, err
	}
	if s.config, s.raw, err = arch.ReadConfigFile(path); err == nil || errors.Is(err, os.ErrNotExist) {
		s.modules, err = Modules(s.ckpt, s.raw)
	}
	if err != nil {
		_ = s.ckpt.Close()
		return nil, err
	}
	return s, nil
}

// match pairs the modules and finds out which differ.
func (x *extraction) match() error {
	b := &binding{modules: x.base.modules}
	b.index()
	known := map[int]bool{}
	for _, m := range x.tuned.modules {
		if m.Tied {
			continue // its matrix is the embedding's
		}
		i, ok := b.find(m.Path)
		p := modulePair{Module: m}
		if ok && !x.base.modules[i].Tied {
			known[i] = true
			p.base = x.base.modules[i]
		}
		if err := x.compare(&p); err != nil {
			return err
		}
		x.pairs = append(x.pairs, p)
	}
	if len(known) == 0 {
		return &Error{File: x.tuned.dir, Msg: "has no module in common with the base " + x.base.dir, Hint: "the two must be of one architecture"}
	}
	var lost []string
	for i, m := range x.base.modules {
		if !known[i] && !m.Tied {
			lost = append(lost, m.Path)
		}
	}
	if len(lost) > 0 {
		x.warn("%d modules of the base are not in the tuned model: %s", len(lost), some(lost))
	}
	return nil
}

// compare decides what is done with a module.
func (x *extraction) compare(p *modulePair) error {
	p.elems = 1
	for _, d := range p.Shape {
		p.elems *= int64(d)
	}
	vocabulary := p.Kind == Embedding || p.OutputHead
	switch {
	case p.Weight == "": // a bias on its own
	case p.base.Path == "":
		p.how = Save
		if !p.OutputHead {
			x.warn("%s is in the tuned model only; it is saved whole", p.Path)
		}
	case !slices.Equal(p.Shape, p.base.Shape):
		if !vocabulary || len(p.Shape) != 2 || len(p.base.Shape) != 2 || p.Shape[1] != p.base.Shape[1] {
			return &Error{File: x.tuned.dir, Where: p.Weight, Msg: fmt.Sprintf("has shape %v, in the base %v: the models have different widths", p.Shape, p.base.Shape)}
		}
		p.how = Save
		if x.o.Embeddings != Save {
			x.warn("%s has another number of rows than in the base, so it is saved whole", p.Path)
		}
	case p.Weight != "":
		same, err := x.equal(p.base.Weight, p.Weight)
		if err != nil {
			return err
		}
		switch {
		case same:
		case vocabulary:
			p.how = x.o.Embeddings
		case p.Kind == Other:
			p.how = x.o.Others
		default:
			p.how = Low
		}
	}
	if p.Bias != p.base.Bias && p.base.Path != "" {
		return &Error{File: x.tuned.dir, Where: p.Path, Msg: "has a bias in one of the models and none in the other"}
	}
	if p.Bias && p.base.Bias {
		same, err := x.equal(p.base.BiasName, p.BiasName)
		if err != nil {
			return err
		}
		p.biased = !same
	}
	return nil
}

// equal compares two tensors' values.
func (x *extraction) equal(base, tuned string) (bool, error) {
	v, err := x.base.ckpt.View(base)
	if err != nil {
		return false, err
	}
	w, err := x.tuned.ckpt.View(tuned)
	if err != nil {
		return false, err
	}
	if v.Elems() != w.Elems() {
		return false, nil
	}
	if v.DType == w.DType {
		return string(v.Data) == string(w.Data), nil
	}
	const step = 1 << 16
	p, q := make([]float32, step), make([]float32, step)
	for off := int64(0); off < v.Elems(); off += step {
		n := min(step, v.Elems()-off)
		if err := readInto(p[:n], v, off); err != nil {
			return false, err
		}
		if err := readInto(q[:n], w, off); err != nil {
			return false, err
		}
		if !slices.Equal(p[:n], q[:n]) {
			return false, nil
		}
	}
	return true, nil
}

func readInto(w []float32, v tensors.View, off int64) error {
	s := int64(v.DType.Size())
	return tensors.DecodeFloat32(w, v.Data[off*s:(off+int64(len(w)))*s], v.DType)
}

// decompose works on several modules at a time, the largest first, as far as the memory goes.
func (x *extraction) decompose() error {
	x.results = map[string]ModuleReport{}
	order := slices.Clone(x.pairs)
	order = slices.DeleteFunc(order, func(p modulePair) bool { return p.how == "" })
	sort.SliceStable(order, func(i, j int) bool { return order[i].elems > order[j].elems })
	total, largest := int64(0), int64(1)
	for _, p := range order {
		total += p.elems
		if p.how == Low {
			largest = max(largest, p.elems)
		}
	}
	if x.o.Started != nil {
		x.o.Started(total)
	}
	// A module in work holds its delta, and the thin matrices of the projection beside it.
	workers := int(max(1, min(int64(runtime.GOMAXPROCS(0)), x.o.MaxMemory/(largest*6))))
	threads := max(1, runtime.GOMAXPROCS(0)/workers)
	ctx, stop := context.WithCancelCause(x.ctx)
	defer stop(nil)
	var next atomic.Int64
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(order) {
					return
				}
				if err := x.module(order[i], threads); err != nil {
					stop(err)
					return
				}
				if x.o.Done != nil {
					x.o.Done(order[i].elems)
				}
			}
		})
	}
	wait.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return x.wholeBiases()
}

// module extracts one module's weight.
func (x *extraction) module(p modulePair, threads int) error {
	tuned, err := x.tuned.ckpt.View(p.Weight)
	if err != nil {
		return err
	}
	defer x.tuned.ckpt.Release(p.Weight, 0, int64(len(tuned.Data)))
	if p.how == Save {
		return x.saveWhole(p, tuned)
	}
	base, err := x.base.ckpt.View(p.base.Weight)
	if err != nil {
		return err
	}
	defer x.base.ckpt.Release(p.base.Weight, 0, int64(len(base.Data)))
	delta, norm, err := difference(base, tuned)
	if err != nil {
		return err
	}
	r := ModuleReport{Module: p.Path, What: "skipped", Share: Float(norm)}
	sum := 0.0
	for _, v := range delta {
		sum += float64(v) * float64(v)
	}
	r.Norm, r.Share, r.Error = Float(math.Sqrt(sum)), Float(math.Sqrt(sum)/norm), 1
	if p.how == Skip {
		x.add(r, nil)
		return nil
	}
	d := p.stored(delta)
	s, err := linalg.Truncated(d, x.o.Rank, linalg.Options{Seed: x.o.Seed, Name: p.Path, Iterations: x.o.Iterations, Threads: threads})
	if errors.Is(err, linalg.ErrNotFinite) {
		return &Error{File: x.tuned.dir, Where: p.Weight, Msg: "differs from the base by NaN or infinite values"}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.Path, err)
	}
	r.Rank = s.Rank
	if x.o.Energy > 0 {
		r.Rank = s.Energy(x.o.Energy)
	}
	for r.Rank > 1 && s.S[r.Rank-1] <= 1e-7*s.S[0] { // nothing but rounding
		r.Rank--
	}
	kept := 0.0
	for _, v := range s.S[:r.Rank] {
		kept += v * v
	}
	a, b := make([]float32, r.Rank*p.In), make([]float32, p.Out*r.Rank)
	for k := range r.Rank {
		root := float32(math.Sqrt(s.S[k]))
		for j := range p.In {
			a[k*p.In+j] = root * s.V[j*s.Rank+k]
		}
		for i := range p.Out {
			b[i*r.Rank+k] = root * s.U[i*s.Rank+k]
		}
	}
	// What is left is measured, not inferred: the product's own rounding is part of it.
	newLowRank(p.Module, a, b, r.Rank, -1).add(delta, 0)
	left := 0.0
	for _, v := range delta {
		left += float64(v) * float64(v)
	}
	r.What, r.Energy, r.Error = "low rank", Float(kept/s.Frobenius), Float(math.Sqrt(left/s.Frobenius))
	endOfA, endOfB := endA, endB
	if p.Kind == Embedding {
		endOfA, endOfB = endEmbA, endEmbB
	}
	x.mu.Lock()
	x.kept, x.total, x.residual = x.kept+kept, x.total+s.Frobenius, x.residual+left
	x.mu.Unlock()
	list := map[string]Tensor{
		prefix + p.Path + endOfA: {[]int{r.Rank, p.In}, a},
		prefix + p.Path + endOfB: {[]int{p.Out, r.Rank}, b},
	}
	if head, ok := x.tiedTo(p.Module); ok {
		list[prefix+head.Path+endA], list[prefix+head.Path+endB] = turned(list[prefix+p.Path+endOfB]), turned(list[prefix+p.Path+endOfA])
	}
	x.add(r, list)
	return nil
}

// tiedTo finds the output head that shares an embedding's matrix. peft saves what changes the two under both names.
func (x *extraction) tiedTo(m Module) (Module, bool) {
	for _, h := range x.tuned.modules {
		if h.Tied && h.Weight == m.Weight && m.Kind == Embedding {
			return h, true
		}
	}
	return Module{}, false
}

// difference is tuned - base, and the base's norm.
func difference(base, tuned tensors.View) (delta []float32, norm float64, err error) {
	delta = make([]float32, tuned.Elems())
	const step = 1 << 16
	w := make([]float32, min(step, len(delta)))
	for off := 0; off < len(delta); off += step {
		n := min(step, len(delta)-off)
		d := delta[off : off+n]
		if err := readInto(d, tuned, int64(off)); err != nil {
			return nil, 0, err
		}
		if err := readInto(w[:n], base, int64(off)); err != nil {
			return nil, 0, err
		}
		for i, v := range w[:n] {
			d[i] -= v
			norm += float64(v) * float64(v)
		}
	}
	return delta, math.Sqrt(norm), nil
}

// saveWhole takes a module over as it is, with its bias.
func (x *extraction) saveWhole(p modulePair, v tensors.View) error {
	t, err := decode(v)
	if err != nil {
		return err
	}
	tensorsOf := map[string]Tensor{prefix + p.Path + endWeight: t}
	if p.Bias {
		b, err := x.tuned.ckpt.View(p.BiasName)
		if err != nil {
			return err
		}
		if tensorsOf[prefix+p.Path+endBias], err = decode(b); err != nil {
			return err
		}
	}
	if head, ok := x.tiedTo(p.Module); ok {
		tensorsOf[prefix+head.Path+endWeight] = t
	}
	r := ModuleReport{Module: p.Path, What: "whole", Energy: 1}
	if p.base.Path != "" && slices.Equal(p.Shape, p.base.Shape) {
		base, err := x.base.ckpt.View(p.base.Weight)
		if err != nil {
			return err
		}
		delta, norm, err := difference(base, v)
		if err != nil {
			return err
		}
		sum := 0.0
		for _, d := range delta {
			sum += float64(d) * float64(d)
		}
		r.Norm, r.Share = Float(math.Sqrt(sum)), Float(math.Sqrt(sum)/norm)
	}
	x.add(r, tensorsOf)
	return nil
}

func (x *extraction) add(r ModuleReport, list map[string]Tensor) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.results[r.Module] = r
	for k, t := range list {
		x.out[k] = t
	}
}

// wholeBiases takes every bias if one of a module that is not saved whole differs: bias: all is the only form that peft has
// for biases alone.
func (x *extraction) wholeBiases() error {
	differ := slices.ContainsFunc(x.pairs, func(p modulePair) bool { return p.biased && p.how != Save })
	if !differ {
		return nil
	}
	if x.o.Others == Skip {
		x.warn("biases differ and are left out")
		return nil
	}
	for _, p := range x.pairs {
		if !p.Bias || p.how == Save {
			continue
		}
		end := endBias
		if p.how == Low {
			end = endBaseBias
		}
		v, err := x.tuned.ckpt.View(p.BiasName)
		if err != nil {
			return err
		}
		t, err := decode(v)
		if err != nil {
			return err
		}
		x.out[prefix+p.Path+end] = t
		x.biases = append(x.biases, Whole{Module: p.Module})
		if p.biased && p.how == "" {
			x.results[p.Path] = ModuleReport{Module: p.Path, What: "bias", Energy: 1}
		}
	}
	return nil
}

// configure describes what was extracted.
func (x *extraction) configure() error {
	c := Defaults()
	c.InferenceMode, c.BaseModel = true, x.base.dir
	if abs, err := filepath.Abs(x.base.dir); err == nil && !strings.HasPrefix(x.base.dir, "/") {
		c.BaseModel = filepath.Base(abs)
	}
	x.report = &ExtractReport{}
	ranks := map[int]int{}
	var low []string
	lowRank := map[string]int{}
	for _, p := range x.pairs {
		r, ok := x.results[p.Path]
		if !ok {
			x.report.Unchanged++
			continue
		}
		x.report.Modules = append(x.report.Modules, r)
		switch r.What {
		case "low rank":
			ranks[r.Rank]++
			low, lowRank[p.Path] = append(low, p.Path), r.Rank
			c.FanInFanOut = c.FanInFanOut || p.Kind == Conv1D
		case "whole":
			c.ModulesToSave = append(c.ModulesToSave, p.Path)
		}
		if _, ok := x.tiedTo(p.Module); ok && r.What != "skipped" {
			c.EnsureWeightTying = true
		}
		if p.base.Path == "" && slices.Contains(headTasks["SEQ_CLS"], p.Path) {
			c.TaskType = "SEQ_CLS"
		}
	}
	if len(low) == 0 {
		return &Error{File: x.tuned.dir, Msg: "has no matrix that differs from the base's, so there is nothing to extract", Hint: "check that the two are not the same model"}
	}
	c.R = common(ranks)
	c.Alpha = float64(c.R)
	var own []Pattern
	for _, path := range low {
		if r := lowRank[path]; r != c.R {
			own = append(own, Pattern{path, float64(r)})
		}
	}
	c.RankPattern, c.AlphaPattern = patternsOf(own), patternsOf(own)
	c.Targets.Names = x.names(low)
	c.ModulesToSave = x.names(c.ModulesToSave)
	if c.TaskType == "SEQ_CLS" {
		c.ModulesToSave = slices.DeleteFunc(c.ModulesToSave, func(n string) bool { return slices.Contains(headTasks["SEQ_CLS"], n) })
	} else if p := x.tuned.config.Architectures(); len(p) > 0 && (strings.HasSuffix(p[0], "ForCausalLM") || strings.HasSuffix(p[0], "LMHeadModel")) {
		c.TaskType = "CAUSAL_LM"
	}
	if len(x.biases) > 0 {
		c.Bias = "all"
	}
	if len(c.ModulesToSave) == 0 {
		c.ModulesToSave = nil
	}
	x.config = c
	x.report.Rank = c.R
	for _, t := range x.out {
		x.report.Parameters += int64(len(t.Data))
	}
	if x.total > 0 {
		x.report.Energy, x.report.Error = Float(x.kept/x.total), Float(math.Sqrt(x.residual/x.total))
	}
	return c.Check()
}

// common is the rank that most modules have, the larger of equals.
func common(ranks map[int]int) int {
	best := 0
	for r, n := range ranks {
		if n > ranks[best] || n == ranks[best] && r > best {
			best = r
		}
	}
	return best
}

// names shortens paths to their last components where a component means exactly the modules that are listed; others stay
// whole.
func (x *extraction) names(list []string) []string {
	var out []string
	for _, path := range list {
		name := last(path)
		exact := true
		for _, p := range x.pairs {
			if endsWith(p.Path, name) && !slices.Contains(list, p.Path) {
				exact = false
			}
		}
		if !exact {
			name = path
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
