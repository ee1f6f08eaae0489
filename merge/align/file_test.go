package align

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/tensors"
)

// small is a map with every kind of element and with gains, small enough to be read by eye.
func small(t testing.TB) *Map {
	s := &symmetry.Spec{Name: "small", Norms: []symmetry.Norm{{Group: "res", Gain: "norm", Readers: []string{"head"}}}, Untie: map[string]string{"head": "embed"}}
	s.Groups = []symmetry.Group{
		{ID: "res", Kind: symmetry.Orthogonal, Size: 3, Refs: []symmetry.Ref{at("embed", 1, 0, 1, 1, symmetry.Write), at("norm", 0, 0, 1, 1, symmetry.Gain), at("head", 1, 0, 1, 1, symmetry.Read)}},
		{ID: "heads", Kind: symmetry.HeadGroup, Size: 2, Refs: []symmetry.Ref{at("q", 0, 0, 4, 1, symmetry.Write)}},
		{ID: "planes", Kind: symmetry.RopePlane, Size: 2, Parent: "heads", Block: 1, Refs: []symmetry.Ref{at("q", 0, 4, 1, 1, symmetry.Write)}},
		{ID: "mlp", Kind: symmetry.ScaledPerm, Size: 4, Refs: []symmetry.Ref{at("up", 0, 0, 1, 1, symmetry.Write)}},
		{ID: "vo", Kind: symmetry.Invertible, Size: 2, Refs: []symmetry.Ref{at("v", 0, 0, 1, 1, symmetry.Write)}},
		{ID: "units", Kind: symmetry.SignedPerm, Size: 2, Refs: []symmetry.Ref{at("w", 0, 0, 1, 1, symmetry.Write)}},
		{ID: "same", Kind: symmetry.Perm, Size: 2, Refs: []symmetry.Ref{at("w", 1, 0, 1, 1, symmetry.Write)}},
	}
	m, err := Random(s, 1<<63, RandomOptions{Scales: true, Gains: true})
	if err != nil {
		t.Fatal(err)
	}
	delete(m.Elements, "same")
	g := m.Gains["norm"]
	g.From = []float64{1, -2, math.Pi}
	m.Gains["norm"] = g
	m.Note["objective"] = "0.25 → 0.5"
	return m
}

// TestSaveLoad: a saved map comes back bit for bit.
func TestSaveLoad(t *testing.T) {
	s, _ := transformer(2, true), 0
	for i, m := range []*Map{small(t), Identity(s), mustRandom(t, s, 7, RandomOptions{Scales: true, Gains: true})} {
		path := filepath.Join(t.TempDir(), "alignment.safetensors")
		if err := m.Save(path); err != nil {
			t.Fatal(err)
		}
		got, err := Load(path)
		if err != nil {
			t.Fatal(i, err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Errorf("%d: saved\n%+v\nloaded\n%+v", i, m, got)
		}
		first, _ := os.ReadFile(path)
		if err := got.Save(path); err != nil {
			t.Fatal(err)
		}
		if second, _ := os.ReadFile(path); string(first) != string(second) {
			t.Errorf("%d: saved again it has other bytes", i)
		}
	}
}

// resave writes a map's file with something changed.
func resave(t testing.TB, path string, change func(meta map[string]string, data map[string][]byte, infos []tensors.Info)) {
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var infos []tensors.Info
	data := map[string][]byte{}
	for _, name := range c.Names() {
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, v.Info)
		data[name] = append([]byte(nil), v.Data...)
	}
	meta := maps.Clone(c.Metadata())
	change(meta, data, infos)
	var list [][]byte
	for _, info := range infos {
		list = append(list, data[info.Name])
	}
	if err := tensors.SaveFile(path, infos, list, meta); err != nil {
		t.Fatal(err)
	}
}

// TestCheckSave: a map takes the place of a map, and of nothing else.
func TestCheckSave(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := small(t).Save(in("map.safetensors")); err != nil {
		t.Fatal(err)
	}
	if err := tensors.SaveFile(in("model.safetensors"), []tensors.Info{{Name: "w", DType: tensors.F32, Shape: []int{1}}}, [][]byte{make([]byte, 4)}, nil); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		in("map.safetensors"): "", in("new.safetensors"): "", in("out/new.safetensors"): "",
		in("model.safetensors"): "no map", dir: "a directory", in("gone/new.safetensors"): "directory is not there", in("map.safetensors/x"): "directory is not there",
	} {
		err := CheckSave(path, in("out"))
		var e *Error
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", path, err)
		case want != "" && (!errors.As(err, &e) || !strings.Contains(e.Error(), want)):
			t.Errorf("%s: %v, not %q", path, err, want)
		}
	}
}

