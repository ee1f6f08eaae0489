package align

import (
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// SpecFor returns the symmetry spec of the checkpoint in a directory: from the layers of a plain network, from a built-in family, or
// from a user's file ("" or "auto": none).
func SpecFor(dir, file string) (*symmetry.Spec, error) {
	path := filepath.Join(dir, arch.ConfigName)
	config, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{File: path, Msg: "cannot be read, and it says which symmetries a model has", Hint: "put the model's config.json beside its weights", Err: err}
	}
	c, err := tensors.Open(dir)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return SpecOf(config, c, file)
}

// SpecOf is SpecFor for a config.json and tensors that are at hand.
func SpecOf(config []byte, src symmetry.Source, file string) (*symmetry.Spec, error) {
	if file != "" && file != "auto" {
		return symmetry.ReadFile(file, config, src)
	}
	if !model.IsPlain(config) {
		return symmetry.Of(config, src)
	}
	d, err := model.DescribePlain(config)
	if err != nil {
		return nil, err
	}
	s, err := d.Symmetry()
	if err != nil {
		return nil, err
	}
	return s, s.Validate(src)
}
