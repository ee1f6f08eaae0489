package fill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

// written is tensors [3] of one dtype that hold a mark, so that one sees where they come from.
func written(t *testing.T, mark byte, dtype tensors.DType, names ...string) string {
	t.Helper()
	return wide(t, 3, mark, dtype, names...)
}

// wide is written with tensors of another length.
func wide(t *testing.T, width int, mark byte, dtype tensors.DType, names ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	var infos []tensors.Info
	for _, n := range names {
		infos = append(infos, tensors.Info{Name: n, DType: dtype, Shape: []int{width}})
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, info := range infos {
		if err := w.WriteAt(i, []byte(strings.Repeat(string(mark), int(info.Bytes()))), 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Finish(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteFile("config.json", []byte(fmt.Sprintf(`{"mark": "%c"}`, mark))); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteFile("tokenizer.json", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// marks are the marks of a checkpoint's tensors, by name.
func marks(t *testing.T, dir string) map[string]byte {
	t.Helper()
	c, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := map[string]byte{}
	for _, n := range c.Names() {
		v, err := c.View(n)
		if err != nil {
			t.Fatal(err)
		}
		out[n] = v.Data[0]
	}
	return out
}

var tower = []string{"vision_tower.embed.weight", "multi_modal_projector.linear.weight"}

// TestMissing puts language models back into models that see, with names as the libraries of several years wrote them.
func TestMissing(t *testing.T) {
	plain := []string{"model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"}
	for name, c := range map[string]struct {
		base     func(n string) string
		part     []string
		from, to string
		left     int
	}{
		"same names":     {func(n string) string { return n }, plain[:3], "", "", 0},
		"a prefix more":  {func(n string) string { return "language_model." + n }, plain, "", "language_model.", 0},
		"another prefix": {func(n string) string { return strings.Replace(n, "model.", "model.language_model.", 1) }, plain, "model.", "model.language_model.", 0},
		"a tied head":    {func(n string) string { return strings.Replace(n, "lm_head", "unused", 1) }, plain, "", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			var names []string
			for _, n := range plain {
				names = append(names, c.base(n))
			}
			base, part := written(t, 'b', tensors.F32, append(names, tower...)...), written(t, 'p', tensors.F32, c.part...)
			out := filepath.Join(t.TempDir(), "out")
			r, err := Missing(context.Background(), base, part, out, Options{Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			if r.From != c.from || r.To != c.to || len(r.LeftOut) != c.left || r.Replaced != len(c.part)-c.left || r.Filled+r.Replaced != len(names)+len(tower) {
				t.Errorf("%+v", r)
			}
			want := map[string]byte{}
			for _, n := range append(names, tower...) {
				want[n] = 'b'
			}
			for _, n := range c.part {
				if to := place(n, c.from, c.to); want[to] != 0 {
					want[to] = 'p'
				}
			}
			if got := marks(t, out); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%v, want %v", got, want)
			}
			for _, file := range []string{"config.json", "tokenizer.json"} {
				raw, err := os.ReadFile(filepath.Join(out, file))
				if err != nil || file == "config.json" && !strings.Contains(string(raw), `"b"`) {
					t.Errorf("%s: %s, %v", file, raw, err)
				}
			}
		})
	}
}

// TestDTypes: the part's bytes stay what they are.
func TestDTypes(t *testing.T) {
	base, part := written(t, 'b', tensors.F32, "a.weight", "c.weight"), written(t, 'p', tensors.BF16, "a.weight")
	out := filepath.Join(t.TempDir(), "out")
	var warned []string
	if _, err := Missing(context.Background(), base, part, out, Options{Warn: func(m string) { warned = append(warned, m) }}); err != nil {
		t.Fatal(err)
	}
	c, err := tensors.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if info, _ := c.Lookup("a.weight"); info.DType != tensors.BF16 || len(warned) != 1 {
		t.Errorf("%+v, %v", info, warned)
	}
}

func TestRefuses(t *testing.T) {
	base := written(t, 'b', tensors.F32, "x.l.w.weight", "y.l.w.weight", "z.weight")
	out := filepath.Join(t.TempDir(), "out")
	for want, c := range map[string]struct {
		part string
		o    Options
	}{
		"has several places":      {written(t, 'p', tensors.F32, "l.w.weight"), Options{}},
		"no tensor in common":     {written(t, 'p', tensors.F32, "other.bias"), Options{}},
		"has no place in":         {written(t, 'p', tensors.F32, "z.weight", "q.weight"), Options{}},
		"has shape [4]":           {wide(t, 4, 'p', tensors.F32, "z.weight"), Options{}},
		"is the directory of":     {base, Options{}},
		"has the same place":      {written(t, 'p', tensors.F32, "a.z.weight", "z.weight"), Options{Prefix: "a="}},
		"no tensor in common wit": {written(t, 'p', tensors.F32, "l.w.weight"), Options{Prefix: "q"}},
	} {
		to := out
		if want == "is the directory of" {
			to = base
		}
		if _, err := Missing(context.Background(), base, c.part, to, c.o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a refused run left an output")
	}
	// With --prefix the choice is made.
	r, err := Missing(context.Background(), base, written(t, 'p', tensors.F32, "l.w.weight"), out, Options{Prefix: "y"})
	if err != nil || r.To != "y." || r.Replaced != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestEmpty: a checkpoint without tensors, as an interrupted download may leave, is refused by name, whichever of the two it is; so is a prefix
// that no tensor has.
func TestEmpty(t *testing.T) {
	empty := t.TempDir()
	if err := os.WriteFile(filepath.Join(empty, "model.safetensors"), []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	whole := written(t, 'a', tensors.F32, "model.w", "model.v")
	for _, c := range []struct{ base, part, prefix, want string }{
		{empty, whole, "", "has no tensors"}, {whole, empty, "", "has no tensors"}, {whole, whole, "lm=model", `begins with "lm."`},
	} {
		_, err := Missing(t.Context(), c.base, c.part, filepath.Join(t.TempDir(), "out"), Options{Prefix: c.prefix})
		if bad := (*Error)(nil); !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
