// Package pickle reads files that torch.save wrote, and writes some, without running what is in them.
//
// Such a file is a zip archive: data.pkl is a program for Python's pickle machine that builds the saved object, data/KEY are the bytes of
// its storages, uncompressed. Before version 1.6 of torch it was several pickles one after the other, the last a list of the storages
// that follow. A pickle can name any function of Python and have it called. This reader carries out what builds plain values, lists,
// dictionaries and tensors, and knows some names that tensors and numbers are made of; any other name is an error. It calls nothing, and
// what it allocates is no more than a small multiple of the length of the program.
//
// The words, used the same way everywhere in this package:
//
//   - A program is a pickle: instructions for a machine with a stack and a memo.
//   - A storage is a run of elements in the file. Tensors are windows on storages, by an offset and strides; several may share one.
//   - A state dict is a dictionary of names to tensors, the root of the file or an entry of it.
//
// OpenCheckpoint makes a tensors.Checkpoint of a state dict, whole or in shards: what is contiguous is the mapped file and is not copied,
// what is not is gathered where it is read.
package pickle
