package model

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	gt "github.com/gomlx/gomlx/core/tensors"

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
	{"phi3", "phi3", nil},
	// Heads of 8, of which 4 rotate; texts longer than what the short factors are for.
	{"phi3 with partial and long rotary", "phi3", map[string]any{"original_max_position_embeddings": 8, "rope_parameters": map[string]any{"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.5,
		"short_factor": []float64{1, 1.1}, "long_factor": []float64{1.5, 4}}}},
	{"qwen2", "qwen2", nil},
	{"qwen3", "qwen3", nil},
	{"bert that tells classes", "bert-classifier", nil},
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

// packedBatch has two rows: one of two texts and padding behind them, longer than the windows of the golden models; one of padding,
// a text and padding. Targets have different weights and leave positions out; classes have one in each row.
func packedBatch(d *Description) (Input, Targets) {
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

// plainGradient differentiates the model in one graph without cuts: GoMLX does all of it. It returns the loss and the gradients of
// the packed vectors.
func plainGradient(t *testing.T, m *Model, in Input, targets Targets, factor float32, pass *uint64) (loss float64, grads [][]float32) {
	t.Helper()
	in, err := m.D.check(in)
	if err != nil {
		t.Fatal(err)
	}
	var args []any
	stages := m.stages()
	for _, s := range stages {
		for _, w := range m.base[s] {
			args = append(args, w)
		}
	}
	vectorAt := len(args)
	for _, v := range m.Vectors {
		if v != nil {
			args = append(args, v.Value)
		}
	}
	streamAt := len(args)
	if pass != nil {
		for i := range m.blocks {
			args = append(args, gt.FromScalar(stream(*pass, i)))
		}
	}
	dataAt := len(args)
	data, scales, err := m.stemInputs(in, in.span)
	if err != nil {
		t.Fatal(err)
	}
	args = append(args, data...)
	targetAt := len(args)
	args = append(args, gt.FromFlatDataAndDimensions(in.Segments, in.Rows, in.Length), gt.FromFlatDataAndDimensions(targets.Rows, len(targets.Rows)),
		gt.FromFlatDataAndDimensions(targets.IDs, len(targets.Rows)), gt.FromFlatDataAndDimensions(targets.Weights, len(targets.Rows)))
	e, err := NewExec(m.Backend, func(nodes []*Node) []*Node {
		var vectors []*Node
		flat := map[*Vector]*Node{}
		for _, v := range m.Vectors {
			if v != nil {
				flat[v] = nodes[vectorAt+len(vectors)]
				vectors = append(vectors, flat[v])
			}
		}
		built := map[*stage]*ops{}
		at := 0
		for _, s := range stages {
			var vector *Node
			if v := m.flat[s]; v != nil {
				vector = flat[v]
			}
			built[s] = newOps(m.D, s, m.Compute, nodes[at:at+len(s.base)], vector)
			at += len(s.base)
		}
		given := nodes[dataAt:]
		x := m.D.Stem(built[m.stem], m.Compute, given[0], given[1], given[2])
		var tables [][2]*Node
		for i, scale := range scales {
			cos, sin := rotaryTables(given[1], given[3+i], scale)
			tables = append(tables, [2]*Node{cos, sin})
		}
		segments, rows, ids, weights := nodes[targetAt], nodes[targetAt+1], nodes[targetAt+2], nodes[targetAt+3]
		for i, s := range m.blocks {
			o := built[s]
			if pass != nil && s.drops() {
				o.dropout = nodes[streamAt+i]
			}
			more := []*Node{segments}
			if s.kind.Rope >= 0 && len(tables) > 0 {
				more = append(more, tables[s.kind.Rope][0], tables[s.kind.Rope][1])
			}
			x = m.blockGraph(s, o, x, more)
		}
		z := m.D.rowLogits(built[m.head], Gather(Reshape(x, -1, m.D.Hidden), InsertAxes(rows, -1)))
		value := ReduceSum(Mul(z, OneHot(ids, m.D.outputs(), dtypes.Float32)), 1)
		top := StopGradient(ReduceAndKeep(z, ReduceMax, 1))
		lse := Add(Log(ReduceSum(Exp(Sub(z, top)), 1)), Squeeze(top, 1))
		loss := ReduceAllSum(Mul(weights, Sub(lse, value)))
		return append([]*Node{loss}, Gradient(MulScalar(loss, factor), vectors...)...)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Finalize()
	out, err := e.Call(args...)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		values, err := gt.CopyFlatData[float32](o)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			loss = float64(values[0])
			continue
		}
		grads = append(grads, values)
	}
	return loss, grads
}

// backward returns loss and gradients as training computes them.
func backward(t *testing.T, m *Model, in Input, targets Targets, o PassOptions) (loss float64, grads [][]float32) {
	t.Helper()
	g, err := m.NewGradients()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Free()
	r, err := m.Backward(in, targets, g, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range g.Sums {
		if s == nil {
			continue
		}
		values, err := gt.CopyFlatData[float32](s)
		if err != nil {
			t.Fatal(err)
		}
		grads = append(grads, values)
	}
	return r.Loss, grads
}

// compare reports the tensors whose gradients differ by more than a share of their largest magnitude.
func compare(t *testing.T, m *Model, what string, got, want [][]float32, tolerance float64) {
	t.Helper()
	k := 0
	for _, v := range m.Vectors {
		if v == nil {
			continue
		}
		for _, s := range v.Packed.Segments {
			var worst, largest float64
			for i := s.Offset; i < s.Offset+s.Size(); i++ {
				worst = max(worst, math.Abs(float64(got[k][i]-want[k][i])))
				largest = max(largest, math.Abs(float64(want[k][i])))
			}
			// A bias on keys moves all scores of a query alike where nothing rotates: its gradient is what rounding leaves of zero.
			if !(worst <= tolerance*largest+1e-8) {
				t.Errorf("%s: gradient of %s%s differs by %.3g, its largest magnitude is %.3g", what, v.Prefix, s.Name, worst, largest)
			}
		}
		k++
	}
	if k != len(got) || k != len(want) {
		t.Errorf("%s: %d and %d vectors, want %d", what, len(got), len(want), k)
	}
}

// tuned loads a golden model with an overlay.
func tuned(t *testing.T, b compute.Backend, dir string, overlay func(t *testing.T, d *Description, base map[string]Tensor) *Overlay) *Model {
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
	m, err := LoadFrom(context.Background(), d, ckpt, Options{Backend: b, Overlay: overlay(t, d, base)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// TestGradients compares the gradients of cut stages with those of one whole graph that GoMLX differentiates, for every
// architecture and way of tuning, on packed rows with padding; then outputs of maps that are kept with ones that are computed
// again.
func TestGradients(t *testing.T) {
	b := goBackend(t)
	for _, c := range trainable {
		for _, tuning := range tunings {
			t.Run(c.name+"/"+tuning.name, func(t *testing.T) {
				m := tuned(t, b, changed(t, c.dir, c.change), tuning.make)
				in, targets := packedBatch(m.D)
				const factor = 0.25
				loss, want := plainGradient(t, m, in, targets, factor, nil)
				kept, got := backward(t, m, in, targets, PassOptions{Factor: factor, Chunk: 7})
				if math.Abs(kept-loss) > 1e-5*loss {
					t.Errorf("loss %v, in one graph %v", kept, loss)
				}
				compare(t, m, "kept", got, want, 1e-4)
				_, again := backward(t, m, in, targets, PassOptions{Factor: factor, Recompute: true})
				compare(t, m, "recomputed", again, got, 1e-5)
			})
		}
	}
}

// TestGradientsByDifference compares gradients with differences of losses: for every tensor along its own gradient. DoRA's factors
// are left out, since its norms count as constants (TestGradients has them).
func TestGradientsByDifference(t *testing.T) {
	b := goBackend(t)
	for _, c := range trainable {
		for _, tuning := range tunings {
			switch {
			case tuning.name == "full":
			case tuning.name == "lora" || tuning.name == "dora" || tuning.name == "lora_bias":
				if c.name != "gpt2" && c.name != "gemma2" {
					continue // maps and their adapters are the same everywhere
				}
			default:
				continue
			}
			t.Run(c.name+"/"+tuning.name, func(t *testing.T) {
				m := tuned(t, b, changed(t, c.dir, c.change), tuning.make)
				in, targets := packedBatch(m.D)
				_, grads := backward(t, m, in, targets, PassOptions{Factor: 1})
				at := func(v *Vector, data []float32) float64 {
					if err := m.SetVector(v, data); err != nil {
						t.Fatal(err)
					}
					r, err := m.Loss(in, targets, 2) // sums of few terms round little
					if err != nil {
						t.Fatal(err)
					}
					return r.Loss
				}
				k := 0
				for _, v := range m.Vectors {
					if v == nil {
						continue
					}
					g := grads[k]
					k++
					values, err := gt.CopyFlatData[float32](v.Value)
					if err != nil {
						t.Fatal(err)
					}
					for _, s := range v.Packed.Segments {
						if tuning.name == "dora" && !strings.HasSuffix(s.Name, "magnitude_vector") {
							continue
						}
						var square float64
						for _, x := range g[s.Offset : s.Offset+s.Size()] {
							square += float64(x) * float64(x)
						}
						norm := math.Sqrt(square)
						if norm == 0 {
							t.Errorf("%s%s has no gradient", v.Prefix, s.Name)
							continue
						}
						// A step that moves the loss by a twentieth, or the tensor by a hundredth of a unit in length if that is less.
						step := min(0.05/norm, 0.01)
						side := func(sign float64) float64 {
							moved := slices.Clone(values)
							for i := s.Offset; i < s.Offset+s.Size(); i++ {
								moved[i] += float32(sign * step * float64(g[i]) / norm)
							}
							return at(v, moved)
						}
						slope := (side(1) - side(-1)) / (2 * step)
						// Losses are exact to about 1e-5.
						if d := math.Abs(slope - norm); d > 2e-3*norm+1e-5/step {
							t.Errorf("%s%s: slope %.6g, gradient %.6g", v.Prefix, s.Name, slope, norm)
						}
					}
					at(v, values)
				}
			})
		}
	}
}

// TestDropoutGradients sees that going backwards meets the masks of the way forward: the gradients are those of one graph with the
// same streams, the same whenever a stream comes again, others for another stream. A is hit by the mask linearly where B is zero,
// so that over many streams the mean of B's gradient is that without dropout.
func TestDropoutGradients(t *testing.T) {
	b := goBackend(t)
	with := func(p float64, zero bool) func(*testing.T, *Description, map[string]Tensor) *Overlay {
		return func(_ *testing.T, d *Description, _ map[string]Tensor) *Overlay {
			n, o := noise(6), newOverlay()
			for i := range d.Layers {
				for _, l := range d.BlockLinears() {
					n.adapt(o, d.LayerName(i, l.Name), l, Adaption{Rank: 2, Dropout: p})
				}
			}
			for name, v := range o.Tensors {
				if zero && strings.HasSuffix(name, ".lora_B.weight") {
					clear(v.Data)
				}
			}
			return o
		}
	}
	for _, name := range []string{"llama", "gpt2", "phi3", "gemma2"} {
		t.Run(name, func(t *testing.T) {
			m := tuned(t, b, filepath.Join(goldenModels, name), with(0.3, false))
			in, targets := packedBatch(m.D)
			one, two := uint64(5), uint64(6)
			loss, want := plainGradient(t, m, in, targets, 1, &one)
			first, got := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one})
			if math.Abs(first-loss) > 1e-5*loss {
				t.Errorf("loss %v, in one graph %v", first, loss)
			}
			compare(t, m, "dropout", got, want, 1e-4)
			_, again := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one})
			if fmt.Sprint(again) != fmt.Sprint(got) {
				t.Error("the same stream gives another gradient")
			}
			_, again = backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &one, Recompute: true})
			compare(t, m, "recomputed", again, got, 1e-5)
			if other, _ := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &two}); math.Abs(other-first) < 1e-4 {
				t.Errorf("another stream has the same loss, %v", other)
			}
		})
	}
	t.Run("mean", func(t *testing.T) {
		m := tuned(t, b, filepath.Join(goldenModels, "llama"), with(0.3, true))
		in, targets := packedBatch(m.D)
		_, want := backward(t, m, in, targets, PassOptions{Factor: 1})
		const streams = 100
		mean := make([][]float64, len(want))
		for k := range mean {
			mean[k] = make([]float64, len(want[k]))
		}
		for s := range uint64(streams) {
			_, got := backward(t, m, in, targets, PassOptions{Factor: 1, Dropout: &s})
			for k := range got {
				for i, x := range got[k] {
					mean[k][i] += float64(x) / streams
				}
			}
		}
		for k, v := range m.Vectors[1:] {
			for _, s := range v.Packed.Segments {
				if !strings.HasSuffix(s.Name, ".lora_B.weight") {
					continue
				}
				var off, all float64
				for i := s.Offset; i < s.Offset+s.Size(); i++ {
					d := mean[k][i] - float64(want[k][i])
					off, all = off+d*d, all+float64(want[k][i])*float64(want[k][i])
				}
				// One stream is off by about sqrt(p/(1-p)) of what the features add up to; a hundred by a tenth of that.
				if r := math.Sqrt(off / all); r > 0.2 {
					t.Errorf("%s%s: the mean gradient is off by %.3g", v.Prefix, s.Name, r)
				}
			}
		}
	})
}
