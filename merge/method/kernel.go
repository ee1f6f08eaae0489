package method

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Layout says how a chunk of a tensor is shaped.
type Layout uint8

// The layouts.
const (
	Flat      Layout = iota // [N]: consecutive elements
	LastAxis                // [R, C]: whole vectors along the last axis; a 1-D tensor is one row
	FirstAxis               // [R, C]: R indices of the first axis, C all the rest
)

// Kernel is one pass over a tensor: a graph over a chunk.
type Kernel struct {
	// Name identifies the graph: two kernels of one name, layout and input list must build the same graph.
	Name   string
	Layout Layout
	Inputs []int // the inputs it reads, by index; nil: all of them
	// Build makes the graph. It declares what it needs (X, Scalar, ...) and what it yields (Emit, Total, ...) on c.
	Build func(c *Chunk)

	// Before, when set, runs first on each chunk; its arrays go to Host, whose results Build reads as streams.
	Before *Kernel
	// Host turns Before's arrays (by name, rows x cols elements of float32 bits or integers) into this chunk's streams.
	Host func(arrays map[string][]uint32, rows, cols int, streams map[string][]uint32)
}

// Position is a value that counts elements of the whole tensor: inside a chunk it becomes the number of the chunk's
// elements that lie before it.
type Position int64

// RowValues holds one value per row of a two-axis layout.
type RowValues []float64

// ColValues holds one value per column of a two-axis layout.
type ColValues []float64

// Stream fills dst with the uint32 values of elements [off, off+len(dst)) of the tensor.
type Stream func(dst []uint32, off int64)

// Values are a kernel's inputs beside the tensors: float64 for Scalar, uint32 for Uint, Position, RowValues, ColValues,
// Stream, each under the name that Build used.
type Values map[string]any

// Stats are what a pass gathered.
type Stats struct {
	Totals     map[string]float64   // sums and, under their own names, maxima
	Chunks     map[string][]float64 // Totals of each chunk
	Starts     []int64              // first element of each chunk
	Rows       map[string][]float64
	Cols       map[string][]float64
	Histograms map[string][]int64
	ByChunk    map[string][][]BinCount // of histograms asked for by chunk: each chunk's bins that are not empty, ascending
	Arrays     map[string][]uint32     // RunChunk only
}

// BinCount is a histogram's bin and how many elements are in it.
type BinCount struct {
	Bin   uint32
	Count int32
}

// ResultKind says what a kernel's output is.
type ResultKind uint8

// What a kernel can yield.
const (
	ResultEmit ResultKind = iota
	ResultTotal
	ResultMax
	ResultReport
	ResultRow
	ResultCol
	ResultHistogram
	ResultArray
)

// Result is one output of a kernel's graph.
type Result struct {
	Kind ResultKind
	Name string
	Node *Node
	Bins int
	// ByChunk asks to keep a histogram's counts of each chunk, too.
	ByChunk bool
}
