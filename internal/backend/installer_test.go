package backend

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	testPkg    = "fake-plugin"
	testWheel  = "fake_plugin-1.0-py3-none-any.whl"
	testMember = "fake_plugin/pjrt_c_api_cpu_plugin.so"
	testPlugin = "pjrt_c_api_cpu_plugin.so"
)

// zipOf returns a wheel with these members, in pairs of name and text.
func zipOf(t *testing.T, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(members); i += 2 {
		f, err := z.Create(members[i])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, members[i+1])
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// site is a package index that holds one wheel.
type site struct {
	wheel          []byte
	href           string // in the page; %s is the server's address
	sum            string // in the page, or none
	html           bool
	user, password string
	downloads      int
}

func (s *site) serve(t *testing.T) *httptest.Server {
	t.Helper()
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != s.user || p != s.password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/simple/" + testPkg + "/":
			href := strings.ReplaceAll(s.href, "%s", srv.URL)
			if s.html {
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				fmt.Fprintf(w, "<!DOCTYPE html><html><body>\n<a href=\"other-1.0.whl\">o</a>\n<A data-x='1'\n HREF=\"%s?a=1&amp;b=2#sha256=%s\">%s</A>", href, s.sum, testWheel)
				return
			}
			w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
			file := map[string]any{"filename": testWheel, "url": href, "hashes": map[string]string{"sha256": s.sum}}
			if err := json.NewEncoder(w).Encode(map[string]any{"files": []any{file}}); err != nil {
				t.Error(err)
			}
		case "/files/" + testWheel:
			s.downloads++
			if _, err := w.Write(s.wheel); err != nil {
				t.Error(err)
			}
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(srv.Close)
	return srv
}

func pinOf(b []byte) map[string]plugin {
	return map[string]plugin{"cpu": {path: testPlugin, wheels: []wheel{
		{pkg: testPkg, file: testWheel, sha256: sumOf(b), size: int64(len(b)), from: testMember, to: testPlugin}}}}
}

func TestInstall(t *testing.T) {
	good := zipOf(t, "fake_plugin/__init__.py", "", testMember, "plugin")
	for _, c := range []struct {
		name string
		site site
	}{
		{"json, absolute", site{href: "%s/files/" + testWheel, sum: sumOf(good)}},
		{"json, relative", site{href: "../../files/" + testWheel}},
		{"html, absolute", site{html: true, href: "%s/files/" + testWheel, sum: sumOf(good)}},
		{"html, relative", site{html: true, href: "../../files/" + testWheel}},
		{"html, rooted", site{html: true, href: "/files/" + testWheel}},
		{"with password", site{href: "%s/files/" + testWheel, user: "me", password: "se@cret"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.site
			s.wheel = good
			srv := s.serve(t)
			index := srv.URL + "/simple"
			if s.user != "" {
				index = strings.Replace(index, "://", "://me:se%40cret@", 1)
			}
			var last, total int64
			in := Installer{Index: index, Dir: filepath.Join(t.TempDir(), "a", "b"), pins: pinOf(good),
				Progress: func(done, all int64) { last, total = done, all }}
			for range 2 { // the second time, nothing is downloaded
				path, err := in.Install(t.Context(), "cpu")
				if err != nil {
					t.Fatal(err)
				}
				if text, err := os.ReadFile(path); err != nil || string(text) != "plugin" || path != filepath.Join(in.Dir, testPlugin) {
					t.Errorf("%s: %q, %v", path, text, err)
				}
			}
			if s.downloads != 1 {
				t.Errorf("%d downloads", s.downloads)
			}
			if size := int64(len(good)); last != size || total != size {
				t.Errorf("progress %d of %d, want %d", last, total, size)
			}
			// A damaged plugin is not kept.
			write(t, filepath.Join(in.Dir, testPlugin), []byte("damaged"))
			if path, err := in.Install(t.Context(), "cpu"); err != nil || hashFile(path) != sumOf([]byte("plugin")) || s.downloads != 2 {
				t.Errorf("after damage: %v, %d downloads", err, s.downloads)
			}
			onlyNames(t, in.Dir, testPlugin, filepath.Base(receipt("", in.pins["cpu"].wheels[0])))
		})
	}
}

func onlyNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.Contains(strings.Join(want, "\n"), e.Name()) {
			t.Errorf("%s is left in the directory", e.Name())
		}
	}
}

