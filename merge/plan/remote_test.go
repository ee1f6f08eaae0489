package plan_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// away is a remote file that is not to be reached.
type away struct{ tensors.Remote }

func (away) Size() int64 { return 1000 }

func (away) ReadAt([]byte, int64) (int, error) {
	return 0, &hub.TransferError{Repo: "org/name", Msg: "the server is silent"}
}

// A header that cannot be read where it is is no fault of the recipe.
func TestHeaderThatCannotBeReached(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{"config.json": []byte(`{"model_type": "llama"}`), "model.safetensors": make([]byte, 1000)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer tensors.Mount(filepath.Join(dir, "model.safetensors"), away{})()
	r, err := recipe.Parse("recipe.yml", []byte("merge_method: linear\nmodels:\n  - {model: "+dir+", parameters: {weight: 1}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = plan.Build(r, plan.Options{})
	var moved *hub.TransferError
	if !errors.As(err, &moved) || !strings.HasPrefix(err.Error(), "recipe.yml:3:") {
		t.Errorf("error %v", err)
	}
}
