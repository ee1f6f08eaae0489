package fakehub

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
)

// uploads is what has been sent to the hub so far.
type uploads struct {
	objects map[string][]byte         // by SHA-256: whole and verified
	parts   map[string]map[int][]byte // by SHA-256, of objects in parts
}

func newUploads() uploads {
	return uploads{map[string][]byte{}, map[string]map[int][]byte{}}
}

// PartSize is how long the parts of an object are that is sent in several; smaller ones come in one.
const PartSize = 50_000

// Objects returns the hashes of the objects that the store has.
func (h *Hub) Objects() []string {
	h.Lock()
	defer h.Unlock()
	var out []string
	for oid := range h.uploads.objects {
		out = append(out, oid)
	}
	sort.Strings(out)
	return out
}

// upload serves what a push asks of the hub; false: it is another question.
func (h *Hub) upload(w http.ResponseWriter, r *http.Request, elements []string) bool {
	if r.Method != http.MethodPost {
		return false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	if r.Header.Get("Authorization") != "Bearer "+h.Token {
		refuse(w, http.StatusUnauthorized, "", "Invalid username or password.")
		return true
	}
	switch {
	case len(elements) == 3 && elements[2] == "create":
		h.create(w, body)
	case len(elements) == 6 && elements[4] == "preupload":
		h.preupload(w, body)
	case len(elements) == 6 && strings.HasSuffix(elements[1], ".git") && elements[5] == "batch":
		h.batch(w, body)
	case len(elements) == 6 && elements[4] == "commit":
		h.commitFiles(w, elements[2]+"/"+elements[3], body)
	case len(elements) == 2 && elements[0] == "verify":
		h.Lock()
		_, ok := h.uploads.objects[elements[1]]
		h.Unlock()
		if !ok {
			http.Error(w, `{"error": "no such object"}`, http.StatusUnprocessableEntity)
		}
	default:
		return false
	}
	return true
}

func (h *Hub) create(w http.ResponseWriter, body []byte) {
	var ask struct{ Organization, Name string }
	if json.Unmarshal(body, &ask) != nil || ask.Name == "" {
		refuse(w, http.StatusBadRequest, "", "bad request")
		return
	}
	h.Lock()
	_, exists := h.Repos[ask.Organization+"/"+ask.Name]
	h.Unlock()
	if exists {
		refuse(w, http.StatusConflict, "", "You already created this model repo")
		return
	}
	h.Add(ask.Organization+"/"+ask.Name, map[string][]byte{".gitattributes": []byte("*.safetensors filter=lfs\n")})
	_, _ = w.Write([]byte(`{"url": "x"}`))
}

func (h *Hub) preupload(w http.ResponseWriter, body []byte) {
	var ask struct {
		Files []struct {
			Path string
			Size int
		}
	}
	if json.Unmarshal(body, &ask) != nil {
		refuse(w, http.StatusBadRequest, "", "bad request")
		return
	}
	var files []map[string]any
	for _, f := range ask.Files {
		mode := "regular"
		if Large(f.Path, nil) {
			mode = "lfs"
		}
		files = append(files, map[string]any{"path": f.Path, "uploadMode": mode, "shouldIgnore": false})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"files": files})
}

func (h *Hub) batch(w http.ResponseWriter, body []byte) {
	var ask struct {
		Objects []struct {
			OID  string
			Size int
		}
	}
	if json.Unmarshal(body, &ask) != nil {
		refuse(w, http.StatusBadRequest, "", "bad request")
		return
	}
	h.Lock()
	defer h.Unlock()
	var objects []map[string]any
	for _, o := range ask.Objects {
		answer := map[string]any{"oid": o.OID, "size": o.Size}
		objects = append(objects, answer)
		if _, ok := h.uploads.objects[o.OID]; ok {
			continue
		}
		up := map[string]any{"href": h.Store + "/upload/" + o.OID + "?signature=1"}
		if o.Size > PartSize {
			header := map[string]string{"chunk_size": strconv.Itoa(PartSize)}
			for i := 1; (i-1)*PartSize < o.Size; i++ {
				header[fmt.Sprintf("%05d", i)] = fmt.Sprintf("%s/upload/%s?signature=1&part=%d", h.Store, o.OID, i)
			}
			up = map[string]any{"href": h.Store + "/complete/" + o.OID + "?signature=1", "header": header}
		}
		answer["actions"] = map[string]any{"upload": up, "verify": map[string]any{"href": h.URL + "/verify/" + o.OID}}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"transfer": "multipart", "objects": objects})
}

