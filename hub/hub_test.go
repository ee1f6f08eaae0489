package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mergekit/mergekit/internal/fakehub"
)

// noise is n bytes that compress badly and repeat nowhere near.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	x := seed*2862933555777941757 + 3037000493
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return b
}

// model is the files of a model in three shards.
func model() map[string][]byte {
	index := map[string]any{"weight_map": map[string]string{"a": "model-00001-of-00003.safetensors", "b": "model-00002-of-00003.safetensors", "c": "model-00003-of-00003.safetensors"}}
	x, _ := json.Marshal(index)
	return map[string][]byte{
		"config.json": []byte(`{"model_type": "llama"}`), "tokenizer.json": []byte(`{}`), "tokenizer_config.json": []byte(`{"a": 1}`),
		"chat_template.jinja": []byte("{{ messages }}"), "README.md": []byte("# A model"), "modeling_x.py": []byte("boom()"),
		"model.safetensors.index.json":     x,
		"model-00001-of-00003.safetensors": noise(100_001, 1),
		"model-00002-of-00003.safetensors": noise(64_000, 2),
		"model-00003-of-00003.safetensors": noise(17, 3),
		"consolidated.safetensors":         noise(5000, 4),
		"pytorch_model.bin":                noise(4000, 5),
		"optimizer.bin":                    noise(100, 6),
		"trainer_state.json":               []byte("{}"),
		"onnx/model.onnx":                  noise(300, 7),
		"empty.json":                       {},
	}
}

var needed = []string{"README.md", "chat_template.jinja", "config.json", "empty.json", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
	"model-00003-of-00003.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"}

