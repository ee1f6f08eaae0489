package pickle

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mergekit/mergekit/tensors"
)

// global is a name that a pickle refers to.
type global string

// mark separates the items of a tuple, list or dictionary on the stack from what lies below.
type mark struct{}

// numpyType is numpy.dtype(code, ...).
type numpyType struct{ code string }

// machine carries out a pickle.
type machine struct {
	data     []byte
	at       int
	stack    []any
	memo     map[uint32]any
	made     int   // values that take memory of their own
	copied   int64 // bytes that calls have made of values that may be used again and again
	storages func(key string, dtype tensors.DType, elems int64) (*storage, error)
}

// untyped is the storage of bytes whose dtype the tensor says.
const untyped = global("torch.storage.UntypedStorage")

// storageTypes are the names of storages by dtype. torch writes them for any device under the module torch, and did for GPUs under
// torch.cuda.
var storageTypes = map[global]tensors.DType{
	"torch.FloatStorage": tensors.F32, "torch.DoubleStorage": tensors.F64, "torch.HalfStorage": tensors.F16, "torch.BFloat16Storage": tensors.BF16,
	"torch.LongStorage": tensors.I64, "torch.IntStorage": tensors.I32, "torch.ShortStorage": tensors.I16, "torch.CharStorage": tensors.I8,
	"torch.ByteStorage": tensors.U8, "torch.BoolStorage": tensors.Bool, "torch.ComplexFloatStorage": tensors.C64, untyped: tensors.U8,
}

// torchDTypes are the dtypes that a tensor on an untyped storage names, and any dictionary may hold.
var torchDTypes = map[global]tensors.DType{
	"torch.float32": tensors.F32, "torch.float64": tensors.F64, "torch.float16": tensors.F16, "torch.bfloat16": tensors.BF16,
	"torch.float8_e4m3fn": tensors.F8E4M3, "torch.float8_e5m2": tensors.F8E5M2, "torch.float8_e8m0fnu": tensors.F8E8M0,
	"torch.float8_e4m3fnuz": tensors.F8E4M3FNUZ, "torch.float8_e5m2fnuz": tensors.F8E5M2FNUZ,
	"torch.int64": tensors.I64, "torch.int32": tensors.I32, "torch.int16": tensors.I16, "torch.int8": tensors.I8,
	"torch.uint64": tensors.U64, "torch.uint32": tensors.U32, "torch.uint16": tensors.U16, "torch.uint8": tensors.U8,
	"torch.bool": tensors.Bool, "torch.complex64": tensors.C64,
}

// calls are the functions of Python that may be called: reduce does what they would do.
var calls = map[global]bool{
	"torch._utils._rebuild_tensor": true, "torch._utils._rebuild_tensor_v2": true, "torch._utils._rebuild_tensor_v3": true,
	"torch._utils._rebuild_parameter": true, "torch._utils._rebuild_parameter_with_state": true, "torch._tensor._rebuild_from_type_v2": true,
	"torch.Size": true, "torch.device": true, "collections.OrderedDict": true,
	"numpy.dtype": true, "numpy.core.multiarray.scalar": true, "numpy._core.multiarray.scalar": true, "_codecs.encode": true,
}

// classes are names that may be handed to a call.
var classes = map[global]bool{"torch.Tensor": true, "torch.nn.parameter.Parameter": true}

// known reports whether a file may refer to a name.
func known(g global) bool {
	_, storage := storageTypes[g]
	_, dtype := torchDTypes[g]
	return storage || dtype || calls[g] || classes[g]
}

// What no real file comes near: a byte of a hostile program can make a value of many.
const (
	maxStack = 1 << 20
	maxMade  = 1 << 22
	// maxCopied is for all calls together; indices in numpy's numbers, 8 bytes each, are what uses most of it.
	maxCopied = 1 << 26
)

