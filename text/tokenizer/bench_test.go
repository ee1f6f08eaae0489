package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// corpus is program text for benchmarks: this package's own source, again and again.
func corpus(t testing.TB, size int) string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for b.Len() < size {
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(data)
		}
	}
	return strings.ToValidUTF8(b.String()[:size], "")
}

func BenchmarkEncode(b *testing.B) {
	text := corpus(b, 1<<20)
	for _, kind := range kinds {
		tok := open(b, kind)
		b.Run(kind, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				tok.Encode(text, true)
			}
		})
	}
}

func BenchmarkEncodeSpans(b *testing.B) {
	text := corpus(b, 1<<20)
	for _, kind := range kinds {
		tok := open(b, kind)
		b.Run(kind, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				tok.EncodeSpans(text, true)
			}
		})
	}
}
