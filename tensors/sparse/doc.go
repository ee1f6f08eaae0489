// Package sparse reads and writes sparse differences between checkpoints: which entries of which tensors a fine-tune changes, and what
// they become. Grafts and sparse fine-tunings are such files.
//
// A sparse difference is one safetensors file that any tool reads. For every changed tensor NAME it has
//
//   - NAME.indices: the changed places as flat row-major positions, strictly ascending; I32, or I64 where the tensor has 2^31 elements
//     or more;
//   - NAME.values: as many values, in the dtype of the base's tensor or in F32.
//
// A tensor that is replaced as a whole, such as a head for another task, stands under NAME itself. The header's metadata says the rest:
//
//	format: mergekit.sparse   version: 1
//	kind: graft | lt_sft | difference
//	values: absolute | delta
//	base: the content hash of the checkpoint that the file belongs to (Hash), "" when it is not known
//	shape.NAME: the sizes of the tensor, joined by commas: "4096,11008"
//
// and whatever else the writer wants to keep. Absolute values are what the entries become: applied to the base they give the fine-tuned
// entry bit for bit, which base + (tuned - base) in floating point does not. Values of the form delta are added to the base's, for
// files that were made without it.
//
// Reading checks everything that the file alone can tell: that indices ascend and lie in the tensor, that there are as many values, that
// every pair has a shape. What is read is no longer than the file, whatever its header claims.
package sparse
