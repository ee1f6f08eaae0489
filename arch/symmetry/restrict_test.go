package symmetry_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/arch/symmetry"
)

func TestRestrict(t *testing.T) {
	all := symmetry.AllGroups()
	with := func(change func(c *symmetry.Choice)) symmetry.Choice {
		c := all
		change(&c)
		return c
	}
	rest := "kv 3 head_group of 2, qh 6 head_group of 2"
	for _, c := range []struct {
		model, symmetry string
		choice          symmetry.Choice
		want            string
		untie           bool
	}{
		{"llama", "", all, "res 1 orthogonal of 32, mlp 3 scaled_perm of 72, " + rest + ", vo 6 orthogonal of 8, qk 6 rope_plane of 4", false},
		{"llama", symmetry.Full, with(func(c *symmetry.Choice) { c.VO = "invertible" }), "res 1 orthogonal of 32, mlp 3 scaled_perm of 72, " + rest + ", vo 6 invertible of 8, qk 6 rope_plane of 4", false},
		{"llama", symmetry.Permutation, all, "res 1 perm of 32, mlp 3 perm of 72, " + rest + ", vo 6 perm of 8", false},
		{"llama", symmetry.Signed, all, "res 1 signed_perm of 32, mlp 3 signed_perm of 72, " + rest + ", vo 6 signed_perm of 8, qk 6 rope_plane of 4", false},
		{"llama", symmetry.Auto, with(func(c *symmetry.Choice) { c.Residual = "permutation"; c.Heads = false; c.QK = false }), "res 1 perm of 32, mlp 3 scaled_perm of 72, vo 6 orthogonal of 8", false},
		{"llama", symmetry.Auto, with(func(c *symmetry.Choice) { c.Residual = "none"; c.MLP = false; c.VO = "none" }), rest + ", qk 6 rope_plane of 4", false},
		{"llama-tied-bias", symmetry.Auto, all, "res 1 signed_perm of 32, mlp 3 scaled_perm of 72, " + rest + ", vo 6 orthogonal of 8, qk 6 rope_plane of 4", false},
		{"llama-tied-bias", symmetry.Full, all, "res 1 orthogonal of 32, mlp 3 scaled_perm of 72, " + rest + ", vo 6 orthogonal of 8, qk 6 rope_plane of 4", true},
		{"llama-tied-bias", symmetry.Auto, with(func(c *symmetry.Choice) { c.Residual = "orthogonal" }), "res 1 orthogonal of 32, mlp 3 scaled_perm of 72, " + rest + ", vo 6 orthogonal of 8, qk 6 rope_plane of 4", true},
		{"gemma2", symmetry.Full, all, "res 1 signed_perm of 32, mlp 3 scaled_perm of 72, " + rest + ", vo 6 orthogonal of 16, qk 6 rope_plane of 8", false},
		{"gpt2", symmetry.Full, all, "res 1 perm of 32, mlp 3 perm of 128, kv 3 head_group of 4, vo 12 orthogonal of 8, qk 12 invertible of 8", false},
		{"gpt2", symmetry.Signed, all, "res 1 perm of 32, mlp 3 perm of 128, kv 3 head_group of 4, vo 12 signed_perm of 8, qk 12 signed_perm of 8", false},
		{"qwen3", symmetry.Signed, all, "res 1 signed_perm of 32, mlp 3 signed_perm of 72, " + rest + ", vo 6 signed_perm of 16, qk 6 rope_plane of 8", false},
		{"qwen3", symmetry.Full, with(func(c *symmetry.Choice) { c.QK = false }), "res 1 orthogonal of 32, mlp 3 scaled_perm of 72, " + rest + ", vo 6 orthogonal of 16", false},
	} {
		config, src := golden(t, c.model)
		s, err := symmetry.Of(config, src)
		if err != nil {
			t.Fatal(err)
		}
		before := s.Hash()
		r, err := s.Restrict(c.symmetry, c.choice)
		if err != nil {
			t.Errorf("%s %s %+v: %v", c.model, c.symmetry, c.choice, err)
			continue
		}
		if got := summary(r); got != c.want {
			t.Errorf("%s %s %+v:\n%s\nwant %s", c.model, c.symmetry, c.choice, got, c.want)
		}
		if s.Hash() != before {
			t.Errorf("%s %s: the spec itself was changed", c.model, c.symmetry)
		}
		if err := r.Validate(src); err != nil {
			t.Errorf("%s %s: %v", c.model, c.symmetry, err)
		}
		if (r.Untie != nil) != c.untie {
			t.Errorf("%s %s: untied %v", c.model, c.symmetry, r.Untie)
		}
		for i := range r.Groups {
			g := &r.Groups[i]
			if !c.untie && slices.ContainsFunc(g.Refs, func(ref symmetry.Ref) bool { _, ok := src[ref.Tensor]; return !ok }) {
				t.Errorf("%s %s: %s refers to a tensor that is not there", c.model, c.symmetry, g.ID)
			}
			if c.symmetry == symmetry.Signed && g.Kind == symmetry.RopePlane && g.Restrict != symmetry.SignOnly {
				t.Errorf("%s: %s turns planes", c.model, g.ID)
			}
			if !c.choice.Heads && g.Parent != "" {
				t.Errorf("%s: %s has the parent %s, which is left out", c.model, g.ID, g.Parent)
			}
		}
		if turned := strings.Contains(c.want, "res 1 orthogonal"); (len(r.Norms) > 0) != turned {
			t.Errorf("%s %s: %d norms", c.model, c.symmetry, len(r.Norms))
		}
	}
}

