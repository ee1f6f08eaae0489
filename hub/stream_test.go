package hub

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mergekit/mergekit/internal/fakehub"
)

// streaming opens org/name of a hub and returns its remote files by the names in the snapshot.
func streaming(t *testing.T, h *fakehub.Hub, limit int64, change func(*Settings)) (s *Streamer, dir string, remote map[string]Remote) {
	t.Helper()
	c := asking(t, h, func(s *Settings) {
		s.block = 1000
		if change != nil {
			change(s)
		}
	})
	mounted := map[string]Remote{}
	s, err := c.NewStreamer(func(path string, r Remote) func() {
		mounted[path] = r
		return func() { delete(mounted, path) }
	}, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(s.dir); err == nil {
			t.Error("something is left")
		}
	})
	if dir, err = s.Find(context.Background(), "org/name", "", true); err != nil {
		t.Fatal(err)
	}
	remote = map[string]Remote{}
	list, err := filesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		real, err := filepath.EvalSymlinks(filepath.Join(dir, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		if r, ok := mounted[real]; ok {
			remote[f.Path] = r
		}
	}
	return s, dir, remote
}

func TestStream(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	for _, limit := range []int64{0, 20_000, 1 << 20} { // 16 blocks of 165, 20 of them, all
		s, dir, remote := streaming(t, h, limit, nil)
		if len(remote) != 2 {
			t.Fatalf("%d remote files, want two: the third shard is small", len(remote))
		}
		// All that is no weight is there, and every file has its size.
		for _, name := range needed {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil || st.Size() != int64(len(files[name])) {
				t.Errorf("%s: %v", name, err)
			}
			if b, err := os.ReadFile(filepath.Join(dir, name)); remote[name] == nil && (err != nil || !bytes.Equal(b, files[name])) {
				t.Errorf("%s is not what the hub has: %v", name, err)
			}
		}
		if repo, _, ok := Origin(dir); !ok || repo != "org/name" {
			t.Errorf("%s does not tell where it is from", dir)
		}
		// Several readers, back and forth, in pieces that do not fit blocks.
		var group sync.WaitGroup
		for k := range 4 {
			group.Add(1)
			go func() {
				defer group.Done()
				for name, r := range remote {
					want := files[name]
					for at := 0; at < len(want); at += 777 {
						off := at
						if k%2 == 1 {
							off = (len(want) - 1 - at) / 777 * 777
						}
						p := make([]byte, min(1500, len(want)-off))
						r.WillNeed(int64(off), int64(len(p)))
						if err := r.ReadData(p, int64(off)); err != nil || !bytes.Equal(p, want[off:off+len(p)]) {
							t.Errorf("%s at %d: wrong bytes, %v", name, off, err)
							return
						}
						r.Release(int64(off), int64(len(p)))
					}
				}
			}()
		}
		group.Wait()
		if err := s.Verify(context.Background()); err != nil {
			t.Error(err)
		}
		if limit == 1<<20 && s.Received() != 164_001 {
			t.Errorf("%d bytes came of 164001, though there is room for all", s.Received())
		}
		if st, err := s.pool.file.Stat(); err != nil || st.Size() > max(limit, leastSlots*1000) {
			t.Errorf("%d bytes are kept: %v", st.Size(), err)
		}
	}
}

// A file of which the header alone was read is not fetched for its hash.
func TestStreamReadsWhatIsAsked(t *testing.T) {
	h := fakehub.Start(t)
	h.Add("org/name", model())
	s, _, remote := streaming(t, h, 1<<20, nil)
	p := make([]byte, 10)
	if _, err := remote["model-00001-of-00003.safetensors"].ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, st := range s.streams {
		st.fetches.Wait()
	}
	if n := s.Received(); n > (1+ahead)*1000 {
		t.Errorf("%d bytes came for ten", n)
	}
}

func TestStreamFaults(t *testing.T) {
	files := model()
	shard := "model-00001-of-00003.safetensors"
	evil := append([]byte(nil), files[shard]...)
	evil[99_999] ^= 1
	read := func(r Remote) error { return r.ReadData(make([]byte, 5000), 0) }
	for name, c := range map[string]struct {
		fault fakehub.Fault
		want  string // "": it ends well
	}{
		"drops": {func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.Header.Get("Range"), "99") && !strings.Contains(r.Header.Get("Range"), "7") {
				from, to, _ := fakehub.Range(r, 100_001)
				if to-from == 1000 {
					fakehub.Break(w, r, files[shard], 300)
				}
			}
			return false
		}, ""},
		"wrong bytes": {func(w http.ResponseWriter, r *http.Request) bool { fakehub.Serve(w, r, evil); return true }, "what was received has the SHA-256"},
		"no ranges": {func(w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		}, "ignores ranges, so that nothing can be read where it is; leave out --stream"},
		"dead": {func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(500); return true }, "500 Internal Server Error"},
	} {
		h := fakehub.Start(t)
		h.Add("org/name", files)
		var on atomic.Bool
		h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
			return on.Load() && strings.HasSuffix(r.URL.Path, shard) && c.fault(w, r)
		})
		s, _, remote := streaming(t, h, 1<<20, nil)
		on.Store(true)
		err := read(remote[shard])
		if err == nil {
			err = s.Verify(context.Background())
		}
		var failed *TransferError
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &failed) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

