package pickle

import (
	"encoding/binary"

	"github.com/mergekit/mergekit/tensors"
)

// reduce does what the call of a known name would.
func (m *machine) reduce(f, arguments any) (any, error) {
	g, ok1 := f.(global)
	args, ok2 := arguments.(Tuple)
	if !ok1 || !ok2 {
		return nil, bad("its pickle calls something that is no name")
	}
	switch g {
	case "torch._utils._rebuild_tensor_v2":
		return rebuild(args)
	case "torch._utils._rebuild_parameter":
		if len(args) > 0 {
			if t, ok := args[0].(*Tensor); ok {
				return t, nil
			}
		}
	case "torch.Size":
		if len(args) == 1 {
			if t, ok := args[0].(Tuple); ok {
				return t, nil
			}
		}
	case "collections.OrderedDict":
		if len(args) == 0 {
			return &Dict{}, nil
		}
	case "numpy.dtype":
		if len(args) > 0 {
			if code, ok := args[0].(string); ok {
				return &numpyType{code}, nil
			}
		}
	case "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar":
		return number(args)
	case "_codecs.encode": // how protocol 2 writes bytes: as text whose characters are the bytes
		if len(args) == 2 && args[1] == "latin1" {
			if text, ok := args[0].(string); ok {
				return latin1(text)
			}
		}
	}
	return nil, bad("its pickle calls %s with arguments that it does not take", string(g))
}

// rebuild makes a tensor of (storage, offset, size, stride, ...).
func rebuild(args Tuple) (any, error) {
	if len(args) < 4 {
		return nil, bad("a tensor has %d parts", len(args))
	}
	s, ok1 := args[0].(*storage)
	offset, ok2 := args[1].(int64)
	size, ok3 := whole(args[2])
	stride, ok4 := whole(args[3])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, bad("a tensor is made of other things than storage, offset, size and stride")
	}
	t := &Tensor{DType: s.dtype, storage: s, offset: offset, stride: stride, Shape: make([]int, len(size))}
	for i, n := range size {
		if n < 0 || int64(int(n)) != n {
			return nil, bad("a tensor has the size %d", n)
		}
		t.Shape[i] = int(n)
	}
	return t, t.check()
}

// whole reads a tuple of whole numbers.
func whole(v any) ([]int64, bool) {
	t, ok := v.(Tuple)
	list := make([]int64, len(t))
	for i, x := range t {
		n, isInt := x.(int64)
		ok, list[i] = ok && isInt, n
	}
	return list, ok
}

// latin1 turns characters into bytes.
func latin1(text string) ([]byte, error) {
	out := make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xff {
			return nil, bad("bytes are written as text with the character %U", r)
		}
		out = append(out, byte(r))
	}
	return out, nil
}

// number reads numpy's scalar(dtype, bytes): whole numbers, which lists of indices have.
func number(args Tuple) (any, error) {
	if len(args) == 2 {
		t, ok1 := args[0].(*numpyType)
		b, ok2 := args[1].([]byte)
		if ok1 && ok2 {
			switch {
			case t.code == "i8" && len(b) == 8:
				return int64(binary.LittleEndian.Uint64(b)), nil
			case t.code == "i4" && len(b) == 4:
				return int64(int32(binary.LittleEndian.Uint32(b))), nil
			}
			return nil, &tensors.FormatError{Msg: "has a numpy number that is no int64 or int32", Hint: "save it as a tensor"}
		}
	}
	return nil, bad("a numpy number is made of other things than a type and bytes")
}
