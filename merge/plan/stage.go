package plan

import (
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// Stage is what another recipe makes, and what a reference by the name of that recipe means: a directory in which it was written, or a
// plan and a checkpoint that nobody writes, whose tensors are computed where they are read.
type Stage struct {
	Name       string
	Dir        string              // "": nothing was written
	Made       *Plan               // without Dir: how it comes to be
	Checkpoint *tensors.Checkpoint // without Dir: its tensors
	Wide       int                 // without Dir: what Made.Widest says
	Key        string              // identifies its content
}

// OpenStage returns the stage of that name, nil where none has it. It stays open as long as plans use it; plans do not close it.
type OpenStage func(name string) (*Stage, error)

// Local finds a path of a recipe on this machine: relative to the working directory, or to the recipe.
func Local(recipeFile, path string) (string, bool) {
	r := resolver{recipeDir: filepath.Dir(recipeFile)}
	for _, p := range r.candidates(expandHome(path)) {
		if _, err := os.Stat(p); err == nil {
			return p, true
		}
	}
	return "", false
}

// openStage opens a model that is a stage: configuration and side files are the ones of the model that the stage's own come from.
func (r resolver) openStage(ref recipe.ModelRef, s *Stage) (*Model, error) {
	m := &Model{Ref: ref, Stage: s, Checkpoint: s.Checkpoint, Dir: s.Made.Donor.Dir, AdapterDir: s.Made.Donor.AdapterDir}
	raw, err := s.Made.PatchedConfig()
	if err != nil {
		return m, err
	}
	if m.RawConfig = raw; raw != nil {
		if m.Config, err = arch.ParseConfig(s.Name+"/"+arch.ConfigName, raw); err != nil {
			return m, err
		}
	}
	m.override()
	return m, r.adapt(m)
}

// files lists the files that a plan's models come from, those of stages that nobody wrote among them.
func (p *Plan) files(seen map[*Plan]bool) (list []string) {
	if seen[p] {
		return nil
	}
	seen[p] = true
	for _, m := range p.Models {
		list = append(list, m.files(seen)...)
	}
	return list
}

// override gives the model's configuration the architecture that the reference asks for.
func (m *Model) override() {
	if m.Ref.OverrideArchitecture == "" {
		return
	}
	if m.Config == nil {
		m.Config = arch.Config{}
	}
	m.Config["architectures"] = []any{m.Ref.OverrideArchitecture}
}

// nested is by how much the stages that a plan's inputs are computed from widen what a worker holds, counted in inputs: each step from
// stage to stage holds a chunk of output and of all inputs of its own.
func (p *Plan) nested() int {
	const output = 10 // inputs of four bytes that a chunk of output takes; see stream.Engine
	most := 0
	for _, m := range p.Models {
		if m.Stage != nil && m.Stage.Made != nil {
			most = max(most, output+m.Stage.Wide)
		}
	}
	return most
}
