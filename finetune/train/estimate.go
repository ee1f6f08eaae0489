package train

import (
	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// Estimate is the memory that a run needs on its device, in bytes, and the work of its steps.
type Estimate struct {
	Weights     int64   `json:"weights"`     // frozen, in storage dtype
	Trained     int64   `json:"trained"`     // values, gradients and two moments, float32
	Activations int64   `json:"activations"` // what a pass keeps for the way back
	Block       int64   `json:"block"`       // what one block needs while it is computed
	Logits      int64   `json:"logits"`      // of one chunk of targets, with their gradient
	Total       int64   `json:"total"`
	Recompute   bool    `json:"recompute"` // gradient_checkpointing: block
	Flops       float64 `json:"flops"`     // of a pass over the largest batch, forward and backward
	Tokens      int     `json:"tokens"`    // positions of that batch
	Trainable   int64   `json:"trainable_parameters"`
	Parameters  int64   `json:"parameters"`
}

// estimate adds up what a run over batches of rows x length keeps. on16 says that weights stay in the 16 bits of the file;
// compute is the dtype of activations.
func (s *subject) estimate(cfg *config.Config, rows, length int, on16 bool, compute dtypes.DType) Estimate {
	d := s.desc
	e := Estimate{Tokens: rows * length, Trainable: s.trained(), Parameters: d.Parameters(), Recompute: cfg.Train.GradientCheckpointing == "block"}
	size := func(prefix string, list []model.TensorSpec) (bytes, elems int64) {
		for _, t := range list {
			n := int64(1)
			for _, k := range t.Shape {
				n *= int64(k)
			}
			if _, own := s.overlay.Tensors[prefix+t.Name]; own {
				continue
			}
			wide := int64(4)
			if info, ok := d.Find(s.ckpt, prefix+t.Name); ok && on16 && (info.DType == tensors.BF16 || info.DType == tensors.F16) {
				wide = 2
			}
			bytes += n * wide
			elems += n
		}
		return bytes, elems
	}
	add := func(prefix string, list []model.TensorSpec) { b, _ := size(prefix, list); e.Weights += b }
	add("", d.StemTensors())
	if !d.Tied || d.Head != model.HeadLM {
		add("", d.HeadTensors())
	}
	for i := range d.Layers {
		add(d.LayerName(i, ""), d.BlockTensors())
	}
	e.Trained = 16 * e.Trainable
	width := int64(compute.Size())
	positions := int64(rows) * int64(length)
	var outs, products int64
	for _, l := range d.BlockLinears() {
		outs += int64(l.Out)
		products += int64(l.In) * int64(l.Out)
	}
	input := positions * int64(d.Hidden) * width
	saved := positions * (outs - int64(d.Hidden)) * width
	scores := 4 * int64(rows) * int64(d.Heads) * int64(length) * int64(length)
	e.Block = 2*saved + 2*scores + 4*input
	layers := int64(len(d.Layers))
	if e.Recompute {
		e.Activations = layers * input
		e.Block += saved
	} else {
		e.Activations = layers * (input + saved)
	}
	m := &model.Model{D: d}
	if d.Head == model.HeadLM {
		e.Logits = 3 * 4 * int64(m.ChunkRows(int(positions), cfg.Train.LossChunk)) * int64(d.Vocab)
	}
	e.Total = e.Weights + e.Trained + e.Activations + e.Block + e.Logits
	head := int64(0)
	if d.Head == model.HeadLM {
		head = int64(d.Hidden) * int64(d.Vocab)
	}
	// Forward two operations a weight, backward two for the input; two more for the gradient of what trains whole, and a second
	// forward pass with recomputation. Attention: scores and sums, twice backward.
	perToken := float64(layers*products)*4 + float64(head)*4 + 6*float64(e.Trainable)
	if e.Recompute {
		perToken += 2 * float64(layers*products)
	}
	attention := 12 * float64(d.Heads*d.HeadDim) * float64(length) * float64(layers)
	e.Flops = (perToken + attention) * float64(positions)
	return e
}

// settle chooses gradient_checkpointing: auto: recomputation where keeping everything would fill more than two thirds of the
// machine's memory. On a GPU its own memory is not known here; a block is recomputed when activations pass 16 GiB.
func settle(e Estimate, setting string, onGPU bool) bool {
	switch setting {
	case "block":
		return true
	case "none":
		return false
	}
	if onGPU {
		return e.Activations > 16<<30
	}
	total := memory.Total()
	return total > 0 && e.Total > total*2/3
}
