package model

import "fmt"

// NormKind is the kind of a normalisation layer.
type NormKind int

// The kinds of normalisation.
const (
	RMSNorm       NormKind = iota // x/rms(x) in float32, cast, times w (Zhang and Sennrich, 2019)
	RMSNormOffset                 // x/rms(x) times (1+w), all in float32 (Gemma)
	LayerNorm                     // with weight and bias (Ba et al., 2016)
)

// Norm describes the normalisation layers of a model.
type Norm struct {
	Kind NormKind
	Eps  float64
}

// LayerKind says what differs from block to block.
type LayerKind struct {
	Window int // keys further back than this are hidden; 0: none
	Rope   int // index into Description.Ropes; -1: no rotary embedding
	Causal bool
}

// HeadKind says what is computed from the last hidden states.
type HeadKind int

// The heads.
const (
	HeadNone       HeadKind = iota // hidden states [B,S,H]
	HeadLM                         // logits [B,S,V]
	HeadScore                      // `score` on the last token: [B,labels]
	HeadClassifier                 // BERT's pooler and classifier on the first token: [B,labels]
	HeadFirst                      // a classifier on the normed first token (ViT): [B,labels]
)

// Names says where a family keeps its tensors, in the naming of its Hugging Face class. Linear maps and norms are named
// without ".weight". A map that the family does not have is "".
type Names struct {
	Embed, Positions, Types, EmbedNorm string // whole names
	Layer                              string // prefix of block i: fmt.Sprintf(Layer, i)
	Q, K, V, QKV, O                    string // relative to the block
	QNorm, KNorm                       string
	Gate, Up, GateUp, Down             string
	AttnNorm, AttnPostNorm             string // the second only with sandwich norms
	MLPNorm, MLPPostNorm               string
	FinalNorm, LMHead, Score           string // whole names
	Pooler, Classifier                 string
	ClassToken                         string // the whole name, of a model that reads images
	Router, Experts, SharedGate        string // of a mixture, relative to the block; the last one weighs the shared expert
}

// Description is what a config.json means.
type Description struct {
	ModelType    string // as config.json has it
	Architecture string // the first of "architectures", "" if it has none
	Hidden       int
	Layers       []LayerKind
	Heads        int
	KVHeads      int
	HeadDim      int
	FFN          int
	Vocab        int
	MaxPositions int

	Norm          Norm
	PostNorm      bool // norms after the residual additions (BERT)
	SandwichNorms bool // norms before and after attention and MLP (Gemma 2 and 3)
	QKNorm        bool // RMS norm of every query and key head
	Activation    string
	Gated         bool // down(act(gate) * up)
	Conv1D        bool // weights of linear maps in the blocks are (in, out), as GPT-2's Conv1D keeps them
	Bias          map[string]bool
	Ropes         []Rope

	Scale        float64 // of attention scores
	AttnSoftcap  float64 // c*tanh(score/c); 0: none
	FinalSoftcap float64 // the same on logits
	EmbedScale   float64 // embeddings are multiplied by it, rounded to the dtype of the weights; 0: not

	LearnedPositions int // rows of the table of positions; 0: none
	TokenTypes       int
	Image            *Patches // what a model that reads images cuts them into; nil: it reads tokens
	Mixture          *Mixture // every block's feed-forward part is a mixture of experts; nil: it is dense

	Tied      bool // the head is the embedding
	Head      HeadKind
	NumLabels int
	Labels    []string // names of the classes; nil if the file names none
	Names     Names
	// Prefixes are what the checkpoints of this family put before the names, or leave out: tried in order.
	Prefixes []string

	InitStd  float64 // standard deviation of weights that have learned nothing
	BOS, PAD int     // token ids; -1: none
	EOS      []int   // any of them ends a text
}

// LayerName returns the full name of something in block i.
func (d *Description) LayerName(i int, rel string) string {
	return fmt.Sprintf(d.Names.Layer, i) + rel
}

// TensorSpec is a tensor that a stage needs. Optional ones may be missing from a checkpoint.
type TensorSpec struct {
	Name  string
	Shape []int
}

// Linear is a linear map of a block or of the head: y = x*W' + b.
type Linear struct {
	Name    string // relative to the block, or whole outside of blocks; without ".weight"
	In, Out int
	Conv1D  bool // the weight is (In, Out), else (Out, In)
	Bias    bool
}

// WeightShape returns the shape of the map's weight.
func (l Linear) WeightShape() []int {
	if l.Conv1D {
		return []int{l.In, l.Out}
	}
	return []int{l.Out, l.In}
}

