package evaluation

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/mergekit/mergekit/model"
)

// Score is what a model, or an ensemble, measures on some rows.
type Score struct {
	Task   string
	Metric string
	Value  float64 // of the metric, larger for better models: the loss is negated; -Inf for a model whose outputs are no numbers
	Rows   int
	Tokens int // that are learnt; 0 where rows are no text, or have classes
	// Loss is the mean cross-entropy in nats: of the learnt tokens (also of choices, as `mergekit eval` and a Learner have it) or of the
	// classes; for values the mean squared error.
	Loss float64
	// Perplexity is the exponential of the loss of tokens, 0 without tokens.
	Perplexity float64
	// Accuracy is the share of right rows, or of tokens that the model puts first where rows have neither classes nor choices.
	Accuracy float64
	// MacroF1, Majority, ECE and Brier are of classes and choices.
	MacroF1  float64 // the mean over classes of the harmonic mean of precision and recall
	Majority float64 // the accuracy of always giving the most frequent answer
	ECE      float64 // expected calibration error (Guo et al., 2017, "On calibration of modern neural networks"), 15 bins
	Brier    float64 // mean squared distance of the probabilities from the truth (Brier, 1950)
}

// Classes reports whether the score is of classes or choices.
func (s *Score) Classes() bool { return s.Task == TaskChoice || s.Task == TaskClassify }

// Score sums outcomes up.
func (o *Outcomes) Score() *Score {
	s := &Score{Task: o.Task, Metric: o.Metric, Rows: o.Rows()}
	s.Accuracy = math.NaN()
	switch {
	case o.Errors != nil:
		s.Loss = o.squaredError()
	case o.Targets != nil:
		var right float64
		s.Loss, right, s.Tokens = o.tokens()
		s.Perplexity = math.Exp(s.Loss)
		if o.First != nil {
			s.Accuracy = right
		}
	default:
		s.Loss = o.classLoss()
	}
	if o.Logs != nil {
		c := model.ScoreClasses(o.Truth, o.Chosen)
		s.Accuracy, s.MacroF1, s.Majority = c.Accuracy, c.MacroF1, c.Majority
		s.ECE, s.Brier = o.ECE(), o.brier()
	}
	switch o.Metric {
	case MetricAccuracy:
		s.Value = s.Accuracy
	case MetricMacroF1:
		s.Value = s.MacroF1
	default:
		s.Value = -s.Loss
	}
	if math.IsNaN(s.Value) {
		s.Value = math.Inf(-1)
	}
	return s
}

// tokens returns the mean loss of tokens and the share that the model puts first, both weighted, and how many there are.
func (o *Outcomes) tokens() (loss, right float64, n int) {
	var weight float64
	for i, list := range o.Targets {
		for k, l := range list {
			loss -= o.Weight[i] * l
			weight += o.Weight[i]
			if o.First != nil && o.First[i][k] {
				right += o.Weight[i]
			}
		}
		n += len(list)
	}
	return loss / weight, right / weight, n
}

// classLoss is the mean cross-entropy of classes or choices.
func (o *Outcomes) classLoss() float64 {
	var loss, weight float64
	for i, logs := range o.Logs {
		loss -= o.Weight[i] * logs[o.Truth[i]]
		weight += o.Weight[i]
	}
	return loss / weight
}

func (o *Outcomes) squaredError() float64 {
	var loss, weight float64
	for i, list := range o.Errors {
		var sum float64
		for _, e := range list {
			sum += e * e
		}
		loss += o.Weight[i] * sum / float64(len(list))
		weight += o.Weight[i]
	}
	return loss / weight
}

// bins is how many intervals of confidence a calibration error compares.
const bins = 15

