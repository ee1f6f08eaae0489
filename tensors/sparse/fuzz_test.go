package sparse

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// FuzzOpen opens arbitrary bytes as a sparse difference. What is accepted must hold together, and opening must not allocate more than
// the file is long allows for.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	good := filepath.Join(dir, "good.safetensors")
	if err := Write(good, Header{Kind: Graft, Meta: map[string]string{"sparsity": "0.01"}}, example(), nil, false); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s, err := Open(path)
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(64*len(data)+256<<10); got > most {
			t.Fatalf("%d bytes allocated for a file of %d", got, len(data))
		}
		if err != nil {
			return
		}
		defer s.Close()
		total := int64(0)
		for _, name := range s.Names() {
			e, ok := s.Entries(name)
			x, also, err := s.Tensor(name)
			if !ok || !also || err != nil {
				t.Fatalf("%q: %t %t %v", name, ok, also, err)
			}
			for i, at := range x.Index {
				if at < 0 || at >= e.Elems() || i > 0 && at <= x.Index[i-1] {
					t.Fatalf("%q: index %d is %d of %d", name, i, at, e.Elems())
				}
			}
			total += int64(len(x.Index))
		}
		if total != s.Count() {
			t.Fatalf("%d entries, and the file says %d", total, s.Count())
		}
		for _, name := range s.Wholes() {
			if _, ok, err := s.Whole(name); !ok || err != nil {
				t.Fatalf("%q: %t %v", name, ok, err)
			}
		}
		if o, _ := Compare(s, s); o.Shared != s.Count() {
			t.Fatalf("a file shares %d of its %d entries with itself", o.Shared, s.Count())
		}
	})
}
