//go:build linux

package tensors

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// The children of this file take their part before any test begins.
const (
	crashVariable = "MERGEKIT_TEST_CRASH" // HOW:STEP:DIRECTORY
	limitVariable = "MERGEKIT_TEST_LIMIT" // DIRECTORY
	stuckVariable = "MERGEKIT_TEST_STUCK" // DIRECTORY
)

func init() {
	for variable, play := range map[string]func(string) error{crashVariable: crash, limitVariable: limited, stuckVariable: stuck} {
		if how := os.Getenv(variable); how != "" {
			if err := play(how); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
}

func crashSample() ([]Info, [][]byte, WriteOptions) {
	infos := []Info{{"a", U8, []int{300}}, {"b", U8, []int{200}}, {"c", U8, []int{500}}}
	var data [][]byte
	for i, info := range infos {
		data = append(data, bytes.Repeat([]byte{byte(i + 1)}, int(info.Bytes())))
	}
	return infos, data, WriteOptions{ShardBytes: 500, Fingerprint: "crash", Force: true, Resume: true}
}

// crash writes the sample and kills its process before, after or in the middle of the step-th request to the disk.
func crash(part string) error {
	how, rest, _ := strings.Cut(part, ":")
	number, dir, _ := strings.Cut(rest, ":")
	at, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	var calls atomic.Int64
	die := func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	// half is nil for requests that the system does whole or not at all.
	step := func(do, half func() error) error {
		if how == "within" && half == nil {
			return do()
		}
		mine := int(calls.Add(1)) == at
		switch {
		case mine && how == "before":
			die()
		case mine && how == "within":
			_ = half()
			die()
		}
		err := do()
		if mine {
			die()
		}
		return err
	}
	d, real := realDisk(), realDisk()
	d.truncate = func(f *os.File, n int64) error {
		return step(func() error { return real.truncate(f, n) }, func() error { return real.truncate(f, n/2) })
	}
	d.reserve = func(f *os.File, n int64) error { return step(func() error { return real.reserve(f, n) }, nil) }
	d.datasync = func(f *os.File) error { return step(func() error { return real.datasync(f) }, nil) }
	d.rename = func(from, to string) error { return step(func() error { return os.Rename(from, to) }, nil) }
	d.writeAt = func(f *os.File, p []byte, off int64) (n int, err error) {
		err = step(func() error { n, err = f.WriteAt(p, off); return err }, func() error { _, err := f.WriteAt(p[:len(p)/2], off); return err })
		return n, err
	}
	infos, data, o := crashSample()
	w, err := create(dir, infos, o, d)
	if err != nil {
		return err
	}
	for i := range infos {
		if err := errors.Join(w.WriteAt(i, data[i], 0), w.Finish(i), w.flusher.flush()); err != nil {
			return err
		}
	}
	return errors.Join(w.WriteFile("config.json", []byte("{}\n")), w.Commit())
}

// TestKillAtEveryRequest kills a run that replaces an old output, at each of its requests to the disk: the old output or the
// new one is whole at any time, in its place or aside, and the next run ends with the bytes of an undisturbed one.
func TestKillAtEveryRequest(t *testing.T) {
	infos, data, o := crashSample()
	root := t.TempDir()
	whole := filepath.Join(root, "whole")
	write(t, whole, infos, data, o)
	want := files(t, whole)
	old := map[string]string{"model.safetensors": string(tensor("old"))}
	met := map[string]int{}
	for _, how := range []string{"before", "within", "after"} {
		for at := 1; ; at++ {
			dir := filepath.Join(root, fmt.Sprint(how, at), "out")
			aside := filepath.Join(filepath.Dir(dir), ".out.replaced")
			if err := os.MkdirAll(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir, "model.safetensors", []byte(old["model.safetensors"]))
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), fmt.Sprintf("%s=%s:%d:%s", crashVariable, how, at, dir))
			out, err := c.CombinedOutput()
			if err == nil {
				same(t, files(t, dir), want)
				met[how] = at - 1
				break // no request of that number: all were tried
			}
			if s, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
				t.Fatalf("%s %d: %v\n%s", how, at, err, out)
			}
			var now map[string]string
			if _, err := os.Stat(dir); err == nil {
				now = files(t, dir)
			} else {
				now = files(t, aside)
				met["aside"]++
			}
			switch {
			case maps.Equal(now, want):
				met["new"]++
			case maps.Equal(now, old):
				met["old"]++
			default:
				t.Fatalf("%s %d: neither the old nor the new output is whole: %q", how, at, slices.Sorted(maps.Keys(now)))
			}
			w, err := create(dir, infos, o, quickDisk())
			if err != nil {
				t.Fatalf("%s %d: %v", how, at, err)
			}
			garbled := slices.Clone(data)
			for i := range infos {
				if w.Done(i) {
					garbled[i] = make([]byte, len(data[i]))
					met["taken over"]++
				}
			}
			if err := errors.Join(fill(w, garbled, -1), w.WriteFile("config.json", []byte("{}\n")), w.Commit()); err != nil {
				t.Fatalf("%s %d: %v", how, at, err)
			}
			same(t, files(t, dir), want)
			nothing(t, filepath.Dir(dir), "out")
			if t.Failed() {
				t.Fatalf("%s %d", how, at)
			}
		}
	}
	for _, what := range []string{"before", "within", "after", "aside", "new", "old", "taken over"} {
		if met[what] == 0 {
			t.Errorf("no kill met this: %s (%v): the test tests little", what, met)
		}
	}
}

