package config

// Config is a run of fine-tuning with nothing left to decide: every default is filled in.
//
// The tags name the keys of the file. Behind the name, "null" or "auto" is how the zero value is written; oneof lists the words that a
// key takes.
type Config struct {
	// Version of this format; 1.
	Version int `yaml:"version"`
	// Run is where the run is kept and where it computes.
	Run Run `yaml:"run"`
	// Model is what is tuned.
	Model Model `yaml:"model"`
	// Method is what is learnt from: sft (answers of examples) or cpt (continued pre-training on plain text).
	Method string `yaml:"method"`
	// Tune is which weights learn: lora (low-rank adapters), dora (lora with a learnt magnitude per output), full (all), head (the
	// output layer alone) or sparse (a few entries of all tensors, chosen by what full tuning changes most).
	Tune string `yaml:"tune" oneof:"lora|dora|full|head|sparse"`
	// LoRA describes the adapters; it has no effect with tune full, head and sparse.
	LoRA LoRA `yaml:"lora"`
	// Sparse describes a sparse fine-tune; it has no effect with another tune.
	Sparse Sparse `yaml:"sparse"`
	// Data is the rows and what becomes of them.
	Data Data `yaml:"data"`
	// Optim is the optimizer.
	Optim Optim `yaml:"optim"`
	// Schedule is the curve of the learning rate.
	Schedule Schedule `yaml:"schedule"`
	// Train is the loop.
	Train Train `yaml:"train"`
	// MethodArgs are the arguments of the method; sft and cpt have none.
	MethodArgs map[string]any `yaml:"method_args"`
	// Reference is the frozen model that preference methods compare with.
	Reference Reference `yaml:"reference"`
	// Eval is when the valid rows are measured, and what follows from it.
	Eval Eval `yaml:"eval"`
	// Save is when checkpoints are written and what the result looks like.
	Save Save `yaml:"save"`
	// Log is what is written about the run while it runs.
	Log Log `yaml:"log"`
}

// Run is where the run is kept and where it computes.
type Run struct {
	// Name of the run, for logs and pages; by default the last part of output_dir, or else the file's name.
	Name string `yaml:"name"`
	// OutputDir gets the result, the checkpoints and the logs; by default out/NAME. It is relative to the working directory.
	OutputDir string `yaml:"output_dir"`
	// Seed of everything random: initial values, order of rows, dropout.
	Seed int64 `yaml:"seed"`
	// Deterministic asks the compiler for kernels that give the same bits each time, where the default ones do not.
	Deterministic bool `yaml:"deterministic"`
	// Backend is what computes: auto, go, xla:cpu, xla:cuda or the path of a PJRT plugin. The key device is read as this one, with cpu for
	// xla:cpu and cuda for xla:cuda.
	Backend string `yaml:"backend"`
	// Threads of the host; auto is one for each processor.
	Threads int `yaml:"threads,auto"`
}

// Model is what is tuned.
type Model struct {
	// Base is the directory of the checkpoint to start from.
	Base string `yaml:"base"`
	// DType in which frozen weights are kept and products computed: auto, float32 or bfloat16. auto is bfloat16 on a GPU and float32
	// elsewhere. What learns is kept in float32 always.
	DType string `yaml:"dtype" oneof:"auto|float32|bfloat16"`
	// AdapterIn is the directory of an adapter to begin with; null for none.
	AdapterIn string `yaml:"adapter_in,null"`
	// AdapterInMode is what becomes of it: continue (train it further), merge (into the base, below a new adapter) or stack (keep it
	// frozen beside a new adapter).
	AdapterInMode string `yaml:"adapter_in_mode" oneof:"continue|merge|stack"`
}

