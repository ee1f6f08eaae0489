package adapter

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/tensors"
)

// mlxWeights is the file of mlx-lm's adapters; their configuration has the same name as peft's.
const mlxWeights = "adapters.safetensors"

// mlxConfig is mlx-lm's adapter_config.json, as far as it says what the tensors mean. Other keys are about the training.
type mlxConfig struct {
	Model      string        `json:"model,omitempty"`
	Type       string        `json:"fine_tune_type"`
	Layers     int           `json:"num_layers"`
	Parameters mlxParameters `json:"lora_parameters"`
}

type mlxParameters struct {
	Rank    int      `json:"rank"`
	Scale   float64  `json:"scale"`
	Dropout float64  `json:"dropout"`
	Keys    []string `json:"keys,omitempty"`
}

// IsMLX tells whether a directory holds an adapter of mlx-lm.
func IsMLX(dir string) bool { return isFile(filepath.Join(dir, mlxWeights)) }

// layerOf splits the path of a module in a layer: model.layers.3.self_attn.q_proj.
var layerOf = regexp.MustCompile(`^(.*?\.)?(?:layers|h|blocks)\.(\d+)\.(.+)$`)

// OpenMLX reads an adapter of mlx-lm: y += scale·(x·a)·b with a [in, r] and b [r, out] becomes peft's A = aᵀ and B = bᵀ with
// alpha = scale·r.
func OpenMLX(dir string) (*Adapter, error) {
	c, err := readMLXConfig(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, mlxWeights)
	file, err := tensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	a := &Adapter{Dir: dir, path: path, Config: Defaults(), Tensors: map[string]Tensor{}}
	k := a.Config
	k.R, k.Alpha, k.Dropout = c.Parameters.Rank, c.Parameters.Scale*float64(c.Parameters.Rank), c.Parameters.Dropout
	k.BaseModel, k.TaskType, k.InferenceMode, k.DoRA = c.Model, "CAUSAL_LM", true, c.Type == "dora"
	var names []string
	layers := map[int]bool{}
	inLayers := true
	for _, name := range file.Names() {
		v, err := file.View(name)
		if err != nil {
			return nil, err
		}
		if !v.DType.IsFloat() {
			return nil, &Error{File: path, Where: name, Msg: fmt.Sprintf("has dtype %s; adapters hold floating-point numbers", v.DType)}
		}
		t, err := decode(v)
		if err != nil {
			return nil, err
		}
		module, key, bad := fromMLX(name)
		if bad != nil {
			bad.File = path
			return nil, bad
		}
		if key != endMag {
			if len(t.Shape) != 2 {
				return nil, &Error{File: path, Where: name, Msg: fmt.Sprintf("has shape %v; a matrix is expected (adapters of expert layers cannot be converted)", t.Shape)}
			}
			t = turned(t)
		}
		a.Tensors[prefix+module+key] = t
		if key != endA && key != endEmbA {
			continue
		}
		if t.Shape[0] != k.R {
			return nil, &Error{File: path, Where: name, Msg: fmt.Sprintf("has rank %d, the configuration says %d", t.Shape[0], k.R)}
		}
		short := module
		if m := layerOf.FindStringSubmatch(module); m != nil {
			n, err := strconv.Atoi(m[2])
			if err != nil || n > maxLayer {
				return nil, &Error{File: path, Where: name, Msg: "names no layer that a model has"}
			}
			layers[n], short = true, last(module)
		} else {
			inLayers = false
		}
		if !slices.Contains(names, short) {
			names = append(names, short)
		}
	}
	if len(names) == 0 {
		return nil, &Error{File: path, Msg: "holds no factors"}
	}
	k.Targets.Names = names
	if inLayers {
		k.LayersToTransform = slices.Sorted(maps.Keys(layers))
	}
	return a, k.Check()
}

func readMLXConfig(dir string) (*mlxConfig, error) {
	file := filepath.Join(dir, ConfigName)
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{File: dir, Msg: "has no " + ConfigName, Hint: "mlx-lm writes it beside " + mlxWeights, Err: err}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfigBytes))
	if err != nil {
		return nil, err
	}
	var c mlxConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, &Error{File: file, Msg: "is no configuration of mlx-lm: " + err.Error()}
	}
	if c.Type == "" {
		c.Type = "lora"
	}
	switch {
	case c.Type != "lora" && c.Type != "dora":
		return nil, &Error{File: file, Where: "fine_tune_type", Msg: fmt.Sprintf("%q is no adapter", c.Type), Hint: "only lora and dora can be converted"}
	case c.Parameters.Rank <= 0 || c.Parameters.Rank > maxRank:
		return nil, &Error{File: file, Where: "lora_parameters.rank", Msg: fmt.Sprintf("%d is no rank", c.Parameters.Rank)}
	case math.IsNaN(c.Parameters.Scale) || math.IsInf(c.Parameters.Scale, 0):
		return nil, &Error{File: file, Where: "lora_parameters.scale", Msg: "is no number"}
	}
	return &c, nil
}

