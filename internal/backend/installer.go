package backend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Installer fetches pinned XLA plugins from a Python package index. Nothing that does not have the pinned SHA-256 is used.
type Installer struct {
	// Index is the address of a simple index (PEP 503 or 691). If empty, pip's configuration says it, or it is the public one.
	Index string
	// Dir is where to install; if empty, ~/.local/lib/go-xla, where plugins are looked for.
	Dir string
	// Client makes the requests; nil means a default one, which honours the proxy variables of the environment.
	Client *http.Client
	// Progress, if not nil, is told the bytes downloaded so far and in all.
	Progress func(done, total int64)

	pins map[string]plugin // for tests; nil means the pins of this program
}

// Install installs what ("cpu" or "cuda") and returns the path of the plugin. What is installed already and unchanged is kept.
func (in *Installer) Install(ctx context.Context, what string) (string, error) {
	all := in.pins
	if all == nil {
		all = pins
		if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
			return "", fmt.Errorf("install %s: there is no plugin for %s/%s, only for linux/amd64; use --backend go", what, runtime.GOOS, runtime.GOARCH)
		}
	}
	p, ok := all[what]
	if !ok {
		return "", fmt.Errorf("install %q: there is no such plugin; choose %s", what, strings.Join(slices.Sorted(maps.Keys(all)), " or "))
	}
	dir, err := in.dir()
	if err != nil {
		return "", fmt.Errorf("install %s: %w", what, err)
	}
	created, err := makeDir(dir)
	if err != nil {
		return "", fmt.Errorf("install %s: %w; choose another directory with --dir", what, err)
	}
	if err := in.install(ctx, dir, p); err != nil {
		if created {
			_ = os.Remove(dir) // removes it only if it is empty
		}
		return "", fmt.Errorf("install %s into %s: %w", what, dir, err)
	}
	return filepath.Join(dir, filepath.FromSlash(p.path)), nil
}

// dir returns the absolute directory to install into.
func (in *Installer) dir() (string, error) {
	if in.Dir != "" {
		return filepath.Abs(in.Dir)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("%w; say where to install with --dir", err)
	}
	return filepath.Join(home, ".local", "lib", "go-xla"), nil
}

func makeDir(dir string) (created bool, err error) {
	if _, err := os.Stat(dir); err == nil {
		return false, nil
	}
	return true, os.MkdirAll(dir, 0o755)
}

func (in *Installer) install(ctx context.Context, dir string, p plugin) error {
	var missing []wheel
	var done, total int64
	for _, w := range p.wheels {
		if !installed(dir, w) {
			missing = append(missing, w)
			total += w.size
		}
	}
	if len(missing) > 0 {
		ix, err := openIndex(in.Index, in.Client)
		if err != nil {
			return err
		}
		for _, w := range missing {
			count := func(n int64) {
				done += n
				if in.Progress != nil {
					in.Progress(done, total)
				}
			}
			if err := fetch(ctx, ix, dir, w, count); err != nil {
				return fmt.Errorf("package %s: %w", w.pkg, err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.links)) {
		if err := link(filepath.Join(dir, filepath.FromSlash(name)), filepath.FromSlash(p.links[name])); err != nil {
			return err
		}
	}
	return nil
}

// link makes a symbolic link, unless there is a directory or file of that name, which the user may have made.
func link(path, target string) error {
	err := os.Symlink(target, path)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// fetch downloads one wheel and installs its members.
func fetch(ctx context.Context, ix *index, dir string, w wheel, count func(int64)) error {
	address, err := ix.find(ctx, w)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".mergekit-*.whl")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := download(ctx, ix, address, tmp, w, count); err != nil {
		return err
	}
	members, err := extract(tmp, w, dir)
	if err != nil {
		return err
	}
	return writeReceipt(dir, w, members)
}

// download writes the file at address to tmp and compares its length and hash with the pinned ones.
func download(ctx context.Context, ix *index, address *url.URL, tmp *os.File, w wheel, count func(int64)) error {
	resp, err := ix.get(ctx, address, "*/*")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	hash := sha256.New()
	// One byte more than expected is enough to see that it is the wrong file.
	body := &counter{r: io.LimitReader(resp.Body, w.size+1), count: count}
	n, err := io.Copy(io.MultiWriter(tmp, hash), body)
	if err != nil {
		return fmt.Errorf("the download of %s stopped after %d of %d bytes: %w; run the command again", w.file, n, w.size, err)
	}
	if n != w.size {
		return fmt.Errorf("%s from %s has not the pinned length of %d bytes; nothing of it was used: check the index", w.file, show(address), w.size)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != w.sha256 {
		return fmt.Errorf("%s from %s has the SHA-256 %s, not the pinned %s; nothing of it was used: check the index", w.file, show(address), got, w.sha256)
	}
	return nil
}

// counter tells about the bytes that pass through it, in steps that a display can follow.
type counter struct {
	r       io.Reader
	count   func(int64)
	pending int64
	last    time.Time
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.pending += int64(n)
	if now := time.Now(); err != nil || now.Sub(c.last) > 50*time.Millisecond {
		if c.pending > 0 {
			c.count(c.pending)
		}
		c.pending, c.last = 0, now
	}
	return n, err
}
