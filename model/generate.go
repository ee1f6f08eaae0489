package model

import (
	"context"
	"slices"
	"time"

	gt "github.com/gomlx/gomlx/core/tensors"
)

// GenerateOptions say how texts are continued.
type GenerateOptions struct {
	Sampling
	MaxTokens int   // most new tokens of a text; 0: 256
	EOS       []int // tokens that end a text; nil: the model's
	// First is the number of the first text, on which sampling depends: whoever generates many texts in several batches counts on.
	First int
	// Token is told every new token but the ending one. It ends the text by returning true. It may be nil.
	Token func(text int, id int32) (stop bool)
	// Compiling is told before the first pass of every shape, which takes its time. It may be nil.
	Compiling func(what string)
}

// Reason says why a text ended.
type Reason string

// The reasons.
const (
	EndOfText  Reason = "eos"     // an ending token
	OutOfRoom  Reason = "length"  // MaxTokens
	Stopped    Reason = "stop"    // Token said so
	OutOfTable Reason = "context" // the model has no positions beyond
)

// Generated is the continuation of a text.
type Generated struct {
	IDs    []int32 // without the ending token
	Reason Reason
}

// GenerateStats measure a generation.
type GenerateStats struct {
	PromptTokens, NewTokens int
	First                   time.Duration // until the first new tokens, with compilation
	// Steady are the tokens and the time of steps for which nothing was compiled.
	SteadyTokens int
	SteadyTime   time.Duration
}

// TokensPerSecond is the rate of new tokens without compilation, 0 when nothing was measured.
func (s GenerateStats) TokensPerSecond() float64 {
	if s.SteadyTime <= 0 {
		return 0
	}
	return float64(s.SteadyTokens) / s.SteadyTime.Seconds()
}

// chunkColumns is the longest piece in which prompts are read: what lies between two blocks stays small.
const chunkColumns = 512

// prefillColumns rounds the length of a prompt up to one of few.
func prefillColumns(n int) int {
	for _, c := range []int{16, 32, 48, 64, 96, 128, 192, 256, 384, chunkColumns} {
		if n <= c {
			return c
		}
	}
	return (n + chunkColumns - 1) / chunkColumns * chunkColumns
}

// generation is a batch of texts on their way.
type generation struct {
	m      *Model
	o      GenerateOptions
	texts  [][]int32 // prompt and what came after
	prompt []int     // lengths of prompts
	out    []Generated
	cache  *cache
	widths map[int]bool // numbers of columns that were compiled for the present capacity
	span   int          // positions of the longest text so far, on which rotary tables may depend
}

// canGenerate refuses models that cannot continue a text.
func (m *Model) canGenerate() error {
	if m.D.Head != HeadLM {
		return badInput("a %s has no language-model head, so it cannot continue a text", m.D.ClassName())
	}
	for _, k := range m.D.Layers {
		if !k.Causal {
			return badInput("a %s whose attention looks ahead cannot continue a text", m.D.ClassName())
		}
	}
	return nil
}

// ClassName is how messages call the model's class.
func (d *Description) ClassName() string {
	if d.Architecture != "" {
		return d.Architecture
	}
	return d.ModelType + " model"
}

// Generate continues prompts, all together. It reads them in pieces, remembers keys and values, and computes one column of tokens
// a step. A text that has ended keeps its place until all have.
func (m *Model) Generate(ctx context.Context, prompts [][]int32, o GenerateOptions) ([]Generated, GenerateStats, error) {
	var stats GenerateStats
	if err := m.canGenerate(); err != nil {
		return nil, stats, err
	}
	if err := o.Validate(); err != nil {
		return nil, stats, err
	}
	if o.MaxTokens <= 0 {
		o.MaxTokens = 256
	}
	if o.EOS == nil {
		o.EOS = m.D.EOS
	}
	g := &generation{m: m, o: o, out: make([]Generated, len(prompts)), widths: map[int]bool{}}
	for i, p := range prompts {
		if len(p) == 0 {
			return nil, stats, badInput("prompt %d has no token; give at least the token that begins a text", o.First+i+1)
		}
		if n := m.D.LearnedPositions; n > 0 && len(p) >= n {
			return nil, stats, badInput("prompt %d has %d tokens, and the model's table of positions has %d rows; shorten it", o.First+i+1, len(p), n)
		}
		g.texts = append(g.texts, slices.Clone(p))
		g.prompt = append(g.prompt, len(p))
		stats.PromptTokens += len(p)
	}
	if len(prompts) == 0 {
		return nil, stats, nil
	}
	defer func() { g.cache.free() }()
	err := g.run(ctx, &stats)
	for i := range g.out {
		stats.NewTokens += len(g.out[i].IDs)
	}
	return g.out, stats, err
}

