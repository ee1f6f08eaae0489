package gguf

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// Bounds on headers. The largest real ones, with vocabularies of a quarter of a million tokens, take some 20 MB.
const (
	maxHeaderBytes = 256 << 20
	maxNameBytes   = 1 << 16
	maxDims        = 8
	maxAlignment   = 1 << 20
)

// header is what parseHeader finds before the data.
type header struct {
	version uint32
	keys    []string
	meta    map[string]value
	tensors []Tensor
	data    int64 // where tensor data begin
}

// parser reads a header forward. Nothing is allocated by a length that the rest of the file could not hold.
type parser struct {
	file string
	r    *bufio.Reader
	at   int64 // bytes read
	end  int64 // the file's size, or the bound on headers
	size int64 // the file's size
	buf  [8]byte
}

func (p *parser) fail(format string, args ...any) error {
	return &tensors.FormatError{File: p.file, Msg: fmt.Sprintf(format, args...), Hint: "download or convert it again"}
}

// need checks that n more bytes exist, in the file and within the bound on headers.
func (p *parser) need(n uint64, what string) error {
	if n <= uint64(p.end-p.at) {
		return nil
	}
	if p.end < p.size {
		return p.fail("%s of %d bytes at byte %d goes beyond %d bytes of header", what, n, p.at, int64(maxHeaderBytes))
	}
	return p.fail("%s of %d bytes at byte %d goes beyond the end of the file at %d", what, n, p.at, p.size)
}

func (p *parser) fill(b []byte, what string) error {
	k, err := io.ReadFull(p.r, b)
	p.at += int64(k)
	if err != nil {
		return fmt.Errorf("%s: %s at byte %d: %w", p.file, what, p.at, err)
	}
	return nil
}

func (p *parser) bytes(n uint64, what string) ([]byte, error) {
	if err := p.need(n, what); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	return b, p.fill(b, what)
}

func (p *parser) u32(what string) (uint32, error) {
	if err := p.need(4, what); err != nil {
		return 0, err
	}
	err := p.fill(p.buf[:4], what)
	return le.Uint32(p.buf[:]), err
}

func (p *parser) u64(what string) (uint64, error) {
	if err := p.need(8, what); err != nil {
		return 0, err
	}
	err := p.fill(p.buf[:8], what)
	return le.Uint64(p.buf[:]), err
}

func (p *parser) text(limit uint64, what string) (string, error) {
	n, err := p.u64("length of " + what)
	if err != nil {
		return "", err
	}
	if n > limit {
		return "", p.fail("%s of %d bytes before byte %d is too long", what, n, p.at)
	}
	b, err := p.bytes(n, what)
	return string(b), err
}

// parseHeader reads magic, version, metadata and the tensor table, and checks the table against the file's size.
func parseHeader(file string, r io.Reader, size int64) (*header, error) {
	p := &parser{file: file, r: bufio.NewReaderSize(r, 1<<16), end: min(size, maxHeaderBytes), size: size}
	magic, err := p.bytes(4, "magic number")
	if err != nil {
		return nil, err
	}
	if string(magic) != "GGUF" {
		return nil, &tensors.FormatError{File: file, Msg: fmt.Sprintf("begins with %q, not with GGUF", magic), Hint: "is it a GGUF file?"}
	}
	h := &header{meta: map[string]value{}}
	if h.version, err = p.u32("version"); err != nil {
		return nil, err
	}
	switch {
	case h.version&0xffff == 0 && h.version != 0:
		return nil, &tensors.FormatError{File: file, Msg: "is a big-endian GGUF file", Hint: "convert it to little-endian first (gguf-convert-endian of the gguf package)"}
	case h.version == 1:
		return nil, &tensors.FormatError{File: file, Msg: "is GGUF version 1", Hint: "versions 2 and 3 are read; convert the original model with a current llama.cpp"}
	case h.version != 2 && h.version != 3:
		return nil, &tensors.FormatError{File: file, Msg: fmt.Sprintf("is GGUF version %d", h.version), Hint: "versions 2 and 3 are read"}
	}
	count, err := p.u64("tensor count")
	if err != nil {
		return nil, err
	}
	pairs, err := p.u64("metadata count")
	if err != nil {
		return nil, err
	}
	// The smallest pair takes 13 bytes, the smallest tensor 24: counts that cannot fit end here, before any loop.
	if left := uint64(p.end - p.at); pairs > left/13 || count > left/24 {
		return nil, p.fail("%d tensors and %d metadata keys cannot fit in a file of %d bytes", count, pairs, size)
	}
	for range pairs {
		if err := p.pair(h); err != nil {
			return nil, err
		}
	}
	align := int64(32)
	if v, ok := h.meta["general.alignment"]; ok {
		if v.array || v.kind != kindUint32 {
			return nil, p.fail("general.alignment is %s, not uint32", v.kind)
		}
		align, _ = v.integer(0)
		if align < 1 || align > maxAlignment || align&(align-1) != 0 {
			return nil, p.fail("general.alignment is %d; a power of two up to %d is possible", align, maxAlignment)
		}
	}
	for range count {
		t, err := p.tensor(align)
		if err != nil {
			return nil, err
		}
		h.tensors = append(h.tensors, t)
	}
	h.data = (p.at + align - 1) / align * align
	return h, p.place(h)
}

