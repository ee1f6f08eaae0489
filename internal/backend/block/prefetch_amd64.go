package block

import "unsafe"

// prefetch asks for n > 0 bytes at p to be brought into the cache. The next block's inputs arrive while this block is computed;
// left to itself, the hardware starts anew at each of the interleaved inputs. An address that is not mapped is ignored.
//
//go:noescape
func prefetch(p unsafe.Pointer, n int)
