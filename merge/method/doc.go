// Package method holds the merge methods, one small file each, and what they are written in.
//
// A Method is a registered value: its name in recipes, its parameters, its formula and paper, and one Go function, Merge,
// which makes one output tensor. Merge never sees a weight. It describes passes over the tensor's elements as Kernels
// (GoMLX graphs over a chunk) and asks its Task to run them:
//
//   - a statistics pass returns totals, per-row or per-column sums and histograms, reduced over all chunks in float64 and
//     in chunk order, so that the thread count cannot change a bit;
//   - an emitting pass (Chunk.Emit) writes the output.
//
// Between passes Merge computes on the host in float64: weights, angles, thresholds. What it found goes into the next
// pass as Values, which are graph parameters, never constants: a kernel is compiled once for a (name, arithmetic, dtypes,
// number of inputs) and then serves every tensor of every shape. A kernel's Build function must therefore depend on
// nothing but what its Name says.
//
// Arithmetic: by default every graph computes in float32 (float64 for float64 checkpoints) and the result is rounded once.
// With Native arithmetic each operation of Chunk (Add, Mul, ...) rounds its result to the storage dtype, as PyTorch does
// op by op, which reproduces published bfloat16 merges bit for bit.
//
// Spectral methods need a tensor as a matrix: Task.Difference hands it over whole, internal/linalg factorises it, and the result goes
// back into a kernel as a stream. Such a method says how much it holds (Method.Memory), and the engine runs as many at once as fit.
//
// The package imports GoMLX, internal/linalg, and nothing else of this module: how chunks are read, where graphs run and how outputs are written
// is merge/stream's business.
package method
