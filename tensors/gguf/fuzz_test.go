package gguf

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

// FuzzOpen opens arbitrary bytes: they are refused as malformed, or every tensor can be read where the table puts it.
func FuzzOpen(f *testing.F) {
	tiny, err := os.ReadFile("testdata/tiny.gguf")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tiny)
	f.Add(head(1, 1).put("general.alignment", uint32(4), uint32(8), "t", uint32(2), 32, 2, uint32(2), 0).pad(64))
	f.Add(head(0, 1).put("k", uint32(9), uint32(8), 2, "a", "b").pad(0))
	f.Add(head(3, 0).put("none", uint32(2), 0, 5, uint32(0), 0, "one", uint32(0), uint32(0), 0, "v", uint32(1), 2, uint32(24), 32).pad(64))
	f.Add(head(2, 0).put("k", uint32(1), 256, uint32(Q6_K), 0, "iq", uint32(1), 256, uint32(IQ2_XXS), 224).pad(320))
	f.Add(head(1, 2).put("split.no", uint32(2), uint16(0), "split.count", uint32(2), uint16(2)).put("a", uint32(1), 8, uint32(24), 0).pad(32))
	f.Add([]byte("GGUF\x00\x00\x00\x03"))
	path := filepath.Join(f.TempDir(), "m.gguf")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		before := allocated()
		file, err := Open(path)
		// A string or a slice header takes some times the 8 bytes of its length in the file; the rest is the read buffer.
		if n := allocated() - before; n > 1<<20+64*uint64(len(data)) {
			t.Errorf("%d bytes were allocated for a file of %d", n, len(data))
		}
		if err != nil {
			if !errors.As(err, new(*tensors.FormatError)) {
				t.Errorf("%T is no format error: %v", err, err)
			}
			return
		}
		defer file.Close()
		readMetadata(t, file)
		readTensors(t, file, int64(len(data)))
	})
}

// allocated is how many bytes the process has allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// readMetadata asks for every key as everything: one form answers for what Kind names, and no other.
func readMetadata(t *testing.T, f *File) {
	for _, k := range f.Keys() {
		_, isInt := f.Int(k)
		_, isFloat := f.Float(k)
		_, isBool := f.Bool(k)
		_, isText := f.Text(k)
		_, isTexts := f.Texts(k)
		_, isInts := f.Ints(k)
		_, isFloats := f.Floats(k)
		if isInt && !isFloat || isInts && !isFloats && f.Kind(k) != "array of bool" {
			t.Errorf("%s, a %s, is an integer and no number", k, f.Kind(k))
		}
		kind := f.Kind(k)
		if isText != (kind == "string") || isTexts != (kind == "array of string") || isBool != (kind == "bool") {
			t.Errorf("%s is a %s: text %v, texts %v, bool %v", k, kind, isText, isTexts, isBool)
		}
		if array := len(kind) > 5 && kind[:5] == "array"; array && (isInt || isFloat) || !array && (isInts || isFloats) {
			t.Errorf("%s is a %s and answers for the other", k, kind)
		}
	}
}

// readTensors reads the first and the last block of every tensor and checks that none shares bytes with another.
func readTensors(t *testing.T, f *File, size int64) {
	total := f.HeaderBytes(0)
	for _, x := range f.Tensors() {
		if y, ok := f.Tensor(x.Name); !ok || y.offset != x.offset {
			t.Errorf("%q is not found under its name", x.Name)
		}
		n, block := x.Bytes(), int64(x.Type.BlockElems())
		if x.offset < f.HeaderBytes(0) || n < 0 || n > size-x.offset {
			t.Fatalf("%q lies outside the file", x.Name)
		}
		total += n
		if x.Elems() == 0 {
			continue
		}
		dst := make([]float32, block)
		for _, elem := range []int64{0, x.Elems() - block} {
			if err := f.ReadFloat32(x, dst, elem, nil); (err == nil) != x.Type.Supported() {
				t.Errorf("%q: element %d of %s: %v", x.Name, elem, x.Type, err)
			}
		}
		if f.ReadFloat32(x, dst, x.Elems(), nil) == nil || f.ReadAt(x, make([]byte, 1), n) == nil {
			t.Errorf("%q is read beyond its end", x.Name)
		}
	}
	if total > size && len(f.Tensors()) > 0 {
		t.Error("tensors share bytes")
	}
}
