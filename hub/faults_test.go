package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mergekit/mergekit/internal/fakehub"
)

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

// A server that sends all that was asked for and then neither more nor an end has sent all that was asked for.
func TestAnswerThatNeverEnds(t *testing.T) {
	h := fakehub.Start(t)
	files := model()
	h.Add("org/name", files)
	shard := "model-00002-of-00003.safetensors"
	var silent atomic.Bool
	h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
		from, to, ranged := fakehub.Range(r, int64(len(files[shard])))
		if !strings.HasSuffix(r.URL.Path, shard) || !ranged || silent.Swap(true) {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(files[shard])))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(files[shard][from:to])
		w.(http.Flusher).Flush() // chunked: the length does not tell the end
		<-r.Context().Done()
		return true
	})
	c := asking(t, h, func(s *Settings) { s.idle = 200 * time.Millisecond })
	s, err := c.Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
	if n := h.Count(func(r fakehub.Request) bool { return strings.HasSuffix(r.Path, shard) && r.Server == "store" }); n != 7 {
		t.Errorf("%d requests for 7 segments", n)
	}
}

// An address is told to nobody whom it redirects to: it may be a signed one.
func TestRedirectTellsNoAddress(t *testing.T) {
	h := fakehub.Start(t)
	h.Add("org/name", model())
	var told atomic.Value
	h.SetFault(nil, func(_ http.ResponseWriter, r *http.Request) bool {
		if from := r.Header.Get("Referer"); from != "" {
			told.Store(from)
		}
		return false
	})
	if _, err := asking(t, h, nil).Snapshot(context.Background(), mustName(t, "org/name"), Want{}); err != nil || told.Load() != nil {
		t.Errorf("told %v, error %v", told.Load(), err)
	}
}

// What a hub says is bounded before it is believed, and the memory that it takes as well.
func TestListingOfNothings(t *testing.T) {
	h := fakehub.Start(t)
	body := []byte(`{"sha": "` + strings.Repeat("a", 40) + `", "siblings": [{}` + strings.Repeat(",{}", 3_000_000) + `]}`)
	h.SetFault(func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write(body); return true }, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := asking(t, h, nil).List(context.Background(), mustName(t, "org/name"))
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "has more than 200000 files") {
		t.Errorf("error %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 200<<20 {
		t.Errorf("%d MiB for an answer of 9", n>>20)
	}
}

// A repository may have a screenshot whose name Windows would not take.
func TestNamesThatSomeSystemsDoNotTake(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("such files cannot be made here")
	}
	h := fakehub.Start(t)
	files := model()
	files[`pictures/at 12:30 "why?".png`] = []byte("png")
	h.Add("org/name", files)
	s, err := asking(t, h, nil).Snapshot(context.Background(), mustName(t, "org/name"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
	if s, err = asking(t, h, nil).Snapshot(context.Background(), mustName(t, "org/name"), Want{Include: []string{"*.png"}}); err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, []string{`pictures/at 12:30 "why?".png`})
}

// Who waits for a listing in vain is told for which repository.
func TestSilentListing(t *testing.T) {
	h := fakehub.Start(t)
	h.SetFault(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }, nil)
	c := asking(t, h, func(s *Settings) { s.idle, s.Transport = 20*time.Millisecond, &http.Transport{} })
	_, err := c.List(context.Background(), mustName(t, "org/name"))
	if err == nil || !strings.Contains(err.Error(), "org/name: the server is silent") {
		t.Errorf("error %v", err)
	}
}
