package hub

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// bucket is a place in an object store: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix. The prefix is a directory, or one
// object.
type bucket struct {
	written, scheme string
	name, prefix    string
	base            *url.URL // address of the bucket
	sign            signer
}

// signer makes an address that the store answers, for a while: for a method, an object ("" for the bucket itself) and further parameters.
type signer interface {
	address(method, key string, query url.Values, now time.Time) string
	header() http.Header // of every request, beside the address; may be nil
}

// signedFor is how long an address is good: longer than any segment takes.
const signedFor = time.Hour

// IsBucket tells whether a name is one in an object store.
func IsBucket(name string) bool {
	for _, s := range []string{"s3://", "gs://", "az://"} {
		if strings.HasPrefix(name, s) {
			return true
		}
	}
	return false
}

// parseBucket reads SCHEME://BUCKET/PREFIX, with credentials and addresses of the environment.
func parseBucket(s string) (*bucket, error) {
	b := &bucket{written: s}
	var rest string
	b.scheme, rest, _ = strings.Cut(s, "://")
	b.name, b.prefix, _ = strings.Cut(rest, "/")
	b.prefix = strings.TrimSuffix(b.prefix, "/")
	if !part.MatchString(b.name) || strings.Contains(b.name, "..") || b.prefix != "" && !plainPath(b.prefix) {
		return nil, &Error{Repo: s, Msg: "is no place in an object store", Hint: "write " + b.scheme + "://bucket/directory"}
	}
	var err error
	switch b.scheme {
	case "s3":
		err = b.s3()
	case "gs":
		err = b.gs()
	default:
		err = b.az()
	}
	return b, err
}

// endpointOf reads an address of a store from the environment.
func endpointOf(written, variable, address string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSuffix(address, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, &Error{Repo: written, Msg: fmt.Sprintf("%s is no address: %q", variable, plain(address)), Hint: "write something like https://store.example.org"}
	}
	return u, nil
}

// bucketPlace is where the files below a prefix are.
func (c *Client) bucketPlace(name, revision string) (*place, error) {
	if revision != "" {
		return nil, &Error{Repo: name + "@" + revision, Msg: "object stores have no revisions", Hint: `leave out what follows the "@"`}
	}
	b, err := parseBucket(name)
	if err != nil {
		return nil, err
	}
	roots := c.s.roots()
	if len(roots) == 0 {
		return nil, &Error{Repo: name, Msg: "there is no place for a cache: neither a home directory nor HF_HOME", Hint: "set HF_HUB_CACHE or --transformers-cache to a directory"}
	}
	root := filepath.Join(roots[0], ".mergekit-objects")
	if filepath.Base(roots[0]) == "hub" { // beside the repositories of hubs, where their tools do not look
		root = filepath.Join(filepath.Dir(roots[0]), "mergekit-objects")
	}
	sum := sha1.Sum([]byte(b.base.String() + " " + b.prefix))
	repo := cached{root, filepath.Join(root, fmt.Sprintf("%s--%s-%s", b.scheme, b.name, hex.EncodeToString(sum[:6])))}
	n := Name{Repo: name, Written: name}
	pl := &place{name: n, repo: repo, caches: []cached{repo}, object: b.prefix[strings.LastIndex(b.prefix, "/")+1:]}
	versions := map[string]string{} // of the last listing: what the store says of each object's content
	single := false
	pl.list = func(ctx context.Context, attempts int) (*Listing, error) {
		objects, err := c.objects(ctx, b, attempts)
		if err != nil {
			return nil, err
		}
		var l *Listing
		if l, single, err = b.listing(objects, versions); err != nil {
			return nil, err
		}
		if single {
			pl.name.Sub = l.Files[0].Path
		}
		return l, nil
	}
	pl.at = func(_ context.Context, _ string, f File) (string, error) {
		return b.sign.address(http.MethodGet, b.key(f.Path, single), nil, time.Now()), nil
	}
	pl.header = func(f File) http.Header {
		h := http.Header{}
		for k, v := range b.sign.header() {
			h[k] = v
		}
		if v := versions[f.Path]; v != "" {
			h.Set("If-Match", v) // all segments are of one version
		}
		return h
	}
	return pl, nil
}

