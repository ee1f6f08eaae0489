package pickle

import (
	"errors"
	"fmt"
	"io"

	"github.com/mergekit/mergekit/tensors"
)

// The values of a pickle are nil, bool, int64, float64, string, []byte, Tuple, *List, *Dict and *Tensor.

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

// Dict is a dictionary whose keys are text, in the order in which they were added.
type Dict struct {
	Keys   []string
	Values map[string]any
}

func (d *Dict) set(key string, value any) {
	if d.Values == nil {
		d.Values = map[string]any{}
	}
	if _, ok := d.Values[key]; !ok {
		d.Keys = append(d.Keys, key)
	}
	d.Values[key] = value
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

// storage is a piece of the archive.
type storage struct {
	key   string
	dtype tensors.DType
	elems int64
	open  func() (io.ReaderAt, int64, error) // the bytes, and how many
}

// Elems returns the number of elements.
func (t *Tensor) Elems() int64 { return t.elems }

// Data reads the elements, little-endian and row-major.
func (t *Tensor) Data() ([]byte, error) {
	r, size, err := t.storage.open()
	if err != nil {
		return nil, err
	}
	width := int64(t.DType.Size())
	first, last := t.extent()
	if t.elems == 0 {
		return []byte{}, nil
	}
	if last >= size/width {
		return nil, bad("a tensor reaches to element %d of storage %q, which has %d", last, t.storage.key, size/width)
	}
	raw := make([]byte, (last-first+1)*width)
	if _, err := r.ReadAt(raw, first*width); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if t.contiguous() {
		return raw, nil
	}
	out := make([]byte, t.elems*width)
	at := make([]int, len(t.Shape))
	for i := range t.elems {
		from := int64(0)
		for k, c := range at {
			from += int64(c) * t.stride[k]
		}
		copy(out[i*width:(i+1)*width], raw[from*width:])
		for k := len(at) - 1; k >= 0; k-- {
			if at[k]++; at[k] < t.Shape[k] {
				break
			}
			at[k] = 0
		}
	}
	return out, nil
}

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
		return bad("a tensor has the impossible shape %v with strides %v", t.Shape, t.stride)
	}
	// More elements than the storage has are one element seen many times, which nothing that is saved on purpose needs.
	if t.elems > t.storage.elems {
		return bad("a tensor of shape %v has more elements than its storage, %d", t.Shape, t.storage.elems)
	}
	last := t.offset
	for k, n := range t.Shape {
		if t.stride[k] < 0 || t.stride[k] > t.storage.elems && n > 1 {
			return bad("a tensor of shape %v has the impossible strides %v", t.Shape, t.stride)
		}
		last += int64(max(n-1, 0)) * min(t.stride[k], t.storage.elems) // each factor is below 2^40 where the file is real
		if last < 0 || last > 1<<50 {
			return bad("a tensor of shape %v with strides %v lies outside of its storage", t.Shape, t.stride)
		}
	}
	if t.elems > 0 && last >= t.storage.elems {
		return bad("a tensor of shape %v with strides %v lies outside of its storage of %d elements", t.Shape, t.stride, t.storage.elems)
	}
	return nil
}

const damaged = "download it again, or save it again with torch"

func bad(format string, args ...any) *tensors.FormatError {
	return &tensors.FormatError{Msg: "is damaged: " + fmt.Sprintf(format, args...), Hint: damaged}
}
