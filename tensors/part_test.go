package tensors

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

func partOf(i, n int) WriteOptions {
	return WriteOptions{ShardBytes: 4000, Fingerprint: "f go", Part: Part{Index: i, Of: n, Key: "f", Engine: "go"}}
}

func joinOf(n int) WriteOptions {
	return WriteOptions{ShardBytes: 4000, Fingerprint: "another, as nothing is computed", Join: Join{Parts: n, Key: "f"}}
}

// writePart writes a part, or as many tensors of it as stop says.
func writePart(t *testing.T, dir string, infos []Info, data [][]byte, o WriteOptions, stop int) {
	t.Helper()
	w, err := Create(dir, infos, o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := fill(w, data, stop); err != nil {
		t.Fatal(err)
	}
	if stop >= 0 {
		return
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestParts(t *testing.T) {
	infos, data := sample()
	whole := filepath.Join(t.TempDir(), "whole")
	write(t, whole, infos, data, WriteOptions{ShardBytes: 4000})
	want := files(t, whole)
	if len(want) < 6 {
		t.Fatalf("%d files are too few to split", len(want))
	}
	for n := 1; n <= 9; n++ { // also more parts than shards
		dir := filepath.Join(t.TempDir(), "out")
		for k := range n {
			writePart(t, dir, infos, data, partOf((k*11+3)%n+1, n), -1) // in another order: 11 has no divisor in common with these
		}
		if n == 7 {
			for i := range n {
				o := partOf(i+1, n)
				o.Resume = true
				writePart(t, dir, infos, data, o, -1)
			}
		}
		if got, err := FindParts(dir); got != n || err != nil {
			t.Fatalf("%d parts found of %d: %v", got, n, err)
		}
		var checked atomic.Int64
		o := joinOf(n)
		o.Join.Verified = func(n int64) { checked.Add(n) }
		w, err := Create(dir, infos, o)
		if err != nil {
			t.Fatalf("%d parts: %v", n, err)
		}
		for i := range infos {
			if !w.Done(i) {
				t.Fatalf("%s has to be written after joining", infos[i].Name)
			}
		}
		if err := w.WriteFile("config.json", []byte("{}\n")); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if got := files(t, dir); !maps.Equal(got, want) {
			t.Fatalf("%d parts: other files than those of a single run: %v", n, slices.Sorted(maps.Keys(got)))
		}
		size := int64(0)
		for name, text := range want {
			if strings.HasSuffix(name, ".safetensors") {
				size += int64(len(text))
			}
		}
		if checked.Load() != size {
			t.Errorf("%d bytes of %d were checked", checked.Load(), size)
		}
		if err := RemoveParts(dir, n); err != nil {
			t.Fatal(err)
		}
		if list, _ := os.ReadDir(filepath.Dir(dir)); len(list) != 1 {
			t.Errorf("beside the output is left: %v", list)
		}
	}
}

func TestPartResumes(t *testing.T) {
	infos, data := sample()
	dir := filepath.Join(t.TempDir(), "out")
	writePart(t, dir, infos, data, partOf(1, 2), -1)
	writePart(t, dir, infos, data, partOf(2, 2), 6)
	refuses(t, dir, infos, joinOf(2), "part 2/2 is not finished; merge it with --part 2/2 --resume")
	refuses(t, dir, infos, partOf(2, 2), "part 2/2, whole or interrupted, is in .out.part-2-of-2; use --resume")
	refuses(t, dir, infos, partOf(1, 2), "part 1/2, whole or interrupted")
	other := partOf(2, 2)
	other.Resume, other.Fingerprint = true, "g go"
	refuses(t, dir, infos, other, "is of another recipe")

	o := partOf(2, 2)
	o.Resume = true
	w, err := Create(dir, infos, o)
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for i := range infos {
		if w.Done(i) && w.ours(w.layout.place[i].shard) {
			taken++
		}
	}
	if taken == 0 {
		t.Error("nothing was taken over from the interrupted part")
	}
	if err := errors.Join(fill(w, data, -1), w.Commit(), w.Close()); err != nil {
		t.Fatal(err)
	}
	joined(t, dir, infos, data, joinOf(2))
}

// joined joins and compares with a single run.
func joined(t *testing.T, dir string, infos []Info, data [][]byte, o WriteOptions) {
	t.Helper()
	w, err := Create(dir, infos, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.WriteFile("config.json", []byte("{}\n")), w.Commit()); err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(t.TempDir(), "whole")
	write(t, whole, infos, data, WriteOptions{ShardBytes: 4000})
	if !maps.Equal(files(t, dir), files(t, whole)) {
		t.Error("other bytes than those of a single run")
	}
}

func refuses(t *testing.T, dir string, infos []Info, o WriteOptions, want string) {
	t.Helper()
	w, err := Create(dir, infos, o)
	if err == nil {
		_ = w.Discard()
		t.Fatalf("not refused: %s", want)
	}
	var format *FormatError
	if !errors.As(err, &format) || !strings.Contains(err.Error(), want) {
		t.Fatalf("%v\nlacks %q", err, want)
	}
}

func TestJoinRefuses(t *testing.T) {
	infos, data := sample()
	prepare := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "out")
		for i := 1; i <= 3; i++ {
			writePart(t, dir, infos, data, partOf(i, 3), -1)
		}
		return dir
	}
	part := func(dir string, i int) string { return fmt.Sprintf("%s/.out.part-%d-of-3", filepath.Dir(dir), i) }
	shard := func(t *testing.T, dir string, i int) string {
		list, _ := filepath.Glob(filepath.Join(part(dir, i), "*.safetensors"))
		if len(list) == 0 {
			t.Fatal("a part without shards")
		}
		return list[0]
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string) error
		want   string
	}{
		{"a missing part", func(_ *testing.T, dir string) error { return os.RemoveAll(part(dir, 2)) }, "part 2/3 is missing; merge it with --part 2/3"},
		{"a flipped bit", func(t *testing.T, dir string) error {
			b, err := os.ReadFile(shard(t, dir, 3))
			b[len(b)-1] ^= 4
			return errors.Join(err, os.WriteFile(shard(t, dir, 3), b, 0o666))
		}, "is not what part 3/3 wrote (its SHA-256 is another)"},
		{"a truncated shard", func(t *testing.T, dir string) error { return os.Truncate(shard(t, dir, 1), 100) }, "is not what part 1/3 wrote"},
		{"a missing shard", func(t *testing.T, dir string) error { return os.Remove(shard(t, dir, 1)) }, "which part 1/3 wrote, is missing; merge it again with --part 1/3"},
		{"a record that is no file", func(_ *testing.T, dir string) error {
			record := filepath.Join(part(dir, 1), partName)
			return errors.Join(os.Remove(record), os.Mkdir(record, 0o777))
		}, "part 1/3 has a damaged part.json"},
		{"a huge record", func(_ *testing.T, dir string) error {
			return os.Truncate(filepath.Join(part(dir, 1), partName), maxHeader+1)
		}, "part 1/3 has a damaged part.json"},
		{"a damaged record", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(part(dir, 1), partName), []byte("{"), 0o666)
		}, "part 1/3 has a damaged part.json"},
		{"another part's record", func(_ *testing.T, dir string) error {
			b, err := os.ReadFile(filepath.Join(part(dir, 1), partName))
			return errors.Join(err, os.WriteFile(filepath.Join(part(dir, 2), partName), b, 0o666))
		}, "part 2/3 has a damaged part.json"},
		{"another recipe", func(t *testing.T, dir string) error {
			o := partOf(2, 3)
			o.Part.Key, o.Fingerprint, o.Force = "g", "g go", true
			writePart(t, dir, infos, data, o, -1)
			return nil
		}, "part 2/3 is of another recipe"},
		{"another backend", func(t *testing.T, dir string) error {
			o := partOf(2, 3)
			o.Part.Engine, o.Fingerprint, o.Force = "xla", "f xla", true
			writePart(t, dir, infos, data, o, -1)
			return nil
		}, "part 1/3 was computed by go and part 2/3 by xla"},
		{"another shard size", func(t *testing.T, dir string) error {
			o := partOf(2, 3)
			o.ShardBytes, o.Force = 9000, true
			writePart(t, dir, infos, data, o, -1)
			return nil
		}, "part 2/3 has another layout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := prepare(t)
			if err := c.damage(t, dir); err != nil {
				t.Fatal(err)
			}
			refuses(t, dir, infos, joinOf(3), c.want)
			if _, err := os.Lstat(filepath.Join(filepath.Dir(dir), ".out.partial")); err == nil {
				t.Error("a join that was refused left its directory")
			}
		})
	}
	t.Run("an interrupted merge", func(t *testing.T) {
		dir := prepare(t)
		w, err := Create(dir, infos, WriteOptions{ShardBytes: 4000, Fingerprint: "f go"})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fill(w, data, 5), w.Close()); err != nil {
			t.Fatal(err)
		}
		refuses(t, dir, infos, joinOf(3), "finish it with merge --resume, or use --force")
		o := joinOf(3)
		o.Force = true
		joined(t, dir, infos, data, o)
	})
	t.Run("an output", func(t *testing.T) {
		dir := prepare(t)
		write(t, dir, infos, data, WriteOptions{})
		refuses(t, dir, infos, joinOf(3), "exists and is not empty")
		o := joinOf(3)
		o.Force = true
		joined(t, dir, infos, data, o)
	})
}

