package merge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// diverge makes a checkpoint one whose outputs are no numbers, though its weights are finite.
func diverge(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "model.safetensors")
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var infos []tensors.Info
	var data [][]byte
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		if !v.DType.IsFloat() {
			infos, data = append(infos, v.Info), append(data, bytes.Clone(v.Data))
			continue
		}
		x := make([]float32, v.Elems())
		if err := tensors.DecodeFloat32(x, v.Data, v.DType); err != nil {
			t.Fatal(err)
		}
		for i := range x {
			x[i] = float32(math.Copysign(1e38, float64(x[i])))
		}
		b := make([]byte, len(v.Data))
		if err := tensors.EncodeFloat32(b, v.DType, x); err != nil {
			t.Fatal(err)
		}
		infos, data = append(infos, v.Info), append(data, b)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tensors.SaveFile(path, infos, data, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
}

// TestSoupsOfDiverged has an ingredient that gives no numbers: it is measured, told as it is, and left out.
func TestSoupsOfDiverged(t *testing.T) {
	cached(t)
	dir := bakery(t, 3, tensors.F32)
	diverge(t, filepath.Join(dir, "ft2"))
	out := filepath.Join(dir, "out")
	more := "base_model: $D/base\nparameters: {line: 3}\nevaluate: {held_out: {data: $D/val.csv}, report: {data: $D/test.csv}, flips: true, ensemble: true, temperature: true}\n"
	s, _, _, err := runSoup(t, soupText(dir, "greedy_soup", 3, more), out, nil)
	if err != nil {
		t.Fatal(err)
	}
	if g := s.Report.(merge.SoupReport).Greedy; len(g.Weights) == 3 || g.Score.Value < g.Singles[0].Score.Value {
		t.Errorf("%+v", g.Weights)
	}
	for _, file := range []string{"soup.json", "evaluation.json"} {
		b, err := os.ReadFile(filepath.Join(out, file))
		if err != nil || !json.Valid(b) || !strings.Contains(string(b), `"-Inf"`) && !strings.Contains(string(b), `"NaN"`) {
			t.Errorf("%s: %v\n%s", file, err, b)
		}
	}
	_, _, _, err = runSoup(t, soupText(dir, "learned_soup", 3, "parameters: {epochs: 1}\n"+heldOut), filepath.Join(dir, "learned"), nil)
	var input *merge.InputError
	var where *recipe.Error
	if !errors.As(err, &input) || !errors.As(err, &where) || !strings.Contains(err.Error(), "fine-tunes of one model") {
		t.Errorf("a learned soup: %v", err)
	}
}

// TestPartialBytes: types of less than a byte are refused before anything is written.
func TestPartialBytes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		infos := []tensors.Info{{Name: "last.weight", DType: tensors.F32, Shape: []int{1, 1}}, {Name: "last.bias", DType: tensors.F32, Shape: []int{1}}, {Name: "codes", DType: tensors.F4, Shape: []int{4}}}
		config := `{"model_type": "mlp", "input_shape": [1], "loss": "mse", "layers": [{"type": "linear", "name": "last", "out": 1}]}`
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, name), 0o777), os.WriteFile(filepath.Join(dir, name, "config.json"), []byte(config), 0o666),
			tensors.SaveFile(filepath.Join(dir, name, "model.safetensors"), infos, [][]byte{{0, 0, 128, 63}, {0, 0, 0, 0}, {0x12, 0x34}}, nil)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := mergeText(t, "merge_method: uniform_soup\nmodels: [{model: "+dir+"/a}, {model: "+dir+"/b}]\n", filepath.Join(dir, "out"), merge.Options{})
	var input *merge.InputError
	if !errors.As(err, &input) || !strings.Contains(err.Error(), "codes: holds values of less than a byte (F4)") {
		t.Error(err)
	}
}