// LoRA describes the adapters, in PEFT's words.
type LoRA struct {
	// R is the rank.
	R int `yaml:"r"`
	// Alpha over r (over the root of r with use_rslora) scales what the adapter adds; 2 r if not given.
	Alpha float64 `yaml:"alpha"`
	// Dropout of what enters the adapter, as a probability.
	Dropout float64 `yaml:"dropout"`
	// TargetModules get an adapter: all-linear, a list of names or ends of names, or one regular expression for whole names.
	TargetModules Modules `yaml:"target_modules"`
	// ExcludeModules get none although they are targets: a list of names or ends of names, or one regular expression.
	ExcludeModules Modules `yaml:"exclude_modules"`
	// ModulesToSave are trained whole and saved with the adapter.
	ModulesToSave []string `yaml:"modules_to_save"`
	// Bias says which biases learn: none, all or lora_only (those of the targets).
	Bias string `yaml:"bias" oneof:"none|all|lora_only"`
	// UseRSLoRA scales by alpha over the root of r.
	UseRSLoRA bool `yaml:"use_rslora"`
	// UseDoRA learns a magnitude for each output beside the adapter; the same as tune: dora.
	UseDoRA bool `yaml:"use_dora"`
	// Init is how the adapter begins: default (A uniform, B zero), gaussian, pissa, pissa_niter_K, olora, orthogonal, or false (both
	// random, for tests).
	Init string `yaml:"init"`
	// RankPattern gives other ranks to modules whose name it ends or matches; the first that fits counts.
	RankPattern []RankRule `yaml:"rank_pattern"`
	// AlphaPattern gives other alphas in the same way.
	AlphaPattern []AlphaRule `yaml:"alpha_pattern"`
	// LayersToTransform are the only layers that get adapters, counted from 0; null for all.
	LayersToTransform []int `yaml:"layers_to_transform,null"`
	// LayersPattern is the name of the list of layers, where it is none of the usual; null to find it.
	LayersPattern string `yaml:"layers_pattern,null"`
	// Tie is what happens when a matrix learns that embedding and output share: refuse, untie (two matrices from then on) or keep (one
	// matrix, saved under both names).
	Tie string `yaml:"tie" oneof:"refuse|untie|keep"`
}

// Modules selects modules by name. At most one of its fields is set.
type Modules struct {
	// AllLinear is every linear layer but the output layer.
	AllLinear bool
	// Pattern is a regular expression that the whole name must match.
	Pattern string
	// Names are whole names, or ends of names that begin after a dot.
	Names []string
}

// RankRule is an entry of lora.rank_pattern.
type RankRule struct {
	Module string // regular expression for the name or an end of it that begins after a dot
	R      int
}

// AlphaRule is an entry of lora.alpha_pattern.
type AlphaRule struct {
	Module string // regular expression for the name or an end of it that begins after a dot
	Alpha  float64
}

// Sparse is how tune: sparse chooses the entries that learn, as LT-SFT does (Ansell et al., 2022, "Composable sparse fine-tuning for
// cross-lingual transfer"): everything is tuned, the entries that moved most are kept, all goes back to the start, and those alone are
// tuned again.
type Sparse struct {
	// Count is how many entries the result changes, exactly; null for a share.
	Count int `yaml:"count,null"`
	// Share is the same as a share of the entries that may change. It is 0.0 where count is given.
	Share float64 `yaml:"share"`
	// Rounds is how often both phases are gone through; each adds its part of the entries.
	Rounds int `yaml:"rounds"`
	// Full is the first phase, in which everything learns.
	Full SparsePhase `yaml:"full"`
	// Masked is the second phase, in which the chosen entries learn.
	Masked SparsePhase `yaml:"masked"`
	// Norms says what becomes of normalisation layers: frozen, sparse (entries are chosen from them too) or whole (all of them learn,
	// and are stored whole).
	Norms string `yaml:"norms" oneof:"frozen|sparse|whole"`
	// Embeddings says the same of the tables in front of the first block, and of a head that is the same matrix.
	Embeddings string `yaml:"embeddings" oneof:"frozen|sparse|whole"`
	// Head says the same of the output layer; auto is whole for one that tells classes, and frozen for one that tells tokens.
	Head string `yaml:"head" oneof:"auto|frozen|sparse|whole"`
	// ExcludeModules stay frozen: a list of names or ends of names, or one regular expression for whole names.
	ExcludeModules Modules `yaml:"exclude_modules"`
	// OnTopOf are sparse files that are added to the base before the start, such as a language's below a task; null for none.
	OnTopOf []string `yaml:"on_top_of,null"`
}

// SparsePhase is one of the two phases of a sparse fine-tune.
type SparsePhase struct {
	// Epochs over the train rows; null for those of train, if max_steps is null too.
	Epochs float64 `yaml:"epochs,null"`
	// MaxSteps, if given, counts in place of epochs.
	MaxSteps int `yaml:"max_steps,null"`
	// Reg pulls what learns to the start: it times the sum of the distances, over the number of parameters of the model, is added to the
	// loss.
	Reg float64 `yaml:"reg"`
}

