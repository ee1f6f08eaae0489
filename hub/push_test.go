package hub

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mergekit/mergekit/internal/fakehub"
)

// result is a directory as a merge leaves it.
func result(t *testing.T) (dir string, files map[string][]byte) {
	t.Helper()
	files = map[string][]byte{}
	for name, data := range model() {
		if !strings.HasPrefix(name, "consolidated") && !strings.HasSuffix(name, ".bin") {
			files[name] = data
		}
	}
	dir = t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".hidden"), []byte("no"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, files
}

// on checks what a repository has.
func on(t *testing.T, h *fakehub.Hub, id string, files map[string][]byte) {
	t.Helper()
	r := h.Repos[id]
	if r == nil {
		t.Fatalf("%s is not there", id)
	}
	for name, data := range files {
		if got, ok := r.Files[name]; !ok || !bytes.Equal(got, data) {
			t.Errorf("%s: %s is not as it was pushed", id, name)
		}
	}
	for name := range r.Files {
		if _, ok := files[name]; !ok && name != ".gitattributes" {
			t.Errorf("%s: %s was not pushed", id, name)
		}
	}
}

func TestPush(t *testing.T) {
	h := fakehub.Start(t)
	dir, files := result(t)
	var total, moved atomic.Int64
	c := asking(t, h, func(s *Settings) {
		s.Token = h.Token
		s.Started = func(_ string, n int64) { total.Store(n) }
		s.Moved = func(n int64) { moved.Add(n) }
	})
	p, err := c.Push(context.Background(), dir, mustName(t, "me/merged"), PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	on(t, h, "me/merged", files)
	if p.Commit != h.Repos["me/merged"].Commit || p.Changed != len(files) || p.Uploaded != 164_018 || moved.Load() != p.Uploaded || total.Load() != p.Uploaded {
		t.Errorf("%+v, %d of %d moved", p, moved.Load(), total.Load())
	}
	for _, r := range h.Requests() {
		if r.Server == "store" && r.Authorization != "" {
			t.Errorf("the store was told the token: %+v", r)
		}
	}
	// What has not changed is not pushed again.
	before := len(h.Requests())
	if p, err = c.Push(context.Background(), dir, mustName(t, "me/merged"), PushOptions{}); err != nil || p.Commit != "" || p.Changed != 0 {
		t.Errorf("second time: %+v, %v", p, err)
	}
	if n := len(h.Requests()) - before; n != 2 {
		t.Errorf("the second time took %d requests, want creation and listing", n)
	}
	// One file changes, one goes.
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type": "new"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "empty.json")); err != nil {
		t.Fatal(err)
	}
	files["config.json"] = []byte(`{"model_type": "new"}`)
	delete(files, "empty.json")
	if p, err = c.Push(context.Background(), dir, mustName(t, "me/merged"), PushOptions{Replace: true, Message: "again"}); err != nil || p.Changed != 1 || p.Removed != 1 || p.Uploaded != 0 {
		t.Errorf("third time: %+v, %v", p, err)
	}
	on(t, h, "me/merged", files)
	// What was pushed comes back.
	s, err := c.Snapshot(context.Background(), mustName(t, "me/merged"), Want{})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(s.Dir, "model-00001-of-00003.safetensors")); err != nil || !bytes.Equal(b, files["model-00001-of-00003.safetensors"]) {
		t.Error("what comes back is not what was pushed")
	}
}

// Who asks for a private repository and has one already may have a public one.
func TestPushPrivateToWhatExists(t *testing.T) {
	h := fakehub.Start(t)
	dir, _ := result(t)
	var warned []string
	c := asking(t, h, func(s *Settings) { s.Token, s.Warn = h.Token, func(m string) { warned = append(warned, m) } })
	for _, want := range []int{0, 1} {
		if _, err := c.Push(context.Background(), dir, mustName(t, "me/merged"), PushOptions{Private: true}); err != nil || len(warned) != want {
			t.Errorf("warnings %q, %v", warned, err)
		}
	}
	if len(warned) == 1 && !strings.Contains(warned[0], "me/merged: exists already, and --private does not change who may read it") {
		t.Error(warned)
	}
}

