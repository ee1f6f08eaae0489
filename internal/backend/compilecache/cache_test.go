package compilecache

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestStore(t *testing.T) {
	t.Setenv(Variable, t.TempDir())
	s := newStore("/no/plugin")
	if s == nil {
		t.Fatal("no cache")
	}
	program, options, executable := []byte("program"), []byte("options"), bytes.Repeat([]byte("machine code "), 100)
	if s.load(program, options) != nil {
		t.Error("an empty cache has something")
	}
	s.save(program, options, executable)
	if got := s.load(program, options); !bytes.Equal(got, executable) {
		t.Errorf("%d bytes came back of %d", len(got), len(executable))
	}
	// Where program ends and options begin counts.
	if s.load([]byte("programo"), []byte("ptions")) != nil || s.load(program, []byte("others")) != nil {
		t.Error("another program's executable was loaded")
	}
	path := s.file(program, options)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{"empty": {}, "torn": whole[:len(whole)-1], "short": whole[:20], "changed": append(whole[:len(whole)-1:len(whole)-1], 'X'), "another version": append([]byte("mergekit xla 0\n"), whole[len(magic):]...)} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if s.load(program, options) != nil {
			t.Errorf("a damaged entry (%s) was loaded", name)
		}
	}
}

func TestPrune(t *testing.T) {
	t.Setenv(Variable, t.TempDir())
	s := newStore("/no/plugin")
	old := time.Now().Add(-time.Hour)
	for i := range 5 {
		s.save([]byte{byte(i)}, nil, make([]byte, 1000))
		at := old.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(s.file([]byte{byte(i)}, nil), at, at); err != nil {
			t.Fatal(err)
		}
	}
	stranger := filepath.Join(s.dir, "README")
	if err := os.WriteFile(stranger, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	// What killed processes left goes, what another one is storing just now stays.
	left, fresh := filepath.Join(s.dir, temporary+"1"), filepath.Join(s.dir, temporary+"2")
	for _, path := range []string{left, fresh} {
		if err := os.WriteFile(path, make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(left, old.Add(-time.Hour), old.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	s.load([]byte{0}, nil) // the oldest was used just now
	s.prune(3500)
	for i, want := range []bool{true, false, false, true, true} {
		if got := s.load([]byte{byte(i)}, nil) != nil; got != want {
			t.Errorf("entry %d kept: %v, want %v", i, got, want)
		}
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("a file that was never finished stays")
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error("a file that is being stored was removed")
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Error("a file that is no entry was removed")
	}
}

func TestOff(t *testing.T) {
	t.Setenv(Variable, "off")
	if newStore("/no/plugin") != nil || Install("/no/plugin") {
		t.Error("the cache is on")
	}
}

func TestInstallWithoutPlugin(t *testing.T) {
	t.Setenv(Variable, t.TempDir())
	if Install("/no/plugin.so") {
		t.Error("a plugin that is not loaded was changed")
	}
}
