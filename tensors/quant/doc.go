// Package quant gives checkpoints that keep weights as codes the weights that the codes stand for, computed where they are read.
//
// The words, used the same way everywhere in this package:
//
//   - Codes are the stored numbers: 8-bit floats or integers, or several small integers packed into a word.
//   - A scale is what codes are multiplied by. A grid is the scales of a matrix: one for all of it, for a row, for a group of neighbours in a
//     row, or for a block of rows and columns.
//   - A zero point is the code that stands for zero.
//   - A scheme is how a program packs codes and what it calls their scales: DeepSeek's blocks of fp8, compressed-tensors, GPTQ, AWQ,
//     bitsandbytes, MXFP4 and NVFP4. The quantization_config of a model's config.json names it; a scheme that is not known is refused by
//     that name.
//
// A matrix is decoded rectangle by rectangle into float32, and rounded once to the dtype in which the scheme's own program computes: that of
// the scales, where they are 16-bit floats, else that of the model. So the values are those with which the model runs, not those that it
// had before it was quantised.
//
// A hostile file can only be refused: every size is checked against the others before anything is read, and nothing is allocated by what a
// file claims.
package quant
