package method

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Draw24 returns a random Uint32 below 2^24 for each element, of input i's own stream. With the counter generator it is a
// hash of the element's index under a key made of seed, tensor name and input; with the peer's it is what the sequential
// generator yields at that element.
func (c *Chunk) Draw24(i int) *Node {
	if c.RNG == Peer {
		return BitwiseAnd(c.Stream(PeerStream(i)), Const(c.Graph, uint32(1<<24-1)))
	}
	key := func(part string) *Node {
		return c.param(SlotKey, fmt.Sprintf("%d.%s", i, part), i, shapes.Make(dtypes.Uint32))
	}
	at := c.memo("draw.index", func() *Node { // the same for all inputs
		return Mul(Add(c.Local(), key("offset")), Const(c.Graph, uint32(0x9e3779b1)))
	})
	h := mix32(c.Graph, Add(at, key("a")))
	h = mix32(c.Graph, BitwiseXor(h, key("b")))
	return BitwiseShiftRightLogicalScalar(h, uint32(8))
}

// mix32 is a bijective 32-bit finaliser whose constants have low bias (C. Wellons, 2018, "Prospecting for hash functions").
func mix32(g *Graph, h *Node) *Node {
	h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(16)))
	h = Mul(h, Const(g, uint32(0x7feb352d)))
	h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(15)))
	h = Mul(h, Const(g, uint32(0x846ca68b)))
	return BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(16)))
}

// Bernoulli marks elements with a probability, given as its limit (Uint32, scalar or full size): uniform < p, the uniform a
// multiple of 2^-24.
func (c *Chunk) Bernoulli(i int, limit *Node) *Node { return LessThan(c.Draw24(i), limit) }

// drawLimit is how many of the 2^24 values of a draw lie below a probability, which is rounded to float32 first where the
// arithmetic is.
func (t *Task) drawLimit(p float64) uint32 {
	if t.Work() != dtypes.Float64 {
		p = float64(float32(p))
	}
	return uint32(math.Ceil(min(max(p, 0), 1) * (1 << 24)))
}

// PeerStream names the stream of raw 32-bit outputs of the peer's generator for input i.
func PeerStream(i int) string { return fmt.Sprintf("peer.%d", i) }

// Keys derives the counter generator's two keys for a block of 2^32 elements of one input of one tensor.
func Keys(seed uint64, tensor string, input int, block uint64) (a, b uint32) {
	h := sha256.New()
	var head [24]byte
	binary.LittleEndian.PutUint64(head[0:], seed)
	binary.LittleEndian.PutUint64(head[8:], uint64(input))
	binary.LittleEndian.PutUint64(head[16:], block)
	h.Write(head[:])
	h.Write([]byte(tensor))
	s := h.Sum(nil)
	return binary.LittleEndian.Uint32(s), binary.LittleEndian.Uint32(s[4:])
}
