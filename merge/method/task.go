package method

import (
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
)

// Arith selects the arithmetic of the graphs.
type Arith uint8

// The arithmetics.
const (
	Wide   Arith = iota // float32 (float64 for float64 tensors), one rounding at the end
	Native              // every operation rounds to the storage dtype, as the peer does
)

// String returns the name that --arith takes.
func (a Arith) String() string { return [...]string{"float32", "native"}[a] }

// RNG selects the random generator of stochastic methods.
type RNG uint8

// The generators.
const (
	Counter RNG = iota // counter-based, keyed by seed and tensor name: any order, any thread count
	Peer               // the peer's one sequential Mersenne Twister stream
)

// Task is one output tensor, as a method sees it.
type Task struct {
	Name   string       // output tensor's name
	Shape  []int        // its shape
	N      int64        // its elements
	Inputs int          // number of input tensors, base included
	Base   int          // index of the base among them, or -1
	D      dtypes.DType // dtype that the inputs are promoted to
	Out    dtypes.DType // dtype of the output
	Arith  Arith
	RNG    RNG
	Seed   uint64

	Depth   float64 // place among the layers: 0 is the first and what comes before it, 1 the last and what comes after; NaN: no layers
	Table   bool    // an embedding or a head: its rows belong to tokens, positions or classes
	Stacked bool    // the first axis counts matrices, one of each expert
	Turned  bool    // matrices are stored [inputs, outputs], as Conv1D has them, not [outputs, inputs]
	Threads int     // goroutines that Merge may keep busy with its own work

	Shared   map[string]any   // resolved parameters, one value per tensor
	PerInput []map[string]any // resolved parameters of each input

	// Reported sums what emitting kernels report about the merge (Chunk.Report), by name.
	Reported map[string]float64
	// Surveyed is what the last emitting kernel made, where the runner was asked for surveys.
	Surveyed *Survey

	Runner Runner
}

// Runner executes kernels over all chunks of a task.
type Runner interface {
	// Run executes k over every chunk of t and returns the statistics it gathered.
	Run(t *Task, k *Kernel, v Values) (*Stats, error)
	// RunChunk executes k over one chunk only; array results are found in the statistics.
	RunChunk(t *Task, k *Kernel, v Values, chunk int) (*Stats, error)
	// RunSparse executes k over evenly spread pieces that make up about one element in every; ok is false, and nothing has
	// been done, where that would cost as much as all of them.
	RunSparse(t *Task, k *Kernel, v Values, every int) (s *Stats, ok bool, err error)
	// Copy writes input i unchanged (cast to the output dtype).
	Copy(t *Task, i int) error
	// Sample returns count indices below n, drawn with replacement from the task's random stream.
	Sample(t *Task, count int, n int64) ([]int64, error)

	// The rest is for methods that need a tensor as a whole and say how much they hold (Method.Memory).

	// Read returns input i as float32, in the order in which it is stored.
	Read(t *Task, i int) ([]float32, error)
	// Difference returns input i less input j, rounded once to float32.
	Difference(t *Task, i, j int) ([]float32, error)
	// Write makes x, one value for each element, the output.
	Write(t *Task, x []float32) error
}

// Run executes a kernel over the whole tensor.
func (t *Task) Run(k *Kernel, v Values) (*Stats, error) { return t.Runner.Run(t, k, v) }

// RunChunk executes a kernel over one chunk.
func (t *Task) RunChunk(k *Kernel, v Values, chunk int) (*Stats, error) {
	return t.Runner.RunChunk(t, k, v, chunk)
}

// Copy writes input i unchanged as the output.
func (t *Task) Copy(i int) error { return t.Runner.Copy(t, i) }

// Read returns input i whole, as float32.
func (t *Task) Read(i int) ([]float32, error) { return t.Runner.Read(t, i) }

// Difference returns input i less input j, whole, as float32.
func (t *Task) Difference(i, j int) ([]float32, error) { return t.Runner.Difference(t, i, j) }

// Write makes x the output.
func (t *Task) Write(x []float32) error { return t.Runner.Write(t, x) }

// Work is the dtype that graphs compute in: Float64 for float64 tensors, else Float32.
func (t *Task) Work() dtypes.DType {
	if t.D == dtypes.Float64 {
		return dtypes.Float64
	}
	return dtypes.Float32
}

// Others lists the inputs that are not the base, in recipe order.
func (t *Task) Others() []int {
	out := make([]int, 0, t.Inputs)
	for i := 0; i < t.Inputs; i++ {
		if i != t.Base {
			out = append(out, i)
		}
	}
	return out
}

// Float returns a shared parameter; parameters are resolved and typed before Merge runs.
func (t *Task) Float(name string) float64 { return t.Shared[name].(float64) }

// Bool returns a shared parameter.
func (t *Task) Bool(name string) bool { return t.Shared[name].(bool) }

// Int returns a shared parameter.
func (t *Task) Int(name string) int { return t.Shared[name].(int) }

// InputFloat returns input i's parameter and whether it is set.
func (t *Task) InputFloat(name string, i int) (float64, bool) {
	v, ok := t.PerInput[i][name].(float64)
	return v, ok
}

// Round rounds a host value to the storage dtype under native arithmetic; otherwise it returns v in the work dtype.
func (t *Task) Round(v float64) float64 {
	if t.Arith == Native {
		return RoundTo(v, t.D)
	}
	return v
}

// RoundTo rounds v to the nearest value of a float dtype (ties to even), through float32 as PyTorch does.
func RoundTo(v float64, d dtypes.DType) float64 {
	switch d {
	case dtypes.Float64:
		return v
	case dtypes.BFloat16:
		return roundBits(float32(v), 16)
	case dtypes.Float16:
		return roundHalf(float32(v))
	}
	return float64(float32(v))
}

// roundBits rounds x to nearest even after dropping the low bits of its pattern; NaN is kept.
func roundBits(x float32, drop uint) float64 {
	if x != x {
		return float64(x)
	}
	_ = bfloat16.BFloat16(0)
	b := math.Float32bits(x)
	b += (1<<(drop-1) - 1) + (b>>drop)&1
	return float64(math.Float32frombits(b &^ (1<<drop - 1)))
}

// roundHalf rounds x to IEEE half precision: 11 significant bits, exponents from -14, subnormals in steps of 2^-24.
func roundHalf(x float32) float64 {
	v := float64(x)
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return v
	}
	_, e := math.Frexp(v) // |v| in [2^(e-1), 2^e)
	step := math.Ldexp(1, max(e-11, -24))
	r := math.RoundToEven(v/step) * step
	if math.Abs(r) > 65504 {
		return math.Inf(int(math.Copysign(1, v)))
	}
	return r
}

// ValueError is a merge that its recipe's parameters or its inputs' values make impossible.
type ValueError struct {
	Tensor string
	Msg    string
	// Param is the parameter that is to blame, and Input the input that has it, -1 where all share it; Param is empty where the recipe
	// has no one place to point at.
	Param string
	Input int
}

// Error names the tensor first.
func (e *ValueError) Error() string { return e.Tensor + ": " + e.Msg }

// Refuse makes a ValueError for a parameter of input i, -1 for one that all inputs share.
func (t *Task) Refuse(param string, i int, format string, args ...any) error {
	return &ValueError{Tensor: t.Name, Msg: fmt.Sprintf(format, args...), Param: param, Input: i}
}

// Errorf makes a ValueError for the task's tensor.
func (t *Task) Errorf(format string, args ...any) error {
	return &ValueError{Tensor: t.Name, Msg: fmt.Sprintf(format, args...)}
}
