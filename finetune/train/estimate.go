package train

import (
	"github.com/gomlx/compute/dtypes"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// Estimate is the memory that a run needs, in bytes, and the work of its steps. On a CPU it is that of the whole process.
type Estimate struct {
	Process     int64   `json:"process"`     // program, compiler and rows, whatever the model
	Weights     int64   `json:"weights"`     // frozen, in storage dtype
	Trained     int64   `json:"trained"`     // values, gradients and two moments, float32; with tune: sparse the start and the mask too
	Activations int64   `json:"activations"` // what a pass keeps for the way back
	Block       int64   `json:"block"`       // what one block needs while it goes back
	Logits      int64   `json:"logits"`      // what the head needs: logits of one chunk of targets, and copies of its matrix
	Total       int64   `json:"total"`       // not quite the sum: block and head do not need theirs at one time
	Recompute   bool    `json:"recompute"`   // gradient_checkpointing: block
	Flops       float64 `json:"flops"`       // of a pass over the largest batch, forward and backward
	Tokens      int     `json:"tokens"`      // positions of that batch
	Trainable   int64   `json:"trainable_parameters"`
	Parameters  int64   `json:"parameters"`
}

// What a formula does not tell was measured: peaks of resident memory of SmolLM2-135M on XLA CPU, programs compiled and not cached,
// four steps (TestEstimate has the shapes and figures). The estimate is within a tenth of all of them.
const (
	// The program with XLA's plugin, a tokenizer and rows takes 110 MiB; compiling leaves 340 MiB behind, which a run with cached
	// executables does without.
	processXLA = 450 << 20
	processGo  = 100 << 20
	// Activations and optimizer states are freed and made again in sizes that do not fit the holes of those before: after a few
	// steps the C library's heap is larger than what is in it.
	heapOfActivations = 1.3
	heapOfTrained     = 1.25
	// Copies of one chunk's logits: themselves, their softmax, their gradient.
	logitCopies = 3.1
	// Copies of one block's scores, S x S for each head, on the way back: masked, softmax, and the gradients of each.
	scoreCopies = 5
)

// headCopies is how many float32 copies of the head's matrix its stage makes: widened for each of its two products where the file
// has 16 bits, laid out anew for one of them where it has not; the slice of the packed vector, its gradient and their sums where
// the matrix trains.
func headCopies(trains, widened bool) int64 {
	switch {
	case trains:
		return 5
	case widened:
		return 2
	}
	return 1
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
	e.Process = processXLA
	if cfg.Run.Backend == "go" {
		e.Process = processGo
	}
	e.Trained = 16 * e.Trainable
	if s.sparse != nil { // and the value at the start, and whether it is chosen
		e.Trained += 5 * e.Trainable
		if s.sparse.rounds > 1 {
			e.Trained += 4 * e.Trainable // the value at the start of the round
		}
	}
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
	widened := on16 && width == 4 && stored16(s)
	e.Block = 2*saved + scoreCopies*scores + 2*input
	if widened {
		e.Block += 8 * products // for the product of each direction
	}
	layers := int64(len(d.Layers))
	if e.Recompute {
		e.Activations = layers * input
		e.Block += saved
	} else {
		e.Activations = layers * (input + saved)
	}
	if d.Head == model.HeadLM {
		m := &model.Model{D: d}
		e.Logits = int64(logitCopies * 4 * float64(m.ChunkRows(int(positions), cfg.Train.LossChunk)) * float64(d.Vocab))
		if matrix := 4 * int64(d.Vocab) * int64(d.Hidden); width == 4 {
			e.Logits += headCopies(s.trainsHead(), widened) * matrix
		}
	}
	e.Total = e.Process + e.Weights + int64(heapOfTrained*float64(e.Trained)+heapOfActivations*float64(e.Activations)) + max(e.Block, e.Logits)
	base := d.Shapes()
	head := int64(0)
	if d.Head == model.HeadLM {
		head = int64(d.Hidden) * int64(d.Vocab)
	}
	// Forward two operations a weight, backward two for the input; two more for the gradient of what trains whole, six for each
	// weight of an adapter, and a second forward pass with recomputation. Attention: scores and sums, twice backward.
	perToken := float64(layers*products)*4 + float64(head)*4
	for name, t := range s.overlay.Tensors {
		n := int64(1)
		for _, k := range t.Shape {
			n *= int64(k)
		}
		switch _, whole := base[name]; {
		case !whole:
			perToken += 6 * float64(n)
		case len(t.Shape) > 1 && !(name == d.Names.Embed+".weight" && !s.trainsHead()): // rows are looked up, not multiplied
			perToken += 2 * float64(n)
		}
	}
	if e.Recompute {
		perToken += 2 * float64(layers*products)
	}
	attention := 12 * float64(d.Heads*d.HeadDim) * float64(length) * float64(layers)
	e.Flops = (perToken + attention) * float64(positions)
	return e
}

// stored16 tells whether the file holds the embedding in 16 bits, as it then holds the rest.
func stored16(s *subject) bool {
	info, ok := s.desc.Find(s.ckpt, s.desc.Names.Embed+".weight")
	return ok && info.DType.Size() == 2
}

// trainsHead tells whether the matrix of the language-model head is trained whole.
func (s *subject) trainsHead() bool {
	_, own := s.overlay.Tensors[s.desc.Names.LMHead+".weight"]
	_, embedding := s.overlay.Tensors[s.desc.Names.Embed+".weight"]
	return own || (embedding && s.desc.Tied && !s.overlay.Untied)
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