// BlockLinears returns the linear maps of a block in the order in which it applies them.
func (d *Description) BlockLinears() []Linear {
	n := d.Names
	qWidth, kvWidth := d.Heads*d.HeadDim, d.KVHeads*d.HeadDim
	var list []Linear
	add := func(name string, in, out int) {
		if name != "" {
			list = append(list, Linear{Name: name, In: in, Out: out, Conv1D: d.Conv1D, Bias: d.Bias[name]})
		}
	}
	add(n.QKV, d.Hidden, qWidth+2*kvWidth)
	add(n.Q, d.Hidden, qWidth)
	add(n.K, d.Hidden, kvWidth)
	add(n.V, d.Hidden, kvWidth)
	add(n.O, qWidth, d.Hidden)
	if d.Mixture != nil {
		add(n.Router, d.Hidden, d.Mixture.Experts)
	}
	add(n.GateUp, d.Hidden, 2*d.FFN)
	add(n.Gate, d.Hidden, d.FFN)
	add(n.Up, d.Hidden, d.FFN)
	add(n.Down, d.FFN, d.Hidden)
	add(n.SharedGate, d.Hidden, 1)
	return list
}

// BlockTensors returns every tensor of a block, names relative to it.
func (d *Description) BlockTensors() []TensorSpec {
	var list []TensorSpec
	norm := func(name string, width int) {
		if name == "" {
			return
		}
		list = append(list, TensorSpec{name + ".weight", []int{width}})
		if d.Norm.Kind == LayerNorm {
			list = append(list, TensorSpec{name + ".bias", []int{width}})
		}
	}
	n := d.Names
	norm(n.AttnNorm, d.Hidden)
	for _, l := range d.BlockLinears() {
		list = append(list, TensorSpec{l.Name + ".weight", l.WeightShape()})
		if l.Bias {
			list = append(list, TensorSpec{l.Name + ".bias", []int{l.Out}})
		}
	}
	list = append(list, d.expertTensors()...)
	if d.QKNorm {
		norm(n.QNorm, d.HeadDim)
		norm(n.KNorm, d.HeadDim)
	}
	norm(n.AttnPostNorm, d.Hidden)
	norm(n.MLPNorm, d.Hidden)
	norm(n.MLPPostNorm, d.Hidden)
	return list
}

// StemTensors returns the tensors of the embedding stage.
func (d *Description) StemTensors() []TensorSpec {
	n := d.Names
	if d.Image != nil {
		return d.imageTensors()
	}
	list := []TensorSpec{{n.Embed + ".weight", []int{d.Vocab, d.Hidden}}}
	if d.LearnedPositions > 0 {
		list = append(list, TensorSpec{n.Positions + ".weight", []int{d.LearnedPositions, d.Hidden}})
	}
	if d.TokenTypes > 0 {
		list = append(list, TensorSpec{n.Types + ".weight", []int{d.TokenTypes, d.Hidden}})
	}
	if n.EmbedNorm != "" {
		list = append(list, TensorSpec{n.EmbedNorm + ".weight", []int{d.Hidden}}, TensorSpec{n.EmbedNorm + ".bias", []int{d.Hidden}})
	}
	return list
}

// HeadLinears returns the linear maps of the head.
func (d *Description) HeadLinears() []Linear {
	n := d.Names
	switch d.Head {
	case HeadLM:
		return []Linear{{Name: n.LMHead, In: d.Hidden, Out: d.Vocab, Bias: d.Bias[n.LMHead]}}
	case HeadScore:
		return []Linear{{Name: n.Score, In: d.Hidden, Out: d.NumLabels, Bias: d.Bias[n.Score]}}
	case HeadFirst:
		return []Linear{{Name: n.Classifier, In: d.Hidden, Out: d.NumLabels, Bias: true}}
	case HeadClassifier:
		return []Linear{
			{Name: n.Pooler, In: d.Hidden, Out: d.Hidden, Bias: true},
			{Name: n.Classifier, In: d.Hidden, Out: d.NumLabels, Bias: true},
		}
	}
	return nil
}

// HeadTensors returns the tensors of the head stage. The weight of a tied LM head is the embedding's.
func (d *Description) HeadTensors() []TensorSpec {
	n := d.Names
	var list []TensorSpec
	if n.FinalNorm != "" {
		list = append(list, TensorSpec{n.FinalNorm + ".weight", []int{d.Hidden}})
		if d.Norm.Kind == LayerNorm {
			list = append(list, TensorSpec{n.FinalNorm + ".bias", []int{d.Hidden}})
		}
	}
	for _, l := range d.HeadLinears() {
		name := l.Name
		if d.Head == HeadLM && d.Tied {
			name = n.Embed
		}
		list = append(list, TensorSpec{name + ".weight", l.WeightShape()})
		if l.Bias {
			list = append(list, TensorSpec{l.Name + ".bias", []int{l.Out}})
		}
	}
	return list
}

// Parameters returns the number of parameters of the model, tied ones once.
func (d *Description) Parameters() int64 {
	count := func(list []TensorSpec) (n int64) {
		for _, t := range list {
			e := int64(1)
			for _, dim := range t.Shape {
				e *= int64(dim)
			}
			n += e
		}
		return n
	}
	total := count(d.StemTensors()) + int64(len(d.Layers))*count(d.BlockTensors()) + count(d.HeadTensors())
	if d.Head == HeadLM && d.Tied {
		total -= int64(d.Vocab) * int64(d.Hidden)
	}
	return total
}
