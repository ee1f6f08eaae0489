package tensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// maxHeader is the safetensors reference's bound on a header's JSON, in bytes.
const maxHeader = 100_000_000

// maxRank is more dimensions than any tensor library has.
const maxRank = 64

const metadataKey = "__metadata__"

// header is what a safetensors file says about itself: 8 bytes with the length of the JSON, the JSON, the data.
type header struct {
	size     int64 // bytes before the data
	data     int64 // bytes of data that the tensors need
	metadata map[string]string
	tensors  []entry // by position in the file
}

// entry is a tensor of a file; begin and end count from the start of the data.
type entry struct {
	Info
	begin, end int64
}

// readHeader reads and checks the header of a file of size bytes. It allocates no more than the file is long, whatever the
// header claims. Errors are *FormatError without File, or come from r.
func readHeader(r io.ReaderAt, size int64) (*header, error) {
	raw, err := rawHeader(r, size)
	if err != nil {
		return nil, err
	}
	h, err := parseHeader(raw[8:])
	if err != nil {
		return nil, err
	}
	// Unsigned, because offsets may reach 2^63-1 and the header comes on top.
	switch promised := uint64(h.size) + uint64(h.data); {
	case promised > uint64(size):
		return nil, &FormatError{Msg: fmt.Sprintf("is truncated: header promises %s bytes, file has %s", groupUnsigned(promised), group(size)), Hint: downloadAgain}
	case promised < uint64(size):
		return nil, &FormatError{Msg: fmt.Sprintf("is damaged: header promises %s bytes, file has %s", groupUnsigned(promised), group(size)), Hint: downloadAgain}
	}
	return h, nil
}

const downloadAgain = "download it again"

