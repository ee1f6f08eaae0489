package tensors

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reversed is a source: the bytes of a tensor from the last to the first.
type reversed struct {
	of      *Reader
	closed  *int
	failing error
}

func (r reversed) ReadAt(dst []byte, off int64) error {
	all, err := r.of.Bytes(0, r.of.Info.Bytes(), nil)
	if err != nil || r.failing != nil {
		return errors.Join(err, r.failing)
	}
	for i := range dst {
		dst[i] = all[int64(len(all))-1-off-int64(i)]
	}
	return nil
}
func (r reversed) WillNeed(off, n int64) { r.of.WillNeed(off, n) }
func (r reversed) Release(off, n int64)  { r.of.Release(off, n) }
func (r reversed) Close() error          { *r.closed++; return nil }

func TestAssemble(t *testing.T) {
	path := writeFile(t, t.TempDir(), "raw", []byte("0123456789abcdef"))
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Assemble("model", []*File{f}, []Listing{
		{Info: Info{"x", U8, []int{4}}, Offset: 10},
		{Info: Info{"y", U16, []int{2, 2}}, Offset: 1},
		{Info: Info{"empty", F32, []int{0, 3}}, Offset: 16},
	}, map[string]string{"format": "pt"})
	if err != nil {
		t.Fatal(err)
	}
	closed := 0
	r, err := c.Reader("y")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Relist([]Listing{{Of: "y", Info: Info{Name: "kept"}}, {Info: Info{"back", U8, []int{8}}, Source: reversed{of: r, closed: &closed}}, {Of: "empty", Info: Info{Name: "empty"}}}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Names(), " "); got != "kept back empty" || c.TotalBytes() != 16 {
		t.Errorf("%s, %d bytes", got, c.TotalBytes())
	}
	if _, err := c.View("x"); err == nil {
		t.Error("a tensor that is no longer listed is read")
	}
	for name, want := range map[string]string{"kept": "12345678", "back": "87654321", "empty": ""} {
		v, err := c.View(name)
		if err != nil || string(v.Data) != want || v.Name != name {
			t.Errorf("%s: %q, %v", name, v.Data, err)
		}
		r, err := c.Reader(name)
		if err != nil || r.Stored() == (name == "back") {
			t.Errorf("%s: stored %v, %v", name, r.Stored(), err)
		}
		r.WillNeed(0, 1<<40)
		r.Release(0, 1<<40)
		if want == "" {
			continue
		}
		scratch := make([]byte, 8)
		b, err := r.Bytes(2, 3, scratch)
		if err != nil || string(b) != want[2:5] || name == "back" && !bytes.Equal(scratch[:3], b) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		for _, span := range [][2]int64{{-1, 2}, {7, 2}, {1 << 62, 1 << 62}, {0, -1}} {
			if _, err := r.Bytes(span[0], span[1], nil); err == nil {
				t.Errorf("%s: bytes %v are read", name, span)
			}
		}
	}
	if err := c.Relist([]Listing{{Of: "kept", Info: Info{Name: "kept"}}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil || closed != 1 {
		t.Errorf("closed %d times, %v", closed, err)
	}
}

func TestAssembleRefuses(t *testing.T) {
	path := writeFile(t, t.TempDir(), "raw", []byte("0123456789abcdef"))
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, c := range []struct {
		says     string
		listings []Listing
	}{
		{"outside of the file's 16", []Listing{{Info: Info{"x", F32, []int{5}}}}},
		{"outside of the file's 16", []Listing{{Info: Info{"x", U8, []int{1}}, Offset: 16}}},
		{"outside of the file's 16", []Listing{{Info: Info{"x", U8, []int{1}}, Offset: -1}}},
		{"outside of the file's 16", []Listing{{Info: Info{"x", U8, []int{2}}, Offset: 1<<63 - 1}}},
		{"in no file", []Listing{{Info: Info{"x", U8, []int{1}}, File: 1}}},
		{"in no file", []Listing{{Info: Info{"x", U8, []int{1}}, File: -1}}},
		{"two tensors", []Listing{{Info: Info{"x", U8, []int{1}}}, {Info: Info{"x", U8, []int{2}}}}},
		{"impossible shape", []Listing{{Info: Info{"x", U8, []int{-1}}}}},
		{"impossible shape", []Listing{{Info: Info{"x", U8, []int{1 << 40, 1 << 40}}}}},
		{"has no dtype", []Listing{{Info: Info{"x", 0, []int{1}}}}},
		{"65 dimensions", []Listing{{Info: Info{"x", U8, make([]int, 65)}}}},
		{"no name", []Listing{{Info: Info{"x\xff", U8, []int{1}}}}},
	} {
		_, err := Assemble("model", []*File{f}, c.listings, nil)
		var bad *FormatError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.listings, err, c.says)
		}
	}
	if _, err := OpenFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := OpenFile(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}

// A source's error says which tensor of which checkpoint.
func TestSourceErrors(t *testing.T) {
	c := open(t, writeFile(t, t.TempDir(), "model.safetensors", tensor("a")))
	r, err := c.Reader("a")
	if err != nil {
		t.Fatal(err)
	}
	closed := 0
	if err := c.Relist([]Listing{{Info: r.Info, Source: reversed{of: r, closed: &closed, failing: os.ErrDeadlineExceeded}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.View("a"); !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "model.safetensors: a: ") {
		t.Error(err)
	}
	if err := c.Relist([]Listing{{Of: "none"}}); err == nil {
		t.Error("a tensor that is not there is listed")
	}
	if got := c.Names(); len(got) != 1 {
		t.Errorf("a failed change of the list leaves %v", got)
	}
}

// Of several kinds of weights in a directory each is found, files that hold none are not taken for weights, and what is missing is told.
func TestFindTorch(t *testing.T) {
	for _, c := range []struct {
		files []string
		want  string
	}{
		{[]string{"pytorch_model.bin", "training_args.bin", "optimizer.pt"}, "pytorch_model.bin"},
		{[]string{"weights.pth", "rng_state.pth"}, "weights.pth"},
		{[]string{"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"}, "pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin"},
		{[]string{"diffusion_pytorch_model.bin", "other.bin"}, "diffusion_pytorch_model.bin"},
		{[]string{"pytorch_model-00001-of-00002.bin", "pytorch_model-00003-of-00002.bin"}, "several checkpoints"},
		{[]string{"pytorch_model-00001-of-00002.bin"}, "of its 2 shards these are missing: 2"},
		{[]string{"a.pt", "b.pt"}, "several checkpoints"},
		{[]string{"optimizer.bin"}, "has no PyTorch checkpoint; give"},
		{[]string{"model.safetensors"}, "has no PyTorch checkpoint, but model.safetensors"},
	} {
		dir := t.TempDir()
		for _, name := range c.files {
			writeFile(t, dir, name, nil)
		}
		f, err := Torch.Find(dir)
		if got := ""; err != nil {
			if got = err.Error(); !strings.Contains(got, c.want) {
				t.Errorf("%v: %s, want %q", c.files, got, c.want)
			}
			continue
		}
		if got := strings.Join(f.Files, " "); got != c.want {
			t.Errorf("%v: %s, want %s", c.files, got, c.want)
		}
	}
}