// limited has a system that refuses large files: a real failure that needs no privilege.
func limited(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 64 << 10, Max: 64 << 10}); err != nil {
		return err
	}
	infos, data := slowSample()
	out := filepath.Join(dir, "out")
	_, err := Create(out, infos, WriteOptions{})
	if err := errors.Join(expect(err, syscall.EFBIG, out+"/: ", "choose a smaller shard size"), left(dir, "input.safetensors")); err != nil {
		return err
	}
	// The remedy is one.
	w, err := Create(out, infos, WriteOptions{ShardBytes: 40_000})
	if err != nil {
		return err
	}
	return errors.Join(fill(w, data, -1), w.Commit(), left(dir, "input.safetensors", "out"))
}

func TestFileSizeLimit(t *testing.T) {
	dir := t.TempDir()
	input := tensor("input")
	writeFile(t, dir, "input.safetensors", input)
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), limitVariable+"="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	infos, data := slowSample()
	ckpt := open(t, filepath.Join(dir, "out"))
	for i, info := range infos {
		if v, err := ckpt.View(info.Name); err != nil || !bytes.Equal(v.Data, data[i]) {
			t.Errorf("%s differs, %v", info.Name, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "input.safetensors")); err != nil || !bytes.Equal(b, input) {
		t.Errorf("the input changed, %v", err)
	}
}

