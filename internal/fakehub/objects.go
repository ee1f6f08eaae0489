package fakehub

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sort"
	"strconv"
	"strings"
	"sync"
)

// Objects is an object store that speaks S3 at /bucket and Azure's language at /container, for whoever shows a signature. Its lists come in
// pages of two.
type Objects struct {
	URL string

	sync.Mutex
	Public  bool              // without signatures
	Content map[string][]byte // by bucket/key
	Several map[string]bool   // objects whose etag is no MD5, as after an upload in parts
	Fault   Fault
	Order   []string // keys in the order in which they were written
	Asked   int
	parts   map[string]map[int][]byte
}

// NewObjects runs a store until stop is called.
func NewObjects() (o *Objects, stop func()) {
	o = &Objects{Content: map[string][]byte{}, Several: map[string]bool{}, parts: map[string]map[int][]byte{}}
	server := httptest.NewServer(o)
	o.URL = server.URL
	return o, server.Close
}

// SetFault replaces the store's faults.
func (o *Objects) SetFault(f Fault) {
	o.Lock()
	o.Fault = f
	o.Unlock()
}

// Etag is what the store says of an object's content.
func (o *Objects) Etag(name string) string {
	sum := fmt.Sprintf("%x", md5.Sum(o.Content[name]))
	if o.Several[name] {
		sum += "-3"
	}
	return `"` + sum + `"`
}

func (o *Objects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.Lock()
	f := o.Fault
	o.Asked++
	o.Unlock()
	if f != nil && f(w, r) {
		return
	}
	o.Lock()
	defer o.Unlock()
	q := r.URL.Query()
	if !o.Public && q.Get("X-Amz-Signature") == "" && q.Get("sig") == "" {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>no signature</Message></Error>")
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	bucket, key, _ := strings.Cut(name, "/")
	if bucket != "bucket" {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "<Error><Code>NoSuchBucket</Code><Message>no such bucket</Message></Error>")
		return
	}
	switch {
	case key == "" && q.Get("comp") == "list":
		o.list(w, bucket, q.Get("prefix"), q.Get("marker"), true)
	case key == "":
		o.list(w, bucket, q.Get("prefix"), q.Get("continuation-token"), false)
	case r.Method == http.MethodGet:
		if m := r.Header.Get("If-Match"); m != "" && m != o.Etag(name) {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		if data, ok := o.Content[name]; ok {
			Serve(w, r, data)
			return
		}
		http.NotFound(w, r)
	default:
		o.write(w, r, name)
	}
}

func (o *Objects) list(w http.ResponseWriter, bucket, prefix, after string, azure bool) {
	const page = 2
	var keys []string
	for name := range o.Content {
		if key := strings.TrimPrefix(name, bucket+"/"); strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	next := ""
	if len(keys) > page {
		keys = keys[:page]
		next = keys[page-1]
	}
	text := func(s string) string {
		var b strings.Builder
		_ = xml.EscapeText(&b, []byte(s))
		return b.String()
	}
	for i, key := range keys {
		name := bucket + "/" + key
		if azure {
			sum := md5.Sum(o.Content[name])
			keys[i] = fmt.Sprintf("<Blob><Name>%s</Name><Properties><Content-Length>%d</Content-Length><Etag>%s</Etag><Content-MD5>%s</Content-MD5></Properties></Blob>",
				text(key), len(o.Content[name]), text(o.Etag(name)), base64.StdEncoding.EncodeToString(sum[:]))
			continue
		}
		keys[i] = fmt.Sprintf("<Contents><Key>%s</Key><ETag>%s</ETag><Size>%d</Size></Contents>", text(key), text(o.Etag(name)), len(o.Content[name]))
	}
	if azure {
		fmt.Fprintf(w, "<EnumerationResults><Blobs>%s</Blobs><NextMarker>%s</NextMarker></EnumerationResults>", strings.Join(keys, ""), text(next))
		return
	}
	if next != "" {
		next = "<NextContinuationToken>" + text(next) + "</NextContinuationToken>"
	}
	fmt.Fprintf(w, "<ListBucketResult>%s%s</ListBucketResult>", strings.Join(keys, ""), next)
}

// write serves what changes the store.
func (o *Objects) write(w http.ResponseWriter, r *http.Request, name string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	q := r.URL.Query()
	put := func(data []byte, several bool) {
		o.Content[name], o.Several[name] = data, several
		o.Order = append(o.Order, name)
	}
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		o.parts[name] = map[int][]byte{}
		fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>")
	case r.Method == http.MethodPut && q.Get("partNumber") != "", r.Method == http.MethodPut && q.Get("comp") == "block":
		n, _ := strconv.Atoi(q.Get("partNumber"))
		if id, err := base64.StdEncoding.DecodeString(q.Get("blockid")); err == nil && len(id) > 0 {
			n, _ = strconv.Atoi(string(id))
		}
		if o.parts[name] == nil {
			o.parts[name] = map[int][]byte{}
		}
		o.parts[name][n] = body
		w.Header().Set("Etag", fmt.Sprintf(`"%x"`, md5.Sum(body)))
	case r.Method == http.MethodPost, r.Method == http.MethodPut && q.Get("comp") == "blocklist":
		var list struct {
			Part   []struct{ PartNumber int }
			Latest []string
		}
		if xml.Unmarshal(body, &list) != nil || len(list.Part)+len(list.Latest) != len(o.parts[name]) {
			fmt.Fprint(w, "<Error><Message>not all parts</Message></Error>")
			return
		}
		numbers := make([]int, 0, len(o.parts[name]))
		for n := range o.parts[name] {
			numbers = append(numbers, n)
		}
		sort.Ints(numbers)
		var data []byte
		for _, n := range numbers {
			data = append(data, o.parts[name][n]...)
		}
		put(data, true)
		fmt.Fprint(w, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
	case r.Method == http.MethodPut:
		put(body, false)
	case r.Method == http.MethodDelete:
		delete(o.parts, name)
	}
}

// Unfinished counts uploads in parts that were neither completed nor given up.
func (o *Objects) Unfinished() int {
	n := 0
	for name := range o.parts {
		if _, ok := o.Content[name]; !ok {
			n++
		}
	}
	return n
}
