//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package tensors

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Opening a pipe waits for a writer and reading a device may never end, so neither may be begun.
func TestPipesAndDevicesAreRefusedAtOnce(t *testing.T) {
	for _, name := range []string{"model.safetensors", "model.safetensors.index.json"} {
		for kind, place := range map[string]func(path string) error{
			"pipe":   func(path string) error { return unix.Mkfifo(path, 0o666) },
			"device": func(path string) error { return os.Symlink("/dev/zero", path) },
		} {
			dir := t.TempDir()
			path := filepath.Join(dir, name)
			if err := place(path); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := Open(dir)
				done <- err
			}()
			select {
			case err := <-done:
				var f *FormatError
				if !errors.As(err, &f) || f.File != path || !strings.Contains(f.Msg, "is not a regular file") || f.Hint == "" {
					t.Errorf("%s that is a %s: %v", name, kind, err)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s that is a %s: still waiting", name, kind)
			}
		}
	}
}

// Two views of a tensor are the same memory: nothing was copied, so a large tensor costs no more than a small one.
func TestViewsAreTheMapping(t *testing.T) {
	// Another tensor follows, into which a view must not reach.
	const two = `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`
	c := open(t, writeFile(t, t.TempDir(), "m.safetensors", safetensors(two, 2)))
	v, err := c.View("a")
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.View("a")
	if err != nil {
		t.Fatal(err)
	}
	if &v.Data[0] != &again.Data[0] {
		t.Error("a view is a copy")
	}
	if cap(v.Data) != len(v.Data) {
		t.Errorf("a view of %d bytes reaches %d bytes on", len(v.Data), cap(v.Data)-len(v.Data))
	}
}
