package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	for _, c := range []struct{ in, revision, repo, rev, sub string }{
		{"org/name", "", "org/name", "", ""},
		{"org/name@v1.0", "", "org/name", "v1.0", ""},
		{"org/name", "refs/pr/1", "org/name", "refs/pr/1", ""},
		{"hf://org/name", "", "org/name", "", ""},
		{"hf://gpt2", "main", "gpt2", "main", ""},
		{"hf://org/name/sub/model-q4.gguf@dev", "", "org/name", "dev", "sub/model-q4.gguf"},
		{"org/name/", "", "org/name", "", ""},
	} {
		n, err := ParseName(c.in, c.revision)
		if err != nil || n.Repo != c.repo || n.Revision != c.rev || n.Sub != c.sub {
			t.Errorf("%s %s: %+v, %v", c.in, c.revision, n, err)
		}
	}
	for _, in := range []string{"", "x", "a/b/c", "../b", "a/..", "org/na me", "org/name@", "org/name@../../x", "hf://", "hf://org/../x", "hf://org/name/../../x", "org/name@a\x00b", "hf://org/name//x", "org/-name"} {
		var bad *Error
		if n, err := ParseName(in, ""); !errors.As(err, &bad) {
			t.Errorf("%q: %+v, %v", in, n, err)
		}
	}
	if _, err := ParseName("org/name@a", "b"); err == nil {
		t.Error("two revisions are taken")
	}
}

func TestLooks(t *testing.T) {
	for p, want := range map[string]bool{"org/name": true, "hf://x": true, "hf://org/name/f": true, "./x": false, "/a/b": false, "a/b/c": false, "name": false, "../x": false, "~/x": false, "org/name@x": false} {
		if Looks(p) != want {
			t.Errorf("%s: %v", p, !want)
		}
	}
}

func TestChoose(t *testing.T) {
	read := func(f File) ([]byte, error) {
		switch {
		case strings.HasSuffix(f.Path, "index.json") && strings.Contains(f.Path, "model_index"):
			return []byte(`{"_class_name": "X", "unet": ["diffusers", "UNet"], "../vae": ["a", "b"], "text_encoder": ["transformers", "CLIP"]}`), nil
		case strings.HasSuffix(f.Path, ".index.json"):
			return []byte(`{"weight_map": {"a": "s1` + filepath.Ext(strings.TrimSuffix(f.Path, ".index.json")) + `", "b": "s2` + filepath.Ext(strings.TrimSuffix(f.Path, ".index.json")) + `"}}`), nil
		case strings.HasSuffix(f.Path, "config.json"):
			return []byte(`{"auto_map": {"AutoModel": "modeling.M"}}`), nil
		}
		return nil, fmt.Errorf("reading %s was not expected", f.Path)
	}
	for _, c := range []struct{ name, files, want string }{
		{"index before everything", "config.json model.safetensors.index.json s1.safetensors s2.safetensors s3.safetensors consolidated.safetensors pytorch_model.bin", "config.json model.safetensors.index.json s1.safetensors s2.safetensors"},
		{"safetensors before pickles", "model.safetensors pytorch_model.bin tf_model.h5", "model.safetensors"},
		{"pickles", "config.json pytorch_model.bin.index.json s1.bin s2.bin training_args.bin", "config.json pytorch_model.bin.index.json s1.bin s2.bin"},
		{"one pickle", "pytorch_model.bin optimizer.bin", "pytorch_model.bin"},
		{"bare", "weights.pth optimizer.pt", "weights.pth"},
		{"adapter", "adapter_config.json adapter_model.safetensors README.md", "README.md adapter_config.json adapter_model.safetensors"},
		{"adapter in a pickle", "adapter_config.json adapter_model.bin", "adapter_config.json adapter_model.bin"},
		{"numbered without an index", "x-00001-of-00002.safetensors x-00002-of-00002.safetensors", "x-00001-of-00002.safetensors x-00002-of-00002.safetensors"},
		{"gguf", "m.gguf README.md", "README.md m.gguf"},
		{"variant", "model.fp16.safetensors model.safetensors", "model.safetensors"},
		{"code that the configuration names", "config.json modeling.py model.safetensors", "config.json model.safetensors modeling.py"},
		{"code alone", "modeling.py model.safetensors", "model.safetensors"},
		{"diffusers", "model_index.json unet/config.json unet/diffusion_pytorch_model.safetensors vae/config.json text_encoder/model.safetensors other/model.safetensors",
			"model_index.json text_encoder/model.safetensors unet/config.json unet/diffusion_pytorch_model.safetensors"},
		{"nothing", "README.md photo.png", "README.md"},
		{"tokenizer alone", "tokenizer.model merges.txt vocab.txt vocab.json qwen.tiktoken chat_template.jinja", "chat_template.jinja merges.txt qwen.tiktoken tokenizer.model vocab.json vocab.txt"},
	} {
		var all []File
		for _, name := range strings.Fields(c.files) {
			all = append(all, File{Path: name, Size: 10})
		}
		got, err := choose(all, true, read)
		var names []string
		for _, f := range got {
			names = append(names, f.Path)
		}
		if err != nil || strings.Join(names, " ") != c.want {
			t.Errorf("%s: %v, %v; want %s", c.name, names, err, c.want)
		}
	}
	for files, want := range map[string]string{
		"model.safetensors.index.json s1.safetensors": "model.safetensors.index.json names files that are not there: s2.safetensors",
		"a.gguf b.gguf":                             "has 2 GGUF files and no other weights: a.gguf, b.gguf; name one of the files: hf://org/name/a.gguf",
		"a.safetensors b.safetensors":               "holds several checkpoints: a.safetensors, b.safetensors",
		"a-1-of-2.safetensors b-1-of-2.safetensors": "holds several checkpoints",
	} {
		var all []File
		for _, name := range strings.Fields(files) {
			all = append(all, File{Path: name})
		}
		if _, err := choose(all, true, read); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", files, err, want)
		}
	}
}

func TestSettingsOfTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME", "HF_HUB_DISABLE_IMPLICIT_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", dir)
	s := FromEnvironment()
	if s.Cache != filepath.Join(dir, ".cache/huggingface/hub") || s.Token != "" || s.Offline || s.Endpoint != "" {
		t.Errorf("nothing set: %+v", s)
	}
	if err := os.MkdirAll(filepath.Join(dir, "home"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "home/token"), []byte("hf_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HF_HOME", filepath.Join(dir, "home"))
	t.Setenv("HF_HUB_OFFLINE", "1")
	t.Setenv("HF_ENDPOINT", "http://127.0.0.1:1/")
	if s = FromEnvironment(); s.Cache != filepath.Join(dir, "home/hub") || s.Token != "hf_file" || !s.Offline || s.Endpoint != "http://127.0.0.1:1" {
		t.Errorf("HF_HOME: %+v", s)
	}
	t.Setenv("HF_TOKEN", "hf_variable")
	t.Setenv("HF_HUB_CACHE", "~/cache")
	if s = FromEnvironment(); s.Cache != filepath.Join(dir, "cache") || s.Token != "hf_variable" || len(s.More) == 0 || s.More[0] != filepath.Join(dir, "home/hub") {
		t.Errorf("HF_HUB_CACHE: %+v", s)
	}
	t.Setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
	if s = FromEnvironment(); s.Token != "" {
		t.Errorf("an implicit token is used: %q", s.Token)
	}
}

