package tensors

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// everyDType is a header with eight elements of each dtype, whole bytes for the packed ones too.
func everyDType() (text string, bytes int) {
	var b strings.Builder
	for d := invalid + 1; d < dtypes; d++ {
		n := d.BitSize()
		fmt.Fprintf(&b, `,%q:{"dtype":%[1]q,"shape":[2,4],"data_offsets":[%d,%d]}`, d, bytes, bytes+n)
		bytes += n
	}
	return "{" + b.String()[1:] + "}", bytes
}

func TestEveryDTypeIsRead(t *testing.T) {
	text, n := everyDType()
	c := open(t, writeFile(t, t.TempDir(), "model.safetensors", safetensors(text, n)))
	at := 0
	for d := invalid + 1; d < dtypes; d++ {
		v, err := c.View(d.String())
		if err != nil || v.DType != d || v.Elems() != 8 || len(v.Data) != d.BitSize() {
			t.Fatalf("%s: %+v, %v", d, v.Info, err)
		}
		for i, b := range v.Data {
			if b != byte(at+i) {
				t.Fatalf("%s: byte %d is %d, want %d", d, i, b, byte(at+i))
			}
		}
		at += len(v.Data)
	}
	if got := len(c.Names()); got != int(dtypes)-1 || c.TotalBytes() != int64(n) {
		t.Errorf("%d tensors of %d bytes, want %d of %d", got, c.TotalBytes(), int(dtypes)-1, n)
	}
}

// 64 GiB of weights are opened for the price of the header, and a tensor at their end for its own.
func TestOpenIsLazy(t *testing.T) {
	const big = 64 << 30
	text := fmt.Sprintf(`{"big":{"dtype":"U8","shape":[%d],"data_offsets":[0,%[1]d]},"last":{"dtype":"U8","shape":[3],"data_offsets":[%[1]d,%d]}}`, big, big+3)
	path := writeFile(t, t.TempDir(), "model.safetensors", safetensors(text, 0))
	end := int64(8 + len(text) + big)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{7, 8, 9}, end); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	allocatesLittle(t, len(text), func() {
		c := open(t, path)
		v, err := c.View("last")
		if err != nil || !bytes.Equal(v.Data, []byte{7, 8, 9}) {
			t.Errorf("%v, %v", v.Data, err)
		}
	})
}

// Where files cannot be mapped, the same bytes are read; views do not share memory then.
func TestRangedReadsWhatMappingReads(t *testing.T) {
	data := tensor("a")
	path := writeFile(t, t.TempDir(), "m.safetensors", data)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var m mapping = ranged{f}
	m.willNeed(0, 1)
	m.release(0, 1)
	for off := range int64(len(data)) {
		got, err := m.bytes(off, int64(len(data))-off)
		if err != nil || !bytes.Equal(got, data[off:]) {
			t.Fatalf("from %d: %v, %v", off, got, err)
		}
	}
	// The file lost its end after it was opened: an error here, no short view.
	if err := os.Truncate(path, int64(len(data)-1)); err != nil {
		t.Fatal(err)
	}
	if got, err := m.bytes(int64(len(data)-4), 4); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("beyond the end: %v, %v", got, err)
	}
	if err := m.close(); err != nil {
		t.Error(err)
	}
	if _, err := m.bytes(0, 1); err == nil {
		t.Error("a closed file is read")
	}
}

// The cache of the hub keeps names as symbolic links to blobs elsewhere: they are followed.
func TestSymlinks(t *testing.T) {
	blobs, dir := t.TempDir(), t.TempDir()
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link(writeFile(t, blobs, "0a", tensor("a")), "1.safetensors")
	link(writeFile(t, blobs, "0b", tensor("b")), "2.safetensors")
	link(writeFile(t, blobs, "0c", indexOf("a", "1.safetensors", "b", "2.safetensors")), "model.safetensors.index.json")
	if got := fmt.Sprint(open(t, dir).Names()); got != "[a b]" {
		t.Error(got)
	}
	for _, c := range []struct{ to, says string }{
		{filepath.Join(blobs, "none"), "shard 2 of 2 of " + filepath.Base(dir) + " is missing; download it again"},
		{blobs, "shard 2 of 2 of " + filepath.Base(dir) + " is not a regular file; check the path"},
		{os.DevNull, "is not a regular file"},
		{"2.safetensors", "too many levels of symbolic links"},
	} {
		if err := os.Remove(filepath.Join(dir, "2.safetensors")); err != nil {
			t.Fatal(err)
		}
		link(c.to, "2.safetensors")
		_, err := Open(dir)
		var f *FormatError
		if !errors.As(err, &f) || f.File != filepath.Join(dir, "2.safetensors") || !strings.Contains(err.Error(), c.says) {
			t.Errorf("a shard that is a link to %s: %v, want %q", c.to, err, c.says)
		}
	}
}

// A shard that is damaged is named with its place among the others, its tensor where there is one, and what to do.
func TestShardErrorsSayWhere(t *testing.T) {
	wrong := safetensors(`{"b":{"dtype":"U8","shape":[5],"data_offsets":[0,4]}}`, 4)
	for _, c := range []struct {
		name        string
		data        []byte
		tensor, msg string
	}{
		{"truncated", tensor("b")[:40], "", "shard 2 of 2 of ckpt is truncated: its header alone has 61 bytes, file has 40"},
		{"data truncated", tensor("b")[:64], "", "shard 2 of 2 of ckpt is truncated: header promises 65 bytes, file has 64"},
		{"too long", append(tensor("b"), 0), "", "shard 2 of 2 of ckpt is damaged: header promises 65 bytes, file has 66"},
		{"empty", nil, "", "shard 2 of 2 of ckpt is no safetensors file: it has 0 bytes, the header's length alone takes 8"},
		{"wrong size", wrong, "b", "of shape [5] and dtype U8 needs 5 bytes, its data_offsets span 4"},
		{"other tensor", tensor("c"), "b", "the index places this tensor here, but the file does not have it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ckpt")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir, "1.safetensors", tensor("a"))
			path := writeFile(t, dir, "2.safetensors", c.data)
			writeFile(t, dir, "model.safetensors.index.json", indexOf("a", "1.safetensors", "b", "2.safetensors"))
			_, err := Open(dir)
			var f *FormatError
			if !errors.As(err, &f) {
				t.Fatal(err)
			}
			if f.File != path || f.Tensor != c.tensor || f.Msg != c.msg || f.Hint == "" {
				t.Errorf("file %s, tensor %q, %q, hint %q; want %s, %q, %q", f.File, f.Tensor, f.Msg, f.Hint, path, c.tensor, c.msg)
			}
		})
	}
}

func TestClosedCheckpointHasNoTensors(t *testing.T) {
	c, err := Open(writeFile(t, t.TempDir(), "m.safetensors", tensor("a")))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c.WillNeed("a", 0, 4)
	c.Release("a", 0, 4)
	if _, err := c.View("a"); err == nil || len(c.Names()) != 0 {
		t.Errorf("%v, %v", c.Names(), err)
	}
}
