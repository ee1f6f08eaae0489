package hub

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mergekit/mergekit/internal/fakehub"
)

func TestSnapshotBringsWhatAMergeNeeds(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	commit := h.Add("org/name", files)
	var total, moved atomic.Int64
	c := asking(t, h, func(s *Settings) {
		s.Started = func(_ string, n int64) { total.Store(n) }
		s.Moved = func(n int64) { moved.Add(n) }
	})
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Commit != commit || !strings.HasSuffix(s.Dir, filepath.Join("models--org--name", "snapshots", commit)) {
		t.Errorf("snapshot %+v", s)
	}
	sameAs(t, s.Dir, files, needed)
	if total.Load() != moved.Load() || total.Load() == 0 {
		t.Errorf("%d bytes announced, %d moved", total.Load(), moved.Load())
	}
	// The layout that Python's tools read.
	target, err := os.Readlink(filepath.Join(s.Dir, "model-00001-of-00003.safetensors"))
	if want := filepath.Join("..", "..", "blobs", fakehub.Etag("x.bin", files["model-00001-of-00003.safetensors"])); err != nil || target != want {
		t.Errorf("link to %s, want %s (%v)", target, want, err)
	}
	ref, err := os.ReadFile(filepath.Join(s.Dir, "../../refs/main"))
	if err != nil || string(ref) != commit {
		t.Errorf("ref %q: %v", ref, err)
	}
	// Segments came on several connections, and the second time nothing comes.
	if n := h.Count(func(r fakehub.Request) bool { return strings.Contains(r.Path, "00001-of") && r.Server == "store" }); n != 11 {
		t.Errorf("the first shard took %d requests, want 11 segments", n)
	}
	before := len(h.Requests())
	if s, err = c.Snapshot(context.Background(), mustName(t, "org/name"), Want{}); err != nil || s.Fetched != 0 {
		t.Errorf("second time: %+v, %v", s, err)
	}
	if n := len(h.Requests()) - before; n != 1 {
		t.Errorf("the second time took %d requests, want the listing alone", n)
	}
	// A commit cannot change, so nobody is asked.
	before = len(h.Requests())
	if _, err := c.Find(context.Background(), "hf://org/name", commit, true); err != nil || len(h.Requests()) != before {
		t.Errorf("a commit that is here: %v, %d requests", err, len(h.Requests())-before)
	}
}

// What an interrupted download has received, the next one does not ask for again, also when a segment was cut.
func TestResumeAfterInterruption(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	cache := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	var moved atomic.Int64
	c := asking(t, h, func(s *Settings) {
		s.Cache = cache
		s.Connections = 2
		s.Moved = func(n int64) {
			if moved.Add(n) > 50_000 {
				cancel()
			}
		}
	})
	if _, err := c.Snapshot(ctx, mustName(t, "org/name"), Want{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	checkBlobs(t, cache)
	got := moved.Load()
	var rest, second atomic.Int64
	c = asking(t, h, func(s *Settings) {
		s.Cache = cache
		s.Started = func(_ string, n int64) { rest.Store(n) }
		s.Moved = func(n int64) { second.Add(n) }
	})
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
	if got < 50_000 || rest.Load() != second.Load() || got+second.Load() != s.Bytes-int64(len(files["model.safetensors.index.json"])+len(files["config.json"])) {
		t.Errorf("%d bytes, then %d (announced %d), of %d", got, second.Load(), rest.Load(), s.Bytes)
	}
}

func TestOffline(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	c := asking(t, h, nil)
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	before := len(h.Requests())
	off := asking(t, h, func(s *Settings) { s.Cache, s.Offline = c.s.Cache, true })
	for _, name := range []string{"org/name", "hf://org/name", "org/name@main", "org/name@" + s.Commit} {
		got, err := off.Snapshot(context.Background(), mustName(t, name), Want{})
		if err != nil || got.Dir != s.Dir {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	_, err = off.Snapshot(context.Background(), mustName(t, "org/other@v1"), Want{})
	var bad *Error
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "org/other@v1: is not in the cache, and --offline (or HF_HUB_OFFLINE) forbids to ask the hub; download it where there is a network: mergekit download org/other@v1") {
		t.Errorf("error %v", err)
	}
	if err := os.Remove(filepath.Join(s.Dir, "model-00002-of-00003.safetensors")); err != nil {
		t.Fatal(err)
	}
	if _, err = off.Snapshot(context.Background(), mustName(t, "org/name"), Want{}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "is not whole in the cache: it lacks model-00002-of-00003.safetensors") {
		t.Errorf("error %v", err)
	}
	if len(h.Requests()) != before {
		t.Error("the hub was asked")
	}
}

func TestUnreachableHub(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	c := asking(t, h, nil)
	if _, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{}); err != nil {
		t.Fatal(err)
	}
	h.SetFault(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(502); return true }, nil)
	var warned []string
	c.s.Warn = func(m string) { warned = append(warned, m) }
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil || len(warned) != 1 || !strings.Contains(warned[0], "502 Bad Gateway") {
		t.Fatalf("error %v, warnings %q", err, warned)
	}
	sameAs(t, s.Dir, files, needed)
	var failed *TransferError
	if _, err = c.Snapshot(context.Background(), mustName(t, "org/else"), Want{}); !errors.As(err, &failed) || !strings.Contains(err.Error(), "org/else: is not in the cache, and the hub was not to be reached") {
		t.Errorf("error %v", err)
	}
	h.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<html>Log in to the wireless network</html>"))
		return true
	}, nil)
	if _, err = c.Snapshot(context.Background(), mustName(t, "org/else"), Want{}); err == nil || !strings.Contains(err.Error(), "is not what a hub says (text/html)") {
		t.Errorf("error %v", err)
	}
}

// Mirrors of hubs list names alone; sizes and hashes then come with each file's own headers.
func TestBareListing(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	h.Bare = true
	s, err := asking(t, h, nil).Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
}

// What Python's tools have downloaded is used.
func TestForeignBlobs(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	c := asking(t, h, nil)
	blobs := filepath.Join(c.s.Cache, "models--org--name/blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	shard := "model-00001-of-00003.safetensors"
	if err := os.WriteFile(filepath.Join(blobs, fakehub.Etag(shard, files[shard])), files[shard], 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
	if n := h.Count(func(r fakehub.Request) bool { return strings.HasSuffix(r.Path, shard) }); n != 0 {
		t.Errorf("a file that was here was asked for %d times", n)
	}
	// A damaged blob is found when that is wanted.
	if err := os.WriteFile(filepath.Join(blobs, fakehub.Etag(shard, files[shard])), make([]byte, len(files[shard])), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err = c.Snapshot(context.Background(), mustName(t, "org/name"), Want{Verify: true}); err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
}

func TestTwoClientsOneCache(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	cache := t.TempDir()
	var group sync.WaitGroup
	for range 4 {
		c := asking(t, h, func(s *Settings) { s.Cache = cache })
		group.Add(1)
		go func() {
			defer group.Done()
			s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
			if err != nil {
				t.Error(err)
				return
			}
			_ = s
		}()
	}
	group.Wait()
	checkBlobs(t, cache)
	if n := h.Count(func(r fakehub.Request) bool { return strings.Contains(r.Path, "00001-of") && r.Server == "store" }); n != 11 {
		t.Errorf("four clients took %d requests for a shard of 11 segments", n)
	}
}
