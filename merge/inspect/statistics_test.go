package inspect

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/tensors"
)

// open writes float32 tensors into a checkpoint and opens it.
func open(t *testing.T, values map[string][]float32) *tensors.Checkpoint {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	var infos []tensors.Info
	var data [][]byte
	for name, v := range values {
		infos = append(infos, tensors.Info{Name: name, DType: tensors.F32, Shape: []int{len(v)}})
		b := make([]byte, 4*len(v))
		for i, x := range v {
			binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
		}
		data = append(data, b)
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range infos {
		if err := w.WriteAt(i, data[i], 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func goBackend(t *testing.T) compute.Backend {
	t.Helper()
	b, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

// TestLook compares the figures of tensors of every kind with those of a loop in float64.
func TestLook(t *testing.T) {
	const many = 1<<20 + 12345 // several chunks, the last one short
	wave := make([]float32, many)
	for i := range wave {
		wave[i] = float32(math.Sin(float64(i)) * 3)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	cases := map[string][]float32{
		"wave":     wave,
		"positive": {1.0000001, 1.5, 2, 1.25},
		"negative": {-3, -2.5, -2, -2},
		"zero":     {0, 0, 0},
		"one":      {7},
		"from0":    {0, 1, 2, 3},
		"broken":   {1, nan, inf, -inf, -2},
		"nothing":  {nan, inf},
	}
	c := open(t, cases)
	o := Options{Backend: goBackend(t), Threads: 2}
	for name, v := range cases {
		s, err := Look(context.Background(), c, name, o)
		if err != nil {
			t.Fatal(name, err)
		}
		n, sum, squares := 0, 0.0, 0.0
		low, high := math.Inf(1), math.Inf(-1)
		for _, x := range v {
			if y := float64(x); !math.IsNaN(y) && !math.IsInf(y, 0) {
				n, sum = n+1, sum+y
				low, high = min(low, y), max(high, y)
			}
		}
		if n == 0 {
			if s.Min != 0 || s.Max != 0 || s.Histogram != nil {
				t.Errorf("%s: %+v; want nothing", name, s)
			}
			continue
		}
		mean := sum / float64(n)
		counts := make([]int64, Bins)
		for _, x := range v {
			if y := float64(x); !math.IsNaN(y) && !math.IsInf(y, 0) {
				squares += (y - mean) * (y - mean)
				if high > low {
					counts[min(Bins-1, int((y-low)/(high-low)*Bins))]++
				}
			}
		}
		near := func(what string, got, want, tolerance float64) {
			if math.Abs(got-want) > tolerance {
				t.Errorf("%s: %s %v, want %v", name, what, got, want)
			}
		}
		near("min", s.Min, low, 0)
		near("max", s.Max, high, 0)
		near("mean", s.Mean, mean, 1e-9)
		near("std", s.Std, math.Sqrt(squares/float64(n)), 1e-6)
		if int(s.NaN+s.Inf) != len(v)-n {
			t.Errorf("%s: %d NaN and %d infinite of %d values that are not finite", name, s.NaN, s.Inf, len(v)-n)
		}
		if high == low {
			if s.Histogram != nil {
				t.Errorf("%s: a histogram of one value", name)
			}
			continue
		}
		total, off := int64(0), int64(0)
		for i, k := range s.Histogram {
			total += k
			off += max(k-counts[i], counts[i]-k)
		}
		// The edges of bins are rounded in float32 there and in float64 here, so that values near one may fall to its other side.
		if total != int64(n) || off > int64(n)/1000 {
			t.Errorf("%s: histogram of %d values, %d in other bins: %v, want %v", name, total, off, s.Histogram, counts)
		}
	}
}

// TestLookStops sees that a context ends the passes.
func TestLookStops(t *testing.T) {
	c := open(t, map[string][]float32{"x": make([]float32, 1<<20)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Look(ctx, c, "x", Options{Backend: goBackend(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want a cancelled context", err)
	}
	var missing *tensors.FormatError
	if _, err := Look(context.Background(), c, "y", Options{Backend: goBackend(t)}); !errors.As(err, &missing) {
		t.Errorf("a tensor that is not there: %v", err)
	}
}
