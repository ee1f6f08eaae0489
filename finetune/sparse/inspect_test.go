package sparse

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/tensors"
	files "github.com/mergekit/mergekit/tensors/sparse"
)

// TestDescribe counts by tensor and role, and what two files share.
func TestDescribe(t *testing.T) {
	w := newWorld(t, tensors.F32, true)
	a, b := openFile(t, w.paths[0]), openFile(t, w.paths[1])
	d, err := Describe(a)
	if err != nil {
		t.Fatal(err)
	}
	if d.Total.Entries != a.Count() || len(d.Tensors) != 3 || len(d.Roles) != 2 || d.Roles[0].Name != "model.layers.*.a.weight" ||
		d.Roles[0].Entries != d.Tensors[0].Entries+d.Tensors[1].Entries || d.Roles[0].Elems != 256 || !(d.Total.Mean > 0 && d.Total.Mean < d.Total.Largest) {
		t.Errorf("%+v", d)
	}
	same := Pairs([]*files.File{a, a})[0]
	if same.Jaccard != 1 || same.OfA != 1 || same.OfB != 1 {
		t.Errorf("a file with itself: %+v", same)
	}
	// Places drawn with one third each share a third by chance.
	p := Pairs([]*files.File{a, b})[0]
	if math.Abs(p.Chance-1./3) > 0.07 || math.Abs(p.OfA-p.Chance) > 0.1 || p.Shared == 0 {
		t.Errorf("%+v", p)
	}
	broken := filepath.Join(t.TempDir(), "x.safetensors")
	entry := files.Tensor{Name: "norm.weight", Shape: []int{16}, DType: tensors.F32, Index: []int64{1, 2, 5}, Values: []float32{float32(math.NaN()), -2, float32(math.Inf(-1))}}
	if err := files.Write(broken, files.Header{Kind: files.LTSFT, Delta: true}, []files.Tensor{entry}, nil, false); err != nil {
		t.Fatal(err)
	}
	if d, err = Describe(openFile(t, broken)); err != nil || d.Total.NonFinite != 2 || d.Total.Mean != 2 || d.Total.Largest != 2 {
		t.Errorf("%+v %v", d, err)
	}
	if natural("a.2.x", "a.10.x") >= 0 || natural("a.b", "a.b.c") >= 0 || label("out/task/sparse.safetensors") != "task" || label("x/de.safetensors") != "de" {
		t.Error("order or label of names")
	}
}
