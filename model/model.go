package model

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/tensors"
)

// Options say how a model is loaded.
type Options struct {
	Backend compute.Backend
	// Device is the backend's device to use.
	Device compute.DeviceNum
	// Compute is the dtype of activations and products; InvalidDType: float32, and bfloat16 on CUDA for checkpoints stored in 16
	// bits.
	Compute dtypes.DType
	Overlay *Overlay
	// Replace holds tensors, by full name, that take the place of the checkpoint's without being part of the overlay.
	Replace map[string]Tensor
	// Share lends its executables: the same model on another device of the same backend need not be compiled again.
	Share *Model
	// Widen keeps weights that are stored in 16 bits in float32 on the device: twice the memory, and no conversion in every pass,
	// which is most of the time of a pass over few tokens.
	Widen bool
	// Compiling is told what is being compiled and for which shape, before and after (done). It may be nil.
	Compiling func(what string, done bool)
	// Group is Model.Group.
	Group int
	// Ahead is called beside the loading of the weights, to compile what will be needed. It may be nil.
	Ahead func(m *Model)
	// Loaded is told the bytes of weights that are on the device. It may be nil.
	Loaded func(bytes int64)
}

// Model is a checkpoint on a device, ready to compute. Its methods are not safe for concurrent use.
type Model struct {
	D       *Description
	Backend compute.Backend
	Device  compute.DeviceNum
	Compute dtypes.DType
	// Vectors hold the overlay's tensors: the first those of stem and head, then one for each block. Empty ones are nil.
	Vectors []*Vector
	// Group is how many blocks one execution goes through; below 2: one. Passes that were compiled with another one are compiled anew.
	Group int

	stem, head *stage
	blocks     []*stage
	base       map[*stage][]*gt.Tensor
	baseShapes map[*stage][]shapes.Shape
	flat       map[*stage]*Vector
	compiling  func(string, bool)
	flash      bool // the device has fused attention for this model's heads

	execs *execCache
	calls int // executions so far
}

// execCache holds executables by role and signature. Copies of a model on several devices share one.
type execCache struct {
	mu   sync.Mutex
	list map[string]*Exec
	uses int
}

// Vector is a packed vector on the device.
type Vector struct {
	Prefix string // of the full names of its tensors
	Packed Packed
	Value  *gt.Tensor
}

// cuda reports whether a backend is a CUDA device.
func cuda(b compute.Backend) bool {
	return b != nil && strings.Contains(strings.ToLower(b.Name()+b.Description()), "cuda")
}

// OnCard reports whether the model is on a graphics card, where few large executions are faster than many small ones.
func (m *Model) OnCard() bool { return cuda(m.Backend) }

// slowConversions reports whether a backend pays for keeping weights in 16 bits.
func slowConversions(b compute.Backend) bool { return !strings.HasPrefix(b.Name(), "xla") }

// Load opens a checkpoint directory and copies its weights to the device. Errors about the files are *ConfigError,
// *MissingError, *ShapeError or *tensors.FormatError.
func Load(ctx context.Context, dir string, o Options) (*Model, error) {
	d, _, err := ReadDescription(dir)
	if err != nil {
		return nil, err
	}
	ckpt, err := checkpoint.Open(dir)
	if err != nil {
		return nil, err
	}
	defer ckpt.Close()
	return LoadFrom(ctx, d, ckpt, o)
}

