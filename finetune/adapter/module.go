package adapter

// Kind is what a module does with its weight.
type Kind int

// The kinds of modules.
const (
	Linear    Kind = iota // y = x·Wᵀ, W [out, in]
	Conv1D                // y = x·W, W [in, out]: GPT-2's linear layer
	Embedding             // rows of W [vocabulary, dim]: In is the vocabulary, Out the dimension
	Other                 // norms and whatever else has a weight; no target, but it can be saved whole
)

// String returns the name of the class.
func (k Kind) String() string {
	switch k {
	case Linear:
		return "Linear"
	case Conv1D:
		return "Conv1D"
	case Embedding:
		return "Embedding"
	}
	return "other"
}

// Module is a part of a model with a weight.
type Module struct {
	Path       string // in the Hugging Face class: model.layers.0.self_attn.q_proj
	Kind       Kind
	In, Out    int
	Bias       bool   // the checkpoint has a bias for it
	OutputHead bool   // lm_head, or the head of a classifier
	Weight     string // name of the weight in the checkpoint: mostly Path+".weight", that of the embedding for a tied head
	Tied       bool   // an output head whose weight is that of the input embedding
	Shape      []int  // of the weight as stored
	BiasName   string // name of the bias in the checkpoint, "" without one
}

// Tensor is a tensor in memory, row-major.
type Tensor struct {
	Shape []int
	Data  []float32
}

// Elems returns the number of elements that the shape has.
func (t Tensor) Elems() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}
