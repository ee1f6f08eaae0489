// Package fakehub is a model hub on this machine, for tests: repositories in memory, listings, files by ranges, redirects of large
// files to a store at another address, and faults of every kind. Nothing of the product imports it.
package fakehub

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Repo is a repository of the hub.
type Repo struct {
	Commit string
	Refs   map[string]string // branch or tag -> commit; main is Commit
	Files  map[string][]byte
	Gated  bool // only Hub.Token may read it
	Closed bool // exists for Hub.Token alone
}

// Request is what a server was asked.
type Request struct {
	Server, Method, Path, Range, Authorization string
}

// Fault takes a request in the place of the server, when it returns true.
type Fault func(w http.ResponseWriter, r *http.Request) bool

// Hub is a running hub. Its fields are set before the first request, or with Lock held.
type Hub struct {
	URL, Store string // addresses; Store has large files, and answers nobody who shows a token
	Token      string // that opens gated and closed repositories
	Bare       bool   // listings have neither sizes nor hashes

	sync.Mutex
	Repos    map[string]*Repo
	Fault    Fault // of the hub
	Broken   Fault // of the store
	requests []Request
	uploads  uploads
}

// Start runs a hub for the length of a test.
func Start(t testing.TB) *Hub {
	h, stop := New()
	t.Cleanup(stop)
	return h
}

// New runs a hub until stop is called.
func New() (h *Hub, stop func()) {
	h = &Hub{Repos: map[string]*Repo{}, Token: "hf_secret", uploads: newUploads()}
	front := httptest.NewServer(h.logged("hub", &h.Fault, h.front))
	back := httptest.NewServer(h.logged("store", &h.Broken, h.back))
	h.URL, h.Store = front.URL, back.URL
	return h, func() { front.Close(); back.Close() }
}

// AddDir makes a repository of the files in a directory.
func (h *Hub) AddDir(id, dir string) (string, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(rel)], err = os.ReadFile(p)
		return err
	})
	if err != nil {
		return "", err
	}
	return h.Add(id, files), nil
}

// Add makes a repository of files, whose commit follows from them, and returns the commit.
func (h *Hub) Add(id string, files map[string][]byte) string {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	sum := sha1.New()
	for _, name := range names {
		fmt.Fprintf(sum, "%s %s\n", name, Etag(name, files[name]))
	}
	r := &Repo{Commit: hex.EncodeToString(sum.Sum(nil)), Files: files, Refs: map[string]string{}}
	r.Refs["main"] = r.Commit
	h.Lock()
	h.Repos[id] = r
	h.Unlock()
	return r.Commit
}

// Requests returns what has been asked so far.
func (h *Hub) Requests() []Request {
	h.Lock()
	defer h.Unlock()
	return append([]Request(nil), h.requests...)
}

// Count counts the requests that a test of them accepts.
func (h *Hub) Count(is func(Request) bool) int {
	n := 0
	for _, r := range h.Requests() {
		if is(r) {
			n++
		}
	}
	return n
}

// SetFault replaces the faults of the hub and of the store.
func (h *Hub) SetFault(hub, store Fault) {
	h.Lock()
	h.Fault, h.Broken = hub, store
	h.Unlock()
}

func (h *Hub) logged(server string, fault *Fault, serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Lock()
		h.requests = append(h.requests, Request{server, r.Method, r.URL.Path, r.Header.Get("Range"), r.Header.Get("Authorization")})
		f := *fault
		h.Unlock()
		if f != nil && f(w, r) {
			return
		}
		serve(w, r)
	})
}

// Large tells whether the hub keeps a file in its store.
func Large(name string, data []byte) bool {
	switch path.Ext(name) {
	case ".safetensors", ".bin", ".gguf", ".model":
		return true
	}
	return len(data) > 10<<20
}

// Etag is the hash that the hub knows a file by.
func Etag(name string, data []byte) string {
	if Large(name, data) {
		s := sha256.Sum256(data)
		return hex.EncodeToString(s[:])
	}
	s := sha1.New()
	fmt.Fprintf(s, "blob %d\x00", len(data))
	s.Write(data)
	return hex.EncodeToString(s.Sum(nil))
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Error-Code", code)
	w.Header().Set("X-Error-Message", message)
	w.WriteHeader(status)
}