// asking is a client of a hub with a cache of its own, which does not wait long.
func asking(t *testing.T, h *fakehub.Hub, change func(*Settings)) *Client {
	t.Helper()
	s := Settings{Endpoint: h.URL, Cache: t.TempDir(), segment: 10_000, wait: func(int) time.Duration { return time.Millisecond }, idle: 5 * time.Second}
	if change != nil {
		change(&s)
	}
	c, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustName(t *testing.T, s string) Name {
	t.Helper()
	n, err := ParseName(s, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sameAs checks that a snapshot has exactly some files of a repository, byte for byte, and that nothing half done is left.
func sameAs(t *testing.T, dir string, files map[string][]byte, names []string) {
	t.Helper()
	have, err := filesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range have {
		got = append(got, f.Path)
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Fatalf("files %v, want %v", got, names)
	}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(b, files[name]) {
			t.Fatalf("%s is not what the hub has: %v", name, err)
		}
	}
	left, _ := filepath.Glob(filepath.Join(dir, "../../blobs/*mergekit*"))
	if len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
}

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

// A server may fail in any of these ways, a few times or always: the download ends with the hub's bytes or with an error that says what
// happened, and the blobs of the cache are never wrong.
func TestFaults(t *testing.T) {
	files := model()
	shard := "model-00001-of-00003.safetensors"
	data := files[shard]
	isShard := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, shard) }
	header := func(w http.ResponseWriter, r *http.Request, length int64) (from, to int64) {
		from, to, ranged := fakehub.Range(r, int64(len(data)))
		w.Header().Set("Content-Length", fmt.Sprint(length))
		if ranged {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
		}
		return from, to
	}
	faults := []struct {
		name  string
		fault fakehub.Fault
		want  string // of the error when it never ends
		fatal bool   // it fails however seldom the fault is
	}{
		{"drop at once", func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, "cannot be reached", false},
		{"drop midway", func(w http.ResponseWriter, r *http.Request) bool {
			fakehub.Break(w, r, data, 0)
			return true
		}, "broke off after 0 of", false},
		{"429", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}, "429 Too Many Requests", false},
		{"503", func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true }, "503 Service Unavailable", false},
		{"signature expired", func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(403); return true }, "store answers 403", false},
		{"length too short", func(w http.ResponseWriter, r *http.Request) bool {
			_, _, ranged := fakehub.Range(r, 0)
			header(w, r, 5)
			_, _ = w.Write([]byte("12345"))
			return ranged || true
		}, "sends 5 bytes", false},
		{"other range", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", 6+10_000, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(data[7 : 7+10_000])
			return true
		}, "sends bytes 7 to", false},
		{"other size", func(w http.ResponseWriter, r *http.Request) bool {
			from, to, _ := fakehub.Range(r, int64(len(data)))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, 12345678))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(data[from:to])
			return true
		}, "has 12345678 bytes", false},
		{"range that is none", func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Range", "items 1-2/3")
			w.WriteHeader(http.StatusPartialContent)
			return true
		}, `the range "items`, false},
		{"end without length", func(w http.ResponseWriter, r *http.Request) bool {
			from, to, _ := fakehub.Range(r, int64(len(data)))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush() // chunked
			_, _ = w.Write(data[from:from])
			return true
		}, "broke off after 0 of", false},
		{"more than asked", func(w http.ResponseWriter, r *http.Request) bool {
			from, to, _ := fakehub.Range(r, int64(len(data)))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			_, _ = w.Write(append(append([]byte(nil), data[from:to]...), 'x'))
			return true
		}, "more than the", false},
		{"416", func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(416); return true }, "does not have the bytes", true},
		{"compressed", func(w http.ResponseWriter, r *http.Request) bool {
			from, to, _ := fakehub.Range(r, int64(len(data)))
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(data[from:to])
			return true
		}, "compressed (gzip)", true},
		{"round and round", func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
			return true
		}, "redirects", false},
		{"redirect without a place", func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(302); return true }, "302 Found instead", false},
		{"no file", func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(204); return true }, "204 No Content instead", false},
	}
	for _, f := range faults {
		for _, times := range []int32{2, 1 << 30} {
			t.Run(fmt.Sprintf("%s/%d", f.name, times), func(t *testing.T) {
				t.Parallel()
				h := fakehub.Start(t)
				h.Add("org/name", files)
				var left atomic.Int32
				left.Store(times)
				h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
					return isShard(r) && left.Add(-1) >= 0 && f.fault(w, r)
				})
				c := asking(t, h, nil)
				s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
				if times == 2 && !f.fatal {
					if err != nil {
						t.Fatal(err)
					}
					sameAs(t, s.Dir, files, needed)
					return
				}
				var failed *TransferError
				if !errors.As(err, &failed) || !strings.Contains(err.Error(), f.want) || !strings.Contains(err.Error(), "org/name") {
					t.Fatalf("error %v, want one with %q", err, f.want)
				}
				checkBlobs(t, c.s.Cache)
				// When the server is well again, the download goes on.
				h.SetFault(nil, nil)
				if s, err = c.Snapshot(context.Background(), mustName(t, "org/name"), Want{}); err != nil {
					t.Fatal(err)
				}
				sameAs(t, s.Dir, files, needed)
			})
		}
	}
}

// checkBlobs checks that every blob of a cache has the hash that its name is.
func checkBlobs(t *testing.T, cache string) {
	t.Helper()
	blobs, _ := filepath.Glob(filepath.Join(cache, "models--*/blobs/*"))
	for _, b := range blobs {
		if strings.Contains(b, "mergekit") {
			continue
		}
		st, err := os.Stat(b)
		if err == nil {
			err = verify(context.Background(), b, File{Size: st.Size(), Etag: filepath.Base(b)})
		}
		if err != nil {
			t.Errorf("%s: %v", b, err)
		}
	}
}

