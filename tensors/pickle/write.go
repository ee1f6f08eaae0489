package pickle

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/tensors"
)

// Write writes a value as torch.save does: nil, bool, int64, string, Tuple, *List, *Dict and tensors.View, which becomes a
// tensor. A Tuple under the key "size" of a dictionary becomes a torch.Size, which is a tuple to every reader of it. The file appears
// whole or not at all.
func Write(path string, root any) (err error) {
	w := &writer{}
	if err := w.program(root); err != nil {
		return err
	}
	dir, base := filepath.Split(path)
	partial := filepath.Join(dir, fmt.Sprintf(".%s.%d.partial", base, os.Getpid()))
	f, err := os.OpenFile(partial, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(partial)
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	err = w.archive(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(partial, path)
}

// writer gathers a program and the storages that it refers to.
type writer struct {
	out  []byte
	data [][]byte
}

func (w *writer) program(root any) error {
	w.out = append(w.out, 0x80, 2) // PROTO
	if err := w.value(root); err != nil {
		return err
	}
	w.out = append(w.out, '.')
	return nil
}

func (w *writer) archive(f *os.File) error {
	z := zip.NewWriter(f)
	put := func(name string, data []byte) error {
		// torch reads stored entries alone.
		e, err := z.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		if err == nil {
			_, err = e.Write(data)
		}
		return err
	}
	err := put("data.pkl", w.out)
	for i, d := range w.data {
		err = errors.Join(err, put(fmt.Sprintf("data/%d", i), d))
	}
	return errors.Join(err, put("byteorder", []byte("little")), put("version", []byte("3\n")), z.Close())
}

func (w *writer) text(s string) {
	w.out = append(w.out, 'X')
	w.out = binary.LittleEndian.AppendUint32(w.out, uint32(len(s)))
	w.out = append(w.out, s...)
}

func (w *writer) whole(n int64) {
	switch {
	case n >= 0 && n < 1<<8:
		w.out = append(w.out, 'K', byte(n))
	case n >= -1<<31 && n < 1<<31:
		w.out = binary.LittleEndian.AppendUint32(append(w.out, 'J'), uint32(int32(n)))
	default:
		w.out = binary.LittleEndian.AppendUint64(append(w.out, 0x8a, 8), uint64(n)) // LONG1
	}
}

// value writes what pushes a value.
func (w *writer) value(v any) error {
	switch x := v.(type) {
	case nil:
		w.out = append(w.out, 'N')
	case bool:
		w.out = append(w.out, map[bool]byte{true: 0x88, false: 0x89}[x])
	case int64:
		w.whole(x)
	case string:
		w.text(x)
	case Tuple:
		w.out = append(w.out, '(')
		for _, item := range x {
			if err := w.value(item); err != nil {
				return err
			}
		}
		w.out = append(w.out, 't')
	case *List:
		w.out = append(w.out, ']', '(')
		for _, n := range x.Ints {
			w.whole(n)
		}
		for _, item := range x.Items {
			if err := w.value(item); err != nil {
				return err
			}
		}
		w.out = append(w.out, 'e')
	case *Dict:
		w.out = append(w.out, '}', '(')
		for _, key := range x.Keys {
			w.text(key)
			size, isTuple := x.Values[key].(Tuple)
			if key == "size" && isTuple {
				w.out = append(w.out, "ctorch\nSize\n"...)
				if err := w.value(size); err != nil {
					return err
				}
				w.out = append(w.out, 0x85, 'R') // TUPLE1, REDUCE
				continue
			}
			if err := w.value(x.Values[key]); err != nil {
				return err
			}
		}
		w.out = append(w.out, 'u')
	case tensors.View:
		return w.tensor(x)
	default:
		return fmt.Errorf("a value of type %T cannot be written for torch", v)
	}
	return nil
}

// tensor writes _rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict()).
func (w *writer) tensor(v tensors.View) error {
	kind := ""
	for name, dtype := range storageTypes {
		if dtype == v.DType {
			kind = string(name)[len("torch."):]
		}
	}
	if kind == "" {
		return fmt.Errorf("%s: torch has no storage of %s", v.Name, v.DType)
	}
	w.out = append(w.out, "ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n"+kind+"\n"...)
	w.text(fmt.Sprint(len(w.data)))
	w.text("cpu")
	w.whole(v.Elems())
	w.out = append(w.out, "tQK\x00"...)
	w.data = append(w.data, v.Data)
	stride := make(Tuple, len(v.Shape))
	size := make(Tuple, len(v.Shape))
	step := int64(1)
	for k := len(v.Shape) - 1; k >= 0; k-- {
		size[k], stride[k] = int64(v.Shape[k]), step
		step *= int64(v.Shape[k])
	}
	if err := w.value(size); err != nil {
		return err
	}
	if err := w.value(stride); err != nil {
		return err
	}
	w.out = append(w.out, "\x89ccollections\nOrderedDict\n)RtR"...)
	return nil
}
