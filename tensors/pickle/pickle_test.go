package pickle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

const golden = "../../testdata/golden/sparse/"

func f32(t *testing.T, x *Tensor) []float32 {
	t.Helper()
	raw, err := x.Data()
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, x.Elems())
	if err := tensors.DecodeFloat32(out, raw, x.DType); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTorchFile reads what torch wrote: dictionaries, a torch.Size, a list that begins with a number of numpy, a parameter, a view that
// is not contiguous, bfloat16.
func TestTorchFile(t *testing.T) {
	f, err := Open(golden + "pytorch_diff.bin")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	root := f.Root().(*Dict)
	if strings.Join(root.Keys, " ") != "diffs abs" {
		t.Fatalf("keys %v", root.Keys)
	}
	diffs := root.Values["diffs"].(*Dict)
	a := diffs.Values["a.weight"].(*Dict)
	if !reflect.DeepEqual(a.Values["size"], Tuple{int64(3), int64(5)}) {
		t.Errorf("size %v", a.Values["size"])
	}
	// Columns first: (2,0), (0,1), (1,3), (2,4) of 3 x 5 are at 2, 3, 10, 14.
	if steps := a.Values["index_steps"].(*List); !reflect.DeepEqual(steps.Ints, []int64{2, 1, 7, 4}) {
		t.Errorf("steps %+v", steps)
	}
	if v := f32(t, a.Values["values"].(*Tensor)); !reflect.DeepEqual(v, []float32{-0.25, 0.5, 2, 1.5}) {
		t.Errorf("values %v", v)
	}
	if e := diffs.Values["e.bias"].(*Dict); e.Values["index_steps"].(*List).Len() != 0 || len(f32(t, e.Values["values"].(*Tensor))) != 0 {
		t.Errorf("an empty difference: %v", e)
	}
	abs := root.Values["abs"].(*Dict)
	for name, want := range map[string][]float32{"head.weight": {0, 3, 1, 4, 2, 5}, "head.view": {1, 2, 5, 6, 9, 10}, "head.half": {1, 1}} {
		if got := f32(t, abs.Values[name].(*Tensor)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestRefused wants an error that says what is wrong of everything that is no plain file of tensors.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	archive := func(name string, method uint16, entries ...string) string {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for i := 0; i < len(entries); i += 2 {
			w, err := z.CreateHeader(&zip.FileHeader{Name: entries[i], Method: method})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write([]byte(entries[i+1])); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return write(name, b.Bytes())
	}
	tensor := func(size, stride string) string {
		return "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQK\x00" + size + stride + "\x89NtR."
	}
	for _, c := range []struct{ path, want string }{
		{golden + "evil.bin", `refers to "__builtin__.print", which is not carried out`},
		{filepath.Join(dir, "no.bin"), "does not exist"},
		{dir, "not a regular file"},
		{write("old.bin", []byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")), "ends at byte 15"},
		{write("text.bin", []byte("hello")), "no file of torch.save"},
		{archive("other.bin", zip.Store, "a/b", "x"), "without a data.pkl"},
		{archive("deflated.bin", zip.Deflate, "a/data.pkl", strings.Repeat("N", 100)+"."), "compressed"},
		{archive("order.bin", zip.Store, "a/data.pkl", "N.", "a/byteorder", "big"), "another byte order"},
		{archive("short.bin", zip.Store, "a/data.pkl", "\x80\x02X\xff\xff\xff\x7f"), "promises 2147483647 bytes"},
		{archive("end.bin", zip.Store, "a/data.pkl", "\x80\x02"), "ends at byte 2"},
		{archive("empty.bin", zip.Store, "a/data.pkl", "."), "empty stack"},
		{archive("op.bin", zip.Store, "a/data.pkl", "i."), "instruction INST"},
		{archive("proto.bin", zip.Store, "a/data.pkl", "\x80\x09."), "protocol 9"},
		{archive("memo.bin", zip.Store, "a/data.pkl", "h\x07."), "before it is stored"},
		{archive("pile.bin", zip.Store, "a/data.pkl", strings.Repeat("N", maxStack+2)+"."), "piles up"},
		{archive("missing.bin", zip.Store, "a/data.pkl", tensor("K\x02\x85", "K\x01\x85")), `no storage "0"`},
		{archive("small.bin", zip.Store, "a/data.pkl", tensor("K\x02\x85", "K\x01\x85"), "a/data/0", "1234567"), "is to have 2 elements"},
		{archive("wide.bin", zip.Store, "a/data.pkl", tensor("K\x03\x85", "K\x01\x85"), "a/data/0", "12345678"), "more elements than its storage"},
		{archive("far.bin", zip.Store, "a/data.pkl", tensor("K\x02\x85", "K\x02\x85"), "a/data/0", "12345678"), "outside of its storage"},
		{archive("back.bin", zip.Store, "a/data.pkl", tensor("K\x02\x85", "J\xff\xff\xff\xff\x85"), "a/data/0", "12345678"), "strides"},
		{archive("big.bin", zip.Store, "a/data.pkl", tensor("J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87", "K\x00K\x00K\x00\x87"), "a/data/0", "12345678"), "impossible shape"},
	} {
		_, err := Open(c.path)
		var format *tensors.FormatError
		if !errors.As(err, &format) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), c.path) {
			t.Errorf("%s: %v, want %q", c.path, err, c.want)
		}
	}
	f, err := Open(archive("good.bin", zip.Store, "a/data.pkl", tensor("K\x02\x85", "K\x01\x85"), "a/data/0", "12345678"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if raw, err := f.Root().(*Tensor).Data(); err != nil || string(raw) != "12345678" {
		t.Errorf("%q, %v", raw, err)
	}
}

// TestAttributes refuses tensors whose values are not those of the storage: torch would conjugate or negate them when they are used.
func TestAttributes(t *testing.T) {
	program := func(function, storage, more, attributes string) []byte {
		return []byte("\x80\x02ctorch._utils\n" + function + "\n((X\x07\x00\x00\x00storagectorch\n" + storage + "\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x08tQK\x00K\x01\x85K\x01\x85\x89N" + more + attributes + "tR.")
	}
	flag := func(name string, set byte) string {
		return "}X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(name)))) + name + string([]byte{set}) + "s"
	}
	const yes, no = 0x88, 0x89
	for _, c := range []struct {
		data []byte
		want string
	}{
		{program("_rebuild_tensor_v2", "ByteStorage", "", flag("conj", yes)), "conjugate or the negative"},
		{program("_rebuild_tensor_v2", "ByteStorage", "", flag("neg", yes)), "conjugate or the negative"},
		{program("_rebuild_tensor_v2", "ByteStorage", "", flag("neg", no)), ""},
		{program("_rebuild_tensor_v2", "ByteStorage", "", "N"), ""},
		{program("_rebuild_tensor_v2", "ByteStorage", "", "K\x01"), "no dictionary"},
		{program("_rebuild_tensor_v3", "UntypedStorage", "ctorch\nfloat16\n", flag("conj", yes)), "conjugate or the negative"},
		{program("_rebuild_tensor_v3", "UntypedStorage", "ctorch\nfloat16\n", "}"), ""},
	} {
		// UntypedStorage is in another module.
		data := bytes.Replace(c.data, []byte("ctorch\nUntypedStorage"), []byte("ctorch.storage\nUntypedStorage"), 1)
		m := &machine{data: data, storages: func(key string, dtype tensors.DType, elems int64) (*storage, error) {
			return &storage{key: key, dtype: dtype, elems: elems}, nil
		}}
		_, err := m.run()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %v, want %q", c.data, err, c.want)
		}
	}
}

// TestNumbers reads what a training program notes beside a model.
func TestNumbers(t *testing.T) {
	numpy := func(code, data string) string {
		text := func(s string) string { return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s }
		return "\x80\x04cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n" + text(code) + "\x89\x88\x87R(K\x03" + text("<") + "NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbC" + string(rune(len(data))) + data + "tR."
	}
	for program, want := range map[string]any{
		numpy("f8", "\x00\x00\x00\x00\x00\x00\xf8\x3f"):         1.5,
		numpy("f4", "\x00\x00\xc0\x3f"):                         1.5,
		numpy("b1", "\x01"):                                     true,
		numpy("i4", "\xff\xff\xff\xff"):                         int64(-1),
		"\x80\x02\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.": Large("\x00\x00\x00\x00\x00\x00\x00\x00\x01"),
	} {
		if got, err := (&machine{data: []byte(program)}).run(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v, want %v", program, got, err, want)
		}
	}
	if _, err := (&machine{data: []byte(numpy("c8", "12345678"))}).run(); err == nil || !strings.Contains(err.Error(), `of the type "c8"`) {
		t.Error(err)
	}
}

// TestLegacyProtocols reads old files that were written with a protocol that somebody chose.
func TestLegacyProtocols(t *testing.T) {
	for protocol := byte(2); protocol <= 5; protocol++ {
		var data []byte
		for _, body := range []string{string(legacyMagic), "M\xe9\x03.", "}.", "}X\x01\x00\x00\x00nctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02NtQK\x00K\x02\x85K\x01\x85\x89NtRs.", "]X\x01\x00\x00\x000a."} {
			data = append(data, 0x80, protocol)
			if protocol >= 4 {
				data = binary.LittleEndian.AppendUint64(append(data, 0x95), uint64(len(body)))
			}
			data = append(data, body...)
		}
		data = append(binary.LittleEndian.AppendUint64(data, 2), "12345678"...)
		root, err := Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Errorf("protocol %d: %v", protocol, err)
			continue
		}
		if raw, err := root.(*Dict).Values["n"].(*Tensor).Data(); err != nil || string(raw) != "12345678" {
			t.Errorf("protocol %d: %q, %v", protocol, raw, err)
		}
		if _, err := Read(bytes.NewReader(data), int64(len(data)-1)); err == nil || !strings.Contains(err.Error(), `of 2 elements does not fit in what is left of the file`) {
			t.Errorf("protocol %d, cut short: %v", protocol, err)
		}
	}
}

// TestWrite reads back what Write wrote.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.bin")
	raw := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, math.Float32bits(1.5)), math.Float32bits(-2))
	x := tensors.View{Info: tensors.Info{Name: "x", DType: tensors.F32, Shape: []int{2, 1}}, Data: raw}
	in := &Dict{Keys: []string{"size", "steps", "x", "none", "yes", "mixed"}, Values: map[string]any{"size": Tuple{int64(2), int64(1 << 40)},
		"steps": &List{Ints: []int64{0, 255, 256, -1, 1 << 31, -1 << 40}}, "x": x, "none": nil, "yes": true, "mixed": &List{Items: []any{"a", int64(3)}}}}
	if err := Write(path, in); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	out := f.Root().(*Dict)
	for _, key := range []string{"size", "steps", "none", "yes", "mixed"} {
		if !reflect.DeepEqual(out.Values[key], in.Values[key]) {
			t.Errorf("%s: %#v, wrote %#v", key, out.Values[key], in.Values[key])
		}
	}
	if got := f32(t, out.Values["x"].(*Tensor)); !reflect.DeepEqual(got, []float32{1.5, -2}) {
		t.Errorf("tensor %v", got)
	}
	if !reflect.DeepEqual(out.Keys, in.Keys) {
		t.Errorf("keys %v", out.Keys)
	}
	if err := Write(path, struct{}{}); err == nil {
		t.Error("a struct was written")
	}
}

