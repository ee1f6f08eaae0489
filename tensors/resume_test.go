package tensors

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// interrupt leaves an output of which n tensors are recorded.
func interrupt(t *testing.T, dir string, infos []Info, data [][]byte, n int, o WriteOptions) {
	t.Helper()
	w, err := Create(dir, infos, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(w, data, n); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// wanted writes the sample's output to root/whole, and gives what an output that was interrupted must become.
func wanted(t *testing.T) (root string, infos []Info, data [][]byte, o WriteOptions, want map[string]string) {
	t.Helper()
	infos, data = sample()
	root = t.TempDir()
	o = WriteOptions{ShardBytes: 9000, Fingerprint: "this"}
	whole := filepath.Join(root, "whole")
	write(t, whole, infos, data, o)
	return root, infos, data, o, files(t, whole)
}

func TestResume(t *testing.T) {
	root, infos, data, o, want := wanted(t)
	for n := 0; n <= len(infos); n++ {
		dir := filepath.Join(root, fmt.Sprint("out", n))
		interrupt(t, dir, infos, data, n, o)
		if _, err := os.Stat(dir); err == nil {
			t.Fatal("an output is there before its commit")
		}
		again := o
		again.Resume = true
		w, err := Create(dir, infos, again)
		if err != nil {
			t.Fatal(err)
		}
		done := 0
		garbled := slices.Clone(data) // what is done must not be written again
		for i := range infos {
			if w.Done(i) {
				done++
				garbled[i] = bytes.Repeat([]byte{0xee}, len(data[i]))
			}
		}
		if done != n {
			t.Errorf("%d tensors are done, want %d", done, n)
		}
		if err := fill(w, garbled, -1); err != nil {
			t.Fatal(err)
		}
		if err := w.WriteFile("config.json", []byte("{}\n")); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		same(t, files(t, dir), want)
	}
}

func TestResumeRefuses(t *testing.T) {
	infos, data := sample()
	dir := filepath.Join(t.TempDir(), "out")
	o := WriteOptions{Fingerprint: "this", ShardBytes: 9000}
	interrupt(t, dir, infos, data, 3, o)
	other := slices.Clone(infos)
	other[0].Name = "other"
	for _, c := range []struct {
		says  string
		infos []Info
		o     WriteOptions
	}{
		{"an interrupted merge is in .out.partial; use --resume to finish it or --force to start again", infos, o},
		{"is of another recipe, other models or other options; use --force", infos, WriteOptions{Fingerprint: "that", ShardBytes: 9000, Resume: true}},
		{"has another layout (other tensors, dtypes or shard size); use --force", infos, WriteOptions{Fingerprint: "this", Resume: true}},
		{"has another layout", other, WriteOptions{Fingerprint: "this", ShardBytes: 9000, Resume: true}},
	} {
		w, err := Create(dir, c.infos, c.o)
		if err == nil {
			w.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
	// A shard that was cut, or whose header was changed, is not the one that was laid out.
	path := filepath.Join(filepath.Dir(dir), ".out.partial", "model-00002-of-00005.safetensors")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o.Resume = true
	for _, bad := range [][]byte{text[:len(text)-1], append([]byte{text[0] + 1}, text[1:]...)} {
		if err := os.WriteFile(path, bad, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(dir, infos, o); err == nil || !strings.Contains(err.Error(), "model-00002-of-00005.safetensors is not what was laid out") {
			t.Errorf("%v", err)
		}
	}
	// --force starts again.
	o.Force = true
	write(t, dir, infos, data, o)
	nothing(t, filepath.Dir(dir), "out")
}

// Whatever is left of the journal, the result is the same: records are lost, never invented.
func TestTornJournal(t *testing.T) {
	root, infos, data, o, want := wanted(t)
	dir := filepath.Join(root, "out")
	interrupt(t, dir, infos, data, 6, o)
	partial := filepath.Join(root, ".out.partial")
	kept := files(t, partial)
	text := kept[journalName]
	var torn []string
	for n := 0; n <= len(text); n++ {
		torn = append(torn, text[:n])
	}
	for i := range text { // a flipped bit at every place
		b := []byte(text)
		b[i] ^= 4
		torn = append(torn, string(b))
	}
	foreign := interruptedJournal(t, infos, data)
	torn = append(torn, text+text[len(text)-recordSize:], text+"ffffffff 00000000\n", text+foreign[len(foreign)-recordSize:], text+strings.Repeat("\x00", 4096))
	o.Resume, o.Force = true, true // an unreadable first line may be refused without Force
	quick := realDisk()            // hundreds of outputs, and no power cut among them
	quick.datasync = func(*os.File) error { return nil }
	for k, journal := range torn {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(partial, 0o777); err != nil {
			t.Fatal(err)
		}
		for name, b := range kept {
			writeFile(t, partial, name, []byte(b))
		}
		writeFile(t, partial, journalName, []byte(journal))
		w, err := create(dir, infos, o, quick)
		if err != nil {
			t.Fatalf("journal %d: %v", k, err)
		}
		for i := range infos {
			if w.Done(i) && !strings.Contains(text, fmt.Sprintf("%08x ", i)) {
				t.Errorf("journal %d: tensor %d is done, but was not", k, i)
			}
		}
		if k < len(text)+1 {
			n, done := 0, 0
			if head := strings.IndexByte(text, '\n') + 1; k >= head {
				n = (k - head) / recordSize
			}
			for i := range infos {
				if w.Done(i) {
					done++
				}
			}
			if done != n {
				t.Errorf("a journal cut at %d: %d tensors are done, want %d", k, done, n)
			}
		}
		if err := errors.Join(fill(w, data, -1), w.WriteFile("config.json", []byte("{}\n")), w.Commit()); err != nil {
			t.Fatalf("journal %d: %v", k, err)
		}
		same(t, files(t, dir), want)
	}
}

// interruptedJournal is the journal of another output of the same tensors.
func interruptedJournal(t *testing.T, infos []Info, data [][]byte) string {
	dir := filepath.Join(t.TempDir(), "out")
	interrupt(t, dir, infos, data, len(infos), WriteOptions{Fingerprint: "that"})
	return files(t, filepath.Join(filepath.Dir(dir), ".out.partial"))[journalName]
}

// What a kill within the exchange of two outputs leaves is put right by the next run.
func TestKilledWithinTheExchange(t *testing.T) {
	infos, data := sample()
	for _, c := range []struct {
		name  string
		leave func(dir, aside string) error
	}{
		{"the old one is aside", func(dir, aside string) error { return os.Rename(dir, aside) }},
		{"both are there", func(dir, aside string) error { return os.CopyFS(aside, os.DirFS(dir)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "out")
			write(t, dir, infos, data, WriteOptions{})
			if err := c.leave(dir, filepath.Join(root, ".out.replaced")); err != nil {
				t.Fatal(err)
			}
			if _, err := Create(dir, infos, WriteOptions{}); err == nil || !strings.Contains(err.Error(), "exists and is not empty") {
				t.Errorf("%v", err)
			}
			nothing(t, root, "out")
			if len(open(t, dir).Names()) != len(infos) {
				t.Error("the old output is not whole")
			}
		})
	}
}

// A disk that fails at the n-th call of any kind: one clear error, nothing that looks finished, and the merge can go on.
func TestFailingDisk(t *testing.T) {
	root, infos, data, o, want := wanted(t)
	for _, cause := range []error{syscall.ENOSPC, syscall.EIO, syscall.EDQUOT, syscall.EROFS} {
		for n := 0; ; n++ {
			dir := filepath.Join(root, fmt.Sprintf("%d-%d", cause, n))
			calls := 0
			var mu sync.Mutex
			fail := func() error {
				mu.Lock()
				defer mu.Unlock()
				if calls++; calls == n+1 {
					return &fs.PathError{Op: "write", Path: "x", Err: cause}
				}
				return nil
			}
			d := realDisk()
			d.reserve = func(*os.File, int64) error { return fail() }
			d.datasync = func(*os.File) error { return fail() }
			d.rename = func(from, to string) error {
				if err := fail(); err != nil {
					return err
				}
				return os.Rename(from, to)
			}
			d.writeAt = func(f *os.File, p []byte, off int64) (int, error) {
				if err := fail(); err != nil {
					return 0, err
				}
				return f.WriteAt(p, off)
			}
			w, err := create(dir, infos, o, d)
			if err == nil {
				err = errors.Join(fill(w, data, -1), w.WriteFile("config.json", []byte("{}\n")))
				if err == nil {
					err = w.Commit()
				}
				_ = w.Close()
			}
			mu.Lock()
			total := calls
			mu.Unlock()
			if err == nil {
				if total > n {
					t.Fatalf("call %d failed with %v and nobody said so", n, cause)
				}
				break // fewer calls than n: all were tried
			}
			if !errors.Is(err, cause) {
				t.Fatalf("call %d: %v does not wrap %v", n, err, cause)
			}
			if text := strings.Split(err.Error(), "\n")[0]; !strings.HasPrefix(text, dir+"/: ") || !strings.Contains(text, "; ") {
				t.Fatalf("call %d: %q names no place or no remedy", n, text)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Fatalf("call %d: an output is there", n)
			}
			again := o
			again.Resume = true
			w, err = Create(dir, infos, again)
			if err != nil {
				t.Fatalf("call %d: %v", n, err)
			}
			if err := errors.Join(fill(w, data, -1), w.WriteFile("config.json", []byte("{}\n")), w.Commit()); err != nil {
				t.Fatalf("call %d: %v", n, err)
			}
			same(t, files(t, dir), want)
		}
	}
}