// LoadFrom is Load for a description and a checkpoint that are open already.
func LoadFrom(ctx context.Context, d *Description, ckpt *tensors.Checkpoint, o Options) (*Model, error) {
	m := &Model{D: d, Backend: o.Backend, Device: o.Device, Compute: o.Compute, Group: o.Group, compiling: o.Compiling,
		base: map[*stage][]*gt.Tensor{}, baseShapes: map[*stage][]shapes.Shape{}, flat: map[*stage]*Vector{}}
	if m.execs = (&execCache{list: map[string]*Exec{}}); o.Share != nil {
		m.execs = o.Share.execs
	}
	m.execs.uses++
	src := &source{ckpt, d}
	if m.Compute == dtypes.InvalidDType {
		m.Compute = dtypes.Float32
		if info, ok := src.find(d.Names.Embed + ".weight"); ok && info.DType != tensors.F32 && cuda(o.Backend) {
			m.Compute = dtypes.BFloat16
		}
	}
	m.flash = m.probeFlash()
	m.layout(o.Overlay)
	keep := !slowConversions(o.Backend) && !o.Widen
	for _, s := range m.stages() {
		for _, t := range s.base {
			info, ok := src.find(s.prefix + t.Name)
			dtype := storage[info.DType]
			_, other := o.Replace[m.sourceOf(s.prefix+t.Name, o.Replace)]
			if !ok || dtype == dtypes.InvalidDType || !keep || other {
				dtype = dtypes.Float32
			}
			m.baseShapes[s] = append(m.baseShapes[s], shapes.Make(dtype, t.Shape...))
		}
	}
	if o.Ahead != nil {
		go o.Ahead(m) // what it compiles is waited for by whoever needs it
	}
	if err := m.upload(ctx, src, o, keep); err != nil {
		m.Close()
		return nil, err
	}
	if err := m.fill(o.Overlay); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// upload copies the base tensors of all stages to the device, each once, several at a time: fresh memory costs more than the copy.
func (m *Model) upload(ctx context.Context, src *source, o Options, keep bool) error {
	at := map[string]int{}
	var names []string
	var shape [][]int
	for _, s := range m.stages() {
		for _, t := range s.base {
			name := m.sourceOf(s.prefix+t.Name, o.Replace)
			if _, ok := at[name]; !ok {
				at[name] = len(names)
				names, shape = append(names, name), append(shape, t.Shape)
			}
		}
	}
	values, errs := make([]*gt.Tensor, len(names)), make([]error, len(names))
	var next atomic.Int64
	var failed atomic.Bool
	var told sync.Mutex
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 4) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(names) || failed.Load() {
					return
				}
				if errs[i] = ctx.Err(); errs[i] == nil {
					if r, ok := o.Replace[names[i]]; ok {
						values[i], errs[i] = m.Put(r.Data, shape[i]...)
					} else {
						values[i], errs[i] = src.upload(o.Backend, o.Device, names[i], shape[i], keep)
					}
				}
				if errs[i] != nil {
					failed.Store(true)
					return
				}
				if o.Loaded != nil {
					told.Lock()
					o.Loaded(values[i].ByteSize())
					told.Unlock()
				}
			}
		}()
	}
	wg.Wait()
	for _, err := range errs { // the first in the model's order
		if err != nil {
			free(values...)
			return err
		}
	}
	for _, s := range m.stages() {
		for _, t := range s.base {
			m.base[s] = append(m.base[s], values[at[m.sourceOf(s.prefix+t.Name, o.Replace)]])
		}
	}
	return nil
}

func (m *Model) stages() []*stage {
	return append(append([]*stage{m.stem}, m.blocks...), m.head)
}

// sourceOf is the name of the values of a base tensor. An untied head that nothing replaces shares the embedding's copy on the device.
func (m *Model) sourceOf(name string, replace map[string]Tensor) string {
	if _, ok := replace[name]; ok {
		return name
	}
	return m.D.stored(name)
}

