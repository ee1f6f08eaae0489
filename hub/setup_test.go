package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mergekit/mergekit/internal/fakehub"
)

// noise is n bytes that compress badly and repeat nowhere near.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	x := seed*2862933555777941757 + 3037000493
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return b
}

// model is the files of a model in three shards.
func model() map[string][]byte {
	index := map[string]any{"weight_map": map[string]string{"a": "model-00001-of-00003.safetensors", "b": "model-00002-of-00003.safetensors", "c": "model-00003-of-00003.safetensors"}}
	x, _ := json.Marshal(index)
	return map[string][]byte{
		"config.json": []byte(`{"model_type": "llama"}`), "tokenizer.json": []byte(`{}`), "tokenizer_config.json": []byte(`{"a": 1}`),
		"chat_template.jinja": []byte("{{ messages }}"), "README.md": []byte("# A model"), "modeling_x.py": []byte("boom()"),
		"model.safetensors.index.json":     x,
		"model-00001-of-00003.safetensors": noise(100_001, 1),
		"model-00002-of-00003.safetensors": noise(64_000, 2),
		"model-00003-of-00003.safetensors": noise(17, 3),
		"consolidated.safetensors":         noise(5000, 4),
		"pytorch_model.bin":                noise(4000, 5),
		"optimizer.bin":                    noise(100, 6),
		"trainer_state.json":               []byte("{}"),
		"onnx/model.onnx":                  noise(300, 7),
		"empty.json":                       {},
	}
}

var needed = []string{"README.md", "chat_template.jinja", "config.json", "empty.json", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
	"model-00003-of-00003.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"}

// asking is a client of a hub with a cache of its own, which does not wait long.
func asking(t *testing.T, h *fakehub.Hub, change func(*Settings)) *Client {
	t.Helper()
	s := Settings{Endpoint: h.URL, Cache: t.TempDir(), segment: 10_000, wait: func(int) time.Duration { return time.Millisecond }, idle: 5 * time.Second}
	if change != nil {
		change(&s)
	}
	c, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustName(t *testing.T, s string) Name {
	t.Helper()
	n, err := ParseName(s, "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// sameAs checks that a snapshot has exactly some files of a repository, byte for byte, and that nothing half done is left.
func sameAs(t *testing.T, dir string, files map[string][]byte, names []string) {
	t.Helper()
	have, err := filesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range have {
		got = append(got, f.Path)
	}
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Fatalf("files %v, want %v", got, names)
	}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(b, files[name]) {
			t.Fatalf("%s is not what the hub has: %v", name, err)
		}
	}
	left, _ := filepath.Glob(filepath.Join(dir, "../../blobs/*mergekit*"))
	if len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
}

// checkBlobs checks that every blob of a cache has the hash that its name is.
func checkBlobs(t *testing.T, cache string) {
	t.Helper()
	blobs, _ := filepath.Glob(filepath.Join(cache, "models--*/blobs/*"))
	for _, b := range blobs {
		if strings.Contains(b, "mergekit") {
			continue
		}
		st, err := os.Stat(b)
		if err == nil {
			err = verify(context.Background(), b, File{Size: st.Size(), Etag: filepath.Base(b)})
		}
		if err != nil {
			t.Errorf("%s: %v", b, err)
		}
	}
}
