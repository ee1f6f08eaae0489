package merge

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// openSparse opens a sparse difference on a base. Its tensors must be the base's, of the same shapes: what a file adds to a base changes
// what kind of model it is.
func openSparse(path string, base *tensors.Checkpoint) (plan.Adapter, error) {
	f, err := sparse.Open(path)
	if err != nil {
		return nil, err
	}
	s := &sparseAdapter{file: f, deltas: map[string]plan.Delta{}}
	if err := s.bind(base); err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

// sparseAdapter is a sparse difference whose tensors have found those of the base.
type sparseAdapter struct {
	file   *sparse.File
	deltas map[string]plan.Delta
}

func (s *sparseAdapter) bind(base *tensors.Checkpoint) error {
	bad := func(name, hint, format string, args ...any) error {
		return &tensors.FormatError{File: s.file.Path(), Tensor: name, Msg: fmt.Sprintf(format, args...), Hint: hint}
	}
	const another = "it is a difference from another base"
	float := func(name string) (tensors.Info, error) {
		info, ok := base.Lookup(name)
		switch {
		case !ok:
			return info, bad(name, another, "is changed by the file, but %s does not have it", base.Path())
		case !info.DType.IsFloat():
			return info, bad(name, another, "is changed by the file, but %s holds %s there", base.Path(), info.DType)
		}
		return info, nil
	}
	for _, name := range s.file.Names() {
		e, _ := s.file.Entries(name)
		info, err := float(name)
		if err != nil {
			return err
		}
		if !slices.Equal(info.Shape, e.Shape) {
			return bad(name, another, "has the shape %v in the file and %v in %s", e.Shape, info.Shape, base.Path())
		}
		s.deltas[name] = &sparseDelta{entries: e, adds: s.file.Delta}
	}
	for _, name := range s.file.Wholes() {
		if _, err := float(name); err != nil {
			return err
		}
		v, _, err := s.file.Whole(name)
		if err != nil {
			return err
		}
		s.deltas[name] = replaced{v}
	}
	return nil
}

// Delta implements plan.Adapter.
func (s *sparseAdapter) Delta(tensor string) (plan.Delta, bool) {
	d, ok := s.deltas[tensor]
	return d, ok
}

// Files implements plan.Adapter.
func (s *sparseAdapter) Files() []string { return []string{s.file.Path()} }

// Close implements plan.Adapter.
func (s *sparseAdapter) Close() error { return s.file.Close() }

// replaced is a tensor that a sparse difference holds as a whole.
type replaced struct{ view tensors.View }

func (r replaced) FusedShape() []int                                { return r.view.Shape }
func (r replaced) Base() bool                                       { return false }
func (r replaced) Prepare(func(w []float32, off int64) error) error { return nil }

func (r replaced) Fuse(dst []byte, to tensors.DType, _ []byte, _ tensors.DType, off int64) error {
	n, size := int64(len(dst)/to.Size()), int64(r.view.DType.Size())
	return tensors.Convert(dst, to, r.view.Data[off*size:(off+n)*size], r.view.DType)
}

// sparseDelta is the change of single entries.
type sparseDelta struct {
	entries *sparse.Entries
	adds    bool // values are added to the base's; false: they take its place
}

func (d *sparseDelta) FusedShape() []int                                { return d.entries.Shape }
func (d *sparseDelta) Base() bool                                       { return true }
func (d *sparseDelta) Prepare(func(w []float32, off int64) error) error { return nil }

// fuseBlock is how many entries are converted at a time.
const fuseBlock = 4096

// Fuse copies the base and puts the entries of the range in their places. Values of the output's dtype are copied bit for bit.
func (d *sparseDelta) Fuse(dst []byte, to tensors.DType, base []byte, from tensors.DType, off int64) error {
	if err := tensors.Convert(dst, to, base, from); err != nil {
		return err
	}
	size := int64(to.Size())
	e := d.entries
	last := e.Search(off + int64(len(dst))/size)
	for i := e.Search(off); i < last; {
		j := min(i+fuseBlock, last)
		values, err := d.values(i, j, to, base, from, off)
		if err != nil {
			return err
		}
		for k := i; k < j; k++ {
			at := (e.At(k) - off) * size
			copy(dst[at:at+size], values[int64(k-i)*size:])
		}
		i = j
	}
	return nil
}

// values are what entries i to j become, in dtype to.
func (d *sparseDelta) values(i, j int, to tensors.DType, base []byte, from tensors.DType, off int64) ([]byte, error) {
	raw, dtype := d.entries.Raw(i, j), d.entries.DType
	if d.adds {
		var err error
		if raw, err = d.sums(i, j, base, from, off); err != nil {
			return nil, err
		}
		dtype = tensors.F64
	}
	if dtype == to {
		return raw, nil
	}
	out := make([]byte, (j-i)*to.Size())
	return out, tensors.Convert(out, to, raw, dtype)
}

// sums are entries i to j of the base plus their differences, in float64: of two float32 values it rounds to what float32 gives.
func (d *sparseDelta) sums(i, j int, base []byte, from tensors.DType, off int64) ([]byte, error) {
	size := from.Size()
	here := make([]byte, 0, (j-i)*size)
	for k := i; k < j; k++ {
		at := (d.entries.At(k) - off) * int64(size)
		here = append(here, base[at:at+int64(size)]...)
	}
	sum, add := make([]byte, 8*(j-i)), make([]byte, 8*(j-i))
	if err := tensors.Convert(sum, tensors.F64, here, from); err != nil {
		return nil, err
	}
	if err := tensors.Convert(add, tensors.F64, d.entries.Raw(i, j), d.entries.DType); err != nil {
		return nil, err
	}
	for k := 0; k < len(sum); k += 8 {
		x, y := math.Float64frombits(binary.LittleEndian.Uint64(sum[k:])), math.Float64frombits(binary.LittleEndian.Uint64(add[k:]))
		binary.LittleEndian.PutUint64(sum[k:], math.Float64bits(x+y))
	}
	return sum, nil
}

// hashedBytes is the size up to which a base is read once more to see whether it is the one that a sparse difference names.
const hashedBytes = 8 << 30

// foreignBases warns of sparse differences that name another base than the one that they are put on. They may be put there: on a later
// release of their base, or on what another one made of it.
func (j *job) foreignBases(ctx context.Context) error {
	hashes := map[string]string{}
	for _, m := range j.p.Models {
		s, ok := m.Adapter.(*sparseAdapter)
		if !ok || s.file.Base == "" || m.Checkpoint.TotalBytes() > hashedBytes {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		hash, ok := hashes[m.Dir]
		if !ok {
			var err error
			if hash, err = sparse.Hash(m.Checkpoint); err != nil {
				return err
			}
			hashes[m.Dir] = hash
		}
		if hash != s.file.Base {
			j.p.Warnings = append(j.p.Warnings, fmt.Sprintf("%s is a difference from another base: it names one with the content %.12s, and %s has %.12s; its entries are put there all the same",
				filepath.Base(s.file.Path()), s.file.Base, filepath.Base(m.Dir), hash))
		}
	}
	return nil
}
