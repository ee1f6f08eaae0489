package align

import (
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/model"
)

// SpecFor returns the symmetry spec of the checkpoint in a directory: from the layers of a plain network, from a built-in family, or
// from a user's file ("" or "auto": none).
func SpecFor(dir, file string) (*symmetry.Spec, error) {
	path := filepath.Join(dir, arch.ConfigName)
	config, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{File: path, Msg: "cannot be read, and it says which symmetries a model has", Hint: "put the model's config.json beside its weights", Err: err}
	}
	c, err := checkpoint.Open(dir)
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

// Fits says whether a map can be applied to a checkpoint: every tensor that it acts on is there, in the size that it has. Where
// config (config.json, nil without one) stands for the same kind of model as the map's spec, it also says whether the checkpoint has
// tensors in a group that the map does not know of, such as further layers: those would be left in other coordinates.
func (m *Map) Fits(config []byte, src symmetry.Source) error {
	if err := m.Spec.Validate(src); err != nil {
		return err
	}
	if config == nil {
		return nil
	}
	own, err := SpecOf(config, src, "")
	if err != nil || own.Name != m.Spec.Name {
		return nil //nolint:nilerr // a model that only a user's spec file describes
	}
	for i := range own.Groups {
		g, ok := m.Spec.Group(own.Groups[i].ID)
		if !ok || m.Elements[g.ID].Identity() {
			continue
		}
		acts := map[string]bool{}
		for _, r := range g.Refs {
			acts[r.Tensor] = true
		}
		for _, r := range own.Groups[i].Refs {
			if _, there := src.Lookup(r.Tensor); there && !acts[r.Tensor] { // a shared head is none of its own
				return &Error{Group: g.ID, Tensor: r.Tensor, Msg: "is in this group, and the map was made for a model without it", Hint: "give the map of a model with the same layers and the same config.json"}
			}
		}
	}
	return nil
}
