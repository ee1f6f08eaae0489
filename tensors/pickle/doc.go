// Package pickle reads files that torch.save wrote, and writes some, without running what is in them.
//
// Such a file is a zip archive: data.pkl is a program for Python's pickle machine that builds the saved object, data/KEY are the bytes of
// its storages, uncompressed. A pickle can name any function of Python and have it called. This reader carries out what builds plain
// values, lists, dictionaries and tensors, and knows a dozen names that tensors and numbers are made of; any other name is an error. It
// calls nothing, and what it allocates is no more than a small multiple of the length of data.pkl.
package pickle
