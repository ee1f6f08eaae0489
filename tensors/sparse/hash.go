package sparse

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// hashBytes is how much of a tensor is read before its pages are given back.
const hashBytes = 8 << 20

// Hash returns the content hash of a checkpoint, by which a sparse difference names its base: the SHA-256, in hexadecimal, of every
// tensor's name, dtype, shape and bytes, in the order of names. Sharding and metadata do not count. It reads the checkpoint once.
func Hash(c *tensors.Checkpoint) (string, error) {
	h := sha256.New()
	names := c.Names()
	slices.Sort(names)
	for _, name := range names {
		v, err := c.View(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%d %s %s %v\n", len(name), name, v.DType, v.Shape)
		for off := 0; off < len(v.Data); off += hashBytes {
			end := min(off+hashBytes, len(v.Data))
			c.WillNeed(name, int64(end), hashBytes)
			h.Write(v.Data[off:end])
			c.Release(name, int64(off), int64(end-off))
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
