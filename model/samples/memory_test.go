package samples_test

import (
	"errors"
	"testing"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// TestOf takes examples in memory that fit together, and no others.
func TestOf(t *testing.T) {
	classes, err := model.DescribePlain([]byte(`{"model_type": "mlp", "input_shape": [2], "layers": [{"type": "linear", "name": "a", "out": 3}]}`))
	if err != nil {
		t.Fatal(err)
	}
	values, err := model.DescribePlain([]byte(`{"model_type": "mlp", "input_shape": [2], "loss": "mse", "layers": [{"type": "linear", "name": "a", "out": 3}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		d        *model.PlainDescription
		x        []float32
		l        model.Labels
		ok, with bool
	}{
		{classes, []float32{1, 2, 3, 4}, model.Labels{}, true, false},
		{classes, []float32{1, 2, 3, 4}, model.Labels{Classes: []int32{0, 2}}, true, true},
		{values, []float32{1, 2, 3, 4}, model.Labels{Values: make([]float32, 6)}, true, true},
		{classes, []float32{1, 2, 3}, model.Labels{}, false, false},
		{classes, []float32{1, 2, 3, 4}, model.Labels{Classes: []int32{0}}, false, false},
		{values, []float32{1, 2, 3, 4}, model.Labels{Values: make([]float32, 5)}, false, false},
		{values, []float32{1, 2, 3, 4}, model.Labels{Classes: []int32{0, 2}}, false, false},
		{classes, []float32{1, 2, 3, 4}, model.Labels{Values: make([]float32, 6)}, false, false},
	} {
		s, err := samples.Of(c.d, c.x, 2, c.l)
		var bad *model.InputError
		switch {
		case !c.ok && !errors.As(err, &bad):
			t.Errorf("%v %+v: %v", c.x, c.l, err)
		case c.ok && (err != nil || s.Labelled != c.with || s.Only([]int{1}).X[0] != 3):
			t.Errorf("%v %+v: %+v, %v", c.x, c.l, s, err)
		}
	}
}