// key is an object's name in the bucket.
func (b *bucket) key(file string, single bool) string {
	switch {
	case single:
		return b.prefix
	case b.prefix == "":
		return file
	}
	return b.prefix + "/" + file
}

// objectInfo is what a store says about an object.
type objectInfo struct {
	key, version string // version as If-Match takes it
	md5          string // in hexadecimal; "" if the store does not know it
	size         int64
}

// listing makes a listing of what a store has below a prefix. Its commit follows from names, sizes and versions.
func (b *bucket) listing(objects []objectInfo, versions map[string]string) (l *Listing, single bool, err error) {
	l = &Listing{}
	sum := sha1.New()
	sort.Slice(objects, func(i, j int) bool { return objects[i].key < objects[j].key })
	for _, o := range objects {
		file := o.key
		switch {
		case o.key == b.prefix:
			file, single = o.key[strings.LastIndex(o.key, "/")+1:], true
			l.Files = nil
		case b.prefix != "":
			below, ok := strings.CutPrefix(o.key, b.prefix+"/")
			if !ok {
				continue // a name that only begins like the prefix
			}
			file = below
		}
		if file == "" || strings.HasSuffix(file, "/") {
			continue // what stands for a directory
		}
		if o.size < 0 || o.size > mostBytes {
			return nil, false, &TransferError{Repo: b.written, File: plain(file), Msg: fmt.Sprintf("has %d bytes by the store's list, which no object has", o.size)}
		}
		if !filePath(file) {
			return nil, false, &Error{Repo: b.written, Msg: fmt.Sprintf("has an object %q, which is no path inside a directory", plain(o.key)), Hint: "rename it"}
		}
		etag := o.md5
		if etag == "" { // only the version tells contents apart
			etag = unverified(o.key, o.version, o.size)
		}
		fmt.Fprintf(sum, "%q %d %q\n", file, o.size, o.version)
		l.Files = append(l.Files, File{Path: file, Size: o.size, Etag: etag})
		versions[file] = o.version
		if single {
			break
		}
	}
	if len(l.Files) == 0 {
		return nil, false, &Error{Repo: b.written, Msg: "there is nothing in this place", Hint: "check bucket and directory"}
	}
	l.Commit = hex.EncodeToString(sum.Sum(nil))
	return l, single, nil
}

// unverified is the name of a blob of whose content the store tells no hash.
func unverified(key, version string, size int64) string {
	sum := sha1.Sum([]byte(fmt.Sprintf("%q %q %d", key, version, size)))
	return "v" + hex.EncodeToString(sum[:])
}

// mostPages bounds how long a list may be; pages have a thousand objects, but may be empty.
const mostPages = 20_000

// objects lists a bucket below the prefix.
func (c *Client) objects(ctx context.Context, b *bucket, attempts int) ([]objectInfo, error) {
	var out []objectInfo
	for token, pages := "", 0; ; pages++ {
		query := url.Values{}
		if b.scheme == "az" {
			query.Set("restype", "container")
			query.Set("comp", "list")
			setIf(query, "marker", token)
		} else {
			query.Set("list-type", "2")
			setIf(query, "continuation-token", token)
		}
		setIf(query, "prefix", b.prefix)
		var page struct {
			Contents []struct {
				Key, ETag string
				Size      int64
			}
			NextContinuationToken string
			Blobs                 struct {
				Blob []struct {
					Name       string
					Properties struct {
						Length int64  `xml:"Content-Length"`
						Etag   string `xml:"Etag"`
						MD5    string `xml:"Content-MD5"`
					}
				}
			}
			NextMarker string
		}
		if err := c.ask(ctx, b, http.MethodGet, "", query, nil, attempts, &page); err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			tag := strings.Trim(o.ETag, `"`)
			info := objectInfo{key: o.Key, size: o.Size, version: `"` + tag + `"`}
			if md5Form.MatchString(tag) { // of an object in several parts it is a hash of hashes
				info.md5 = tag
			}
			out = append(out, info)
		}
		for _, o := range page.Blobs.Blob {
			info := objectInfo{key: o.Name, size: o.Properties.Length, version: `"` + strings.Trim(o.Properties.Etag, `"`) + `"`}
			if sum, err := base64.StdEncoding.DecodeString(o.Properties.MD5); err == nil && len(sum) == 16 {
				info.md5 = hex.EncodeToString(sum)
			}
			out = append(out, info)
		}
		if len(out) > mostFiles {
			return nil, &Error{Repo: b.written, Msg: fmt.Sprintf("has more than %d objects", mostFiles), Hint: "name a directory"}
		}
		next := page.NextContinuationToken + page.NextMarker
		if next == "" {
			return out, nil
		}
		if next == token || pages > mostPages { // half a list would pass for a model that lacks files
			return nil, &TransferError{Repo: b.written, Msg: "the store's list does not end", Hint: "check the endpoint"}
		}
		token = next
	}
}

