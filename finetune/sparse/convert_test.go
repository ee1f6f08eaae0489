package sparse

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	files "github.com/mergekit/mergekit/tensors/sparse"
)

const golden = "../../testdata/golden/sparse/"

// TestTorch converts what torch wrote, back, and again: places and values are those of the dense tensors, and both files say the same.
func TestTorch(t *testing.T) {
	dir := t.TempDir()
	first, back, again := filepath.Join(dir, "a.safetensors"), filepath.Join(dir, "pytorch_diff.bin"), filepath.Join(dir, "b.safetensors")
	r, err := FromTorch(golden+"pytorch_diff.bin", first, false)
	if err != nil {
		t.Fatal(err)
	}
	if r.Entries != 10 || len(r.Wholes) != 3 {
		t.Errorf("%+v", r)
	}
	var want struct {
		Diffs map[string]map[string]float32 `json:"diffs"`
		Head  []float32                     `json:"head.weight"`
	}
	raw, err := os.ReadFile(golden + "pytorch_diff.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, first)
	if !f.Delta || f.Kind != files.LTSFT || f.Base != "" {
		t.Errorf("%+v", f.Header)
	}
	for name, entries := range want.Diffs {
		x, ok, err := f.Tensor(name)
		if err != nil || !ok || len(x.Index) != len(entries) {
			t.Fatalf("%s: %v %v %v", name, x, ok, err)
		}
		for i, at := range x.Index {
			if v, ok := entries[strconv.FormatInt(at, 10)]; !ok || v != x.Values[i] {
				t.Errorf("%s[%d] is %v, want %v", name, at, x.Values[i], v)
			}
		}
	}
	v, _, err := f.Whole("head.weight")
	if err != nil || !slices.Equal(decode(t, string(v.Data)), want.Head) || !slices.Equal(v.Shape, []int{3, 2}) {
		t.Errorf("head %v %v", v, err)
	}
	if _, err := ToTorch(first, back, nil, false); err != nil {
		t.Fatal(err)
	}
	if _, err := FromTorch(dir, again, false); err != nil { // the directory is as good as the file
		t.Fatal(err)
	}
	a, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(again)
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Error("a round trip through composable-sft's form changes the file")
	}
	for path, what := range map[string]string{golden + "evil.bin": "is not carried out", golden + "none.bin": "does not exist"} {
		if _, err := FromTorch(path, filepath.Join(dir, "c.safetensors"), true); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestPlaces turns every place of a tensor around and back.
func TestPlaces(t *testing.T) {
	shape := []int{3, 4, 5}
	seen := map[int64]bool{}
	for at := range int64(60) {
		c := firstFastest(at, shape)
		i, j, k := at/20, at/5%4, at%5
		if c != i+3*j+12*k || rowMajor(c, shape) != at || seen[c] {
			t.Errorf("%d becomes %d and %d again", at, c, rowMajor(c, shape))
		}
		seen[c] = true
	}
	// Beyond 31 bits, where composable-sft's own reader overflows.
	wide := []int{65536, 65536}
	if c := firstFastest(65536*65535+7, wide); c != 65535+65536*7 || rowMajor(c, wide) != 65536*65535+7 {
		t.Errorf("%d", c)
	}
}