// run carries out the program and returns what it leaves on the stack.
func (m *machine) run() (any, error) {
	m.memo = map[uint32]any{}
	m.stack = nil
	for {
		op, err := m.byte()
		if err != nil {
			return nil, err
		}
		if op == '.' { // STOP
			return m.pop()
		}
		if err := m.step(op); err != nil {
			return nil, err
		}
		if len(m.stack) > maxStack || m.made > maxMade || len(m.memo) > maxMade || m.copied > maxCopied {
			return nil, bad("its pickle makes more than %d values, or piles up more than %d", maxMade, maxStack)
		}
	}
}

func (m *machine) byte() (byte, error) {
	b, err := m.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// take reads n bytes of the program.
func (m *machine) take(n int) ([]byte, error) {
	if n < 0 || n > len(m.data)-m.at {
		return nil, short("its pickle ends at byte %d, within an instruction", len(m.data))
	}
	b := m.data[m.at : m.at+n]
	m.at += n
	return b, nil
}

// counted reads a length of 1, 4 or 8 bytes and what it counts.
func (m *machine) counted(width int) ([]byte, error) {
	b, err := m.take(width)
	if err != nil {
		return nil, err
	}
	var wide [8]byte
	copy(wide[:], b)
	n := binary.LittleEndian.Uint64(wide[:])
	if n > uint64(len(m.data)) {
		return nil, short("its pickle promises %d bytes, and has %d in all", n, len(m.data))
	}
	return m.take(int(n))
}

func (m *machine) line() (string, error) {
	end := strings.IndexByte(string(m.data[m.at:min(len(m.data), m.at+1000)]), '\n')
	if end < 0 {
		return "", short("its pickle has a line without an end at byte %d", m.at)
	}
	b, err := m.take(end + 1)
	return string(b[:max(len(b)-1, 0)]), err
}

func (m *machine) push(v any) {
	switch v.(type) {
	case nil, bool, int64, mark, global:
	default:
		m.made++
	}
	m.stack = append(m.stack, v)
}

func (m *machine) pop() (any, error) {
	if len(m.stack) == 0 {
		return nil, bad("its pickle takes from an empty stack at byte %d", m.at)
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	if _, ok := v.(mark); ok {
		return nil, bad("its pickle takes a mark for a value at byte %d", m.at)
	}
	return v, nil
}

// popMark takes what lies above the last mark, and the mark.
func (m *machine) popMark() ([]any, error) {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if _, ok := m.stack[i].(mark); ok {
			items := m.stack[i+1:]
			m.stack = m.stack[:i]
			return items, nil
		}
	}
	return nil, bad("its pickle has no mark at byte %d", m.at)
}

func (m *machine) top() (any, error) {
	v, err := m.pop()
	if err == nil {
		m.stack = append(m.stack, v)
	}
	return v, err
}

// step carries out one instruction. The names beside the bytes are those of Python's pickletools.
func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := m.byte()
		if err == nil && v > 5 {
			err = &tensors.FormatError{Msg: fmt.Sprintf("is a pickle of protocol %d; this program reads 2 to 5", v), Hint: "save it again with torch"}
		}
		return err
	case 0x95: // FRAME
		_, err := m.take(8)
		return err
	case '(': // MARK
		m.push(mark{})
	case '0': // POP
		if len(m.stack) == 0 {
			return bad("its pickle takes from an empty stack at byte %d", m.at)
		}
		m.stack = m.stack[:len(m.stack)-1]
	case '1': // POP_MARK
		_, err := m.popMark()
		return err
	case 'N': // NONE
		m.push(nil)
	case 0x88: // NEWTRUE
		m.push(true)
	case 0x89: // NEWFALSE
		m.push(false)
	case '}': // EMPTY_DICT
		m.push(&Dict{})
	case ']': // EMPTY_LIST
		m.push(&List{})
	case ')': // EMPTY_TUPLE
		m.push(Tuple{})
	case 'q', 'r', 'h', 'j', 0x94: // BINPUT, LONG_BINPUT, BINGET, LONG_BINGET, MEMOIZE
		return m.memory(op)
	case 'c', 0x93: // GLOBAL, STACK_GLOBAL
		return m.name(op)
	case 'Q': // BINPERSID
		return m.persistent()
	case 'R': // REDUCE
		args, err := m.pop()
		if err != nil {
			return err
		}
		f, err := m.pop()
		if err != nil {
			return err
		}
		v, err := m.reduce(f, args)
		m.push(v)
		return err
	case 'b': // BUILD: numpy.dtype takes its byte order by it
		return m.build()
	case 't', 0x85, 0x86, 0x87: // TUPLE, TUPLE1, TUPLE2, TUPLE3
		return m.tuple(op)
	case 'a', 'e', 's', 'u': // APPEND, APPENDS, SETITEM, SETITEMS
		return m.fill(op)
	default:
		return m.scalar(op)
	}
	return nil
}