// Failures of hub and store, a few times: the push ends well; always: nothing can be seen of it.
func TestPushFaults(t *testing.T) {
	for name, fault := range map[string]fakehub.Fault{
		"drop":              func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"503":               func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true },
		"signature expired": func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(403); return true },
		"429": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
			return true
		},
	} {
		for _, times := range []int32{2, 1 << 30} {
			h := fakehub.Start(t)
			dir, files := result(t)
			var left atomic.Int32
			left.Store(times)
			h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool { return left.Add(-1) >= 0 && fault(w, r) })
			var total, moved atomic.Int64
			c := asking(t, h, func(s *Settings) {
				s.Token = h.Token
				s.Started = func(_ string, n int64) { total.Store(n) }
				s.Moved = func(n int64) { moved.Add(n) }
			})
			_, err := c.Push(context.Background(), dir, mustName(t, "me/merged"), PushOptions{})
			if times == 2 {
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				on(t, h, "me/merged", files)
				continue
			}
			var failed *TransferError
			if !errors.As(err, &failed) || !strings.Contains(err.Error(), "me/merged: model-0000") {
				t.Errorf("%s: error %v", name, err)
			}
			on(t, h, "me/merged", nil)
			// It goes on when the store is well again.
			h.SetFault(nil, nil)
			if _, err := c.Push(context.Background(), dir, mustName(t, "me/merged"), PushOptions{}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			on(t, h, "me/merged", files)
		}
	}
}

// A push that is cut short leaves objects in the store, which the next does not send again.
func TestPushResumes(t *testing.T) {
	h := fakehub.Start(t)
	dir, files := result(t)
	ctx, cancel := context.WithCancel(context.Background())
	c := asking(t, h, func(s *Settings) { s.Token, s.Connections = h.Token, 1 })
	h.SetFault(nil, func(w http.ResponseWriter, r *http.Request) bool {
		if len(h.Objects()) == 1 {
			cancel()
			panic(http.ErrAbortHandler)
		}
		return false
	})
	if _, err := c.Push(ctx, dir, mustName(t, "me/merged"), PushOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	on(t, h, "me/merged", nil)
	h.SetFault(nil, nil)
	p, err := c.Push(context.Background(), dir, mustName(t, "me/merged"), PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	on(t, h, "me/merged", files)
	if p.Uploaded != 64_017 { // the first shard was sent
		t.Errorf("%d bytes sent", p.Uploaded)
	}
}

func TestPushRefusals(t *testing.T) {
	h := fakehub.Start(t)
	dir, _ := result(t)
	broken, _ := result(t)
	if err := os.Remove(filepath.Join(broken, "model-00003-of-00003.safetensors")); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		dir, name, token, want string
		offline                bool
	}{
		{dir, "me/merged", "", "me/merged: pushing needs a token; set HF_TOKEN to one that may write", false},
		{dir, "me/merged", "hf_wrong", "the hub does not accept the token", false},
		{dir, "me/merged", h.Token, "--offline (or HF_HUB_OFFLINE) forbids to push", true},
		{dir, "hf://merged", h.Token, "is no repository to push to; write org/name", false},
		{filepath.Join(dir, "nothing"), "me/merged", h.Token, "is no directory; give the directory of a merge", false},
		{t.TempDir(), "me/merged", h.Token, "has no files to push", false},
		{broken, "me/merged", h.Token, "is not whole: it lacks model-00003-of-00003.safetensors", false},
	} {
		c := asking(t, h, func(s *Settings) { s.Token, s.Offline = x.token, x.offline })
		_, err := c.Push(context.Background(), x.dir, mustName(t, x.name), PushOptions{})
		var bad *Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: error %v, want %q", x.name, err, x.want)
		}
	}
	if len(h.Repos) != 0 {
		t.Error("a repository has come to be")
	}
}

// A store that wants a file in very many parts does not make as many goroutines.
func TestPartsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, noise(100_001, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	u := &upload{c: &Client{s: Settings{Connections: 3}}, file: &local{File: File{Size: 100_001}}}
	var running, most, total atomic.Int64
	n, err := u.eachPart(context.Background(), file, 10, func(_ context.Context, _ int, data *io.SectionReader) error {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		total.Add(data.Size())
		runtime.Gosched()
		return nil
	})
	if err != nil || n != 10_001 || total.Load() != 100_001 || most.Load() > 3 {
		t.Errorf("%d parts, %d bytes, %d at once, %v", n, total.Load(), most.Load(), err)
	}
	wrong := errors.New("wrong")
	var sent atomic.Int64
	if _, err := u.eachPart(context.Background(), file, 10, func(context.Context, int, *io.SectionReader) error { sent.Add(1); return wrong }); !errors.Is(err, wrong) || sent.Load() > 3 {
		t.Errorf("after an error %d more parts were begun: %v", sent.Load(), err)
	}
}