func setIf(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

// ask sends a small request to a store and decodes the XML of the answer into v (nil: it is not looked at).
func (c *Client) ask(ctx context.Context, b *bucket, method, key string, query url.Values, body []byte, attempts int, v any) error {
	return c.retry(ctx, attempts, func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, 2*c.s.idle, silent(b.written))
		defer cancel()
		req, err := c.request(ctx, method, b.sign.address(method, key, query, time.Now()), strings.NewReader(string(body)))
		if err != nil {
			return err
		}
		for k, value := range b.sign.header() {
			req.Header[k] = value
		}
		resp, err := c.do(req, b.written, key)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
		if err != nil {
			return &transient{err: &TransferError{Repo: b.written, File: key, Msg: "the answer breaks off: " + plain(err.Error()), Hint: "try again"}}
		}
		if resp.StatusCode < 200 || resp.StatusCode > 299 {
			return b.refused(resp, data)
		}
		if v == nil {
			return nil
		}
		if err := xml.Unmarshal(data, v); err != nil {
			return &TransferError{Repo: b.written, Msg: fmt.Sprintf("the answer of %s is not what an object store says", req.URL.Host), Hint: "check the endpoint"}
		}
		return nil
	})
}

// refused explains the answer of a store that is no success.
func (b *bucket) refused(resp *http.Response, data []byte) error {
	var said struct{ Code, Message, Region string }
	_ = xml.Unmarshal(data, &said) // not all answers have a body
	e := &Error{Repo: b.written, Status: resp.StatusCode}
	switch status := resp.StatusCode; {
	case status == http.StatusTooManyRequests || status >= 500:
		return &transient{err: &TransferError{Repo: b.written, Msg: "the store answers " + statusText(status), Hint: "try again later"}, after: parseRetryAfter(resp.Header)}
	case status == http.StatusNotFound:
		e.Msg, e.Hint = "there is no such bucket or object", "check its name"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Msg, e.Hint = "access is refused", "check the credentials: "+credentialHint[b.scheme]
	case status >= 300 && status < 400 || said.Region != "":
		e.Msg, e.Hint = "the bucket is in another region", "set AWS_REGION"
		if region := said.Region + resp.Header.Get("X-Amz-Bucket-Region"); region != "" {
			e.Hint = "set AWS_REGION=" + plain(region)
		}
	default:
		e.Msg = "the store answers " + statusText(status)
	}
	if said.Code != "" {
		e.Msg += " (" + plain(said.Code) + ": " + plain(said.Message) + ")"
	}
	return e
}

var credentialHint = map[string]string{
	"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile AWS_PROFILE in ~/.aws/credentials",
	"gs": "GOOGLE_OAUTH_ACCESS_TOKEN (gcloud auth print-access-token), or an HMAC key in GS_ACCESS_KEY_ID and GS_SECRET_ACCESS_KEY",
	"az": "AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
}