// Data is the rows and what becomes of them.
type Data struct {
	// Train are the rows to learn from. A path alone, or a list of paths, is read as sources with defaults.
	Train []Source `yaml:"train"`
	// Valid are the rows to measure with; none is allowed.
	Valid []Source `yaml:"valid"`
	// ValidSplit is the share of the train rows to measure with instead, if there is no valid.
	ValidSplit float64 `yaml:"valid_split"`
	// ChatTemplate is a file with a Jinja template or the name of a built-in one; null for the tokenizer's own.
	ChatTemplate string `yaml:"chat_template,null"`
	// TrainOn says which tokens are learnt: assistant, completion, last (the last answer), all, or auto by the rows' format.
	TrainOn string `yaml:"train_on" oneof:"auto|assistant|completion|last|all"`
	// MaxLength is the most tokens of a sequence.
	MaxLength int `yaml:"max_length"`
	// Truncation of longer rows: keep_start or drop.
	Truncation string `yaml:"truncation" oneof:"keep_start|drop"`
	// Packing of several rows into one sequence: none, bfd (best fit), bfd_split (long rows are split first), wrapped (one stream, cut
	// every max_length tokens) or auto.
	Packing string `yaml:"packing" oneof:"auto|none|bfd|bfd_split|wrapped"`
	// Buckets are the lengths to which sequences are padded, ascending; auto chooses a few.
	Buckets []int `yaml:"buckets,auto"`
	// Shuffle the rows anew each epoch; false keeps the order of the files.
	Shuffle bool `yaml:"shuffle"`
	// OnBadRow says what happens at a row that cannot be read: error, or skip (with a count).
	OnBadRow string `yaml:"on_bad_row" oneof:"error|skip"`
	// Replay mixes rows of another set into the train rows, against forgetting.
	Replay Replay `yaml:"replay"`
}

// Source is a file of rows, or a folder with train.jsonl and valid.jsonl.
type Source struct {
	// Path of the file or folder.
	Path string `yaml:"path"`
	// Format of its rows: auto, messages, sharegpt, prompt_completion, alpaca, text, classification (text with a label) or tokens.
	Format string `yaml:"format" oneof:"auto|messages|sharegpt|prompt_completion|alpaca|text|classification|tokens"`
	// Weight is how often an epoch takes each row: 1 once, 2 twice, 0.5 every second one (by the seed).
	Weight float64 `yaml:"weight"`
	// Domain is a name under which its loss is shown too; null for none.
	Domain string `yaml:"domain,null"`
}

// Replay is a set of rows mixed into the train rows.
type Replay struct {
	// Path of the file; null for none.
	Path string `yaml:"path,null"`
	// Fraction of all rows of an epoch that are replayed ones.
	Fraction float64 `yaml:"fraction"`
}

// Optim is the optimizer.
type Optim struct {
	// Name of the optimizer: adamw.
	Name string `yaml:"name" oneof:"adamw"`
	// LR is the highest learning rate.
	LR float64 `yaml:"lr"`
	// Betas are the decay rates of the two moments.
	Betas [2]float64 `yaml:"betas"`
	// Eps is added to the root of the second moment.
	Eps float64 `yaml:"eps"`
	// WeightDecay, as AdamW applies it.
	WeightDecay float64 `yaml:"weight_decay"`
	// DecayAll lets it act on vectors (norms, biases, magnitudes) too, not on matrices alone.
	DecayAll bool `yaml:"decay_all"`
	// Clip is the largest norm of the gradient; 0 does not clip.
	Clip float64 `yaml:"clip"`
	// LoRAPlusRatio multiplies the learning rate of the adapters' B matrices (LoRA+).
	LoRAPlusRatio float64 `yaml:"lora_plus_ratio"`
}

// Schedule is the curve of the learning rate.
type Schedule struct {
	// Kind of curve: linear, cosine, constant, inv_sqrt, wsd, infinite or rewarm.
	Kind string `yaml:"kind"`
	// WarmupRatio is the share of all steps that warm up; rounded up.
	WarmupRatio float64 `yaml:"warmup_ratio"`
	// WarmupSteps, if given, counts in place of warmup_ratio.
	WarmupSteps int `yaml:"warmup_steps,null"`
	// MinLRRatio is the lowest learning rate at the end, as a share of the highest.
	MinLRRatio float64 `yaml:"min_lr_ratio"`
	// DecayRatio is the share of all steps that decay at the end, for wsd and infinite.
	DecayRatio float64 `yaml:"decay_ratio"`
	// Decay is the shape of wsd's end: linear, 1-sqrt or cosine.
	Decay string `yaml:"decay" oneof:"linear|1-sqrt|cosine"`
	// ConstLRRatio is the learning rate of infinite's long middle, as a share of the highest.
	ConstLRRatio float64 `yaml:"const_lr_ratio"`
	// CooldownRatio is the share of all steps in which infinite comes down to it.
	CooldownRatio float64 `yaml:"cooldown_ratio"`
	// Cooldown is the shape of that: cosine, inv_sqrt or linear.
	Cooldown string `yaml:"cooldown" oneof:"cosine|inv_sqrt|linear"`
	// Offset is where the curve is read for step t, counted from 1: none at t; hf at t-1, as transformers does (the first step of a
	// warm-up learns nothing); late_decay at t in the warm-up and at t-1 after it, so that neither end wastes a step at 0.
	Offset string `yaml:"offset" oneof:"none|hf|late_decay"`
}

