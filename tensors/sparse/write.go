package sparse

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/tensors"
)

// Write writes a sparse difference as one file, which appears whole or not at all. list are the tensors that are changed in places,
// without those that have no entries; whole are the ones that are replaced. A file that is there is replaced with force only.
func Write(path string, h Header, list []Tensor, whole []tensors.View, force bool) error {
	if err := CheckOutput(path, force); err != nil {
		return err
	}
	meta, err := h.metadata()
	if err != nil {
		return err
	}
	var infos []tensors.Info
	var data [][]byte
	put := func(name string, dtype tensors.DType, b []byte, shape []int) {
		infos, data = append(infos, tensors.Info{Name: name, DType: dtype, Shape: shape}), append(data, b)
	}
	taken := map[string]bool{}
	for i := range list {
		t := &list[i]
		if err := t.check(); err != nil {
			return err
		}
		if taken[t.Name] {
			return fmt.Errorf("%s: is given twice", t.Name)
		}
		taken[t.Name] = true
		if len(t.Index) == 0 {
			continue
		}
		raw, err := t.bytes()
		if err != nil {
			return err
		}
		dtype, index := packIndex(t)
		meta[shapePrefix+t.Name] = formatShape(t.Shape)
		put(t.Name+indexEnd, dtype, index, []int{len(t.Index)})
		put(t.Name+valueEnd, t.DType, raw, []int{len(t.Index)})
	}
	for _, v := range whole {
		switch {
		case taken[v.Name]:
			return fmt.Errorf("%s: is both changed in places and replaced as a whole", v.Name)
		case strings.HasSuffix(v.Name, indexEnd) || strings.HasSuffix(v.Name, valueEnd):
			return &tensors.FormatError{File: path, Tensor: v.Name, Msg: "has a name that ends like the parts of a changed tensor, so it cannot be kept whole", Hint: "leave it out"}
		case !v.DType.IsFloat():
			return fmt.Errorf("%s: %s values are not floats", v.Name, v.DType)
		}
		taken[v.Name] = true
		put(v.Name, v.DType, v.Data, v.Shape)
	}
	if dir := filepath.Dir(path); dir != "." {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	return tensors.SaveFile(path, infos, data, meta)
}

// CheckOutput says what Write would refuse about a place, before there is anything to write.
func CheckOutput(path string, force bool) error {
	st, err := os.Stat(path)
	switch {
	case !strings.HasSuffix(path, ".safetensors"):
		return &tensors.FormatError{File: path, Msg: "has a name by which no tool would know it", Hint: "end the name of a sparse difference with .safetensors"}
	case err != nil:
		return nil // it is not there; why it cannot be made shows when it is
	case st.IsDir():
		return &tensors.FormatError{File: path, Msg: "is a directory", Hint: "give the name of a file"}
	case !force:
		return &tensors.FormatError{File: path, Msg: "exists", Hint: "use --force to replace it or choose another name"}
	}
	return nil
}

// metadata renders the header.
func (h *Header) metadata() (map[string]string, error) {
	switch h.Kind {
	case Graft, LTSFT, Difference:
	default:
		return nil, fmt.Errorf("sparse difference of the unknown kind %q", h.Kind)
	}
	if h.Base != "" && !isHash(h.Base) {
		return nil, fmt.Errorf("sparse difference whose base %q is no SHA-256", h.Base)
	}
	meta := map[string]string{formatKey: Format, versionKey: version, kindKey: h.Kind, baseKey: h.Base, valuesKey: absolute}
	if h.Delta {
		meta[valuesKey] = delta
	}
	for key, v := range h.Meta {
		if own(key) {
			return nil, fmt.Errorf("sparse difference with the metadata key %q, which the format has itself", key)
		}
		meta[key] = v
	}
	return meta, nil
}

// check sees that a tensor can be read back.
func (t *Tensor) check() error {
	n := tensors.Info{Shape: t.Shape}.Elems()
	last := int64(-1)
	for i, at := range t.Index {
		if at <= last || at >= n {
			return fmt.Errorf("%s: index %d at place %d does not ascend or lies outside the shape %v", t.Name, at, i, t.Shape)
		}
		last = at
	}
	switch {
	case n < 0 || len(t.Shape) > maxRank:
		return fmt.Errorf("%s: impossible shape %v", t.Name, t.Shape)
	case !t.DType.IsFloat():
		return fmt.Errorf("%s: %s values are not floats", t.Name, t.DType)
	case t.Raw == nil && len(t.Values) != len(t.Index), t.Raw != nil && len(t.Raw) != len(t.Index)*t.DType.Size():
		return fmt.Errorf("%s: %d indices do not have as many values", t.Name, len(t.Index))
	}
	return nil
}

// bytes are the values as the file has them.
func (t *Tensor) bytes() ([]byte, error) {
	if t.Raw != nil {
		return t.Raw, nil
	}
	raw := make([]byte, len(t.Values)*t.DType.Size())
	return raw, tensors.EncodeFloat32(raw, t.DType, t.Values)
}

// packIndex renders the indices in the narrower dtype that holds every position of the tensor.
func packIndex(t *Tensor) (tensors.DType, []byte) {
	if (tensors.Info{Shape: t.Shape}).Elems() <= math.MaxInt32 {
		b := make([]byte, 0, 4*len(t.Index))
		for _, at := range t.Index {
			b = binary.LittleEndian.AppendUint32(b, uint32(at))
		}
		return tensors.I32, b
	}
	b := make([]byte, 0, 8*len(t.Index))
	for _, at := range t.Index {
		b = binary.LittleEndian.AppendUint64(b, uint64(at))
	}
	return tensors.I64, b
}
