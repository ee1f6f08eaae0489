// Package llamacpp reads models as the files of llama.cpp name them and lay them out, as what they are for transformers: a checkpoint with
// the names and the order of rows that its classes have, config.json, and the tokenizer.
//
// The words, used the same way everywhere in this package:
//
//   - A family is an architecture of GGUF files that is understood: how its tensors and settings are called elsewhere.
//   - A permuted family has the rows of q and k in another order, which is undone where they are read.
//
// Package gguf has the format itself: metadata, quantisations. Errors about a file are *tensors.FormatError.
package llamacpp
