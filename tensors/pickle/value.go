package pickle

import (
	"errors"
	"fmt"

	"github.com/mergekit/mergekit/tensors"
)

// The values of a pickle are nil, bool, int64, Large, float64, string, []byte, Tuple, *List, *Dict and *Tensor.

// Large is a whole number beyond int64, such as the state of a random generator: its bytes, the lowest first, in two's complement.
type Large []byte

// Tuple is a tuple, or a torch.Size.
type Tuple []any

// List is a list. One that holds nothing but integers, which may be millions, keeps them in Ints, and Items is nil.
type List struct {
	Ints  []int64
	Items []any
}

// Len returns the number of items.
func (l *List) Len() int { return max(len(l.Ints), len(l.Items)) }

func (l *List) add(values []any) {
	for _, v := range values {
		n, whole := v.(int64)
		if whole && l.Items == nil {
			l.Ints = append(l.Ints, n)
			continue
		}
		for _, n := range l.Ints {
			l.Items = append(l.Items, n)
		}
		l.Ints = nil
		l.Items = append(l.Items, v)
	}
}

// Dict is a dictionary: the entries whose keys are text, in the order in which they were added. Others name no tensor and are counted.
type Dict struct {
	Keys   []string
	Values map[string]any
	Rest   int // entries whose keys are no text
}

func (d *Dict) set(key, value any) {
	name, ok := key.(string)
	if !ok {
		d.Rest++
		return
	}
	if d.Values == nil {
		d.Values = map[string]any{}
	}
	if _, ok := d.Values[name]; !ok {
		d.Keys = append(d.Keys, name)
	}
	d.Values[name] = value
}

// Tensor is a tensor whose bytes are still in the file.
type Tensor struct {
	DType tensors.DType
	Shape []int

	storage *storage
	offset  int64 // in elements
	stride  []int64
	elems   int64
}

// storage is a run of elements of the file.
type storage struct {
	key   string
	dtype tensors.DType
	elems int64
	from  content
	off   int64 // of the first byte
	// bytesOf is the storage that this one is another reading of.
	bytesOf *storage
}

// as is the storage with its bytes counted as elements of another dtype. Where it lies is known later in old files, so it asks the first.
func (s *storage) as(dtype tensors.DType) *storage {
	whole := s
	if s.bytesOf != nil {
		whole = s.bytesOf
	}
	return &storage{key: s.key, dtype: dtype, elems: s.elems * int64(s.dtype.Size()) / int64(dtype.Size()), from: s.from, bytesOf: whole}
}

// begin is the place of the first byte in the file.
func (s *storage) begin() int64 {
	if s.bytesOf != nil {
		return s.bytesOf.off
	}
	return s.off
}

// Elems returns the number of elements.
func (t *Tensor) Elems() int64 { return t.elems }

// Data reads the elements, little-endian and row-major.
func (t *Tensor) Data() ([]byte, error) {
	out := make([]byte, t.elems*int64(t.DType.Size()))
	return out, t.ReadAt(out, 0)
}

// ReadAt reads elements, little-endian and row-major, from byte off of them on; both ends are borders of elements. With WillNeed and
// Release it makes a tensors.Source of the tensor.
func (t *Tensor) ReadAt(dst []byte, off int64) error {
	if len(dst) == 0 {
		return nil
	}
	width := int64(t.DType.Size())
	if t.contiguous() {
		raw, err := t.storage.from.bytes(t.begin()+off, int64(len(dst)))
		copy(dst, raw)
		return err
	}
	first, last := t.extent()
	raw, err := t.storage.from.bytes(t.begin(), (last-first+1)*width)
	if err != nil {
		return err
	}
	t.gather(dst, raw, off/width)
	return nil
}

// begin is the place of the first element in the file.
func (t *Tensor) begin() int64 { return t.storage.begin() + t.offset*int64(t.DType.Size()) }

