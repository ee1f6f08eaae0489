package tensors

import (
	"encoding/json"
	"maps"
	"runtime"
	"slices"
	"testing"
)

// allocatesLittle fails when parse allocates more than a small multiple of the n bytes it reads. The factor counts garbage
// too: every string with a backslash goes through encoding/json, which costs about 200 bytes for two.
func allocatesLittle(t *testing.T, n int, parse func()) {
	t.Helper()
	const factor, always = 48, 64 << 10
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	parse()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > uint64(factor*n+always) {
		t.Fatalf("%d bytes allocated for an input of %d", got, n)
	}
}

// object reads JSON with the standard library, which forgives more: what our reader accepts must not mean something else.
func object[V any](t *testing.T, text []byte) map[string]V {
	t.Helper()
	var m map[string]V
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("accepted, but encoding/json says: %v\n%q", err, text)
	}
	return m
}

// meansTheSame compares a header with what encoding/json reads from the same text.
func meansTheSame(t *testing.T, h *header, text []byte) {
	t.Helper()
	members := object[json.RawMessage](t, text)
	if raw, ok := members[metadataKey]; ok {
		if m := object[string](t, raw); !maps.Equal(m, h.metadata) {
			t.Fatalf("metadata is %q, want %q", h.metadata, m)
		}
		delete(members, metadataKey)
	}
	if len(members) != len(h.tensors) {
		t.Fatalf("%d tensors, want %d", len(h.tensors), len(members))
	}
	for _, e := range h.tensors {
		m := object[json.RawMessage](t, members[e.Name])
		var dtype string
		var shape []int
		var offsets []int64
		for key, into := range map[string]any{"dtype": &dtype, "shape": &shape, "data_offsets": &offsets} {
			if err := json.Unmarshal(m[key], into); err != nil {
				t.Fatalf("%q: %s: %v", e.Name, key, err)
			}
		}
		if dtype != e.DType.String() || !slices.Equal(shape, e.Shape) || !slices.Equal(offsets, []int64{e.begin, e.end}) {
			t.Fatalf("%q is %s %v at %d to %d, want %s %v at %v", e.Name, e.DType, e.Shape, e.begin, e.end, dtype, shape, offsets)
		}
	}
}

// indexMeansTheSame compares an index with what encoding/json reads from the same text.
func indexMeansTheSame(t *testing.T, x *index, text []byte) {
	t.Helper()
	want := object[string](t, object[json.RawMessage](t, text)["weight_map"])
	if !maps.Equal(x.file, want) || !slices.Equal(slices.Sorted(slices.Values(x.names)), slices.Sorted(maps.Keys(want))) {
		t.Fatalf("%q is placed as %q, want %q", x.names, x.file, want)
	}
	files := slices.Compact(slices.Sorted(maps.Values(want)))
	if !slices.Equal(x.files, files) {
		t.Fatalf("the files are %q, want %q", x.files, files)
	}
}

func FuzzIndexMeaning(f *testing.F) {
	for _, text := range acceptedIndexes {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"weight_map":{"a":"../1.safetensors"}}`))
	f.Add([]byte(`{"Weight_Map":{"a":"1.safetensors"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var x *index
		var err error
		allocatesLittle(t, len(data), func() { x, err = Safetensors.parseIndex(data) })
		if err == nil {
			indexMeansTheSame(t, x, data)
		}
	})
}
