package sparse

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

func example() []Tensor {
	return []Tensor{
		{Name: "b.weight", Shape: []int{3, 4}, DType: tensors.F32, Index: []int64{0, 5, 11}, Values: []float32{1.5, float32(math.Copysign(0, -1)), -3}},
		{Name: "a.weight", Shape: []int{2, 2}, DType: tensors.BF16, Index: []int64{3}, Values: []float32{0.25}},
		{Name: "empty", Shape: []int{7}, DType: tensors.F32},
		{Name: "scalar", Shape: []int{}, DType: tensors.F64, Index: []int64{0}, Raw: binary.LittleEndian.AppendUint64(nil, math.Float64bits(0.1))},
	}
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "task.safetensors")
	head := tensors.View{Info: tensors.Info{Name: "head", DType: tensors.F32, Shape: []int{2}}, Data: make([]byte, 8)}
	h := Header{Kind: Graft, Base: strings.Repeat("ab", 32), Meta: map[string]string{"sparsity": "0.01"}}
	if err := Write(path, h, example(), []tensors.View{head}, false); err != nil {
		t.Fatal(err)
	}
	if !Is(path) {
		t.Fatal("the file is not known for what it is")
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Kind != Graft || f.Base != h.Base || f.Delta || len(f.Meta) != 1 || f.Meta["sparsity"] != "0.01" || f.Count() != 5 {
		t.Fatalf("header %+v, %d entries", f.Header, f.Count())
	}
	if names := f.Names(); !slices.Equal(names, []string{"b.weight", "a.weight", "scalar"}) && len(names) != 3 {
		t.Fatalf("names %q", names)
	}
	for _, want := range example() {
		got, ok, err := f.Tensor(want.Name)
		if err != nil {
			t.Fatal(err)
		}
		if ok != (len(want.Index) > 0) {
			t.Fatalf("%s: found %t", want.Name, ok)
		}
		if !ok {
			continue
		}
		if !slices.Equal(got.Shape, want.Shape) || got.DType != want.DType || !slices.Equal(got.Index, want.Index) {
			t.Fatalf("%s is %+v", want.Name, got)
		}
		if want.Raw != nil {
			if !slices.Equal(got.Raw, want.Raw) {
				t.Fatalf("%s has the bytes %x", want.Name, got.Raw)
			}
			continue
		}
		for i := range want.Values {
			if math.Float32bits(got.Values[i]) != math.Float32bits(want.Values[i]) {
				t.Fatalf("%s[%d] is %v, want %v", want.Name, i, got.Values[i], want.Values[i])
			}
		}
	}
	if v, ok, err := f.Whole("head"); err != nil || !ok || len(v.Data) != 8 || !slices.Equal(f.Wholes(), []string{"head"}) {
		t.Fatal("the head is not there", err)
	}
	if _, ok, _ := f.Whole("b.weight.indices"); ok {
		t.Fatal("a part of a changed tensor passes as a whole one")
	}
	e, _ := f.Entries("b.weight")
	for at, want := range map[int64]int{0: 0, 1: 1, 5: 1, 6: 2, 11: 2, 12: 3} {
		if got := e.Search(at); got != want {
			t.Errorf("Search(%d) = %d, want %d", at, got, want)
		}
	}
	if err := Write(path, h, example(), nil, false); err == nil {
		t.Fatal("an existing file was replaced without force")
	}
	if err := Write(path, h, example(), nil, true); err != nil {
		t.Fatal(err)
	}
}

