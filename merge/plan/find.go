package plan

import (
	"path/filepath"

	"github.com/mergekit/mergekit/merge/recipe"
)

// Find returns the directories that a reference outside of a recipe means, as a recipe in the working directory would find
// them: that of the model, and that of its adapter, "" without one. fetch may be nil.
func Find(ref recipe.ModelRef, fetch Fetch) (model, adapter string, err error) {
	r := resolver{fetch: fetch}
	if model, err = r.find(ref, ref.Path, ref.Revision, "model"); err != nil {
		return "", "", err
	}
	if ref.LoraPath != "" {
		if adapter, err = r.find(ref, ref.LoraPath, ref.LoraRevision, "adapter"); err != nil {
			return "", "", err
		}
	}
	return model, adapter, nil
}

// LocalModel returns the directory that a recipe's reference means if that is on this machine already, also in a hub's cache.
func LocalModel(ref recipe.ModelRef, r *recipe.Recipe) (dir string, ok bool) {
	dir, err := resolver{recipeDir: filepath.Dir(r.File)}.locate(ref, ref.Path, ref.Revision, "model")
	return dir, err == nil
}

// OpenModel opens configuration, headers and adapter of a reference outside of a plan. Paths are relative to the working directory or,
// as in a recipe, to dir. The caller closes the model.
func OpenModel(ref recipe.ModelRef, dir string, o Options) (*Model, error) {
	r := resolver{recipeDir: dir, fetch: o.Fetch, openAdapter: o.OpenAdapter, raw: o.Raw != ""}
	m, err := r.open(ref)
	if err != nil {
		if m != nil {
			m.Close()
		}
		return nil, err
	}
	return m, nil
}

// Close lets go of the checkpoint and the adapter. A stage that nobody wrote belongs to whom OpenStage asked.
func (m *Model) Close() {
	if m.Checkpoint != nil && (m.Stage == nil || m.Stage.Made == nil) {
		_ = m.Checkpoint.Close()
	}
	if m.Adapter != nil {
		_ = m.Adapter.Close()
	}
}

// Close lets go of a stage that nobody wrote.
func (s *Stage) Close() {
	if s.Made != nil {
		_ = s.Checkpoint.Close()
		s.Made.Close()
	}
}
