package pickle

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/mergekit/mergekit/tensors"
)

// legacyMagic is how a file begins that torch.save wrote before version 1.6, or was asked to write like that: a pickle of one large number.
var legacyMagic = []byte("\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")

// legacyStart finds the end of the magic number, 0 if there is none. The protocol is 2 where nobody chose another; from 4 on a pickle has
// its length in front.
func legacyStart(file []byte) int {
	if len(file) < 2 || file[0] != 0x80 {
		return 0
	}
	n := 2
	if file[1] >= 4 {
		n += 9
	}
	if len(file) < n || !bytes.HasPrefix(file[n:], legacyMagic) {
		return 0
	}
	return n + len(legacyMagic)
}

// legacyVersion is the protocol that all such files have.
const legacyVersion = 1001

// readLegacy reads pickles one after the other: the magic number, the protocol, facts about the machine, the object, the keys of the
// storages. Behind them lie the storages in that order, each with its number of elements before it.
func readLegacy(c content) (any, error) {
	return begin(c, func(data []byte) (any, error) { return legacy(c, data) })
}

// startBytes is how much of a file is read for a program whose length is not known. Of a model's state dict that is nearly always all.
const startBytes = 1 << 20

// begin hands the first bytes of a file to a reader, and more of them where they end too soon: the file may be far away.
func begin(c content, read func(data []byte) (any, error)) (any, error) {
	for n := int64(startBytes); ; n *= 8 {
		n = min(n, c.size, maxProgram)
		data, err := c.bytes(0, n)
		if err != nil {
			return nil, err
		}
		v, err := read(data)
		if !errors.Is(err, errShort) || n == min(c.size, maxProgram) {
			return v, err
		}
	}
}

func legacy(c content, data []byte) (any, error) {
	used := map[string]*storage{}
	m := &machine{data: data, at: legacyStart(data), storages: func(key string, dtype tensors.DType, elems int64) (*storage, error) {
		s, ok := used[key]
		if !ok {
			s = &storage{key: key, dtype: dtype, elems: elems, from: c}
			used[key] = s
		}
		if s.dtype != dtype || s.elems != elems {
			return nil, bad("storage %.200q is of %d %s, and elsewhere of %d %s", key, s.elems, s.dtype, elems, dtype)
		}
		return s, nil
	}}
	next := func() (any, error) {
		v, err := m.run()
		m.stack = m.stack[:0]
		return v, err
	}
	version, err := next()
	if err != nil {
		return nil, err
	}
	if version != int64(legacyVersion) {
		return nil, &tensors.FormatError{Msg: "is a file of torch.save of an unknown version", Hint: "load it with torch and save it again"}
	}
	facts, err := next()
	if err != nil {
		return nil, err
	}
	if d, ok := facts.(*Dict); !ok {
		return nil, bad("it does not say which machine wrote it")
	} else if little, ok := d.Values["little_endian"].(bool); ok && !little {
		return nil, otherOrder()
	}
	root, err := next()
	if err != nil {
		return nil, err
	}
	list, err := next()
	if err != nil {
		return nil, err
	}
	keys, ok := list.(*List)
	if !ok || len(keys.Ints) > 0 {
		return nil, bad("it does not list its storages")
	}
	at := int64(m.at)
	placed := map[string]bool{}
	for _, k := range keys.Items {
		key, ok := k.(string)
		s := used[key]
		if !ok || s == nil || placed[key] {
			return nil, bad("it lists a storage that no tensor has, or one twice")
		}
		placed[key] = true
		count, err := c.bytes(at, 8)
		if err != nil {
			return nil, err
		}
		n := binary.LittleEndian.Uint64(count)
		if n != uint64(s.elems) {
			return nil, bad("storage %.200q is to have %d elements, and has %d in what is left of the file", key, s.elems, n)
		}
		if s.elems > (c.size-at-8)/int64(s.dtype.Size()) {
			return nil, bad("storage %.200q of %d elements does not fit in what is left of the file", key, s.elems)
		}
		s.off = at + 8
		at = s.off + s.elems*int64(s.dtype.Size())
	}
	if len(placed) != len(used) {
		return nil, bad("it has %d storages, and its tensors need %d", len(placed), len(used))
	}
	return root, nil
}
