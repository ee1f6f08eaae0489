package tensors

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// elsewhere is a remote file in memory that knows what it was asked.
type elsewhere struct {
	*bytes.Reader
	fail           error
	data, released int64
}

func (e *elsewhere) ReadAt(p []byte, off int64) (int, error) {
	if e.fail != nil {
		return 0, e.fail
	}
	return e.Reader.ReadAt(p, off)
}

func (e *elsewhere) ReadData(p []byte, off int64) error {
	e.data += int64(len(p))
	_, err := e.ReadAt(p, off)
	return err
}

func (e *elsewhere) WillNeed(off, n int64) {}
func (e *elsewhere) Release(off, n int64)  { e.released += n }
func (e *elsewhere) SHA256() string        { return "promised" }
func (e *elsewhere) Close() error          { return nil }

// A checkpoint whose file stands for a remote one has the remote's tensors, read in ranges, into the room that is given.
func TestMount(t *testing.T) {
	dir := t.TempDir()
	here, there := filepath.Join(dir, "here"), filepath.Join(dir, "there")
	if err := os.MkdirAll(here, 0o755); err != nil {
		t.Fatal(err)
	}
	w, err := Create(there, []Info{{Name: "a", DType: F32, Shape: []int{5}}, {Name: "b", DType: U8, Shape: []int{3}}}, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range []int{20, 3} {
		if err := w.WriteAt(i, bytes.Repeat([]byte{byte(i + 7)}, n), 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(there, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(here, "blob")
	if err := os.WriteFile(place, make([]byte, len(content)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("blob", filepath.Join(here, "model.safetensors")); err != nil {
		t.Skip(err)
	}
	if _, err := Open(here); err == nil {
		t.Fatal("zeros are taken for a checkpoint")
	}
	r := &elsewhere{Reader: bytes.NewReader(content)}
	unmount := Mount(place, r)
	c, err := Open(here)
	if err != nil {
		t.Fatal(err)
	}
	if r.data != 0 {
		t.Error("weights were read with the header")
	}
	v, err := c.View("a")
	if err != nil || !bytes.Equal(v.Data, bytes.Repeat([]byte{7}, 20)) {
		t.Errorf("a: %v, %v", v.Data, err)
	}
	reader, err := c.Reader("b")
	if err != nil {
		t.Fatal(err)
	}
	room := make([]byte, 8)
	b, err := reader.Bytes(1, 2, room)
	if err != nil || !bytes.Equal(b, []byte{8, 8}) || &b[0] != &room[0] {
		t.Errorf("b: %v, %v", b, err)
	}
	reader.Release(0, 3)
	if r.data != 22 || r.released != 3 {
		t.Errorf("%d bytes read, %d released", r.data, r.released)
	}
	if sum, err := SHA256(place); err != nil || sum != "promised" {
		t.Errorf("hash %s, %v", sum, err)
	}
	digest, err := HeaderDigest(place)
	want, err2 := HeaderDigest(filepath.Join(there, "model.safetensors"))
	if err != nil || err2 != nil || digest != want {
		t.Errorf("header %s, want %s: %v, %v", digest, want, err, err2)
	}
	r.fail = errors.New("the line is dead")
	if _, err := c.View("a"); !errors.Is(err, r.fail) {
		t.Errorf("error %v", err)
	}
	var bad *FormatError
	if _, err := Open(here); !errors.As(err, &bad) || !errors.Is(err, r.fail) {
		t.Errorf("error %v", err)
	}
	unmount()
	if _, err := Open(here); err == nil {
		t.Error("still mounted")
	}
}
