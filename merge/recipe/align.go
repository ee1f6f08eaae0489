package recipe

import "slices"

// UniverseReference is the reference that is no model: all models are brought to a consensus of them.
const UniverseReference = "universe"

// The ways of finding a map between two models.
const (
	AlignWeight     = "weight"     // the weights alone: coordinate descent over the groups
	AlignActivation = "activation" // correlations of activations on calibration data
	AlignDual       = "dual"       // both: lambda * activations + (1 - lambda) * weights
	AlignSTE        = "ste"        // straight-through gradient of the midpoint's loss
	AlignLearned    = "learned"    // weight matching, then the residual map by gradient descent
)

// What becomes of a model that shares its ancestry with the reference, so that there is nothing to align.
const (
	SameBaseWarn  = "warn"  // align and warn
	SameBaseSkip  = "skip"  // leave the model as it is
	SameBaseForce = "force" // align without a word
)

// Align brings models into the coordinates of a reference before any merge method sees them: units, heads, rotary planes and the
// residual stream are exchanged, turned and scaled, without a change of what the model computes.
type Align struct {
	Pos Pos // of the key

	// Reference is the model whose coordinates count, UniverseReference, or nil for neither: base_model if there is one, else the
	// first model.
	Reference *ModelRef
	Universe  bool

	Method   string // one of the Align constants; default AlignWeight
	Symmetry string // auto (default), permutation, signed or full
	Groups   AlignGroups
	Spec     string // a file with the symmetry spec of the architecture, relative to the recipe; "" (auto) for the built-in one
	SpecPos  Pos

	Rounds    int     // rounds of residual stream and layers in turns; default 5
	Restarts  int     // further runs from other beginnings and in other orders, of which the best counts; default 0
	Normalize string  // none (default): tensors weigh what they do in the distance of the models; tensor: all the same
	Init      string  // where matching begins: anchors (default; one group after the other, each by those before), identity or random
	Seed      uint64  // default 0
	Lambda    float64 // AlignDual: weight of the activations; default 0.5

	Learn Learn // AlignLearned and AlignSTE

	OnSameBase string // one of the SameBase constants; default SameBaseWarn

	Maps []AlignMap // saved alignments to apply in place of matching
}

// AlignGroups narrows which groups are aligned, and how.
type AlignGroups struct {
	Residual string // auto (default), none, permutation, signed or orthogonal
	MLP      bool   // default true
	Heads    bool   // default true
	QK       bool   // default true
	VO       string // none, orthogonal (default) or invertible
}

// Learn is how maps are learned by gradient descent.
type Learn struct {
	Groups  []string   // what AlignLearned learns: residual (default), phases, vo, qk, or ids of groups
	Steps   int        // 0: 500, and 300 for AlignSTE
	LR      float64    // 0: 0.01
	Lambda  [2]float64 // interval from which the place between the models is drawn; default [0.4, 0.6]
	Batch   int        // rows in a step; default 16
	HeldOut float64    // share of the calibration data by which the best step is chosen; default 0.2
	Pos     Pos
}

// AlignMap is a saved alignment (alignment.safetensors) to be applied.
type AlignMap struct {
	Model *ModelRef // whose map it is; nil: of the only model that is aligned
	File  string    // relative to the working directory or to the recipe
	Pos   Pos
}

// The modes of Repair.
const (
	RepairNone        = "none"
	RepairNorms       = "norms"       // row norms of the weights; needs no data
	RepairActivations = "activations" // means and deviations of activations on calibration data
	RepairResetNorm   = "reset_norm"  // running statistics of batch norms on calibration data
)

// Repair restores, after the merge, the scale of units that averaging has shrunk (REPAIR, Jordan et al., 2023).
type Repair struct {
	Pos     Pos    // of the key
	Mode    string // one of the Repair constants; required
	Samples int    // rows of the calibration data that are used; default 2048
}

// Acts says whether anything is repaired. A recipe without the key has a nil Repair.
func (r *Repair) Acts() bool { return r != nil && r.Mode != RepairNone }

// NeedsData says whether the repair measures activations.
func (r *Repair) NeedsData() bool { return r.Mode == RepairActivations || r.Mode == RepairResetNorm }

// Calibration is the data on which activations are measured: text for language models, safetensors files with examples for networks
// that are described layer by layer. Labels are not needed.
type Calibration struct {
	Pos     Pos      // of the key
	Data    []string // files, relative to the working directory or to the recipe; required
	Field   string   // key of a row that holds the text; default "": by the form of the row, as for fine-tuning
	Samples int      // rows that are used, chosen by seed; default 512
	SeqLen  int      // tokens of a row; default 512
	Seed    uint64   // default 0
	Batch   int      // rows that are computed together; default 8

	Divide     float64 // what the numbers of CSV files are divided by, 255 for the bytes of images; default 1
	LabelFirst bool    // labels of CSV files stand before the numbers; default false
}

// Features are the words that requires: may hold: keys that other programs for such recipes would silently ignore.
func Features() []string { return slices.Clone(features) }

var features = []string{"align", "repair", "calibration", "save_alignment", "evaluate", "search"}

// DefaultAlign is an align block that says nothing.
func DefaultAlign() *Align {
	return &Align{
		Method: AlignWeight, Symmetry: "auto", Groups: AlignGroups{Residual: "auto", MLP: true, Heads: true, QK: true, VO: "orthogonal"},
		Rounds: 5, Normalize: "none", Init: "anchors", Lambda: 0.5,
		Learn:      Learn{Groups: []string{"residual"}, Lambda: [2]float64{0.4, 0.6}, Batch: 16, HeldOut: 0.2},
		OnSameBase: SameBaseWarn,
	}
}

func defaultCalibration() *Calibration {
	return &Calibration{Samples: 512, SeqLen: 512, Batch: 8, Divide: 1}
}

// NeedsData says whether the maps are found with data.
func (a *Align) NeedsData() bool {
	return len(a.Maps) == 0 && a.Method != AlignWeight
}
