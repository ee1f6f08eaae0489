package merge

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
)

// findPipeline is the directory of a reference that means a pipeline. What is on no disk yet is brought if others of the recipe are
// pipelines (beside), since ordinary models are left to who reads them.
func findPipeline(ref recipe.ModelRef, r *recipe.Recipe, fetch plan.Fetch, beside bool) (dir string, ok bool, err error) {
	dir, here := plan.LocalModel(ref, r)
	cached := !here || !strings.HasSuffix(filepath.ToSlash(dir), filepath.ToSlash(filepath.Clean(ref.Path)))
	remote := fetch != nil && hub.Looks(ref.Path) && cached
	isOne := func() bool {
		_, err := os.Stat(filepath.Join(dir, pipelineIndex))
		return here && err == nil
	}
	if remote && (isOne() || beside) { // also what the cache has in part
		if dir, err = fetch(ref.Path, ref.Revision, true); err != nil {
			return "", false, &plan.FetchError{Ref: ref, Err: err}
		}
		here = true
	}
	return dir, isOne(), nil
}

// Component is a model of a pipeline, and the recipe by which it is merged with its like.
type Component struct {
	Name   string
	Recipe *recipe.Recipe
}

// Components are the models that a recipe over pipelines of diffusers merges, one after the other; none where its models are no pipelines.
func Components(r *recipe.Recipe, o Options) ([]Component, error) {
	p, err := openPipeline(r, o)
	if err != nil || p == nil {
		return nil, err
	}
	list := make([]Component, len(p.components))
	for i, name := range p.components {
		list[i] = Component{name, p.of(name)}
	}
	return list, nil
}