func TestRestrictErrors(t *testing.T) {
	all := symmetry.AllGroups()
	for _, c := range []struct {
		model, symmetry string
		choice          symmetry.Choice
		want            string
	}{
		{"llama", "rotation", all, `symmetry spec llama: symmetry "rotation" is not known; auto, permutation, signed and full are`},
		{"llama", "", symmetry.Choice{Residual: "turned"}, `group res: residual "turned" is not known; auto, none, permutation, signed and orthogonal are`},
		{"llama", "", symmetry.Choice{VO: "any"}, `group vo: vo "any" is not known; none, orthogonal and invertible are`},
		{"llama", symmetry.Permutation, symmetry.Choice{Residual: "orthogonal"}, `residual "orthogonal" is more than symmetry "permutation" allows`},
		{"llama", symmetry.Signed, symmetry.Choice{Residual: "orthogonal"}, `residual "orthogonal" is more than symmetry "signed" allows`},
		{"gpt2", "", symmetry.Choice{Residual: "orthogonal"}, `group res: residual "orthogonal" is no symmetry of this architecture, which allows perm here`},
		{"gemma2", "", symmetry.Choice{Residual: "orthogonal"}, `which allows perm, signed_perm here`},
		{"bert", "", symmetry.Choice{Residual: "signed"}, `residual "signed" is no symmetry of this architecture, which allows perm here`},
		{"llama", "", symmetry.Choice{Residual: "none"}, `nothing is left to align: the choice of groups with symmetry "auto" leaves none out of res, mlp, kv, qh, vo, qk`},
	} {
		config, src := golden(t, c.model)
		s, err := symmetry.Of(config, src)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Restrict(c.symmetry, c.choice)
		var e *symmetry.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s %+v: %v\nwant %s", c.model, c.symmetry, c.choice, err, c.want)
		}
	}
}