// pair reads one metadata key with its value.
func (p *parser) pair(h *header) error {
	key, err := p.text(maxNameBytes, "metadata key")
	if err != nil {
		return err
	}
	if _, twice := h.meta[key]; twice {
		return p.fail("metadata key %q appears twice", key)
	}
	k, err := p.u32("kind of " + key)
	if err != nil {
		return err
	}
	v, err := p.value(kind(k), key)
	if err != nil {
		return err
	}
	h.keys = append(h.keys, key)
	h.meta[key] = v
	return nil
}

func (p *parser) value(k kind, key string) (v value, err error) {
	v.kind = k
	n := uint64(1)
	if k == kindArray {
		inner, err := p.u32("element kind of " + key)
		if err != nil {
			return v, err
		}
		v.kind, v.array = kind(inner), true
		if n, err = p.u64("length of " + key); err != nil {
			return v, err
		}
	}
	switch size := v.kind.bytes(); {
	case size > 0:
		if n > math.MaxInt64/8 {
			return v, p.fail("metadata key %q claims %d elements", key, n)
		}
		v.raw, err = p.bytes(n*uint64(size), "value of "+key)
	case v.kind == kindString:
		if n > uint64(p.end-p.at)/8 { // each string has a length of 8 bytes at least
			return v, p.fail("metadata key %q claims %d strings, more than the file could hold", key, n)
		}
		for range n {
			s, err := p.text(maxHeaderBytes, "text in "+key)
			if err != nil {
				return v, err
			}
			v.strings = append(v.strings, s)
		}
	case v.kind == kindArray:
		err = p.fail("metadata key %q is an array of arrays, which this program does not read", key)
	default:
		err = p.fail("metadata key %q has an unknown kind %d", key, uint32(v.kind))
	}
	return v, err
}

// tensor reads one entry of the tensor table. Offset is still relative to the data.
func (p *parser) tensor(align int64) (t Tensor, err error) {
	if t.Name, err = p.text(maxNameBytes, "tensor name"); err != nil {
		return t, err
	}
	fail := func(format string, args ...any) error {
		return &tensors.FormatError{File: p.file, Tensor: t.Name, Msg: fmt.Sprintf(format, args...), Hint: "download or convert it again"}
	}
	dims, err := p.u32("dimensions of " + t.Name)
	if err != nil {
		return t, err
	}
	if dims > maxDims {
		return t, fail("has %d dimensions; at most %d are possible", dims, maxDims)
	}
	t.Shape = make([]int, dims)
	elems := int64(1)
	for i := range t.Shape {
		n, err := p.u64("shape of " + t.Name)
		if err != nil {
			return t, err
		}
		if n > min(math.MaxInt64/16, math.MaxInt) || n != 0 && elems > math.MaxInt64/16/int64(n) {
			return t, fail("has more elements than a file can hold")
		}
		elems *= int64(n)
		t.Shape[len(t.Shape)-1-i] = int(n)
	}
	k, err := p.u32("type of " + t.Name)
	if err != nil {
		return t, err
	}
	t.Type = Type(k)
	if t.Type.BlockElems() == 0 {
		return t, fail("has the unknown storage type %d", k)
	}
	if row := t.rowElems(); row%int64(t.Type.BlockElems()) != 0 {
		return t, fail("has rows of %d elements, which %s blocks of %d do not fill", row, t.Type, t.Type.BlockElems())
	}
	offset, err := p.u64("offset of " + t.Name)
	if err != nil {
		return t, err
	}
	if offset > math.MaxInt64/2 || int64(offset)%align != 0 {
		return t, fail("begins at byte %d of the data, not at a multiple of %d", offset, align)
	}
	t.offset = int64(offset)
	return t, nil
}

// place makes offsets absolute and checks that every tensor lies in the file, and that no two share bytes or a name.
func (p *parser) place(h *header) error {
	seen := make(map[string]bool, len(h.tensors))
	for i := range h.tensors {
		t := &h.tensors[i]
		if seen[t.Name] {
			return &tensors.FormatError{File: p.file, Tensor: t.Name, Msg: "appears twice", Hint: "download or convert it again"}
		}
		seen[t.Name] = true
		if t.offset > p.size-h.data || t.Bytes() > p.size-h.data-t.offset {
			return &tensors.FormatError{File: p.file, Tensor: t.Name, Hint: "it is truncated; download it again",
				Msg: fmt.Sprintf("needs bytes up to %d, file has %d", h.data+t.offset+t.Bytes(), p.size)}
		}
		t.offset += h.data
	}
	order := make([]*Tensor, len(h.tensors))
	for i := range order {
		order[i] = &h.tensors[i]
	}
	slices.SortStableFunc(order, func(a, b *Tensor) int { return int(min(1, max(-1, a.offset-b.offset))) })
	for i := 1; i < len(order); i++ {
		if a, b := order[i-1], order[i]; a.offset+a.Bytes() > b.offset {
			return &tensors.FormatError{File: p.file, Tensor: b.Name, Msg: "overlaps " + a.Name, Hint: "download or convert it again"}
		}
	}
	return nil
}
