package tensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// sample is a checkpoint to write: several dtypes, a scalar, an empty tensor, and sizes that straddle pages.
func sample() ([]Info, [][]byte) {
	infos := []Info{
		{"embed", F32, []int{50, 40}}, {"one", BF16, nil}, {"ids", I64, []int{7}}, {"mask", Bool, []int{13}}, {"none", F16, []int{0, 3}},
		{"w.0", BF16, []int{33, 65}}, {"w.1", F16, []int{4099}}, {"w.2", F8E4M3, []int{1, 1, 9001}}, {"head", F64, []int{300, 3}},
	}
	rng := rand.New(rand.NewPCG(7, 7))
	data := make([][]byte, len(infos))
	for i, info := range infos {
		data[i] = make([]byte, info.Bytes())
		for k := range data[i] {
			data[i][k] = byte(rng.Uint32())
		}
	}
	return infos, data
}

// fill writes and finishes the tensors that the writer lacks, in pieces and not in order; stop ends it after that many.
func fill(w *Writer, data [][]byte, stop int) error {
	for k, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(data)) {
		if k == stop {
			return nil
		}
		const piece = 1000
		for off := (len(data[i]) - 1) / piece * piece; off >= 0 && len(data[i]) > 0; off -= piece {
			if err := w.WriteAt(i, data[i][off:min(off+piece, len(data[i]))], int64(off)); err != nil {
				return err
			}
		}
		if err := w.Finish(i); err != nil {
			return err
		}
	}
	return nil
}

// write makes the whole output.
func write(t *testing.T, dir string, infos []Info, data [][]byte, o WriteOptions) {
	t.Helper()
	w, err := Create(dir, infos, o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := fill(w, data, -1); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteFile("config.json", []byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// files returns a directory's content by name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		m[e.Name()] = string(b)
	}
	return m
}

func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs (%d bytes, want %d)", name, len(got[name]), len(want[name]))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s should not be there", name)
		}
	}
}

// nothing checks that no output and no trace of one is in dir but the names.
func nothing(t *testing.T, dir string, but ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(but, e.Name()) {
			t.Errorf("%s is left in %s", e.Name(), dir)
		}
	}
}

func TestWriteReadsBack(t *testing.T) {
	infos, data := sample()
	for _, limit := range []int64{-1, 0, 1, 9000, 16000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "deep", "out")
			write(t, dir, infos, data, WriteOptions{ShardBytes: limit, Metadata: map[string]string{"made": "here"}})
			nothing(t, filepath.Dir(dir), "out")
			c := open(t, dir)
			if len(c.Names()) != len(infos) || c.Metadata()["format"] != "pt" || c.Metadata()["made"] != "here" {
				t.Errorf("%v, %v", c.Names(), c.Metadata())
			}
			for i, info := range infos {
				v, err := c.View(info.Name)
				if err != nil || v.DType != info.DType || !slices.Equal(v.Shape, info.Shape) || !bytes.Equal(v.Data, data[i]) {
					t.Errorf("%s: %s %v, %v", info.Name, v.DType, v.Shape, err)
				}
			}
			for _, path := range c.Files() {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if n := 8 + binary.LittleEndian.Uint64(b); n%dataAlign != 0 {
					t.Errorf("%s: the data begin at byte %d", path, n)
				}
				h, err := parse(b)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range h.tensors {
					if size := int64(e.DType.Size()); e.begin%size != 0 {
						t.Errorf("%s of %s begins at byte %d", e.Name, e.DType, e.begin)
					}
				}
			}
		})
	}
}

