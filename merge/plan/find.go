package plan

import "github.com/mergekit/mergekit/merge/recipe"

// Find returns the directories that a reference outside of a recipe means, as a recipe in the working directory would find
// them: that of the model, and that of its adapter, "" without one.
func Find(ref recipe.ModelRef) (model, adapter string, err error) {
	r := resolver{}
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
