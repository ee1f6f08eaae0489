package evaluation

import (
	"fmt"
	"math"
)

// Outcomes are what a model, or an ensemble of models, made of every row.
type Outcomes struct {
	Task   string
	Metric string
	Labels []string // names of the classes or choices; may be nil
	// Truth and Chosen are the classes or choices of rows, nil for rows without. Chosen is -1 where a model's outputs are no numbers.
	Truth, Chosen []int
	// Logs are the log probabilities of the classes or choices of every row, -Inf for what a row does not choose from.
	Logs [][]float64
	// Targets are the log probabilities of the learnt tokens of every row; First says which of them the model puts first, and is nil for
	// an ensemble of several models, where that is not known.
	Targets [][]float64
	First   [][]bool
	// Errors are the outputs of every row minus what they should be, for the squared error.
	Errors [][]float64
	Weight []float64 // of every row in the loss
}

// Rows is how many there are.
func (o *Outcomes) Rows() int { return len(o.Weight) }

// Probabilities are those of the classes or choices of a row, nil for rows without.
func (o *Outcomes) Probabilities(row int) []float64 {
	if o.Logs == nil {
		return nil
	}
	p := make([]float64, len(o.Logs[row]))
	for k, l := range o.Logs[row] {
		p[k] = math.Exp(l)
	}
	return p
}

// logSoftmax makes logits log probabilities: in float64, whatever the size of the logits. What is no number stays none.
func logSoftmax(logits []float64) []float64 {
	top := math.Inf(-1)
	for _, x := range logits {
		if math.IsNaN(x) {
			top = x
			break
		}
		top = max(top, x)
	}
	var sum float64
	for _, x := range logits {
		sum += math.Exp(x - top)
	}
	lse := top + math.Log(sum)
	out := make([]float64, len(logits))
	for k, x := range logits {
		out[k] = x - lse
	}
	return out
}

// largest is the index of the largest value, the first of equal ones; -1 where one is no number.
func largest(x []float64) int {
	best := -1
	for k, v := range x {
		if math.IsNaN(v) {
			return -1
		}
		if best < 0 || v > x[best] {
			best = k
		}
	}
	return best
}

// same says why two outcomes are not of the same rows.
func (o *Outcomes) same(p *Outcomes) error {
	if o.Task != p.Task || o.Rows() != p.Rows() {
		return fmt.Errorf("%d rows of the task %s and %d of %s cannot be compared row by row", o.Rows(), o.Task, p.Rows(), p.Task)
	}
	for i := range o.Weight {
		switch {
		case o.Truth != nil && o.Truth[i] != p.Truth[i],
			o.Logs != nil && len(o.Logs[i]) != len(p.Logs[i]),
			o.Targets != nil && len(o.Targets[i]) != len(p.Targets[i]),
			o.Errors != nil && len(o.Errors[i]) != len(p.Errors[i]):
			return fmt.Errorf("row %d is not the same one for both models: they differ in their tokenizers or in their classes", i+1)
		}
	}
	return nil
}

// Ensemble is the mean of several models' probabilities (of outputs, for the squared error): for classes, choices and tokens alike.
func Ensemble(list []*Outcomes) (*Outcomes, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("an ensemble needs a model")
	}
	first := list[0]
	if len(list) == 1 {
		return first, nil
	}
	for _, o := range list[1:] {
		if err := first.same(o); err != nil {
			return nil, err
		}
	}
	out := &Outcomes{Task: first.Task, Metric: first.Metric, Labels: first.Labels, Truth: first.Truth, Weight: first.Weight}
	for i := range first.Weight {
		if first.Logs != nil {
			logs := meanOf(list, func(o *Outcomes) []float64 { return o.Logs[i] }, logMean)
			out.Logs, out.Chosen = append(out.Logs, logs), append(out.Chosen, largest(logs))
		}
		if first.Targets != nil {
			out.Targets = append(out.Targets, meanOf(list, func(o *Outcomes) []float64 { return o.Targets[i] }, logMean))
		}
		if first.Errors != nil {
			out.Errors = append(out.Errors, meanOf(list, func(o *Outcomes) []float64 { return o.Errors[i] }, mean))
		}
	}
	return out, nil
}

// meanOf is the mean, value by value, of what all models give.
func meanOf(list []*Outcomes, of func(o *Outcomes) []float64, mean func([]float64) float64) []float64 {
	out := make([]float64, len(of(list[0])))
	one := make([]float64, len(list))
	for k := range out {
		for m, o := range list {
			one[m] = of(o)[k]
		}
		out[k] = mean(one)
	}
	return out
}

func mean(x []float64) float64 {
	var sum float64
	for _, v := range x {
		sum += v
	}
	return sum / float64(len(x))
}

// logMean is the logarithm of the mean of what x are the logarithms of.
func logMean(x []float64) float64 {
	top := math.Inf(-1)
	for _, v := range x {
		top = max(top, v)
	}
	if math.IsInf(top, -1) || math.IsNaN(top) {
		return top
	}
	var sum float64
	for _, v := range x {
		sum += math.Exp(v - top)
	}
	return top + math.Log(sum/float64(len(x)))
}

// FlipReport counts answers that a merge changed against one of its parents. A negative flip costs those who rely on the parent more
// than the accuracy tells (Yan et al., 2021, "Positive-congruent training"; Echterhoff et al., 2024, "MUSCLE: a model update strategy for
// compatible LLM evolution").
type FlipReport struct {
	Of           string  `json:"of"` // what is counted: rows, or tokens where rows have neither classes nor choices
	N            int     `json:"n"`
	Negative     int     `json:"negative"` // the parent is right, the merge wrong
	Positive     int     `json:"positive"` // the parent is wrong, the merge right
	NegativeRate float64 `json:"negative_rate"`
	PositiveRate float64 `json:"positive_rate"`
}

// Flips compares the answers of a merge with those of a parent. Outcomes that have no right and wrong, or are of other rows, are an error.
func Flips(parent, merged *Outcomes) (*FlipReport, error) {
	if err := parent.same(merged); err != nil {
		return nil, err
	}
	f := &FlipReport{Of: "rows"}
	count := func(before, after bool) {
		f.N++
		switch {
		case before && !after:
			f.Negative++
		case !before && after:
			f.Positive++
		}
	}
	switch {
	case parent.Chosen != nil:
		for i, truth := range parent.Truth {
			count(parent.Chosen[i] == truth, merged.Chosen[i] == truth)
		}
	case parent.First != nil && merged.First != nil:
		f.Of = "tokens"
		for i, list := range parent.First {
			for k, before := range list {
				count(before, merged.First[i][k])
			}
		}
	default:
		return nil, fmt.Errorf("rows of the task %s have no right and wrong answers, so none can flip", parent.Task)
	}
	if f.N > 0 {
		f.NegativeRate, f.PositiveRate = float64(f.Negative)/float64(f.N), float64(f.Positive)/float64(f.N)
	}
	return f, nil
}
