package sparse

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
	files "github.com/mergekit/mergekit/tensors/sparse"
)

// draw gives numbers that look random.
type draw uint64

func (d *draw) next() uint64 {
	*d = *d*6364136223846793005 + 1442695040888963407
	return uint64(*d) >> 33
}

func (d *draw) float() float32 { return float32(int64(d.next()%2000)-1000) / 512 }

// written is a directory with tensors of a dtype.
func written(t *testing.T, dtype tensors.DType, all map[string][]float32, shapes map[string][]int) string {
	t.Helper()
	dir := t.TempDir()
	var infos []tensors.Info
	var data [][]byte
	for name, x := range all {
		raw := make([]byte, len(x)*dtype.Size())
		if err := tensors.EncodeFloat32(raw, dtype, x); err != nil {
			t.Fatal(err)
		}
		infos, data = append(infos, tensors.Info{Name: name, DType: dtype, Shape: shapes[name]}), append(data, raw)
	}
	if err := tensors.SaveFile(filepath.Join(dir, "model.safetensors"), infos, data, nil); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"config.json": "{}", "tokenizer.json": "{}", "notes.md": "mine"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func open(t *testing.T, path string) *tensors.Checkpoint {
	t.Helper()
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func openFile(t *testing.T, path string) *files.File {
	t.Helper()
	f, err := files.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

var shapes = map[string][]int{"model.layers.0.a.weight": {8, 16}, "model.layers.1.a.weight": {8, 16}, "norm.weight": {16}, "head.weight": {3, 4}}

// world is a base and two sparse files on it, which overlap.
type world struct {
	base   string
	values map[string][]float32
	paths  []string
}

func newWorld(t *testing.T, dtype tensors.DType, delta bool) *world {
	t.Helper()
	d := draw(7)
	w := &world{values: map[string][]float32{}}
	for _, name := range []string{"model.layers.0.a.weight", "model.layers.1.a.weight", "norm.weight", "head.weight"} {
		n := tensors.Info{Shape: shapes[name]}.Elems()
		for range n {
			w.values[name] = append(w.values[name], d.float())
		}
	}
	w.base = written(t, dtype, w.values, shapes)
	hash, err := files.Hash(open(t, w.base))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for k := range 3 {
		var list []files.Tensor
		for _, name := range []string{"model.layers.0.a.weight", "model.layers.1.a.weight", "norm.weight"} {
			x := files.Tensor{Name: name, Shape: shapes[name], DType: tensors.F32}
			for i := range w.values[name] {
				if d.next()%3 == 0 {
					x.Index, x.Values = append(x.Index, int64(i)), append(x.Values, d.float())
				}
			}
			list = append(list, x)
		}
		path := filepath.Join(dir, strconv.Itoa(k)+".safetensors")
		if err := files.Write(path, files.Header{Kind: files.LTSFT, Base: hash, Delta: delta}, list, nil, false); err != nil {
			t.Fatal(err)
		}
		w.paths = append(w.paths, path)
	}
	return w
}

func (w *world) parts(t *testing.T, weights ...float64) []Part {
	var out []Part
	for i, weight := range weights {
		out = append(out, Part{openFile(t, w.paths[i]), weight})
	}
	return out
}

// bytesOf reads the tensors of a checkpoint.
func bytesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	c := open(t, dir)
	out := map[string]string{}
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = string(v.Data)
	}
	return out
}

func apply(t *testing.T, dir string, parts []Part, o ApplyOptions) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if _, err := Apply(context.Background(), dir, out, parts, o); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestApply adds a file: its entries have its values, everything else its bytes, and what lies beside the weights comes along.
func TestApply(t *testing.T) {
	for _, dtype := range []tensors.DType{tensors.F32, tensors.BF16, tensors.F64} {
		w := newWorld(t, dtype, false)
		out := apply(t, w.base, w.parts(t, 1), ApplyOptions{})
		f := openFile(t, w.paths[0])
		before, after := bytesOf(t, w.base), bytesOf(t, out)
		size := dtype.Size()
		for name, was := range before {
			x, _, err := f.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			want := []byte(was)
			if x != nil {
				for i, at := range x.Index {
					if err := tensors.Convert(want[int(at)*size:(int(at)+1)*size], dtype, x.Raw[i*x.DType.Size():(i+1)*x.DType.Size()], x.DType); err != nil {
						t.Fatal(err)
					}
				}
			}
			if after[name] != string(want) {
				t.Errorf("%v %s is not the base with the file's values", dtype, name)
			}
		}
		var beside []string
		entries, err := os.ReadDir(out)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			beside = append(beside, e.Name())
		}
		if !slices.Equal(beside, []string{"config.json", "model.safetensors", "tokenizer.json"}) {
			t.Errorf("beside the weights: %v", beside)
		}
		// And back: what finds the file's own values becomes the base again, bit for bit.
		back := apply(t, out, w.parts(t, -1), ApplyOptions{Origin: open(t, w.base)})
		if !reflect.DeepEqual(bytesOf(t, back), before) {
			t.Errorf("%v: taking the file away does not give the base back", dtype)
		}
	}
}

