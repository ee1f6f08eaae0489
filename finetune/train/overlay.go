package train

import (
	"fmt"
	"strings"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/model"
)

// diskPrefix is what PEFT puts before the path of a module.
const diskPrefix = "base_model.model."

// Overlay turns an adapter into what a model takes: its tensors under the names of the model's class, and the scale of every
// adapted module.
func Overlay(a *adapter.Adapter) (*model.Overlay, error) {
	o := &model.Overlay{Maps: map[string]model.Adaption{}, Tensors: map[string]model.Tensor{}, Untied: !a.Config.EnsureWeightTying}
	for key, t := range a.Tensors {
		name := strings.TrimPrefix(key, diskPrefix)
		path, end, isLora := cutLora(name)
		switch {
		case isLora && end == "token_adapter.trainable_tokens_delta":
			return nil, fmt.Errorf("adapter %s: trained tokens (%s) cannot be computed beside a base; fuse the adapter first", a.Dir, key)
		case isLora:
			rank, _, scale := a.Config.Scale(path)
			o.Maps[path] = model.Adaption{Rank: rank, Scale: scale, DoRA: a.Config.DoRA, Bias: a.Config.LoraBias, Dropout: a.Config.Dropout}
		case strings.HasSuffix(name, ".base_layer.weight"):
			continue // the untouched base matrix, which PEFT stores beside adapted embeddings
		default:
			name = strings.Replace(name, ".base_layer.bias", ".bias", 1)
		}
		o.Tensors[name] = model.Tensor{Shape: t.Shape, Data: t.Data}
	}
	return o, nil
}

// cutLora splits the name of an adapter's tensor into module path and the rest; ok is false for a tensor that is held whole.
func cutLora(name string) (path, end string, ok bool) {
	for _, mark := range []string{".lora_", ".token_adapter."} {
		if i := strings.Index(name, mark); i >= 0 {
			return name[:i], name[i+1:], true
		}
	}
	return name, "", false
}
