package ui

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree makes files (with a content) and directories (ending in /) and links (NAME -> TARGET).
func tree(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		var err error
		name, target, link := strings.Cut(n, " -> ")
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o777); err != nil {
			t.Fatal(err)
		}
		switch {
		case link:
			err = os.Symlink(target, full)
		case strings.HasSuffix(n, "/"):
			err = os.MkdirAll(full, 0o777)
		default:
			err = os.WriteFile(full, []byte("merge_method: linear\n"), 0o666)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFolder(t *testing.T) {
	top := t.TempDir()
	tree(t, top, "in/a/r.yml", "in/b/", "out/secret.yml", "out/model/", "other/",
		"in/escape -> ../out", "in/file -> ../out/secret.yml", "in/inner -> a", "in/b/up -> ../../out", "in/loop -> loop", "in/abs -> "+filepath.Join(top, "out"), "link -> in")
	f, err := openFolder(filepath.Join(top, "link")) // also through a link
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{"": "in", ".": "in", "a": "in/a", "a/r.yml": "in/a/r.yml", "b/../a": "in/a", "inner/r.yml": "in/a/r.yml", "./a//": "in/a"} {
		got, err := f.find(p)
		if rel, _ := filepath.Rel(top, got); err != nil || filepath.ToSlash(rel) != want {
			t.Errorf("find %q: %s, %v; want %s", p, got, err, want)
		}
	}
	abs := filepath.ToSlash(filepath.Join(top, "out"))
	bad := []string{"..", "../out", "a/../../out", "escape", "escape/secret.yml", "file", "b/up/secret.yml", "abs/secret.yml", "loop", "/etc/passwd", abs, abs + "/secret.yml", "a\x00b",
		"../in/../out", "nothing", "//etc", filepath.ToSlash(f.root) + "/../out"}
	for _, p := range bad {
		if got, err := f.find(p); err == nil {
			t.Errorf("find %q leads to %s", p, got)
		} else if e := (*PathError)(nil); !errors.As(err, &e) {
			t.Errorf("find %q: %T %v", p, err, err)
		}
	}
	for _, p := range []string{"new.yml", "a/new.yml", "inner/new.yml", "a/r.yml"} {
		if _, err := f.place(p); err != nil {
			t.Errorf("place %q: %v", p, err)
		}
	}
	for _, p := range []string{"", ".", "..", "../new.yml", "escape/new.yml", "file", "b/up/new.yml", "/tmp/new.yml", "nothing/new.yml", "a/r.yml/x", abs + "/new.yml", "loop"} {
		if got, err := f.place(p); err == nil {
			t.Errorf("place %q leads to %s", p, got)
		}
	}
	f.allow(filepath.Join(top, "out", "model"))
	if _, err := f.find(abs + "/model"); err != nil {
		t.Errorf("a named model: %v", err)
	}
	for _, p := range []string{abs, abs + "/secret.yml", abs + "/model/../secret.yml"} {
		if got, err := f.find(p); err == nil {
			t.Errorf("beside a named model: %q leads to %s", p, got)
		}
	}
	if _, err := f.place(abs + "/model/x"); err == nil {
		t.Error("a named model can be written to")
	}
}

// TestSnapshots sees that files of a named model in a hub's cache are found, which are links to beside it.
func TestSnapshots(t *testing.T) {
	top := t.TempDir()
	tree(t, top, "in/", "hub/models--a--b/blobs/1", "hub/models--a--b/snapshots/2/config.json -> ../../blobs/1", "hub/models--a--b/refs/main", "hub/token")
	f, err := openFolder(filepath.Join(top, "in"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(top, "hub", "models--a--b", "snapshots", "2")
	f.allow(dir)
	if err := f.inside(dir, "config.json"); err != nil {
		t.Error(err)
	}
	for _, p := range []string{"../../refs/main", "../../../token"} {
		if err := f.inside(dir, p); err == nil {
			t.Errorf("%s can be read", p)
		}
	}
}

func TestBrowse(t *testing.T) {
	top := t.TempDir()
	tree(t, top, "in/deep/er/r.yaml", "in/r.yml", "in/notes.txt", "in/empty/", "in/.hidden/r.yml", "in/out -> ../else", "else/r.yml", "in/other.yml")
	if err := os.WriteFile(filepath.Join(top, "in", "other.yml"), []byte("services: {}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(top, "in", "m"), os.DirFS("../testdata/golden/models/base")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(top, "in", "l"), os.DirFS("../testdata/golden/models/lora1")); err != nil {
		t.Fatal(err)
	}
	f, err := openFolder(filepath.Join(top, "in"))
	if err != nil {
		t.Fatal(err)
	}
	list, more, err := f.browse(f.root)
	if err != nil || more {
		t.Fatal(err, more)
	}
	var got []string
	for _, e := range list {
		got = append(got, string(e.Kind)+" "+e.Path)
	}
	want := "folder deep, adapter l, checkpoint m, recipe r.yml"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
}

func FuzzLocal(f *testing.F) {
	for _, s := range []string{"", ".", "a/../../b", "/x", "a\x00", "..", "a/./b", `..\x`, "…/é"} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, p string) {
		fo := &folder{root: dir}
		local, err := fo.local(p)
		if err == nil && !within(dir, filepath.Join(dir, local)) {
			t.Errorf("%q leads to %q", p, local)
		}
	})
}
