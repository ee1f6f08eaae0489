package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mergekit/mergekit/internal/fakehub"
)

// The etag of an object that is encrypted under a key (SSE-KMS) looks like an MD5 and is none. The store says so with the object.
func TestObjectsUnderAKey(t *testing.T) {
	files := model()
	o, c := stores(t)
	list := strings.Builder{}
	for name, data := range files {
		o.Content["bucket/m/"+name] = data
		fmt.Fprintf(&list, `<Contents><Key>m/%s</Key><ETag>"%032x"</ETag><Size>%d</Size></Contents>`, name, len(data)+len(name)*7919, len(data))
	}
	var key atomic.Value
	key.Store("aws:kms")
	o.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Has("list-type") {
			fmt.Fprintf(w, "<ListBucketResult>%s</ListBucketResult>", list.String())
			return true
		}
		if k, _ := key.Load().(string); k != "" {
			w.Header().Set("X-Amz-Server-Side-Encryption", k)
		}
		fakehub.Serve(w, r, files[filepath.Base(r.URL.Path)])
		return true
	})
	s, err := c.Bring(context.Background(), "s3://bucket/m", "", Want{})
	if err != nil {
		t.Fatal(err)
	}
	sameAs(t, s.Dir, files, needed)
	// A stream compares nothing either.
	c.s.Cache, c.s.block = filepath.Join(t.TempDir(), "hub"), 1000
	var r Remote
	stream, err := c.NewStreamer(func(_ string, remote Remote) func() { r = remote; return func() {} }, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	if _, err := stream.Find(context.Background(), "s3://bucket/m", "", true); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.ReadData(make([]byte, 2000), 5), stream.Verify(context.Background())); err != nil {
		t.Error(err)
	}
	// Under the store's own key an etag is an MD5.
	key.Store("AES256")
	c.s.Cache = filepath.Join(t.TempDir(), "hub")
	if _, err := c.Bring(context.Background(), "s3://bucket/m", "", Want{}); err == nil || !strings.Contains(err.Error(), "what was received has the MD5") {
		t.Errorf("error %v", err)
	}
}

// Without a hash nothing but the version tells that segments belong together, also if the store does not look at If-Match.
func TestVersionsThatMix(t *testing.T) {
	o, c := stores(t)
	files := model()
	shard := "model-00001-of-00003.safetensors"
	for name, data := range files {
		o.Content["bucket/m/"+name] = data
	}
	o.Several["bucket/m/"+shard] = true
	var count atomic.Int32
	o.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, shard) {
			return false
		}
		w.Header().Set("Etag", o.Etag("bucket/m/"+shard))
		if count.Add(1) > 3 {
			w.Header().Set("Etag", `"another-3"`)
		}
		fakehub.Serve(w, r, files[shard])
		return true
	})
	_, err := c.Bring(context.Background(), "s3://bucket/m", "", Want{})
	var failed *TransferError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), shard+": it has changed since it was listed") {
		t.Errorf("error %v", err)
	}
}

// Half a list would pass for a model that has no tokenizer.
func TestListThatDoesNotEnd(t *testing.T) {
	o, c := stores(t)
	o.SetFault(func(w http.ResponseWriter, _ *http.Request) bool {
		fmt.Fprint(w, `<ListBucketResult><Contents><Key>m/config.json</Key><ETag>"x"</ETag><Size>2</Size></Contents><NextContinuationToken>again</NextContinuationToken></ListBucketResult>`)
		return true
	})
	_, err := c.Bring(context.Background(), "s3://bucket/m", "", Want{})
	if err == nil || !strings.Contains(err.Error(), "the store's list does not end") {
		t.Errorf("error %v", err)
	}
}

// Whoever may read and not write is told so, and by which object.
func TestPushObjectsRefused(t *testing.T) {
	o, c := stores(t)
	dir, _ := result(t)
	o.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>no s3:PutObject</Message></Error>")
		return true
	})
	_, err := c.PushObjects(context.Background(), dir, "s3://bucket/m", PushOptions{Include: []string{"*.json"}})
	var bad *Error
	if !errors.As(err, &bad) || bad.File == "" || !strings.Contains(err.Error(), "access is refused (AccessDenied: no s3:PutObject); check the credentials: AWS_ACCESS_KEY_ID") {
		t.Errorf("error %v", err)
	}
}

// A login page answers an upload as readily as anything: what is not in the store was not pushed.
func TestPushObjectsToNowhere(t *testing.T) {
	dir, _ := result(t)
	page := func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Etag", `"x"`)
		return r.Method != http.MethodGet // 200, and nothing is kept
	}
	login := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet {
			http.Redirect(w, r, "/login", http.StatusFound)
		}
		return r.Method != http.MethodGet || r.URL.Path == "/login"
	}
	for want, fault := range map[string]fakehub.Fault{"the store does not list it as it was pushed": page, "a redirect of a PUT to 127.0.0.1": login} {
		o, c := stores(t)
		o.SetFault(fault)
		_, err := c.PushObjects(context.Background(), dir, "s3://bucket/m", PushOptions{Include: []string{"*.json"}})
		var failed *TransferError
		if !errors.As(err, &failed) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// After a power cut bytes that were counted may not be on the disk. Where no hash would tell, only what was synced is counted.
func TestRecordOfWhatNothingVerifies(t *testing.T) {
	for _, c := range []struct {
		etag string
		want int64
	}{{strings.Repeat("a", 64), 1500}, {"v" + strings.Repeat("a", 40), 1000}} {
		blob := filepath.Join(t.TempDir(), "blobs", "x")
		p, err := openPart(blob, c.etag, 5000, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.add(0, make([]byte, 600)), p.add(0, make([]byte, 400)), p.add(1, make([]byte, 500))); err != nil {
			t.Fatal(err)
		}
		if n := p.received(); n != 1500 {
			t.Errorf("%d bytes here", n)
		}
		p.close()
		if n := partReceived(blob, c.etag, 5000); n != c.want {
			t.Errorf("%s: %d bytes recorded, want %d", c.etag, n, c.want)
		}
		if _, err := os.Stat(blob + partSuffix); err != nil {
			t.Error(err)
		}
	}
}