// A signed address serves many ranges; when it has expired, the hub is asked for another one.
func TestStreamSignedAddress(t *testing.T) {
	h := fakehub.Start(t)
	h.Add("org/name", model())
	shard := "model-00001-of-00003.safetensors"
	var asked atomic.Int32
	h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
		if asked.Add(1) == 50 {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	s, _, remote := streaming(t, h, 1<<20, func(s *Settings) { s.Connections = 1 })
	if err := remote[shard].ReadData(make([]byte, 100_001), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := h.Count(func(r fakehub.Request) bool { return r.Server == "hub" && strings.HasSuffix(r.Path, shard) }); n > 8 {
		t.Errorf("the hub was asked %d times for 101 ranges", n)
	}
}

func TestStreamCancelled(t *testing.T) {
	h := fakehub.Start(t)
	h.Add("org/name", model())
	ctx, cancel := context.WithCancel(context.Background())
	c := asking(t, h, func(s *Settings) { s.block = 1000 })
	var r Remote
	s, err := c.NewStreamer(func(_ string, remote Remote) func() { r = remote; return func() {} }, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Find(ctx, "org/name", "", true); err != nil {
		t.Fatal(err)
	}
	h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool { cancel(); <-r.Context().Done(); return true })
	if err := r.ReadData(make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// There is room for few blocks, and a block that was read comes again for the file's hash: if it comes with other bytes, what was made of the
// first ones must not pass.
func TestStreamBytesThatChange(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	shard := "model-00001-of-00003.safetensors"
	evil := append([]byte(nil), files[shard]...)
	evil[90_500] ^= 1
	var served atomic.Int32
	h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
		if from, _, ranged := fakehub.Range(r, 100_001); strings.HasSuffix(r.URL.Path, shard) && ranged && from == 90_000 && served.Add(1) == 1 {
			fakehub.Serve(w, r, evil)
			return true
		}
		return false
	})
	s, _, remote := streaming(t, h, 0, nil)
	p := make([]byte, 1000)
	if err := remote[shard].ReadData(p, 90_000); err != nil || bytes.Equal(p, files[shard][90_000:91_000]) {
		t.Fatalf("the first time: %v, and the bytes are right", err)
	}
	for off := int64(20_000); off < 80_000; off += 1000 { // what was read last stays, so that the block above goes
		if err := remote[shard].ReadData(p, off); err != nil {
			t.Fatal(err)
		}
	}
	err := s.Verify(context.Background())
	var failed *TransferError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), shard+": the server sends other bytes from 90000 on than it sent before") {
		t.Errorf("error %v", err)
	}
}

// A token of an object store stays with the store, also when the store leads elsewhere time and again.
func TestStreamTokenStaysWithTheStore(t *testing.T) {
	o, c := stores(t)
	files := model()
	for name, data := range files {
		o.Content["bucket/m/"+name] = data
	}
	o.Public = true
	t.Setenv("GS_ACCESS_KEY_ID", "")
	t.Setenv("GOOGLE_OAUTH_ACCESS_TOKEN", "ya29.secret")
	var elsewhere, told atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere.Add(1)
		if r.Header.Get("Authorization") != "" {
			told.Add(1)
		}
		fakehub.Serve(w, r, files[filepath.Base(r.URL.Path)])
	}))
	defer other.Close()
	o.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "00001-of") {
			return false
		}
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	c.s.block = 1000
	var r Remote
	s, err := c.NewStreamer(func(_ string, remote Remote) func() {
		if remote.Size() == 100_001 {
			r = remote
		}
		return func() {}
	}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Find(context.Background(), "gs://bucket/m", "", true); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadData(make([]byte, 100_001), 0); err != nil {
		t.Fatal(err)
	}
	if elsewhere.Load() < 10 || told.Load() > 0 {
		t.Errorf("of %d requests elsewhere %d show the token", elsewhere.Load(), told.Load())
	}
}
