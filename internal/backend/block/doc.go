// Package block is a compute backend for the chunk kernels of merging: element-wise graphs with reductions, evaluated
// block by block in cache on the caller's memory.
//
// A graph has one space: the shape of its largest parameters, flat [N] or rows [R, C]. Every other value is a scalar, one
// value per row, one per column, or a small result. Compiling turns the graph into three lists of instructions: scalars
// that are computed once per call, the loop that runs for each block of about two thousand elements, and what follows the
// reductions. Registers of the loop are slices that stay in the first two levels of cache; parameters and outputs of full
// size are registers that point into the caller's memory.
//
// Dimensions of the space are place-holders: a program runs on any size, taken from the input buffers.
//
// Sums are accumulated in float64 in sixteen interleaved lanes that a fixed tree adds up, block after block, so that
// vector and scalar code give the same bits.
package block
