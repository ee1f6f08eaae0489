package stream_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mergekit/mergekit/internal/backend/block"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// wholeJob is a job of a method that is made for a test.
func wholeJob(n int, out tensors.DType, merge func(t *method.Task) error, inputs ...*stream.Memory) (*stream.Job, *stream.Memory) {
	sink := &stream.Memory{Name: "out", Type: out, Data: make([]byte, n*out.Size())}
	j := &stream.Job{Method: &method.Method{Name: "whole", Matrix: true, Merge: merge}, Out: out, Sink: sink}
	j.Task = method.Task{Name: "w", Shape: []int{n}, N: int64(n), Inputs: len(inputs), Base: -1}
	for _, in := range inputs {
		j.Inputs = append(j.Inputs, in)
	}
	return j, sink
}

func stored(t *testing.T, d tensors.DType, x []float32) *stream.Memory {
	t.Helper()
	m := &stream.Memory{Name: "in", Type: d, Data: make([]byte, len(x)*d.Size())}
	if err := tensors.EncodeFloat32(m.Data, d, x); err != nil {
		t.Fatal(err)
	}
	return m
}

func runJobs(t *testing.T, o stream.Options, jobs ...*stream.Job) error {
	t.Helper()
	e, err := stream.NewEngine(block.New(), o)
	if err != nil {
		return err
	}
	return e.Run(context.Background(), jobs)
}

// TestWholeTensors reads, subtracts and writes tensors of several dtypes, in chunks that do not divide them.
func TestWholeTensors(t *testing.T) {
	const n = 4099
	for _, d := range []tensors.DType{tensors.F64, tensors.F32, tensors.F16, tensors.BF16, tensors.F8E5M2} {
		for _, threads := range []int{1, 4} {
			a, b := stored(t, d, floats(n, 1)), stored(t, tensors.F32, floats(n, 2))
			x, y := make([]float32, n), make([]float32, n)
			if err := tensors.DecodeFloat32(x, a.Data, d); err != nil {
				t.Fatal(err)
			}
			copy(y, floats(n, 2))
			job, sink := wholeJob(n, d, func(t *method.Task) error {
				got, err := t.Read(0)
				if err != nil {
					return err
				}
				for i, v := range got {
					if v != x[i] {
						return t.Errorf("element %d is %v, want %v", i, v, x[i])
					}
				}
				diff, err := t.Difference(1, 0)
				if err != nil {
					return err
				}
				for i, v := range diff {
					if v != y[i]-x[i] {
						return t.Errorf("difference %d is %v, want %v", i, v, y[i]-x[i])
					}
				}
				return t.Write(got)
			}, a, b)
			if err := runJobs(t, stream.Options{Threads: threads, ChunkElem: 1000}, job); err != nil {
				t.Fatalf("%s: %v", d, err)
			}
			for i, v := range sink.Data {
				if v != a.Data[i] {
					t.Fatalf("%s: byte %d is %d, want %d", d, i, v, a.Data[i])
				}
			}
		}
	}
}

// TestDifferenceOfFloat64 keeps what rounding both sides first would lose.
func TestDifferenceOfFloat64(t *testing.T) {
	wide := func(x float64) *stream.Memory {
		m := &stream.Memory{Type: tensors.F64, Data: make([]byte, 8)}
		for i := range 8 {
			m.Data[i] = byte(math.Float64bits(x) >> (8 * i))
		}
		return m
	}
	job, _ := wholeJob(1, tensors.F32, func(t *method.Task) error {
		x, err := t.Difference(0, 1)
		if err == nil && x[0] != float32(math.Ldexp(1, -40)) {
			return t.Errorf("%v", x[0])
		}
		return err
	}, wide(1+math.Ldexp(1, -40)), wide(1))
	if err := runJobs(t, stream.Options{}, job); err != nil {
		t.Fatal(err)
	}
}