// Train is the loop.
type Train struct {
	// Epochs over the train rows; a fraction ends within one.
	Epochs float64 `yaml:"epochs"`
	// MaxSteps, if given, counts in place of epochs.
	MaxSteps int `yaml:"max_steps,null"`
	// MicroBatch is the sequences of one pass.
	MicroBatch int `yaml:"micro_batch"`
	// GradAccum is the passes of one optimizer step.
	GradAccum int `yaml:"grad_accum"`
	// Replicas is the devices of this host among which a micro batch's rows are divided.
	Replicas int `yaml:"replicas"`
	// GradientCheckpointing computes each block's inside again in the backward pass, in place of keeping it: none, block or auto.
	GradientCheckpointing string `yaml:"gradient_checkpointing" oneof:"auto|none|block"`
	// LossChunk is the tokens whose logits exist at a time; auto by the size of the vocabulary.
	LossChunk int `yaml:"loss_chunk,auto"`
	// BlocksPerCall is how many blocks, and chunks of loss_chunk tokens, the device goes through between two waits. More may make small
	// models faster on a GPU; it takes longer to compile, and memory that the estimate does not count.
	BlocksPerCall int `yaml:"blocks_per_call"`
}

// Reference is the frozen model that preference methods compare with.
type Reference struct {
	// Mode is what it is: auto, base or adapter.
	Mode string `yaml:"mode" oneof:"auto|base|adapter"`
	// Precompute its log-probabilities once, before training.
	Precompute bool `yaml:"precompute"`
}

// Eval is when the valid rows are measured, and what follows from it.
type Eval struct {
	// Every so many steps, or so large a share of all.
	Every Every `yaml:"every"`
	// MaxBatches is the most batches of one evaluation, of each domain if the rows have several; -1 for all.
	MaxBatches int `yaml:"max_batches"`
	// SaveBest keeps the checkpoint with the lowest loss on the valid rows, and makes it the result.
	SaveBest bool `yaml:"save_best"`
	// EarlyStopping ends a run that no longer gets better.
	EarlyStopping EarlyStopping `yaml:"early_stopping"`
}

// EarlyStopping ends a run that no longer gets better.
type EarlyStopping struct {
	// Patience is how many evaluations in a row may bring nothing better; null never stops.
	Patience int `yaml:"patience,null"`
	// MinDelta is by how much the loss must fall to count as better.
	MinDelta float64 `yaml:"min_delta"`
}

// Save is when checkpoints are written and what the result looks like.
type Save struct {
	// Every so many steps, or so large a share of all.
	Every Every `yaml:"every"`
	// Keep is how many of the newest checkpoints stay, beside the best.
	Keep int `yaml:"keep"`
	// Format of the adapter: peft.
	Format string `yaml:"format" oneof:"peft"`
	// Compat is which keys adapter_config.json has: full (those of a current peft) or minimal (those that older ones know).
	Compat string `yaml:"compat" oneof:"full|minimal"`
}

// Log is what is written about the run while it runs.
type Log struct {
	// Every so many steps a row goes into metrics.jsonl.
	Every Every `yaml:"every"`
	// Plot writes report.html, a page with the run's curves.
	Plot bool `yaml:"plot"`
	// TensorBoard writes event files into the run's folder tensorboard, with the names of transformers' Trainer.
	TensorBoard bool `yaml:"tensorboard"`
}

// Every says how often something happens: a number of steps, or a share of all steps. The zero Every is never.
type Every struct {
	// Steps between two times; 0 if a share is given.
	Steps int
	// Fraction of all steps, above 0 and at most 1; 0 if steps are given.
	Fraction float64
}

// Due says whether it happens after step, of total steps, both counted from 1. The last step of a share is always due; that of a
// number of steps only if the number divides it.
func (e Every) Due(step, total int) bool {
	n := e.Interval(total)
	return n > 0 && (step%n == 0 || e.Fraction > 0 && step == total)
}

// Interval is the number of steps between two times in a run of total steps; 0 for never.
func (e Every) Interval(total int) int {
	if e.Fraction > 0 {
		return max(1, int(e.Fraction*float64(total)+0.5))
	}
	return e.Steps
}
