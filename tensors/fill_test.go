package tensors

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// filling writes data in pieces of 1000 bytes, and fails at a piece if fail is not negative.
func filling(w *Writer, data [][]byte, threads, fail int) (Filling, *atomic.Int64) {
	var pieces, written atomic.Int64
	return Filling{
		Threads: threads,
		Cut:     func(i int) Pieces { return Pieces{int64(len(data[i])), 1000} },
		Written: func(n int64) { written.Add(n) },
		Worker: func() func(i int, lo, hi int64) (int64, error) {
			return func(i int, lo, hi int64) (int64, error) {
				if int(pieces.Add(1)) == fail {
					return 0, errors.New("no more")
				}
				return hi - lo, w.WriteAt(i, data[i][lo:hi], lo)
			}
		},
	}, &written
}

// TestFill wants the bytes whatever the number of threads, also after a run that failed half way and was resumed.
func TestFill(t *testing.T) {
	infos, data := sample()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "want"), infos, data, WriteOptions{})
	want := files(t, filepath.Join(dir, "want"))
	for _, threads := range []int{0, 1, 7} {
		out := filepath.Join(dir, fmt.Sprint("out", threads))
		w, err := Create(out, infos, WriteOptions{Fingerprint: "x"})
		if err != nil {
			t.Fatal(err)
		}
		f, _ := filling(w, data, threads, 20)
		if err := w.Fill(t.Context(), f); err == nil || err.Error() != "no more" {
			t.Fatalf("%d threads: %v", threads, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if w, err = Create(out, infos, WriteOptions{Fingerprint: "x", Resume: true}); err != nil {
			t.Fatal(err)
		}
		f, written := filling(w, data, threads, -1)
		var total int64
		f.Started = func(n int64) { total = n }
		if err := w.Fill(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if written.Load() != total || total == 0 {
			t.Errorf("%d threads: %d bytes were promised, %d written", threads, total, written.Load())
		}
		if err := w.WriteFile("config.json", []byte("{}\n")); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		same(t, files(t, out), want)
	}
}

// TestFillStops wants a cancelled context to end the work with its error.
func TestFillStops(t *testing.T) {
	infos, data := sample()
	w, err := Create(filepath.Join(t.TempDir(), "out"), infos, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	f, _ := filling(w, data, 2, -1)
	f.Whole = func(int) { cancel() }
	if err := w.Fill(ctx, f); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
