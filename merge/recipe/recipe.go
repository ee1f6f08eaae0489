package recipe

// Recipe is a checked recipe. What stands in it is right in itself; whether models have the layers, and methods the parameters, that
// it names is for package plan.
type Recipe struct {
	File string // as given to Parse, for messages
	Text []byte // the document as read
	// Others are the documents of the same file whose results this one uses, for With; nil for a recipe that stands alone.
	Others []byte
	Pos    Pos // of the document's first key

	Method    string // as written; whether there is such a method is not known here
	MethodPos Pos
	Base      *ModelRef // nil when there is none

	// Exactly one of the three is not empty.
	Models  []Source // whole models: no ranges
	Slices  []Slice
	Modules []Module

	Params Params // lowest scope

	DType, OutDType       string // bfloat16, float16, float32, float64 or int64, without "torch."; "" when not given
	DTypePos, OutDTypePos Pos

	TokenizerSource    string    // "union", "base" or a reference; "" when not given
	TokenizerSourceRef *ModelRef // set when TokenizerSource is a reference
	TokenizerPos       Pos       // of the key tokenizer_source
	Tokenizer          *Tokenizer

	ChatTemplate    string // "auto", the name of a template (see ChatTemplates), or Jinja
	ChatTemplatePos Pos

	Align       *Align // nil: models are merged as they are
	Repair      *Repair
	Calibration *Calibration

	SaveAlignment    string // name of the file in the output that keeps the map; "": none
	SaveAlignmentPos Pos

	Evaluate *Evaluate // nil: the result is not measured
	Search   *Search   // nil: parameters are what the recipe says

	Requires []string // features that the recipe counts on, each one of Features

	Name    string // by which other documents of the file use the result; nothing to a recipe that stands alone
	NamePos Pos

	Warnings []Warning
}

// Source is one input: of a slice with a range of layers, of a whole-model merge without.
type Source struct {
	Model      ModelRef
	Params     Params
	LayerRange [2]int // first layer and the one after the last: 0 <= [0] < [1]
	HasRange   bool
	Pos        Pos // of the item
	RangePos   Pos
}

// Slice is a run of output layers. Its sources are distinct models.
type Slice struct {
	Sources []Source // at least one
	Base    *ModelRef
	Params  Params
	Pos     Pos // of the item
}

// Module is the recipe for one part of a model that has several, such as the text and the vision part. Exactly one of Models and
// Slices is not empty.
type Module struct {
	Name   string
	Models []Source
	Slices []Slice
	Params Params
	Pos    Pos // of the name
}

// Sources of a tokenizer that are not a model.
const (
	TokenizerUnion = "union" // all models' tokens
	TokenizerBase  = "base"  // the base model's tokens
)

// Tokenizer says which tokens the output has and where their embeddings come from.
type Tokenizer struct {
	Source          string    // TokenizerUnion, TokenizerBase or "model"
	SourceRef       *ModelRef // set when Source is "model"
	Tokens          []TokenRule
	PadToMultipleOf int // 0: no padding
	Pos             Pos // of the key
}

// TokenKind says where a token's embedding comes from.
type TokenKind string

// The kinds of token rules.
const (
	TokenDefault TokenKind = ""            // no source given: every model must have the token
	TokenModel   TokenKind = "model"       // the same token of Model
	TokenOther   TokenKind = "model_token" // the token From, or the id FromID, of Model
	TokenZero    TokenKind = "zero"        // zeros
)

// TokenRule gives the embedding of one token.
type TokenRule struct {
	Token  string
	Kind   TokenKind
	Model  *ModelRef // for TokenModel and TokenOther
	From   string    // for TokenOther by token
	FromID int       // for TokenOther by id, else -1
	Force  bool      // also for models that have the token
	Pos    Pos       // of the token
}

// ChatTemplates are the names that chat_template takes beside "auto" and Jinja.
func ChatTemplates() []string { return []string{"alpaca", "chatml", "exaone", "llama3", "mistral"} }

// References returns the models whose weights the recipe uses: the base first if there is one, then in document order, each once.
// Models that only a tokenizer rule names are not among them; see TokenizerReferences.
func (r *Recipe) References() []ModelRef {
	var l refList
	l.add(r.Base)
	l.sources(r.Models)
	l.slices(r.Slices)
	for i := range r.Modules {
		l.sources(r.Modules[i].Models)
		l.slices(r.Modules[i].Slices)
	}
	return l
}

// TokenizerReferences returns the models that tokenizer_source and tokenizer name, in document order, each once.
func (r *Recipe) TokenizerReferences() []ModelRef {
	var l refList
	l.add(r.TokenizerSourceRef)
	if r.Tokenizer != nil {
		l.add(r.Tokenizer.SourceRef)
		for i := range r.Tokenizer.Tokens {
			l.add(r.Tokenizer.Tokens[i].Model)
		}
	}
	return l
}

// TokenizerModel returns the model whose tokenizer the output gets; nil where the recipe names none.
func (r *Recipe) TokenizerModel() *ModelRef {
	if r.Tokenizer != nil {
		return r.Tokenizer.SourceRef
	}
	return r.TokenizerSourceRef
}

// refList is a set of references in the order in which they came; recipes name few models, so a list is searched.
type refList []ModelRef

func (l *refList) add(ref *ModelRef) {
	if ref == nil {
		return
	}
	for _, have := range *l {
		if have.Same(*ref) {
			return
		}
	}
	*l = append(*l, *ref)
}

func (l *refList) sources(list []Source) {
	for i := range list {
		l.add(&list[i].Model)
	}
}

func (l *refList) slices(list []Slice) {
	for i := range list {
		s := &list[i]
		first := s.Base != nil && len(s.Sources) > 0 && s.Base.Pos.Compare(s.Sources[0].Model.Pos) < 0
		if first {
			l.add(s.Base)
		}
		l.sources(s.Sources)
		l.add(s.Base)
	}
}