// repo finds the repository of a request and whether the asker may read it; it has answered when the result is nil.
func (h *Hub) repo(w http.ResponseWriter, r *http.Request, id string) *Repo {
	h.Lock()
	repo := h.Repos[id]
	h.Unlock()
	asked := r.Header.Get("Authorization")
	if asked != "" && asked != "Bearer "+h.Token {
		refuse(w, http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
		return nil
	}
	switch {
	case repo == nil && asked == "", repo != nil && repo.Closed && asked == "":
		refuse(w, http.StatusUnauthorized, "RepoNotFound", "Repository not found")
		return nil
	case repo == nil:
		refuse(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
		return nil
	}
	return repo
}

// commit resolves a revision.
func (r *Repo) commit(revision string) (string, bool) {
	if revision == r.Commit {
		return revision, true
	}
	c, ok := r.Refs[revision]
	return c, ok
}

func (h *Hub) front(w http.ResponseWriter, r *http.Request) {
	elements := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	for i := range elements {
		elements[i], _ = url.PathUnescape(elements[i])
	}
	switch {
	case h.upload(w, r, elements):
	case len(elements) == 6 && elements[0] == "api" && elements[4] == "revision" && r.Method == http.MethodGet:
		h.list(w, r, elements[2]+"/"+elements[3], elements[5])
	case len(elements) >= 5 && elements[2] == "resolve" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		h.resolve(w, r, elements[0]+"/"+elements[1], elements[3], strings.Join(elements[4:], "/"))
	default:
		refuse(w, http.StatusNotFound, "", "no such page")
	}
}

func (h *Hub) list(w http.ResponseWriter, r *http.Request, id, revision string) {
	repo := h.repo(w, r, id)
	if repo == nil {
		return
	}
	commit, ok := repo.commit(revision)
	if !ok {
		refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
		return
	}
	var siblings []map[string]any
	h.Lock()
	for name, data := range repo.Files {
		s := map[string]any{"rfilename": name}
		if !h.Bare {
			s["size"], s["blobId"] = len(data), Etag("text", data)
			if Large(name, data) {
				s["lfs"] = map[string]any{"sha256": Etag(name, data), "size": len(data), "pointerSize": 134}
			}
		}
		siblings = append(siblings, s)
	}
	h.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"id": id, "sha": commit, "siblings": siblings})
}

func (h *Hub) resolve(w http.ResponseWriter, r *http.Request, id, revision, name string) {
	repo := h.repo(w, r, id)
	if repo == nil {
		return
	}
	if repo.Gated && r.Header.Get("Authorization") == "" {
		refuse(w, http.StatusUnauthorized, "GatedRepo", "Access to model "+id+" is restricted")
		return
	}
	commit, ok := repo.commit(revision)
	if !ok {
		refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+revision)
		return
	}
	data, ok := repo.Files[name]
	if !ok {
		refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	w.Header().Set("X-Repo-Commit", commit)
	if !Large(name, data) {
		w.Header().Set("Etag", `"`+Etag(name, data)+`"`)
		Serve(w, r, data)
		return
	}
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(data)))
	w.Header().Set("X-Linked-Etag", `"`+Etag(name, data)+`"`)
	http.Redirect(w, r, h.Store+"/"+id+"/"+name+"?signature=1", http.StatusFound)
}

// back is the store: it knows signed addresses, and takes a token for an attack on it.
func (h *Hub) back(w http.ResponseWriter, r *http.Request) {
	if h.storeUpload(w, r) {
		return
	}
	if r.Header.Get("Authorization") != "" || r.URL.Query().Get("signature") == "" {
		http.Error(w, "only one way to sign", http.StatusBadRequest)
		return
	}
	elements := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	h.Lock()
	var data []byte
	ok := false
	if repo := h.Repos[strings.Join(elements[:2], "/")]; repo != nil && len(elements) == 3 {
		data, ok = repo.Files[elements[2]]
	}
	h.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	Serve(w, r, data)
}

// Serve sends bytes, or the one range of them that is asked for.
func Serve(w http.ResponseWriter, r *http.Request, data []byte) {
	from, to, ranged := Range(r, int64(len(data)))
	w.Header().Set("Accept-Ranges", "bytes")
	if !ranged {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(data)
		}
		return
	}
	if from >= int64(len(data)) {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
	w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(data[from:to])
}

// Range reads the range that a request asks for: from, up to and not including to.
func Range(r *http.Request, size int64) (from, to int64, ok bool) {
	if n, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil || n != 2 {
		return 0, size, false
	}
	return from, min(to+1, size), true
}

// Break answers with the beginning of what Serve would send and then cuts the connection.
func Break(w http.ResponseWriter, r *http.Request, data []byte, after int64) {
	from, to, ranged := Range(r, int64(len(data)))
	if ranged {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data)))
	}
	w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
	if ranged {
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(data[from:min(to, from+after)])
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}