// TestFullDevice lets files of the output run into the system's own full device, at each place that writes: the errors are
// the real ones, and no privilege is needed.
func TestFullDevice(t *testing.T) {
	_, infos, data, o, want := wanted(t)
	const full = "/dev/full"
	// replace puts the full device in the place of a file, until back is called.
	replace := func(t *testing.T, path string) (back func()) {
		kept := filepath.Join(t.TempDir(), "kept")
		moved := os.Rename(path, kept) == nil
		if err := os.Symlink(full, path); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if moved {
				if err := os.Rename(kept, path); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	journalOnFull := func(t *testing.T, w *Writer) func() {
		f, err := os.OpenFile(full, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		kept := w.journal.f
		w.journal.f = f
		return func() { _ = kept.Close() }
	}
	shard := func(name string) func(*testing.T, *Writer) func() {
		return func(t *testing.T, w *Writer) func() { return replace(t, filepath.Join(w.target.partial, name)) }
	}
	for _, c := range []struct {
		name string
		fill func(*testing.T, *Writer) (back func())
		done int // at least that many tensors are taken over
	}{
		{"a shard", shard("model-00003-of-00005.safetensors"), 3},
		{"the last shard", shard("model-00005-of-00005.safetensors"), 3},
		{"the journal", journalOnFull, 3},
		{"the index", shard(indexName), len(infos)},
		{"a side file", shard("config.json"), len(infos)},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "out")
			w, err := Create(dir, infos, o)
			if err != nil {
				t.Fatal(err)
			}
			// Three tensors are recorded, then their shards may be closed and are not asked for again.
			for _, i := range []int{0, 1, 2} {
				if err := errors.Join(w.WriteAt(i, data[i], 0), w.Finish(i)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.flusher.flush(); err != nil {
				t.Fatal(err)
			}
			for _, s := range w.shards { // so that they are opened again
				if err := s.close(); err != nil {
					t.Fatal(err)
				}
			}
			back := c.fill(t, w)
			err = func() error {
				for i := range infos[3:] {
					if err := errors.Join(w.WriteAt(3+i, data[3+i], 0), w.Finish(3+i)); err != nil {
						return err
					}
				}
				if err := w.flusher.flush(); err != nil {
					return err
				}
				if err := w.WriteFile("config.json", []byte("{}\n")); err != nil {
					return err
				}
				return w.Commit()
			}()
			if err := expect(err, syscall.ENOSPC, dir+"/: no space left on device: the output needs ", " bytes, ", " are free now; free some space and go on with --resume"); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			nothing(t, filepath.Dir(dir), ".out.partial")
			back()
			again := o
			again.Resume = true
			if w, err = Create(dir, infos, again); err != nil {
				t.Fatal(err)
			}
			done := 0
			for i := range infos {
				if w.Done(i) {
					done++
				}
			}
			if done < c.done {
				t.Errorf("%d tensors are taken over, want %d", done, c.done)
			}
			if err := errors.Join(fill(w, data, -1), w.WriteFile("config.json", []byte("{}\n")), w.Commit()); err != nil {
				t.Fatal(err)
			}
			same(t, files(t, dir), want)
		})
	}
}

// After a failure nothing more is recorded, whoever asks: the system may have forgotten which pages it could not write.
func TestNothingIsRecordedAfterAFailure(t *testing.T) {
	infos, data := sample()
	dir := filepath.Join(t.TempDir(), "out")
	d := quickDisk()
	var broken atomic.Bool
	d.datasync = func(f *os.File) error {
		if broken.Load() && filepath.Base(f.Name()) != journalName {
			broken.Store(false) // the system tells of a lost page once
			return syscall.EIO
		}
		return nil
	}
	w, err := create(dir, infos, WriteOptions{}, d)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.WriteAt(0, data[0], 0), w.Finish(0), w.flusher.flush()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.WriteAt(5, data[5], 0), w.Finish(5)); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := w.flusher.flush(); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
	var wait sync.WaitGroup
	for i := range infos {
		wait.Go(func() {
			if err := errors.Join(w.WriteAt(i, data[i], 0), w.Finish(i)); i != 0 && i != 5 && !errors.Is(err, syscall.EIO) {
				t.Errorf("%s is written after the failure: %v", infos[i].Name, err)
			}
		})
	}
	wait.Wait()
	if err := w.WriteFile("config.json", nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("a file is written after the failure: %v", err)
	}
	if err := w.Commit(); !errors.Is(err, syscall.EIO) {
		t.Errorf("the commit says %v", err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("the failure is told twice: %v", err)
	}
	if got := recordedIn(t, dir); !slices.Equal(got, []int{0}) {
		t.Errorf("%v are recorded, want [0]", got)
	}
}

// stuck replaces an output of which not everything can be removed.
func stuck(dir string) error {
	if os.Getuid() == 0 { // permissions do not bind root
		if err := syscall.Setuid(65534); err != nil {
			return err
		}
	}
	out := filepath.Join(dir, "out")
	closed := filepath.Join(out, "closed")
	if err := errors.Join(os.MkdirAll(closed, 0o777), os.WriteFile(filepath.Join(closed, "x"), nil, 0o666),
		os.WriteFile(filepath.Join(out, "model.safetensors"), tensor("old"), 0o666), os.Chmod(closed, 0o555)); err != nil {
		return err
	}
	infos, data, o := crashSample()
	w, err := Create(out, infos, o)
	if err != nil {
		return err
	}
	if err := fill(w, data, -1); err != nil {
		return err
	}
	err = w.Commit()
	return errors.Join(expect(err, syscall.EACCES, out+"/: the output is complete, but what it replaced is still in .out.replaced", "remove it"), w.Close(), left(dir, ".out.replaced", "out"))
}

// The new output is there and whole; only the old one could not be removed, and the message must not say otherwise.
func TestOldOutputStays(t *testing.T) {
	// Not t.TempDir: its parents are closed to others.
	dir, err := os.MkdirTemp("", "mergekit")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				_ = os.Chmod(path, 0o777)
			}
			return nil
		})
		_ = os.RemoveAll(dir)
	}()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), stuckVariable+"="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	infos, data, _ := crashSample()
	ckpt := open(t, filepath.Join(dir, "out"))
	for i, info := range infos {
		if v, err := ckpt.View(info.Name); err != nil || !bytes.Equal(v.Data, data[i]) {
			t.Errorf("%s differs, %v", info.Name, err)
		}
	}
}
