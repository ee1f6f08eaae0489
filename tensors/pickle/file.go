package pickle

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/mergekit/mergekit/tensors"
)

// maxProgram bounds data.pkl. Lists of tens of millions of indices fit.
const maxProgram = 1 << 30

// File is an open file of torch.save.
type File struct {
	root any
	f    *tensors.File
}

// Open reads the structure of a file; tensors are read when their data is asked for. Errors about the file are *tensors.FormatError.
func Open(path string) (*File, error) {
	f, err := tensors.OpenFile(path)
	if err != nil {
		return nil, err
	}
	root, err := read(content{f, f.Size(), f})
	if err != nil {
		_ = f.Close()
		var e *tensors.FormatError
		if errors.As(err, &e) {
			e.File = path
			return nil, e
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &File{root, f}, nil
}

// Root is the object that was saved.
func (f *File) Root() any { return f.root }

// Close lets go of the file. Data of tensors must not be asked for afterwards.
func (f *File) Close() error { return f.f.Close() }

// Read reads the object of a file of size bytes, which must stay there while tensors are read. Errors are *tensors.FormatError without a
// file, or come from r.
func Read(r io.ReaderAt, size int64) (any, error) { return read(content{r, size, nil}) }

// content is the file.
type content struct {
	io.ReaderAt
	size int64
	file *tensors.File // nil: it is not mapped
}

// bytes returns a range of the file, copied only where the file is not mapped.
func (c content) bytes(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > c.size || n > c.size-off {
		return nil, bad("%d bytes at %d lie outside of the file's %d", n, off, c.size)
	}
	if c.file != nil {
		return c.file.Bytes(off, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(io.NewSectionReader(c, off, n), b); err != nil {
		return nil, err
	}
	return b, nil
}

func read(c content) (any, error) {
	z, err := zip.NewReader(c, c.size)
	if err == nil {
		return readArchive(c, z)
	}
	start, e := c.bytes(0, min(c.size, 512))
	if e != nil {
		return nil, e
	}
	switch {
	case legacyStart(start) > 0:
		return readLegacy(c)
	case len(start) > 0 && start[0] == 0x80: // say what it asks for, if that is what is wrong with it
		_, err := begin(c, func(program []byte) (any, error) {
			m := &machine{data: program, storages: func(string, tensors.DType, int64) (*storage, error) {
				return nil, bad("it has no storages")
			}}
			return m.run()
		})
		if err != nil {
			return nil, err
		}
		return nil, &tensors.FormatError{Msg: "is a pickle that torch.save did not write, so it has no tensors' bytes", Hint: "save it with torch.save"}
	case bytes.HasPrefix(start, []byte("PK\x03\x04")):
		return nil, &tensors.FormatError{Msg: "is a damaged zip archive: " + err.Error(), Hint: damaged}
	case len(start) > 262 && string(start[257:262]) == "ustar":
		return nil, &tensors.FormatError{Msg: "is a tar archive, as torch wrote before version 0.1.10", Hint: "load it with a torch of that time and save it again"}
	}
	return nil, &tensors.FormatError{Msg: "is no file of torch.save: " + err.Error(), Hint: "check the path"}
}

// readArchive reads what torch writes since version 1.6.
func readArchive(c content, z *zip.Reader) (any, error) {
	entries := map[string]*zip.File{}
	prefix, program := "", (*zip.File)(nil)
	for _, e := range z.File {
		if _, twice := entries[e.Name]; twice {
			return nil, bad("the archive has %.200q twice", e.Name)
		}
		entries[e.Name] = e
		if p, ok := strings.CutSuffix(e.Name, "/data.pkl"); ok && !strings.Contains(p, "/") {
			if program != nil {
				return nil, bad("the archive has two objects, %.100q and %.100q", program.Name, e.Name)
			}
			prefix, program = p+"/", e
		}
	}
	if program == nil {
		return nil, &tensors.FormatError{Msg: "is a zip archive without a data.pkl, so torch.save did not write it", Hint: "check the path"}
	}
	if _, script := entries[prefix+"constants.pkl"]; script {
		return nil, &tensors.FormatError{Msg: "is a TorchScript archive: a program and no state dict", Hint: "save the state dict of the model alone, with torch.save"}
	}
	if order, ok := entries[prefix+"byteorder"]; ok {
		text, err := entry(c, order, 16)
		if err != nil {
			return nil, err
		}
		if string(text) != "little" {
			return nil, otherOrder()
		}
	}
	data, err := entry(c, program, maxProgram)
	if err != nil {
		return nil, err
	}
	m := &machine{data: data, storages: func(key string, dtype tensors.DType, elems int64) (*storage, error) {
		e, ok := entries[prefix+"data/"+key]
		if !ok {
			return nil, bad("it has no storage %.200q", key)
		}
		off, n, err := place(c, e)
		if err != nil {
			return nil, err
		}
		if n/int64(dtype.Size()) < elems {
			return nil, bad("storage %.200q is to have %d elements, and has %d bytes", key, elems, n)
		}
		return &storage{key: key, dtype: dtype, elems: elems, from: c, off: off}, nil
	}}
	return m.run()
}

func otherOrder() error {
	return &tensors.FormatError{Msg: "was saved on a machine of another byte order", Hint: "load it with torch on any other machine and save it again"}
}

// place finds the bytes of an entry. torch compresses none, and what is as long in the file as in memory cannot grow.
func place(c content, e *zip.File) (off, n int64, err error) {
	if off, err = e.DataOffset(); err != nil {
		return 0, 0, bad("the archive's entry %.200q cannot be found: %v", e.Name, err)
	}
	size := e.UncompressedSize64
	if e.Method != zip.Store || size != e.CompressedSize64 {
		return 0, 0, &tensors.FormatError{Msg: fmt.Sprintf("has %.200q compressed, which torch.save does not do", e.Name), Hint: "save it again with torch"}
	}
	if size > uint64(c.size) || off < 0 || uint64(off) > uint64(c.size)-size {
		return 0, 0, bad("the archive's entry %.200q lies outside of the file", e.Name)
	}
	return off, int64(size), nil
}

// entry reads a small entry.
func entry(c content, e *zip.File, most int64) ([]byte, error) {
	off, n, err := place(c, e)
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, bad("its %.200q has %d bytes, more than %d", e.Name, n, most)
	}
	return c.bytes(off, n)
}
