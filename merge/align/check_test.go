package align

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
)

func goBackend(t *testing.T) compute.Backend {
	t.Helper()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

// TestCheckFamilies proves every built-in spec: every group, every kind that it allows, and all together.
func TestCheckFamilies(t *testing.T) {
	b := goBackend(t)
	for _, f := range symmetry.Families() {
		if !slices.Contains(CheckFamilies(), f) {
			t.Errorf("%s has a spec that nothing checks", f)
		}
	}
	for _, family := range CheckFamilies() {
		t.Run(family, func(t *testing.T) {
			r, err := CheckFamily(context.Background(), family, 1, b)
			if err != nil {
				t.Fatal(err)
			}
			kinds := map[symmetry.Kind]bool{}
			for _, c := range r.Results {
				kinds[c.Kind] = true
				if testing.Verbose() {
					t.Log(c.Model, c.Groups, c.Kind, c.Worst)
				}
			}
			if !kinds[symmetry.Perm] || !kinds[""] {
				t.Errorf("only the kinds %v were tried", kinds)
			}
			if len(r.Unchecked) > 0 && family != "bert" {
				t.Errorf("not computed: %v", r.Unchecked)
			}
		})
	}
}

// tinyModel draws one of the models that families are checked with.
func tinyModel(t *testing.T, name string) (config []byte, values map[string]model.Tensor, spec *symmetry.Spec) {
	t.Helper()
	list, err := TinyModels("")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(x Tiny) bool { return x.Name == name })
	if i < 0 {
		t.Fatalf("no model %s", name)
	}
	config = list[i].Config
	if values, err = randomModel(config, 1); err != nil {
		t.Fatal(err)
	}
	if model.IsPlain(config) {
		d, err := model.DescribePlain(config)
		if err != nil {
			t.Fatal(err)
		}
		if spec, err = d.Symmetry(); err != nil {
			t.Fatal(err)
		}
	} else if spec, err = symmetry.Of(config, OfTensors(values)); err != nil {
		t.Fatal(err)
	}
	return config, values, spec
}

// edit returns the spec's group for changing.
func edit(t *testing.T, s *symmetry.Spec, id string) *symmetry.Group {
	t.Helper()
	g, ok := s.Group(id)
	if !ok {
		t.Fatalf("no group %s", id)
	}
	return g
}

