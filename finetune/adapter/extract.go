package adapter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
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
	// Include and Exclude are patterns in Python's syntax, looked for anywhere in a module's path. With any of Include a module must have one
	// of them; one that has one of Exclude is left out. Embeddings and heads that are saved whole need none of Include.
	Include, Exclude []string
	Whole            []string // modules that are saved whole, by path or last component, whatever else is said
	Floor            float64  // singular values up to it are dropped; 0: rounding alone
	OneSided         bool     // A holds the singular values and B is orthonormal; false: both hold their square roots
	Exact            bool     // no random projection, however large a matrix is
	BaseName         string   // base_model_name_or_path; "": the directory
	Iterations       int      // power iterations; 0: 4
	Seed             uint64
	MaxMemory        int64             // bytes for the matrices that are in work; 0: a quarter of the machine's, at most 4 GiB
	Started          func(total int64) // elements to decompose; may be nil
	Done             func(elements int64)
	Warn             func(message string)
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
// is its rank, so that its scale is 1. What it holds whole stays in the tuned model's file until the adapter is closed.
func Extract(ctx context.Context, base, tuned string, o ExtractOptions) (*Adapter, *ExtractReport, error) {
	x := &extraction{ctx: ctx, o: o, out: map[string]Tensor{}, views: map[string]tensors.View{}}
	defer x.close()
	for _, step := range []func() error{x.check, func() error { return x.open(base, tuned) }, x.match, x.decompose, x.configure} {
		if err := step(); err != nil {
			return nil, nil, err
		}
	}
	a := &Adapter{Config: x.config, Tensors: x.out, views: x.views, file: x.tuned.ckpt, from: []string{base, tuned}}
	x.tuned = nil // the adapter's now, for what it holds whole
	return a, x.report, nil
}

// extraction is an adapter in the making.
type extraction struct {
	ctx         context.Context
	o           ExtractOptions
	base, tuned *side
	pairs       []modulePair
	out         map[string]Tensor
	views       map[string]tensors.View // large tensors that are saved whole
	choice      choice
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
	Module          // as the tuned model has it
	base     Module // as the base has it
	elems    int64
	how      string // Low, Save, Skip, or "" where nothing differs
	biased   bool   // its bias differs
	excluded bool   // no pattern takes it
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
	if !(o.Floor >= 0) || math.IsInf(o.Floor, 0) {
		return &Error{Where: "floor", Msg: fmt.Sprintf("%v is no bound of singular values; a positive number is expected", o.Floor)}
	}
	if o.Iterations == 0 {
		o.Iterations = 4
	}
	var err error
	if x.choice, err = newChoice(o); err != nil {
		return err
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
	if s.ckpt, err = checkpoint.Open(path); err != nil {
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
	if err := x.choice.checkNames(x.tuned.modules); err != nil {
		return err
	}
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
		x.pairs = append(x.pairs, p)
	}
	if len(known) == 0 {
		return &Error{File: x.tuned.dir, Msg: "has no module in common with the base " + x.base.dir, Hint: "the two must be of one architecture"}
	}
	for i := range x.pairs {
		if err := x.compare(&x.pairs[i]); err != nil {
			return err
		}
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
	return x.loose()
}

// compare decides what is done with a module.
func (x *extraction) compare(p *modulePair) error {
	p.elems = 1
	for _, d := range p.Shape {
		p.elems *= int64(d)
	}
	vocabulary := p.Kind == Embedding || p.OutputHead
	asked := x.choice.whole(p.Path)
	if !asked && !x.choice.takes(p.Path, vocabulary && x.o.Embeddings == Save) {
		p.excluded = true
		return nil
	}
	switch {
	case p.Weight == "": // a bias on its own
	case p.base.Path == "":
		if !headPart(p.Path) && !headPart(last(p.Path)) {
			return &Error{File: x.tuned.dir, Where: p.Weight, Msg: "is not in the base " + x.base.dir + ", and an adapter adds no module to a model but a head", Hint: "give the base that the model was tuned from, or leave the module out with --exclude"}
		}
		p.how = Save
	case !slices.Equal(p.Shape, p.base.Shape):
		if !vocabulary || len(p.Shape) != 2 || len(p.base.Shape) != 2 || p.Shape[1] != p.base.Shape[1] {
			return &Error{File: x.tuned.dir, Where: p.Weight, Msg: fmt.Sprintf("has shape %v, in the base %v: the models have different widths", p.Shape, p.base.Shape)}
		}
		p.how = Save
		if x.o.Embeddings != Save {
			x.warn("%s has another number of rows than in the base, so it is saved whole", p.Path)
		}
	case asked:
		p.how = Save
	default:
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
			largest = max(largest, x.held(p))
		}
	}
	if x.o.Started != nil {
		x.o.Started(total)
	}
	workers := int(max(1, min(int64(runtime.GOMAXPROCS(0)), x.o.MaxMemory/largest)))
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
	r := ModuleReport{Module: p.Path, What: "skipped", Error: 1}
	if p.how == Skip {
		change, norm, err := compareBlocks(base, tuned, nil)
		if err != nil {
			return err
		}
		r.Norm, r.Share = Float(change), Float(change/norm)
		x.add(r, nil)
		return nil
	}
	delta, change, norm, err := difference(base, tuned)
	if err != nil {
		return err
	}
	r.Norm, r.Share = Float(change), Float(change/norm)
	s, err := x.factors(p, delta, threads)
	if errors.Is(err, linalg.ErrNotFinite) {
		return &Error{File: x.tuned.dir, Where: p.Weight, Msg: "differs from the base by NaN or infinite values"}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.Path, err)
	}
	if r.Rank = x.rank(s); r.Rank == 0 {
		x.add(r, nil)
		return nil
	}
	kept := 0.0
	for _, v := range s.S[:r.Rank] {
		kept += v * v
	}
	a, b := x.shared(p, s, r.Rank)
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

// saveWhole takes a module over as it is, with its bias.
func (x *extraction) saveWhole(p modulePair, v tensors.View) error {
	tensorsOf := map[string]tensors.View{prefix + p.Path + endWeight: v}
	if p.Bias {
		b, err := x.tuned.ckpt.View(p.BiasName)
		if err != nil {
			return err
		}
		tensorsOf[prefix+p.Path+endBias] = b
	}
	if head, ok := x.tiedTo(p.Module); ok {
		tensorsOf[prefix+head.Path+endWeight] = v
	}
	x.mu.Lock()
	maps.Copy(x.views, tensorsOf)
	x.mu.Unlock()
	r := ModuleReport{Module: p.Path, What: "whole", Energy: 1}
	if p.base.Path != "" && slices.Equal(p.Shape, p.base.Shape) {
		base, err := x.base.ckpt.View(p.base.Weight)
		if err != nil {
			return err
		}
		defer x.base.ckpt.Release(p.base.Weight, 0, int64(len(base.Data)))
		change, norm, err := compareBlocks(base, v, nil)
		if err != nil {
			return err
		}
		r.Norm, r.Share = Float(change), Float(change/norm)
	}
	x.add(r, nil)
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
