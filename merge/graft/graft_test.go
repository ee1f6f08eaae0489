package graft

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// brute lists the elements of a space by falling magnitude, then name, then position.
func (s *Space) brute(t *testing.T) (list [][2]int64) {
	t.Helper()
	size := map[[2]int64]uint32{}
	for p := range s.pairs {
		x, y := make([]float32, s.pairs[p].n), make([]float32, s.pairs[p].n)
		if err := s.pairs[p].read(x, y, 0); err != nil {
			t.Fatal(err)
		}
		for i := range x {
			at := [2]int64{int64(p), int64(i)}
			if size[at] = s.pairs[p].magnitude(int64(i), x[i], y[i]); size[at] > 0 {
				list = append(list, at)
			}
		}
	}
	slices.SortFunc(list, func(a, b [2]int64) int {
		return cmp.Or(cmp.Compare(size[b], size[a]), cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]))
	})
	return list
}

// A mask by magnitude has exactly the elements that a sort puts first, for every count and any number of threads.
func TestMagnitudeIsExact(t *testing.T) {
	d := digits8(t)
	s := d.space(t)
	order := s.brute(t)
	for _, threads := range []int{1, 3} {
		s.threads = threads
		for _, k := range []int64{0, 1, 2, 165, 1000, int64(len(order)) - 1, int64(len(order)), s.Total} {
			m, err := s.Magnitude(context.Background(), k)
			if err != nil {
				t.Fatal(err)
			}
			want := min(k, int64(len(order)))
			if m.Count() != want || s.Moved != int64(len(order)) {
				t.Fatalf("%d elements of %d that moved, want %d of %d", m.Count(), s.Moved, want, len(order))
			}
			for i, at := range order {
				if m.has(int(at[0]), at[1]) != (int64(i) < k) {
					t.Fatalf("the mask of %d elements is wrong about number %d", k, i)
				}
			}
		}
	}
}