// TestCommute composes in every order, in one file or one after the other: the sum is the same.
func TestCommute(t *testing.T) {
	for _, delta := range []bool{false, true} {
		w := newWorld(t, tensors.F32, delta)
		parts := w.parts(t, 1, 1, 1)
		base := open(t, w.base)
		var want map[string]string
		for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
			list := []Part{parts[order[0]], parts[order[1]], parts[order[2]]}
			path := filepath.Join(t.TempDir(), "all.safetensors")
			r, err := Compose(path, list, ComposeOptions{Base: base})
			if err != nil {
				t.Fatal(err)
			}
			if r.Overlap == 0 || r.Conflict == 0 || r.Conflict >= r.Overlap || r.Delta != delta {
				t.Errorf("%+v", r)
			}
			one := bytesOf(t, apply(t, w.base, []Part{{openFile(t, path), 1}}, ApplyOptions{}))
			direct := bytesOf(t, apply(t, w.base, list, ApplyOptions{}))
			if want == nil {
				want = one
			}
			for name := range want {
				for what, got := range map[string]string{"another order": one[name], "one after the other": direct[name]} {
					if d := distance(t, want[name], got); d > 1e-6 {
						t.Errorf("%s of %s differs by %v", what, name, d)
					}
				}
			}
			// The definition: theta0 + the sum of the differences.
			for name, b := range w.values {
				sum := make([]float64, len(b))
				for _, p := range list {
					x, _, err := p.File.Tensor(name)
					if err != nil {
						t.Fatal(err)
					}
					if x == nil {
						continue
					}
					for i, at := range x.Index {
						d := float64(x.Values[i])
						if !delta {
							d -= float64(b[at])
						}
						sum[at] += d
					}
				}
				got := decode(t, one[name])
				for i := range b {
					if d := math.Abs(float64(b[i]) + sum[i] - float64(got[i])); d > 1e-6 {
						t.Fatalf("%s[%d] is %v, the definition makes it %v", name, i, got[i], float64(b[i])+sum[i])
					}
				}
			}
		}
	}
}

func decode(t *testing.T, raw string) []float32 {
	t.Helper()
	x := make([]float32, len(raw)/4)
	if err := tensors.DecodeFloat32(x, []byte(raw), tensors.F32); err != nil {
		t.Fatal(err)
	}
	return x
}

func distance(t *testing.T, a, b string) (most float64) {
	t.Helper()
	x, y := decode(t, a), decode(t, b)
	if len(x) != len(y) {
		t.Fatalf("%d and %d values", len(x), len(y))
	}
	for i := range x {
		most = max(most, math.Abs(float64(x[i])-float64(y[i])))
	}
	return most
}

// TestOnOverlap is the case of one entry that three files change by +2, +1 and -1.
func TestOnOverlap(t *testing.T) {
	dir := t.TempDir()
	var list []*files.File
	for i, x := range []float32{2, 1, -1} {
		path := filepath.Join(dir, strconv.Itoa(i)+".safetensors")
		entry := files.Tensor{Name: "w", Shape: []int{2}, DType: tensors.F32, Index: []int64{1}, Values: []float32{x}}
		if err := files.Write(path, files.Header{Kind: files.LTSFT, Delta: true}, []files.Tensor{entry}, nil, false); err != nil {
			t.Fatal(err)
		}
		list = append(list, openFile(t, path))
	}
	for way, want := range map[OnOverlap]float32{Sum: 12, Mean: 10 + float32(2)/3, SignElect: 13} {
		w := []float32{10, 10}
		if err := Add(w, "w", list, way); err != nil {
			t.Fatal(err)
		}
		if w[0] != 10 || w[1] != want {
			t.Errorf("%s: %v, want %v", way, w, want)
		}
	}
	if _, err := ParseOnOverlap("max"); err == nil || !strings.Contains(err.Error(), "sum, mean and sign_elect") {
		t.Error(err)
	}
	if way, err := ParseOnOverlap("mean"); err != nil || way != Mean {
		t.Error(way, err)
	}
}

