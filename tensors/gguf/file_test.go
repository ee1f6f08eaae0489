package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

func TestOpenTiny(t *testing.T) {
	f, err := Open("testdata/tiny.gguf")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Version() != 3 || len(f.Files()) != 1 || f.Path() != "testdata/tiny.gguf" {
		t.Errorf("version %d, files %v", f.Version(), f.Files())
	}
	ints := map[string]int64{"t.u8": 200, "t.i8": -5, "t.u16": 60000, "t.i16": -30000, "t.u32": 4000000000, "t.i32": -2000000000, "t.i64": -1 << 62}
	for k, want := range ints {
		if got, ok := f.Int(k); !ok || got != want {
			t.Errorf("%s: %d %v, want %d", k, got, ok, want)
		}
		if x, ok := f.Float(k); !ok || x != float64(want) {
			t.Errorf("%s as float: %v %v", k, x, ok)
		}
	}
	if n, ok := f.Int("t.u64"); ok {
		t.Errorf("2^63+1 came out as %d", n)
	}
	if x, ok := f.Float("t.f32"); !ok || float32(x) != 1e-5 {
		t.Errorf("t.f32: %v %v", x, ok)
	}
	if x, ok := f.Float("t.f64"); !ok || x != 0.1 {
		t.Errorf("t.f64: %v %v", x, ok)
	}
	if b, ok := f.Bool("t.bool"); !ok || !b {
		t.Errorf("t.bool: %v %v", b, ok)
	}
	if s, ok := f.Text("t.text"); !ok || s != "žluťoučký kůň ▁" {
		t.Errorf("t.text: %q %v", s, ok)
	}
	if s, ok := f.Texts("t.texts"); !ok || !slices.Equal(s, []string{"a", "", "▁b"}) {
		t.Errorf("t.texts: %q %v", s, ok)
	}
	if n, ok := f.Ints("t.ints"); !ok || !slices.Equal(n, []int64{1, -2, 3}) {
		t.Errorf("t.ints: %v %v", n, ok)
	}
	if n, ok := f.Ints("t.bools"); !ok || !slices.Equal(n, []int64{1, 0}) {
		t.Errorf("t.bools: %v %v", n, ok)
	}
	if x, ok := f.Floats("t.floats"); !ok || !slices.Equal(x, []float64{0.5, -1.5}) {
		t.Errorf("t.floats: %v %v", x, ok)
	}
	// What is asked for as another kind is not there.
	for _, k := range []string{"t.text", "t.bool", "t.ints", "t.f32", "absent"} {
		if n, ok := f.Int(k); ok {
			t.Errorf("%s as an integer: %d", k, n)
		}
	}
	if _, ok := f.Texts("t.text"); ok {
		t.Error("a string came out as an array")
	}
	if got := f.Kind("t.floats") + "," + f.Kind("t.u16") + "," + f.Kind("absent"); got != "array of float32,uint16," {
		t.Error(got)
	}
	if !f.Has("general.architecture") || !slices.Contains(f.Keys(), "t.i64") {
		t.Error("keys", f.Keys())
	}

	var shapes []string
	for _, x := range f.Tensors() {
		shapes = append(shapes, x.Name+" "+x.Type.String())
	}
	if want := []string{"plain.f32 F32", "plain.f16 F16", "vec I32", "quant Q4_1"}; !slices.Equal(shapes, want) {
		t.Error(shapes)
	}
	x, _ := f.Tensor("plain.f32")
	if !reflect.DeepEqual(x.Shape, []int{3, 64}) || x.Elems() != 192 || x.Bytes() != 768 {
		t.Errorf("%+v", x)
	}
	got := make([]float32, 192)
	if err := f.ReadFloat32(x, got, 0, nil); err != nil {
		t.Fatal(err)
	}
	equalBits(t, got, readFloats(t, "testdata/tiny.plain.f32"))
	q, _ := f.Tensor("quant")
	want := readFloats(t, "testdata/tiny.quant.f32")
	for i := 0; i < 192; i += 64 { // in chunks
		if err := f.ReadFloat32(q, got[i:i+64], int64(i), make([]byte, 40)); err != nil {
			t.Fatal(err)
		}
	}
	equalBits(t, got, want)
	for _, err := range []error{f.ReadFloat32(q, got[:16], 0, nil), f.ReadFloat32(q, got[:32], 1, nil), f.ReadFloat32(q, got, 32, nil), f.ReadAt(q, make([]byte, 1), -1)} {
		if err == nil {
			t.Error("a read outside blocks or tensor succeeded")
		}
	}
}

