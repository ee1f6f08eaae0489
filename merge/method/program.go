package method

import (
	"fmt"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// SlotKind says what a graph parameter is filled with.
type SlotKind uint8

// What a graph parameter can be.
const (
	SlotInput    SlotKind = iota // chunk of input Input, in its storage dtype
	SlotScalar                   // float64 from Values, in the work dtype
	SlotUint                     // uint32 from Values
	SlotPosition                 // Position from Values, relative to the chunk
	SlotRow                      // RowValues of the chunk's rows, [R, 1]
	SlotCol                      // ColValues, [1, C]
	SlotStream                   // uint32 per element
	SlotCount                    // elements of the chunk that are not padding (Uint32)
	SlotRows                     // its rows
	SlotCols                     // its columns
	SlotKey                      // random key: Name "<input>.a", "<input>.b" or "<input>.offset"
)

// Slot is one parameter of a program.
type Slot struct {
	Kind  SlotKind
	Name  string
	Input int
	Shape shapes.Shape
}

// Spec is everything that a program depends on, beside the kernel itself.
type Spec struct {
	Kernel  *Kernel
	Inputs  int
	Base    int
	D       dtypes.DType
	Out     dtypes.DType
	Arith   Arith
	RNG     RNG
	Storage []dtypes.DType // dtype of each input's chunks
	Dims    []int          // compiled chunk shape: [N] or [R, C]
	Fuses   bool           // the backend fuses a product and a sum by itself
	Padded  bool           // chunks are padded up to Dims; otherwise Dims are only place-holders
}

// Key identifies the program that a Spec builds.
func (s *Spec) Key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s|%d|%d/%d|%s>%s|%d|%d|%v|%v|", s.Kernel.Name, s.Kernel.Layout, s.Inputs, s.Base, s.D, s.Out, s.Arith, s.RNG, s.Dims, s.Padded)
	for i, d := range s.Storage {
		if s.uses(i) {
			fmt.Fprintf(&b, "%d:%s,", i, d)
		}
	}
	return b.String()
}

func (s *Spec) uses(i int) bool {
	if s.Kernel.Inputs == nil {
		return true
	}
	for _, j := range s.Kernel.Inputs {
		if i == j {
			return true
		}
	}
	return false
}

// Program is a compiled kernel.
type Program struct {
	Graph   *graph.Graph
	Exec    compute.Executable
	Slots   []Slot
	Results []Result // Node is nil: outputs come in this order
}

// Build compiles a kernel for a backend. Errors in the graph come back as errors.
func Build(backend compute.Backend, s *Spec) (p *Program, err error) {
	work := dtypes.Float32
	if s.D == dtypes.Float64 {
		work = dtypes.Float64
	}
	c := &Chunk{
		Inputs: s.Inputs, Base: s.Base, D: s.D, Work: work, Arith: s.Arith, RNG: s.RNG,
		layout: s.Kernel.Layout, storage: s.Storage, out: s.Out, dims: s.Dims, padded: s.Padded, contracts: s.Fuses,
		used: make([]bool, s.Inputs), nodes: map[string]*graph.Node{},
	}
	for i := range c.used {
		c.used[i] = s.uses(i)
	}
	err = exceptions.TryCatch[error](func() {
		c.Graph = graph.NewGraph(backend, strings.ReplaceAll(s.Kernel.Name, "/", "_"))
		s.Kernel.Build(c)
		if len(c.results) == 0 {
			exceptions.Panicf("kernel %q yields nothing", s.Kernel.Name)
		}
		outputs := make([]*graph.Node, len(c.results))
		for i, r := range c.results {
			outputs[i] = r.Node
		}
		if err := c.Graph.Compile(outputs...); err != nil {
			panic(err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("kernel %q on %s: %w", s.Kernel.Name, backend.Name(), err)
	}
	for i := range c.results {
		c.results[i].Node = nil
	}
	return &Program{Graph: c.Graph, Exec: c.Graph.Executable(), Slots: c.slots, Results: c.results}, nil
}