func TestWrongContentIsThrownAway(t *testing.T) {
	files := model()
	shard := "model-00002-of-00003.safetensors"
	for _, always := range []bool{false, true} {
		h := fakehub.Start(t)
		h.Add("org/name", files)
		evil := append([]byte(nil), files[shard]...)
		evil[12345] ^= 1
		var served atomic.Int32
		h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, shard) || !always && served.Add(1) > 7 {
				return false
			}
			fakehub.Serve(w, r, evil)
			return true
		})
		var warned []string
		c := asking(t, h, func(s *Settings) { s.Warn = func(m string) { warned = append(warned, m) } })
		s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
		if len(warned) != 1 || !strings.Contains(warned[0], "SHA-256") {
			t.Errorf("warnings %q", warned)
		}
		if !always {
			if err != nil {
				t.Fatal(err)
			}
			sameAs(t, s.Dir, files, needed)
			continue
		}
		if err == nil || !strings.Contains(err.Error(), shard+": what was received has the SHA-256") {
			t.Fatalf("error %v", err)
		}
		checkBlobs(t, c.s.Cache)
		if _, err := os.Stat(filepath.Join(c.s.Cache, "models--org--name/refs/main")); err == nil {
			t.Error("a ref leads to a model that is not whole")
		}
		left, _ := filepath.Glob(filepath.Join(c.s.Cache, "models--org--name/blobs/"+fakehub.Etag(shard, files[shard])+"*"))
		if len(left) > 0 {
			t.Errorf("wrong content is kept: %v", left)
		}
	}
}

// Small files have git's hash.
func TestWrongSmallFile(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	h.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/config.json") {
			return false
		}
		fakehub.Serve(w, r, []byte(`{"model_type": "lLama"}`))
		return true
	}, nil)
	c := asking(t, h, nil)
	_, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err == nil || !strings.Contains(err.Error(), "config.json: what was received has the git SHA-1") {
		t.Fatalf("error %v", err)
	}
}

func TestServerWithoutRanges(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	var drops atomic.Int32
	h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Range")
		data := files[filepath.Base(r.URL.Path)]
		if len(data) == 100_001 && drops.Add(1) <= 3 {
			fakehub.Break(w, r, data, 70_000)
		}
		return false
	})
	var total, moved atomic.Int64
	c := asking(t, h, func(s *Settings) {
		s.Started = func(_ string, n int64) { total.Store(n) }
		s.Moved = func(n int64) { moved.Add(n) }
	})
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
	if total.Load() != moved.Load() {
		t.Errorf("%d bytes announced, %d moved", total.Load(), moved.Load())
	}
}

