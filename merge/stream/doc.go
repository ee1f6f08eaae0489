// Package stream executes merges: it cuts tensors into chunks, feeds the methods' kernels from mapped files on any
// backend, and writes results at their final offsets.
//
// A Job is one output tensor. Each job's method runs in a goroutine of its own and asks for passes; a fixed number of
// workers takes chunks from the earliest unfinished pass. So reading, computing and writing overlap, small tensors fill
// the gaps that the host steps of large ones leave, and only a few jobs are in flight. Chunk sizes depend on the kind of
// backend alone, never on the number of workers, and partial sums are folded in chunk order: the thread count cannot
// change a result.
//
// Two executors: on backends that evaluate in place (internal/backend/block) a chunk is a view of the mapped file and the
// output goes from a buffer in cache to the file; on others (XLA) chunks are copied into persistent device buffers of a
// few fixed sizes, padded, so that every kernel is compiled once or twice and never per tensor shape.
package stream