// TestCheckFindsWrongSpecs: what looks like a symmetry and is none fails, by the name of the group, and everything else passes.
func TestCheckFindsWrongSpecs(t *testing.T) {
	kinds := func(g *symmetry.Group, k ...symmetry.Kind) { g.Kinds, g.Kind = k, k[len(k)-1] }
	remove := func(g *symmetry.Group, gone func(r symmetry.Ref) bool) { g.Refs = slices.DeleteFunc(g.Refs, gone) }
	b := goBackend(t)
	for _, c := range []struct {
		what, model, group string
		kind               symmetry.Kind
		change             func(s *symmetry.Spec, g *symmetry.Group)
	}{
		{"rotary planes exchanged", "llama", "qk.0.0", symmetry.Perm, func(_ *symmetry.Spec, g *symmetry.Group) {
			kinds(g, symmetry.Perm)
			g.Size *= 2
		}},
		{"a rotary plane's entries flipped one by one", "llama", "qk.1.1", symmetry.SignedPerm, func(_ *symmetry.Spec, g *symmetry.Group) {
			kinds(g, symmetry.SignedPerm)
			g.Size *= 2
		}},
		{"neighbours as planes", "llama", "qk.0.1", symmetry.RopePlane, func(_ *symmetry.Spec, g *symmetry.Group) { g.Interleaved = true }},
		{"planes of all entries where some do not rotate", "llama-one-key-partial-rotary", "qk.0.0", symmetry.RopePlane, func(s *symmetry.Spec, _ *symmetry.Group) {
			s.Groups = slices.DeleteFunc(s.Groups, func(g symmetry.Group) bool { return strings.HasPrefix(g.ID, "qk_flat.0.") })
			g := edit(t, s, "qk.0.0")
			g.Size *= 2
		}},
		{"queries exchanged between key heads", "llama", "qh.0", symmetry.HeadGroup, func(s *symmetry.Spec, _ *symmetry.Group) {
			s.Groups = slices.DeleteFunc(s.Groups, func(g symmetry.Group) bool {
				return strings.HasPrefix(g.ID, "qh.0.") || strings.HasPrefix(g.ID, "vo.0.") || strings.HasPrefix(g.ID, "qk.0.") || g.ID == "kv.0"
			})
			p := "model.layers.0.self_attn."
			s.Groups = append(s.Groups, symmetry.Group{ID: "qh.0", Kind: symmetry.HeadGroup, Size: 4, Refs: []symmetry.Ref{
				{Tensor: p + "q_proj.weight", Block: 6, Tile: 1, Role: symmetry.Write}, {Tensor: p + "o_proj.weight", Axis: 1, Block: 6, Tile: 1, Role: symmetry.Read}}})
		}},
		{"a stream turned with its gains in place", "llama", "res", symmetry.Orthogonal, func(s *symmetry.Spec, g *symmetry.Group) {
			s.Norms = nil
			remove(g, func(r symmetry.Ref) bool { return r.Role == symmetry.Gain })
		}},
		{"a stream turned behind a norm of 1+w folded as w", "gemma", "res", symmetry.Orthogonal, func(s *symmetry.Spec, _ *symmetry.Group) {
			for i := range s.Norms {
				s.Norms[i].Offset = 0
			}
		}},
		{"a stream turned though gains lie on it", "gemma2", "res", symmetry.Orthogonal, func(s *symmetry.Spec, g *symmetry.Group) {
			kinds(g, symmetry.Perm, symmetry.SignedPerm, symmetry.Orthogonal)
			for _, r := range g.Refs {
				if r.Role == symmetry.Gain {
					s.Norms = append(s.Norms, symmetry.Norm{Group: "res", Gain: r.Tensor, Offset: 1})
				}
			}
		}},
		{"a shared embedding turned", "qwen2-tied", "res", symmetry.Orthogonal, func(s *symmetry.Spec, g *symmetry.Group) {
			kinds(g, symmetry.Perm, symmetry.SignedPerm, symmetry.Orthogonal)
			s.Untie = nil
			remove(g, func(r symmetry.Ref) bool { return r.Tensor == "lm_head.weight" })
			for i := range s.Norms {
				s.Norms[i].Readers = slices.DeleteFunc(s.Norms[i].Readers, func(r string) bool { return r == "lm_head.weight" })
			}
		}},
		{"signs under a layer norm", "gpt2", "res", symmetry.SignedPerm, func(_ *symmetry.Spec, g *symmetry.Group) { kinds(g, symmetry.Perm, symmetry.SignedPerm) }},
		{"signs behind a layer norm", "bert", "res", symmetry.SignedPerm, func(_ *symmetry.Spec, g *symmetry.Group) { kinds(g, symmetry.Perm, symmetry.SignedPerm) }},
		{"signs before gelu", "vit", "mlp.1", symmetry.SignedPerm, func(_ *symmetry.Spec, g *symmetry.Group) { kinds(g, symmetry.Perm, symmetry.SignedPerm) }},
		{"scales before gelu", "gpt2", "mlp.0", symmetry.ScaledPerm, func(_ *symmetry.Spec, g *symmetry.Group) {
			kinds(g, symmetry.Perm, symmetry.ScaledPerm)
			g.Positive = true
		}},
		{"scales through a gate", "mistral", "mlp.0", symmetry.ScaledPerm, func(_ *symmetry.Spec, g *symmetry.Group) {
			for i, r := range g.Refs {
				if r.Role == symmetry.Gain {
					g.Refs[i].Role = symmetry.Write
				}
			}
		}},
		{"a bias forgotten", "qwen2", "kv.1", symmetry.HeadGroup, func(_ *symmetry.Spec, g *symmetry.Group) {
			remove(g, func(r symmetry.Ref) bool { return strings.HasSuffix(r.Tensor, "v_proj.bias") })
		}},
		{"gate and up the other way round", "phi3", "mlp.0", symmetry.ScaledPerm, func(_ *symmetry.Spec, g *symmetry.Group) {
			for i, r := range g.Refs {
				if strings.Contains(r.Tensor, "gate_up") {
					g.Refs[i].Offset = 20 - r.Offset
				}
			}
		}},
		{"phases where heads are normed", "qwen3", "qk.0.0", symmetry.RopePlane, func(_ *symmetry.Spec, g *symmetry.Group) { g.Restrict = symmetry.AnyPhase }},
		{"phases of the gains of normed heads", "qwen3", "qk_norm.0", symmetry.RopePlane, func(_ *symmetry.Spec, g *symmetry.Group) { g.Restrict = symmetry.AnyPhase }},
		{"scales of a gain of 1+w as of w", "gemma3", "qk_norm.0", symmetry.RopePlane, func(_ *symmetry.Spec, g *symmetry.Group) {
			for i := range g.Refs {
				g.Refs[i].Shift = 0
			}
		}},
		{"signs before relu", "mlp", "hidden.relu", symmetry.SignedPerm, func(_ *symmetry.Spec, g *symmetry.Group) {
			kinds(g, symmetry.Perm, symmetry.SignedPerm)
			g.Positive = false
		}},
		{"scales before tanh", "mlp", "hidden.tanh", symmetry.ScaledPerm, func(_ *symmetry.Spec, g *symmetry.Group) {
			kinds(g, symmetry.Perm, symmetry.SignedPerm, symmetry.ScaledPerm)
		}},
		{"a layer norm as if every feature stood alone", "mlp", "hidden.norm", symmetry.ScaledPerm, func(_ *symmetry.Spec, g *symmetry.Group) {
			kinds(g, symmetry.Perm, symmetry.ScaledPerm)
			g.Positive = true
		}},
		{"statistics of a batch norm left behind", "vgg", "hidden.features.3", symmetry.Perm, func(_ *symmetry.Spec, g *symmetry.Group) {
			remove(g, func(r symmetry.Ref) bool { return strings.HasSuffix(r.Tensor, "running_var") })
		}},
		{"a flattened image as single features", "vgg", "hidden.features.3", symmetry.Perm, func(_ *symmetry.Spec, g *symmetry.Group) {
			for i, r := range g.Refs {
				if r.Block > 1 {
					g.Refs[i].Block, g.Refs[i].Tile = 1, r.Block
				}
			}
		}},
		{"a stage without its shortcut", "resnet", "res.layer2.0.conv3", symmetry.Perm, func(_ *symmetry.Spec, g *symmetry.Group) {
			remove(g, func(r symmetry.Ref) bool { return strings.Contains(r.Tensor, "downsample") })
		}},
		{"one axis of a square", "resnet", "res.layer2.0.conv3", symmetry.Perm, func(_ *symmetry.Spec, g *symmetry.Group) {
			remove(g, func(r symmetry.Ref) bool { return strings.HasSuffix(r.Tensor, "square.weight") && r.Axis == 0 })
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			config, values, spec := tinyModel(t, c.model)
			g, _ := spec.Group(c.group)
			c.change(spec, g)
			r, err := CheckTensors(context.Background(), c.model, config, values, spec, 2, b)
			if r == nil {
				t.Fatal(err)
			}
			var e *Error
			if !errors.As(err, &e) || e.Group != c.group {
				t.Fatalf("the error is %v", err)
			}
			for _, f := range r.Failed() {
				if f.Kind != "" && !slices.Equal(f.Groups, []string{c.group}) {
					t.Errorf("%v failed as %s too: %.2g", f.Groups, f.Kind, f.Worst)
				}
				if f.Kind == c.kind && f.Worst < 30*CheckTolerance {
					t.Errorf("off by %.2g alone: too little to be sure of", f.Worst)
				}
			}
			if !slices.ContainsFunc(r.Failed(), func(f CheckResult) bool { return f.Kind == c.kind }) {
				t.Errorf("the %s passed", c.kind)
			}
		})
	}
}