// FuzzProgram wants of any program: an error or a value, no panic and no storage read beyond its end.
func FuzzProgram(f *testing.F) {
	f.Add([]byte("\x80\x02}q\x00(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00b](K\x01K\x02eu."))
	f.Add([]byte("\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89NtR."))
	f.Add([]byte("\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\nX\x02\x00\x00\x00i8\x88\x89\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbc_codecs\nencode\nX\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00X\x06\x00\x00\x00latin1\x86RtR."))
	f.Add([]byte("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8c\x05torch\x8c\x04Size\x93)\x85R."))
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 1<<16 {
			return
		}
		var archive bytes.Buffer
		z := zip.NewWriter(&archive)
		for name, data := range map[string][]byte{"x/data.pkl": program, "x/data/0": []byte("12345678")} {
			w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		root, err := Read(bytes.NewReader(archive.Bytes()), int64(archive.Len()))
		if x, ok := root.(*Tensor); ok && err == nil {
			raw, err := x.Data()
			if err == nil && int64(len(raw)) != x.Elems()*int64(x.DType.Size()) {
				t.Errorf("%d bytes of %d elements", len(raw), x.Elems())
			}
		}
	})
}

// FuzzArchive wants the same of any file.
func FuzzArchive(f *testing.F) {
	whole, err := os.ReadFile(golden + "pytorch_diff.bin")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte("PK\x03\x04"))
	f.Fuzz(func(t *testing.T, data []byte) {
		root, err := Read(bytes.NewReader(data), int64(len(data)))
		if d, ok := root.(*Dict); ok && err == nil {
			for _, v := range d.Values {
				if x, ok := v.(*Tensor); ok {
					_, _ = x.Data()
				}
			}
		}
	})
}