// layout makes the stages: which tensor comes from the checkpoint and which from the overlay.
func (m *Model) layout(over *Overlay) {
	if over == nil {
		over = &Overlay{}
	}
	d := m.D
	taken := map[string]bool{}
	// part collects what of the overlay belongs to the tensors and maps of a stage.
	part := func(prefix string, specs []TensorSpec, maps []string) (own []TensorSpec, adapters map[string]Adaption) {
		adapters = map[string]Adaption{}
		for _, t := range specs {
			if v, ok := over.Tensors[prefix+t.Name]; ok && !taken[prefix+t.Name] {
				own = append(own, TensorSpec{t.Name, v.Shape})
				taken[prefix+t.Name] = true
			}
		}
		for _, name := range maps {
			a, ok := over.Maps[prefix+name]
			if !ok {
				continue
			}
			adapters[name] = a
			for _, suffix := range []string{".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_magnitude_vector", ".lora_embedding_A", ".lora_embedding_B"} {
				if v, ok := over.Tensors[prefix+name+suffix]; ok && !taken[prefix+name+suffix] {
					own = append(own, TensorSpec{name + suffix, v.Shape})
					taken[prefix+name+suffix] = true
				}
			}
		}
		return own, adapters
	}
	rest := func(specs []TensorSpec, p Packed) (out []TensorSpec) {
		have := map[string]bool{}
		for _, s := range p.Segments {
			have[s.Name] = true
		}
		for _, t := range specs {
			if !have[t.Name] {
				out = append(out, t)
			}
		}
		return out
	}
	names := func(list []Linear) (out []string) {
		for _, l := range list {
			out = append(out, l.Name)
		}
		return out
	}
	stemSpecs, headSpecs := d.StemTensors(), d.HeadTensors()
	var tables []string // that an adapter may sit on: the projection of patches is none
	if d.Image == nil {
		tables = []string{d.Names.Embed}
	}
	headBase := headSpecs
	embed, lmHead := d.Names.Embed+".weight", d.Names.LMHead+".weight"
	tied := d.Head == HeadLM && d.Tied
	if tied {
		headSpecs = append(rest(headSpecs, Pack([]TensorSpec{{embed, nil}})), TensorSpec{lmHead, []int{d.Vocab, d.Hidden}})
		if over.Untied {
			headBase, tied = headSpecs, false
		}
	}
	stemOwn, stemMaps := part("", stemSpecs, tables)
	headOwn, headMaps := part("", headSpecs, names(d.HeadLinears()))
	ends := Pack(append(stemOwn, headOwn...))
	m.stem = &stage{name: "embeddings", base: rest(d.StemTensors(), ends), packed: ends, adapters: stemMaps}
	m.head = &stage{name: "head", base: rest(headBase, ends), packed: ends, adapters: headMaps, alias: map[string]string{}}
	if tied {
		m.head.alias[lmHead] = embed
		for _, t := range headOwn {
			if t.Name == lmHead { // an untied head makes the table needless here
				m.head.base = rest(m.head.base, Pack([]TensorSpec{{embed, nil}}))
			}
		}
		_, adapted := headMaps[d.Names.LMHead]
		_, both := stemMaps[d.Names.Embed]
		if _, own := over.Tensors[d.Names.LMHead+".lora_A.weight"]; adapted && both && !own {
			m.head.flipped = map[string]string{d.Names.LMHead + ".lora_A.weight": d.Names.Embed + ".lora_embedding_B",
				d.Names.LMHead + ".lora_B.weight": d.Names.Embed + ".lora_embedding_A"}
		}
	}
	m.vector(ends, "", m.stem, m.head)
	for i, kind := range d.Layers {
		prefix := d.LayerName(i, "")
		own, maps := part(prefix, d.BlockTensors(), names(d.BlockLinears()))
		p := Pack(own)
		s := &stage{name: fmt.Sprintf("block %d", i), prefix: prefix, kind: kind, base: rest(d.BlockTensors(), p), packed: p, adapters: maps}
		m.blocks = append(m.blocks, s)
		m.vector(p, prefix, s)
	}
}

func (m *Model) vector(p Packed, prefix string, stages ...*stage) {
	if p.Size == 0 {
		m.Vectors = append(m.Vectors, nil)
		return
	}
	v := &Vector{Prefix: prefix, Packed: p}
	m.Vectors = append(m.Vectors, v)
	for _, s := range stages {
		m.flat[s] = v
	}
}

