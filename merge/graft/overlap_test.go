package graft

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

func TestCompareFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(path string, list ...sparse.Tensor) string {
		path = filepath.Join(dir, path)
		if err := sparse.Write(path, sparse.Header{Kind: sparse.Graft}, list, nil, false); err != nil {
			t.Fatal(err)
		}
		return path
	}
	at := func(name string, shape []int, index ...int64) sparse.Tensor {
		return sparse.Tensor{Name: name, Shape: shape, DType: tensors.F32, Index: index, Values: make([]float32, len(index))}
	}
	wide := []int{10, 10}
	a := write("a.safetensors", at("x", wide, 1, 2, 3, 50), at("y", []int{10}, 7))
	b := write("b.safetensors", at("x", wide, 2, 3), at("z", wide, 8, 9))
	o, err := CompareFiles([]string{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.Names, []string{"a", "b"}) || !slices.Equal(o.Entries, []int64{5, 4}) {
		t.Errorf("%+v", o)
	}
	// Of b's 4 entries a has 2, of a's 5 b has 2; both together have 7.
	for _, c := range []struct {
		name      string
		got, want [][]float64
	}{
		{"of", o.Of, [][]float64{{1, 2.0 / 4}, {2.0 / 5, 1}}},
		{"jaccard", o.Jaccard, [][]float64{{1, 2.0 / 7}, {2.0 / 7, 1}}},
		// Of b's 2 entries of x a would hit 4 in 100 each, of its 2 of z none.
		{"chance", o.Chance, [][]float64{{(4*4/100.0 + 1*1/10.0) / 5, 2 * 4 / 100.0 / 4}, {4 * 2 / 100.0 / 5, (2*2/100.0 + 2*2/100.0) / 4}}},
	} {
		for i := range c.want {
			for j := range c.want[i] {
				if d := c.got[i][j] - c.want[i][j]; d > 1e-12 || d < -1e-12 {
					t.Errorf("%s[%d][%d] is %v, want %v", c.name, i, j, c.got[i][j], c.want[i][j])
				}
			}
		}
	}
	// Names that do not tell files apart keep their directories.
	again := write("more/a.safetensors", at("x", wide, 1))
	if o, err = CompareFiles([]string{a, again, b}); err != nil || o.Names[0] == o.Names[1] || !strings.HasSuffix(o.Names[1], filepath.Join("more", "a")) || o.Names[2] != "b" {
		t.Errorf("%+v, %v", o, err)
	}
	other := write("other.safetensors", at("x", []int{100}, 1))
	_, err = CompareFiles([]string{a, other})
	if e := new(tensors.FormatError); !errors.As(err, &e) || !strings.Contains(err.Error(), "another shape") {
		t.Errorf("grafts of other shapes: %v", err)
	}
}
