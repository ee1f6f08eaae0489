package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend"

	"github.com/mergekit/mergekit/internal/backend/block"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/tensors"
)

// values are random, some of them equal, so that cuts meet ties.
func values(t *testing.T, d tensors.DType, n int, seed uint64) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.Round(r.NormFloat64()*64) / 64)
	}
	b := make([]byte, n*d.Size())
	if err := tensors.EncodeFloat32(b, d, x); err != nil {
		t.Fatal(err)
	}
	return b
}

func closeLater(t *testing.T, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// derivable lists the methods of which tensors are computed in parts.
func derivable() []string {
	var names []string
	for _, name := range method.Names() {
		if m, _ := method.Get(name); m.Merge != nil && !m.Whole && !m.Matrix && m.Memory == nil {
			names = append(names, name)
		}
	}
	return names
}

// settings gives every parameter a value that leaves something to do; with other, switches are thrown.
func settings(m *method.Method, input int, other bool) map[string]any {
	v := map[string]any{}
	for _, p := range m.Params {
		switch {
		case p.Name == "weight":
			v[p.Name] = 0.3 + 0.2*float64(input)
		case p.Name == "density":
			v[p.Name] = 0.5
		case p.Name == "t":
			v[p.Name] = 0.3
		case p.Name == "task":
			v[p.Name] = other && input == 1
		case p.Kind == method.Bool && p.Name != "int8_mask":
			on, _ := p.Default.(bool)
			v[p.Name] = on != other
		}
	}
	return v
}

// TestDerivedIsWritten compares every tensor that is computed where it is read with the one that is written.
func TestDerivedIsWritten(t *testing.T) {
	names := derivable()
	if len(names) < 20 {
		t.Fatalf("only %d methods: %v", len(names), names)
	}
	gomlx, err := compute.NewWithConfig("go:ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	defer gomlx.Finalize()
	backends := map[string]compute.Backend{"block": block.New(), "gomlx": gomlx}
	for _, name := range names {
		m, _ := method.Get(name)
		for _, test := range []struct {
			backend string
			shape   []int
			in, out tensors.DType
			arith   method.Arith
			other   bool
		}{
			{"block", []int{37, 129}, tensors.F32, tensors.F32, method.Wide, false},
			{"block", []int{37, 129}, tensors.BF16, tensors.F16, method.Wide, true},
			{"block", []int{4099}, tensors.BF16, tensors.BF16, method.Native, false},
			{"block", []int{5, 40, 33}, tensors.F32, tensors.BF16, method.Wide, false},
			{"block", []int{3, 2500}, tensors.F16, tensors.F8E4M3, method.Wide, true},
			{"gomlx", []int{37, 129}, tensors.F32, tensors.F32, method.Wide, false},
			{"gomlx", []int{3000}, tensors.F32, tensors.BF16, method.Wide, true},
		} {
			t.Run(fmt.Sprintf("%s/%s%v%s-%s-%s", name, test.backend, test.shape, test.in, test.out, test.arith), func(t *testing.T) {
				count := max(m.Min, 2)
				if m.Max == 0 || m.Max > 2 {
					count = max(count, 3)
				}
				if m.Max > 0 {
					count = min(count, m.Max)
				}
				base := -1
				if m.Base != method.BaseIgnored {
					base = 0
				}
				if m.Base == method.BaseOptional && m.Max > 0 { // which does not count the base
					count++
				}
				n := 1
				for _, d := range test.shape {
					n *= d
				}
				var inputs []Input
				for i := range count {
					inputs = append(inputs, Input{DType: test.in, Data: values(t, test.in, n, uint64(i+1)), Params: settings(m, i, test.other)})
				}
				task := method.Task{Name: "model.layers.0.w", Shape: test.shape, Arith: test.arith, Seed: 3, Depth: 0.5}
				job, sink, err := memoryJob(name, task, base, inputs, settings(m, 1, test.other), test.out)
				if err != nil {
					t.Fatal(err)
				}
				checkDerived(t, backends[test.backend], job, sink)
			})
		}
	}
}

// checkDerived reads a job's tensor in pieces of all kinds and compares it with what the job writes.
func checkDerived(t *testing.T, b compute.Backend, job *Job, sink *Memory) {
	t.Helper()
	e, err := NewEngine(b, Options{ChunkElem: 1024, Threads: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	d, err := e.Derive(job)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, d)
	if err := e.Run(context.Background(), []*Job{job}); err != nil {
		t.Fatal(err)
	}
	size, n := int64(job.Out.Size()), job.Task.N
	read := func(d *Derived, off, count int64) {
		t.Helper()
		got := make([]byte, count*size)
		if err := d.ReadAt(got, off*size); err != nil {
			t.Error(err)
			return
		}
		if want := sink.Data[off*size : (off+count)*size]; !bytes.Equal(got, want) {
			t.Errorf("elements %d to %d are not those that are written", off, off+count)
		}
	}
	r := rand.New(rand.NewPCG(1, 1))
	read(d, 0, n)
	read(d, n, 0)
	var wait sync.WaitGroup
	for range 6 {
		off := r.Int64N(n)
		count := r.Int64N(n-off) + 1
		wait.Add(1)
		go func() {
			defer wait.Done()
			read(d, off, count)
		}()
	}
	wait.Wait()

	// The same where an engine's workers gather the statistics, for a job that copies the tensor.
	again, err := e.Derive(job)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, again)
	copied := &Memory{Name: "copy", Type: job.Out, Data: make([]byte, len(sink.Data))}
	reader := &Job{Task: method.Task{Name: "copy", Shape: job.Task.Shape, N: n}, Inputs: []Source{&derivedSource{again, job.Out}}, Out: job.Out, Sink: copied, Needs: []*Derived{again}}
	if err := e.Run(context.Background(), []*Job{reader}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(copied.Data, sink.Data) {
		t.Error("a copy of the tensor is not what is written")
	}
}

// derivedSource is a derived tensor as an input.
type derivedSource struct {
	*Derived
	dtype tensors.DType
}

func (s *derivedSource) DType() tensors.DType { return s.dtype }
func (s *derivedSource) String() string       { return "derived" }
func (s *derivedSource) Bytes(off, n int64, scratch []byte) ([]byte, error) {
	size := int64(s.dtype.Size())
	dst := scratch[:n*size]
	return dst, s.ReadAt(dst, off*size)
}

// TestDerivedChain derives from what is derived, with statistics in each step, and reads it from many goroutines.
func TestDerivedChain(t *testing.T) {
	const n = 5000
	shape := []int{50, 100}
	e, err := NewEngine(block.New(), Options{ChunkElem: 512, Threads: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	in := func(seed uint64) Input {
		return Input{DType: tensors.F32, Data: values(t, tensors.F32, n, seed)}
	}
	task := method.Task{Name: "w", Shape: shape}
	shared := map[string]any{"t": 0.4}
	written := in(1)
	var last *Derived
	var jobs []*Job
	var want *Memory
	for k := range 4 {
		job, sink, err := memoryJob("slerp", task, 0, []Input{written, in(uint64(k + 2))}, shared, tensors.BF16)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Run(context.Background(), []*Job{job}); err != nil {
			t.Fatal(err)
		}
		written, want = Input{DType: tensors.BF16, Data: sink.Data}, sink

		chained := *job
		if last != nil {
			chained.Inputs = []Source{&derivedSource{last, tensors.BF16}, job.Inputs[1]}
			chained.Needs = []*Derived{last}
		}
		if last, err = e.Derive(&chained); err != nil {
			t.Fatal(err)
		}
		closeLater(t, last)
		jobs = append(jobs, &Job{Task: method.Task{Name: fmt.Sprint("copy", k), Shape: shape, N: n}, Inputs: []Source{&derivedSource{last, tensors.BF16}}, Out: tensors.BF16,
			Sink: &Memory{Type: tensors.BF16, Data: make([]byte, 2*n)}, Needs: []*Derived{last}})
	}
	// All at once: the jobs need the same tensors, and one reads without having said so.
	jobs[1].Needs = nil
	if err := e.Run(context.Background(), jobs); err != nil {
		t.Fatal(err)
	}
	if got := jobs[3].Sink.(*Memory); !bytes.Equal(got.Data, want.Data) {
		t.Error("four steps in one are not four steps")
	}
}

func TestDerivedRefuses(t *testing.T) {
	e, err := NewEngine(block.New(), Options{ChunkElem: 512})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	in := func(seed uint64) Input {
		return Input{DType: tensors.F32, Data: values(t, tensors.F32, 64, seed), Params: map[string]any{"weight": 1.0, "density": 0.5}}
	}
	task := method.Task{Name: "w", Shape: []int{8, 8}, RNG: method.Peer}
	for _, name := range []string{"dare_ties", "tsv_m"} { // a random sequence, a whole matrix
		job, _, err := memoryJob(name, task, 0, []Input{in(1), in(2), in(3)}, nil, tensors.F32)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Derive(job); err == nil {
			t.Errorf("%s was derived", name)
		}
	}
	job, _, err := memoryJob("linear", method.Task{Name: "w", Shape: []int{64}}, -1, []Input{in(1), in(2)}, nil, tensors.F32)
	if err != nil {
		t.Fatal(err)
	}
	job.AllowNonFinite = false
	copy(job.Inputs[1].(*Memory).Data[4*40:], []byte{0, 0, 0xc0, 0x7f}) // NaN
	d, err := e.Derive(job)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, d)
	if err := d.ReadAt(make([]byte, 160), 0); err != nil {
		t.Error(err)
	}
	var bad *NonFiniteError
	if err := d.ReadAt(make([]byte, 4), 160); !errors.As(err, &bad) {
		t.Errorf("NaN was read: %v", err)
	}
	for _, at := range []int64{-4, 2, 256} {
		if err := d.ReadAt(make([]byte, 8), at); err == nil {
			t.Errorf("read 8 bytes at %d", at)
		}
	}

	same := &Job{Task: method.Task{Name: "ids", Shape: []int{8}, N: 8}, Identical: true, Out: tensors.I64,
		Inputs: []Source{&Memory{Name: "a", Type: tensors.I64, Data: make([]byte, 64)}, &Memory{Name: "b", Type: tensors.I64, Data: append(make([]byte, 63), 1)}}}
	ids, err := e.Derive(same)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, ids)
	if err := ids.ReadAt(make([]byte, 56), 0); err != nil {
		t.Error(err)
	}
	if err := ids.ReadAt(make([]byte, 8), 56); err == nil {
		t.Error("buffers that differ were read as one")
	}
}
