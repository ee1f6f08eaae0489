package train

// Event is something that a run tells while it works. Only the fields of its kind are set.
type Event struct {
	Kind    string   `json:"event"`             // prepare, compile, step, eval, checkpoint, warning, done
	Message string   `json:"message,omitempty"` // for people
	Metrics *Metrics `json:"metrics,omitempty"` // step, eval
	Step    int      `json:"step,omitempty"`
	Total   int      `json:"total,omitempty"`
	Seconds float64  `json:"seconds,omitempty"` // how long it took: compile, checkpoint
}

// Metrics is a row of metrics.jsonl.
type Metrics struct {
	Step           int      `json:"step"`
	Epoch          float64  `json:"epoch"`
	Phase          string   `json:"phase,omitempty"` // full or masked, of a sparse fine-tune; epochs count from its start
	Round          int      `json:"round,omitempty"` // from 1
	Loss           *float64 `json:"loss,omitempty"`  // per target token, in nats
	Accuracy       *float64 `json:"tok_acc,omitempty"`
	LR             *float64 `json:"lr,omitempty"`
	Pull           *float64 `json:"pull,omitempty"`      // what the distance to the start adds to the loss
	GradNorm       *float64 `json:"grad_norm,omitempty"` // before clipping
	Skipped        bool     `json:"skipped,omitempty"`
	Tokens         int64    `json:"tokens,omitempty"` // since the start, padding not counted
	TrainedTokens  int64    `json:"trained_tokens,omitempty"`
	TokPerS        float64  `json:"tok_per_s,omitempty"`
	TrainedTokPerS float64  `json:"trained_tok_per_s,omitempty"`
	MemPeak        int64    `json:"mem_peak,omitempty"` // bytes of resident memory, the largest so far
	PadShare       float64  `json:"pad_share"`
	StepMS         float64  `json:"step_ms,omitempty"`
	DataMS         float64  `json:"data_ms,omitempty"`
	CompileMS      float64  `json:"compile_ms,omitempty"`
	EvalLoss       *float64 `json:"eval_loss,omitempty"`
	EvalPPL        *float64 `json:"eval_ppl,omitempty"`
	EvalAccuracy   *float64 `json:"eval_tok_acc,omitempty"`
	// Domains are the losses of the held-out rows by domain, where there are several.
	Domains map[string]float64 `json:"eval_domains,omitempty"`
}

// Summary is what a run came to; summary.json holds it.
type Summary struct {
	Result        string `json:"result"` // directory of the adapter or model, or the sparse file
	Kind          string `json:"kind"`   // adapter, model or sparse
	Steps         int    `json:"steps"`
	Tokens        int64  `json:"tokens"`
	TrainedTokens int64  `json:"trained_tokens"`
	Trainable     int64  `json:"trainable_parameters"`
	Parameters    int64  `json:"parameters"`
	// Of a sparse fine-tune: how many parameters the result changes, and what each phase came to. What follows is the last phase's.
	Kept           int64          `json:"kept_parameters,omitempty"`
	Phases         []PhaseSummary `json:"phases,omitempty"`
	FirstLoss      *float64       `json:"first_loss,omitempty"`
	LastLoss       *float64       `json:"last_loss,omitempty"`
	BestStep       int            `json:"best_step,omitempty"`
	BestEvalLoss   *float64       `json:"best_eval_loss,omitempty"`
	FirstEvalLoss  *float64       `json:"first_eval_loss,omitempty"` // before the first step
	EvalLoss       *float64       `json:"eval_loss,omitempty"`       // of the last evaluation
	StoppedEarly   bool           `json:"stopped_early,omitempty"`
	SkippedSteps   int            `json:"skipped_steps,omitempty"`
	Seconds        float64        `json:"seconds"`
	TokPerS        float64        `json:"tok_per_s"`
	MemPeak        int64          `json:"mem_peak"`
	Backend        string         `json:"backend"`
	FirstStepAfter float64        `json:"first_step_seconds"` // from the start of the run to the end of its first step
}