// TestSubtract takes a file away from a composition, and what is left is the other one.
func TestSubtract(t *testing.T) {
	w := newWorld(t, tensors.F32, true)
	dir := t.TempDir()
	both, left := filepath.Join(dir, "both.safetensors"), filepath.Join(dir, "left.safetensors")
	if _, err := Compose(both, w.parts(t, 1, 1), ComposeOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Compose(left, []Part{{openFile(t, both), 1}, {openFile(t, w.paths[1]), -1}}, ComposeOptions{}); err != nil {
		t.Fatal(err)
	}
	f, want := openFile(t, left), openFile(t, w.paths[0])
	for _, name := range f.Names() {
		x, _, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		y, _, err := want.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		at := map[int64]float32{}
		for i := range y.Index {
			at[y.Index[i]] = y.Values[i]
		}
		for i := range x.Index {
			if math.Abs(float64(x.Values[i]-at[x.Index[i]])) > 1e-6 {
				t.Fatalf("%s[%d] is %v, want %v", name, x.Index[i], x.Values[i], at[x.Index[i]])
			}
		}
	}
}

// TestRefusals wants each mistake told by what it is.
func TestRefusals(t *testing.T) {
	w := newWorld(t, tensors.F32, false)
	out := func() string { return filepath.Join(t.TempDir(), "x.safetensors") }
	other := newWorld(t, tensors.BF16, false) // the same values in another dtype are another base
	head := out()
	v := tensors.View{Info: tensors.Info{Name: "head.weight", DType: tensors.F32, Shape: []int{3, 4}}, Data: make([]byte, 48)}
	if err := files.Write(head, files.Header{Kind: files.LTSFT}, nil, []tensors.View{v}, false); err != nil {
		t.Fatal(err)
	}
	wrong := out()
	entry := files.Tensor{Name: "norm.weight", Shape: []int{17}, DType: tensors.F32, Index: []int64{1}, Values: []float32{1}}
	if err := files.Write(wrong, files.Header{Kind: files.LTSFT}, []files.Tensor{entry}, nil, false); err != nil {
		t.Fatal(err)
	}
	part := func(path string) Part { return Part{openFile(t, path), 1} }
	for what, do := range map[string]func() error{
		"give --base":               func() error { _, err := Compose(out(), w.parts(t, 1, 1), ComposeOptions{}); return err },
		"a difference is asked for": func() error { _, err := Compose(out(), w.parts(t, -1), ComposeOptions{}); return err },
		"from another base than": func() error {
			_, err := Compose(out(), []Part{part(w.paths[0]), part(other.paths[1])}, ComposeOptions{Base: open(t, w.base)})
			return err
		},
		"from another base: it names": func() error { return Fits([]*files.File{openFile(t, other.paths[0])}, open(t, w.base)) },
		"is replaced as a whole by one file": func() error {
			_, err := Compose(out(), []Part{part(head), part(head)}, ComposeOptions{})
			return err
		},
		"has the shape [17] in the file and [16]": func() error {
			_, err := Apply(context.Background(), w.base, filepath.Join(t.TempDir(), "o"), []Part{part(wrong)}, ApplyOptions{})
			return err
		},
		"and another file gives it [16]": func() error {
			_, err := Compose(out(), []Part{part(w.paths[0]), part(wrong)}, ComposeOptions{})
			return err
		},
		"the output is the directory of the checkpoint": func() error {
			_, err := Apply(context.Background(), w.base, w.base, w.parts(t, 1), ApplyOptions{Force: true})
			return err
		},
		"norm.weight: differs from the base by NaN at element 2": func() error {
			broken := map[string][]float32{}
			for name, x := range w.values {
				broken[name] = slices.Clone(x)
			}
			broken["norm.weight"][2] = float32(math.NaN())
			_, err := Extract(open(t, w.base), open(t, written(t, tensors.F32, broken, shapes)), out(), ExtractOptions{Count: 1})
			return err
		},
		"end the name of a sparse difference": func() error { _, err := Compose("x.bin", w.parts(t, 1), ComposeOptions{}); return err },
	} {
		err := do()
		var format *tensors.FormatError
		if !errors.As(err, &format) || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q, got %v", what, err)
		}
	}
	// A head is taken whole, and a weight leaves it out.
	whole := out()
	r, err := Compose(whole, []Part{part(head), part(w.paths[0])}, ComposeOptions{Base: open(t, w.base)})
	if err != nil || r.Wholes != 1 || len(r.Left) != 0 {
		t.Errorf("%+v %v", r, err)
	}
	if a := bytesOf(t, apply(t, w.base, []Part{part(whole)}, ApplyOptions{})); a["head.weight"] != string(make([]byte, 48)) {
		t.Error("the head was not replaced")
	}
	if r, err := Compose(out(), []Part{{openFile(t, head), -1}}, ComposeOptions{}); err != nil || !slices.Equal(r.Left, []string{"head.weight"}) {
		t.Errorf("%+v %v", r, err)
	}
}