func TestWriteRefuses(t *testing.T) {
	good := Header{Kind: Difference}
	one := func(change func(*Tensor)) []Tensor {
		x := Tensor{Name: "w", Shape: []int{4}, DType: tensors.F32, Index: []int64{1, 2}, Values: []float32{1, 2}}
		change(&x)
		return []Tensor{x}
	}
	ok := func(*Tensor) {}
	for name, c := range map[string]struct {
		h     Header
		list  []Tensor
		whole []tensors.View
	}{
		"kind":     {Header{Kind: "x"}, one(ok), nil},
		"base":     {Header{Kind: Graft, Base: "abc"}, one(ok), nil},
		"meta":     {Header{Kind: Graft, Meta: map[string]string{"shape.w": "4"}}, one(ok), nil},
		"order":    {good, one(func(x *Tensor) { x.Index = []int64{2, 2} }), nil},
		"range":    {good, one(func(x *Tensor) { x.Index = []int64{1, 4} }), nil},
		"negative": {good, one(func(x *Tensor) { x.Index = []int64{-1, 1} }), nil},
		"count":    {good, one(func(x *Tensor) { x.Values = x.Values[:1] }), nil},
		"dtype":    {good, one(func(x *Tensor) { x.DType = tensors.I32 }), nil},
		"shape":    {good, one(func(x *Tensor) { x.Shape = []int{-4} }), nil},
		"twice":    {good, append(one(ok), one(ok)...), nil},
		"both":     {good, one(ok), []tensors.View{{Info: tensors.Info{Name: "w", DType: tensors.F32, Shape: []int{0}}}}},
		"ending":   {good, one(ok), []tensors.View{{Info: tensors.Info{Name: "x.values", DType: tensors.F32, Shape: []int{0}}}}},
	} {
		path := filepath.Join(t.TempDir(), "x.safetensors")
		if err := Write(path, c.h, c.list, c.whole, false); err == nil {
			t.Errorf("%s: was written", name)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s: left a file", name)
		}
	}
	if err := CheckOutput("graft.bin", false); err == nil {
		t.Error("a name that no tool knows was accepted")
	}
}

