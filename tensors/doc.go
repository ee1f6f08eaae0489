// Package tensors reads and writes checkpoints on disk: safetensors in and out, with dtypes, shards and an index. It knows
// tensors by name, dtype and shape, and no model.
//
// The words, used the same way everywhere in this package:
//
//   - A checkpoint is the tensors of one safetensors file, or of several shards that an index lists.
//   - A shard is one safetensors file: eight bytes with the length of the header, the header (JSON), the data.
//   - The layout of an output is its shards, their headers, and the offset of every tensor. It follows from names, dtypes and
//     shapes alone, so it is fixed before the first byte of weights is read.
//   - The output is the directory that the caller asks for; the partial directory is its hidden sibling, where it comes to be.
//   - A tensor is finished when all its bytes are written, and recorded when they are on the disk and the journal says so.
//
// # Reading
//
// Open reads headers only and checks them against the files before anything else happens: lengths, offsets, shapes, dtypes,
// the index. What a header claims never decides how much is allocated. Weights are views of mapped files: the system reads
// them when they are touched, nothing copies them, and Release gives the pages back.
//
// # Writing
//
// Nothing that looks like a checkpoint exists before it is one:
//
//  1. Create makes the partial directory, locks it, lays out every shard at its final size with its header, reserves the
//     blocks (a full disk shows here), and begins the journal. The journal's first line names the inputs and the recipe (the
//     fingerprint) and the layout.
//  2. WriteAt writes at final offsets. Offsets are known, so workers need no lock and no order.
//  3. After Finish the flusher syncs the shard, and only then appends the tensor's record to the journal and syncs that. A
//     record carries a checksum over the first line and itself: one that was torn, or that belongs to another journal, is none.
//  4. Commit syncs everything, writes the index, removes the journal and renames the partial directory to the output. What
//     the output replaces (Force) is renamed aside first and removed last; a kill in between is put right by the next Create.
//
// A kill at any moment leaves a partial directory whose journal lists a subset of the tensors that are on the disk. Create
// with Resume checks fingerprint, layout, shard sizes and headers, takes the recorded tensors over and writes the others, so
// that the result has the bytes of an undisturbed run. If the fingerprint or the layout differs, it refuses.
package tensors