// A drop in the middle of a segment costs no byte that has arrived.
func TestDropResumesInTheSegment(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	shard := "model-00001-of-00003.safetensors"
	h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
		if from, to, _ := fakehub.Range(r, 100_001); strings.HasSuffix(r.URL.Path, shard) && to-from > 3000 {
			fakehub.Break(w, r, files[shard], 3000)
		}
		return false
	})
	c := asking(t, h, func(s *Settings) { s.segment = 30_000 })
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
	if n := h.Count(func(r fakehub.Request) bool { return strings.HasSuffix(r.Path, shard) && r.Server == "store" }); n != 34 {
		t.Errorf("%d requests of 3000 bytes each, want 34", n)
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

func TestSilentServer(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	var silent atomic.Int32
	h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
		if silent.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Length", "10000")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
	c := asking(t, h, func(s *Settings) { s.idle = 100 * time.Millisecond })
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
}

func TestTokenStaysWithTheEndpoint(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	h.Repos["org/name"].Gated, h.Repos["org/name"].Closed = true, true
	c := asking(t, h, func(s *Settings) { s.Token = h.Token })
	if _, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{}); err != nil {
		t.Fatal(err) // the store refuses whoever shows a token
	}
	for _, r := range h.Requests() {
		if (r.Authorization != "") != (r.Server == "hub") {
			t.Errorf("%+v", r)
		}
	}
	// Redirects inside the endpoint keep it.
	var once sync.Once
	h.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		moved := false
		once.Do(func() {
			moved = true
			http.Redirect(w, r, r.URL.Path+"?blobs=true&again=1", http.StatusTemporaryRedirect)
		})
		return moved
	}, nil)
	if _, err := c.List(context.Background(), mustName(t, "org/name")); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	h := fakehub.Start(t)
	h.Add("org/open", model())
	h.Add("org/gated", model())
	h.Add("org/closed", model())
	h.Repos["org/gated"].Gated = true
	h.Repos["org/closed"].Closed = true
	for _, c := range []struct{ token, name, want string }{
		{"", "org/nothing", "org/nothing: does not exist, or is private or gated; check the name, or set HF_TOKEN"},
		{"hf_secret", "org/nothing", "org/nothing: does not exist on this hub"},
		{"", "org/closed", "org/closed: does not exist, or is private or gated"},
		{"hf_wrong", "org/open", "the hub does not accept the token (the hub says: Invalid credentials in Authorization header); check HF_TOKEN"},
		{"", "org/gated", "is gated: its owners let in who has asked them; accept the conditions on the repository's page and set HF_TOKEN"},
		{"", "org/open@v9", "org/open@v9: has no such revision"},
		{"", "hf://org/open/none", "none: the repository has no such file or directory"},
	} {
		client := asking(t, h, func(s *Settings) { s.Token = c.token })
		_, err := client.Snapshot(context.Background(), mustName(t, c.name), Want{})
		var bad *Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %q: error %v, want %q", c.name, c.token, err, c.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	h := fakehub.Start(t)
	h.Add("org/name", model())
	var asked atomic.Int32
	h.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if asked.Add(1) > 1 {
			return false
		}
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	}, nil)
	c := asking(t, h, nil)
	start := time.Now()
	if _, err := c.List(context.Background(), mustName(t, "org/name")); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < time.Second {
		t.Errorf("asked again after %v, the server said one second", d)
	}
	for text, want := range map[string]retryAfter{"": {}, "7": {7 * time.Second, true}, "-1": {}, "soon": {}, "Thu, 01 Jan 1970 00:00:00 GMT": {0, true}} {
		if got := parseRetryAfter(http.Header{"Retry-After": {text}}); got != want {
			t.Errorf("Retry-After %q: %v, want %v", text, got, want)
		}
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

func TestHostileListings(t *testing.T) {
	h := fakehub.Start(t)
	good := strings.Repeat("a", 40)
	for _, c := range []struct{ body, want string }{
		{`{}`, "names no commit"},
		{`{"sha": "../../etc"}`, "names no commit"},
		{`{"sha": "` + good + `", "siblings": [{"rfilename": "../x", "size": 1, "blobId": "` + good + `"}]}`, "no path inside"},
		{`{"sha": "` + good + `", "siblings": [{"rfilename": "/etc/x", "size": 1, "blobId": "` + good + `"}]}`, "no path inside"},
		{`{"sha": "` + good + `", "siblings": [{"rfilename": "a\u0000b", "size": 1, "blobId": "` + good + `"}]}`, "no path inside"},
		{`{"sha": "` + good + `", "siblings": [{"rfilename": "C:\\x", "size": 1, "blobId": "` + good + `"}]}`, "no path inside"},
		{`{"sha": "` + good + `", "siblings": [{"rfilename": "x", "size": 1, "blobId": "../../../x"}]}`, "which is none"},
		{`{"sha": "` + good + `", "siblings": [{"rfilename": "x", "size": -5, "blobId": "` + good + `"}]}`, "which no file has"},
		{`{"sha": "` + good + `", "siblings": [{"rfilename": "x", "size": 4611686018427387904, "blobId": "` + good + `"}]}`, "which no file has"},
		{`{"sha": "` + good + `", "siblings": [{"rfilename": "x"}, {"rfilename": "x"}]}`, "twice"},
		{`[`, "is not what a hub says"},
	} {
		h.SetFault(func(w http.ResponseWriter, r *http.Request) bool { _, _ = w.Write([]byte(c.body)); return true }, nil)
		_, err := asking(t, h, nil).List(context.Background(), mustName(t, "org/name"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.body, err, c.want)
		}
	}
}