// PushObjects puts the files of a directory under a place in an object store. There is no commit there: weights come first, and the
// configuration and the index last, so that who finds those finds everything. Files that the store has with the same size and MD5 are
// not sent again.
func (c *Client) PushObjects(ctx context.Context, dir, to string, o PushOptions) (*Pushed, error) {
	if c.s.Offline {
		return nil, &Error{Repo: to, Msg: "--offline (or HF_HUB_OFFLINE) forbids to push"}
	}
	b, err := parseBucket(to)
	if err != nil {
		return nil, err
	}
	all, err := pushed(dir, o)
	if err != nil {
		return nil, err
	}
	p := &Pushed{Repo: to, URL: to, Files: len(all)}
	there := map[string]File{}
	objects, err := c.objects(ctx, b, callAttempts)
	if err != nil {
		return nil, err
	}
	for _, x := range objects {
		there[strings.TrimPrefix(x.key, b.key("", false))] = File{Size: x.size, Etag: x.md5}
	}
	changed, err := differing(ctx, all, there)
	if err != nil {
		return nil, err
	}
	sort.SliceStable(changed, func(i, j int) bool { return announces(changed[i].Path) < announces(changed[j].Path) })
	for _, f := range all {
		p.Bytes += f.Size
	}
	if p.Changed = len(changed); p.Changed == 0 {
		return p, nil
	}
	for _, f := range changed {
		p.Uploaded += f.Size
	}
	if c.s.Started != nil {
		c.s.Started("uploading to "+to, p.Uploaded)
	}
	if c.s.Finished != nil {
		defer c.s.Finished()
	}
	slots := make(chan struct{}, c.s.Connections)
	for _, f := range changed {
		if err := c.putObject(ctx, b, f, slots); err != nil {
			return nil, err
		}
	}
	return p, c.compareObjects(ctx, b, changed)
}

// compareObjects looks whether the store has what was pushed. Sizes alone are compared: etags depend on how the store encrypts.
func (c *Client) compareObjects(ctx context.Context, b *bucket, files []*local) error {
	objects, err := c.objects(ctx, b, callAttempts)
	if err != nil {
		return err
	}
	there := map[string]int64{}
	for _, o := range objects {
		there[o.key] = o.size
	}
	for _, f := range files {
		if size, ok := there[b.key(f.Path, false)]; !ok || size != f.Size {
			return &TransferError{Repo: b.written, File: f.Path, Msg: "the store does not list it as it was pushed", Hint: "push again; a file must not change while it is pushed"}
		}
	}
	return nil
}

// announces orders files: what tells a reader that there is a model comes last.
func announces(path string) int {
	switch {
	case strings.HasSuffix(path, ".index.json"):
		return 1
	case filepath.Base(path) == "config.json" || filepath.Base(path) == "adapter_config.json":
		return 2
	}
	return 0
}

// putObject sends one file, in parts if it is large.
func (c *Client) putObject(ctx context.Context, b *bucket, f *local, slots chan struct{}) error {
	file, err := os.Open(f.disk)
	if err != nil {
		return err
	}
	defer file.Close()
	u := &upload{c: c, repo: b.written, file: f, store: b, slots: slots}
	key := b.key(f.Path, false)
	header := map[string]string{}
	for k, v := range b.sign.header() {
		header[k] = v[0]
	}
	if b.scheme == "az" {
		header["X-Ms-Blob-Type"] = "BlockBlob"
	}
	if f.Size <= c.s.partBytes() {
		return u.putSigned(ctx, func() string { return b.sign.address(http.MethodPut, key, nil, time.Now()) }, header, io.NewSectionReader(file, 0, f.Size), nil)
	}
	if b.scheme == "az" {
		return u.azureBlocks(ctx, b, key, file, header)
	}
	return u.s3Parts(ctx, b, key, file, header)
}

// putSigned is put with an address that is made for each attempt.
func (u *upload) putSigned(ctx context.Context, address func() string, header map[string]string, data *io.SectionReader, etag *string) error {
	for tries := 1; ; tries++ {
		tag, err := u.put(ctx, address(), header, data)
		if etag != nil {
			*etag = tag
		}
		var expired *expiredError
		if !errors.As(err, &expired) {
			return err
		}
		if tries == 2 {
			return expired.err
		}
	}
}
