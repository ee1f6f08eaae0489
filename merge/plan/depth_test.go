package plan_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
)

// tasks plans a merge of two models and returns what the method sees.
func tasks(t *testing.T, base, tuned, more string) (map[string]method.Task, error) {
	t.Helper()
	return planned(t, "../../testdata/golden/"+base, "../../testdata/golden/"+tuned, more)
}

func planned(t *testing.T, base, tuned, more string) (map[string]method.Task, error) {
	t.Helper()
	text := fmt.Sprintf("merge_method: tsv_m\nbase_model: %s\nmodels:\n  - model: %s\n%s", base, tuned, more)
	r, err := recipe.Parse("recipe.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Build(r, plan.Options{})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	list := map[string]method.Task{}
	for _, task := range p.Tasks {
		list[task.Name] = task.MethodTask(p)
	}
	return list, nil
}

// A tensor's depth is that of its layer; embeddings are with the first, final norm and head with the last.
func TestDepth(t *testing.T) {
	for model, want := range map[string]map[string]float64{
		"models/ft1": {"model.embed_tokens.weight": 0, "model.layers.0.mlp.up_proj.weight": 0, "model.layers.1.input_layernorm.weight": 1.0 / 3,
			"model.layers.3.mlp.up_proj.weight": 1, "model.norm.weight": 1, "lm_head.weight": 1},
		"models/bert-ft1": {"embeddings.word_embeddings.weight": 0, "encoder.layer.0.output.dense.weight": 0, "encoder.layer.1.output.dense.weight": 0.5, "encoder.layer.2.output.dense.weight": 1, "pooler.dense.weight": 1},
	} {
		list, err := tasks(t, model, model, "")
		if err != nil {
			t.Fatal(err)
		}
		for name, depth := range want {
			task, ok := list[name]
			if !ok || task.Depth != depth {
				t.Errorf("%s: %s has depth %v (%v), want %v", model, name, task.Depth, ok, depth)
			}
		}
	}
}

// network writes a checkpoint of scalars with these names, without a configuration.
func network(t *testing.T, names ...string) string {
	t.Helper()
	header := map[string]any{}
	for i, n := range names {
		header[n] = map[string]any{"dtype": "F32", "shape": []int{1}, "data_offsets": []int{4 * i, 4*i + 4}}
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	data := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	file := filepath.Join(t.TempDir(), "network.safetensors")
	if err := os.WriteFile(file, append(data, make([]byte, 4*len(names))...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Networks that no description knows: numbered layers in their order, stacks whose names are numbered one after the other; where no name
// has a number there is no depth, and a scale by depth is refused.
func TestDepthOfNetworks(t *testing.T) {
	for _, want := range []map[string]float64{
		{"layers.0.weight": 0, "layers.1.weight": 0.5, "layers.2.weight": 1},
		{"conv1.weight": 0, "layer1.0.conv.weight": 0, "layer1.1.conv.weight": 1 / 3.0, "layer2.0.conv.weight": 2 / 3.0, "layer2.1.conv.weight": 1, "fc.weight": 1},
		{"layer1.weight": 0, "norm1.weight": 0, "layer2.weight": 0.5, "norm2.weight": 0.5, "layer10.weight": 1, "norm10.weight": 1, "head.weight": 1, "stem.weight": 0},
		{"a.weight": math.NaN(), "conv1.weight": math.NaN(), "conv2.weight": math.NaN(), "fc1.weight": math.NaN(), "fc2.weight": math.NaN(), "fc3.weight": math.NaN()},
	} {
		file := network(t, slices.Sorted(maps.Keys(want))...)
		list, err := planned(t, file, file, "")
		if err != nil {
			t.Fatal(err)
		}
		for name, depth := range want {
			if got := list[name].Depth; got != depth && !(math.IsNaN(depth) && math.IsNaN(got)) {
				t.Errorf("%s has depth %v, want %v", name, got, depth)
			}
		}
		_, err = planned(t, file, file, "parameters: {depth_scale: [0, 1]}\n")
		if _, numbered := want["a.weight"]; numbered != (err != nil && strings.Contains(err.Error(), "do not tell which comes first")) {
			t.Errorf("%v: %v", want, err)
		}
	}
}

// Embeddings and heads are tables, in whatever layer they stand.
func TestTables(t *testing.T) {
	for model, want := range map[string][]string{
		"models/ft1":      {"model.embed_tokens.weight", "lm_head.weight"},
		"models/gpt2-ft1": {"transformer.wte.weight", "transformer.wpe.weight"},
		"models/bert-ft1": {"embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight"},
	} {
		list, err := tasks(t, model, model, "")
		if err != nil {
			t.Fatal(err)
		}
		tables := 0
		for name, task := range list {
			if task.Table && len(task.Shape) > 1 {
				tables++
				if !strings.Contains(strings.Join(want, " "), name) {
					t.Errorf("%s: %s is no embedding and no head", model, name)
				}
			}
			if task.Stacked || task.Turned != (model == "models/gpt2-ft1" && strings.Contains(name, ".c_") && len(task.Shape) == 2) {
				t.Errorf("%s: %s: stacked %v, turned %v", model, name, task.Stacked, task.Turned)
			}
		}
		if tables != len(want) {
			t.Errorf("%s: %d tables, want %d", model, tables, len(want))
		}
	}
}

// depth_scale is a pair, for all tensors or by filters, and no gradient.
func TestDepthScale(t *testing.T) {
	list, err := tasks(t, "models/base", "models/ft1", "parameters:\n  depth_scale:\n    - {filter: mlp, value: [0.5, 2]}\n    - {value: [1, 0.25]}\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]float64{"model.layers.2.mlp.up_proj.weight": {0.5, 2}, "model.layers.2.self_attn.q_proj.weight": {1, 0.25}} {
		if got := list[name].Shared["depth_scale"]; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	list, err = tasks(t, "models/base", "models/ft1", "")
	if err != nil || list["lm_head.weight"].Shared["depth_scale"] != nil || math.IsNaN(list["lm_head.weight"].Depth) {
		t.Errorf("%+v, %v", list["lm_head.weight"], err)
	}
	for _, bad := range []string{"0.5", "[1, 2, 3]", "[1]", "[a, b]"} {
		_, err := tasks(t, "models/base", "models/ft1", "parameters:\n  depth_scale: "+bad+"\n")
		if err == nil || !strings.HasPrefix(err.Error(), "recipe.yml:6:") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
