package sparse

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path"
	"testing"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/pickle"
)

// FuzzFromTorch wants of any program in a pytorch_diff.bin: an error, or tensors that a sparse file can hold.
func FuzzFromTorch(f *testing.F) {
	data, err := os.ReadFile(golden + "pytorch_diff.bin")
	if err != nil {
		f.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		f.Fatal(err)
	}
	storages := map[string][]byte{}
	for _, e := range z.File {
		r, err := e.Open()
		if err != nil {
			f.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			f.Fatal(err)
		}
		if name := path.Base(e.Name); name == "data.pkl" {
			f.Add(data)
		} else {
			storages["x/data/"+name] = data
		}
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 1<<14 {
			return
		}
		var archive bytes.Buffer
		z := zip.NewWriter(&archive)
		put := func(name string, data []byte) {
			e, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
			if err == nil {
				_, err = e.Write(data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		put("x/data.pkl", program)
		for name, data := range storages {
			put(name, data)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		root, err := pickle.Read(bytes.NewReader(archive.Bytes()), int64(archive.Len()))
		if err != nil {
			return
		}
		r := &torchReader{taken: map[string]bool{}}
		if r.read(root) != nil {
			return
		}
		for _, x := range r.changed {
			last, elems := int64(-1), tensors.Info{Shape: x.Shape}.Elems()
			for _, at := range x.Index {
				if at <= last || at >= elems {
					t.Fatalf("%s: place %d after %d of %d elements", x.Name, at, last, elems)
				}
				last = at
			}
			if len(x.Raw) != len(x.Index)*x.DType.Size() {
				t.Fatalf("%s: %d bytes for %d entries", x.Name, len(x.Raw), len(x.Index))
			}
		}
		for _, v := range r.whole {
			if int64(len(v.Data)) != v.Bytes() {
				t.Fatalf("%s: %d bytes of %v", v.Name, len(v.Data), v.Shape)
			}
		}
	})
}