// ECE is the expected calibration error: rows are put into 15 intervals of equal width by the probability of what was chosen, and of every
// interval the share of right rows is compared with the mean probability. 0 for rows without classes or choices.
func (o *Outcomes) ECE() float64 {
	var right, sure, count [bins]float64
	n := 0.0
	for i, logs := range o.Logs {
		c := o.Chosen[i]
		if c < 0 {
			return math.NaN()
		}
		p := math.Exp(logs[c])
		b := min(max(int(math.Ceil(p*bins))-1, 0), bins-1)
		sure[b] += p
		count[b]++
		if c == o.Truth[i] {
			right[b]++
		}
		n++
	}
	if n == 0 {
		return 0
	}
	var sum float64
	for b := range bins {
		sum += math.Abs(right[b] - sure[b])
	}
	return sum / n
}

func (o *Outcomes) brier() float64 {
	var sum float64
	for i, logs := range o.Logs {
		for k, l := range logs {
			d := math.Exp(l)
			if k == o.Truth[i] {
				d--
			}
			sum += d * d
		}
	}
	return sum / float64(max(len(o.Logs), 1))
}

// Number is a float of a report, which may be infinite or no number where a model's outputs are. JSON has no form for those: they are
// written as texts.
type Number float64

// MarshalJSON writes a number, or the text NaN, +Inf or -Inf.
func (n Number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return json.Marshal(strconv.FormatFloat(f, 'g', -1, 64))
	}
	return json.Marshal(f)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (n *Number) UnmarshalJSON(data []byte) error {
	var f float64
	if err := json.Unmarshal(data, &f); err == nil {
		*n = Number(f)
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(math.IsNaN(f) || math.IsInf(f, 0)) {
		return fmt.Errorf("%q is no number", text)
	}
	*n = Number(f)
	return nil
}

// scoreJSON is a score as files have it: what was not measured is not there.
type scoreJSON struct {
	Task       string  `json:"task"`
	Metric     string  `json:"metric"`
	Value      Number  `json:"value"`
	Rows       int     `json:"rows"`
	Tokens     int     `json:"tokens,omitempty"`
	Loss       Number  `json:"loss"`
	Perplexity *Number `json:"perplexity,omitempty"`
	Accuracy   *Number `json:"accuracy,omitempty"`
	TokenAcc   *Number `json:"token_accuracy,omitempty"`
	MacroF1    *Number `json:"macro_f1,omitempty"`
	Majority   *Number `json:"majority,omitempty"`
	ECE        *Number `json:"ece,omitempty"`
	Brier      *Number `json:"brier,omitempty"`
}

// MarshalJSON writes what was measured.
func (s Score) MarshalJSON() ([]byte, error) {
	j := scoreJSON{Task: s.Task, Metric: s.Metric, Value: Number(s.Value), Rows: s.Rows, Tokens: s.Tokens, Loss: Number(s.Loss)}
	at := func(x float64) *Number { n := Number(x); return &n }
	if s.Tokens > 0 {
		j.Perplexity = at(s.Perplexity)
	}
	switch {
	case s.Classes():
		j.Accuracy, j.MacroF1, j.Majority, j.ECE, j.Brier = at(s.Accuracy), at(s.MacroF1), at(s.Majority), at(s.ECE), at(s.Brier)
	case s.Task == TaskLM && !math.IsNaN(s.Accuracy):
		j.TokenAcc = at(s.Accuracy)
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Score) UnmarshalJSON(data []byte) error {
	var j scoreJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	of := func(n *Number, without float64) float64 {
		if n == nil {
			return without
		}
		return float64(*n)
	}
	*s = Score{Task: j.Task, Metric: j.Metric, Value: float64(j.Value), Rows: j.Rows, Tokens: j.Tokens, Loss: float64(j.Loss),
		Perplexity: of(j.Perplexity, 0), Accuracy: of(j.Accuracy, of(j.TokenAcc, math.NaN())), MacroF1: of(j.MacroF1, 0), Majority: of(j.Majority, 0), ECE: of(j.ECE, 0), Brier: of(j.Brier, 0)}
	return nil
}