func TestWriteNotFinite(t *testing.T) {
	for _, d := range []tensors.DType{tensors.F32, tensors.F16} {
		job, _ := wholeJob(3, d, func(t *method.Task) error { return t.Write([]float32{1, 1e20, float32(math.NaN())}) }, stored(t, d, make([]float32, 3)))
		err := runJobs(t, stream.Options{}, job)
		var bad *stream.NonFiniteError
		want := map[tensors.DType]int64{tensors.F32: 1, tensors.F16: 2}[d] // float16 has no 1e20
		if !errors.As(err, &bad) || bad.Count != want {
			t.Errorf("%s: %v, want %d values", d, err, want)
		}
	}
	// Who brought the value along is said, where an input did.
	for in, want := range map[string][]float32{"1 merged values are NaN or infinite: the inputs are finite": {1, 2, 3}, "already holds such values": {1, float32(math.Inf(1)), 3}} {
		job, _ := wholeJob(3, tensors.F32, func(t *method.Task) error { return t.Write([]float32{1, float32(math.NaN()), 2}) }, stored(t, tensors.F32, make([]float32, 3)), stored(t, tensors.F32, want))
		var bad *stream.NonFiniteError
		if err := runJobs(t, stream.Options{}, job); !errors.As(err, &bad) || !strings.Contains(err.Error(), in) {
			t.Errorf("%v, want %s", err, in)
		}
	}
	job, _ := wholeJob(3, tensors.F32, func(t *method.Task) error { return t.Write(make([]float32, 2)) }, stored(t, tensors.F32, make([]float32, 3)))
	if err := runJobs(t, stream.Options{}, job); err == nil {
		t.Error("2 values were written as 3")
	}
}

// TestRoom: as many tasks hold whole tensors at once as memory allows, at least one, and they are told how many threads are theirs.
func TestRoom(t *testing.T) {
	const n, need = 64, 100 << 20
	for _, c := range []struct {
		memory  int64
		threads int
		most    int64 // tasks at once
		each    int
	}{{0, 4, 4, 1}, {1 << 30, 2, 2, 1}, {48<<20 + 25<<20 + need, 4, 1, 0}, {400 << 20, 4, 2, 2}} {
		var now, peak, each atomic.Int64
		var jobs []*stream.Job
		for range 9 {
			job, _ := wholeJob(n, tensors.F32, func(t *method.Task) error {
				k := now.Add(1)
				defer now.Add(-1)
				for p := peak.Load(); k > p && !peak.CompareAndSwap(p, k); p = peak.Load() {
				}
				each.Store(int64(t.Threads))
				time.Sleep(3 * time.Millisecond) // so that the others would come in
				x, err := t.Read(0)
				if err != nil {
					return err
				}
				return t.Write(x)
			}, stored(t, tensors.F32, floats(n, 3)))
			job.Method.Memory = func(*method.Task) int64 { return need }
			jobs = append(jobs, job)
		}
		if err := runJobs(t, stream.Options{Threads: c.threads, MaxMemory: c.memory, Inputs: 1, Whole: need, Window: 9}, jobs...); err != nil {
			t.Fatalf("%d MiB: %v", c.memory>>20, err)
		}
		if peak.Load() > c.most || c.each > 0 && each.Load() != int64(c.each) {
			t.Errorf("%d MiB and %d threads: %d tasks at once with %d threads each, want %d with %d", c.memory>>20, c.threads, peak.Load(), each.Load(), c.most, c.each)
		}
	}
	_, err := stream.NewEngine(block.New(), stream.Options{MaxMemory: 200 << 20, Inputs: 1, Whole: 200 << 20})
	if !errors.As(err, new(*stream.MemoryError)) {
		t.Errorf("%v, want a *MemoryError", err)
	}
}

// TestRoomCancelled: tasks that wait for room let go when the run ends.
func TestRoomCancelled(t *testing.T) {
	failed := errors.New("failed")
	var jobs []*stream.Job
	for range 5 {
		job, _ := wholeJob(8, tensors.F32, func(*method.Task) error { return failed }, stored(t, tensors.F32, make([]float32, 8)))
		jobs = append(jobs, job)
	}
	if err := runJobs(t, stream.Options{Threads: 1}, jobs...); !errors.Is(err, failed) {
		t.Errorf("%v", err)
	}
}
