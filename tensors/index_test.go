package tensors

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// acceptedIndexes are odd and good: each way of writing an index that the reader must not refuse.
var acceptedIndexes = []string{
	`{"metadata":{"total_size":3},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}`,
	` {"weight_map" : { "a" : "1.safetensors" } } ` + "\n",
	`{"weight_map":{"b":"x.safetensors","a":"x.safetensors"},"metadata":null}`,
	`{"weight_map":{"\u0061\n":"\u0031.safetensors","":"..safetensors"}}`,
	`{"weight_map":{"\ud83d\ude00":"é.safetensors"},"Weight_Map":{"a":1}}`,
	`{"x":[[],{},-0.5e+3,true,"\\"],"weight_map":{"a":".safetensors"}}`,
}

func TestAcceptedIndexes(t *testing.T) {
	for _, text := range acceptedIndexes {
		x, err := Safetensors.parseIndex([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		indexMeansTheSame(t, x, []byte(text))
	}
}

// Dense inputs, where bytes of bookkeeping per byte of text are most.
func TestDenseInputsAllocateLittle(t *testing.T) {
	dense := func(before, item, after string) []byte {
		var b strings.Builder
		for i := range 20_000 {
			fmt.Fprintf(&b, ","+item, i)
		}
		return []byte(before + b.String()[1:] + after)
	}
	header := func(text []byte) func() error {
		return func() error { _, err := parse(safetensors(string(text), 0)); return err }
	}
	index := func(text []byte) func() error {
		return func() error { _, err := Safetensors.parseIndex(text); return err }
	}
	for _, c := range []struct {
		name  string
		text  []byte
		parse func([]byte) func() error
	}{
		{"metadata", dense(`{"__metadata__":{`, `"%x":""`, `}}`), header},
		{"metadata with escapes", dense(`{"__metadata__":{`, `"\n%x":"\n"`, `}}`), header},
		{"tensors", dense(`{`, `"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`, `}`), header},
		{"unknown members", dense(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],`, `"":[%d]`, `}}`), header},
		{"index", dense(`{"weight_map":{`, `"%x":".safetensors"`, `}}`), index},
		{"index of many shards", dense(`{"weight_map":{`, `"%x":"%[1]x.safetensors"`, `}}`), index},
	} {
		var err error
		parse := c.parse(c.text)
		allocatesLittle(t, len(c.text), func() { err = parse() })
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestDamagedIndexNamesItself(t *testing.T) {
	for _, c := range []struct{ text, says string }{
		{``, "expected '{'"},
		{`{"weight_map":{"a":"/etc/x.safetensors"}}`, "places a in /etc/x.safetensors, which is not a plain file name"},
		{`{"weight_map":{"a":"1.safetensors","a":"1.safetensors"}}`, "lists a twice"},
	} {
		dir := t.TempDir()
		path := writeFile(t, dir, "model.safetensors.index.json", []byte(c.text))
		for _, asked := range []string{dir, path} {
			_, err := Open(asked)
			var f *FormatError
			if !errors.As(err, &f) || f.File != path || f.Hint == "" || !strings.Contains(f.Msg, c.says) {
				t.Errorf("%q: %v, want the index named and %q", c.text, err, c.says)
			}
		}
	}
}

// The size alone refuses it: a sparse file costs its maker nothing, reading it would cost us all of it.
func TestHugeIndexIsNotRead(t *testing.T) {
	path := writeFile(t, t.TempDir(), "model.safetensors.index.json", []byte(`{"weight_map":{"a":"1.safetensors"}}`))
	if err := os.Truncate(path, maxHeader+1); err != nil {
		t.Fatal(err)
	}
	var err error
	allocatesLittle(t, 0, func() { _, err = Open(path) })
	if !errors.As(err, new(*FormatError)) || !strings.Contains(err.Error(), "has 100 000 001 bytes, at most 100 000 000 are allowed") {
		t.Error(err)
	}
}

// Tensors of a shard that the index gives to another shard, or to none, are not the checkpoint's.
func TestIndexDecides(t *testing.T) {
	dir := t.TempDir()
	both := `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`
	writeFile(t, dir, "1.safetensors", safetensors(both, 2))
	writeFile(t, dir, "2.safetensors", safetensors(both, 2))
	writeFile(t, dir, "3.safetensors", []byte("damaged, but not listed"))
	writeFile(t, dir, "model.safetensors.index.json", indexOf("a", "2.safetensors", "b", "1.safetensors"))
	c := open(t, dir)
	for name, want := range map[string]string{"a": "2.safetensors 0", "b": "1.safetensors 1"} {
		v, err := c.View(name)
		if err != nil || len(v.Data) != 1 {
			t.Fatalf("%s: %v, %v", name, v.Data, err)
		}
		if got := fmt.Sprint(filepath.Base(c.Files()[c.at[name].file]), " ", v.Data[0]); got != want {
			t.Errorf("%s is read from %s, want %s", name, got, want)
		}
	}
	if got := fmt.Sprint(c.Names(), c.TotalBytes(), len(c.Files())); got != "[b a] 2 2" {
		t.Error(got)
	}
}
