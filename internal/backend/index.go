package backend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// publicIndex is used if neither the user nor pip's configuration names an index.
const publicIndex = "https://pypi.org/simple"

// maxPage bounds an index page; the largest real ones have some megabytes.
const maxPage = 64 << 20

// accept asks for the JSON form of a page and allows the HTML one.
const accept = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

// index is a simple package index. Its credentials are kept out of base, so that no message can show them.
type index struct {
	base   *url.URL
	user   *url.Userinfo
	client *http.Client
}

// openIndex returns the index at the address, or that of pip's configuration, or the public one.
func openIndex(address string, client *http.Client) (*index, error) {
	from := "--index"
	if address == "" {
		address, from = configuredIndex()
	}
	u, err := url.Parse(strings.TrimSpace(address))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// The address is not shown: it may hold a password.
		return nil, fmt.Errorf("the package index of %s is not an http or https address; correct it, or give one with --index", from)
	}
	ix := &index{user: u.User, client: client}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	ix.base = u.JoinPath("/")
	if ix.client == nil {
		ix.client = defaultClient()
	}
	return ix, nil
}

// defaultClient has no limit on the time of a whole download, but does not wait for ever for an answer.
func defaultClient() *http.Client {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return &http.Client{}
	}
	t = t.Clone()
	t.ResponseHeaderTimeout = time.Minute
	return &http.Client{Transport: t}
}

// configuredIndex returns the index that pip would use, and the name of the setting for messages.
func configuredIndex() (address, from string) {
	if v := os.Getenv("PIP_INDEX_URL"); v != "" {
		return v, "PIP_INDEX_URL"
	}
	for _, file := range pipFiles() {
		if v := pipIndexURL(file); v != "" {
			return v, file
		}
	}
	return publicIndex, "this program"
}

// pipFiles returns pip's configuration files, those that win first.
func pipFiles() []string {
	var files []string
	if f := os.Getenv("PIP_CONFIG_FILE"); f == os.DevNull {
		return nil // pip's way to say: no file at all
	} else if f != "" {
		files = append(files, f)
	}
	if venv := os.Getenv("VIRTUAL_ENV"); venv != "" {
		files = append(files, filepath.Join(venv, "pip.conf"))
	}
	if config, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(config, "pip", "pip.conf"))
	}
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".config", "pip", "pip.conf"), filepath.Join(home, ".pip", "pip.conf"))
	}
	return append(files, "/etc/xdg/pip/pip.conf", "/etc/pip.conf")
}

// pipIndexURL returns index-url of [global] in a pip.conf, or "".
func pipIndexURL(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	section, found := "", ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line[1 : len(line)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") || section != "global" {
			continue
		}
		if key = strings.TrimSpace(key); key == "index-url" || key == "index_url" {
			found = strings.TrimSpace(value)
		}
	}
	return found
}

// find returns the address of the wheel, from the page of its package.
func (ix *index) find(ctx context.Context, w wheel) (*url.URL, error) {
	page := ix.base.JoinPath(w.pkg, "/")
	resp, err := ix.get(ctx, page, accept)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; run the command again", page, err)
	}
	links, err := readPage(resp.Header.Get("Content-Type"), body)
	if err != nil {
		return nil, fmt.Errorf("the page %s is no simple index page: %w; check the index", page, err)
	}
	for _, l := range links {
		// Links may be relative to the page, after redirects.
		u, err := resp.Request.URL.Parse(l.address)
		if err != nil || path.Base(u.Path) != w.file {
			continue
		}
		if l.sha256 != "" && !strings.EqualFold(l.sha256, w.sha256) {
			return nil, fmt.Errorf("the index at %s offers %s with the SHA-256 %s, not the pinned %s; it was not downloaded: check the index", ix.base, w.file, l.sha256, w.sha256)
		}
		if u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("the index at %s offers %s at a %s address, not http or https", ix.base, w.file, u.Scheme)
		}
		u.Fragment = ""
		return u, nil
	}
	return nil, fmt.Errorf("the index at %s does not offer %s; use another index (--index), or ask for it to be mirrored", ix.base, w.file)
}

// pageLink is a file that an index page offers.
type pageLink struct{ address, sha256 string }

// readPage reads an index page in its JSON (PEP 691) or HTML (PEP 503) form.
func readPage(contentType string, body []byte) ([]pageLink, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = contentType
	}
	if strings.HasSuffix(media, "json") {
		return readJSON(body)
	}
	return readHTML(body), nil
}

func readJSON(body []byte) ([]pageLink, error) {
	var page struct {
		Files []struct {
			URL    string            `json:"url"`
			Hashes map[string]string `json:"hashes"`
		} `json:"files"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, err
	}
	var links []pageLink
	for _, f := range page.Files {
		links = append(links, pageLink{f.URL, f.Hashes["sha256"]})
	}
	return links, nil
}

var anchor = regexp.MustCompile(`(?is)<a\s[^>]*?href\s*=\s*(?:"([^"]*)"|'([^']*)')`)

func readHTML(body []byte) []pageLink {
	var links []pageLink
	for _, m := range anchor.FindAllSubmatch(body, -1) {
		address, fragment, _ := strings.Cut(html.UnescapeString(string(m[1])+string(m[2])), "#")
		sum, _ := strings.CutPrefix(fragment, "sha256=")
		if sum == fragment {
			sum = "" // another hash: the pinned one decides after the download
		}
		links = append(links, pageLink{address, sum})
	}
	return links
}

// get requests an address, with the index's credentials if it is on the index's own host.
func (ix *index) get(ctx context.Context, u *url.URL, accept string) (*http.Response, error) {
	clean := *u
	clean.User = nil
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, clean.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "mergekit")
	user := u.User
	if user == nil && u.Scheme == ix.base.Scheme && u.Host == ix.base.Host {
		user = ix.user
	}
	// As a header, not in the address: errors of the client show addresses.
	if user != nil {
		password, _ := user.Password()
		req.SetBasicAuth(user.Username(), password)
	}
	resp, err := ix.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// The client's error shows the whole address, also of redirects, which may hold secrets.
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, fmt.Errorf("%s cannot be reached: %w; check the network and the proxy, or give another index with --index", show(u), err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	resp.Body.Close()
	return nil, statusError(show(u), resp.StatusCode)
}

// show returns an address for messages, without what may be secret in it.
func show(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

func statusError(address string, code int) error {
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%s answers %d: check the user and password in the index's address", address, code)
	case http.StatusNotFound:
		return fmt.Errorf("%s answers 404: the index does not have it; give another with --index", address)
	}
	return fmt.Errorf("%s answers %d: try again later, or give another index with --index", address, code)
}
