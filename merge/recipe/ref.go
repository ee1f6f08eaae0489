package recipe

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// ModelRef names a model: a directory or hub name, optionally at a revision, optionally with an adapter (LoRA) on it.
type ModelRef struct {
	Path, Revision         string
	LoraPath, LoraRevision string
	OverrideArchitecture   string // takes the place of the architecture that the model's config names
	Pos                    Pos    // where the recipe uses the reference
}

// ParseRef reads the short form PATH[@REVISION][+LORA[@REVISION]]. A path that itself holds "+" or "@" needs the mapping form
// of a recipe. The result has no position.
func ParseRef(s string) (ModelRef, error) {
	var r ModelRef
	model, lora, hasLora := strings.Cut(s, "+")
	if strings.Contains(lora, "+") {
		return r, fmt.Errorf(`%s has more than one "+"; the form is PATH+ADAPTER, and a path that holds a "+" is written {model: {path: "a+b"}}`, strictyaml.Quoted(s))
	}
	var err error
	if r.Path, r.Revision, err = parsePlace(model); err != nil {
		return ModelRef{}, err
	}
	if hasLora {
		if lora == "" {
			return ModelRef{}, fmt.Errorf(`%s names no adapter after "+"; add its path or remove the "+"`, strictyaml.Quoted(s))
		}
		if r.LoraPath, r.LoraRevision, err = parsePlace(lora); err != nil {
			return ModelRef{}, err
		}
	}
	return r, nil
}

// parsePlace reads PATH[@REVISION].
func parsePlace(s string) (path, revision string, err error) {
	path, revision, has := strings.Cut(s, "@")
	switch {
	case strings.Contains(revision, "@"):
		return "", "", fmt.Errorf(`%s has more than one "@"; the form is PATH@REVISION, and a path that holds an "@" is written {model: {path: "a@b"}}`, strictyaml.Quoted(s))
	case path == "":
		return "", "", fmt.Errorf("%s names no model; give a directory or a hub name", strictyaml.Quoted(s))
	case has && revision == "":
		return "", "", fmt.Errorf(`%s names no revision after "@"; add it or remove the "@"`, strictyaml.Quoted(s))
	}
	return path, revision, nil
}

// String is the short form, for people to read: a path that holds "+" or "@" is not told from the separators, and an overridden
// architecture is left out.
func (m ModelRef) String() string {
	s := m.Path
	if m.Revision != "" {
		s += "@" + m.Revision
	}
	if m.LoraPath != "" {
		s += "+" + m.LoraPath
		if m.LoraRevision != "" {
			s += "@" + m.LoraRevision
		}
	}
	return s
}

// Same says whether two references name the same model. Positions do not count, and paths are compared in their shortest
// spelling, so that ./x, x/ and x are one model, and so are hf://org/name and org/name.
func (m ModelRef) Same(o ModelRef) bool { return m.normal() == o.normal() }

func (m ModelRef) normal() ModelRef {
	m.Pos = Pos{}
	m.Path = cleanPath(m.Path)
	m.LoraPath = cleanPath(m.LoraPath)
	return m
}

func cleanPath(p string) string {
	if p == "" {
		return "" // absent, which "." is not
	}
	if name, ok := strings.CutPrefix(p, "hf://"); ok && strings.Count(name, "/") == 1 {
		return filepath.Clean(name)
	}
	return filepath.Clean(p)
}

// short says whether the short form gives the same reference back.
func (m ModelRef) short() bool {
	m.Pos = Pos{}
	r, err := ParseRef(m.String())
	return err == nil && r == m
}
