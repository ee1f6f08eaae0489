package pickle

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

const torch = "../../testdata/golden/torch/"

// same compares a checkpoint of pickles with the safetensors file that torch wrote of the same tensors.
func same(t *testing.T, path, want string) *tensors.Checkpoint {
	t.Helper()
	c, err := OpenCheckpoint(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	w, err := tensors.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if len(c.Names()) != len(w.Names()) {
		t.Errorf("%s: %d tensors %v, want %d", path, len(c.Names()), c.Names(), len(w.Names()))
	}
	for _, name := range w.Names() {
		b, err := w.View(name)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.View(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a.DType != b.DType || len(a.Shape) != len(b.Shape) || !bytes.Equal(a.Data, b.Data) {
			t.Errorf("%s: %s %v %x, want %s %v %x", name, a.DType, a.Shape, a.Data, b.DType, b.Shape, b.Data)
			continue
		}
		for k := range a.Shape {
			if a.Shape[k] != b.Shape[k] {
				t.Errorf("%s: shape %v, want %v", name, a.Shape, b.Shape)
			}
		}
		pieces(t, c, name, b.Data)
	}
	return c
}

// pieces reads every range of elements of a small tensor.
func pieces(t *testing.T, c *tensors.Checkpoint, name string, want []byte) {
	t.Helper()
	r, err := c.Reader(name)
	if err != nil {
		t.Fatal(err)
	}
	width := r.DType.Size()
	for lo := 0; lo <= len(want); lo += width {
		for hi := lo; hi <= len(want); hi += width {
			got, err := r.Bytes(int64(lo), int64(hi-lo), nil)
			if err != nil || !bytes.Equal(got, want[lo:hi]) {
				t.Fatalf("%s: bytes %d to %d are %x, want %x; %v", name, lo, hi, got, want[lo:hi], err)
			}
		}
	}
}

// Every dtype, views of every kind, tied and shared storages, in the formats of today and of old: as torch loads them.
func TestCheckpoint(t *testing.T) {
	c := same(t, torch+"good.bin", torch+"expected.safetensors")
	for name, want := range map[string]bool{"shared.rows": true, "embed": true, "torch.float8_e4m3fn": true, "empty": true, "positions": true,
		"shared.columns": false, "shared.steps": false, "transposed": false, "untyped.columns": false} {
		if r, err := c.Reader(name); err != nil || r.Stored() != want {
			t.Errorf("%s: mapped %v, want %v; %v", name, r.Stored(), want, err)
		}
	}
	same(t, torch+"legacy.bin", torch+"legacy.safetensors")
	same(t, torch+"training.pt", torch+"training.safetensors")
}

// A directory with one file, and one with shards and an index, which may leave a file's tensors out.
func TestCheckpointOfShards(t *testing.T) {
	dir := t.TempDir()
	copyTo := func(from, to string) {
		data, err := os.ReadFile(torch + from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	copyTo("training.pt", "weights.pth")
	copyTo("list.pt", "optimizer.pt")
	same(t, dir, torch+"training.safetensors")

	index := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "pytorch_model.bin.index.json"), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	copyTo("training.pt", "pytorch_model-00001-of-00002.bin")
	copyTo("legacy.bin", "pytorch_model-00002-of-00002.bin")
	index(`{"metadata":{},"weight_map":{"weight":"pytorch_model-00001-of-00002.bin","embed":"pytorch_model-00002-of-00002.bin"}}`)
	c, err := OpenCheckpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := strings.Join(c.Names(), " "); got != "weight embed" || len(c.Files()) != 2 {
		t.Errorf("%s of %v", got, c.Files())
	}
	for text, says := range map[string]string{
		`{"weight_map":{"weight":"pytorch_model-00001-of-00002.bin","bias":"pytorch_model-00002-of-00002.bin"}}`: "the index places this tensor here",
		`{"weight_map":{"weight":"../weights.pth"}}`:                                                             "not a plain file name",
		`{"weight_map":{"weight":"weights.pth"}}`:                                                                "not a bin file",
		`{"weight_map":{"weight":"pytorch_model-00003-of-00002.bin"}}`:                                           "does not exist",
		`{"weight_map":{"weight":"pytorch_model-00001-of-00002.bin"}`:                                            "not valid JSON",
	} {
		index(text)
		_, err := OpenCheckpoint(dir)
		var bad *tensors.FormatError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
	for name, says := range map[string]string{
		"list.pt": "holds a list and no state dict", "notensors.pt": `keys are "epoch", "loss"`, "script.pt": "TorchScript", "none.pt": "does not exist",
	} {
		if _, err := OpenCheckpoint(torch + name); err == nil || !strings.Contains(err.Error(), says) || !strings.HasPrefix(err.Error(), torch+name) {
			t.Errorf("%s: %v, want %q", name, err, says)
		}
	}
	if _, err := OpenCheckpoint(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// evil lists the files that are to be refused, and what the refusal says.
func evil(t testing.TB) map[string]string {
	data, err := os.ReadFile(torch + "evil/evil.json")
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]string
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(torch + "evil/*.bin")
	if err != nil || len(files) != len(out) {
		t.Fatalf("%d files, %d are listed; %v", len(files), len(out), err)
	}
	return out
}

// Files that name a function to be run, that promise more than they have, or that grow without end are refused by name, at once, with
// little memory, and leave nothing behind.
func TestEvil(t *testing.T) {
	for name, says := range evil(t) {
		path := torch + "evil/" + name
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = OpenCheckpoint(path)
		runtime.ReadMemStats(&after)
		var bad *tensors.FormatError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), says) || !strings.HasPrefix(err.Error(), path) || bad.Hint == "" {
			t.Errorf("%s: %v, want %q", name, err, says)
		}
		if err != nil && len(err.Error()) > 600+len(path) {
			t.Errorf("%s: a message of %d bytes", name, len(err.Error()))
		}
		// What calls copy is bounded by itself (maxCopied).
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(2<<20+100*st.Size()+2*maxCopied*uint64Of(strings.Contains(name, "again"))); got > most {
			t.Errorf("%s: %d bytes are allocated for a file of %d", name, got, st.Size())
		}
	}
	for _, dir := range []string{".", torch, torch + "evil"} {
		if _, err := os.Stat(filepath.Join(dir, "mergekit-was-here")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("something was run: %v", err)
		}
	}
}

func uint64Of(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// FuzzCheckpoint wants of any file: an error, or tensors that lie in it. The seeds are the files that try to do harm, and those of torch.
func FuzzCheckpoint(f *testing.F) {
	add := func(path string) {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for name := range evil(f) {
		add(torch + "evil/" + name)
	}
	for _, name := range []string{"good.bin", "legacy.bin", "training.pt", "list.pt", "script.pt"} {
		add(torch + name)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		root, err := Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		d, none := stateDict(root)
		if none != nil {
			return
		}
		for _, name := range d.Keys {
			x, ok := d.Values[name].(*Tensor)
			if !ok {
				continue
			}
			raw, err := x.Data()
			if err != nil {
				t.Errorf("%q: %v", name, err)
			}
			if int64(len(raw)) != x.Elems()*int64(x.DType.Size()) || len(raw) > len(data) {
				t.Errorf("%q: %d bytes of %d elements in a file of %d", name, len(raw), x.Elems(), len(data))
			}
		}
	})
}

// far counts the bytes that are asked of a file.
type far struct {
	*bytes.Reader
	asked int64
}

func (f *far) ReadAt(p []byte, off int64) (int, error) {
	f.asked += int64(len(p))
	return f.Reader.ReadAt(p, off)
}

// Of an old file that may be far away no more is read than its program takes, also where that is long.
func TestLegacyReadsLittle(t *testing.T) {
	text := func(n int) string {
		return "X" + string([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}) + strings.Repeat("a", n)
	}
	const tensor = "ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02NtQK\x00K\x02\x85K\x01\x85\x89NtR"
	for _, long := range []int{10, startBytes - 200, startBytes, 3 * startBytes, 20 * startBytes} {
		program := "\x80\x02" + string(legacyMagic) + "\x80\x02M\xe9\x03." + "\x80\x02}." + "\x80\x02}(X\x03\x00\x00\x00pad" + text(long) + "X\x01\x00\x00\x00w" + tensor + "u." + "\x80\x02]X\x01\x00\x00\x000a."
		data := []byte(program + "\x02\x00\x00\x00\x00\x00\x00\x0012345678" + strings.Repeat("\x00", 30<<20))
		f := &far{Reader: bytes.NewReader(data)}
		root, err := Read(f, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		x := root.(*Dict).Values["w"].(*Tensor)
		if raw, err := x.Data(); err != nil || string(raw) != "12345678" {
			t.Errorf("%q, %v", raw, err)
		}
		if most := int64(10*len(program) + 2*startBytes); f.asked > most {
			t.Errorf("%d bytes are read for a program of %d", f.asked, len(program))
		}
	}
}