func TestInstallRefuses(t *testing.T) {
	good := zipOf(t, testMember, "plugin")
	other := zipOf(t, testMember, "PLUGIN") // of the same length
	escape := zipOf(t, "../../evil", "x", testMember, "plugin")
	absolute := zipOf(t, "/evil", "x", testMember, "plugin")
	empty := zipOf(t, "x", "y")
	bomb := zipOf(t, testMember, strings.Repeat("0", 1<<16))
	href := "%s/files/" + testWheel
	for _, c := range []struct {
		name   string
		what   string
		site   site
		pinned []byte
		want   string
	}{
		{"wrong hash", "cpu", site{wheel: other, href: href}, good, "not the pinned " + sumOf(good)},
		{"wrong hash in the page", "cpu", site{wheel: good, href: href, sum: sumOf(other)}, good, "was not downloaded"},
		{"short", "cpu", site{wheel: good[:20], href: href}, good, "pinned length"},
		{"long", "cpu", site{wheel: append(bytes.Clone(good), 0), href: href}, good, "pinned length"},
		{"path escape", "cpu", site{wheel: escape, href: href}, escape, "outside the directory"},
		{"absolute path", "cpu", site{wheel: absolute, href: href}, absolute, "outside the directory"},
		{"no member", "cpu", site{wheel: empty, href: href}, empty, "has no member"},
		{"bomb", "cpu", site{wheel: bomb, href: href}, bomb, "would unpack"},
		{"no zip", "cpu", site{wheel: []byte("text"), href: href}, []byte("text"), "not a wheel"},
		{"missing wheel", "cpu", site{wheel: good, href: "%s/files/other.whl"}, good, "does not offer"},
		{"missing file", "cpu", site{wheel: good, href: "%s/gone/" + testWheel}, good, "404"},
		{"local file", "cpu", site{wheel: good, href: "file:///files/" + testWheel}, good, "not http or https"},
		{"wrong password", "cpu", site{wheel: good, href: href, user: "me", password: "right"}, good, "401"},
		{"unknown plugin", "tpu", site{wheel: good, href: href}, good, "choose cpu"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.site
			srv := s.serve(t)
			index := srv.URL + "/simple/"
			if s.user != "" {
				index = strings.Replace(index, "://", "://me:wrong-secret@", 1)
			}
			root := t.TempDir()
			in := Installer{Index: index, Dir: filepath.Join(root, "dir"), pins: pinOf(c.pinned)}
			_, err := in.Install(t.Context(), c.what)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "me:") {
				t.Errorf("the error shows the password: %v", err)
			}
			onlyNames(t, root)
		})
	}
}

func TestInstallErrorsHideSecrets(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, index := range []string{
		strings.Replace(gone.URL, "://", "://token:secret@", 1),
		"https://token:secret@bad host/simple",
		"ftp://token:secret@host/simple",
		"token:secret@host",
	} {
		in := Installer{Index: index, Dir: t.TempDir(), pins: pinOf(nil)}
		_, err := in.Install(t.Context(), "cpu")
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "token") {
			t.Errorf("error %v", err)
		}
	}
}

func TestCredentialsStayOnTheHostOfTheIndex(t *testing.T) {
	good := zipOf(t, testMember, "plugin")
	files := (&site{wheel: good}).serve(t) // refuses requests with credentials
	s := site{href: files.URL + "/files/" + testWheel, user: "me", password: "secret"}
	index := strings.Replace(s.serve(t).URL, "://", "://me:secret@", 1) + "/simple"
	in := Installer{Index: index, Dir: t.TempDir(), pins: pinOf(good)}
	if _, err := in.Install(t.Context(), "cpu"); err != nil {
		t.Error(err)
	}
}

func TestInstallStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := site{href: "%s/x"}
	in := Installer{Index: s.serve(t).URL + "/simple", Dir: t.TempDir(), pins: pinOf(nil)}
	if _, err := in.Install(ctx, "cpu"); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("error %v", err)
	}
}

func TestInstallTreeWithLinks(t *testing.T) {
	good := zipOf(t, "nvidia/cu13/lib/libx.so.1", "lib", "nvidia/cu13/include/x.h", "h", "nvidia/cu13/bin/ptxas", "tool",
		"nvidia/cu13/lib/libx.a", "a", "nvidia/__init__.py", "", "x.dist-info/RECORD", "r")
	s := site{wheel: good, href: "%s/files/" + testWheel}
	p := pinOf(good)["cpu"]
	p.wheels[0].from, p.wheels[0].to = "nvidia/", "nvidia/"
	p.links = map[string]string{"nvidia/bin": "cu13/bin"}
	in := Installer{Index: s.serve(t).URL + "/simple", Dir: t.TempDir(), pins: map[string]plugin{"cuda": p}}
	for range 2 {
		if _, err := in.Install(t.Context(), "cuda"); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(filepath.Join(in.Dir, "nvidia", "bin", "ptxas")); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("ptxas: %v, %v", info, err)
	}
	onlyNames(t, filepath.Join(in.Dir, "nvidia"), "cu13", "bin")
	onlyNames(t, filepath.Join(in.Dir, "nvidia", "cu13"), "lib", "bin")
	onlyNames(t, filepath.Join(in.Dir, "nvidia", "cu13", "lib"), "libx.so.1")
}

func TestPinsAreWellFormed(t *testing.T) {
	for name, p := range pins {
		last := p.wheels[len(p.wheels)-1]
		if last.to != p.path {
			t.Errorf("%s: the last wheel installs %s, not the plugin %s", name, last.to, p.path)
		}
		for _, w := range p.wheels {
			if b, err := hex.DecodeString(w.sha256); err != nil || len(b) != sha256.Size {
				t.Errorf("%s: SHA-256 %q", w.file, w.sha256)
			}
			if w.size <= 0 || !strings.HasPrefix(w.file, strings.ReplaceAll(w.pkg, "-", "_")+"-") || !filepath.IsLocal(w.to) {
				t.Errorf("odd pin %+v", w)
			}
			if strings.HasSuffix(w.from, "/") != strings.HasSuffix(w.to, "/") {
				t.Errorf("%s: %s goes to %s", w.file, w.from, w.to)
			}
		}
	}
}
