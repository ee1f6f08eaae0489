package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/mergekit/mergekit/tensors"
)

var le = binary.LittleEndian

// codes are the stored numbers of a matrix: what they stand for, rectangle by rectangle. Leading dimensions are rows.
type codes interface {
	// decode writes columns c0 to c1 of rows r0 to r1 to dst, row by row.
	decode(dst []float32, r0, r1, c0, c1 int, b *buffers) error
}

// buffers are what decoding a rectangle needs besides the result; they grow.
type buffers struct {
	values        []float32
	scales, zeros []float32
	tile          []float32
	raw           [4][]byte
}

var pool = sync.Pool{New: func() any { return &buffers{} }}

func grown[T any](s *[]T, n int) []T {
	if cap(*s) < n {
		*s = make([]T, n)
	}
	return (*s)[:n]
}

// pieceElems is how many elements are decoded at a time.
const pieceElems = 256 << 10

// source is a weight that its codes stand for: a tensors.Source.
type source struct {
	codes
	rows, cols int
	dtype      tensors.DType
	main       *tensors.Reader // the codes' bytes; nil: they are in another order
}

// ReadAt decodes elements: the rest of a row, whole rows, the begin of a row.
func (s *source) ReadAt(dst []byte, off int64) error {
	b := pool.Get().(*buffers)
	defer pool.Put(b)
	size := s.dtype.Size()
	for elem, left := int(off)/size, len(dst)/size; left > 0; {
		r0, c0 := elem/s.cols, elem%s.cols
		r1, c1 := r0+1, min(s.cols, c0+min(left, pieceElems))
		if c0 == 0 && left >= s.cols && s.cols <= pieceElems {
			r1 = r0 + min(left, pieceElems)/s.cols
		}
		n := (r1 - r0) * (c1 - c0)
		values := grown(&b.values, n)
		if err := s.decode(values, r0, r1, c0, c1, b); err != nil {
			return err
		}
		if err := tensors.EncodeFloat32(dst[:n*size], s.dtype, values); err != nil {
			return err
		}
		dst, elem, left = dst[n*size:], elem+n, left-n
	}
	return nil
}

// span is the part of the codes that n bytes from byte off of the weight are made from.
func (s *source) span(off, n int64) (int64, int64) {
	total := int64(s.rows) * int64(s.cols) * int64(s.dtype.Size())
	if s.main == nil || total == 0 {
		return 0, 0
	}
	of := func(at int64) int64 { return int64(float64(at) / float64(total) * float64(s.main.Info.Bytes())) }
	return of(off), of(off+n) - of(off)
}

// WillNeed passes the hint on to the codes.
func (s *source) WillNeed(off, n int64) {
	if from, n := s.span(off, n); n > 0 {
		s.main.WillNeed(from, n)
	}
}

// Release passes the hint on to the codes.
func (s *source) Release(off, n int64) {
	if from, n := s.span(off, n); n > 0 {
		s.main.Release(from, n)
	}
}

// bytes reads elements of a tensor; which of the buffers' raw slices is used must not hold anything that is still needed.
func read(r *tensors.Reader, elem, n int, b *buffers, raw int) ([]byte, error) {
	size := r.DType.Size()
	var scratch []byte
	if !r.Stored() {
		scratch = grown(&b.raw[raw], n*size)
	}
	return r.Bytes(int64(elem)*int64(size), int64(n)*int64(size), scratch)
}

// numbers reads elements of a tensor of any dtype that scales and zero points have as float32.
func numbers(dst []float32, r *tensors.Reader, elem int, b *buffers, raw int) error {
	data, err := read(r, elem, len(dst), b, raw)
	if err != nil {
		return err
	}
	return decodeNumbers(dst, data, r.DType)
}

func decodeNumbers(dst []float32, data []byte, dtype tensors.DType) error {
	switch dtype {
	case tensors.I8:
		for i := range dst {
			dst[i] = float32(int8(data[i]))
		}
	case tensors.U8:
		for i := range dst {
			dst[i] = float32(data[i])
		}
	case tensors.I16:
		for i := range dst {
			dst[i] = float32(int16(le.Uint16(data[2*i:])))
		}
	case tensors.I32:
		for i := range dst {
			dst[i] = float32(int32(le.Uint32(data[4*i:])))
		}
	case tensors.I64:
		for i := range dst {
			dst[i] = float32(int64(le.Uint64(data[8*i:])))
		}
	case tensors.F8E8M0:
		for i := range dst {
			dst[i] = power(data[i])
		}
	default:
		return tensors.DecodeFloat32(dst, data, dtype)
	}
	return nil
}

// power is 2^(e-127), the scale of the OCP microscaling formats; 255 is NaN.
func power(e byte) float32 {
	switch e {
	case 0:
		return math.Float32frombits(0x00400000)
	case 255:
		return float32(math.NaN())
	}
	return math.Float32frombits(uint32(e) << 23)
}

// isNumber reports whether decodeNumbers reads a dtype.
func isNumber(d tensors.DType) bool {
	switch d {
	case tensors.I8, tensors.U8, tensors.I16, tensors.I32, tensors.I64, tensors.F8E8M0:
		return true
	}
	return d.IsFloat()
}

// indices reads a list of group numbers once, and checks them.
type indices struct {
	r    *tensors.Reader
	most int // groups
	once sync.Once
	list []int32
	err  error
}

// get returns the list, nil if it says that there is no order (-1 in it, or no list).
func (x *indices) get() ([]int32, error) {
	if x == nil {
		return nil, nil
	}
	x.once.Do(func() {
		data, err := x.r.Bytes(0, x.r.Info.Bytes(), nil)
		if err != nil {
			x.err = err
			return
		}
		list := make([]int32, len(data)/4)
		for i := range list {
			list[i] = int32(le.Uint32(data[4*i:]))
			if list[i] == -1 {
				return
			}
			if list[i] < 0 || int(list[i]) >= x.most {
				x.err = &tensors.FormatError{Tensor: x.r.Name, Msg: fmt.Sprintf("places column %d in group %d of %d", i, list[i], x.most), Hint: "download it again"}
				return
			}
		}
		x.list = list
	})
	return x.list, x.err
}
