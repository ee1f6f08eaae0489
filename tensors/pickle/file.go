package pickle

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mergekit/mergekit/tensors"
)

// maxProgram bounds data.pkl. Lists of tens of millions of indices fit.
const maxProgram = 1 << 30

// File is an open file of torch.save.
type File struct {
	root any
	f    *os.File
}

// Open reads the structure of a file; tensors are read when their data is asked for. Errors about the file are *tensors.FormatError.
func Open(path string) (*File, error) {
	fail := func(err error) error {
		var e *tensors.FormatError
		if errors.As(err, &e) {
			e.File = path
			return e
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fail(&tensors.FormatError{Msg: "does not exist", Hint: "check the path", Err: err})
	case err != nil:
		return nil, fail(err)
	case !st.Mode().IsRegular():
		return nil, fail(&tensors.FormatError{Msg: "is not a regular file", Hint: "check the path"})
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fail(err)
	}
	root, err := Read(f, st.Size())
	if err != nil {
		_ = f.Close()
		return nil, fail(err)
	}
	return &File{root, f}, nil
}

// Root is the object that was saved.
func (f *File) Root() any { return f.root }

// Close lets go of the file. Data of tensors must not be asked for afterwards.
func (f *File) Close() error { return f.f.Close() }

// Read reads the object of a file of size bytes, which must stay there while tensors are read. Errors are *tensors.FormatError without a
// file, or come from r.
func Read(r io.ReaderAt, size int64) (any, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		var first [2]byte
		if _, e := r.ReadAt(first[:], 0); e == nil && first[0] == 0x80 {
			return nil, &tensors.FormatError{Msg: "is a bare pickle, as torch wrote before version 1.6", Hint: "load it with torch and save it again"}
		}
		return nil, &tensors.FormatError{Msg: "is no file of torch.save: " + err.Error(), Hint: "check the path"}
	}
	entries := map[string]*zip.File{}
	prefix, program := "", (*zip.File)(nil)
	for _, e := range z.File {
		entries[e.Name] = e
		if p, ok := strings.CutSuffix(e.Name, "/data.pkl"); ok && !strings.Contains(p, "/") {
			prefix, program = p+"/", e
		}
	}
	if program == nil {
		return nil, &tensors.FormatError{Msg: "is a zip archive without a data.pkl, so torch.save did not write it", Hint: "check the path"}
	}
	if order, ok := entries[prefix+"byteorder"]; ok {
		text, err := content(order, r, size, 16)
		if err != nil {
			return nil, err
		}
		if string(text) != "little" {
			return nil, &tensors.FormatError{Msg: "was saved on a machine of another byte order", Hint: "load it with torch on any other machine and save it again"}
		}
	}
	data, err := content(program, r, size, maxProgram)
	if err != nil {
		return nil, err
	}
	m := &machine{data: data, storages: func(key string, dtype tensors.DType, elems int64) (*storage, error) {
		e, ok := entries[prefix+"data/"+key]
		if !ok {
			return nil, bad("it has no storage %q", key)
		}
		s := &storage{key: key, dtype: dtype, elems: elems, open: func() (io.ReaderAt, int64, error) { return stored(e, r, size) }}
		if int64(e.UncompressedSize64)/int64(dtype.Size()) < elems {
			return nil, bad("storage %q is to have %d elements, and has %d bytes", key, elems, e.UncompressedSize64)
		}
		return s, nil
	}}
	return m.run()
}

// stored finds the bytes of an entry. torch compresses none, and what is as long in the file as in memory cannot grow.
func stored(e *zip.File, r io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	off, err := e.DataOffset()
	if err != nil {
		return nil, 0, bad("the archive's entry %q cannot be found: %v", e.Name, err)
	}
	n := e.UncompressedSize64
	if e.Method != zip.Store || n != e.CompressedSize64 {
		return nil, 0, &tensors.FormatError{Msg: fmt.Sprintf("has %q compressed, which torch.save does not do", e.Name), Hint: "save it again with torch"}
	}
	if n > uint64(size) || off < 0 || uint64(off) > uint64(size)-n {
		return nil, 0, bad("the archive's entry %q lies outside of the file", e.Name)
	}
	return io.NewSectionReader(r, off, int64(n)), int64(n), nil
}

// content reads a small entry.
func content(e *zip.File, r io.ReaderAt, size, most int64) ([]byte, error) {
	in, n, err := stored(e, r, size)
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, bad("its %q has %d bytes, more than %d", e.Name, n, most)
	}
	b := make([]byte, n)
	_, err = in.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}
