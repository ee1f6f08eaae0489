package adapter

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/tensors"
)

// Adapter is an adapter: its configuration and its tensors.
type Adapter struct {
	Dir     string
	Config  *Config
	Tensors map[string]Tensor // keys as on disk
	// Warnings are what is odd about the files without being wrong.
	Warnings []string

	views  map[string]tensors.View // tensors that were left in the file
	names  map[string]string       // in the file, by key
	file   *tensors.Checkpoint
	path   string // of the file with the tensors; "": there is none
	mapped bool
	from   []string // the models that it was extracted from
}

// File is the path of the file that the tensors were read from, or the directory of an adapter that has none.
func (a *Adapter) File() string {
	if a.path == "" {
		return a.Dir
	}
	return a.path
}

// pickleName is what peft wrote before it wrote safetensors.
const pickleName = "adapter_model.bin"

// Open reads an adapter: its configuration and all tensors, as float32.
func Open(dir string) (*Adapter, error) {
	a, err := open(dir, false)
	if err != nil {
		return nil, err
	}
	return a, a.Close()
}

// OpenMapped is Open that leaves the file mapped, for adapters that are only applied: what they do to a base is computed from
// there, without memory of its own. Tensors must not be written to, and not be used after Close.
func OpenMapped(dir string) (*Adapter, error) { return open(dir, true) }

func open(dir string, mapped bool) (*Adapter, error) {
	a := &Adapter{Dir: dir, mapped: mapped, Tensors: map[string]Tensor{}, views: map[string]tensors.View{}, names: map[string]string{}}
	var err error
	if a.Config, a.Warnings, err = ReadConfig(dir); err != nil {
		return nil, err
	}
	if a.path, err = WeightsFile(dir); err != nil {
		return nil, err
	}
	if a.file, err = checkpoint.Open(a.path); err != nil {
		return nil, err
	}
	for _, name := range a.file.Names() {
		if err := a.take(name); err != nil {
			_ = a.Close()
			return nil, err
		}
	}
	if len(a.Tensors)+len(a.views) == 0 {
		_ = a.Close()
		return nil, &Error{File: a.path, Msg: "holds no tensor", Hint: "the adapter is empty; save it again"}
	}
	return a, nil
}

// WeightsFile is the file of a directory that holds an adapter's tensors: safetensors, or what peft wrote before it wrote them, which is
// read without running what is in it.
func WeightsFile(dir string) (string, error) {
	for _, name := range []string{WeightsName, pickleName} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", &Error{File: dir, Msg: "has no " + WeightsName + " and no " + pickleName, Hint: "download the adapter again", Err: fs.ErrNotExist}
}

// take reads one tensor of the file.
func (a *Adapter) take(name string) error {
	if strings.Contains(name, ".original_module.") {
		return nil // the base's own matrix, which peft adds where the vocabulary was resized
	}
	v, err := a.file.View(name)
	if err != nil {
		return err
	}
	key := diskKey(name)
	if first, twice := a.names[key]; twice {
		// Beside a resized matrix under its own name peft writes the same once more as that of modules_to_save.
		if w, err := a.file.View(first); err == nil && w.DType == v.DType && slices.Equal(w.Shape, v.Shape) && string(w.Data) == string(v.Data) {
			return nil
		}
		return &Error{File: a.path, Where: name, Msg: "is there twice, with other values as " + first, Hint: "the file holds several adapters; save one of them"}
	}
	a.names[key] = name
	if !v.DType.IsFloat() {
		return &Error{File: a.path, Where: name, Msg: fmt.Sprintf("has dtype %s; adapters hold floating-point numbers", v.DType)}
	}
	if a.mapped {
		if x, ok := floatsOf(v.Data); ok && v.DType == tensors.F32 {
			a.Tensors[key] = Tensor{Shape: slices.Clone(v.Shape), Data: x}
			return nil
		}
		const inMemory = 1 << 20 // elements; factors of low rank are below, embeddings and heads above
		if wholeKey(key) && v.Elems() > inMemory {
			a.views[key] = v
			return nil
		}
	}
	a.Tensors[key], err = decode(v)
	return err
}

// floatsOf views the bytes of a file as float32, where they are aligned and the machine is little-endian as files are.
func floatsOf(b []byte) ([]float32, bool) {
	p := unsafe.Pointer(unsafe.SliceData(b))
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 || uintptr(p)%4 != 0 {
		return nil, false
	}
	return unsafe.Slice((*float32)(p), len(b)/4), true
}

func decode(v tensors.View) (Tensor, error) {
	t := Tensor{Shape: slices.Clone(v.Shape), Data: make([]float32, v.Elems())}
	return t, tensors.DecodeFloat32(t.Data, v.Data, v.DType)
}

// Close lets go of the file. Tensors stay.
func (a *Adapter) Close() error {
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file = nil
	return err
}

// Keys lists the tensors' keys in alphabetical order.
func (a *Adapter) Keys() []string {
	keys := slices.Collect(maps.Keys(a.Tensors))
	for k := range a.views {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// shape returns a tensor's shape.
func (a *Adapter) shape(key string) ([]int, bool) {
	if t, ok := a.Tensors[key]; ok {
		return t.Shape, true
	}
	v, ok := a.views[key]
	return v.Shape, ok
}

// The ends of the keys that follow a module's path.
const (
	endA        = ".lora_A.weight"
	endB        = ".lora_B.weight"
	endBiasB    = ".lora_B.bias"
	endEmbA     = ".lora_embedding_A"
	endEmbB     = ".lora_embedding_B"
	endMag      = ".lora_magnitude_vector"
	endBaseW    = ".base_layer.weight"
	endBaseBias = ".base_layer.bias"
	endTokens   = ".token_adapter.trainable_tokens_delta"
	endWeight   = ".weight"
	endBias     = ".bias"
)

// keyEnds lists them, longer ones before their own ends.
var keyEnds = []string{endA, endB, endBiasB, endEmbA, endEmbB, endMag, endBaseW, endBaseBias, endTokens, endWeight, endBias}

// splitKey cuts a key into the module's path and what follows. ok is false for keys that no adapter of this kind has.
func splitKey(key string) (path, end string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return "", "", false
	}
	for _, end := range keyEnds {
		if path, ok := strings.CutSuffix(rest, end); ok && path != "" {
			return path, end, true
		}
	}
	return "", "", false
}

// wholeKey tells whether a tensor is not of low rank.
func wholeKey(key string) bool { return !strings.Contains(key, ".lora_") }

// diskKey takes the adapter's name out of a key: in memory, and in files of some tools, peft has it as a segment after
// the kind of the tensor. What peft writes has none.
func diskKey(name string) string {
	for _, kind := range []string{".lora_A.", ".lora_B.", ".lora_embedding_A.", ".lora_embedding_B.", ".lora_magnitude_vector.", ".modules_to_save.", ".trainable_tokens_delta."} {
		i := strings.LastIndex(name, kind)
		if i < 0 {
			continue
		}
		head, rest := name[:i], name[i+len(kind):]
		switch kind {
		case ".lora_A.", ".lora_B.", ".modules_to_save.":
			// One segment is the parameter (weight, bias), two begin with the adapter's name.
			if _, param, two := strings.Cut(rest, "."); two && !strings.Contains(param, ".") {
				rest = param
			}
			if kind == ".modules_to_save." {
				return head + "." + rest
			}
			return head + kind + rest
		default:
			if rest == "weight" || !strings.Contains(rest, ".") || strings.Count(rest, ".") == 1 && strings.HasSuffix(rest, ".weight") {
				return head + strings.TrimSuffix(kind, ".")
			}
		}
	}
	return name
}
