package hub

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mergekit/mergekit/internal/fakehub"
)

// The addresses that botocore 1.44.8 (S3SigV4QueryAuth) and azure-storage-blob 12.31.1 (generate_container_sas, with sv=2021-12-02) make.
func TestSignatures(t *testing.T) {
	now := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	key := awsKey{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""}
	with := key
	with.session = "TOK/EN="
	u := func(s string) *url.URL {
		x, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	for _, c := range []struct {
		signer             s3Signer
		method, key        string
		query              url.Values
		address, signature string
	}{
		{s3Signer{base: u("https://examplebucket.s3.us-east-1.amazonaws.com"), region: "us-east-1", key: key}, "GET", "test.txt", nil,
			"https://examplebucket.s3.us-east-1.amazonaws.com/test.txt?", "70254e4849c9b9542672cd092ce3e8d46cfb8dfa208e37d61110c74ea5cf51aa"},
		{s3Signer{base: u("https://store.example.org/bucket"), region: "eu-west-3", key: with}, "GET", "a b/münd+@.bin", nil,
			"https://store.example.org/bucket/a%20b/m%C3%BCnd%2B%40.bin?", "fd449c59b3dfef02a00b698cda063c5af3555456bd94e8621557b8010000ad6a"},
		{s3Signer{base: u("https://store.example.org/bucket"), region: "us-east-1", key: key}, "PUT", "x", url.Values{"partNumber": {"3"}, "uploadId": {"a/b="}},
			"https://store.example.org/bucket/x?", "4dd49323922eb502171c8451e54e6eab0946aa8e42fb033a7d04c72b69305d20"},
		{s3Signer{base: u("https://examplebucket.s3.us-east-1.amazonaws.com"), region: "us-east-1", key: key}, "GET", "", url.Values{"list-type": {"2"}, "prefix": {"a/b c"}},
			"https://examplebucket.s3.us-east-1.amazonaws.com/?", "f064debdd3c01729148db14260941ec6a313a0db551141095a37fe0660f8567f"},
	} {
		got := c.signer.address(c.method, c.key, c.query, now)
		if !strings.HasPrefix(got, c.address) || u(got).Query().Get("X-Amz-Signature") != c.signature || u(got).Query().Get("X-Amz-Expires") != "3600" {
			t.Errorf("%s %s: %s, want the signature %s", c.method, c.key, got, c.signature)
		}
	}
	az := azSigner{base: u("https://account.blob.core.windows.net/container"), account: "account", name: "container", key: []byte("0123456789abcdef0123456789abcdef")}
	q := u(az.address("GET", "a/b", nil, now)).Query()
	if q.Get("sig") != "zQwGd5E10ch47QYPdMZxgg1NAGDNEcwHbHDBtcfqbdc=" || q.Get("se") != "2013-05-24T01:00:00Z" || q.Get("sp") != "racwl" {
		t.Errorf("Azure: %v", q)
	}
}

// stores runs an object store that every scheme leads to, and returns a client with a cache of its own.
func stores(t *testing.T) (*fakehub.Objects, *Client) {
	t.Helper()
	o, stop := fakehub.NewObjects()
	t.Cleanup(stop)
	for _, name := range []string{"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN", "AZURE_STORAGE_SAS_TOKEN"} {
		t.Setenv(name, "")
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", none)
	t.Setenv("AWS_CONFIG_FILE", none)
	t.Setenv("AWS_ENDPOINT_URL", o.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("STORAGE_EMULATOR_HOST", o.URL)
	t.Setenv("GS_ACCESS_KEY_ID", "key")
	t.Setenv("GS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AZURE_STORAGE_ACCOUNT", "account")
	t.Setenv("AZURE_STORAGE_ENDPOINT", o.URL)
	t.Setenv("AZURE_STORAGE_KEY", base64.StdEncoding.EncodeToString([]byte("key")))
	c, err := New(Settings{Cache: filepath.Join(t.TempDir(), "hub"), segment: 10_000, wait: func(int) time.Duration { return time.Millisecond }, idle: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return o, c
}

func TestBuckets(t *testing.T) {
	files := model()
	for _, scheme := range []string{"s3", "gs", "az"} {
		o, c := stores(t)
		for name, data := range files {
			o.Content["bucket/models/mine/"+name] = data
		}
		o.Content["bucket/models/mine too/config.json"] = []byte("{}")
		o.Several["bucket/models/mine/model-00002-of-00003.safetensors"] = true
		s, err := c.Bring(context.Background(), scheme+"://bucket/models/mine", "", Want{})
		if err != nil {
			t.Fatalf("%s: %v", scheme, err)
		}
		sameAs(t, s.Dir, files, needed)
		if strings.Contains(s.Dir, "models--") || !strings.Contains(s.Dir, "mergekit-objects") {
			t.Errorf("%s: kept in %s", scheme, s.Dir)
		}
		asked := o.Asked
		if s, err = c.Bring(context.Background(), scheme+"://bucket/models/mine/", "", Want{}); err != nil || s.Fetched != 0 {
			t.Errorf("%s: second time %+v, %v", scheme, s, err)
		}
		if n := o.Asked - asked; n != 9 { // 17 objects, two a page
			t.Errorf("%s: the second time took %d requests", scheme, n)
		}
		// One object.
		dir, err := c.Find(context.Background(), scheme+"://bucket/models/mine/model-00001-of-00003.safetensors", "", true)
		if err != nil || filepath.Base(dir) != "model-00001-of-00003.safetensors" {
			t.Errorf("%s: %s, %v", scheme, dir, err)
		}
		c.s.Offline = true
		again, err := c.Find(context.Background(), scheme+"://bucket/models/mine/model-00001-of-00003.safetensors", "", true)
		if err != nil || again != dir {
			t.Errorf("%s: offline %s, %v", scheme, again, err)
		}
		if off, err := c.Bring(context.Background(), scheme+"://bucket/models/mine", "", Want{}); err != nil || off.Dir != s.Dir {
			t.Errorf("%s: offline %+v, %v", scheme, off, err)
		}
	}
}

func TestBucketFaults(t *testing.T) {
	files := model()
	shard := "model-00001-of-00003.safetensors"
	evil := append([]byte(nil), files[shard]...)
	evil[3] ^= 1
	for name, c := range map[string]struct {
		fault func(o *fakehub.Objects, n int32) fakehub.Fault
		want  string
	}{
		"drops": {func(o *fakehub.Objects, n int32) fakehub.Fault {
			return func(w http.ResponseWriter, r *http.Request) bool {
				if n < 4 {
					fakehub.Break(w, r, files[shard], 700)
				}
				return false
			}
		}, ""},
		"wrong bytes": {func(*fakehub.Objects, int32) fakehub.Fault {
			return func(w http.ResponseWriter, r *http.Request) bool { fakehub.Serve(w, r, evil); return true }
		}, "what was received has the MD5"},
		"changes": {func(o *fakehub.Objects, n int32) fakehub.Fault {
			return func(http.ResponseWriter, *http.Request) bool {
				if n == 3 {
					o.Lock()
					o.Content["bucket/m/"+shard] = evil
					o.Unlock()
				}
				return false
			}
		}, "it has changed since it was listed"},
		"503": {func(*fakehub.Objects, int32) fakehub.Fault {
			return func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true }
		}, "503 Service Unavailable"},
	} {
		o, client := stores(t)
		for name, data := range files {
			o.Content["bucket/m/"+name] = data
		}
		var count atomic.Int32
		o.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
			return strings.HasSuffix(r.URL.Path, shard) && c.fault(o, count.Add(1))(w, r)
		})
		s, err := client.Bring(context.Background(), "s3://bucket/m", "", Want{})
		var failed *TransferError
		if c.want == "" {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sameAs(t, s.Dir, files, needed)
		} else if !errors.As(err, &failed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func TestBucketRefusals(t *testing.T) {
	o, c := stores(t)
	o.Content["bucket/m/config.json"] = []byte("{}")
	for _, x := range []struct{ name, revision, want string }{
		{"s3://other/m", "", "there is no such bucket or object (NoSuchBucket: no such bucket); check its name"},
		{"s3://bucket/n", "", "there is nothing in this place; check bucket and directory"},
		{"s3://", "", "is no place in an object store; write s3://bucket/directory"},
		{"gs://bucket/../x", "", "is no place in an object store"},
		{"az://bucket/a//b", "", "is no place in an object store"},
		{"s3://bucket/m", "main", "s3://bucket/m@main: object stores have no revisions"},
	} {
		_, err := c.Bring(context.Background(), x.name, x.revision, Want{})
		var bad *Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: error %v, want %q", x.name, err, x.want)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	_, err := c.Bring(context.Background(), "s3://bucket/m", "", Want{})
	var bad *Error
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "access is refused (AccessDenied: no signature); check the credentials: AWS_ACCESS_KEY_ID") {
		t.Errorf("error %v", err)
	}
	o.Public = true
	if _, err := c.Bring(context.Background(), "s3://bucket/m", "", Want{}); err != nil {
		t.Errorf("a public bucket: %v", err)
	}
	t.Setenv("AZURE_STORAGE_ACCOUNT", "")
	if _, err := c.Bring(context.Background(), "az://bucket/m", "", Want{}); err == nil || !strings.Contains(err.Error(), "set AZURE_STORAGE_ACCOUNT") {
		t.Errorf("error %v", err)
	}
}

func TestProfiles(t *testing.T) {
	_, _ = stores(t)
	dir := t.TempDir()
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_ENDPOINT_URL", "")
	t.Setenv("AWS_PROFILE", "work")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	for name, text := range map[string]string{
		"credentials": "[default]\naws_access_key_id = wrong\n# a comment\n[work]\naws_access_key_id=id\naws_secret_access_key = sec/ret=\n",
		"config":      "[profile work]\nregion = eu-central-1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := parseBucket("s3://my-bucket/x")
	if err != nil {
		t.Fatal(err)
	}
	s, ok := b.sign.(*s3Signer)
	if !ok || s.key != (awsKey{"id", "sec/ret=", ""}) || s.region != "eu-central-1" || b.base.Host != "my-bucket.s3.eu-central-1.amazonaws.com" {
		t.Errorf("%+v, %s", s, b.base)
	}
}

func TestPushObjects(t *testing.T) {
	for _, scheme := range []string{"s3", "gs", "az"} {
		o, c := stores(t)
		dir, files := result(t)
		var moved atomic.Int64
		c.s.Moved = func(n int64) { moved.Add(n) }
		to := scheme + "://bucket/out/model"
		p, err := c.PushObjects(context.Background(), dir, to, PushOptions{})
		if err != nil {
			t.Fatalf("%s: %v", scheme, err)
		}
		if p.Changed != len(files) || p.Uploaded != p.Bytes || moved.Load() != p.Bytes {
			t.Errorf("%s: %+v, %d moved", scheme, p, moved.Load())
		}
		for name, data := range files {
			if string(o.Content["bucket/out/model/"+name]) != string(data) {
				t.Errorf("%s: %s is not as it was pushed", scheme, name)
			}
		}
		if n := len(o.Order); o.Order[n-1] != "bucket/out/model/config.json" || o.Order[n-2] != "bucket/out/model/model.safetensors.index.json" {
			t.Errorf("%s: written in the order %v", scheme, o.Order)
		}
		// Again: what has an MD5 is not sent; of objects in parts S3 knows none.
		if p, err = c.PushObjects(context.Background(), dir, to, PushOptions{}); err != nil || p.Changed > 2 || scheme == "az" && p.Changed != 0 {
			t.Errorf("%s: second time %+v, %v", scheme, p, err)
		}
		s, err := c.Bring(context.Background(), to, "", Want{})
		if err != nil {
			t.Fatal(err)
		}
		sameAs(t, s.Dir, files, needed)
		// A part that fails for good: the upload is given up.
		o.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("partNumber") == "2" {
				w.WriteHeader(500)
				return true
			}
			return false
		})
		if scheme == "s3" {
			var failed *TransferError
			if _, err := c.PushObjects(context.Background(), dir, "s3://bucket/other", PushOptions{}); !errors.As(err, &failed) || o.Unfinished() != 0 {
				t.Errorf("error %v, %d uploads left", err, o.Unfinished())
			}
		}
	}
}