// gather copies elements from elem on; raw begins at the tensor's first. It goes along the last axis, and counts on the others.
func (t *Tensor) gather(dst, raw []byte, elem int64) {
	width := int64(t.DType.Size())
	inner := len(t.Shape) - 1
	at := make([]int64, len(t.Shape))
	for k := inner; k >= 0; k-- {
		at[k] = elem % int64(t.Shape[k])
		elem /= int64(t.Shape[k])
	}
	step := t.stride[inner] * width
	for len(dst) > 0 {
		from := int64(0)
		for k, c := range at {
			from += c * t.stride[k] * width
		}
		n := min(int64(t.Shape[inner])-at[inner], int64(len(dst))/width)
		if step == width {
			copy(dst[:n*width], raw[from:])
		} else {
			for i := range n {
				copy(dst[i*width:(i+1)*width], raw[from+i*step:])
			}
		}
		dst = dst[n*width:]
		at[inner] = 0
		for k := inner - 1; k >= 0; k-- {
			if at[k]++; at[k] < int64(t.Shape[k]) {
				break
			}
			at[k] = 0
		}
	}
}

// WillNeed does nothing: what is gathered lies anywhere in the storage.
func (t *Tensor) WillNeed(int64, int64) {}

// Release does nothing, for the same reason.
func (t *Tensor) Release(int64, int64) {}

// extent is the first and last element of the storage that the tensor has; strides are not negative.
func (t *Tensor) extent() (first, last int64) {
	first, last = t.offset, t.offset
	for k, n := range t.Shape {
		last += int64(max(n-1, 0)) * t.stride[k]
	}
	return first, last
}

func (t *Tensor) contiguous() bool {
	step := int64(1)
	for k := len(t.Shape) - 1; k >= 0; k-- {
		if t.Shape[k] != 1 && t.stride[k] != step {
			return false
		}
		step *= int64(t.Shape[k])
	}
	return true
}

// check sees that a tensor lies in its storage. The file may claim anything, so that products are made with care.
func (t *Tensor) check() error {
	t.elems = tensors.Info{Shape: t.Shape}.Elems()
	if len(t.Shape) != len(t.stride) || len(t.Shape) > 64 || t.elems < 0 || t.offset < 0 {
		const most = 8 // dimensions in the message
		return bad("a tensor has the impossible shape %v... with %d dimensions and %d strides", t.Shape[:min(most, len(t.Shape))], len(t.Shape), len(t.stride))
	}
	// More elements than the storage has are one element seen many times: few bytes could make an output of any size.
	if t.elems > t.storage.elems {
		return &tensors.FormatError{Msg: fmt.Sprintf("has a tensor of shape %v with more elements than its storage, %d: one that Tensor.expand made, or a damaged one", t.Shape, t.storage.elems),
			Hint: "save it as tensor.contiguous()"}
	}
	if t.elems == 0 {
		return nil
	}
	last := t.offset
	for k, n := range t.Shape {
		if t.stride[k] < 0 || t.stride[k] > t.storage.elems && n > 1 {
			return bad("a tensor of shape %v has the impossible strides %v", t.Shape, t.stride)
		}
		last += int64(n-1) * min(t.stride[k], t.storage.elems) // each factor is below 2^40 where the file is real
		if last < 0 || last > 1<<50 {
			return bad("a tensor of shape %v with strides %v lies outside of its storage", t.Shape, t.stride)
		}
	}
	if last >= t.storage.elems {
		return bad("a tensor of shape %v with strides %v lies outside of its storage of %d elements", t.Shape, t.stride, t.storage.elems)
	}
	return nil
}

const damaged = "download it again, or save it again with torch"

func bad(format string, args ...any) *tensors.FormatError {
	return &tensors.FormatError{Msg: "is damaged: " + fmt.Sprintf(format, args...), Hint: damaged}
}

// errShort is in errors about a program that goes on beyond what was read of it.
var errShort = errors.New("the program goes on")

func short(format string, args ...any) *tensors.FormatError {
	e := bad(format, args...)
	e.Err = errShort
	return e
}
