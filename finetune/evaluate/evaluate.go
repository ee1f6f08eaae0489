package evaluate

import (
	"context"
	"maps"
	"math"
	"slices"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Options say how rows are measured.
type Options struct {
	Batch     int                  // rows that are computed together; 0: 8
	PadID     int32                // any token: what is computed at padding does not count
	Tokenizer *tokenizer.Tokenizer // tells labels of choices; nil: rows are scored by their tokens alone
	Progress  func(done, total int)
	Outcomes  bool // keep what became of every row
}

// Score is what was measured on some rows.
type Score struct {
	Rows   int
	Tokens int          // that are learnt
	Result model.Result // over those tokens, weighted as in training; with classes over the rows
	Choice *model.ClassScore
	Class  *model.ClassScore
}

// Report is the score of a set, as a whole and by domain. Domains is empty if the rows name none.
type Report struct {
	All     Score
	Domains []DomainScore
	// Outcomes are those of the rows in their order, where Options ask for them, and Labels the names of what rows choose from.
	Outcomes []Outcome
	Labels   []string
}

// DomainScore is the score of the rows of a domain.
type DomainScore struct {
	Domain string
	Score
}

// tally collects what is measured.
type tally struct {
	score              Score
	truth, chosen      []int // of choices
	classes, predicted []int
}

func (t *tally) finish() Score {
	if len(t.truth) > 0 {
		s := model.ScoreClasses(t.truth, t.chosen)
		t.score.Choice = &s
	}
	if len(t.classes) > 0 {
		s := model.ScoreClasses(t.classes, t.predicted)
		t.score.Class = &s
	}
	return t.score
}

// run is an evaluation on its way.
type run struct {
	m       *model.Model
	set     *data.Set
	o       Options
	choices map[string]*choice
	answers []answer
	texts   map[string]int // numbers of choices' texts
	ids     []int32        // tokens that decide choices
	all     tally
	domains map[string]*tally

	outcomes []Outcome // nil: nobody asks for them
}

// Run measures a model on rows.
func Run(ctx context.Context, m *model.Model, set *data.Set, o Options) (*Report, error) {
	r := &run{m: m, set: set, o: o, texts: map[string]int{}, domains: map[string]*tally{}}
	if o.Batch <= 0 {
		r.o.Batch = 8
	}
	if err := Check(m.D, set); err != nil {
		return nil, err
	}
	if m.D.Head == model.HeadLM {
		r.choices, r.answers = findChoices(set, o.Tokenizer)
		r.collectTokens()
	}
	r.start()
	if err := r.pass(ctx, set, r.measure); err != nil {
		return nil, err
	}
	if err := r.longChoices(ctx); err != nil {
		return nil, err
	}
	out := &Report{All: r.all.finish(), Outcomes: r.outcomes, Labels: r.labels()}
	names := slices.Sorted(maps.Keys(r.domains))
	if len(names) > 1 || len(names) == 1 && names[0] != "" {
		for _, n := range names {
			out.Domains = append(out.Domains, DomainScore{n, r.domains[n].finish()})
		}
	}
	return out, nil
}

func place(s *data.Set) string {
	if len(s.Examples) == 0 {
		return ""
	}
	return s.Examples[0].File
}

// collectTokens lists the tokens whose logits decide choices: one list for all batches, so that one graph serves them.
func (r *run) collectTokens() {
	seen := map[int32]bool{}
	for _, name := range slices.Sorted(maps.Keys(r.choices)) {
		c := r.choices[name]
		for _, k := range c.list {
			if _, ok := r.texts[k.text]; !ok {
				r.texts[k.text] = len(r.texts)
			}
			if c.single && !seen[k.ids[c.prefix]] {
				seen[k.ids[c.prefix]] = true
				r.ids = append(r.ids, k.ids[c.prefix])
			}
		}
	}
}

// pass sends all rows through do in batches of similar length. index: of the rows of a batch in the set, -1 for none.
func (r *run) pass(ctx context.Context, set *data.Set, do func(b *data.Batch, index []int) error) error {
	order := make([]int, len(set.Examples))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(set.Examples[a].IDs) - len(set.Examples[b].IDs) })
	sorted := set.Only(order)
	for i := range sorted.Examples {
		sorted.Examples[i].Share = 1 // every row once, however often training takes it
	}
	b, err := data.NewBatcher(sorted, data.BatchOptions{MicroBatch: min(r.o.Batch, len(order)), PadID: r.o.PadID})
	if err != nil {
		return err
	}
	done := 0
	for k := range b.StepsPerEpoch(0) {
		for _, batch := range b.Step(0, k) {
			if err := ctx.Err(); err != nil {
				return err
			}
			index := make([]int, batch.Rows)
			for i := range index {
				index[i] = -1
				if len(batch.Examples[i]) > 0 {
					index[i] = order[batch.Examples[i][0]]
					done++
				}
			}
			if err := do(&batch, index); err != nil {
				return err
			}
			if r.o.Progress != nil {
				r.o.Progress(done, len(order))
			}
		}
	}
	return nil
}

// tallies are those that a row counts in.
func (r *run) tallies(i int) []*tally {
	d := r.set.Examples[i].Domain
	if r.domains[d] == nil {
		r.domains[d] = &tally{}
	}
	return []*tally{&r.all, r.domains[d]}
}

func input(b *data.Batch) model.Input {
	return model.Input{Rows: b.Rows, Length: b.Length, IDs: b.IDs, Positions: b.Positions, Segments: b.Segments}
}

