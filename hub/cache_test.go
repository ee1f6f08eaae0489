package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mergekit/mergekit/internal/fakehub"
)

// A commit whose files were all here is asked for again when somebody has removed a blob; offline, what is gone is said.
func TestRemovedBlob(t *testing.T) {
	files := map[string][]byte{"config.json": []byte(`{"model_type": "llama"}`), "tokenizer.json": []byte("{}"), "model.safetensors": noise(30_000, 1)}
	for _, gone := range []string{"model.safetensors", "tokenizer.json", "config.json"} {
		h := fakehub.Start(t)
		commit := h.Add("org/name", files)
		c := asking(t, h, nil)
		dir, err := c.Find(context.Background(), "org/name", commit, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "../../blobs", fakehub.Etag(gone, files[gone]))); err != nil {
			t.Fatal(err)
		}
		off := asking(t, h, func(s *Settings) { s.Cache, s.Offline = c.s.Cache, true })
		var bad *Error
		if _, err := off.Find(context.Background(), "org/name", commit, true); !errors.As(err, &bad) || !strings.Contains(err.Error(), "is not whole in the cache: it lacks "+gone) {
			t.Errorf("%s: offline: %v", gone, err)
		}
		if _, err := c.Find(context.Background(), "org/name", commit, true); err != nil {
			t.Fatal(err)
		}
		sameAs(t, dir, files, []string{"config.json", "model.safetensors", "tokenizer.json"})
	}
}

// Whoever may only read a cache that has the model needs to write nothing.
func TestCacheThatCannotBeWrittenTo(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	c := asking(t, h, nil)
	if _, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{}); err != nil {
		t.Fatal(err)
	}
	marks := filepath.Join(c.s.Cache, "models--org--name/mergekit")
	if err := os.RemoveAll(marks); err != nil { // as Python's tools leave the cache
		t.Fatal(err)
	}
	if err := os.WriteFile(marks, nil, 0o444); err != nil { // no directory can be made here, not even by root
		t.Fatal(err)
	}
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
}

// Two machines may have processes of one number, and their users one cache: links come to be under names of their own.
func TestLinksAtOnce(t *testing.T) {
	dir := t.TempDir()
	c := cached{dir, filepath.Join(dir, "models--org--name")}
	etag := strings.Repeat("a", 40)
	if err := writeFile(c.blob(etag), []byte("x")); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		var group sync.WaitGroup
		begin := make(chan struct{})
		for range 8 {
			group.Add(1)
			go func() {
				defer group.Done()
				<-begin
				if err := c.link(filepath.Join(c.snapshot("c"), fmt.Sprint(i)), etag); err != nil {
					t.Error(err)
				}
			}()
		}
		close(begin)
		group.Wait()
	}
	if have, err := filesOf(c.snapshot("c")); err != nil || len(have) != 100 {
		t.Errorf("%d files, %v", len(have), err)
	}
}
