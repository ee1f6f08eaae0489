package model_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

func TestReadExamples(t *testing.T) {
	d, err := model.ReadPlainDescription("testdata/plain/mlp") // 7 features, 4 classes
	if err != nil {
		t.Fatal(err)
	}
	two := tensors.Info{Name: "input", DType: tensors.F16, Shape: []int{2, 7}}
	save := func(infos []tensors.Info, data ...[]byte) string {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := tensors.SaveFile(path, infos, data, nil); err != nil {
			t.Fatal(err)
		}
		return path
	}
	labels := func(dtype tensors.DType, shape ...int) []tensors.Info {
		return []tensors.Info{two, {Name: "labels", DType: dtype, Shape: shape}}
	}
	for _, c := range []struct {
		dtype tensors.DType
		data  []byte
	}{
		{tensors.U8, []byte{3, 1}},
		{tensors.I32, []byte{3, 0, 0, 0, 1, 0, 0, 0}},
		{tensors.I64, []byte{3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}},
	} {
		x, n, l, err := model.ReadExamples(save(labels(c.dtype, 2), make([]byte, 28), c.data), d)
		if err != nil || n != 2 || len(x) != 14 || !slices.Equal(l.Classes, []int32{3, 1}) {
			t.Errorf("%v: %d examples, %v, %v", c.dtype, n, l, err)
		}
	}
	for want, path := range map[string]string{
		`no tensor "input"`:              save([]tensors.Info{{Name: "x", DType: tensors.U8, Shape: []int{1}}}, []byte{1}),
		"it must be float, [7] for each": save([]tensors.Info{{Name: "input", DType: tensors.F32, Shape: []int{7}}}, make([]byte, 28)),
		"must be whole numbers":          save(labels(tensors.F32, 2), make([]byte, 28), make([]byte, 8)),
		"one for each example":           save(labels(tensors.U8, 2, 1), make([]byte, 28), []byte{1, 2}),
		"2 examples and 3 labels":        save(labels(tensors.U8, 3), make([]byte, 28), []byte{1, 2, 3}),
		"negative or too large":          save(labels(tensors.I32, 2), make([]byte, 28), []byte{0, 0, 0, 0, 255, 255, 255, 255}),
	} {
		var input *model.InputError
		if _, _, _, err := model.ReadExamples(path, d); !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	var format *tensors.FormatError
	if _, _, _, err := model.ReadExamples(filepath.Join(t.TempDir(), "none"), d); !errors.As(err, &format) {
		t.Errorf("no file: %v", err)
	}
}