// TestLoadRefuses: every kind of damage is named.
func TestLoadRefuses(t *testing.T) {
	type data = map[string][]byte
	nan := doubles([]float64{math.NaN()})
	cases := map[string]struct {
		change func(meta map[string]string, d data)
		want   string
	}{
		"no map":          {func(meta map[string]string, _ data) { delete(meta, formatKey) }, "is no alignment"},
		"another version": {func(meta map[string]string, _ data) { meta[formatKey] = "2" }, "format 2"},
		"no spec":         {func(meta map[string]string, _ data) { meta[specKey] = "{" }, `"spec" in its header`},
		"another spec": {func(meta map[string]string, _ data) {
			meta[specKey] = strings.Replace(meta[specKey], "small", "large", 1)
		}, "hash"},
		"seed":           {func(meta map[string]string, _ data) { meta[seedKey] = "-1" }, "seed"},
		"twice the same": {func(_ map[string]string, d data) { copy(d["mlp.index"], d["mlp.index"][8:16]) }, "mlp: its index is not a permutation"},
		"beyond":         {func(_ map[string]string, d data) { d["mlp.index"][7] = 0x80 }, "4 features"},
		"scale NaN":      {func(_ map[string]string, d data) { copy(d["mlp.scale"], nan) }, "scale 0 is NaN"},
		"scale zero":     {func(_ map[string]string, d data) { clear(d["mlp.scale"]) }, "scale 0 is 0"},
		"no sign":        {func(_ map[string]string, d data) { copy(d["units.scale"], doubles([]float64{2})) }, "neither 1 nor -1"},
		"plane zero":     {func(_ map[string]string, d data) { clear(d["planes.plane"]) }, "plane 0"},
		"matrix NaN":     {func(_ map[string]string, d data) { copy(d["res.matrix"], nan) }, "its matrix has NaN"},
		"not orthogonal": {func(_ map[string]string, d data) { copy(d["res.matrix"], doubles([]float64{0.5, 0.1})) }, "not orthogonal"},
		"singular":       {func(_ map[string]string, d data) { clear(d["vo.matrix"]) }, "singular"},
		"gain zero":      {func(_ map[string]string, d data) { clear(d["gain norm.to"]) }, "symmetry: signed"},
		"gain NaN":       {func(_ map[string]string, d data) { copy(d["gain norm.from"], nan) }, "norm: entry 0 is NaN"},
		"kind": {func(meta map[string]string, _ data) {
			meta[kindsKey] = strings.Replace(meta[kindsKey], "signed_perm", "orthogonal", 1)
		}, "units: has an element of kind orthogonal"},
		"no such group": {func(meta map[string]string, _ data) {
			meta[kindsKey] = strings.Replace(meta[kindsKey], `"mlp"`, `"mlq"`, 1)
		}, "mlq"},
		"missing element": {func(meta map[string]string, _ data) { meta[kindsKey] = "{}" }, "belongs to no group"},
		"null element":    {func(meta map[string]string, _ data) { meta[kindsKey] = "null" }, "belongs to no group"},
	}
	for name, c := range cases {
		path := filepath.Join(t.TempDir(), "a.safetensors")
		if err := small(t).Save(path); err != nil {
			t.Fatal(err)
		}
		resave(t, path, func(meta map[string]string, d map[string][]byte, _ []tensors.Info) { c.change(meta, d) })
		m, err := Load(path)
		var e *Error
		if !errors.As(err, &e) || e.File != path || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v; want %q", name, m, err, c.want)
		}
	}
}

// FuzzLoad: no file makes Load panic, and what loads saves to a file that loads.
func FuzzLoad(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "seed.safetensors")
	if err := small(f).Save(path); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-8])
	f.Add([]byte(fmt.Sprintf("\x20\x00\x00\x00\x00\x00\x00\x00%-32s", `{"__metadata__":{"alignment":"1"}}`)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "a.safetensors")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Load(path)
		if err != nil {
			return
		}
		if err := m.Save(path); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err != nil {
			t.Fatalf("what was loaded and saved does not load: %v", err)
		}
	})
}