// measure computes a batch.
func (r *run) measure(b *data.Batch, index []int) error {
	if r.m.D.Head != model.HeadLM {
		return r.classify(b, index)
	}
	p, err := r.m.Pass(input(b))
	if err != nil {
		return err
	}
	defer p.Free()
	t := targets(b)
	logs, first, err := p.LogProbs(t)
	if err != nil {
		return err
	}
	for _, i := range index {
		if i >= 0 {
			for _, t := range r.tallies(i) {
				t.score.Rows++
			}
		}
	}
	for k, row := range t.Rows {
		one := model.Result{Loss: float64(-logs[k] * t.Weights[k]), Weight: float64(t.Weights[k])}
		if first[k] {
			one.Correct = one.Weight
		}
		i := index[int(row)/b.Length]
		for _, t := range r.tallies(i) {
			t.score.Result.Add(one)
			t.score.Tokens++
		}
		r.keepToken(i, logs[k], first[k])
	}
	return r.choose(p, b, index)
}

func targets(b *data.Batch) model.Targets {
	var t model.Targets
	for i, w := range b.Weights {
		if w != 0 {
			t.Rows, t.IDs, t.Weights = append(t.Rows, int32(i)), append(t.IDs, b.Targets[i]), append(t.Weights, w)
		}
	}
	return t
}

// choose scores the choices of a batch that one position decides.
func (r *run) choose(p *model.Pass, b *data.Batch, index []int) error {
	if len(r.ids) == 0 {
		return nil
	}
	var rows []int32
	var which []int
	for at, i := range index {
		if i < 0 {
			continue
		}
		c := r.choices[r.set.Examples[i].Domain]
		if c == nil || !c.single {
			continue
		}
		// The logits after a token say what comes next.
		rows = append(rows, int32(at*b.Length+r.answers[i].start+c.prefix-1))
		which = append(which, i)
	}
	if len(rows) == 0 {
		return nil
	}
	out, err := p.RowLogits(rows, r.ids)
	if err != nil {
		return err
	}
	for k, i := range which {
		c := r.choices[r.set.Examples[i].Domain]
		logits := out.Data[k*len(r.ids) : (k+1)*len(r.ids)]
		best, top := "", float32(0)
		kept := make([]float64, len(c.list))
		for n, cand := range c.list {
			v := logits[slices.Index(r.ids, cand.ids[c.prefix])]
			if kept[n] = float64(v); best == "" || v > top {
				best, top = cand.text, v
			}
		}
		r.chose(i, best)
		r.keepChoice(i, c.list, kept)
	}
	return nil
}

func (r *run) chose(i int, text string) {
	for _, t := range r.tallies(i) {
		t.truth = append(t.truth, r.texts[r.answers[i].text])
		t.chosen = append(t.chosen, r.texts[text])
	}
	if r.outcomes != nil {
		r.outcomes[i].Truth, r.outcomes[i].Chosen = r.texts[r.answers[i].text], r.texts[text]
	}
}

// longChoices scores choices whose labels share their beginnings: every label is put behind every prompt, and its tokens' log
// probabilities, with those that end the answer, are added.
func (r *run) longChoices(ctx context.Context) error {
	trial := &data.Set{}
	type origin struct{ row, candidate int }
	var from []origin
	for i := range r.set.Examples {
		x := &r.set.Examples[i]
		c := r.choices[x.Domain]
		if c == nil || c.single {
			continue
		}
		for k, cand := range c.list {
			ids := append(slices.Clone(x.IDs[:r.answers[i].start]), cand.ids...)
			labels := slices.Repeat([]int32{data.Ignored}, len(ids))
			copy(labels[r.answers[i].start:], cand.ids)
			trial.Examples = append(trial.Examples, data.Example{IDs: ids, Labels: labels, Class: -1, Weight: 1, Share: 1, File: x.File, Line: x.Line})
			from = append(from, origin{i, k})
		}
	}
	if len(from) == 0 {
		return nil
	}
	sums := make([]float64, len(from))
	err := r.pass(ctx, trial, func(b *data.Batch, index []int) error {
		t := targets(b)
		logs, _, err := r.m.LogProbs(input(b), t)
		for k, row := range t.Rows {
			if err == nil {
				sums[index[int(row)/b.Length]] += float64(logs[k])
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	for at := 0; at < len(from); {
		i, best, first := from[at].row, at, at
		for ; at < len(from) && from[at].row == i; at++ {
			if sums[at] > sums[best] {
				best = at
			}
		}
		list := r.choices[r.set.Examples[i].Domain].list
		r.chose(i, list[from[best].candidate].text)
		r.keepChoice(i, list, sums[first:at])
	}
	return nil
}

// classify scores rows with labels by the model's head.
func (r *run) classify(b *data.Batch, index []int) error {
	out, err := r.m.Forward(input(b))
	if err != nil {
		return err
	}
	n := r.m.D.NumLabels
	for at, i := range index {
		if i < 0 {
			continue
		}
		row := out.Data[at*n : (at+1)*n]
		top := slices.Max(row)
		best, truth, weight := slices.Index(row, top), r.set.Examples[i].Class, float64(r.set.Examples[i].Weight)
		var sum float64
		for _, x := range row {
			sum += math.Exp(float64(x - top))
		}
		one := model.Result{Loss: weight * (math.Log(sum) - float64(row[truth]-top)), Weight: weight}
		if best == truth {
			one.Correct = weight
		}
		for _, t := range r.tallies(i) {
			t.score.Rows++
			t.score.Result.Add(one)
			t.classes = append(t.classes, truth)
			t.predicted = append(t.predicted, best)
		}
		r.keepClass(i, row, truth, best)
	}
	return nil
}
