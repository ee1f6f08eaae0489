package model

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/tensors"
)

const goldenModels = "../testdata/golden/forward/"

// trainable are the golden models with a head that trains: one of each architecture, and what differs from it in the way back.
// change alters the model's config.json.
var trainable = []struct {
	name, dir string
	change    map[string]any
}{
	{"gemma2", "gemma2", nil},
	{"gemma3", "gemma3", nil},
	{"gemma3 of two kinds of layers", "gemma3", map[string]any{"layer_types": []string{"sliding_attention", "full_attention", "sliding_attention"}}},
	{"gpt2", "gpt2", nil},
	{"llama", "llama", nil},
	{"llama with biases", "llama-tied-bias", nil},
	{"llama with one key head", "llama3-rope", nil},
	{"llama beyond its length", "llama", map[string]any{"max_position_embeddings": 8, "rope_parameters": map[string]any{"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}}},
	{"mistral", "mistral-window", nil},
	{"mixtral", "mixtral", nil},
	// All experts: where a small step changes who is chosen, the loss jumps, and no slope is to be had.
	{"qwen2 of experts", "qwen2-moe", map[string]any{"num_experts_per_tok": 6}},
	{"phi3", "phi3", nil},
	// Heads of 8, of which 4 rotate; texts longer than what the short factors are for.
	{"phi3 with partial and long rotary", "phi3", map[string]any{"original_max_position_embeddings": 8, "rope_parameters": map[string]any{"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.5,
		"short_factor": []float64{1, 1.1}, "long_factor": []float64{1.5, 4}}}},
	{"qwen2", "qwen2", nil},
	{"qwen3", "qwen3", nil},
	{"bert that tells classes", "bert-classifier", nil},
	{"vit", "vit", nil},
	{"llama that tells classes", "llama", map[string]any{"architectures": []string{"LlamaForSequenceClassification"}, "num_labels": 3, "id2label": nil}},
}

// changed returns the directory of a golden model with another config.json.
func changed(t *testing.T, dir string, change map[string]any) string {
	t.Helper()
	dir = filepath.Join(goldenModels, dir)
	if change == nil {
		return dir
	}
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	maps.Copy(c, change)
	if raw, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	ckpt, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ckpt.Close()
	var infos []tensors.Info
	var values [][]byte
	for _, name := range ckpt.Names() {
		v, err := ckpt.View(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "lm_head.weight" && change["num_labels"] != nil { // the first rows of the head tell the classes
			name = "score.weight"
			v.Shape = []int{change["num_labels"].(int), v.Shape[1]}
			v.Data = v.Data[:4*v.Shape[0]*v.Shape[1]]
		}
		infos, values = append(infos, tensors.Info{Name: name, DType: v.DType, Shape: v.Shape}), append(values, v.Data)
	}
	out := t.TempDir()
	if err := tensors.SaveFile(filepath.Join(out, "model.safetensors"), infos, values, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "config.json"), raw, 0o666); err != nil {
		t.Fatal(err)
	}
	return out
}

func goBackend(t *testing.T) compute.Backend {
	t.Helper()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	return b
}

// noise is a stream of numbers in [-1, 1).
type noise uint64

func (n *noise) next() float32 {
	*n = *n*6364136223846793005 + 1442695040888963407
	return float32(int32(*n>>32)) / (1 << 31)
}

func (n *noise) tensor(size float32, shape ...int) Tensor {
	t := Tensor{Shape: shape, Data: make([]float32, Segment{Shape: shape}.Size())}
	for i := range t.Data {
		t.Data[i] = size * n.next()
	}
	return t
}

// adapt puts an adapter on a linear map: with factors that are not zero, so that every gradient is not zero either.
func (n *noise) adapt(o *Overlay, path string, l Linear, a Adaption) {
	a.Scale = 1.5
	o.Maps[path] = a
	o.Tensors[path+".lora_A.weight"] = n.tensor(0.3, a.Rank, l.In)
	o.Tensors[path+".lora_B.weight"] = n.tensor(0.3, l.Out, a.Rank)
	if a.Bias {
		o.Tensors[path+".lora_B.bias"] = n.tensor(0.3, l.Out)
	}
	if a.DoRA {
		m := n.tensor(0.5, l.Out)
		for i := range m.Data {
			m.Data[i]++
		}
		o.Tensors[path+".lora_magnitude_vector"] = m
	}
}

// adaptAll puts adapters on all linear maps of the blocks and on the head, with ranks that differ from map to map.
func adaptAll(d *Description, a Adaption) *Overlay {
	n, o := noise(1), newOverlay()
	for i := range d.Layers {
		for k, l := range d.BlockLinears() {
			a.Rank = 1 + (i+k)%3
			n.adapt(o, d.LayerName(i, l.Name), l, a)
		}
	}
	for _, l := range d.HeadLinears() {
		n.adapt(o, l.Name, l, a)
	}
	return o
}

func newOverlay() *Overlay {
	return &Overlay{Maps: map[string]Adaption{}, Tensors: map[string]Tensor{}}
}

// tunings are overlays in which the ways to train differ.
var tunings = []struct {
	name string
	make func(t *testing.T, d *Description, base map[string]Tensor) *Overlay
}{
	{"lora", func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
		o, n := adaptAll(d, Adaption{}), noise(2)
		o.Maps[d.Names.Embed] = Adaption{Rank: 2, Scale: 0.7}
		o.Tensors[d.Names.Embed+".lora_embedding_A"] = n.tensor(0.3, 2, d.Vocab)
		o.Tensors[d.Names.Embed+".lora_embedding_B"] = n.tensor(0.3, d.Hidden, 2)
		return o
	}},
	{"dora of the embedding", func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
		o, n := newOverlay(), noise(8)
		o.Maps[d.Names.Embed] = Adaption{Rank: 2, Scale: 0.7, DoRA: true}
		o.Tensors[d.Names.Embed+".lora_embedding_A"] = n.tensor(0.3, 2, d.Vocab)
		o.Tensors[d.Names.Embed+".lora_embedding_B"] = n.tensor(0.3, d.Hidden, 2)
		o.Tensors[d.Names.Embed+".lora_magnitude_vector"] = n.tensor(1, d.Hidden)
		return o
	}},
	// lora.tie: keep: embedding and head share factors, and the gradient comes from both ends.
	{"tied lora", func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
		o, n := newOverlay(), noise(7)
		o.Maps[d.Names.Embed] = Adaption{Rank: 2, Scale: 0.7}
		o.Tensors[d.Names.Embed+".lora_embedding_A"] = n.tensor(0.3, 2, d.Vocab)
		o.Tensors[d.Names.Embed+".lora_embedding_B"] = n.tensor(0.3, d.Hidden, 2)
		if d.Tied {
			o.Maps[d.Names.LMHead] = o.Maps[d.Names.Embed]
		}
		return o
	}},
	{"untied embedding", func(_ *testing.T, d *Description, base map[string]Tensor) *Overlay {
		o := newOverlay()
		o.Tensors[d.Names.Embed+".weight"] = base[d.Names.Embed+".weight"]
		o.Untied = true
		return o
	}},
	{"lora_bias", func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
		return adaptAll(d, Adaption{Bias: true})
	}},
	{"dora", func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
		return adaptAll(d, Adaption{DoRA: true})
	}},
	{"full", func(_ *testing.T, _ *Description, base map[string]Tensor) *Overlay {
		return &Overlay{Tensors: base}
	}},
	// layers_to_transform: the way back ends at the second block, and the blocks are not alike.
	{"one layer", func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
		o, n := newOverlay(), noise(3)
		for k, l := range d.BlockLinears() {
			if k%2 == 0 {
				n.adapt(o, d.LayerName(1, l.Name), l, Adaption{Rank: 2})
			}
		}
		return o
	}},
	// bias: all with norms trained as well, and a head of its own where the base has a tied one.
	{"vectors and head", func(_ *testing.T, d *Description, base map[string]Tensor) *Overlay {
		o, n := newOverlay(), noise(4)
		for name, v := range base {
			if len(v.Shape) == 1 {
				o.Tensors[name] = v
			}
		}
		for _, l := range d.HeadLinears() {
			o.Tensors[l.Name+".weight"] = n.tensor(0.3, l.WeightShape()...)
		}
		return o
	}},
	{"head", func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
		o, n := newOverlay(), noise(5)
		for _, l := range d.HeadLinears() {
			n.adapt(o, l.Name, l, Adaption{Rank: 2})
		}
		return o
	}},
}

