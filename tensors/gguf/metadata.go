package gguf

import (
	"fmt"
	"math"
	"slices"
)

// kind is the type of a metadata value, with GGUF's numbers.
type kind uint32

const (
	kindUint8 kind = iota
	kindInt8
	kindUint16
	kindInt16
	kindUint32
	kindInt32
	kindFloat32
	kindBool
	kindString
	kindArray
	kindUint64
	kindInt64
	kindFloat64
)

// kindBytes is the size of a scalar; 0 for strings, arrays and unknown kinds.
func (k kind) bytes() int {
	switch k {
	case kindUint8, kindInt8, kindBool:
		return 1
	case kindUint16, kindInt16:
		return 2
	case kindUint32, kindInt32, kindFloat32:
		return 4
	case kindUint64, kindInt64, kindFloat64:
		return 8
	}
	return 0
}

func (k kind) String() string {
	names := [...]string{"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string", "array", "uint64", "int64", "float64"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint32(k))
}

// value is one metadata value. Numbers, alone or in an array, stay the little-endian bytes of the file.
type value struct {
	kind    kind // of the value, or of an array's elements
	array   bool
	raw     []byte
	strings []string
}

// len is the number of elements of an array, 1 for a scalar.
func (v value) len() int {
	if v.kind == kindString {
		return len(v.strings)
	}
	return len(v.raw) / v.kind.bytes()
}

// integer reads element i of an integer or bool value; ok is false for other kinds and for what int64 cannot hold.
func (v value) integer(i int) (n int64, ok bool) {
	b := v.raw
	switch v.kind {
	case kindUint8, kindBool:
		return int64(b[i]), true
	case kindInt8:
		return int64(int8(b[i])), true
	case kindUint16:
		return int64(le.Uint16(b[2*i:])), true
	case kindInt16:
		return int64(int16(le.Uint16(b[2*i:]))), true
	case kindUint32:
		return int64(le.Uint32(b[4*i:])), true
	case kindInt32:
		return int64(int32(le.Uint32(b[4*i:]))), true
	case kindUint64:
		u := le.Uint64(b[8*i:])
		return int64(u), u <= math.MaxInt64
	case kindInt64:
		return int64(le.Uint64(b[8*i:])), true
	}
	return 0, false
}

// float reads element i of a number.
func (v value) float(i int) (f float64, ok bool) {
	switch v.kind {
	case kindFloat32:
		return float64(math.Float32frombits(le.Uint32(v.raw[4*i:]))), true
	case kindFloat64:
		return math.Float64frombits(le.Uint64(v.raw[8*i:])), true
	case kindBool, kindString:
		return 0, false
	}
	n, ok := v.integer(i)
	return float64(n), ok
}

// Keys lists the metadata keys in file order.
func (f *File) Keys() []string { return slices.Clone(f.keys) }

// Has reports whether a metadata key is there.
func (f *File) Has(key string) bool { _, ok := f.meta[key]; return ok }

// Kind says what is stored under a key: "uint32", "string", "array of float32", or "" if the key is not there.
func (f *File) Kind(key string) string {
	v, ok := f.meta[key]
	switch {
	case !ok:
		return ""
	case v.array:
		return "array of " + v.kind.String()
	}
	return v.kind.String()
}

// Int reads an integer of any width; ok is false if the key is absent or holds something else.
func (f *File) Int(key string) (n int64, ok bool) {
	v, there := f.meta[key]
	if !there || v.array || v.kind == kindBool {
		return 0, false
	}
	return v.integer(0)
}

// Float reads a number; integers are converted. ok is false if the key is absent or holds something else.
func (f *File) Float(key string) (x float64, ok bool) {
	v, there := f.meta[key]
	if !there || v.array {
		return 0, false
	}
	return v.float(0)
}

// Bool reads a truth value; ok is false if the key is absent or holds something else.
func (f *File) Bool(key string) (b, ok bool) {
	v, there := f.meta[key]
	if !there || v.array || v.kind != kindBool {
		return false, false
	}
	return v.raw[0] != 0, true
}

// Text reads a string; ok is false if the key is absent or holds something else.
func (f *File) Text(key string) (s string, ok bool) {
	v, there := f.meta[key]
	if !there || v.array || v.kind != kindString {
		return "", false
	}
	return v.strings[0], true
}

// Texts reads an array of strings; ok is false if the key is absent or holds something else. The slice is the file's own
// and must not be changed.
func (f *File) Texts(key string) (s []string, ok bool) {
	v, there := f.meta[key]
	if !there || !v.array || v.kind != kindString {
		return nil, false
	}
	return v.strings, true
}

// Ints reads an array of integers or bools of any width; ok is false if the key is absent or holds something else.
func (f *File) Ints(key string) (n []int64, ok bool) {
	v, there := f.meta[key]
	if !there || !v.array || v.kind == kindString {
		return nil, false
	}
	n = make([]int64, v.len())
	for i := range n {
		if n[i], ok = v.integer(i); !ok {
			return nil, false
		}
	}
	return n, true
}

// Floats reads an array of numbers; ok is false if the key is absent or holds something else.
func (f *File) Floats(key string) (x []float64, ok bool) {
	v, there := f.meta[key]
	if !there || !v.array || v.kind == kindString {
		return nil, false
	}
	x = make([]float64, v.len())
	for i := range x {
		if x[i], ok = v.float(i); !ok {
			return nil, false
		}
	}
	return x, true
}