// builder writes GGUF bytes, right or wrong.
type builder struct{ bytes.Buffer }

func (b *builder) put(xs ...any) *builder {
	for _, x := range xs {
		switch x := x.(type) {
		case string:
			b.put(uint64(len(x)))
			b.WriteString(x)
		case []byte:
			b.Write(x)
		case int:
			b.put(uint64(x))
		default:
			if err := binary.Write(b, le, x); err != nil {
				panic(err)
			}
		}
	}
	return b
}

func head(tensors, pairs any) *builder {
	return new(builder).put([]byte("GGUF"), uint32(3), tensors, pairs)
}

// pad fills up to a multiple of 32 and adds n bytes of data.
func (b *builder) pad(n int) []byte {
	b.Write(make([]byte, (32-b.Len()%32)%32+n))
	return b.Bytes()
}

func TestHostileFiles(t *testing.T) {
	u32 := func(n int) uint32 { return uint32(n) }
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "beyond the end of the file"},
		{"not a GGUF", []byte("PK\x03\x04 and more bytes to read"), "not with GGUF"},
		{"version 1", new(builder).put([]byte("GGUF"), u32(1), u32(0), u32(0)).Bytes(), "version 1"},
		{"version 9", new(builder).put([]byte("GGUF"), u32(9), 0, 0).Bytes(), "version 9"},
		{"big-endian", []byte("GGUF\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x01"), "big-endian"},
		{"huge counts", head(uint64(1)<<60, 0).pad(64), "cannot fit"},
		{"huge metadata count", head(0, uint64(math.MaxUint64)).pad(64), "cannot fit"},
		{"huge key", head(0, 1).put(uint64(1) << 60).pad(64), "too long"},
		{"huge string", head(0, 1).put("k", u32(8), uint64(1)<<60).pad(64), "too long"},
		{"string past the end", head(0, 1).put("k", u32(8), 10000).pad(64), "beyond the end"},
		{"huge array", head(0, 1).put("k", u32(9), u32(4), uint64(1)<<60).pad(64), "claims"},
		{"overflowing array", head(0, 1).put("k", u32(9), u32(12), uint64(1)<<61).pad(64), "claims"},
		{"huge array of strings", head(0, 1).put("k", u32(9), u32(8), uint64(1)<<60).pad(64), "claims"},
		{"array of arrays", head(0, 1).put("k", u32(9), u32(9), 1, u32(4), 0).pad(64), "array of arrays"},
		{"unknown kind", head(0, 1).put("k", u32(99), 0).pad(64), "unknown kind"},
		{"same key twice", head(0, 2).put("k", u32(0), uint8(1), "k", u32(0), uint8(1)).pad(64), "twice"},
		{"alignment of the wrong kind", head(0, 1).put("general.alignment", u32(8), "x").pad(64), "not uint32"},
		{"alignment 0", head(0, 1).put("general.alignment", u32(4), u32(0)).pad(64), "power of two"},
		{"alignment 48", head(0, 1).put("general.alignment", u32(4), u32(48)).pad(64), "power of two"},
		{"too many dimensions", head(1, 0).put("t", u32(9), make([]byte, 72), u32(0), 0).pad(64), "dimensions"},
		{"overflowing shape", head(1, 0).put("t", u32(3), 1<<40, 1<<40, 1<<40, u32(0), 0).pad(64), "more elements"},
		{"negative dimension", head(1, 0).put("t", u32(1), uint64(math.MaxUint64), u32(0), 0).pad(64), "more elements"},
		{"unknown type", head(1, 0).put("t", u32(1), 4, u32(4), 0).pad(64), "unknown storage type"},
		{"part of a block", head(1, 0).put("t", u32(2), 33, 32, u32(2), 0).pad(999), "do not fill"},
		{"odd offset", head(1, 0).put("t", u32(1), 4, u32(0), 8).pad(64), "multiple of 32"},
		{"huge offset", head(1, 0).put("t", u32(1), 4, u32(0), uint64(1)<<63).pad(64), "multiple of 32"},
		{"offset past the end", head(1, 0).put("t", u32(1), 4, u32(0), 1<<40).pad(64), "truncated"},
		{"truncated data", head(1, 0).put("t", u32(1), 17, u32(0), 0).pad(64), "truncated"},
		{"no data at all", head(1, 0).put("t", u32(1), 1, u32(0), 0).Bytes(), "truncated"},
		{"overlap", head(2, 0).put("a", u32(1), 16, u32(0), 0, "b", u32(1), 8, u32(0), 32).pad(64), "overlaps"},
		{"same name twice", head(2, 0).put("a", u32(1), 8, u32(0), 0, "a", u32(1), 8, u32(0), 32).pad(64), "twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.gguf")
			if err := os.WriteFile(path, c.data, 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := Open(path)
			if err == nil {
				f.Close()
				t.Fatal("was opened")
			}
			var fe *tensors.FormatError
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want a format error with %q", err, c.want)
			}
		})
	}
}