// adaptsTable tells the tunings that put an adapter on a table of embeddings. Patches of images are projected, not looked up.
func adaptsTable(tuning string) bool {
	return slices.Contains([]string{"lora", "dora of the embedding", "tied lora"}, tuning)
}

// packedBatch has two rows: one of two texts and padding behind them, longer than the windows of the golden models; one of padding,
// a text and padding; two images for a model that reads them. Targets have different weights and leave positions out; classes have one in each row.
func packedBatch(d *Description) (Input, Targets) {
	if d.Image != nil {
		n := noise(9)
		in := Input{Rows: 2, Length: d.Image.Count() + 1, Pixels: n.tensor(2, 2, d.Image.Pixels()).Data}
		return in, d.ClassTargets(in, []int32{2, 1}, []float32{1, 0.5})
	}
	vocab := d.Vocab
	const length = 20
	in := Input{Rows: 2, Length: length}
	var t Targets
	for r, texts := range [][3]int{{0, 12, 5}, {2, 9, 0}} {
		at := 0
		token := func(segment, position int) {
			in.IDs = append(in.IDs, int32((7+31*r+at*at*5+at)%vocab))
			in.Segments, in.Positions = append(in.Segments, int32(segment)), append(in.Positions, int32(position))
			at++
		}
		for range texts[0] {
			token(0, 0)
		}
		for s, n := range texts[1:] {
			for i := range n {
				if i < n-1 && i%4 != 2 {
					t.Rows = append(t.Rows, int32(r*length+at))
					t.IDs = append(t.IDs, int32((11+at*7+r)%vocab))
					t.Weights = append(t.Weights, []float32{1, 0.5, 2}[i%3])
				}
				token(s+1, i)
			}
		}
		for at < length {
			token(0, 0)
		}
	}
	if d.Head != HeadLM {
		t = d.ClassTargets(in, []int32{2, 1}, []float32{1, 0.5})
	}
	return in, t
}

// tuned loads a golden model with an overlay.
func tuned(t *testing.T, b compute.Backend, dir string, overlay func(t *testing.T, d *Description, base map[string]Tensor) *Overlay) *Model {
	t.Helper()
	return tunedAs(t, b, dir, dtypes.Float32, overlay)
}

func tunedAs(t *testing.T, b compute.Backend, dir string, dtype dtypes.DType, overlay func(t *testing.T, d *Description, base map[string]Tensor) *Overlay) *Model {
	t.Helper()
	d, _, err := ReadDescription(dir)
	if err != nil {
		t.Fatal(err)
	}
	ckpt, err := tensors.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ckpt.Close()
	base, err := d.Weights(ckpt, nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := LoadFrom(context.Background(), d, ckpt, Options{Backend: b, Compute: dtype, Overlay: overlay(t, d, base)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}