// TestValidate: specs that were not read from a file.
func TestValidate(t *testing.T) {
	src := source{"w": {4, 6}, "v": {6, 4}, "ids": {4}}
	good := func() *symmetry.Spec {
		return &symmetry.Spec{Name: "s", Groups: []symmetry.Group{
			{ID: "h", Kind: symmetry.HeadGroup, Size: 2, Refs: []symmetry.Ref{{Tensor: "w", Block: 2, Tile: 1, Role: symmetry.Write}, {Tensor: "v", Axis: 1, Block: 2, Tile: 1, Role: symmetry.Read}}},
			{ID: "a", Kind: symmetry.Orthogonal, Size: 2, Parent: "h", Block: 1, Refs: []symmetry.Ref{{Tensor: "w", Offset: 2, Block: 1, Tile: 1, Role: symmetry.Write}, {Tensor: "v", Axis: 1, Offset: 2, Block: 1, Tile: 1, Role: symmetry.Read}}},
		}}
	}
	if err := good().Validate(src); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(s *symmetry.Spec){
		"group a: the id is empty or stands twice":                func(s *symmetry.Spec) { s.Groups[0].ID = "a" },
		"group h: the size 0":                                     func(s *symmetry.Spec) { s.Groups[0].Size = 0 },
		`group h: the kind "turn" is not known`:                   func(s *symmetry.Spec) { s.Groups[0].Kind = "turn" },
		"is not among those that it allows, [perm]":               func(s *symmetry.Spec) { s.Groups[0].Kinds = []symmetry.Kind{symmetry.Perm} },
		"group a: the parent h has no block 2":                    func(s *symmetry.Spec) { s.Groups[1].Block = 2 },
		"group a: the parent x has no block 1":                    func(s *symmetry.Spec) { s.Groups[1].Parent = "x" },
		"group a: w: indices 3 to 4 of axis 0, which is 4 long":   func(s *symmetry.Spec) { s.Groups[1].Refs[0].Offset = 3 },
		"group a: w: there is no axis -1":                         func(s *symmetry.Spec) { s.Groups[1].Refs[0].Axis = -1 },
		"group a: w: has the shape [4 6] and no axis 2":           func(s *symmetry.Spec) { s.Groups[1].Refs[0].Axis = 2 },
		`group a: w: the role "keep" is not known`:                func(s *symmetry.Spec) { s.Groups[1].Refs[0].Role = "keep" },
		"group a: w: 2 features in blocks of 0":                   func(s *symmetry.Spec) { s.Groups[1].Refs[0].Block = 0 },
		"group a: w: 2 features in blocks of 4611686018427387904": func(s *symmetry.Spec) { s.Groups[1].Refs[0].Block = 1 << 62 },
		"group b: w: indices from 3 on of axis 0 are in the group": func(s *symmetry.Spec) {
			s.Groups = append(s.Groups, symmetry.Group{ID: "b", Kind: symmetry.Perm, Size: 1, Refs: []symmetry.Ref{{Tensor: "w", Offset: 3, Block: 1, Tile: 1, Role: symmetry.Write}}})
		},
		"group a: w: a shift of 1 in a group that is turned":        func(s *symmetry.Spec) { s.Groups[1].Refs[0].Shift = 1 },
		"group h: w: has the shape [4 6]; only tensors of one axis": func(s *symmetry.Spec) { s.Groups[0].Refs[0].Shift = 1 },
		"group h: v: a shift of 1 on axis 1; only tensors of one":   func(s *symmetry.Spec) { s.Groups[0].Refs[1].Shift = 1 },
		"group a: gone: the tensor is not there":                    func(s *symmetry.Spec) { s.Groups[1].Refs[0].Tensor = "gone" },
		"group x: g: a norm belongs to a group that is not there":   func(s *symmetry.Spec) { s.Norms = []symmetry.Norm{{Group: "x", Gain: "g"}} },
		"group a: q: reads the norm g, but has no ref that reads":   func(s *symmetry.Spec) { s.Norms = []symmetry.Norm{{Group: "a", Gain: "g", Readers: []string{"q"}}} },
		"group a: w: a group that can be turned has a gain": func(s *symmetry.Spec) {
			s.Groups[1].Kinds = []symmetry.Kind{symmetry.Orthogonal}
			s.Groups[1].Refs[0].Role = symmetry.Gain
		},
	} {
		s := good()
		change(s)
		err := s.Validate(src)
		var e *symmetry.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}
