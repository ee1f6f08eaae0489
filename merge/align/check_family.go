package align

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/internal/linalg"
	"github.com/mergekit/mergekit/model"
)

// tinyFiles are configurations of two layers, by which the specs of families are checked without a checkpoint: with and without biases,
// shared and own heads, grouped and single keys.
//
//go:embed tiny/*.json
var tinyFiles embed.FS

// Tiny is a small model of a family: a config.json of two layers, whose weights are drawn.
type Tiny struct {
	Name   string
	Family string // model_type
	Config []byte
}

// TinyModels lists the small models of a family, "" for all families that CheckFamily knows.
func TinyModels(family string) ([]Tiny, error) {
	files, err := tinyFiles.ReadDir("tiny")
	if err != nil {
		return nil, err
	}
	var out []Tiny
	for _, f := range files {
		config, err := tinyFiles.ReadFile(path.Join("tiny", f.Name()))
		if err != nil {
			return nil, err
		}
		var c struct {
			Type string `json:"model_type"`
		}
		if err := json.Unmarshal(config, &c); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
		if family == "" || family == c.Type {
			out = append(out, Tiny{strings.TrimSuffix(f.Name(), ".json"), c.Type, config})
		}
	}
	return out, nil
}

// CheckFamilies lists the families that CheckFamily knows: the values of model_type that have a spec and a forward pass, and plain
// networks.
func CheckFamilies() []string {
	all, err := TinyModels("")
	if err != nil {
		return nil
	}
	var out []string
	for _, t := range all {
		if !slices.Contains(out, t.Family) {
			out = append(out, t.Family)
		}
	}
	return out
}

// CheckFamily is Check for small models with random weights of a family (a value of model_type), so that a spec is proved without a
// checkpoint.
func CheckFamily(ctx context.Context, family string, seed uint64, b compute.Backend) (*CheckReport, error) {
	list, err := TinyModels(family)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		hint := "check a checkpoint of the family instead, by its directory"
		if slices.Contains(symmetry.Families(), family) {
			hint = "its forward pass cannot be computed, so its spec cannot be checked here"
		}
		return nil, &Error{Msg: fmt.Sprintf("there is no family %q to check; there are %s", family, strings.Join(CheckFamilies(), ", ")), Hint: hint}
	}
	report := &CheckReport{Model: family}
	for _, t := range list {
		values, err := t.Random(seed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		if err := checkTensors(ctx, report, t.Name, t.Config, values, nil, seed, b); err != nil {
			var e *Error
			if errors.As(err, &e) && e.File == "" {
				e.File = t.Name
			}
			return nil, err
		}
	}
	return report, report.Err()
}

// Random draws the model's weights, by the names of its class and so large that every part of it shows in the outputs.
func (t Tiny) Random(seed uint64) (map[string]model.Tensor, error) {
	return randomModel(t.Config, seed)
}

func randomModel(config []byte, seed uint64) (map[string]model.Tensor, error) {
	shapes := map[string][]int{}
	offset := 0.0
	conv1D := false
	if model.IsPlain(config) {
		d, err := model.DescribePlain(config)
		if err != nil {
			return nil, err
		}
		for _, t := range slices.Concat(d.Tensors(), d.Statistics()) {
			shapes[t.Name] = t.Shape
		}
	} else {
		d, err := model.Describe(config)
		if err != nil {
			return nil, err
		}
		shapes = d.Shapes()
		if d.Norm.Kind == model.RMSNormOffset {
			offset = 1
		}
		conv1D = d.Conv1D
	}
	out := map[string]model.Tensor{}
	for name, shape := range shapes {
		n := 1
		for _, d := range shape {
			n *= d
		}
		x := make([]float32, n)
		out[name] = model.Tensor{Shape: shape, Data: x}
		switch {
		case len(shape) == 1 && strings.HasSuffix(name, ".weight"), strings.HasSuffix(name, "running_var"): // gains of 0.5 to 1.5
			linalg.Uniform(x, seed, name)
			for i := range x {
				x[i] += float32(0.5 - offset)
				if strings.HasSuffix(name, "running_var") {
					x[i] += float32(offset)
				}
			}
			continue
		}
		linalg.Normal(x, seed, name)
		in := n / shape[0]
		if conv1D && strings.Contains(name, ".c_") && len(shape) == 2 {
			in = shape[0]
		}
		size := float32(1)
		switch {
		case len(shape) == 1:
			size = 0.3
		case strings.Contains(name, "embed") && !strings.Contains(name, "projection"), strings.Contains(name, ".wte."), strings.Contains(name, ".wpe."):
		default:
			size = 1.5 / sqrt32(in)
		}
		for i := range x {
			x[i] *= size
		}
	}
	return out, nil
}

func sqrt32(n int) float32 { return float32(math.Sqrt(float64(n))) }
