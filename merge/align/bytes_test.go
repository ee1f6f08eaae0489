package align

import (
	"bytes"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/tensors"
)

// exactSpec moves and flips along all axes of one tensor.
func exactSpec() *symmetry.Spec {
	return &symmetry.Spec{Groups: []symmetry.Group{
		{ID: "rows", Kind: symmetry.SignedPerm, Size: 4, Refs: []symmetry.Ref{at("x", 0, 1, 2, 1, symmetry.Write)}},
		{ID: "cols", Kind: symmetry.SignedPerm, Size: 3, Refs: []symmetry.Ref{at("x", 1, 0, 1, 2, symmetry.Read)}},
		{ID: "window", Kind: symmetry.SignedPerm, Size: 5, Refs: []symmetry.Ref{at("x", 2, 0, 1, 1, symmetry.Write)}},
	}}
}

// TestMoveBytes: bytes move as values do, in every float dtype and in any split of rows.
func TestMoveBytes(t *testing.T) {
	shape := []int{9, 6, 5}
	values := make([]float32, 9*6*5)
	linalg.Normal(values, 1, "x")
	values[7] = 0
	m := mustRandom(t, exactSpec(), 5, RandomOptions{})
	tr, err := m.Transform("x", shape, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !tr.Exact() {
		t.Fatal("not exact")
	}
	for _, dtype := range []tensors.DType{tensors.F64, tensors.F32, tensors.F16, tensors.BF16, tensors.F8E4M3, tensors.F8E5M2} {
		size := dtype.Size()
		src := make([]byte, size*len(values))
		if err := tensors.EncodeFloat32(src, dtype, values); err != nil {
			t.Fatal(err)
		}
		rounded := make([]float32, len(values))
		if err := tensors.DecodeFloat32(rounded, src, dtype); err != nil {
			t.Fatal(err)
		}
		moved, err := tr.All(rounded)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, len(src))
		if err := tensors.EncodeFloat32(want, dtype, moved); err != nil {
			t.Fatal(err)
		}
		for _, step := range []int{1, 4, 9} {
			got := make([]byte, len(src))
			for r := 0; r < 9; r += step {
				h := min(r+step, 9)
				if err := tr.MoveBytes(got[r*30*size:h*30*size], dtype, r, h, func(x []byte, off int64) error { copy(x, src[off:]); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s, %d rows at a time: bytes differ from values", dtype, step)
			}
		}
	}
	if err := tr.MoveBytes(make([]byte, 270), tensors.I8, 0, 9, func([]byte, int64) error { return nil }); err == nil {
		t.Error("signs of integers were flipped")
	}
	nan := []byte{0x00, 0x80, 0x01, 0x81}
	if err := flip(nan, tensors.F8E4M3FNUZ); err != nil || !bytes.Equal(nan, []byte{0x00, 0x80, 0x81, 0x01}) {
		t.Errorf("FNUZ: %x, %v", nan, err)
	}
}

// TestMoveIntegers: what has no signs to flip moves in any dtype.
func TestMoveIntegers(t *testing.T) {
	s := &symmetry.Spec{Groups: []symmetry.Group{{ID: "g", Kind: symmetry.Perm, Size: 6, Refs: []symmetry.Ref{at("x", 0, 0, 1, 1, symmetry.Write)}}}}
	m := Identity(s)
	m.Elements["g"] = Element{Kind: symmetry.Perm, Index: []int{5, 0, 1, 2, 3, 4}}
	tr, err := m.Transform("x", []int{6}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if err := tr.MoveBytes(got, tensors.U8, 0, 6, func(x []byte, off int64) error { copy(x, []byte{10, 11, 12, 13, 14, 15}[off:]); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []byte{15, 10, 11, 12, 13, 14}) {
		t.Errorf("got %v", got)
	}
}