// run is the loop over steps.
func (g *generation) run(ctx context.Context, stats *GenerateStats) error {
	start := time.Now()
	logits, err := g.prefill(ctx)
	if err != nil {
		return err
	}
	stats.First = time.Since(start)
	for step := 0; ; step++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		column, alive := g.choose(logits, step)
		if alive == 0 {
			return nil
		}
		start := time.Now()
		fresh := false
		if g.grow() {
			logits, err = g.prefill(ctx)
			fresh = true
		} else {
			logits, fresh, err = g.step(column)
		}
		if err != nil {
			return err
		}
		if !fresh {
			stats.SteadyTokens += alive
			stats.SteadyTime += time.Since(start)
		}
	}
}

// choose takes the next token of every text that has not ended, and returns the new column with the number of texts that go on.
func (g *generation) choose(logits []float32, step int) (column []int32, alive int) {
	vocab := g.m.D.Vocab
	column = make([]int32, len(g.texts))
	for i := range g.texts {
		if g.out[i].Reason != "" {
			continue
		}
		id := g.o.Choose(logits[i*vocab:(i+1)*vocab], g.texts[i], uint64(g.o.First+i), uint64(step))
		if slices.Contains(g.o.EOS, int(id)) {
			g.out[i].Reason = EndOfText
			continue
		}
		column[i] = id
		g.texts[i] = append(g.texts[i], id)
		g.out[i].IDs = append(g.out[i].IDs, id)
		table := g.m.D.LearnedPositions
		switch {
		case g.o.Token != nil && g.o.Token(i, id):
			g.out[i].Reason = Stopped
		case len(g.out[i].IDs) >= g.o.MaxTokens:
			g.out[i].Reason = OutOfRoom
		case table > 0 && len(g.texts[i]) >= table:
			g.out[i].Reason = OutOfTable
		default:
			alive++
		}
	}
	return column, alive
}

// grow brings span up to the longest text, and reports whether that needs another rotary table than what is remembered: texts that
// grow beyond the length on which longrope was trained are read again with the long factors, as Phi-3 does it. The span never
// shrinks, or keys of a text that outlives the longest one would have been turned by another table than its queries.
func (g *generation) grow() (other bool) {
	before := g.span
	for _, t := range g.texts {
		g.span = max(g.span, len(t))
	}
	for _, r := range g.m.D.Ropes {
		other = other || (r.Type == "longrope" && before <= r.Original && g.span > r.Original)
	}
	return other
}

// prefill reads all texts from their beginning, padded on the left to one length, and returns the logits after them.
func (g *generation) prefill(ctx context.Context) ([]float32, error) {
	m, rows := g.m, len(g.texts)
	columns := 0
	for _, t := range g.texts {
		columns = max(columns, len(t))
	}
	g.span = max(g.span, columns)
	columns = prefillColumns(columns)
	first := make([]int32, rows)
	ids, positions := make([]int32, rows*columns), make([]int32, rows*columns)
	for r, t := range g.texts {
		first[r] = int32(columns - len(t))
		for i, id := range t {
			at := r*columns + columns - len(t) + i
			ids[at], positions[at] = id, int32(i)
		}
	}
	g.cache.free()
	var err error
	if g.cache, err = m.newCache(first, columns+min(g.o.MaxTokens, 64)); err != nil {
		return nil, err
	}
	g.widths = map[int]bool{}
	var h *gt.Tensor
	for from := 0; from < columns; from += chunkColumns {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		free(h)
		n := min(chunkColumns, columns-from)
		in := Input{Rows: rows, Length: n}
		for r := range rows {
			at := r*columns + from
			in.IDs = append(in.IDs, ids[at:at+n]...)
			in.Positions = append(in.Positions, positions[at:at+n]...)
		}
		if h, err = g.pass(in); err != nil {
			return nil, err
		}
	}
	defer func() { free(h) }()
	return m.next(h)
}

// step computes a column. fresh says that something was compiled for it.
func (g *generation) step(column []int32) (logits []float32, fresh bool, err error) {
	in := Input{Rows: len(column), Length: 1, IDs: column}
	for i, t := range g.texts {
		// The position of what was added last; texts that ended stay where they are.
		p := max(len(t)-1, 0)
		if g.out[i].Reason != "" {
			in.IDs[i] = t[p]
		}
		in.Positions = append(in.Positions, int32(p))
	}
	capacity := g.cache.capacity
	fresh = !g.widths[1] || g.cache.used+1 > capacity
	h, err := g.pass(in)
	if err != nil {
		return nil, fresh, err
	}
	defer free(h)
	logits, err = g.m.next(h)
	return logits, fresh, err
}

// pass computes new columns of all texts.
func (g *generation) pass(in Input) (*gt.Tensor, error) {
	if g.cache.used+in.Length > g.cache.capacity {
		g.widths = map[int]bool{}
	}
	if !g.widths[in.Length] && g.o.Compiling != nil {
		g.o.Compiling(passName(in))
	}
	in, err := g.m.D.check(in)
	if err != nil {
		return nil, err
	}
	h, err := g.cache.append(in, g.span)
	g.widths[in.Length] = true
	return h, err
}

func passName(in Input) string {
	if in.Length == 1 {
		return "one step"
	}
	return "reading prompts"
}
