package tensors

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// makeIn writes a checkpoint of one tensor with a stem of its own.
func makeIn(t *testing.T, dir, stem string) {
	t.Helper()
	w, err := Create(dir, []Info{{"a", U8, []int{2}}, {"b", U8, []int{2}}}, WriteOptions{Stem: stem, ShardBytes: 2})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := errors.Join(w.WriteAt(i, []byte{1, 2}, 0), w.Finish(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// A collection is nowhere until it is whole; what an interrupted one has finished stays, if it was made by the same.
func TestCollection(t *testing.T) {
	root := t.TempDir()
	out := filepath.Join(root, "out")
	c, err := CreateCollection(out, false, false)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := c.Finished("unet", "1"); done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	makeIn(t, c.Dir("unet"), "diffusion_pytorch_model")
	if err := c.Finish("unet", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateCollection(out, false, true); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two at once: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Error("the output is there before it is whole")
	}
	if _, err := CreateCollection(out, false, false); !errors.As(err, new(*FormatError)) || !strings.Contains(err.Error(), "--resume") {
		t.Errorf("an interrupted one is begun again: %v", err)
	}
	for _, key := range []string{"1", "2"} {
		if c, err = CreateCollection(out, false, true); err != nil {
			t.Fatal(err)
		}
		done, err := c.Finished("unet", key)
		_, there := os.Stat(c.Dir("unet"))
		if err != nil || done != (key == "1") || done != (there == nil) {
			t.Errorf("made by 1, asked for %s: %v, %v, %v", key, done, err, there)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if c, err = CreateCollection(out, false, true); err != nil {
		t.Fatal(err)
	}
	makeIn(t, c.Dir("unet"), "diffusion_pytorch_model")
	source := writeFile(t, root, "vocab.json", []byte("{}"))
	if err := errors.Join(c.Finish("unet", "2"), c.WriteFile("model_index.json", []byte("[]")), c.CopyFile("tokenizer/vocab.json", source), c.Commit(), c.Close()); err != nil {
		t.Fatal(err)
	}
	var names []string
	err = filepath.WalkDir(out, func(path string, e os.DirEntry, err error) error {
		if !e.IsDir() {
			rel, _ := filepath.Rel(out, path)
			names = append(names, rel)
		}
		return err
	})
	const stem = "unet/diffusion_pytorch_model"
	want := "model_index.json tokenizer/vocab.json " + stem + "-00001-of-00002.safetensors " + stem + "-00002-of-00002.safetensors " + stem + ".safetensors.index.json"
	if got := strings.Join(names, " "); err != nil || got != want {
		t.Errorf("%s, want %s; %v", got, want, err)
	}
	if got := strings.Join(open(t, filepath.Join(out, "unet")).Names(), " "); got != "a b" {
		t.Error(got)
	}

	// What is there stays without force, and is replaced with it.
	if _, err := CreateCollection(out, false, false); !errors.As(err, new(*FormatError)) {
		t.Error(err)
	}
	if c, err = CreateCollection(out, true, false); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.WriteFile("config.json", nil), c.Commit(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, ".*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(out, "unet")); err == nil {
		t.Error("the old output is still there")
	}
	// Nothing stays of a collection that was not begun, and an output of another kind is not gone on with.
	empty := filepath.Join(root, "empty")
	if c, err = CreateCollection(empty, false, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, ".empty*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	one := filepath.Join(root, ".one.partial")
	if err := os.Mkdir(one, 0o777); err != nil {
		t.Fatal(err)
	}
	writeFile(t, one, journalName, []byte("x"))
	if _, err := CreateCollection(filepath.Join(root, "one"), false, true); err == nil || !strings.Contains(err.Error(), "begun as one checkpoint") {
		t.Error(err)
	}
}

// A stem must be a plain name.
func TestStem(t *testing.T) {
	if _, err := Create(filepath.Join(t.TempDir(), "out"), []Info{{"a", U8, []int{2}}}, WriteOptions{Stem: "../x"}); !errors.As(err, new(*FormatError)) {
		t.Error(err)
	}
}
