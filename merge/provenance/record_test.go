package provenance

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

func TestRecord(t *testing.T) {
	r := &Record{Version: 1, Program: "mergekit x", Method: "ties", Recipe: File{Name: "mergekit_config.yml", Bytes: 3, SHA256: "aa"},
		Options: Options{Backend: "go", Seed: 7, ShardBytes: -1}, Inputs: []Input{{Model: "org/a", Base: true, License: "mit", Files: []File{{Name: "model.safetensors", Bytes: 9, HeaderSHA256: "bb"}}}},
		Outputs: []File{{Name: "config.json", Bytes: 2, SHA256: "cc"}}, Notes: []string{"<&>"}}
	text, err := r.Text()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), text, 0o666); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%v\nread %+v\nwant %+v", err, got, r)
	}
	for text, want := range map[string]string{
		"":                           "is damaged",
		`{"mergekit_provenance": 1}`: "is no name of a file",
		"{}":                         "is of version 0",
		`{"mergekit_provenance": 2}`: "is of version 2",
		`{"mergekit_provenance": "1`: "is damaged",
		`{"mergekit_provenance": 1, "recipe": {"name": "r.yml"}, "outputs": [{"name": "../../etc/passwd"}]}`:             "is no name of a file",
		`{"mergekit_provenance": 1, "recipe": {"name": "../../etc/passwd"}}`:                                             "is no name of a file",
		`{"mergekit_provenance": 1, "recipe": {"name": "r.yml"}, "outputs": [{"name": ""}]}`:                             "is no name of a file",
		`{"mergekit_provenance": 1, "recipe": {"name": "r.yml"}, "outputs": [{"name": "a", "bytes": -1}]}`:               "is no name of a file",
		`{"mergekit_provenance": 1, "recipe": {"name": "r.yml"}, "inputs": [{"model": "a", "files": [{"name": ".."}]}]}`: "is no name of a file",
	} {
		_, err := parse("x", []byte(text))
		var format *tensors.FormatError
		if !errors.As(err, &format) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	var format *tensors.FormatError
	if _, err := Read(t.TempDir()); !errors.As(err, &format) {
		t.Errorf("a directory without a record: %v", err)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	put("a.json", "{}")
	put("b.json", "{1}")
	w, err := tensors.Create(filepath.Join(dir, "w"), []tensors.Info{{Name: "x", DType: tensors.F32, Shape: []int{3}}}, tensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.WriteAt(0, make([]byte, 12), 0), w.Finish(0), w.Commit()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "w", "model.safetensors"), filepath.Join(dir, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(dir, "model.safetensors")
	full, err := Identify(weights, false)
	if err != nil || full.SHA256 == "" {
		t.Fatalf("a small file is not hashed: %+v, %v", full, err)
	}
	digest, err := tensors.HeaderDigest(weights)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := Identify(filepath.Join(dir, "a.json"), false)
	b := a
	b.Name = "b.json"
	header := File{Name: full.Name, Bytes: full.Bytes, HeaderSHA256: digest}
	other := header
	other.HeaderSHA256 = strings.Repeat("0", 64)
	list, err := Check(context.Background(), dir, []File{a, b, full, header, other, {Name: "none"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []State{Same, Changed, Same, SameHeader, Changed, Missing} {
		if list[i].State != want {
			t.Errorf("file %d: %s, want %s", i, list[i], want)
		}
	}
	r := &Record{Outputs: []File{a, full}}
	if unknown, err := r.Unknown(dir); err != nil || !reflect.DeepEqual(unknown, []Finding{{"b.json", Added}, {"w", NotRecorded}}) {
		t.Errorf("unknown: %v, %v", unknown, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Check(ctx, dir, []File{a}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"mergekit_provenance": 1, "recipe": {"name": "r.yml"}, "outputs": [{"name": "a", "bytes": 1}]}`))
	f.Add([]byte(`{"mergekit_provenance": 1, "recipe": {"name": "r.yml"}, "inputs": [{"files": [{"name": "a/b"}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parse("x", text)
		if err != nil {
			return
		}
		for _, file := range r.Outputs {
			if !filepath.IsLocal(file.Name) {
				t.Errorf("%q leaves the directory", file.Name)
			}
		}
	})
}
