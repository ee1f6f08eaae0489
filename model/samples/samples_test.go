package samples

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

func network(t testing.TB, loss string) *model.PlainDescription {
	t.Helper()
	d, err := model.DescribePlain([]byte(`{"model_type": "mlp", "input_shape": [3], "loss": "` + loss + `", "layers": [{"type": "linear", "name": "a", "out": 2}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func file(t *testing.T, name, text string, zip bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	data := []byte(text)
	if zip {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		data = b.Bytes()
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCSV(t *testing.T) {
	classes, values := network(t, "cross_entropy"), network(t, "mse")
	for _, c := range []struct {
		name, text string
		zip        bool
		d          *model.PlainDescription
		o          Options
		x          []float32
		l          model.Labels
	}{
		{"a.csv", "0,1,2,1\n3,4,-5.5,0\n", false, classes, Options{}, []float32{0, 1, 2, 3, 4, -5.5}, model.Labels{Classes: []int32{1, 0}}},
		{"a.csv.gz", "0,51,255,1\r\n\r\n3,4,5,0", true, classes, Options{Divide: 255}, []float32{0, 0.2, 1, 3. / 255, 4. / 255, 5. / 255}, model.Labels{Classes: []int32{1, 0}}},
		{"a.csv", "\xef\xbb\xbf\"a\", b,c, label\n \"1\" , 2,3e0 ,0\n", false, classes, Options{}, []float32{1, 2, 3}, model.Labels{Classes: []int32{0}}},
		{"a.csv", "1,7,8,9\n", false, classes, Options{LabelFirst: true}, []float32{7, 8, 9}, model.Labels{Classes: []int32{1}}},
		{"a.csv", "7,8,9\n1,2,3\n4,5,6\n", false, classes, Options{Max: 2}, []float32{7, 8, 9, 1, 2, 3}, model.Labels{}},
		{"a.csv", "7,8,9,5\n1,2,3,0.5\n", false, classes, Options{Unlabelled: true}, []float32{7, 8, 9, 1, 2, 3}, model.Labels{}},
		{"a.csv", "5,7,8,9\n", false, classes, Options{Unlabelled: true, LabelFirst: true}, []float32{7, 8, 9}, model.Labels{}},
		{"a.CSV", "7,8,9,0.5,-1\n", false, values, Options{}, []float32{7, 8, 9}, model.Labels{Values: []float32{0.5, -1}}},
	} {
		s, err := Read(file(t, c.name, c.text, c.zip), c.d, c.o)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if !slices.Equal(s.X, c.x) || !reflect.DeepEqual(s.Labels, c.l) || s.N != len(c.x)/3 || s.Labelled != (c.l.Classes != nil || c.l.Values != nil) {
			t.Errorf("%q: %+v", c.text, s)
		}
	}
}

func TestCSVErrors(t *testing.T) {
	d := network(t, "cross_entropy")
	for want, text := range map[string]string{
		"a.csv:1: has 2 columns; an example of [3] is 3 values, and 4 with its label": "1,2\n",
		"a.csv:2: has 3 columns, the lines before have another number":                "1,2,3,0\n1,2,3\n",
		"a.csv:2: column 3 is no number":                                              "1,2,3,0\n1,2,x,0\n",
		"a.csv:1: column 2 is no number":                                              "1,NaN,2\n",
		"a.csv:1: column 1 is no number":                                              "1e39,1,2\n",
		"a.csv:2: column 1 is no number":                                              "a,b,c\nd,1,2\n",
		"a.csv:1: the last column is 2; it is the class, a whole number from 0 to 1":  "1,2,3,2\n",
		"the last column is 0.5":                                                      "1,2,3,0.5\n",
		"a.csv: holds no examples":                                                    "\n\n",
		"a.csv:1: the line is longer than an example of 3 values can":                 strings.Repeat(" ", 1<<20),
	} {
		var input *model.InputError
		if _, err := Read(file(t, "a.csv", text, false), d, Options{}); !errors.As(err, &input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
	var input *model.InputError
	if _, err := Read(filepath.Join(t.TempDir(), "none.csv"), d, Options{}); !errors.As(err, &input) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Read(file(t, "a.csv", "1,2,3,0\n1,2,3\n", false), d, Options{Unlabelled: true}); !errors.As(err, &input) || !strings.Contains(err.Error(), "another number") {
		t.Errorf("labels of some lines, none looked at: %v", err)
	}
	if _, err := Read(file(t, "a.csv", "1,2e38,3\n", false), d, Options{Divide: 1e-3}); !errors.As(err, &input) || !strings.Contains(err.Error(), "a.csv:1: 2e+38 divided by 0.001") {
		t.Errorf("an input that overflows: %v", err)
	}
	if _, err := Read(file(t, "a.csv.gz", "1,2,3,0\n", false), d, Options{Divide: -1}); !errors.As(err, &input) {
		t.Errorf("a negative divisor: %v", err)
	}
	path := file(t, "a.csv.gz", strings.Repeat("1,2,3,0\n", 1000), true)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data[:len(data)-9], 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, d, Options{}); !errors.As(err, &input) || !strings.Contains(err.Error(), "cannot be read on") {
		t.Errorf("a file that was cut off: %v", err)
	}
}

func TestSafetensors(t *testing.T) {
	d := network(t, "cross_entropy")
	path := filepath.Join(t.TempDir(), "x.safetensors")
	x := make([]byte, 0, 48)
	for i := range 12 {
		b := math.Float32bits(float32(i))
		x = append(x, byte(b), byte(b>>8), byte(b>>16), byte(b>>24))
	}
	infos := []tensors.Info{{Name: "input", DType: tensors.F32, Shape: []int{4, 3}}, {Name: "labels", DType: tensors.U8, Shape: []int{4}}}
	if err := tensors.SaveFile(path, infos, [][]byte{x, {0, 1, 1, 0}}, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Read(path, d, Options{Max: 3})
	if err != nil {
		t.Fatal(err)
	}
	if s.N != 3 || !slices.Equal(s.X, []float32{0, 1, 2, 3, 4, 5, 6, 7, 8}) || !slices.Equal(s.Labels.Classes, []int32{0, 1, 1}) || !s.Labelled {
		t.Errorf("%+v", s)
	}
	if o := s.Only([]int{2, 0}); !slices.Equal(o.X, []float32{6, 7, 8, 0, 1, 2}) || !slices.Equal(o.Labels.Classes, []int32{1, 0}) {
		t.Errorf("%+v", o)
	}
}

// TestSafetensorsValues: NaN is no example, and labels matter to those only who look at them.
func TestSafetensorsValues(t *testing.T) {
	d := network(t, "cross_entropy")
	nan := math.Float32bits(float32(math.NaN()))
	x := make([]byte, 24)
	x[16], x[17], x[18], x[19] = byte(nan), byte(nan>>8), byte(nan>>16), byte(nan>>24)
	bad, odd := filepath.Join(t.TempDir(), "bad.safetensors"), filepath.Join(t.TempDir(), "odd.safetensors")
	if err := tensors.SaveFile(bad, []tensors.Info{{Name: "input", DType: tensors.F32, Shape: []int{2, 3}}}, [][]byte{x}, nil); err != nil {
		t.Fatal(err)
	}
	labelled := []tensors.Info{{Name: "input", DType: tensors.F32, Shape: []int{2, 3}}, {Name: "labels", DType: tensors.F32, Shape: []int{1}}}
	if err := tensors.SaveFile(odd, labelled, [][]byte{make([]byte, 24), make([]byte, 4)}, nil); err != nil {
		t.Fatal(err)
	}
	var input *model.InputError
	if _, err := Read(bad, d, Options{}); !errors.As(err, &input) || !strings.Contains(err.Error(), "value 2 of example 2 is NaN") {
		t.Errorf("NaN: %v", err)
	}
	if _, err := Read(odd, d, Options{}); !errors.As(err, &input) {
		t.Errorf("labels of no class: %v", err)
	}
	if s, err := Read(odd, d, Options{Unlabelled: true}); err != nil || s.N != 2 || s.Labelled {
		t.Errorf("labels that nobody looks at: %+v, %v", s, err)
	}
}

// TestSample: a seed chooses the same examples, another one others, and every example once.
func TestSample(t *testing.T) {
	s := &Set{N: 100, width: 1}
	for i := range 100 {
		s.X = append(s.X, float32(i))
	}
	a, b, c := s.Sample(30, 1), s.Sample(30, 1), s.Sample(30, 2)
	if a.N != 30 || !slices.Equal(a.X, b.X) || slices.Equal(a.X, c.X) || !slices.IsSorted(a.X) {
		t.Errorf("%v\n%v\n%v", a.X, b.X, c.X)
	}
	order := Shuffle(100, 1)
	if slices.IsSorted(order) {
		t.Error("the order did not change")
	}
	slices.Sort(order)
	for i, k := range order {
		if i != k {
			t.Fatalf("%v is no permutation", order)
		}
	}
	if s.Sample(200, 1) != s || s.Sample(0, 1) != s {
		t.Error("all examples are not all")
	}
}

// FuzzCSV feeds hostile files.
func FuzzCSV(f *testing.F) {
	for _, text := range []string{"1,2,3,0\n", "a,b,c\n1,2,3\n", "1,2\n", "\"1\",2,3,1", "\x1f\x8b", "1,2,3,-0\n1e400,,\n"} {
		f.Add([]byte(text), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, first bool) {
		s := &Set{width: 3, given: 2}
		d := network(t, "cross_entropy")
		err := s.csv(bytes.NewReader(data), "x.csv", d, Options{Divide: 1, LabelFirst: first, Max: 1000})
		var input *model.InputError
		if err != nil {
			if !errors.As(err, &input) {
				t.Fatalf("%v is no InputError", err)
			}
			return
		}
		if len(s.X) != 3*s.N || s.Labelled && len(s.Labels.Classes) != s.N {
			t.Fatalf("%d values and %d labels of %d examples", len(s.X), len(s.Labels.Classes), s.N)
		}
		for _, v := range s.X {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				t.Fatalf("an input of %v", v)
			}
		}
	})
}
