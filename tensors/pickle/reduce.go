package pickle

import (
	"encoding/binary"
	"fmt"
	"math"

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
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3":
		return rebuild(g, args)
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
		if len(args) > 0 {
			if t, ok := args[0].(*Tensor); ok {
				return t, nil
			}
		}
	case "torch._tensor._rebuild_from_type_v2": // (function, class, arguments, attributes)
		if len(args) == 4 && (args[1] == global("torch.nn.parameter.Parameter") || args[1] == global("torch.Tensor")) {
			if inner, ok := args[0].(global); ok && inner != g {
				return m.reduce(inner, args[2])
			}
		}
	case "torch.Size":
		if len(args) == 1 {
			if t, ok := args[0].(Tuple); ok {
				return t, nil
			}
		}
	case "torch.device":
		if len(args) > 0 {
			if name, ok := args[0].(string); ok {
				return name, nil
			}
		}
	case "collections.OrderedDict":
		if d, err := m.ordered(args); d != nil || err != nil {
			return d, err
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
				m.copied += int64(len(text))
				return latin1(text)
			}
		}
	}
	if !calls[g] {
		return nil, bad("its pickle calls %s, which is no function", string(g))
	}
	return nil, bad("its pickle calls %s with arguments that it does not take", string(g))
}

// ordered makes an OrderedDict: an empty one, or of the pairs that Python 2 hands to it.
func (m *machine) ordered(args Tuple) (any, error) {
	d := &Dict{}
	if len(args) == 0 {
		return d, nil
	}
	pairs, ok := args[0].(*List)
	if len(args) != 1 || !ok || len(pairs.Ints) > 0 {
		return nil, nil
	}
	m.copied += 64 * int64(len(pairs.Items))
	if m.copied > maxCopied {
		return nil, bad("its pickle copies dictionaries again and again")
	}
	for _, p := range pairs.Items {
		pair, ok := p.(Tuple)
		if l, isList := p.(*List); isList {
			pair, ok = Tuple(l.Items), true
		}
		if !ok || len(pair) != 2 {
			return nil, nil
		}
		d.set(pair[0], pair[1])
	}
	return d, nil
}

// rebuild makes a tensor of (storage, offset, size, stride, ...). The third version has a storage of bytes and names the dtype: the
// seventh part.
func rebuild(function global, args Tuple) (any, error) {
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
	attributes := 6
	if function == "torch._utils._rebuild_tensor_v3" {
		attributes++
		if len(args) < 7 {
			return nil, bad("a tensor has %d parts", len(args))
		}
		name, _ := args[6].(global)
		dtype, ok := torchDTypes[name]
		if !ok {
			return nil, bad("a tensor has no dtype")
		}
		s = s.as(dtype)
	}
	if len(args) > attributes {
		if err := plainView(args[attributes]); err != nil {
			return nil, err
		}
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

// plainView refuses the tensors whose values are those of the storage with another sign: torch conjugates and negates lazily, and saves a
// flag.
func plainView(attributes any) error {
	d, ok := attributes.(*Dict)
	if !ok && attributes != nil {
		return bad("a tensor has attributes that are no dictionary")
	}
	if ok && (d.Values["conj"] == true || d.Values["neg"] == true) {
		return &tensors.FormatError{Msg: "has a tensor that is the conjugate or the negative of what is stored", Hint: "save it as tensor.resolve_conj().resolve_neg()"}
	}
	return nil
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

// number reads numpy's scalar(dtype, bytes): whole numbers, which lists of indices have, and what a training program notes beside a model,
// such as its best loss.
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
			case t.code == "f8" && len(b) == 8:
				return math.Float64frombits(binary.LittleEndian.Uint64(b)), nil
			case t.code == "f4" && len(b) == 4:
				return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), nil
			case t.code == "b1" && len(b) == 1:
				return b[0] != 0, nil
			}
			return nil, &tensors.FormatError{Msg: fmt.Sprintf("has a numpy number of the type %.20q; int64, int32, float64, float32 and bool are read", t.code), Hint: "save it as a number of Python"}
		}
	}
	return nil, bad("a numpy number is made of other things than a type and bytes")
}
