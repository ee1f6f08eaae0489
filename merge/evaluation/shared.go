package evaluation

import (
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/model/samples"
)

// Shared counts the rows of b that a has too, wherever they stand and whatever their files are called: what they give the model and what
// is asked for are the same, bit for bit. Rows of another kind of model are never the same.
func Shared(a, b *Judge) (n int) {
	have := map[[sha256.Size]byte]bool{}
	for i := range a.Rows() {
		have[a.subject.identity(i)] = true
	}
	for i := range b.Rows() {
		if have[b.subject.identity(i)] {
			n++
		}
	}
	return n
}

// Comparable says why outcomes of two judges of the same files cannot be compared row by row: their tokenizers cut texts of which every
// token counts into other numbers of tokens. It needs no weights.
func Comparable(a, b *Judge) error {
	x, okX := a.subject.(*transformer)
	y, okY := b.subject.(*transformer)
	if a.task != TaskLM || b.task != TaskLM || !okX || !okY || x.text == nil || y.text == nil {
		return nil
	}
	for i := range min(len(x.text.Examples), len(y.text.Examples)) {
		if n, m := targets(&x.text.Examples[i]), targets(&y.text.Examples[i]); n != m {
			return bad("row %d has %d tokens to predict for one and %d for the other: their tokenizers differ", i+1, n, m)
		}
	}
	return nil
}

// targets counts the tokens of a row that are to be predicted.
func targets(x *data.Example) (n int) {
	for _, label := range x.Labels {
		if label >= 0 {
			n++
		}
	}
	return n
}

// identity implements subject.
func (s *plain) identity(row int) [sha256.Size]byte { return exampleIdentity(s.set, row) }

// identity implements subject.
func (s *transformer) identity(row int) [sha256.Size]byte {
	if s.images != nil {
		return exampleIdentity(s.images, row)
	}
	return textIdentity(&s.text.Examples[row])
}

func exampleIdentity(set *samples.Set, row int) [sha256.Size]byte {
	one := set.Range(row, row+1)
	b := make([]byte, 0, 4*(len(one.X)+len(one.Labels.Classes)+len(one.Labels.Values)))
	for _, list := range [][]float32{one.X, one.Labels.Values} {
		for _, v := range list {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	for _, c := range one.Labels.Classes {
		b = binary.LittleEndian.AppendUint32(b, uint32(c))
	}
	return sha256.Sum256(b)
}

func textIdentity(x *data.Example) [sha256.Size]byte {
	b := make([]byte, 0, 4*(len(x.IDs)+len(x.Labels)+1))
	for _, list := range [][]int32{x.IDs, x.Labels, {int32(x.Class)}} {
		for _, v := range list {
			b = binary.LittleEndian.AppendUint32(b, uint32(v))
		}
	}
	return sha256.Sum256(b)
}