// dangerous are instructions that make objects of any class or look something up outside, for messages.
var dangerous = map[byte]string{
	'i': "INST", 'o': "OBJ", 0x81: "NEWOBJ", 0x92: "NEWOBJ_EX", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4", 'P': "PERSID", 0x97: "NEXT_BUFFER",
}

func instruction(op byte) string {
	if name, ok := dangerous[op]; ok {
		return name
	}
	return fmt.Sprintf("0x%02x", op)
}

// scalar pushes numbers and text.
func (m *machine) scalar(op byte) error {
	fixed := map[byte]int{'K': 1, 'M': 2, 'J': 4, 'G': 8} // BININT1, BININT2, BININT, BINFLOAT
	if n, ok := fixed[op]; ok {
		b, err := m.take(n)
		if err != nil {
			return err
		}
		switch op {
		case 'K':
			m.push(int64(b[0]))
		case 'M':
			m.push(int64(binary.LittleEndian.Uint16(b)))
		case 'J':
			m.push(int64(int32(binary.LittleEndian.Uint32(b))))
		case 'G':
			m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
		return nil
	}
	widths := map[byte]int{0x8a: 1, 0x8b: 4, 0x8c: 1, 'X': 4, 0x8d: 8, 'C': 1, 'B': 4, 0x8e: 8, 'U': 1, 'T': 4}
	width, ok := widths[op]
	if !ok {
		return &tensors.FormatError{Msg: fmt.Sprintf("has the pickle instruction %s at byte %d, which builds no plain value and is not carried out", instruction(op), m.at-1), Hint: "save the tensors alone, with torch.save of a dictionary"}
	}
	b, err := m.counted(width)
	if err != nil {
		return err
	}
	switch op {
	case 0x8a, 0x8b: // LONG1, LONG4: two's complement
		if len(b) > 8 {
			m.push(Large(append([]byte(nil), b...)))
			return nil
		}
		var n uint64
		for i, x := range b {
			n |= uint64(x) << (8 * i)
		}
		if k := len(b); k > 0 && k < 8 && b[k-1]&0x80 != 0 {
			n |= ^uint64(0) << (8 * k)
		}
		m.push(int64(n))
	case 0x8c, 'X', 0x8d, 'U', 'T': // text
		if !utf8.Valid(b) {
			return bad("its pickle has text that is no UTF-8 at byte %d", m.at)
		}
		m.push(string(b))
	default: // SHORT_BINBYTES, BINBYTES, BINBYTES8
		m.push(append([]byte(nil), b...))
	}
	return nil
}

// memory stores the top of the stack, or brings a stored value back.
func (m *machine) memory(op byte) error {
	if op == 0x94 {
		v, err := m.top()
		m.memo[uint32(len(m.memo))] = v
		return err
	}
	width := 1
	if op == 'r' || op == 'j' {
		width = 4
	}
	b, err := m.take(width)
	if err != nil {
		return err
	}
	var wide [4]byte
	copy(wide[:], b)
	key := binary.LittleEndian.Uint32(wide[:])
	if op == 'q' || op == 'r' {
		v, err := m.top()
		m.memo[key] = v
		return err
	}
	v, ok := m.memo[key]
	if !ok {
		return bad("its pickle uses value %d before it is stored", key)
	}
	m.stack = append(m.stack, v)
	return nil
}

// name pushes a name, if it is one of those that may be used.
func (m *machine) name(op byte) error {
	var module, name string
	if op == 'c' {
		var err error
		if module, err = m.line(); err != nil {
			return err
		}
		if name, err = m.line(); err != nil {
			return err
		}
	} else {
		b, err := m.pop()
		if err != nil {
			return err
		}
		a, err := m.pop()
		if err != nil {
			return err
		}
		var ok1, ok2 bool
		module, ok1 = a.(string)
		name, ok2 = b.(string)
		if !ok1 || !ok2 {
			return bad("its pickle names something by values that are no text")
		}
	}
	g := global(module + "." + name)
	if rest, cuda := strings.CutPrefix(string(g), "torch.cuda."); cuda && storageTypes[global("torch."+rest)] != 0 {
		g = global("torch." + rest)
	}
	if !known(g) {
		text := strconv.QuoteToASCII(string(g)) // letters of other alphabets look like those of well-known names
		if len(text) > 200 {
			text = text[:200] + "..."
		}
		return &tensors.FormatError{Msg: "refers to " + text + ", which is not carried out: reading a file must not run what is in it", Hint: "load it where you trust it, and save its tensors alone"}
	}
	m.push(g)
	return nil
}

// persistent reads ("storage", type, key, device, elements), in old files with a sixth part that is None.
func (m *machine) persistent() error {
	v, err := m.pop()
	if err != nil {
		return err
	}
	id, _ := v.(Tuple)
	if len(id) < 5 || len(id) > 6 || id[0] != "storage" {
		return bad("its pickle refers to something outside that is no storage")
	}
	if len(id) == 6 && id[5] != nil {
		return &tensors.FormatError{Msg: "has storages that are windows on others, as torch wrote before version 0.4", Hint: "load it with torch and save it again"}
	}
	kind, _ := id[1].(global)
	key, ok1 := id[2].(string)
	elems, ok2 := id[4].(int64)
	dtype, ok3 := storageTypes[kind]
	if !ok1 || !ok2 || !ok3 || elems < 0 {
		return bad("its pickle refers to a storage in an unknown way")
	}
	s, err := m.storages(key, dtype, elems)
	if err != nil {
		return err
	}
	m.push(s)
	return nil
}

func (m *machine) build() error {
	state, err := m.pop()
	if err != nil {
		return err
	}
	object, err := m.top()
	if err != nil {
		return err
	}
	switch object.(type) {
	case *numpyType:
		if t, _ := state.(Tuple); len(t) < 2 || t[1] != "<" && t[1] != "|" && t[1] != "=" {
			return bad("a number has another byte order than little-endian")
		}
		return nil
	case *Dict: // attributes of an OrderedDict, such as a state_dict's _metadata
		return nil
	}
	return bad("its pickle sets attributes of something that has none")
}

func (m *machine) tuple(op byte) error {
	if op == 't' {
		items, err := m.popMark()
		if err != nil {
			return err
		}
		m.push(Tuple(append([]any(nil), items...)))
		return nil
	}
	t := make(Tuple, op-0x84)
	for i := len(t) - 1; i >= 0; i-- {
		var err error
		if t[i], err = m.pop(); err != nil {
			return err
		}
	}
	m.push(t)
	return nil
}

// fill puts items into a list or a dictionary.
func (m *machine) fill(op byte) error {
	var items []any
	var err error
	switch op {
	case 'a', 's':
		n := map[byte]int{'a': 1, 's': 2}[op]
		items = make([]any, n)
		for i := n - 1; i >= 0; i-- {
			if items[i], err = m.pop(); err != nil {
				return err
			}
		}
	default:
		if items, err = m.popMark(); err != nil {
			return err
		}
	}
	into, err := m.top()
	if err != nil {
		return err
	}
	switch x := into.(type) {
	case *List:
		if op == 'a' || op == 'e' {
			x.add(items)
			return nil
		}
	case *Dict:
		if (op == 's' || op == 'u') && len(items)%2 == 0 {
			for i := 0; i < len(items); i += 2 {
				x.set(items[i], items[i+1])
			}
			return nil
		}
	}
	return bad("its pickle fills something that is no list or dictionary at byte %d", m.at)
}