// storeUpload serves what a push asks of the store.
func (h *Hub) storeUpload(w http.ResponseWriter, r *http.Request) bool {
	elements := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if len(elements) != 2 || r.Method != http.MethodPut && r.Method != http.MethodPost {
		return false
	}
	oid := elements[1]
	body, err := io.ReadAll(r.Body)
	if r.Header.Get("Authorization") != "" || r.URL.Query().Get("signature") == "" || err != nil {
		http.Error(w, "only one way to sign", http.StatusBadRequest)
		return true
	}
	h.Lock()
	defer h.Unlock()
	part := r.URL.Query().Get("part")
	switch {
	case r.Method == http.MethodPut && part != "":
		n, _ := strconv.Atoi(part)
		if h.uploads.parts[oid] == nil {
			h.uploads.parts[oid] = map[int][]byte{}
		}
		h.uploads.parts[oid][n] = body
		w.Header().Set("Etag", fmt.Sprintf(`"%x"`, sha1.Sum(body)))
		return true
	case r.Method == http.MethodPost:
		var ask struct {
			OID   string
			Parts []struct {
				PartNumber int
				Etag       string
			}
		}
		if json.Unmarshal(body, &ask) != nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return true
		}
		body = nil
		for i, p := range ask.Parts {
			b := h.uploads.parts[oid][p.PartNumber]
			if p.PartNumber != i+1 || p.Etag != fmt.Sprintf(`"%x"`, sha1.Sum(b)) {
				http.Error(w, "wrong part", http.StatusUnprocessableEntity)
				return true
			}
			body = append(body, b...)
		}
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != oid {
		http.Error(w, "wrong hash", http.StatusUnprocessableEntity)
		return true
	}
	h.uploads.objects[oid] = body
	return true
}

func (h *Hub) commitFiles(w http.ResponseWriter, id string, body []byte) {
	h.Lock()
	repo := h.Repos[id]
	files := map[string][]byte{}
	if repo != nil {
		for name, data := range repo.Files {
			files[name] = data
		}
	}
	h.Unlock()
	if repo == nil {
		refuse(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
		return
	}
	in := bufio.NewReader(bytes.NewReader(body))
	for first := true; ; first = false {
		text, err := in.ReadBytes('\n')
		if len(text) == 0 && err != nil {
			break
		}
		var line struct {
			Key   string
			Value struct {
				Summary, Path, Content, Encoding, OID, Algo string
				Size                                        int
			}
		}
		bad := json.Unmarshal(text, &line) != nil || first != (line.Key == "header") || first && line.Value.Summary == ""
		v := line.Value
		switch line.Key {
		case "file":
			data, err := base64.StdEncoding.DecodeString(v.Content)
			bad = bad || err != nil
			files[v.Path] = data
		case "lfsFile":
			h.Lock()
			data, ok := h.uploads.objects[v.OID]
			h.Unlock()
			bad = bad || !ok || len(data) != v.Size
			files[v.Path] = data
		case "deletedFile":
			delete(files, v.Path)
		}
		if bad {
			refuse(w, http.StatusBadRequest, "", "bad commit")
			return
		}
	}
	commit := h.Add(id, files)
	_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "commitOid": commit, "commitUrl": h.URL + "/" + id + "/commit/" + commit})
}
