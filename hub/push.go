package hub

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// PushOptions say what is pushed and how.
type PushOptions struct {
	Revision string // branch; "" means main
	Message  string // of the commit; "": one that says what was pushed
	Private  bool   // a repository that comes to be is private
	Request  bool   // open a pull request instead of changing the branch
	Replace  bool   // remove files of the repository that the directory does not have
	Include  []string
	Exclude  []string
}

// Pushed says what a push did.
type Pushed struct {
	Repo     string `json:"repository"`
	URL      string `json:"url"`
	Commit   string `json:"commit"` // "" when nothing had changed
	Request  string `json:"pull_request,omitempty"`
	Files    int    `json:"files"`   // of the directory
	Changed  int    `json:"changed"` // of these, files that the repository did not have like this
	Removed  int    `json:"removed,omitempty"`
	Bytes    int64  `json:"bytes"`
	Uploaded int64  `json:"bytes_sent"` // of large files; those that the hub had already are not sent again
}

// local is a file of the directory that is pushed.
type local struct {
	File
	disk  string
	large bool
}

// Push makes a branch of a repository hold the files of a directory: the repository comes to be if it does not exist, large files go to
// the hub's store, several at a time, and one commit names them all. A push that was interrupted goes on after the files that the
// store has; nobody sees a half of it, since the commit comes last. Afterwards the hub's listing is compared with the directory.
func (c *Client) Push(ctx context.Context, dir string, n Name, o PushOptions) (*Pushed, error) {
	if err := c.mayPush(n, &o); err != nil {
		return nil, err
	}
	all, err := pushed(dir, o)
	if err != nil {
		return nil, err
	}
	p := &Pushed{Repo: n.Repo, Files: len(all)}
	if err := c.create(ctx, n, o.Private); err != nil {
		return nil, err
	}
	there, err := c.remote(ctx, n, o)
	if err != nil {
		return nil, err
	}
	changed, err := differing(ctx, all, there)
	if err != nil {
		return nil, err
	}
	var gone []string
	if o.Replace {
		gone = others(all, there)
	}
	for _, f := range all {
		p.Bytes += f.Size
	}
	p.Changed, p.Removed = len(changed), len(gone)
	p.URL = c.address(strings.Split(n.Repo, "/")...)
	if len(changed)+len(gone) == 0 {
		return p, nil
	}
	if err := c.modes(ctx, n, o, changed); err != nil {
		return nil, err
	}
	if p.Uploaded, err = c.uploadLarge(ctx, n, changed); err != nil {
		return nil, err
	}
	if err := c.commit(ctx, n, o, changed, gone, p); err != nil {
		return nil, err
	}
	return p, c.compare(ctx, n, changed, p)
}

func (c *Client) mayPush(n Name, o *PushOptions) error {
	switch {
	case c.s.Offline:
		return &Error{Repo: n.Written, Msg: "--offline (or HF_HUB_OFFLINE) forbids to push"}
	case c.s.Token == "":
		return &Error{Repo: n.Written, Msg: "pushing needs a token", Hint: "set HF_TOKEN to one that may write"}
	case n.Sub != "" || !strings.Contains(n.Repo, "/"):
		return &Error{Repo: n.Written, Msg: "is no repository to push to", Hint: "write org/name"}
	}
	if o.Revision == "" {
		o.Revision = n.revision()
	}
	return nil
}