// TestCheckHalves: a large model is tried with all groups of a sort together, and the ones at fault are found all the same.
func TestCheckHalves(t *testing.T) {
	config, values, spec := tinyModel(t, "llama")
	g := edit(t, spec, "vo.1.0")
	g.Refs = slices.DeleteFunc(g.Refs, func(r symmetry.Ref) bool { return r.Role == symmetry.Read })
	old := maxCheckWork
	maxCheckWork = 0
	defer func() { maxCheckWork = old }()
	r, err := CheckTensors(context.Background(), "llama", config, values, spec, 2, goBackend(t))
	var e *Error
	if !errors.As(err, &e) || e.Group != "vo.1.0" {
		t.Fatal(err)
	}
	if n := len(r.Results); n > 40 {
		t.Errorf("%d trials", n)
	}
}

// TestCheckMaskedWords proves the head of BERT that no forward pass has: transform, norm and decoder, shared and not.
func TestCheckMaskedWords(t *testing.T) {
	config, _, _ := tinyModel(t, "bert")
	for _, tied := range []bool{true, false} {
		config := []byte(strings.Replace(string(config), `"BertModel"`, `"BertForMaskedLM"`, 1))
		config = []byte(strings.Replace(string(config), `{`, fmt.Sprintf(`{"tie_word_embeddings": %v,`, tied), 1))
		values, err := randomModel(config, 1)
		if err != nil {
			t.Fatal(err)
		}
		d, err := model.Describe(config)
		if err != nil {
			t.Fatal(err)
		}
		const p = "cls.predictions."
		for name, shape := range map[string][]int{p + "transform.dense.weight": {d.Hidden, d.Hidden}, p + "transform.dense.bias": {d.Hidden},
			p + "transform.LayerNorm.weight": {d.Hidden}, p + "transform.LayerNorm.bias": {d.Hidden}, p + "bias": {d.Vocab}, p + "decoder.weight": {d.Vocab, d.Hidden}} {
			if name == p+"decoder.weight" && tied {
				continue
			}
			x := values["bert.encoder.layer.0.attention.output.dense.weight"].Data
			data := make([]float32, shape[0]*append(shape, 1)[1])
			for i := range data {
				data[i] = x[(7*i+len(name))%len(x)]
			}
			values[name] = model.Tensor{Shape: shape, Data: data}
		}
		report, err := CheckTensors(context.Background(), "bert", config, values, nil, 1, goBackend(t))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(report.Unchecked, p+"transform.dense.weight") {
			t.Errorf("the check says nothing of the head that it does not compute: %v", report.Unchecked)
		}
		w := OfTensors(values)
		spec, err := symmetry.Of(config, w)
		if err != nil {
			t.Fatal(err)
		}
		if _, own := spec.Group("mlm"); own == tied {
			t.Errorf("tied %v: a group of its own for the transform: %v", tied, own)
		}
		m, err := Random(spec, 3, RandomOptions{Scales: true})
		if err != nil {
			t.Fatal(err)
		}
		// Hidden states of one word, and what they are in the other basis.
		h := make([]float32, d.Hidden)
		for i := range h {
			h[i] = float32(math.Sin(float64(3*i + 1)))
		}
		before := maskedWords(t, w, h, tied)
		after := maskedWords(t, Aligned(w, m), m.Elements["res"].features(h, d.Hidden), tied)
		if far := far(before, after); !(far < 1e-5) {
			t.Errorf("tied %v: logits differ by %.1e", tied, far)
		}
	}
}