// Where nothing distinguishes elements the count is exact all the same.
func TestTies(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, v float32) *tensors.Checkpoint {
		w := map[string]model.Tensor{}
		for _, k := range []string{"b", "a", "c"} {
			x := make([]float32, 1000)
			for i := range x {
				if x[i] = v; i%10 == 0 {
					x[i] = 7 // does not move
				}
			}
			w[k] = model.Tensor{Shape: []int{10, 100}, Data: x}
		}
		c, err := tensors.Open(saveDigits(t, filepath.Join(dir, name), w))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	s, err := NewSpace(write("base", 0), write("tuned", 1), "none", nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	order := s.brute(t)
	for _, k := range []int64{1, 899, 900, 901, 2000, 2700} {
		m, err := s.Magnitude(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		if m.Count() != k {
			t.Fatalf("%d elements, want %d", m.Count(), k)
		}
		for i, at := range order {
			if m.has(int(at[0]), at[1]) != (int64(i) < k) {
				t.Fatalf("%d elements: wrong about number %d", k, i)
			}
		}
	}
}

// The whole mask makes the fine-tune and the empty one the base, bit for bit, negative zeros included; and a file of the mask says the same.
func TestEnds(t *testing.T) {
	dir := t.TempDir()
	zero := float32(math.Copysign(0, -1))
	save := func(name string, x ...float32) *tensors.Checkpoint {
		c, err := tensors.Open(saveDigits(t, filepath.Join(dir, name), map[string]model.Tensor{"w": {Shape: []int{len(x)}, Data: x}}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	base, tuned := save("base", 0, 1, 2, 3, zero, 1e-30), save("tuned", zero, 1, 2.5, -3, 0, 1)
	s, err := NewSpace(base, tuned, "none", nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[int64]*tensors.Checkpoint{0: base, 6: tuned} {
		m, err := s.Magnitude(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Weights(nil).Read("w")
		if err != nil {
			t.Fatal(err)
		}
		x, err := align.OfCheckpoint(want).Read("w")
		if err != nil {
			t.Fatal(err)
		}
		for i := range x {
			if math.Float32bits(got[i]) != math.Float32bits(x[i]) {
				t.Fatalf("%d elements: number %d is %v, want %v", k, i, got[i], x[i])
			}
		}
		if list := m.Tensors(); k == 0 && list != nil || k == 6 && (len(list) != 1 || !slices.Equal(list[0].Index, []int64{0, 2, 3, 4, 5})) {
			t.Fatalf("%d elements make %+v", k, list)
		}
	}
}

// make a graft of the digits.
func (d *digitsTask) graft(t *testing.T, o Options) *Result {
	t.Helper()
	o.Base, o.Tuned, o.Config, o.Exclude = d.base, d.tuned, []byte(digitsConfig), "embeddings,statistics"
	if o.Output == "" {
		o.Output = filepath.Join(t.TempDir(), "digits.safetensors")
	}
	if o.Backend == nil {
		o.Backend = openModels(t)
	}
	r, err := Make(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func measuredOn(file string) evaluation.Options {
	var o evaluation.Options
	o.Data.Files, o.Data.Divide = []string{file}, 16
	return o
}

// A learned graft of 1% of a network keeps more of a fine-tune than the 1% that moved most, on rows that neither was learned from nor
// chosen by.
func TestLearnedBeatsMagnitude(t *testing.T) {
	d := digits8(t)
	kept := map[string]*Measured{}
	for _, mask := range []string{ByMagnitude, Learn, L1} {
		o := Options{Mask: mask, Sparsity: 0.01, Data: measuredOn(d.train), HeldOut: measuredOn(d.held), Test: measuredOn(d.test), Threads: 2}
		o.Learn.Steps = 60
		r := d.graft(t, o)
		asked := int64(0.01 * float64(r.Space))
		f, err := sparse.Open(r.Output)
		if err != nil {
			t.Fatal(err)
		}
		if f.Count() != asked || r.Entries != asked || r.Asked != asked || f.Kind != sparse.Graft {
			t.Errorf("%s: %d entries in the file, %d reported, %d asked for", mask, f.Count(), r.Entries, asked)
		}
		f.Close()
		if len(r.Measured) != 3 {
			t.Fatalf("%s: %d sets were measured", mask, len(r.Measured))
		}
		kept[mask] = &r.Measured[2]
		for _, m := range r.Measured {
			t.Logf("%s, %s: base %.3f tuned %.3f graft %.3f, kept %.3f, calibration error %.3f of %.3f", mask, m.Set, m.Base.Accuracy, m.Tuned.Accuracy, m.Graft.Accuracy, *m.Kept, m.Graft.ECE, m.Tuned.ECE)
		}
		if mask != ByMagnitude && r.Learned.Best == 0 {
			t.Errorf("%s: no mask was better than the first", mask)
		}
	}
	for _, mask := range []string{Learn, L1} {
		if a, b := kept[mask].Graft, kept[ByMagnitude].Graft; !(a.Accuracy > b.Accuracy+0.01 && a.Loss < b.Loss) {
			t.Errorf("%s: accuracy %.4f and loss %.4f, by magnitude %.4f and %.4f", mask, a.Accuracy, a.Loss, b.Accuracy, b.Loss)
		}
	}
}

// The same seed gives the same file, whatever the threads; learning with Adam works too.
func TestRepeats(t *testing.T) {
	d := digits8(t)
	var first []byte
	var report *Learned
	for _, threads := range []int{1, 3} {
		o := Options{Mask: Learn, Count: 400, Data: measuredOn(d.train), HeldOut: measuredOn(d.held), Threads: threads}
		o.Learn.Steps, o.Learn.Seed = 10, 5
		r := d.graft(t, o)
		data, err := os.ReadFile(r.Output)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first, report = data, r.Learned
			continue
		}
		if !bytes.Equal(first, data) || !reflect.DeepEqual(report.Steps, r.Learned.Steps) {
			t.Error("another number of threads learned another mask")
		}
	}
	o := Options{Mask: Learn, Count: 400, Data: measuredOn(d.train)}
	o.Learn.Steps, o.Learn.Optimizer, o.Learn.LR = 5, Adam, 2
	if r := d.graft(t, o); r.Entries != 400 || len(r.Notes) == 0 || r.Memory != 12*r.Space {
		t.Errorf("Adam: %d entries, %d bytes, notes %q", r.Entries, r.Memory, r.Notes)
	}
}

// The mask sums to the asked count while it is learned.
func TestSettles(t *testing.T) {
	d := digits8(t)
	s := d.space(t)
	first, err := s.Magnitude(context.Background(), 2000)
	if err != nil {
		t.Fatal(err)
	}
	g := s.newLogits(first, LearnOptions{Anchor: 10})
	for p := range g.l {
		for i := range g.l[p] {
			g.l[p][i] += 9 * float32(math.Sin(float64(11*i+p)))
		}
	}
	const k = 700
	for range 5 {
		if err := g.settle(k); err != nil {
			t.Fatal(err)
		}
	}
	sum := 0.0
	for p := range g.l {
		for _, l := range g.l[p] {
			sum += sigmoid(float64(l))
		}
	}
	if math.Abs(sum-k) > 0.02*k {
		t.Errorf("the mask sums to %v, want %d", sum, k)
	}
	m, err := g.round(context.Background(), k)
	if err != nil || m.Count() != k {
		t.Errorf("%d elements, want %d: %v", m.Count(), k, err)
	}
}

// Tensors that are taken over whole are in the file as they are, and outside of the mask.
func TestWhole(t *testing.T) {
	d := digits8(t)
	r := d.graft(t, Options{Mask: ByMagnitude, Count: 100, Whole: []string{"out.*"}})
	if !slices.Equal(r.Whole, []string{"out.bias", "out.weight"}) || r.Space != 96*64+96+96*96+96 || r.Total != r.Space+970 {
		t.Errorf("%+v", r)
	}
	f, err := sparse.Open(r.Output)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range f.Names() {
		if strings.HasPrefix(name, "out.") {
			t.Errorf("%s is masked too", name)
		}
	}
	v, ok, err := f.Whole("out.weight")
	if err != nil || !ok {
		t.Fatal("out.weight is not there", err)
	}
	c, err := tensors.Open(d.tuned)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if want, err := c.View("out.weight"); err != nil || !bytes.Equal(v.Data, want.Data) {
		t.Error("out.weight is another one", err)
	}
}

func TestRefuses(t *testing.T) {
	d := digits8(t)
	b := openModels(t)
	dir := t.TempDir()
	short := saveDigits(t, filepath.Join(dir, "short"), map[string]model.Tensor{"in.weight": {Shape: []int{2}, Data: []float32{1, 2}}})
	infinite := map[string]model.Tensor{}
	for name, shape := range digitsShapes {
		n := 1
		for _, k := range shape {
			n *= k
		}
		infinite[name] = model.Tensor{Shape: shape, Data: make([]float32, n)}
	}
	infinite["mid.bias"].Data[3] = float32(math.Inf(1))
	endless := saveDigits(t, filepath.Join(dir, "infinite"), infinite)
	renamed := filepath.Join(dir, "renamed"+filepath.Ext(d.train))
	if rows, err := os.ReadFile(d.train); err != nil || os.WriteFile(renamed, rows, 0o666) != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"mask":      {func(o *Options) { o.Mask = "guess" }, "mask"},
		"no data":   {func(o *Options) { o.Data = evaluation.Options{} }, "--data"},
		"optimizer": {func(o *Options) { o.Learn.Optimizer = "sgd" }, "optimizer"},
		"share":     {func(o *Options) { o.Sparsity = 1.5 }, "no share"},
		"no share":  {func(o *Options) { o.Sparsity = 0 }, "no share"},
		"too small": {func(o *Options) { o.Sparsity = 1e-9 }, "at least one"},
		"too many":  {func(o *Options) { o.Count = 1 << 40 }, "than there are"},
		"rate":      {func(o *Options) { o.Learn.LR = -1 }, "learning rate"},
		"exclude":   {func(o *Options) { o.Exclude = "a[" }, "no pattern"},
		"all out":   {func(o *Options) { o.Exclude = "*" }, "no tensor that a mask"},
		"whole":     {func(o *Options) { o.Whole = []string{"head.*"} }, "no tensor to take over"},
		"same rows": {func(o *Options) { o.HeldOut = measuredOn(d.train) }, "same rows"},
		"renamed":   {func(o *Options) { o.HeldOut = measuredOn(renamed) }, "same rows"},
		"same test": {func(o *Options) { o.HeldOut, o.Test = measuredOn(d.held), measuredOn(d.held) }, "same rows"},
		"no config": {func(o *Options) { o.Config = nil }, "config.json"},
		"no file":   {func(o *Options) { o.Data = measuredOn(filepath.Join(dir, "none.csv")) }, "none.csv"},
		"itself":    {func(o *Options) { o.Tuned = d.base }, "nothing to graft"},
		"shapes":    {func(o *Options) { o.Base = short }, "shape"},
		"missing":   {func(o *Options) { o.Tuned = short }, "not in the fine-tune"},
		"infinite":  {func(o *Options) { o.Tuned = endless }, "finite"},
		"not there": {func(o *Options) { o.Tuned = filepath.Join(dir, "nothing") }, "does not exist"},
		"name":      {func(o *Options) { o.Output = filepath.Join(dir, "graft.bin") }, ".safetensors"},
	} {
		o := Options{Base: d.base, Tuned: d.tuned, Config: []byte(digitsConfig), Output: filepath.Join(dir, "x.safetensors"), Mask: Learn, Sparsity: 0.1, Exclude: "none", Data: measuredOn(d.train), Backend: b}
		c.change(&o)
		_, err := Make(context.Background(), o)
		var format *tensors.FormatError
		var input *model.InputError
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &format) && !errors.As(err, &input) {
			t.Errorf("%s: %v (%T)", name, err, err)
		}
		if _, err := os.Stat(o.Output); err == nil {
			t.Errorf("%s: left a file", name)
		}
	}
	o := Options{Base: d.base, Tuned: d.tuned, Config: []byte(digitsConfig), Output: filepath.Join(dir, "x.safetensors"), Mask: Learn, Sparsity: 0.1, Exclude: "none", Data: measuredOn(d.train), Backend: b}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, err := Make(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