// Tensors go to shards in the given order; one begins when the next tensor would bring the last beyond the limit.
func TestShards(t *testing.T) {
	info := func(name string, n int) Info { return Info{name, U8, []int{n}} }
	infos := []Info{info("a", 6), info("b", 4), info("c", 1), info("d", 20), info("e", 0), info("f", 10)}
	data := make([][]byte, len(infos))
	for i := range infos {
		data[i] = make([]byte, infos[i].Bytes())
	}
	dir := filepath.Join(t.TempDir(), "out")
	write(t, dir, infos, data, WriteOptions{ShardBytes: 10, IndexMetadata: map[string]any{"total_parameters": 41, "x": "<&>"}})
	var index struct {
		Metadata  map[string]any    `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}
	text := files(t, dir)["model.safetensors.index.json"]
	if err := json.Unmarshal([]byte(text), &index); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "1", "b": "1", "c": "2", "d": "3", "e": "4", "f": "4"}
	for name, k := range want {
		if got := index.WeightMap[name]; got != "model-0000"+k+"-of-00004.safetensors" {
			t.Errorf("%s is in %s, want shard %s", name, got, k)
		}
	}
	if index.Metadata["total_size"] != 41.0 || index.Metadata["total_parameters"] != 41.0 || index.Metadata["x"] != "<&>" || !strings.Contains(text, "<&>") {
		t.Errorf("%v", index.Metadata)
	}
}

func TestWritersSideBySide(t *testing.T) {
	const n = 60
	infos, data := make([]Info, n), make([][]byte, n)
	for i := range infos {
		infos[i] = Info{fmt.Sprint("t", i), F32, []int{1000 + i}}
		data[i] = bytes.Repeat([]byte{byte(i), 1, 2, 3}, 1000+i)
	}
	dir := filepath.Join(t.TempDir(), "out")
	w, err := Create(dir, infos, WriteOptions{ShardBytes: 30000})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var wait sync.WaitGroup
	for worker := range 8 {
		wait.Go(func() {
			for i := range infos { // every worker a part of every tensor; the last one finishes it
				from, to := len(data[i])*worker/8, len(data[i])*(worker+1)/8
				if err := w.WriteAt(i, data[i][from:to], int64(from)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	for i := range infos {
		if err := w.Finish(i); err != nil {
			t.Fatal(err)
		}
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

func TestMisuse(t *testing.T) {
	infos, data := sample()
	dir := filepath.Join(t.TempDir(), "out")
	w, err := Create(dir, infos, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"a tensor that is not there":  w.WriteAt(99, nil, 0),
		"a negative tensor":           w.WriteAt(-1, nil, 0),
		"beyond the end":              w.WriteAt(0, make([]byte, 2), infos[0].Bytes()-1),
		"before the start":            w.WriteAt(0, make([]byte, 2), -1),
		"finished without its bytes":  w.Finish(0),
		"finished and not there":      w.Finish(99),
		"committed without its bytes": w.Commit(),
		"a file named as a shard":     w.WriteFile("model.safetensors", nil),
		"a file named as the index":   w.WriteFile("model.safetensors.index.json", nil),
		"a file named as the journal": w.WriteFile("journal", nil),
		"a file elsewhere":            w.WriteFile("../x", nil),
		"a file in a directory":       w.WriteFile("a/b", nil),
		"a copy of nothing":           w.CopyFile("x", filepath.Join(dir, "none")),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := fill(w, data, -1); err != nil {
		t.Fatal(err)
	}
	if w.WriteAt(0, data[0], 0) == nil {
		t.Error("written after it was finished")
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if w.WriteAt(0, data[0], 0) == nil || w.WriteFile("x", nil) == nil || w.Close() != nil {
		t.Error("written after the commit")
	}
	for name, infos := range map[string][]Info{
		"twice": {{"a", F32, nil}, {"a", F32, nil}}, "no dtype": {{"a", 0, nil}}, "shape": {{"a", F32, []int{-1}}}, "name": {{"__metadata__", F32, nil}},
		"bits": {{"a", F4, []int{3}}}, "UTF-8": {{"\xff", F32, nil}}, "total": {{"a", U8, []int{1 << 62}}, {"b", U8, []int{1 << 62}}},
	} {
		if _, err := Create(filepath.Join(t.TempDir(), "out"), infos, WriteOptions{}); !errors.As(err, new(*FormatError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExistingOutputs(t *testing.T) {
	infos, data := sample()
	refused := func(t *testing.T, dir string, o WriteOptions, says string) {
		t.Helper()
		w, err := Create(dir, infos, o)
		if err == nil {
			w.Close()
		}
		if !errors.As(err, new(*FormatError)) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
		// What does not hang on a plan or another process is known beforehand.
		later := strings.Contains(says, "another process") || strings.Contains(says, "../x")
		if early := CheckOutput(dir, o.Force, o.Resume); early == nil && !later || early != nil && !strings.Contains(early.Error(), says) {
			t.Errorf("beforehand: %v, want %q", early, says)
		}
	}
	t.Run("not empty", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		write(t, dir, infos, data, WriteOptions{})
		before := files(t, dir)
		refused(t, dir, WriteOptions{}, "out/: exists and is not empty; use --force to replace it")
		refused(t, dir, WriteOptions{Resume: true}, "no interrupted merge to resume; use --force")
		same(t, files(t, dir), before)
		nothing(t, filepath.Dir(dir), "out")
	})
	t.Run("empty", func(t *testing.T) {
		if err := CheckOutput(t.TempDir(), false, false); err != nil {
			t.Error(err)
		}
		write(t, t.TempDir(), infos, data, WriteOptions{})
	})
	t.Run("force", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		if err := os.MkdirAll(filepath.Join(dir, "old"), 0o777); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "model.safetensors", tensor("old"))
		before := files(t, filepath.Join(dir, "old"))
		w, err := Create(dir, infos, WriteOptions{Force: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := fill(w, data, -1); err != nil {
			t.Fatal(err)
		}
		if open(t, dir).Names()[0] != "old" || len(before) != 0 {
			t.Error("the old output did not stay whole until the commit")
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		nothing(t, dir, "model.safetensors")
		nothing(t, filepath.Dir(dir), "out")
		if len(open(t, dir).Names()) != len(infos) {
			t.Error("the new output is not there")
		}
	})
	t.Run("force and no checkpoint", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		if err := os.MkdirAll(filepath.Join(dir, "config.json"), 0o777); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "thesis.tex", []byte("precious"))
		refused(t, dir, WriteOptions{Force: true}, "holds no checkpoint, so --force does not remove what is there; choose another directory")
		nothing(t, dir, "config.json", "thesis.tex")
		nothing(t, filepath.Dir(dir), "out")
	})
	t.Run("a file", func(t *testing.T) {
		dir := t.TempDir()
		refused(t, writeFile(t, dir, "out", []byte("precious")), WriteOptions{Force: true}, "is not a directory")
		nothing(t, dir, "out")
	})
	t.Run("below a file", func(t *testing.T) {
		dir := t.TempDir()
		path := writeFile(t, dir, "file", []byte("precious"))
		if _, err := Create(filepath.Join(path, "out"), infos, WriteOptions{}); err == nil {
			t.Error("no error")
		}
		nothing(t, dir, "file")
	})
	t.Run("the working directory", func(t *testing.T) {
		dir := t.TempDir()
		writeFile(t, dir, "precious", nil)
		t.Chdir(dir)
		refused(t, ".", WriteOptions{Force: true}, "working directory")
		refused(t, filepath.Dir(dir), WriteOptions{Force: true}, "working directory")
	})
	t.Run("a git repository", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, ".git"), 0o777); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, WriteOptions{Force: true}, "git repository")
	})
	t.Run("the root", func(t *testing.T) { refused(t, "/", WriteOptions{Force: true}, "root of a file system") })
	t.Run("another writer", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		w, err := Create(dir, infos, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		refused(t, dir, WriteOptions{Force: true}, "another process is writing this output")
		refused(t, dir, WriteOptions{Resume: true}, "another process is writing this output")
	})
	t.Run("side files are checked first", func(t *testing.T) {
		refused(t, filepath.Join(t.TempDir(), "out"), WriteOptions{Files: []string{"../x"}}, "../x")
	})
}

func TestSameDir(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{{real, link, true}, {real, real + "/.", true}, {real, dir, false}, {link + "/new", real + "/new", true}, {real + "/x", real + "/y", false}, {real, real + "/x", false}} {
		if got := SameDir(c.a, c.b); got != c.want {
			t.Errorf("SameDir(%s, %s) = %v", c.a, c.b, got)
		}
	}
}

// The memory for a layout grows with the number of tensors, not with their size.
func TestHugeLayout(t *testing.T) {
	var infos []Info
	for i := range 1000 {
		infos = append(infos, Info{fmt.Sprintf("model.layers.%d.weight", i), BF16, []int{1 << 14, 1 << 13}})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l, err := plan(infos, 0, nil)
	runtime.ReadMemStats(&after)
	if err != nil || len(l.shards) != 56 || l.total != 1000<<28 || after.TotalAlloc-before.TotalAlloc > 8<<20 {
		t.Errorf("%d shards, %d bytes, %d allocated, %v", len(l.shards), l.total, after.TotalAlloc-before.TotalAlloc, err)
	}
}