// fill copies the overlay's tensors to the device. Every tensor of the overlay must have found its place.
func (m *Model) fill(over *Overlay) error {
	if over == nil {
		return nil
	}
	placed := 0
	for _, v := range m.Vectors {
		if v == nil {
			continue
		}
		data := make([]float32, v.Packed.Size)
		for _, s := range v.Packed.Segments {
			t := over.Tensors[v.Prefix+s.Name]
			if len(t.Data) != s.Size() {
				return fmt.Errorf("tensor %s%s has %d values, its shape %v has %d", v.Prefix, s.Name, len(t.Data), s.Shape, s.Size())
			}
			copy(data[s.Offset:], t.Data)
			placed++
		}
		if err := m.SetVector(v, data); err != nil {
			return err
		}
	}
	if placed != len(over.Tensors) {
		for name := range over.Tensors {
			if !m.owns(name) {
				return fmt.Errorf("the model has no place for the adapter's tensor %s", name)
			}
		}
	}
	return nil
}

func (m *Model) owns(name string) bool {
	for _, v := range m.Vectors {
		if v == nil {
			continue
		}
		for _, s := range v.Packed.Segments {
			if v.Prefix+s.Name == name {
				return true
			}
		}
	}
	return false
}

// SetVector copies host values to the device.
func (m *Model) SetVector(v *Vector, data []float32) error {
	t, err := m.Put(data, len(data))
	if err != nil {
		return err
	}
	if v.Value != nil {
		_ = v.Value.FinalizeAll()
	}
	v.Value = t
	return nil
}

// Tensors returns the overlay's tensors as they are now, by full name.
func (m *Model) Tensors() (map[string]Tensor, error) {
	out := map[string]Tensor{}
	for _, v := range m.Vectors {
		if v == nil {
			continue
		}
		all, err := gt.CopyFlatData[float32](v.Value)
		if err != nil {
			return nil, err
		}
		v.Value.FinalizeLocal() // a device that is not the host has its own copy beside ours
		for _, s := range v.Packed.Segments {
			out[v.Prefix+s.Name] = Tensor{s.Shape, all[s.Offset : s.Offset+s.Size()]}
		}
	}
	return out, nil
}

// spent is a tensor that nobody needs after an execution.
type spent struct{ t *gt.Tensor }

// donate gives a tensor's memory to an execution. The tensor is gone afterwards.
//
// The programs that go-xla compiles say of no argument that its memory may be taken, so XLA takes none, and what was donated would stay
// until the collector finds it, which knows nothing of the device's memory. Executions are waited for, so it is freed right behind them.
func (m *Model) donate(t *gt.Tensor) any {
	if strings.HasPrefix(m.Backend.Name(), "xla") {
		return spent{t}
	}
	d, err := DonateTensorBuffer(t, m.Backend, m.Device)
	if err != nil {
		return t // it is read instead, and freed by the collector
	}
	return d
}

// putOn copies host values to the device.
func putOn[T float32 | int32 | uint32](m *Model, data []T, dims ...int) (*gt.Tensor, error) {
	t := gt.FromFlatDataAndDimensions(data, dims...)
	if err := t.ToDevice(m.Backend, m.Device); err != nil {
		return nil, err
	}
	return t, nil
}

// Put copies float32 values to the device.
func (m *Model) Put(data []float32, dims ...int) (*gt.Tensor, error) { return putOn(m, data, dims...) }

// Close frees what the model holds on the device.
func (m *Model) Close() {
	for _, list := range m.base {
		free(list...)
	}
	for _, v := range m.Vectors {
		if v != nil && v.Value != nil {
			_ = v.Value.FinalizeAll()
		}
	}
	m.execs.mu.Lock()
	defer m.execs.mu.Unlock()
	if m.execs.uses--; m.execs.uses > 0 {
		return
	}
	for _, e := range m.execs.list {
		e.Finalize()
	}
	m.execs.list = map[string]*Exec{}
}

// graphOf builds the part of a stage's graph that follows its tensors.
type graphOf func(o *ops, in []*Node) []*Node