// A join that is killed goes on: after everything was taken over, and, on a disk without hard links, after some of it was.
func TestJoinResumes(t *testing.T) {
	infos, data := sample()
	dir := filepath.Join(t.TempDir(), "out")
	for i := 1; i <= 2; i++ {
		writePart(t, dir, infos, data, partOf(i, 2), -1)
	}
	w, err := Create(dir, infos, joinOf(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil { // killed before Commit
		t.Fatal(err)
	}
	if _, err := os.Lstat(w.target.partial); err != nil {
		t.Fatal("nothing is left to be resumed")
	}
	joined(t, dir, infos, data, joinOf(2))

	dir = filepath.Join(t.TempDir(), "out")
	for i := 1; i <= 2; i++ {
		writePart(t, dir, infos, data, partOf(i, 2), -1)
	}
	partial := filepath.Join(filepath.Dir(dir), ".out.partial")
	if err := os.Mkdir(partial, 0o777); err != nil {
		t.Fatal(err)
	}
	list, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".out.part-1-of-2", "*.safetensors"))
	if len(list) == 0 {
		t.Fatal("no shards")
	}
	for _, f := range list {
		if err := os.Rename(f, filepath.Join(partial, filepath.Base(f))); err != nil {
			t.Fatal(err)
		}
	}
	joined(t, dir, infos, data, joinOf(2))
}

func TestParsePart(t *testing.T) {
	for text, want := range map[string]Part{"1/1": {Index: 1, Of: 1}, "3/8": {Index: 3, Of: 8}, "9999/9999": {Index: 9999, Of: 9999}} {
		if got, err := ParsePart(text); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "/", "0/3", "4/3", "-1/3", "a/b", "1/3/5", "1/10000", "1/99999999999999999999"} {
		if got, err := ParsePart(text); err == nil {
			t.Errorf("%q: %v is no part", text, got)
		}
	}
}

func TestFindParts(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "a.b")
	if n, err := FindParts(filepath.Join(dir, "none", "out")); n != 0 || err != nil {
		t.Error(n, err)
	}
	for _, name := range []string{".a.b.part-1-of-4", ".a.b.part-x-of-5", ".axb.part-1-of-6", ".a.b.part-1-of-7x", ".a.b.part-1-of-123456"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := FindParts(out); n != 4 || err != nil {
		t.Error(n, err)
	}
	if err := os.Mkdir(filepath.Join(dir, ".a.b.part-2-of-3"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := FindParts(out); err == nil || !strings.Contains(err.Error(), "parts of 3 and of 4") {
		t.Error(err)
	}
}
