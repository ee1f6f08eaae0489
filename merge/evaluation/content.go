package evaluation

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"github.com/mergekit/mergekit/merge/align"
)

// ContentHash identifies weights by what they are, not where: the SHA-256 over all tensors of floats by name, their shapes and their
// values as float32, which is what a Judge computes with. Tensors are read one after the other.
func ContentHash(ctx context.Context, w align.Weights) (string, error) {
	h := sha256.New()
	const piece = 1 << 14
	buffer := make([]byte, 4*piece)
	names := slices.Clone(w.Names())
	slices.Sort(names)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		info, ok := w.Lookup(name)
		if !ok || !info.DType.IsFloat() {
			continue // counters and the like are no weights
		}
		x, err := w.Read(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q%v%d|", name, info.Shape, len(x))
		for part := range slices.Chunk(x, piece) {
			for i, v := range part {
				binary.LittleEndian.PutUint32(buffer[4*i:], math.Float32bits(v))
			}
			_, _ = h.Write(buffer[:4*len(part)]) // a hash does not fail
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