// TestExtract keeps the largest changes with the very bytes of the fine-tune.
func TestExtract(t *testing.T) {
	for _, dtype := range []tensors.DType{tensors.F32, tensors.BF16} {
		w := newWorld(t, dtype, false)
		tuned := map[string][]float32{}
		d := draw(3)
		for _, name := range []string{"model.layers.0.a.weight", "model.layers.1.a.weight", "norm.weight", "head.weight"} {
			tuned[name] = slices.Clone(w.values[name])
			for i := range tuned[name] {
				tuned[name][i] += d.float()
			}
		}
		dir := written(t, dtype, tuned, shapes)
		out := filepath.Join(t.TempDir(), "x.safetensors")
		r, err := Extract(open(t, w.base), open(t, dir), out, ExtractOptions{Count: 40, Exclude: []string{"head.*"}})
		if err != nil {
			t.Fatal(err)
		}
		f := openFile(t, out)
		if r.Entries != 40 || f.Count() != 40 || r.Candidates != 2*128+16 || f.Kind != files.Difference || f.Meta["mask"] != "magnitude" || !(r.Kept > 40./272) {
			t.Errorf("%+v %+v", r, f.Header)
		}
		before, want, got := bytesOf(t, w.base), bytesOf(t, dir), bytesOf(t, apply(t, w.base, []Part{{f, 1}}, ApplyOptions{}))
		taken, size := 0, dtype.Size()
		least, most := math.Inf(1), 0.0
		for name := range want {
			x, y := decodeAs(t, before[name], dtype), decodeAs(t, want[name], dtype)
			for i := range x {
				by := math.Abs(float64(y[i] - x[i]))
				switch at := i * size; got[name][at : at+size] {
				case before[name][at : at+size]:
					if !strings.HasPrefix(name, "head") {
						most = max(most, by)
					}
				case want[name][at : at+size]:
					taken++
					least = min(least, by)
				default:
					t.Fatalf("%s[%d] is neither the base's nor the fine-tune's", name, i)
				}
			}
		}
		if taken != 40 || most > least {
			t.Errorf("%d entries changed, the least of them by %v, another one not by %v", taken, least, most)
		}
		if _, err := Extract(open(t, w.base), open(t, dir), out, ExtractOptions{Count: 1 << 40, Force: true}); err == nil || !strings.Contains(err.Error(), "ask for fewer") {
			t.Error(err)
		}
		if _, err := Extract(open(t, w.base), open(t, dir), out, ExtractOptions{Count: 1}); err == nil || !strings.Contains(err.Error(), "--force") {
			t.Error(err)
		}
	}
}

func decodeAs(t *testing.T, raw string, dtype tensors.DType) []float32 {
	t.Helper()
	x := make([]float32, len(raw)/dtype.Size())
	if err := tensors.DecodeFloat32(x, []byte(raw), dtype); err != nil {
		t.Fatal(err)
	}
	return x
}