// fromMLX splits a tensor's name and says what it is in peft's files.
func fromMLX(name string) (module, end string, err *Error) {
	for _, k := range []struct{ mlx, linear, embedding string }{{".lora_a", endA, endEmbA}, {".lora_b", endB, endEmbB}, {".m", endMag, endMag}} {
		if module, ok := strings.CutSuffix(name, k.mlx); ok {
			if slices.Contains(embeddingNames, last(module)) {
				return module, k.embedding, nil
			}
			return module, k.linear, nil
		}
	}
	return "", "", &Error{Where: name, Msg: "is no tensor of an adapter of mlx-lm"}
}

// turned is the transpose.
func turned(t Tensor) Tensor {
	m, n := t.Shape[0], t.Shape[1]
	out := make([]float32, m*n)
	for i := range m {
		for j, x := range t.Data[i*n : (i+1)*n] {
			out[j*m+i] = x
		}
	}
	return Tensor{[]int{n, m}, out}
}

// SaveMLX writes the adapter for mlx-lm. mlx-lm has one rank and one scale for all modules, puts factors on the last layers
// only, and holds nothing whole: an adapter beyond that is refused. layers is how many the base has; 0 takes the adapter's
// last one for the base's.
func (a *Adapter) SaveMLX(dir string, layers int, o SaveOptions) error {
	config, out, err := a.toMLX(layers)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.File == "" {
			e.File = a.Dir
		}
		return err
	}
	text, err := json.MarshalIndent(config, "", "    ")
	if err != nil {
		return err
	}
	keys := slices.Sorted(maps.Keys(out))
	infos := make([]tensors.Info, len(keys))
	for i, k := range keys {
		infos[i] = tensors.Info{Name: k, DType: tensors.F32, Shape: out[k].Shape}
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{FileName: mlxWeights, Force: o.Force})
	if err != nil {
		return err
	}
	b := &Adapter{Tensors: out}
	for i, k := range keys {
		if err = b.writeTensor(w, i, k, tensors.F32); err == nil {
			err = w.Finish(i)
		}
		if err != nil {
			return errors.Join(err, w.Close())
		}
	}
	if err := w.WriteFile(ConfigName, append(text, '\n')); err != nil {
		return errors.Join(err, w.Close())
	}
	return w.Commit()
}

func (a *Adapter) toMLX(layers int) (*mlxConfig, map[string]Tensor, error) {
	if err := a.checkBase(); err != nil {
		return nil, nil, err
	}
	c := a.Config
	m := &mlxConfig{Model: c.BaseModel, Type: "lora", Parameters: mlxParameters{Dropout: c.Dropout}}
	if c.DoRA {
		m.Type = "dora"
	}
	out := map[string]Tensor{}
	scale := math.NaN()
	seen := map[int]bool{}
	perLayer := map[string]map[int]bool{}
	for _, key := range a.Keys() {
		path, end, ok := splitKey(key)
		if !ok {
			return nil, nil, errorf(key, "is no tensor of an adapter")
		}
		t := a.Tensors[key]
		name := ""
		switch end {
		case endA, endEmbA:
			r, _, s := c.Scale(path)
			if m.Parameters.Rank == 0 {
				m.Parameters.Rank, scale = r, s
			}
			if r != m.Parameters.Rank || math.Abs(s-scale) > 1e-9*math.Abs(scale) {
				return nil, nil, errorf(path, "has rank %d and scale %v, others %d and %v; mlx-lm has one of each for all", r, s, m.Parameters.Rank, scale)
			}
			name, t = path+".lora_a", turned(t)
			if l := layerOf.FindStringSubmatch(path); l != nil {
				n, err := strconv.Atoi(l[2])
				if err != nil {
					return nil, nil, errorf(path, "names no layer that a model has")
				}
				seen[n] = true
				if perLayer[l[3]] == nil {
					perLayer[l[3]] = map[int]bool{}
				}
				perLayer[l[3]][n] = true
			} else {
				return nil, nil, errorf(path, "is in no layer; mlx-lm puts factors on modules of the last layers only")
			}
		case endB, endEmbB:
			name, t = path+".lora_b", turned(t)
		case endMag:
			name = path + ".m"
		default:
			return nil, nil, errorf(key, "is a whole tensor or a bias, which mlx-lm's adapters do not hold")
		}
		out[name] = t
	}
	if len(seen) == 0 {
		return nil, nil, &Error{Msg: "holds no factors"}
	}
	all := slices.Sorted(maps.Keys(seen))
	end := all[len(all)-1] + 1
	if layers > 0 && end != layers {
		return nil, nil, &Error{Msg: fmt.Sprintf("changes layers up to %d of %d; mlx-lm puts factors on the last layers", end-1, layers)}
	}
	m.Layers = end - all[0]
	for name, in := range perLayer {
		if len(in) != m.Layers {
			return nil, nil, errorf(name, "is changed in %d of the layers %d to %d; mlx-lm changes the same modules in each", len(in), all[0], end-1)
		}
		m.Parameters.Keys = append(m.Parameters.Keys, name)
	}
	slices.Sort(m.Parameters.Keys)
	m.Parameters.Scale = scale
	return m, out, nil
}