func TestEmptyAndScalarTensors(t *testing.T) {
	data := head(3, 0).put("none", uint32(2), 0, 5, uint32(0), 0, "one", uint32(0), uint32(0), 0, "v", uint32(1), 2, uint32(24), 32).pad(64)
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, want := range map[string]int64{"none": 0, "one": 4, "v": 2} {
		if x, ok := f.Tensor(name); !ok || x.Bytes() != want {
			t.Errorf("%s: %d bytes, want %d", name, x.Bytes(), want)
		}
	}
}

// TestSplit reads a model of two parts from either of them.
func TestSplit(t *testing.T) {
	dir := t.TempDir()
	part := func(no int, name string, first byte) []byte {
		b := head(1, 2).put("split.no", uint32(2), uint16(no), "split.count", uint32(2), uint16(2)).put(name, uint32(1), 8, uint32(24), 0).pad(32)
		b[len(b)-32] = first
		return b
	}
	one, two := filepath.Join(dir, "m-00001-of-00002.gguf"), filepath.Join(dir, "m-00002-of-00002.gguf")
	if err := os.WriteFile(one, part(0, "a", 7), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(one); err == nil || !strings.Contains(err.Error(), "part 2 of 2 is missing") {
		t.Error(err)
	}
	if err := os.WriteFile(two, part(1, "b", 9), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{one, two} {
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]float32{"a": 7, "b": 9} {
			x, _ := f.Tensor(name)
			got := make([]float32, 8)
			if err := f.ReadFloat32(x, got, 0, nil); err != nil || got[0] != want {
				t.Errorf("%s: %v %v", name, got, err)
			}
		}
		if len(f.Files()) != 2 || f.HeaderBytes(1) == 0 {
			t.Error(f.Files())
		}
		f.Close()
	}
	if err := os.WriteFile(two, part(0, "b", 9), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(one); err == nil || !strings.Contains(err.Error(), "says that it is part 1") {
		t.Error(err)
	}
	if err := os.WriteFile(two, part(1, "a", 9), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(one); err == nil || !strings.Contains(err.Error(), "earlier part") {
		t.Error(err)
	}
	renamed := filepath.Join(dir, "renamed.gguf")
	if err := os.Rename(one, renamed); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(renamed); err == nil || !strings.Contains(err.Error(), "keep the names") {
		t.Error(err)
	}
}
