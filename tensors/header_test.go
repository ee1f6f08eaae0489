package tensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// safetensors makes a file's content: length, header, and n bytes of data.
func safetensors(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range n {
		b = append(b, byte(i))
	}
	return b
}

func parse(data []byte) (*header, error) { return readHeader(bytes.NewReader(data), int64(len(data))) }

func one(dtype, shape, offsets string) string {
	return fmt.Sprintf(`{"a":{"dtype":%s,"shape":%s,"data_offsets":%s}}`, dtype, shape, offsets)
}

func TestHeader(t *testing.T) {
	const text = `{"__metadata__":{"format":"pt","k":"\u00e9\n"},
		"b":{"shape":[2, 3],"dtype":"F32","data_offsets":[2,26],"extra":{"x":[1,-2.5e3,null,true,"]"]}},
		"a\/x":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},
		"zero":{"dtype":"F64","shape":[4,0],"data_offsets":[26,26]}}   `
	h, err := parse(safetensors(text, 26))
	if err != nil {
		t.Fatal(err)
	}
	if h.size != int64(8+len(text)) || h.data != 26 || h.metadata["format"] != "pt" || h.metadata["k"] != "é\n" {
		t.Errorf("size %d, data %d, metadata %q", h.size, h.data, h.metadata)
	}
	want := []string{"a/x BF16 [] 0 2", "b F32 [2 3] 2 26", "zero F64 [4 0] 26 26"}
	for i, e := range h.tensors {
		if got := fmt.Sprint(e.Name, " ", e.DType, " ", e.Shape, " ", e.begin, " ", e.end); got != want[i] {
			t.Errorf("tensor %d is %s, want %s", i, got, want[i])
		}
	}
	for _, text := range []string{"{}", `{"__metadata__":null}`, `{"__metadata__":{}}  `} {
		if h, err := parse(safetensors(text, 0)); err != nil || len(h.tensors) != 0 {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// nearly2To63 lists tensors that fill all offsets an int64 has, so that the header's own bytes go beyond them.
func nearly2To63() string {
	const n = math.MaxInt64 / 8
	var b strings.Builder
	for i := range 8 {
		fmt.Fprintf(&b, `,"%d":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, i, n, i*n, (i+1)*n)
	}
	return "{" + b.String()[1:] + "}"
}

// Each of these comes from a damaged download or from someone who means harm.
var hostileHeaders = []struct {
	name string
	data []byte
	says string
}{
	{"empty", nil, "is no safetensors file"},
	{"seven bytes", make([]byte, 7), "is no safetensors file"},
	{"claims 2^60 bytes", binary.LittleEndian.AppendUint64(nil, 1<<60), "claims a header of 1 152 921 504 606 846 976 bytes"},
	{"claims 2^64-1 bytes", binary.LittleEndian.AppendUint64(nil, 1<<64-1), "claims a header of 18 446 744 073 709 551 615 bytes"},
	{"claims 2^63 bytes", binary.LittleEndian.AppendUint64(nil, 1<<63), "claims a header of"},
	{"longer than the file", append(binary.LittleEndian.AppendUint64(nil, 90_000_000), '{', '}'), "is truncated: its header alone has 90 000 008 bytes, file has 10"},
	{"no header", safetensors("", 0), "does not begin with '{'"},
	{"no JSON", safetensors("hello", 0), "does not begin with '{'"},
	{"space first", safetensors(" {}", 0), "does not begin with '{'"},
	{"array", safetensors("[]", 0), "does not begin with '{'"},
	{"ends early", safetensors(`{"a":`, 0), "not valid JSON"},
	{"text after the end", safetensors(`{}{}`, 0), "more after the end"},
	{"not UTF-8", safetensors("{\"\xff\":1}", 0), "UTF-8"},
	{"control character", safetensors("{\"\x01\":1}", 0), "control character"},
	{"bad escape", safetensors(`{"\q":1}`, 0), "bad escape"},
	{"tensor is a number", safetensors(`{"a":1}`, 0), "not valid JSON"},
	{"missing offsets", safetensors(`{"a":{"dtype":"F32","shape":[1]}}`, 4), "lacks dtype, shape or data_offsets of a"},
	{"unknown dtype", safetensors(one(`"F31"`, "[1]", "[0,4]"), 4), "unknown dtype F31"},
	{"dtype is a number", safetensors(one("3", "[1]", "[0,4]"), 4), "expected a string"},
	{"negative dimension", safetensors(one(`"F32"`, "[-1]", "[0,4]"), 4), "not negative"},
	{"fractional dimension", safetensors(one(`"F32"`, "[1.5]", "[0,4]"), 4), "whole number"},
	{"exponent", safetensors(one(`"F32"`, "[1e2]", "[0,400]"), 400), "whole number"},
	{"leading zero", safetensors(one(`"F32"`, "[01]", "[0,4]"), 4), "leading zero"},
	{"dimension beyond int64", safetensors(one(`"F32"`, "[9223372036854775808]", "[0,4]"), 4), "too large"},
	{"dimension that wraps to 1", safetensors(one(`"F32"`, "[18446744073709551617]", "[0,4]"), 4), "too large"},
	{"offset that wraps to 4", safetensors(one(`"F32"`, "[1]", "[0,18446744073709551620]"), 4), "too large"},
	{"product overflows", safetensors(one(`"F32"`, "[4294967296,4294967296]", "[0,4]"), 4), "impossible shape"},
	{"product overflows to the right size", safetensors(one(`"U8"`, "[4294967296,4294967296,0]", "[0,0]"), 0), "impossible shape"},
	{"bytes overflow", safetensors(one(`"F64"`, "[2305843009213693952]", "[0,0]"), 0), "larger than any file"},
	{"half a byte", safetensors(one(`"F4"`, "[3]", "[0,2]"), 2), "whole bytes"},
	{"too many dimensions", safetensors(one(`"F32"`, "["+strings.Repeat("1,", 99)+"1]", "[0,4]"), 4), "impossible shape"},
	{"one offset", safetensors(one(`"F32"`, "[1]", "[0]"), 4), "not two numbers"},
	{"three offsets", safetensors(one(`"F32"`, "[1]", "[0,4,8]"), 4), "not two numbers"},
	{"ends before it begins", safetensors(one(`"F32"`, "[1]", "[4,0]"), 4), "before it begins"},
	{"size does not match", safetensors(one(`"F32"`, "[2]", "[0,4]"), 4), "needs 8 bytes, its data_offsets span 4"},
	{"beyond the file", safetensors(one(`"F32"`, "[4]", "[0,16]"), 8), "is truncated: header promises"},
	{"promises 2^63 bytes", safetensors(nearly2To63(), 4), "is truncated: header promises 9 223 372 036 854 776 "},
	{"data that is no tensor's", safetensors(one(`"F32"`, "[1]", "[0,4]"), 8), "is damaged: header promises"},
	{"gap at the start", safetensors(one(`"F32"`, "[1]", "[4,8]"), 8), "begins at byte 4"},
	{"gap", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3), "b: begins at byte 2 of the data, but a ends at 1"},
	{"overlap", safetensors(`{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}`, 24), "b: overlaps a"},
	{"the same bytes twice", safetensors(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 4), "overlaps"},
	{"tensor twice", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "twice"},
	{"tensor twice, escaped", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "twice"},
	{"shape twice", safetensors(`{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}`, 1), "twice"},
	{"metadata is no text", safetensors(`{"__metadata__":{"a":1}}`, 0), "expected a string"},
	{"metadata twice", safetensors(`{"__metadata__":{},"__metadata__":{}}`, 0), "twice"},
	{"metadata key twice", safetensors(`{"__metadata__":{"a":"","a":""}}`, 0), "twice"},
	{"deep nesting", safetensors(`{"a":{"x":`+strings.Repeat("[", 100_000), 0), "too deep"},
	{"GGUF", []byte("GGUF\x03\x00\x00\x00\x00\x00\x00\x00"), "is a GGUF file"},
	{"Git LFS pointer", []byte("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"},
	{"pickle", []byte("PK\x03\x04\x00\x00\x08\x08\x00\x00"), "PyTorch pickle"},
}

func TestHostileHeaders(t *testing.T) {
	for _, c := range hostileHeaders {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.data)
			var f *FormatError
			if !errors.As(err, &f) || !strings.Contains(err.Error(), c.says) || f.Hint == "" {
				t.Fatalf("%v (%T), want a *FormatError with a hint that says %q", err, err, c.says)
			}
			path := filepath.Join(t.TempDir(), "model.safetensors")
			if err := os.WriteFile(path, c.data, 0o666); err != nil {
				t.Fatal(err)
			}
			if _, err = Open(path); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
				t.Errorf("Open says %v, without the file's name", err)
			}
		})
	}
}

// What a header claims must not decide how much is allocated.
func TestHostileHeadersAllocateLittle(t *testing.T) {
	for _, c := range hostileHeaders {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := parse(c.data)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; err == nil || got > uint64(20*len(c.data)+64<<10) {
			t.Errorf("%s: %d bytes allocated for a file of %d, %v", c.name, got, len(c.data), err)
		}
	}
}

// A name must not write to the terminal.
func TestNamesAreShownHarmless(t *testing.T) {
	_, err := parse(safetensors(`{"\u001b[2J":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4))
	if err == nil || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), `"\x1b[2J"`) {
		t.Errorf("%v", err)
	}
	_, err = parse(safetensors(`{"`+strings.Repeat("n", 10_000)+`":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4))
	if err == nil || len(err.Error()) > 600 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

func TestGroup(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1 000", 4_983_112_960: "4 983 112 960", -1: "-1", -1234: "-1 234", -123: "-123"} {
		if got := group(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, c := range hostileHeaders {
		if len(c.data) < 4096 {
			f.Add(c.data)
		}
	}
	f.Add(safetensors(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[4,12]}}`, 12))
	f.Fuzz(func(t *testing.T, data []byte) {
		var h *header
		var err error
		allocatesLittle(t, len(data), func() { h, err = parse(data) })
		if err != nil {
			if !errors.As(err, new(*FormatError)) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		at := int64(0)
		for _, e := range h.tensors {
			if e.begin != at || e.end-e.begin != e.Bytes() || e.Name == metadataKey || e.DType == invalid || e.DType >= dtypes {
				t.Fatalf("%q of %s %v at %d to %d, after %d", e.Name, e.DType, e.Shape, e.begin, e.end, at)
			}
			at = e.end
		}
		if h.size+at != int64(len(data)) {
			t.Fatalf("header %d and data %d of a file of %d", h.size, at, len(data))
		}
		meansTheSame(t, h, data[8:h.size])
		// What was read is written and read again as the same.
		var infos []Info
		for _, e := range h.tensors {
			infos = append(infos, e.Info)
		}
		l, err := plan(infos, -1, h.metadata)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		again, err := readHeader(bytes.NewReader(l.shards[0].header), l.shards[0].size)
		if err != nil || len(again.tensors) != len(h.tensors) {
			t.Fatalf("written but not read: %v\n%s", err, l.shards[0].header)
		}
	})
}