// save writes tensors with any metadata, as a hostile program would.
func save(t testing.TB, meta map[string]string, infos []tensors.Info, data [][]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := tensors.SaveFile(path, infos, data, meta); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenRefuses(t *testing.T) {
	meta := func(pairs ...string) map[string]string {
		m := map[string]string{"format": Format, "version": "1", "kind": "graft", "values": "absolute", "base": "", "shape.w": "4"}
		for i := 0; i < len(pairs); i += 2 {
			if m[pairs[i]] = pairs[i+1]; pairs[i+1] == "-" {
				delete(m, pairs[i])
			}
		}
		return m
	}
	index := func(at ...int32) []byte {
		var b []byte
		for _, x := range at {
			b = binary.LittleEndian.AppendUint32(b, uint32(x))
		}
		return b
	}
	wi := tensors.Info{Name: "w.indices", DType: tensors.I32, Shape: []int{2}}
	wv := tensors.Info{Name: "w.values", DType: tensors.F32, Shape: []int{2}}
	pair := []tensors.Info{wi, wv}
	for name, c := range map[string]struct {
		meta  map[string]string
		infos []tensors.Info
		data  [][]byte
		want  string
	}{
		"format":       {meta("format", "-"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "no sparse difference"},
		"version":      {meta("version", "2"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "version"},
		"kind":         {meta("kind", "hat"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "kind"},
		"values":       {meta("values", "x"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "neither absolute nor delta"},
		"base":         {meta("base", "x"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "SHA-256"},
		"no shape":     {meta("shape.w", "-"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "no shape"},
		"bad shape":    {meta("shape.w", "4,x"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "no list of sizes"},
		"huge shape":   {meta("shape.w", "4611686018427387904,4"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "impossible"},
		"deep shape":   {meta("shape.w", strings.Repeat("1,", 70)+"1"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "dimensions"},
		"signed shape": {meta("shape.w", "+4"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "no list of sizes"},
		"more":         {meta("shape.w", "1"), pair, [][]byte{index(0, 1), make([]byte, 8)}, "room for 1"},
		"descending":   {meta(), pair, [][]byte{index(1, 0), make([]byte, 8)}, "ascend"},
		"twice":        {meta(), pair, [][]byte{index(1, 1), make([]byte, 8)}, "ascend"},
		"outside":      {meta(), pair, [][]byte{index(1, 4), make([]byte, 8)}, "outside"},
		"negative":     {meta(), pair, [][]byte{index(-1, 1), make([]byte, 8)}, "outside"},
		"lengths":      {meta(), []tensors.Info{wi, {Name: "w.values", DType: tensors.F32, Shape: []int{1}}}, [][]byte{index(0, 1), make([]byte, 4)}, "one length"},
		"no values":    {meta(), []tensors.Info{wi}, [][]byte{index(0, 1)}, "not both"},
		"stray values": {meta("shape.w", "-"), []tensors.Info{wv}, [][]byte{make([]byte, 8)}, "no shape"},
		"int values":   {meta(), []tensors.Info{wi, {Name: "w.values", DType: tensors.I32, Shape: []int{2}}}, [][]byte{index(0, 1), make([]byte, 8)}, "floating"},
		"float index":  {meta(), []tensors.Info{{Name: "w.indices", DType: tensors.F32, Shape: []int{2}}, wv}, [][]byte{index(0, 1), make([]byte, 8)}, "not I32"},
		"matrix":       {meta(), []tensors.Info{{Name: "w.indices", DType: tensors.I32, Shape: []int{1, 2}}, wv}, [][]byte{index(0, 1), make([]byte, 8)}, "one length"},
		"both":         {meta(), append(pair[:2:2], tensors.Info{Name: "w", DType: tensors.F32, Shape: []int{4}}), [][]byte{index(0, 1), make([]byte, 8), make([]byte, 16)}, "both changed"},
		"int whole":    {meta(), append(pair[:2:2], tensors.Info{Name: "h", DType: tensors.I64, Shape: []int{1}}), [][]byte{index(0, 1), make([]byte, 8), make([]byte, 8)}, "floating"},
	} {
		path := save(t, c.meta, c.infos, c.data)
		f, err := Open(path)
		if err == nil {
			_ = f.Close()
			t.Errorf("%s: was accepted", name)
			continue
		}
		var e *tensors.FormatError
		if !errors.As(err, &e) || e.File != path || e.Hint == "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.safetensors")); err == nil {
		t.Error("a file that is not there was opened")
	}
}

func TestOverlap(t *testing.T) {
	dir := t.TempDir()
	open := func(name string, list ...Tensor) *File {
		path := filepath.Join(dir, name+".safetensors")
		if err := Write(path, Header{Kind: Graft}, list, nil, true); err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	at := func(name string, index ...int64) Tensor {
		return Tensor{Name: name, Shape: []int{100}, DType: tensors.F32, Index: index, Values: make([]float32, len(index))}
	}
	a := open("a", at("x", 1, 2, 3, 50), at("y", 7))
	b := open("b", at("x", 2, 3, 60), at("z", 7, 8))
	o, by := Compare(a, b)
	if o != (Overlap{A: 5, B: 5, Shared: 2}) || o.Jaccard() != 2.0/8 || o.Of() != 2.0/5 {
		t.Fatalf("overlap %+v", o)
	}
	if by["x"] != (Overlap{A: 4, B: 3, Shared: 2}) || by["y"] != (Overlap{A: 1}) || by["z"] != (Overlap{B: 2}) {
		t.Fatalf("by tensor %+v", by)
	}
	if o, _ := Compare(a, a); o.Jaccard() != 1 || o.Of() != 1 {
		t.Fatalf("a file with itself: %+v", o)
	}
	none := open("none")
	if o, _ := Compare(none, a); o.Jaccard() != 0 || o.Of() != 0 {
		t.Fatalf("nothing with something: %+v", o)
	}
	other := open("other", Tensor{Name: "x", Shape: []int{10, 10}, DType: tensors.F32, Index: []int64{1}, Values: []float32{1}})
	if name, same := SameShapes(a, other); same || name != "x" {
		t.Fatalf("other shapes were not seen: %q", name)
	}
	if _, same := SameShapes(a, b); !same {
		t.Fatal("equal shapes pass as others")
	}
}

func TestHash(t *testing.T) {
	data := make([]byte, 16)
	sum := func(infos []tensors.Info, data [][]byte) string {
		path := save(t, nil, infos, data)
		c, err := tensors.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		h, err := Hash(c)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	a, b := tensors.Info{Name: "a", DType: tensors.F32, Shape: []int{4}}, tensors.Info{Name: "b", DType: tensors.F32, Shape: []int{2, 2}}
	one := sum([]tensors.Info{a, b}, [][]byte{data, data})
	if one != sum([]tensors.Info{b, a}, [][]byte{data, data}) || !isHash(one) {
		t.Fatal("the order in the file counts")
	}
	changed := slices.Clone(data)
	changed[15] = 1
	if one == sum([]tensors.Info{a, b}, [][]byte{data, changed}) {
		t.Fatal("a changed byte does not count")
	}
	b.Shape = []int{4}
	if one == sum([]tensors.Info{a, b}, [][]byte{data, data}) {
		t.Fatal("a shape does not count")
	}
}
