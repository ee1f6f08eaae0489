package merge_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

const soupNetwork = `{"model_type": "mlp", "input_shape": [6], "layers": [{"type": "linear", "name": "first", "out": 24}, {"type": "relu"}, {"type": "linear", "name": "last", "out": 4}]}`

// bakery trains a base and k fine-tunes of it, each with other rows and another rate, the last one with a rate that ruins it. It returns a
// folder with base, ft0 ..., val.csv, test.csv and unlabelled.csv.
func bakery(t *testing.T, k int, dtype tensors.DType) string {
	t.Helper()
	dir := t.TempDir()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	d, err := model.DescribePlain([]byte(soupNetwork))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]model.Tensor{}
	for _, s := range d.Tensors() {
		x := make([]float32, model.Segment{Shape: s.Shape}.Size())
		linalg.Normal(x, 3, s.Name)
		for i := range x {
			x[i] *= 0.4
		}
		values[s.Name] = model.Tensor{Shape: s.Shape, Data: x}
	}
	m, err := model.NewPlain(d, values, b, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	train := func(seed string, steps int, rate float32) {
		x, classes := soupRows(seed, 160)
		for range steps {
			g, err := m.NewGradients()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Backward(x, model.Labels{Classes: classes}, len(classes), g, 1/float32(len(classes)), true); err != nil {
				t.Fatal(err)
			}
			grad, err := gt.CopyFlatData[float32](g.Sums[0])
			if err != nil {
				t.Fatal(err)
			}
			g.Free()
			w, err := gt.CopyFlatData[float32](m.Weights.Value)
			if err != nil {
				t.Fatal(err)
			}
			for i := range w {
				w[i] -= rate * grad[i]
			}
			if err := m.SetVector(m.Weights, w); err != nil {
				t.Fatal(err)
			}
		}
	}
	train("base", 60, 0.3)
	start, err := gt.CopyFlatData[float32](m.Weights.Value)
	if err != nil {
		t.Fatal(err)
	}
	writeNetwork(t, filepath.Join(dir, "base"), m, dtype)
	for i := range k {
		if err := m.SetVector(m.Weights, slices.Clone(start)); err != nil {
			t.Fatal(err)
		}
		rate := 0.2 + 0.1*float32(i%3)
		if i == k-1 {
			rate = 9
		}
		train(fmt.Sprint("tune", i), 40, rate)
		writeNetwork(t, filepath.Join(dir, fmt.Sprint("ft", i)), m, dtype)
	}
	for name, rows := range map[string]int{"val.csv": 90, "test.csv": 120} {
		x, classes := soupRows(name, rows)
		writeRows(t, filepath.Join(dir, name), x, classes)
	}
	x, _ := soupRows("val.csv", 90)
	writeRows(t, filepath.Join(dir, "unlabelled.csv"), x, nil)
	return dir
}

// soupRows are examples of a task that a small network learns and does not master: classes are the sides of two bent surfaces.
func soupRows(seed string, n int) (x []float32, classes []int32) {
	x = make([]float32, 6*n)
	linalg.Normal(x, 5, seed)
	for i := range n {
		v := x[6*i : 6*i+6]
		c := int32(0)
		if v[0]+v[1]*v[2] > 0 {
			c++
		}
		if v[3]-v[4]*v[5] > 0.3 {
			c += 2
		}
		classes = append(classes, c)
	}
	return x, classes
}

func writeRows(t *testing.T, path string, x []float32, classes []int32) {
	t.Helper()
	var b strings.Builder
	for i := range len(x) / 6 {
		for k, v := range x[6*i : 6*i+6] {
			if k > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, "%g", v)
		}
		if classes != nil {
			fmt.Fprintf(&b, ",%d", classes[i])
		}
		b.WriteString("\n")
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
		t.Fatal(err)
	}
}

// writeNetwork writes a checkpoint, with a buffer of integers beside the weights.
func writeNetwork(t *testing.T, dir string, m *model.PlainModel, dtype tensors.DType) {
	t.Helper()
	values, err := m.Tensors()
	if err != nil {
		t.Fatal(err)
	}
	var infos []tensors.Info
	var data [][]byte
	for _, s := range m.Weights.Packed.Segments {
		v := values[s.Name]
		info := tensors.Info{Name: s.Name, DType: dtype, Shape: s.Shape}
		b := make([]byte, info.Bytes())
		if err := tensors.EncodeFloat32(b, dtype, v.Data); err != nil {
			t.Fatal(err)
		}
		infos, data = append(infos, info), append(data, b)
	}
	infos, data = append(infos, tensors.Info{Name: "first.num_batches_tracked", DType: tensors.I64, Shape: []int{}}), append(data, []byte{7, 0, 0, 0, 0, 0, 0, 0})
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := tensors.SaveFile(filepath.Join(dir, "model.safetensors"), infos, data, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(soupNetwork), 0o666); err != nil {
		t.Fatal(err)
	}
}

// soupText is a recipe over the bakery's models.
func soupText(dir, method string, k int, more string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "merge_method: %s\nmodels:\n", method)
	for i := range k {
		fmt.Fprintf(&b, "  - model: %s/ft%d\n", dir, i)
	}
	return b.String() + strings.ReplaceAll(more, "$D", dir) + "\n"
}

const heldOut = "evaluate: {held_out: {data: $D/val.csv}}\n"

// cached keeps scores in a folder of the test's own.
func cached(t *testing.T) {
	t.Helper()
	t.Setenv(evaluation.CacheVariable, t.TempDir())
}

// runSoup merges a recipe, stopping where stop says so; it returns how many measurements of mixes were made and how many were known.
func runSoup(t *testing.T, text, out string, stop func(done int, what string) bool) (s *merge.Summary, made, known int, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "recipe.yml")
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := 0
	s, err = merge.Run(ctx, file, out, merge.Options{Backend: goBackend(t), ModelCard: true, Repairing: func(_, _ int, what string) {
		if n++; stop != nil && stop(n, what) {
			cancel()
		}
		if strings.HasPrefix(what, "measuring ") && what != "measuring on held_out" {
			if made++; strings.HasSuffix(what, "(known)") {
				known++
			}
		}
	}})
	return s, made, known, err
}
