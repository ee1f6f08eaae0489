package tensors

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestSideFiles(t *testing.T) {
	infos, data := sample()
	root := t.TempDir()
	dir := filepath.Join(root, "out")
	source := writeFile(t, root, "tokenizer.json", []byte("from the input"))
	w, err := Create(dir, infos, WriteOptions{Files: []string{"config.json", "tokenizer.json"}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	want := map[string]string{"tokenizer.json": "from the input", "config.json": "second"}
	var wait sync.WaitGroup
	wait.Go(func() { // beside the weights
		if err := fill(w, data, -1); err != nil {
			t.Error(err)
		}
	})
	for k := range 8 {
		name, text := fmt.Sprintf("side%d.txt", k), strings.Repeat(fmt.Sprint(k), 5000*k)
		want[name] = text
		wait.Go(func() {
			if err := w.WriteFile(name, []byte(text)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(w.WriteFile("config.json", []byte("first, and longer")), w.WriteFile("config.json", []byte("second")),
		w.WriteFile("tokenizer.json", nil), w.CopyFile("tokenizer.json", source)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.WriteFile("scratch", []byte("for this run only")), w.RemoveFile("scratch"), w.RemoveFile("never there")); err != nil {
		t.Fatal(err)
	}
	if err := w.RemoveFile(journalName); err == nil {
		t.Error("the journal can be removed")
	}
	if path, err := PartialFile(dir, "config.json"); err != nil || filepath.Dir(path) != filepath.Join(root, ".out.partial") {
		t.Errorf("%s %v", path, err)
	}
	if err := w.CopyFile("x.json", root); !errors.As(err, new(*FormatError)) || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a copy of a directory: %v", err)
	}
	none := filepath.Join(root, "none")
	if err := w.CopyFile("x.json", none); !errors.As(err, new(*FormatError)) || !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), none) {
		t.Errorf("a copy of nothing: %v", err)
	}
	if err := w.CopyFile("a/b", source); err == nil {
		t.Error("a copy into a directory")
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	got := files(t, dir)
	delete(got, "model.safetensors")
	same(t, got, want)
	if text, err := os.ReadFile(source); err != nil || string(text) != "from the input" {
		t.Errorf("the input is %q now, %v", text, err)
	}
}

// Until Commit the output's place stays as it was, and nothing beside it has a name that a reader looks for.
func TestNothingLooksFinishedBeforeCommit(t *testing.T) {
	infos, data := sample()
	root := t.TempDir()
	dir := filepath.Join(root, "out")
	w, err := Create(dir, infos, WriteOptions{ShardBytes: 9000})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	look := func(when string) {
		nothing(t, root, ".out.partial")
		if _, err := os.Stat(filepath.Join(root, ".out.partial", indexName)); err == nil {
			t.Errorf("%s there is an index", when)
		}
		for _, path := range []string{dir, root} {
			if c, err := Open(path); err == nil {
				t.Errorf("%s %s opens as a checkpoint: %v", when, path, c.Names())
				c.Close()
			}
		}
	}
	look("at first")
	for k := range infos {
		if err := errors.Join(w.WriteAt(k, data[k], 0), w.Finish(k), w.flusher.flush()); err != nil {
			t.Fatal(err)
		}
		look(fmt.Sprintf("after tensor %d", k))
	}
	if err := w.WriteFile("config.json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	look("before the commit")
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	nothing(t, root, "out")
	if n := len(open(t, dir).Names()); n != len(infos) {
		t.Errorf("%d tensors", n)
	}
}

func TestShardInfos(t *testing.T) {
	infos, data := sample()
	for limit, n := range map[int64]int{-1: 1, 9000: 5} {
		dir := filepath.Join(t.TempDir(), "out")
		w, err := Create(dir, infos, WriteOptions{ShardBytes: limit})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fill(w, data, -1), w.Commit()); err != nil {
			t.Fatal(err)
		}
		got, count := files(t, dir), 0
		for _, s := range w.Shards() {
			if int64(len(got[s.Name])) != s.Bytes {
				t.Errorf("%s has %d bytes, said %d", s.Name, len(got[s.Name]), s.Bytes)
			}
			if c := open(t, filepath.Join(dir, s.Name)); len(c.Names()) != s.Tensors {
				t.Errorf("%s has %d tensors, said %d", s.Name, len(c.Names()), s.Tensors)
			}
			count += s.Tensors
		}
		if len(w.Shards()) != n || count != len(infos) {
			t.Errorf("%d shards with %d tensors, want %d with %d", len(w.Shards()), count, n, len(infos))
		}
	}
}

// A checkpoint without tensors is one too: an adapter of nothing, a config alone.
func TestNoTensors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	write(t, dir, nil, nil, WriteOptions{})
	if c := open(t, dir); len(c.Names()) != 0 || c.Metadata()["format"] != "pt" {
		t.Errorf("%v, %v", c.Names(), c.Metadata())
	}
}

// The output's place may change between Create and Commit.
func TestPlaceTakenMeanwhile(t *testing.T) {
	infos, data := sample()
	root := t.TempDir()
	dir := filepath.Join(root, "out")
	w, err := Create(dir, infos, WriteOptions{ShardBytes: 9000})
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(w, data, -1); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "model.safetensors", tensor("intruder"))
	if err := w.Commit(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "out/: exists and is not empty; use --force") {
		t.Errorf("%v", err)
	}
	same(t, files(t, dir), map[string]string{"model.safetensors": string(tensor("intruder"))})
	// The same writer can go on once the place is free, and so can another run.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	writeFile(t, root, "out", []byte("a file"))
	if err := w.Commit(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("%v", err)
	}
	if err := errors.Join(os.Remove(dir), w.Close()); err != nil {
		t.Fatal(err)
	}
	if w, err = Create(dir, infos, WriteOptions{ShardBytes: 9000, Resume: true}); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range infos {
		if !w.Done(i) {
			t.Errorf("%s is not taken over", infos[i].Name)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	for i, info := range infos {
		if v, err := open(t, dir).View(info.Name); err != nil || !bytes.Equal(v.Data, data[i]) {
			t.Errorf("%s differs, %v", info.Name, err)
		}
	}
	nothing(t, root, "out")
}

// The exchange of an old output by a new one, when the system refuses a rename: the old one stays or comes back, and the
// finished work is taken over.
func TestExchangeFails(t *testing.T) {
	infos, data := sample()
	for _, c := range []struct {
		name  string
		fails []int // which renames: 1 moves the old aside, 2 the new to its place, 3 the old back
	}{{"the old stays", []int{1}}, {"the old comes back", []int{2}}, {"the old stays aside", []int{2, 3}}} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "out")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			old := map[string]string{"model.safetensors": string(tensor("old"))}
			writeFile(t, dir, "model.safetensors", tensor("old"))
			d, calls := realDisk(), 0
			d.rename = func(from, to string) error {
				calls++
				for _, k := range c.fails {
					if k == calls {
						return &os.LinkError{Op: "rename", Old: from, New: to, Err: syscall.EIO}
					}
				}
				return os.Rename(from, to)
			}
			o := WriteOptions{ShardBytes: 9000, Force: true}
			w, err := create(dir, infos, o, d)
			if err != nil {
				t.Fatal(err)
			}
			if err := fill(w, data, -1); err != nil {
				t.Fatal(err)
			}
			if err := w.Commit(); !errors.Is(err, syscall.EIO) || !strings.HasPrefix(err.Error(), dir+"/: putting the output in its place: ") {
				t.Errorf("%v", err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			if len(c.fails) == 1 {
				same(t, files(t, dir), old)
			}
			o.Resume = true
			if w, err = Create(dir, infos, o); err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			same(t, files(t, dir), old) // whatever happened, it is back by now
			for i := range infos {
				if !w.Done(i) {
					t.Errorf("%s is not taken over", infos[i].Name)
				}
			}
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			nothing(t, root, "out")
			if n := len(open(t, dir).Names()); n != len(infos) {
				t.Errorf("%d tensors", n)
			}
		})
	}
}

// Only so much may wait for the disk; every byte is waited for once at most, and long ranges begin their way early.
func TestWindow(t *testing.T) {
	const limit = 5 << 20
	f, err := os.Create(filepath.Join(t.TempDir(), "shard"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &shard{path: f.Name(), f: f}
	d := realDisk()
	var started, settled []span
	d.start = func(_ *os.File, off, n int64) { started = append(started, span{off: off, n: n}) }
	d.settle = func(_ *os.File, off, n int64) { settled = append(settled, span{off: off, n: n}) }
	var q window
	q.init(d, limit)
	rng := rand.New(rand.NewPCG(3, 3))
	at, waited := int64(0), int64(0)
	for range 3000 {
		n := 1 + rng.Int64N(100_000)
		q.add(s, at, n)
		at += n
		waited = 0
		for _, r := range settled {
			waited += r.n
		}
		if at-waited > limit || waited > at {
			t.Fatalf("%d of %d bytes were waited for: %d may be on their way", waited, at, limit)
		}
	}
	if waited == 0 || len(started) == 0 {
		t.Fatalf("%d bytes were waited for, %d ranges started", waited, len(started))
	}
	next := int64(0)
	for _, r := range settled {
		if r.off != next {
			t.Fatalf("bytes %d to %d are waited for after %d", r.off, r.off+r.n, next)
		}
		next += r.n
	}
	for _, r := range started {
		if r.n < startBytes {
			t.Errorf("a range of %d bytes was started", r.n)
		}
	}
}

// With the system's own calls, and a window much smaller than the output.
func TestSmallWindow(t *testing.T) {
	infos := []Info{{"a", U8, []int{5 << 20}}, {"b", U8, []int{3<<20 + 17}}}
	rng := rand.New(rand.NewPCG(4, 4))
	var data [][]byte
	for _, info := range infos {
		b := make([]byte, info.Bytes())
		for k := range b {
			b[k] = byte(rng.Uint32())
		}
		data = append(data, b)
	}
	dir := filepath.Join(t.TempDir(), "out")
	w, err := Create(dir, infos, WriteOptions{ShardBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.window.limit = 1 << 20
	var wait sync.WaitGroup
	for i := range infos {
		wait.Go(func() {
			const piece = 300_000
			for off := 0; off < len(data[i]); off += piece {
				if err := w.WriteAt(i, data[i][off:min(off+piece, len(data[i]))], int64(off)); err != nil {
					t.Error(err)
				}
			}
			if err := errors.Join(w.Finish(i), w.flusher.flush()); err != nil { // closes a shard while the other is written
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if w.window.bytes > w.window.limit {
		t.Errorf("%d bytes wait", w.window.bytes)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir)
	for i, info := range infos {
		if v, err := c.View(info.Name); err != nil || !bytes.Equal(v.Data, data[i]) {
			t.Errorf("%s differs, %v", info.Name, err)
		}
	}
}

// Two runs ask for one output at once: one writes it, the other is told, and nothing is mixed.
func TestManyCreateOneOutput(t *testing.T) {
	infos, data := sample()
	for range 20 {
		dir := filepath.Join(t.TempDir(), "out")
		var wait sync.WaitGroup
		var mu sync.Mutex
		var winners []*Writer
		for range 4 {
			wait.Go(func() {
				w, err := create(dir, infos, WriteOptions{}, quickDisk())
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					winners = append(winners, w)
				} else if !errors.As(err, new(*FormatError)) {
					t.Errorf("the loser is told %v", err)
				}
			})
		}
		wait.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d writers have the output", len(winners))
		}
		if err := errors.Join(fill(winners[0], data, -1), winners[0].Commit()); err != nil {
			t.Fatal(err)
		}
		nothing(t, filepath.Dir(dir), "out")
	}
}
