package model

import (
	"math"
	"strings"

	"github.com/mergekit/mergekit/internal/linalg"
)

// Initial draws the weights of a model that has learned nothing, as the classes of transformers do: matrices, embeddings and tokens
// are normal with the standard deviation of initializer_range, gains are one (what Gemma stores is zero), biases are zero. GPT-2 divides
// the maps that write to the stream by the root of their number (Radford et al., 2019). The numbers depend on the seed and the tensor's
// name alone. A head that is the embedding is left out.
func (d *Description) Initial(seed uint64) map[string]Tensor {
	out := map[string]Tensor{}
	draw := func(prefix string, list []TensorSpec) {
		for _, s := range list {
			name := prefix + s.Name
			if _, there := out[name]; there { // the head of a tied model is the embedding
				continue
			}
			t := Tensor{s.Shape, make([]float32, Segment{Shape: s.Shape}.Size())}
			out[name] = t
			switch {
			case strings.HasSuffix(name, ".bias"):
			case len(s.Shape) == 1:
				if d.Norm.Kind != RMSNormOffset {
					fillOnes(t.Data)
				}
			default:
				std := d.InitStd
				if d.ModelType == "gpt2" && strings.HasSuffix(name, "c_proj.weight") {
					std /= math.Sqrt(2 * float64(len(d.Layers)))
				}
				normal(t.Data, seed, name, std)
				if name == d.Names.Embed+".weight" && d.Image == nil && d.PAD >= 0 && d.PAD < d.Vocab {
					clear(t.Data[d.PAD*d.Hidden : (d.PAD+1)*d.Hidden]) // nobody reads the embedding of padding
				}
			}
		}
	}
	draw("", d.StemTensors())
	for i := range d.Layers {
		draw(d.LayerName(i, ""), d.BlockTensors())
	}
	draw("", d.HeadTensors())
	return out
}

// Initial draws the weights of a network that has learned nothing: those of linear layers and convolutions are normal with a variance of
// two over what an output sees (He et al., 2015), gains and running variances are one, the rest is zero. The numbers depend on the
// seed and the tensor's name alone.
func (d *PlainDescription) Initial(seed uint64) map[string]Tensor {
	out := map[string]Tensor{}
	walk(d.Layers, func(l *PlainLayer) {
		for _, s := range l.tensors() {
			t := Tensor{s.Shape, make([]float32, Segment{Shape: s.Shape}.Size())}
			out[s.Name] = t
			switch {
			case strings.HasSuffix(s.Name, ".bias"):
			case l.Type == "linear" || l.Type == "conv2d":
				normal(t.Data, seed, s.Name, math.Sqrt(2/float64(len(t.Data)/s.Shape[0])))
			default:
				fillOnes(t.Data)
			}
		}
	})
	for _, s := range d.Statistics() {
		t := Tensor{s.Shape, make([]float32, s.Shape[0])}
		if strings.HasSuffix(s.Name, ".running_var") {
			fillOnes(t.Data)
		}
		out[s.Name] = t
	}
	return out
}

func normal(x []float32, seed uint64, name string, std float64) {
	linalg.Normal(x, seed, name)
	for i := range x {
		x[i] *= float32(std)
	}
}

func fillOnes(x []float32) {
	for i := range x {
		x[i] = 1
	}
}
