package pickle

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/tensors"
)

// wrappers are the entries under which training programs put the state dict of the model, the first that is there counts.
var wrappers = []string{"state_dict", "model_state_dict", "module", "model"}

// OpenCheckpoint opens the state dict at path: a file of torch.save, the index of several, or a directory that has them. The tensors are
// those of the state dict, or of the one that lies in it under a name that training programs use; what is no tensor is passed over.
// Tensors that are contiguous in the file are mapped, others are gathered where they are read. Errors are *tensors.FormatError.
func OpenCheckpoint(path string) (*tensors.Checkpoint, error) {
	found, err := tensors.Torch.Find(path)
	if err != nil {
		return nil, err
	}
	var files []*tensors.File
	var list []tensors.Listing
	fail := func(err error) (*tensors.Checkpoint, error) {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, err
	}
	for i, name := range found.Files {
		f, err := Open(filepath.Join(found.Dir, name))
		if err != nil {
			var e *tensors.FormatError
			if errors.As(err, &e) {
				e.Msg = found.What(i) + e.Msg
			}
			return fail(err)
		}
		files = append(files, f.f)
		state, none := stateDict(f.root)
		if none != nil {
			none.File = filepath.Join(found.Dir, name)
			return fail(none)
		}
		for _, key := range state.Keys {
			t, ok := state.Values[key].(*Tensor)
			if !ok || !found.InIndex(key, name) {
				continue
			}
			l := tensors.Listing{Info: tensors.Info{Name: key, DType: t.DType, Shape: t.Shape}, File: i}
			switch {
			case t.elems == 0:
			case t.contiguous():
				l.Offset = t.begin()
			default:
				l.Source = t
			}
			list = append(list, l)
		}
	}
	c, err := tensors.Assemble(path, files, list, map[string]string{"format": "pt"})
	if err != nil {
		return fail(err)
	}
	if err := found.Check(c); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// stateDict finds the dictionary of tensors in what a file holds.
func stateDict(root any) (*Dict, *tensors.FormatError) {
	const hint = "save the state dict of the model: torch.save(model.state_dict(), FILE)"
	d, ok := root.(*Dict)
	if !ok {
		return nil, &tensors.FormatError{Msg: "holds " + called(root) + " and no state dict", Hint: hint}
	}
	for _, key := range wrappers {
		if inner, ok := d.Values[key].(*Dict); ok && inner.hasTensors() {
			return inner, nil
		}
	}
	if d.hasTensors() {
		return d, nil
	}
	const most = 10
	var keys []string
	for _, key := range d.Keys[:min(most, len(d.Keys))] {
		keys = append(keys, fmt.Sprintf("%.50q", key))
	}
	if len(d.Keys) > most {
		keys = append(keys, fmt.Sprintf("and %d more", len(d.Keys)-most))
	}
	what := "holds a dictionary without tensors"
	if len(keys) > 0 {
		what += ", whose keys are " + strings.Join(keys, ", ")
	}
	return nil, &tensors.FormatError{Msg: what, Hint: hint}
}

func (d *Dict) hasTensors() bool {
	for _, v := range d.Values {
		if _, ok := v.(*Tensor); ok {
			return true
		}
	}
	return false
}

// called is how messages call a value.
func called(v any) string {
	switch v.(type) {
	case nil:
		return "None"
	case *Tensor:
		return "one tensor"
	case *List:
		return "a list"
	case Tuple:
		return "a tuple"
	case string:
		return "text"
	case []byte:
		return "bytes"
	}
	return "something else"
}