// pushed lists the files of a directory that are pushed: all but hidden ones and what an interrupted run has left.
func pushed(dir string, o PushOptions) ([]*local, error) {
	st, err := os.Stat(dir)
	if err != nil || !st.IsDir() {
		return nil, &Error{File: dir, Msg: "is no directory", Hint: "give the directory of a merge or a fine-tuning", Err: err}
	}
	missing, err := lacking(dir)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		return nil, &Error{File: dir, Msg: "is not whole: it lacks " + some(missing), Hint: "write it again"}
	}
	have, err := filesOf(dir)
	if err != nil {
		return nil, err
	}
	var visible []File
	for _, f := range have {
		if !hidden(f.Path) && !strings.HasSuffix(f.Path, ".partial") && !strings.HasSuffix(f.Path, ".lock") {
			visible = append(visible, f)
		}
	}
	if visible, err = filter(visible, Want{Include: o.Include, Exclude: o.Exclude}); err != nil {
		return nil, err
	}
	if len(visible) == 0 {
		return nil, &Error{File: dir, Msg: "has no files to push"}
	}
	var all []*local
	for _, f := range visible {
		if !plainPath(f.Path) {
			return nil, &Error{File: dir, Msg: fmt.Sprintf("has a file %q, whose name a hub does not take", plain(f.Path)), Hint: "rename it"}
		}
		all = append(all, &local{File: f, disk: filepath.Join(dir, filepath.FromSlash(f.Path))})
	}
	return all, nil
}

func hidden(path string) bool {
	for _, name := range strings.Split(path, "/") {
		if strings.HasPrefix(name, ".") {
			return true
		}
	}
	return false
}

// create makes the repository, unless it exists.
func (c *Client) create(ctx context.Context, n Name, private bool) error {
	org, name, _ := strings.Cut(n.Repo, "/")
	body, err := json.Marshal(map[string]any{"type": "model", "organization": org, "name": name, "private": private})
	if err != nil {
		return err
	}
	_, err = c.call(ctx, question{method: http.MethodPost, address: c.address("api", "repos", "create"), body: body, header: jsonHeader(), repo: n.Written}, nil)
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusConflict {
		if private {
			c.warn("%s: exists already, and --private does not change who may read it", n.Written)
		}
		return nil
	}
	return err
}

func jsonHeader() http.Header { return http.Header{"Content-Type": {"application/json"}} }

// remote lists what a branch has; nothing, if there is no such branch.
func (c *Client) remote(ctx context.Context, n Name, o PushOptions) (map[string]File, error) {
	at := n
	at.Revision = o.Revision
	l, err := c.List(ctx, at)
	there := map[string]File{}
	var refused *Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound && o.Revision == "main" {
		return there, nil // a repository without a commit
	}
	if err != nil {
		return nil, err
	}
	for _, f := range l.Files {
		there[f.Path] = f
	}
	return there, nil
}

// differing returns the files that the repository does not have with this content.
func differing(ctx context.Context, all []*local, there map[string]File) ([]*local, error) {
	var out []*local
	for _, f := range all {
		if r, ok := there[f.Path]; ok && r.Etag != "" && (r.Size < 0 || r.Size == f.Size) {
			err := verify(ctx, f.disk, File{Size: f.Size, Etag: r.Etag})
			var wrong *wrongContent
			if err == nil {
				continue
			}
			if !errors.As(err, &wrong) {
				return nil, err
			}
		}
		out = append(out, f)
	}
	return out, nil
}

func others(all []*local, there map[string]File) []string {
	have := map[string]bool{}
	for _, f := range all {
		have[f.Path] = true
	}
	var gone []string
	for path := range there {
		if !have[path] && path != ".gitattributes" {
			gone = append(gone, path)
		}
	}
	sort.Strings(gone)
	return gone
}

// batch is how many files one question names.
const batch = 200