func TestOrigin(t *testing.T) {
	commit := strings.Repeat("3", 40)
	for dir, want := range map[string]string{"/c/models--org--name/snapshots/" + commit: "org/name", "/c/models--gpt2/snapshots/" + commit + "/sub": "gpt2",
		"/c/models--org--name/snapshots/main": "", "/c/org/name": "", "": ""} {
		repo, c, ok := Origin(dir)
		if repo != want || ok != (want != "") || ok && c != commit {
			t.Errorf("%s: %s %s %v", dir, repo, c, ok)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, s := range []Settings{{Endpoint: "ftp://x"}, {Endpoint: "x"}, {Endpoint: "http://user:pass@x"}, {Endpoint: "http://%"}, {Token: "two\nlines"}, {Token: "umläut"}} {
		var bad *Error
		if _, err := New(s); !errors.As(err, &bad) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

// FuzzParseName: no text makes a name that leaves its place.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"org/name", "hf://org/name@main", "hf://org/name/a/b@refs/pr/1", "../x", "hf://a/../b", "a@b@c", "hf://a/b/c:d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s, "")
		if err != nil {
			return
		}
		c := cachedRepo("/cache", n.Repo)
		for _, p := range []string{c.dir, filepath.Join(c.dir, "refs", n.revision()), filepath.Join(c.snapshot("x"), n.Sub)} {
			if rel, err := filepath.Rel("/cache", p); err != nil || !filepath.IsLocal(rel) {
				t.Errorf("%q leads to %s", s, p)
			}
		}
	})
}

// FuzzParseRecord: a record is refused or says nothing impossible.
func FuzzParseRecord(f *testing.F) {
	etag := strings.Repeat("0", 40)
	head := recordHead(etag, 25, 10)
	f.Add([]byte(head + strings.Repeat("\x00", 24)))
	f.Add([]byte(head + "\x0a\x00\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 8) + "\x05\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte(head + strings.Repeat("\xff", 24)))
	f.Add([]byte("mergekit part 1 x 1 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		segment, have, ok := parseRecord(data, etag, 25)
		if !ok {
			return
		}
		total := int64(0)
		for i, n := range have {
			if n < 0 || n > segmentLength(25, segment, int64(i)) {
				t.Errorf("segment %d has %d bytes", i, n)
			}
			total += n
		}
		if total > 25 || int64(len(have)) != segmentCount(25, segment) {
			t.Errorf("%d bytes in %d segments of %d", total, len(have), segment)
		}
	})
}

// FuzzChoose: whatever a hub lists, what is chosen is among it, once.
func FuzzChoose(f *testing.F) {
	f.Add("config.json\nmodel.safetensors.index.json\ns1.safetensors", []byte(`{"weight_map": {"a": "s1.safetensors"}}`))
	f.Add("model_index.json\nunet/model.safetensors", []byte(`{"unet": ["a", "b"]}`))
	f.Add("pytorch_model.bin.index.json", []byte(`{"weight_map": {"a": "../x.bin"}}`))
	f.Add("a.gguf", []byte(`[`))
	f.Fuzz(func(t *testing.T, list string, content []byte) {
		var all []File
		listed := map[string]bool{}
		for _, name := range strings.Split(list, "\n") {
			if plainPath(name) && !listed[name] {
				listed[name] = true
				all = append(all, File{Path: name})
			}
		}
		sort.Slice(all, func(i, j int) bool { return all[i].Path < all[j].Path })
		c, err := choose(all, true, func(File) ([]byte, error) { return content, nil })
		if err != nil {
			return
		}
		for _, f := range c {
			if !listed[f.Path] {
				t.Errorf("%q is chosen twice or was not listed", f.Path)
			}
			listed[f.Path] = false
		}
	})
}

// FuzzListing: whatever a hub or a store says, files stay below the place where they come.
func FuzzListing(f *testing.F) {
	good := strings.Repeat("a", 40)
	f.Add([]byte(`{"sha": "` + good + `", "siblings": [{"rfilename": "a/b", "size": 3, "blobId": "` + good + `", "lfs": {"sha256": "` + good + `", "size": 3}}]}`))
	f.Add([]byte(`{"sha": "` + good + `", "siblings": [{"rfilename": "../b"}]}`))
	f.Add([]byte(`{"sha": "", "siblings": [{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var info revisionInfo
		if json.Unmarshal(data, &info) != nil {
			return
		}
		l, err := info.listing()
		if err != nil {
			return
		}
		for _, file := range l.Files {
			for _, p := range []string{file.Path, file.Etag, l.Commit} {
				if p != "" && !filepath.IsLocal(p) || strings.Contains(file.Etag, "/") {
					t.Errorf("%q leads elsewhere", p)
				}
			}
		}
		b := &bucket{written: "s3://bucket/a", scheme: "s3", name: "bucket", prefix: "a"}
		var objects []objectInfo
		for _, s := range info.Siblings {
			objects = append(objects, objectInfo{key: s.Name, version: s.BlobID})
		}
		if l, _, err := b.listing(objects, map[string]string{}); err == nil {
			for _, file := range l.Files {
				if !filepath.IsLocal(file.Path) {
					t.Errorf("%q leads elsewhere", file.Path)
				}
			}
		}
	})
}