// exec returns the executable of a role for a stage. Stages that look alike share it.
func (m *Model) exec(role string, s *stage, build graphOf) (*Exec, error) {
	nBase, flatInputs := len(s.base), 0
	if m.flat[s] != nil {
		flatInputs = 1
	}
	return m.cached(fmt.Sprint(role, "|", m.Compute, "|", s.signature()), role, func(in []*Node) []*Node {
		var vector *Node
		if flatInputs == 1 {
			vector = in[nBase]
		}
		return build(newOps(m.D, s, m.Compute, in[:nBase], vector), in[nBase+flatInputs:])
	})
}

// cached returns the executable of a key, a new one if there is none.
func (m *Model) cached(key, name string, build func(in []*Node) []*Node) (*Exec, error) {
	m.execs.mu.Lock()
	defer m.execs.mu.Unlock()
	if e, ok := m.execs.list[key]; ok {
		return e, nil
	}
	e, err := NewExec(m.Backend, build)
	if err != nil {
		return nil, err
	}
	e.WithName(name).SetMaxCache(-1)
	m.execs.list[key] = e
	return e, nil
}

// args puts a stage's tensors before the data.
func (m *Model) args(s *stage, data []any) []any {
	list := make([]any, 0, len(s.base)+1+len(data))
	for _, t := range m.base[s] {
		list = append(list, t)
	}
	if v := m.flat[s]; v != nil {
		list = append(list, v.Value)
	}
	return append(list, data...)
}

// run executes a role of a stage.
func (m *Model) run(role string, s *stage, build graphOf, data ...any) ([]*gt.Tensor, error) {
	e, err := m.exec(role, s, build)
	if err != nil {
		return nil, err
	}
	return m.call(e, role, s.name, m.args(s, data))
}

// call executes. role and what name the work if it fails.
func (m *Model) call(e *Exec, role, what string, args []any) ([]*gt.Tensor, error) {
	m.calls++
	for i, a := range args {
		if gone, ok := a.(spent); ok {
			args[i] = gone.t
			defer free(gone.t)
		}
	}
	out, _, err := e.CallWithGraphOnDevice(m.Device, args...)
	if err != nil {
		return nil, explain(role, what, err)
	}
	return out, nil
}

// MemoryError says that the device has no room for a pass.
type MemoryError struct{ Err error }

// Error says what to do.
func (e *MemoryError) Error() string {
	return fmt.Sprintf("out of memory on the device: %v; use a smaller micro_batch (--batch) or max_length (--max-length), gradient_checkpointing: block, or a smaller rank ('mergekit plan' prints the estimate)", e.Err)
}

// Unwrap returns the backend's error.
func (e *MemoryError) Unwrap() error { return e.Err }

// explain says what was computed when a backend failed, and tells a full device from other failures.
func explain(role, what string, err error) error {
	if full := outOfMemory(err); full != nil {
		return full
	}
	return fmt.Errorf("%s of %s: %w", role, what, err)
}

// outOfMemory returns a *MemoryError if a backend's error says that the device is full, else nil.
func outOfMemory(err error) error {
	text := err.Error()
	if strings.Contains(text, "YNNPACK operation failed") { // XLA's products on the CPU; what they could not allocate, they print themselves
		return &MemoryError{errors.New("a product's kernel (YNNPACK) failed, as it does where it gets no memory")}
	}
	if strings.Contains(text, "RESOURCE_EXHAUSTED") || strings.Contains(text, "Out of memory") || strings.Contains(text, "out of memory") {
		line := firstLine(text)
		if i := strings.LastIndex(line, "Out of memory allocating"); i >= 0 {
			line = strings.TrimRight(line[i+len("Out of memory "):], ". ") // what the layers above say is the same for every error
		}
		return &MemoryError{errors.New(line)}
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// shapeOf is the shape of an argument, for compiling ahead.
func shapeOf(arg any) (shapes.Shape, bool) {
	switch a := arg.(type) {
	case *gt.Tensor:
		return a.Shape(), true
	case shapes.Shape:
		return a, true
	}
	return shapes.Shape{}, false
}
