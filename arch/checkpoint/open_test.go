package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

// put copies a file into a directory under a name.
func put(t *testing.T, dir, name, from string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, dir, name, data)
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// A GGUF file is what it holds under the names of transformers, with its rows in their order.
func TestGGUF(t *testing.T) {
	same(t, golden+"gguf/ft1-q8_0.gguf", golden+"gguf/expected.safetensors")
}

// Files of torch.save are opened from here too.
func TestTorch(t *testing.T) {
	same(t, golden+"torch/good.bin", golden+"torch/expected.safetensors")
	same(t, golden+"torch/legacy.bin", golden+"torch/legacy.safetensors")
}

// The content of a file says what it is, whatever its name.
func TestFormatOf(t *testing.T) {
	sources := map[Format]string{Safetensors: golden + "torch/training.safetensors", Torch: golden + "torch/training.pt", GGUF: golden + "gguf/ft1-q8_0.gguf"}
	for want, from := range sources {
		for _, name := range []string{"a.bin", "a.gguf", "a.safetensors", "a"} {
			path := put(t, t.TempDir(), name, from)
			if got, err := FormatOf(path); err != nil || got != want {
				t.Errorf("%s as %s is %q, want %q; %v", from, name, got, want, err)
			}
			c, err := Open(path)
			if err != nil || len(c.Names()) == 0 {
				t.Errorf("%s as %s: %v", from, name, err)
				continue
			}
			_ = c.Close()
		}
	}
	for name, want := range map[string]Format{"x.bin": Torch, "x.pt": Torch, "x.gguf": GGUF, "x.safetensors": Safetensors, "x": Safetensors} {
		path := write(t, t.TempDir(), name, []byte("no such format"))
		if got, _ := FormatOf(path); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
		if _, err := Open(path); !errors.As(err, new(*tensors.FormatError)) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// In a directory safetensors come first, then files of torch.save, then GGUF.
func TestDirectories(t *testing.T) {
	dir := t.TempDir()
	names := func() string {
		t.Helper()
		c, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return strings.Join(c.Names()[:1], "")
	}
	for _, c := range []struct{ from, name, first string }{
		{"gguf/ft1-q8_0.gguf", "m.gguf", "lm_head.weight"},
		{"torch/training.pt", "pytorch_model.bin", "weight"},
		{"torch/expected.safetensors", "model.safetensors", "torch.uint64"},
	} {
		put(t, dir, c.name, golden+c.from)
		if got := names(); got != c.first {
			t.Errorf("with %s the first tensor is %s, want %s", c.name, got, c.first)
		}
	}
	for _, c := range []struct {
		files []string
		says  string
	}{
		{nil, "has no weights"},
		{[]string{"model_index.json"}, "a pipeline of several models (model_index.json)"},
		{[]string{"tf_model.h5"}, "TensorFlow weights (tf_model.h5)"},
		{[]string{"a.gguf", "b.gguf"}, "several GGUF models: a.gguf, b.gguf"},
		{[]string{"a-00002-of-00002.gguf"}, "not the first"},
		{[]string{"optimizer.pt"}, "has no weights"},
	} {
		dir := t.TempDir()
		for _, name := range c.files {
			write(t, dir, name, []byte("x"))
		}
		_, err := Open(dir)
		if !errors.As(err, new(*tensors.FormatError)) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v: %v, want %q", c.files, err, c.says)
		}
	}
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A GGUF file gets a directory with what transformers would have beside its weights, made once; it follows the file.
func TestDirectory(t *testing.T) {
	cache := t.TempDir()
	t.Setenv(CacheVariable, cache)
	home := t.TempDir()
	file := put(t, home, "ft1[q8].gguf", golden+"gguf/ft1-q8_0.gguf")
	dir, err := Directory(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(dir, cache) {
		t.Errorf("%s is not in the cache", dir)
	}
	for _, name := range []string{"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	same(t, dir, golden+"gguf/expected.safetensors")
	if again, err := Directory(file); err != nil || again != dir {
		t.Errorf("%s the second time, %v", again, err)
	}
	if of, err := Directory(home); err != nil || of != dir {
		t.Errorf("the directory with the file has %s, %v", of, err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "gguf", ".partial-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left behind, %v", left, err)
	}
	// A file that has changed is another model.
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, home, "ft1[q8].gguf", append(data, make([]byte, 32)...))
	if other, err := Directory(file); err != nil || other == dir {
		t.Errorf("a changed file has the same directory, %v", err)
	}
	// A configuration beside the file is the user's own.
	write(t, home, "config.json", []byte("{}"))
	if own, err := Directory(home); err != nil || own != home {
		t.Errorf("%s, want the directory itself; %v", own, err)
	}
	for _, path := range []string{golden + "models/ft1", golden + "torch/good.bin", filepath.Join(home, "none"), "org/name"} {
		if got, err := Directory(path); err != nil || got != path {
			t.Errorf("%s becomes %s, %v", path, got, err)
		}
	}
	damaged := write(t, home, "damaged.gguf", data[:5000])
	if _, err := Directory(damaged); !errors.As(err, new(*tensors.FormatError)) {
		t.Error(err)
	}
	t.Setenv(CacheVariable, write(t, home, "file", nil))
	if _, err := Directory(file); err == nil || !strings.Contains(err.Error(), CacheVariable) {
		t.Errorf("a cache that is no directory: %v", err)
	}
	t.Setenv(CacheVariable, "off")
	t.Setenv("TMPDIR", t.TempDir())
	if dir, err := Directory(file); err != nil || strings.HasPrefix(dir, cache) {
		t.Errorf("without a cache: %s, %v", dir, err)
	}
}
