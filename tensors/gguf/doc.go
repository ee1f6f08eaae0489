// Package gguf reads GGUF files, the format of llama.cpp: typed metadata, a table of tensors, and their data, quantised
// or not, dequantised to float32 in chunks of the caller's size.
//
// The words, used the same way everywhere in this package:
//
//   - A File is an opened GGUF, with all its parts if it is split; its metadata and tensor table are in memory, tensor
//     data are in the mapped files.
//   - A Type is how the elements of a tensor are stored: plain (F32, BF16, I8…) or in blocks of 32 or 256 elements that
//     share scales (Q4_1, Q6_K…). A row is a whole number of blocks.
//   - A Tensor's Shape has the order of torch: the slowest axis first. The file has it the other way round.
//
// # What a hostile file can do
//
// Nothing but be refused. Every length in the file is checked against the bytes that are really there before anything is
// allocated, the header as a whole is bounded by maxHeaderBytes, and tensors must lie inside the file, aligned and without
// overlap. Versions 2 and 3 are read, little-endian only; version 1 and big-endian files are refused by name.
//
// # Arithmetic
//
// Blocks are decoded with the operations, and in the order, of ggml's reference; every product is rounded to float32
// before it is added, so the result is the same on every machine and bit-identical with the gguf package for Python.
package gguf
