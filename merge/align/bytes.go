package align

import (
	"fmt"

	"github.com/mergekit/mergekit/tensors"
)

// MoveBytes is Rows for what is Exact, on the bytes of a file: values move as they are, and a sign is a flipped bit, so nothing is
// decoded or rounded. read fills a slice with the tensor's bytes from offset off on.
func (t *Transform) MoveBytes(dst []byte, dtype tensors.DType, r0, r1 int, read func(dst []byte, off int64) error) error {
	size := dtype.Size()
	if !t.Exact() || size == 0 {
		return fmt.Errorf("a tensor of dtype %s cannot be moved as bytes by this map", dtype)
	}
	row := t.cols() * size
	if r0 < 0 || r1 < r0 || r1 > t.rows() || len(dst) != (r1-r0)*row {
		return fmt.Errorf("rows %d to %d of a tensor of shape %v and dtype %s into %d bytes", r0, r1, t.Shape, dtype, len(dst))
	}
	if len(dst) == 0 {
		return nil
	}
	move := func(x []byte, s stage, n, post int) error { return move(x, s, n, post*size, dtype) }
	first := t.axes[0].single()
	for r := r0; r < r1; {
		from, n := first.at(r), 1
		for r+n < r1 && first.at(r+n) == from+n {
			n++
		}
		if err := read(dst[(r-r0)*row:(r-r0+n)*row], int64(from)*int64(row)); err != nil {
			return err
		}
		r += n
	}
	if first.scale != nil {
		for r := r0; r < r1; r++ {
			if first.scale[r] < 0 {
				if err := flip(dst[(r-r0)*row:(r-r0+1)*row], dtype); err != nil {
					return err
				}
			}
		}
	}
	post := 1
	for a := len(t.Shape) - 1; a > 0; a-- {
		n := t.Shape[a]
		if len(t.axes[a].stages) > 0 {
			if err := move(dst, t.axes[a].single(), n, post); err != nil {
				return err
			}
		}
		post *= n
	}
	return nil
}

// single is an exact action's only step.
func (a *action) single() stage {
	if len(a.stages) == 0 {
		return stage{}
	}
	return a.stages[0]
}

// at is where index i comes from.
func (s *stage) at(i int) int {
	if s.index == nil {
		return i
	}
	return s.index[i]
}

// move applies a step to x, [outer, n] pieces of so many bytes.
func move(x []byte, s stage, n, piece int, dtype tensors.DType) error {
	old := make([]byte, n*piece)
	for o := 0; o < len(x); o += n * piece {
		now := x[o:][:n*piece]
		if s.index != nil {
			copy(old, now)
			switch piece {
			case 1:
				for i, p := range s.index {
					now[i] = old[p]
				}
			case 2:
				for i, p := range s.index {
					*(*[2]byte)(now[2*i:]) = *(*[2]byte)(old[2*p:])
				}
			case 4:
				for i, p := range s.index {
					*(*[4]byte)(now[4*i:]) = *(*[4]byte)(old[4*p:])
				}
			default:
				for i, p := range s.index {
					copy(now[i*piece:][:piece], old[p*piece:])
				}
			}
		}
		for i, c := range s.scale {
			if c < 0 {
				if err := flip(now[i*piece:][:piece], dtype); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// flip changes the sign of every element.
func flip(x []byte, dtype tensors.DType) error {
	switch dtype {
	case tensors.F64, tensors.F32, tensors.F16, tensors.BF16, tensors.F8E4M3, tensors.F8E5M2:
		size := dtype.Size()
		for i := size - 1; i < len(x); i += size { // little-endian: the sign is in the last byte
			x[i] ^= 0x80
		}
		return nil
	case tensors.F8E4M3FNUZ, tensors.F8E5M2FNUZ: // have one zero, and in the place of the other NaN
		for i, b := range x {
			if b&0x7f != 0 {
				x[i] = b ^ 0x80
			}
		}
		return nil
	}
	return &Error{Msg: fmt.Sprintf("values of dtype %s have no sign to flip", dtype), Hint: "align with symmetry: permutation"}
}
