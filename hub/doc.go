// Package hub brings models from a model hub to this machine, and takes results there. It speaks the hub's HTTP interface
// and keeps the cache that Hugging Face's own tools share, so that what they have downloaded is used here and the other way
// round. It knows files and hashes, and no tensor.
//
// The words, used the same way everywhere in this package:
//
//   - A repository is what org/name means on a hub. A revision is a branch, a tag or a commit of it; a commit is the
//     hexadecimal name of one state.
//   - A blob is the content of one file, named by its etag: the SHA-256 of large files, the SHA-1 that git gives small ones.
//   - A snapshot is the directory of one commit in the cache: links from the names of files to blobs. A ref is a file that
//     says which commit a revision was when it was last asked for.
//   - A part is a blob on its way: a file of the final size, and beside it a record of how far each segment has come.
//
// # What holds when a download ends
//
// A blob gets its name only after its whole content has been read back and has the size and the hash that the hub's listing
// promises. A link in a snapshot is made only to such a blob, and the ref is written when all links are there. So a dropped
// connection, a wrong length, a wrong hash, a redirect to nowhere or a kill leave parts, which the next download goes on
// with, and never a model that is not the hub's.
//
// Bytes are received in segments on several connections. Before a record moves, the bytes it counts have been written; the
// hash at the end tells whether the disk kept them.
//
// # Whom the token is told
//
// The token goes to the endpoint (scheme, host and port) and to nobody else: a redirect to any other place is followed
// without it, and one from https to http not at all.
package hub