// rawHeader reads the length and the JSON of a header.
func rawHeader(r io.ReaderAt, size int64) ([]byte, error) {
	var first [8]byte
	if size < int64(len(first)) {
		return nil, &FormatError{Msg: fmt.Sprintf("is no safetensors file: it has %s bytes, the header's length alone takes 8", group(size)), Hint: downloadAgain}
	}
	if _, err := r.ReadAt(first[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(first[:])
	switch {
	case n > maxHeader:
		return nil, notSafetensors(first[:])
	case int64(n) > size-8:
		return nil, &FormatError{Msg: fmt.Sprintf("is truncated: its header alone has %s bytes, file has %s", group(int64(n)+8), group(size)), Hint: downloadAgain}
	}
	raw := make([]byte, 8+n)
	if _, err := r.ReadAt(raw, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return raw, nil
}

// notSafetensors explains a file whose first bytes are no possible header length by what they are instead.
func notSafetensors(first []byte) error {
	switch {
	case bytes.HasPrefix(first, []byte("GGUF")):
		return &FormatError{Msg: "is a GGUF file, not safetensors", Hint: "convert it first: mergekit convert FILE DIRECTORY"}
	case string(first) == "version ": // "version https://git-lfs..."
		return &FormatError{Msg: "is a Git LFS pointer, not the file itself", Hint: "fetch it with git lfs pull"}
	case bytes.HasPrefix(first, []byte("PK\x03\x04")), bytes.HasPrefix(first, []byte{0x80, 2}):
		return &FormatError{Msg: "is a PyTorch pickle, not safetensors", Hint: "convert it to safetensors first"}
	}
	n := binary.LittleEndian.Uint64(first)
	return &FormatError{Msg: fmt.Sprintf("is no safetensors file: it claims a header of %s bytes, at most %s are allowed", groupUnsigned(n), group(maxHeader)), Hint: downloadAgain}
}

// parseHeader reads a header's JSON and checks everything that needs no file: known dtypes, shapes that fit their bytes,
// tensors that follow one another without gap or overlap.
func parseHeader(data []byte) (*header, error) {
	h := &header{size: 8 + int64(len(data))}
	bad := func(err error) error {
		return &FormatError{Msg: "is damaged: its header " + err.Error(), Hint: downloadAgain}
	}
	s, err := newScanner(data)
	if err != nil {
		return nil, bad(err)
	}
	if len(data) == 0 || data[0] != '{' {
		return nil, bad(fmt.Errorf("does not begin with '{'"))
	}
	seen := map[string]struct{}{}
	var inTensor *FormatError
	err = s.object(func(key string) error {
		if _, twice := seen[key]; twice {
			inTensor = &FormatError{Tensor: key, Msg: "is in the header twice", Hint: downloadAgain}
			return inTensor
		}
		seen[key] = struct{}{}
		if key == metadataKey {
			return h.readMetadata(s)
		}
		e, err := readEntry(s, key)
		if err != nil {
			return err
		}
		h.tensors = append(h.tensors, e)
		return nil
	})
	if inTensor != nil {
		return nil, inTensor
	}
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return nil, bad(err)
	}
	if err := h.arrange(); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *header) readMetadata(s *scanner) error {
	if s.null() {
		return nil
	}
	h.metadata = map[string]string{}
	return s.object(func(key string) error {
		if _, twice := h.metadata[key]; twice {
			return fmt.Errorf("has the metadata key %s twice", show(key))
		}
		value, err := s.str()
		h.metadata[key] = value
		return err
	})
}

// readEntry reads {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}. Unknown keys are skipped, as the reference does.
func readEntry(s *scanner, name string) (entry, error) {
	e := entry{Info: Info{Name: name, Shape: []int{}}}
	const dtype, shape, offsets = 1, 2, 4
	have := 0
	err := s.object(func(key string) error {
		part := 0
		switch key {
		case "dtype":
			part = dtype
		case "shape":
			part = shape
		case "data_offsets":
			part = offsets
		}
		if have&part != 0 {
			return fmt.Errorf("has %s of %s twice", key, show(name))
		}
		have |= part
		switch part {
		case dtype:
			text, err := s.str()
			if err != nil {
				return err
			}
			if e.DType, err = ParseDType(text); err != nil {
				return fmt.Errorf("gives %s an %w", show(name), err)
			}
		case shape:
			return s.array(func() error {
				d, err := s.whole()
				if err != nil {
					return err
				}
				if int64(int(d)) != d || len(e.Shape) == maxRank {
					return fmt.Errorf("gives %s an impossible shape", show(name))
				}
				e.Shape = append(e.Shape, int(d))
				return nil
			})
		case offsets:
			var at []int64
			err := s.array(func() error {
				n, err := s.whole()
				if at = append(at, n); err == nil && len(at) > 2 {
					err = fmt.Errorf("has data_offsets of %s that are not two numbers", show(name))
				}
				return err
			})
			if err == nil && len(at) != 2 {
				err = fmt.Errorf("has data_offsets of %s that are not two numbers", show(name))
			}
			if err != nil {
				return err
			}
			e.begin, e.end = at[0], at[1]
		default:
			return s.skip(0)
		}
		return nil
	})
	if err == nil && have != dtype|shape|offsets {
		err = fmt.Errorf("lacks dtype, shape or data_offsets of %s", show(name))
	}
	return e, err
}

// arrange sorts the tensors by position and checks that each begins where the one before it ends.
func (h *header) arrange() error {
	slices.SortStableFunc(h.tensors, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	before := "the start of the data"
	for i := range h.tensors {
		e := &h.tensors[i]
		bad := func(format string, args ...any) error {
			return &FormatError{Tensor: e.Name, Msg: fmt.Sprintf(format, args...), Hint: "the file is damaged; " + downloadAgain}
		}
		need, err := e.bytes()
		switch {
		case err != nil:
			return bad("%s", err)
		case e.end < e.begin:
			return bad("ends at byte %s, before it begins at %s", group(e.end), group(e.begin))
		case e.begin < h.data:
			return bad("overlaps %s: it begins at byte %s of the data, which is used up to %s", before, group(e.begin), group(h.data))
		case e.begin > h.data:
			return bad("begins at byte %s of the data, but %s ends at %s", group(e.begin), before, group(h.data))
		case e.end-e.begin != need:
			return bad("of shape %v and dtype %s needs %s bytes, its data_offsets span %s", e.Shape, e.DType, group(need), group(e.end-e.begin))
		}
		h.data, before = e.end, show(e.Name)
	}
	return nil
}
