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
	"testing"
)

func writeFile(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func indexOf(pairs ...string) []byte {
	var b bytes.Buffer
	b.WriteString(`{"metadata":{"total_size":1},"weight_map":{`)
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%q", pairs[i], pairs[i+1])
	}
	b.WriteString("}}")
	return b.Bytes()
}

// tensor is a file with one tensor of four bytes.
func tensor(name string) []byte {
	return safetensors(fmt.Sprintf(`{%q:{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, name), 4)
}

func open(t *testing.T, path string) *Checkpoint {
	t.Helper()
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestOpenFindsTheCheckpoint(t *testing.T) {
	index := indexOf("a", "model-00001-of-00002.safetensors", "b", "model-00002-of-00002.safetensors")
	for _, c := range []struct {
		name  string
		files map[string][]byte
		open  string
		want  string // names, or what the error says
	}{
		{"a file", map[string][]byte{"x.safetensors": tensor("a")}, "x.safetensors", "[a]"},
		{"a file of another name", map[string][]byte{"weights": tensor("a")}, "weights", "[a]"},
		{"the standard name", map[string][]byte{"model.safetensors": tensor("a"), "other.safetensors": tensor("b")}, "", "[a]"},
		{"diffusers", map[string][]byte{"diffusion_pytorch_model.safetensors": tensor("a"), "x.safetensors": tensor("b")}, "", "[a]"},
		{"the only file", map[string][]byte{"adapter.safetensors": tensor("a")}, "", "[a]"},
		{"an index", map[string][]byte{"model.safetensors.index.json": index, "model-00001-of-00002.safetensors": tensor("a"), "model-00002-of-00002.safetensors": tensor("b"), "consolidated.safetensors": tensor("c")}, "", "[a b]"},
		{"the index itself", map[string][]byte{"model.safetensors.index.json": index, "model-00001-of-00002.safetensors": tensor("a"), "model-00002-of-00002.safetensors": tensor("b")}, "model.safetensors.index.json", "[a b]"},
		{"an index of another name", map[string][]byte{"x.safetensors.index.json": indexOf("a", "y.safetensors"), "y.safetensors": tensor("a")}, "", "[a]"},
		{"shards without an index", map[string][]byte{"m-00001-of-00002.safetensors": tensor("a"), "m-00002-of-00002.safetensors": tensor("b")}, "", "[a b]"},
		{"a tensor that the index does not list", map[string][]byte{"model.safetensors.index.json": indexOf("a", "x.safetensors"), "x.safetensors": safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2)}, "", "[a]"},

		{"nothing", nil, "", "has no safetensors checkpoint; give a directory with"},
		{"no such path", nil, "none", "none: does not exist; check the path"},
		{"a pickle", map[string][]byte{"pytorch_model.bin": nil}, "", "but pytorch_model.bin; convert it first"},
		{"a GGUF file", map[string][]byte{"m.gguf": nil}, "", "mergekit convert"},
		{"two checkpoints", map[string][]byte{"a.safetensors": tensor("a"), "b.safetensors": tensor("b")}, "", "holds several checkpoints: a.safetensors, b.safetensors; name one"},
		{"a shard is missing, no index", map[string][]byte{"m-00001-of-00003.safetensors": tensor("a"), "m-00003-of-00003.safetensors": tensor("b")}, "", "of its 3 shards these are missing: 2"},
		{"a shard is missing", map[string][]byte{"model.safetensors.index.json": index, "model-00001-of-00002.safetensors": tensor("a")}, "", "model-00002-of-00002.safetensors: shard 2 of 2 of ckpt is missing; download it again"},
		{"a shard is truncated", map[string][]byte{"model.safetensors.index.json": index, "model-00001-of-00002.safetensors": tensor("a"), "model-00002-of-00002.safetensors": tensor("b")[:63]}, "", "shard 2 of 2 of ckpt is truncated: header promises 65 bytes, file has 63; download it again"},
		{"a tensor is not in its shard", map[string][]byte{"model.safetensors.index.json": index, "model-00001-of-00002.safetensors": tensor("a"), "model-00002-of-00002.safetensors": tensor("x")}, "", "model-00002-of-00002.safetensors: b: the index places this tensor here"},
		{"a tensor twice, no index", map[string][]byte{"m-00001-of-00002.safetensors": tensor("a"), "m-00002-of-00002.safetensors": tensor("a")}, "", "a: is in m-00001-of-00002.safetensors too"},
		{"the index is empty", map[string][]byte{"model.safetensors.index.json": []byte(`{"weight_map":{}}`)}, "", "lists no tensors"},
		{"escape", map[string][]byte{"model.safetensors.index.json": indexOf("a", "../model.safetensors")}, "", `places a in ../model.safetensors, which is not a plain file name`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ckpt")
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			for name, data := range c.files {
				writeFile(t, dir, name, data)
			}
			got, err := Open(filepath.Join(dir, c.open))
			if err != nil {
				if !errors.As(err, new(*FormatError)) || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("%v, want %s", err, c.want)
				}
				return
			}
			defer got.Close()
			if fmt.Sprint(got.Names()) != c.want {
				t.Errorf("%v, want %s", got.Names(), c.want)
			}
		})
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "model.safetensors"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory of the standard name: %v", err)
	}
	writeFile(t, dir, "model.safetensors.index.json", indexOf("a", "model.safetensors"))
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a directory in place of a shard: %v", err)
	}
}

func TestViews(t *testing.T) {
	dir := t.TempDir()
	header := `{"__metadata__":{"format":"pt","from":"x"},"s":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},"m":{"dtype":"I32","shape":[2,2],"data_offsets":[2,18]},"z":{"dtype":"F32","shape":[3,0],"data_offsets":[18,18]}}`
	data := safetensors(header, 18)
	c := open(t, writeFile(t, dir, "model.safetensors", data))
	for name, want := range map[string][]byte{"s": data[len(data)-18:][:2], "m": data[len(data)-18:][2:18], "z": {}} {
		v, err := c.View(name)
		if err != nil || !bytes.Equal(v.Data, want) || v.Name != name {
			t.Errorf("%s: %v, %v; want %v", name, v.Data, err, want)
		}
		c.WillNeed(name, 0, 1<<40)
		c.Release(name, 0, 1<<40)
		if !bytes.Equal(v.Data, want) {
			t.Errorf("%s: %v after its release, want %v", name, v.Data, want)
		}
	}
	c.WillNeed("none", 0, 1)
	c.Release("m", -1, 4)
	c.WillNeed("m", 99, 4)
	if _, err := c.View("none"); !errors.As(err, new(*FormatError)) {
		t.Errorf("a tensor that is not there: %v", err)
	}
	if _, ok := c.Lookup("none"); ok {
		t.Error("a tensor that is not there is found")
	}
	if info, ok := c.Lookup("m"); !ok || info.DType != I32 || !slices.Equal(info.Shape, []int{2, 2}) {
		t.Errorf("m is %+v", info)
	}
	if c.TotalBytes() != 18 || c.Metadata()["from"] != "x" || len(c.Files()) != 1 || c.Path() == "" {
		t.Errorf("%d bytes, %v, %v", c.TotalBytes(), c.Metadata(), c.Files())
	}
}

// The order of names is that of the bytes, so that reading follows the disk.
func TestNamesAreInFileOrder(t *testing.T) {
	c := open(t, writeFile(t, t.TempDir(), "m.safetensors", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"c":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 3)))
	if got := fmt.Sprint(c.Names()); got != "[b c a]" {
		t.Error(got)
	}
}

func TestParseIndex(t *testing.T) {
	for text, says := range map[string]string{
		``:                                       "expected '{'",
		`[]`:                                     "expected '{'",
		`{}`:                                     "has no weight_map",
		`{"weight_map":[]}`:                      "expected '{'",
		`{"weight_map":{"a":1}}`:                 "expected a string",
		`{"weight_map":{"a":"x.safetensors"}`:    "expected",
		`{"weight_map":{"a":"x.safetensors"}} x`: "more after the end",
		`{"weight_map":{"a":"x.safetensors"},"weight_map":{"b":"x.safetensors"}}`: "weight_map twice",
		`{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}`:                "lists a twice",
		`{"weight_map":{"a":"../x.safetensors"}}`:                                 "not a plain file name",
		`{"weight_map":{"a":"/etc/x.safetensors"}}`:                               "not a plain file name",
		`{"weight_map":{"a":"d/x.safetensors"}}`:                                  "not a plain file name",
		`{"weight_map":{"a":"..\\x.safetensors"}}`:                                "not a plain file name",
		`{"weight_map":{"a":"C:x.safetensors"}}`:                                  "not a plain file name",
		`{"weight_map":{"a":""}}`:                                                 "not a plain file name",
		`{"weight_map":{"a":"x\u0000.safetensors"}}`:                              "not a plain file name",
		`{"weight_map":{"a":"passwd"}}`:                                           "not a safetensors file",
		"{\"weight_map\":{\"a\":\"\xff.safetensors\"}}":                           "UTF-8",
	} {
		if _, err := Safetensors.parseIndex([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
	x, err := Safetensors.parseIndex([]byte(`{"metadata":{"total_size":3,"x":[{}]},"weight_map":{"b":"2.safetensors","a":"1.safetensors","c":"2.safetensors"},"more":null}`))
	if err != nil || fmt.Sprint(x.names, x.files) != "[b a c] [1.safetensors 2.safetensors]" {
		t.Errorf("%+v, %v", x, err)
	}
}

func TestNumberedShards(t *testing.T) {
	for name, want := range map[string]string{
		"model-00002-of-00004.safetensors": "model 2 4 true", "a-b-1-of-1.safetensors": "a-b 1 1 true",
		"model-00005-of-00004.safetensors": " false", "model-0-of-3.safetensors": " false", "model.safetensors": " false",
		"x-of-3.safetensors": " false", "m-1-of-99999999999999999999.safetensors": " false", "m-1-of-2.bin": " false",
	} {
		stem, i, n, ok := Safetensors.numberedShards(name)
		if got := fmt.Sprint(stem, " ", i, " ", n, " ", ok); ok && got != want || !ok && want != " false" {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestDigests(t *testing.T) {
	dir := t.TempDir()
	a, b := writeFile(t, dir, "a.safetensors", tensor("a")), writeFile(t, dir, "b.safetensors", tensor("b"))
	other := tensor("a")
	other[len(other)-1]++
	c := writeFile(t, dir, "c.safetensors", other)
	digests := func(f func(string) (string, error)) (all []string) {
		for _, path := range []string{a, b, c} {
			d, err := f(path)
			if err != nil || len(d) != 64 {
				t.Fatalf("%s, %v", d, err)
			}
			all = append(all, d)
		}
		return all
	}
	if d := digests(SHA256); d[0] == d[1] || d[0] == d[2] {
		t.Error("files that differ have the same SHA-256")
	}
	if d := digests(HeaderDigest); d[0] == d[1] || d[0] != d[2] {
		t.Error("a header's digest must depend on the header and the size alone")
	}
	for _, f := range []func(string) (string, error){SHA256, HeaderDigest} {
		if _, err := f(filepath.Join(dir, "none")); !errors.As(err, new(*FormatError)) {
			t.Errorf("a file that is not there: %v", err)
		}
	}
	if _, err := HeaderDigest(writeFile(t, dir, "d", []byte("short"))); err == nil {
		t.Error("no header has a digest")
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":3},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../1.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"\u0061":"1.safetensors","a":"2.safetensors"}}`))
	f.Add([]byte(`{"x":[[[[1e9,-0.5,true,null,"\\"]]]],"weight_map":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := Safetensors.parseIndex(data)
		if err != nil {
			return
		}
		if len(x.names) == 0 || len(x.names) != len(x.file) || !slices.IsSorted(x.files) || len(slices.Compact(slices.Clone(x.files))) != len(x.files) {
			t.Fatalf("%+v", x)
		}
		for _, name := range x.names {
			// Joining a plain name must stay in the directory: it is one element, and not the way up.
			file := x.file[name]
			if !slices.Contains(x.files, file) || !filepath.IsLocal(file) || filepath.Base(file) != file || strings.ContainsAny(file, "/\\\x00") {
				t.Fatalf("%q is placed in %q", name, file)
			}
		}
	})
}