// modes asks the hub which files it takes in the commit and which in its store.
func (c *Client) modes(ctx context.Context, n Name, o PushOptions, files []*local) error {
	elements := append([]string{"api", "models"}, strings.Split(n.Repo, "/")...)
	address := c.address(append(elements, "preupload", o.Revision)...)
	for from := 0; from < len(files); from += batch {
		some := files[from:min(from+batch, len(files))]
		type entry struct {
			Path   string `json:"path"`
			Sample string `json:"sample"`
			Size   int64  `json:"size"`
		}
		var ask struct {
			Files []entry `json:"files"`
		}
		for _, f := range some {
			sample, err := beginning(f.disk)
			if err != nil {
				return err
			}
			ask.Files = append(ask.Files, entry{f.Path, base64.StdEncoding.EncodeToString(sample), f.Size})
		}
		body, err := json.Marshal(ask)
		if err != nil {
			return err
		}
		var said struct {
			Files []struct {
				Path   string `json:"path"`
				Mode   string `json:"uploadMode"`
				Ignore bool   `json:"shouldIgnore"`
			} `json:"files"`
		}
		if _, err := c.call(ctx, question{method: http.MethodPost, address: address, body: body, header: jsonHeader(), repo: n.Written}, &said); err != nil {
			return err
		}
		mode := map[string]string{}
		for _, f := range said.Files {
			mode[f.Path] = f.Mode
		}
		for _, f := range some {
			switch mode[f.Path] {
			case "lfs":
				f.large = true
			case "regular":
				if f.Size > answerLimit {
					return &TransferError{Repo: n.Written, File: f.Path, Msg: fmt.Sprintf("the hub wants its %d bytes in the commit itself", f.Size), Hint: "check HF_ENDPOINT"}
				}
			default:
				return &TransferError{Repo: n.Written, File: f.Path, Msg: "the hub does not say how it is to be sent", Hint: "check HF_ENDPOINT"}
			}
		}
	}
	return nil
}

func beginning(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 512)
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return b[:n], err
}

// commit names the files, all at once.
func (c *Client) commit(ctx context.Context, n Name, o PushOptions, files []*local, gone []string, p *Pushed) error {
	message := o.Message
	if message == "" {
		message = "Upload with mergekit"
	}
	var body bytes.Buffer
	line := func(key string, value any) error {
		return json.NewEncoder(&body).Encode(map[string]any{"key": key, "value": value})
	}
	err := line("header", map[string]any{"summary": message, "description": ""})
	for _, f := range files {
		if err != nil {
			return err
		}
		if f.large {
			err = line("lfsFile", map[string]any{"path": f.Path, "algo": "sha256", "oid": f.Etag, "size": f.Size})
			continue
		}
		var data []byte
		if data, err = os.ReadFile(f.disk); err == nil {
			f.Size, f.Etag = int64(len(data)), gitHash(data)
			err = line("file", map[string]any{"path": f.Path, "encoding": "base64", "content": base64.StdEncoding.EncodeToString(data)})
		}
	}
	for _, path := range gone {
		if err == nil {
			err = line("deletedFile", map[string]any{"path": path})
		}
	}
	if err != nil {
		return err
	}
	elements := append([]string{"api", "models"}, strings.Split(n.Repo, "/")...)
	address := c.address(append(elements, "commit", o.Revision)...)
	if o.Request {
		address += "?create_pr=1"
	}
	var said struct {
		OID     string `json:"commitOid"`
		URL     string `json:"commitUrl"`
		Request string `json:"pullRequestUrl"`
	}
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	if _, err := c.call(ctx, question{method: http.MethodPost, address: address, body: body.Bytes(), header: header, repo: n.Written}, &said); err != nil {
		return err
	}
	if !commitForm.MatchString(said.OID) {
		return &TransferError{Repo: n.Written, Msg: "the hub's answer to the commit names none", Hint: "look at the repository's page, and push again if need be"}
	}
	p.Commit, p.Request = said.OID, plain(said.Request)
	return nil
}

// compare looks whether the commit has what was pushed.
func (c *Client) compare(ctx context.Context, n Name, files []*local, p *Pushed) error {
	at := n
	at.Revision = p.Commit
	l, err := c.List(ctx, at)
	if err != nil {
		return err
	}
	there := map[string]File{}
	for _, f := range l.Files {
		there[f.Path] = f
	}
	for _, f := range files {
		r, ok := there[f.Path]
		if !ok || r.Etag != "" && r.Etag != f.Etag {
			return &TransferError{Repo: n.Written, File: f.Path, Msg: fmt.Sprintf("commit %s does not have it as it was pushed", p.Commit), Hint: "push again; a file must not change while it is pushed"}
		}
	}
	return nil
}
