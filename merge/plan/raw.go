package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/merge/recipe"
)

// Raw says that inputs are files of tensors and no models: names count as they stand, nothing is known of layers, vocabularies or ties, and the
// output has no configuration.
type Raw string

// What is done about tensors that some of the inputs lack.
const (
	RawStrict       Raw = "strict"       // they are an error
	RawIntersection Raw = "intersection" // they are left out
	RawUnion        Raw = "union"        // they are merged over the inputs that have them, as far as the method goes
)

// checkRaw refuses what only models have.
func (b *builder) checkRaw() error {
	refuse := func(pos recipe.Pos, key string) error {
		return b.errorf(pos, "%s: files of tensors have no such thing; merge models with `mergekit merge`", key)
	}
	r := b.Recipe
	switch {
	case len(r.Slices) > 0:
		return refuse(r.Slices[0].Pos, "slices")
	case len(r.Modules) > 0:
		return refuse(r.Modules[0].Pos, "modules")
	case r.Tokenizer != nil || r.TokenizerSource != "":
		return refuse(r.Pos, "tokenizer")
	case r.ChatTemplate != "":
		return refuse(r.Pos, "chat_template")
	case r.Align != nil:
		return refuse(r.Pos, "align")
	case b.Method.Whole:
		return b.errorf(r.MethodPos, "%s looks at models as wholes, and these are files of tensors", b.Method.Name)
	}
	return nil
}

// rawArch describes the tensors of the listed models. What the base alone has is not part of the output.
func (b *builder) rawArch() error {
	if err := b.checkRaw(); err != nil {
		return err
	}
	var listed []*Model
	for _, src := range b.Recipe.Models {
		listed = append(listed, b.model(src.Model))
	}
	var names []string
	lacks := map[string][]string{} // models by name of the tensor
	seen := map[string]bool{}
	for _, m := range listed {
		for _, n := range m.Checkpoint.Names() {
			if !seen[n] {
				seen[n] = true
				names = append(names, n)
			}
		}
	}
	for _, m := range b.Models {
		m.Config, m.RawConfig = nil, nil
		for _, n := range names {
			if _, ok := m.Lookup(n); !ok {
				lacks[n] = append(lacks[n], m.Name())
			}
		}
	}
	b.baseAlone(seen)
	switch b.Options.Raw {
	case RawIntersection:
		names = slices.DeleteFunc(names, func(n string) bool { return lacks[n] != nil })
		if len(lacks) > 0 {
			b.warnf("%d tensors are left out, because some of the inputs lack them: %s", len(lacks), b.someLacking(lacks))
		}
		if len(names) == 0 {
			return b.errorf(b.Recipe.Pos, "the inputs have no tensor in common")
		}
	case RawUnion:
		if len(lacks) > 0 {
			b.warnf("%d tensors are not in all inputs and are merged over those that have them: %s", len(lacks), b.someLacking(lacks))
		}
	case RawStrict:
		if len(lacks) > 0 {
			return b.errorf(b.Recipe.Pos, "%d tensors are not in all inputs: %s; --tensor-intersection leaves them out, --tensor-union merges what there is", len(lacks), b.someLacking(lacks))
		}
	}
	b.Arch = arch.Plain(names, func(n string) bool { return lacks[n] != nil })
	return nil
}

// someLacking names a few of the tensors that are missing, and where.
func (b *builder) someLacking(lacks map[string][]string) string {
	const most = 3
	var parts []string
	for _, n := range slices.Sorted(maps.Keys(lacks)) {
		if len(parts) == most {
			parts = append(parts, "…")
			break
		}
		parts = append(parts, fmt.Sprintf("%s (not in %s)", n, strings.Join(lacks[n], ", ")))
	}
	return strings.Join(parts, ", ")
}

// baseAlone tells of tensors that only the base has.
func (b *builder) baseAlone(listed map[string]bool) {
	for _, m := range b.Models {
		var left []string
		for _, n := range m.Checkpoint.Names() {
			if !listed[n] {
				left = append(left, n)
			}
		}
		if len(left) > 0 {
			b.warnf("%s: %d tensors that none of the models has are left out, for example %s", m.Name(), len(left), left[0])
		}
	}
}
