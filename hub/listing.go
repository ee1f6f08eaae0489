package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Listing is what a hub says about one revision of a repository.
type Listing struct {
	Commit string
	Files  []File
}

// Bounds of what is believed: files of a listing, and bytes of a file.
const (
	mostFiles = 200_000
	mostBytes = 1 << 43
)

// revisionInfo is the hub's answer.
type revisionInfo struct {
	SHA      string   `json:"sha"`
	Siblings siblings `json:"siblings"`
}

type sibling struct {
	Name   string `json:"rfilename"`
	Size   *int64 `json:"size"`
	BlobID string `json:"blobId"`
	LFS    *struct {
		SHA256 string `json:"sha256"`
		OID    string `json:"oid"`
		Size   int64  `json:"size"`
	} `json:"lfs"`
}

// siblings are the files of an answer, at most one more than are read: an answer full of "{}" would otherwise take fifty times its length.
type siblings []sibling

// UnmarshalJSON reads as far as files are believed.
func (s *siblings) UnmarshalJSON(data []byte) error {
	in := json.NewDecoder(bytes.NewReader(data))
	begin, err := in.Token()
	if err != nil || begin == nil {
		return err
	}
	if begin != json.Delim('[') {
		return errors.New("files that are no list")
	}
	for in.More() && len(*s) <= mostFiles {
		var one sibling
		if err := in.Decode(&one); err != nil {
			return err
		}
		*s = append(*s, one)
	}
	return nil
}

// List asks the hub which files a revision has.
func (c *Client) List(ctx context.Context, n Name) (*Listing, error) {
	return c.list(ctx, n, callAttempts)
}

func (c *Client) list(ctx context.Context, n Name, attempts int) (*Listing, error) {
	elements := append([]string{"api", "models"}, strings.Split(n.Repo, "/")...)
	address := c.address(append(elements, "revision", n.revision())...) + "?blobs=true"
	var info revisionInfo
	if _, err := c.call(ctx, question{method: http.MethodGet, address: address, repo: n.Written, attempts: attempts}, &info); err != nil {
		return nil, err
	}
	l, err := info.listing()
	if err != nil {
		return nil, &TransferError{Repo: n.Written, Msg: "the hub's listing " + err.Error(), Hint: "check HF_ENDPOINT"}
	}
	return l, nil
}

// listing checks what a hub says: nothing in it may lead out of a directory.
func (info *revisionInfo) listing() (*Listing, error) {
	if !commitForm.MatchString(info.SHA) {
		return nil, fmt.Errorf("names no commit")
	}
	if len(info.Siblings) > mostFiles {
		return nil, fmt.Errorf("has more than %d files", mostFiles)
	}
	l := &Listing{Commit: info.SHA}
	seen := map[string]bool{}
	for _, s := range info.Siblings {
		f := File{Path: s.Name, Size: -1, Etag: s.BlobID}
		if s.Size != nil {
			f.Size = *s.Size
		}
		if s.LFS != nil {
			f.Size, f.Etag = s.LFS.Size, s.LFS.SHA256
			if f.Etag == "" {
				f.Etag = strings.TrimPrefix(s.LFS.OID, "sha256:")
			}
		}
		switch {
		case !filePath(f.Path):
			return nil, fmt.Errorf("has a file %q, which is no path inside a directory", plain(f.Path))
		case seen[f.Path]:
			return nil, fmt.Errorf("has %q twice", plain(f.Path))
		case f.Etag != "" && !etagForm.MatchString(f.Etag):
			return nil, fmt.Errorf("gives %q the hash %q, which is none", plain(f.Path), plain(f.Etag))
		case f.Size < -1 || f.Size > mostBytes:
			return nil, fmt.Errorf("gives %q %d bytes, which no file has", plain(f.Path), f.Size)
		}
		seen[f.Path] = true
		l.Files = append(l.Files, f)
	}
	return l, nil
}

// describe asks for size and hash of a file whose listing lacks them, as mirrors of hubs do.
func (c *Client) describe(ctx context.Context, pl *place, commit string, f File) (File, error) {
	n := pl.name
	if f.Size >= 0 && f.Etag != "" {
		return f, nil
	}
	err := c.retry(ctx, callAttempts, func() error {
		req, err := c.request(ctx, http.MethodHead, c.fileAddress(n.Repo, commit, f.Path), nil)
		if err != nil {
			return err
		}
		resp, err := c.first(req, n.Written, f.Path)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode >= 400 {
			return refusal(resp, n.Written, f.Path, req.Header.Get("Authorization") != "")
		}
		size, etag := resp.Header.Get("X-Linked-Size"), resp.Header.Get("X-Linked-Etag")
		if size == "" {
			size = resp.Header.Get("Content-Length")
		}
		if etag == "" {
			etag = resp.Header.Get("Etag")
		}
		etag = strings.Trim(strings.TrimPrefix(etag, "W/"), `"`)
		length, err := strconv.ParseInt(size, 10, 64)
		if err != nil || length < 0 || length > mostBytes || !etagForm.MatchString(etag) {
			return &TransferError{Repo: n.Written, File: f.Path, Msg: "the server tells neither size nor hash, so that what comes could not be verified", Hint: "check HF_ENDPOINT"}
		}
		f.Size, f.Etag = length, etag
		return nil
	})
	return f, err
}

// first sends a request and follows redirects inside the endpoint only: the headers of the hub's own answer are wanted, not those
// of the store that it leads to.
func (c *Client) first(req *http.Request, repo, file string) (*http.Response, error) {
	own := *c.http
	own.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if !c.own(next.URL) {
			return http.ErrUseLastResponse
		}
		return c.redirected(next, via)
	}
	other := &Client{s: c.s, endpoint: c.endpoint, http: &own}
	return other.do(req, repo, file)
}

// unreachable reports whether an error says that there is no way to the hub, or that the hub is ill, as opposed to a clear answer.
func unreachable(err error) bool {
	var t *TransferError
	return errors.As(err, &t)
}
