// Package checkpoint opens models whatever they are kept in: as tensors under the names that transformers has for them.
//
// The words, used the same way everywhere in this package:
//
//   - A format is what weight files are: safetensors, files of torch.save (package pickle), or GGUF (packages gguf and llamacpp).
//   - A quantised checkpoint keeps weights as codes with scales beside them, as quantization_config of its config.json says. Opened, it has
//     the weights themselves, which are computed where they are read (package quant).
//   - A plain config is a config.json without what described such codes: the one that belongs to the weights as they are read.
//   - The directory of a GGUF file is a small one in the cache with what transformers would have beside the weights, derived from the
//     file's metadata, and a link to the file. Whatever reads configuration or tokenizer from a model's directory reads them there.
//
// Nothing of this runs what a file contains, and errors about files are *tensors.FormatError.
package checkpoint