// maskedWords is BERT's head for masked words in float64.
func maskedWords(t *testing.T, w Weights, h []float32, tied bool) []float64 {
	t.Helper()
	get := func(name string) []float32 {
		x, err := w.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	n := len(h)
	dense, bias := get("cls.predictions.transform.dense.weight"), get("cls.predictions.transform.dense.bias")
	y := make([]float64, n)
	mean, square := 0.0, 0.0
	for i := range y {
		y[i] = float64(bias[i])
		for j, v := range h {
			y[i] += float64(dense[i*n+j]) * float64(v)
		}
		y[i] *= 0.5 * (1 + math.Erf(y[i]/math.Sqrt2))
		mean += y[i] / float64(n)
	}
	for _, v := range y {
		square += (v - mean) * (v - mean) / float64(n)
	}
	gain, shift := get("cls.predictions.transform.LayerNorm.weight"), get("cls.predictions.transform.LayerNorm.bias")
	for i := range y {
		y[i] = (y[i]-mean)/math.Sqrt(square+1e-12)*float64(gain[i]) + float64(shift[i])
	}
	decoder := "cls.predictions.decoder.weight"
	if tied {
		decoder = "bert.embeddings.word_embeddings.weight"
	}
	words := get(decoder)
	out := make([]float64, len(words)/n)
	for i, b := range get("cls.predictions.bias") {
		out[i] = float64(b)
		for j, v := range y {
			out[i] += float64(words[i*n+j]) * v
		}
	}
	return out
}
