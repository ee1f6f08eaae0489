package match

import (
	"fmt"

	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
)

// Beginnings of a run (Options.Init).
const (
	Anchors  = "anchors"  // units are first solved one after the other, each by what is fixed or solved already
	Identity = "identity" // as the models are
	Shuffled = "random"   // random permutations
)

// What tensors count in the objective (Options.Normalize).
const (
	None      = "none"   // the sum of inner products: the distance of the canonical forms
	PerTensor = "tensor" // every tensor by its cosine
)

// Options of matching. The zero value is a sound choice.
type Options struct {
	Rounds    int    // of bundles and hub; 0: 5. A round that gains less than 1e-4 of the objective is the last
	MaxIter   int    // sweeps over the units of a network without a hub; 0: 100
	Restarts  int    // further runs from other beginnings and in other orders; the best objective wins
	Seed      uint64 // of the orders and beginnings
	Init      string // Anchors (or "") | Identity | Shuffled
	Normalize string // None (or "") | PerTensor
	Threads   int    // 0: one per processor
	Memory    int64  // bytes that bundles solved at the same time may take; 0: 3 GiB. One bundle is always solved
	// Gram computes the products; nil: on the processor.
	Gram *gram.Engine
	// Verify checks the certificate of every assignment. Result.Certificates counts them.
	Verify bool
	// Scores are given scores of a group's features, of activations for instance: [Size, Size] row-major, entry i, j of the reference's
	// feature i and the other model's feature j, as they are. Lambda is their weight against the correlation of the weights, 0 is 1.
	// Result.Trace then has the gains of the scores that were assigned by.
	Scores func(group string) (score []float32, ok bool)
	Lambda float64
	// Tokens are the rows of the vocabulary tensors that mean the same token in the reference (a) and in the other model (b). Nil: the
	// vocabularies are the same.
	Tokens func() (a, b []int32)
	// NoReport leaves out what needs another pass over both models: Before, After, L2Before, L2After and the verdict stay zero.
	NoReport bool
	// Progress tells how far the current pass is. It is called from one goroutine at a time.
	Progress func(done, total int, what string)
}

// Result of matching.
type Result struct {
	Map *align.Map
	// Before and After are the cosines of all tensors of the spec that count, taken as one vector: of the reference with the other model
	// as it was, and aligned.
	Before, After     float64
	L2Before, L2After float64 // distances of the same
	Moved             float64 // share of the features that are not where they were (of turned streams: none counts)
	Rounds            int     // rounds or sweeps of the best run
	Certificates      int     // of assignments that were verified
	Ancestry          Verdict
	// Pointless says that the models are close as they are, as fine-tunes of one base are: there is nothing to align.
	Pointless bool
	// Trace is the objective after every update: the sum of inner products in canonical form, over the product of the norms. It never
	// falls.
	Trace []float64
}

func (o *Options) fill() error {
	if o.Rounds <= 0 {
		o.Rounds = 5
	}
	if o.MaxIter <= 0 {
		o.MaxIter = 100
	}
	if o.Memory <= 0 {
		o.Memory = 3 << 30
	}
	if o.Gram == nil {
		o.Gram = gram.New(nil, o.Threads)
	}
	if o.Init == "" {
		o.Init = Anchors
	}
	if o.Normalize == "" {
		o.Normalize = None
	}
	if o.Init != Anchors && o.Init != Identity && o.Init != Shuffled {
		return &align.Error{Msg: fmt.Sprintf("init %q is not known", o.Init), Hint: "anchors, identity and random are"}
	}
	if o.Normalize != None && o.Normalize != PerTensor {
		return &align.Error{Msg: fmt.Sprintf("normalize %q is not known", o.Normalize), Hint: "none and tensor are"}
	}
	if o.Lambda < 0 || o.Lambda > 1 || o.Lambda != o.Lambda {
		return &align.Error{Msg: fmt.Sprintf("lambda is %v", o.Lambda), Hint: "it is the share of the given scores, from 0 to 1"}
	}
	if o.Lambda == 0 {
		o.Lambda = 1
	}
	return nil
}

func (o *Options) progress(done, total int, what string) {
	if o.Progress != nil {
		o.Progress(done, total, what)
	}
}
