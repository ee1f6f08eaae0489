package evaluation_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/mergekit/mergekit/merge/evaluation"
)

// near compares two numbers.
func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

// classes makes outcomes of rows with the probabilities of their classes.
func classes(truth []int, p ...[]float64) *evaluation.Outcomes {
	o := &evaluation.Outcomes{Task: evaluation.TaskClassify, Metric: evaluation.MetricAccuracy, Truth: truth}
	for _, row := range p {
		var logs []float64
		best := 0
		for k, v := range row {
			logs = append(logs, math.Log(v))
			if v > row[best] {
				best = k
			}
		}
		o.Logs, o.Chosen, o.Weight = append(o.Logs, logs), append(o.Chosen, best), append(o.Weight, 1)
	}
	return o
}

func TestScoreOfClasses(t *testing.T) {
	o := classes([]int{0, 1, 1, 0}, []float64{0.9, 0.1}, []float64{0.2, 0.8}, []float64{0.7, 0.3}, []float64{0.65, 0.35})
	s := o.Score()
	if s.Rows != 4 || s.Accuracy != 0.75 || s.Value != 0.75 || s.Majority != 0.5 || s.Tokens != 0 || s.Perplexity != 0 || !s.Classes() {
		t.Errorf("%+v", s)
	}
	near(t, "loss", s.Loss, -(math.Log(0.9)+math.Log(0.8)+math.Log(0.3)+math.Log(0.65))/4, 1e-12)
	// Class 0: precision 2/3, recall 1; class 1: precision 1, recall 1/2.
	near(t, "macro F1", s.MacroF1, (0.8+2.0/3)/2, 1e-12)
	near(t, "Brier", s.Brier, 2*(0.01+0.04+0.49+0.1225)/4, 1e-12)
	// Four bins: 0.9 right, 0.8 right, 0.7 wrong and 0.65 right; 0.65 and 0.7 are in (9/15, 10/15] and (10/15, 11/15].
	near(t, "ECE", s.ECE, (0.1+0.2+0.7+0.35)/4, 1e-12)
	for metric, want := range map[string]float64{evaluation.MetricLoss: -s.Loss, evaluation.MetricMacroF1: s.MacroF1} {
		o.Metric = metric
		if got := o.Score().Value; got != want {
			t.Errorf("the value of %s is %v, want %v", metric, got, want)
		}
	}
}

// TestECEJoinsRows: rows of one interval are compared together, so that one too sure and one too unsure cancel.
func TestECEJoinsRows(t *testing.T) {
	o := classes([]int{0, 1}, []float64{0.61, 0.39}, []float64{0.65, 0.35})
	near(t, "ECE", o.ECE(), math.Abs(1-1.26)/2, 1e-12)
}

func TestScoreOfTokens(t *testing.T) {
	o := &evaluation.Outcomes{Task: evaluation.TaskLM, Metric: evaluation.MetricLoss, Weight: []float64{1, 3},
		Targets: [][]float64{{math.Log(0.5), math.Log(0.25)}, {math.Log(0.125)}}, First: [][]bool{{true, false}, {true}}}
	s := o.Score()
	near(t, "loss", s.Loss, math.Log(2)*(1+2+3*3)/5, 1e-12)
	near(t, "perplexity", s.Perplexity, math.Exp(s.Loss), 1e-12)
	near(t, "accuracy", s.Accuracy, 4.0/5, 1e-12)
	if s.Tokens != 3 || s.Value != -s.Loss || s.Classes() {
		t.Errorf("%+v", s)
	}
}

func TestScoreOfValues(t *testing.T) {
	o := &evaluation.Outcomes{Task: evaluation.TaskValues, Metric: evaluation.MetricLoss, Weight: []float64{1, 1}, Errors: [][]float64{{1, -2}, {0, 3}}}
	if s := o.Score(); s.Loss != (2.5+4.5)/2 || s.Value != -s.Loss {
		t.Errorf("%+v", s)
	}
}

// TestNoNumbers: a model whose outputs are no numbers is the worst of all, and its score can be written and read.
func TestNoNumbers(t *testing.T) {
	o := classes([]int{0, 0}, []float64{1, 0}, []float64{math.NaN(), 0.5})
	o.Chosen[1], o.Metric = -1, evaluation.MetricLoss
	s := o.Score()
	if !math.IsNaN(s.Loss) || !math.IsInf(s.Value, -1) || s.Accuracy != 0.5 || !math.IsNaN(s.ECE) {
		t.Errorf("%+v", s)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back evaluation.Score
	if err := json.Unmarshal(text, &back); err != nil || !math.IsNaN(back.Loss) || !math.IsInf(back.Value, -1) || back.Accuracy != 0.5 {
		t.Errorf("%s: %+v, %v", text, back, err)
	}
	if err := json.Unmarshal([]byte(`{"value": "3"}`), &back); err == nil {
		t.Error("a text that is a number is read as one")
	}
}

func TestEnsemble(t *testing.T) {
	a := classes([]int{0, 1}, []float64{0.9, 0.1}, []float64{0.6, 0.4})
	b := classes([]int{0, 1}, []float64{0.3, 0.7}, []float64{0.1, 0.9})
	e, err := evaluation.Ensemble([]*evaluation.Outcomes{a, b})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]float64{{0.6, 0.4}, {0.35, 0.65}} {
		for k, p := range e.Probabilities(i) {
			near(t, "probability", p, want[k], 1e-12)
		}
	}
	if s := e.Score(); s.Accuracy != 1 {
		t.Errorf("%+v", s)
	}
	if one, err := evaluation.Ensemble([]*evaluation.Outcomes{a}); err != nil || one != a {
		t.Error("an ensemble of one model is not that model", err)
	}
	tokens := func(p ...float64) *evaluation.Outcomes {
		o := &evaluation.Outcomes{Task: evaluation.TaskLM, Metric: evaluation.MetricLoss, Weight: []float64{1}, Targets: [][]float64{nil}, First: [][]bool{nil}}
		for _, x := range p {
			o.Targets[0], o.First[0] = append(o.Targets[0], math.Log(x)), append(o.First[0], true)
		}
		return o
	}
	e, err = evaluation.Ensemble([]*evaluation.Outcomes{tokens(0.5, 0.1), tokens(0.1, 0.3)})
	if err != nil {
		t.Fatal(err)
	}
	s := e.Score()
	near(t, "loss of tokens", s.Loss, -(math.Log(0.3)+math.Log(0.2))/2, 1e-12)
	if !math.IsNaN(s.Accuracy) { // which token an ensemble puts first is not known
		t.Errorf("%+v", s)
	}
	if text, err := json.Marshal(s); err != nil || json.Valid(text) && string(text) == "" {
		t.Error(string(text), err)
	}
	for what, other := range map[string]*evaluation.Outcomes{"another truth": classes([]int{1, 1}, []float64{0.9, 0.1}, []float64{0.6, 0.4}), "fewer rows": classes([]int{0}, []float64{0.9, 0.1}),
		"more classes": classes([]int{0, 1}, []float64{0.9, 0.1, 0}, []float64{0.6, 0.4, 0}), "another task": tokens(0.5, 0.5)} {
		if _, err := evaluation.Ensemble([]*evaluation.Outcomes{a, other}); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := evaluation.Ensemble(nil); err == nil {
		t.Error("an ensemble of nothing")
	}
}

func TestFlips(t *testing.T) {
	right, wrong := []float64{0.9, 0.1}, []float64{0.1, 0.9}
	truth := []int{0, 0, 0, 0, 0}
	parent, merged := classes(truth, right, right, right, wrong, wrong), classes(truth, right, wrong, wrong, right, wrong)
	f, err := evaluation.Flips(parent, merged)
	if err != nil {
		t.Fatal(err)
	}
	if *f != (evaluation.FlipReport{Of: "rows", N: 5, Negative: 2, Positive: 1, NegativeRate: 0.4, PositiveRate: 0.2}) {
		t.Errorf("%+v", f)
	}
	// The accuracy changes by the difference of the two.
	near(t, "change of the accuracy", merged.Score().Accuracy-parent.Score().Accuracy, f.PositiveRate-f.NegativeRate, 1e-12)
	lm := func(first ...bool) *evaluation.Outcomes {
		return &evaluation.Outcomes{Task: evaluation.TaskLM, Weight: []float64{1}, Targets: [][]float64{make([]float64, len(first))}, First: [][]bool{first}}
	}
	if f, err = evaluation.Flips(lm(true, false, true), lm(false, true, true)); err != nil || f.Of != "tokens" || f.N != 3 || f.Negative != 1 || f.Positive != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := evaluation.Flips(parent, classes([]int{1, 0, 0, 0, 0}, right, right, right, right, right)); err == nil {
		t.Error("other rows are compared")
	}
	values := &evaluation.Outcomes{Task: evaluation.TaskValues, Weight: []float64{1}, Errors: [][]float64{{1}}}
	if _, err := evaluation.Flips(values, values); err == nil {
		t.Error("values have no right and wrong")
	}
}

// TestTemperature compares with a bisection of the loss's derivative by differences, and the loss around the minimum.
func TestTemperature(t *testing.T) {
	o := classes([]int{0, 1, 2, 0, 1, 0}, []float64{0.98, 0.01, 0.01}, []float64{0.05, 0.9, 0.05}, []float64{0.9, 0.05, 0.05},
		[]float64{0.99, 0.005, 0.005}, []float64{0.2, 0.7, 0.1}, []float64{0.3, 0.6, 0.1})
	temperature := o.Temperature()
	loss := func(t float64) float64 { return o.At(t).Score().Loss }
	low, high := 0.05, 50.0
	for range 80 {
		mid := math.Sqrt(low * high)
		if loss(mid*1.0001) < loss(mid/1.0001) {
			low = mid
		} else {
			high = mid
		}
	}
	near(t, "temperature", temperature, low, 1e-3*low)
	if temperature < 1.2 { // these are too sure
		t.Errorf("temperature %v of rows that are too sure", temperature)
	}
	c := o.Calibrate(temperature)
	if c.LossAfter >= c.LossBefore || float64(c.LossBefore) != o.Score().Loss || float64(c.ECEBefore) != o.ECE() || float64(c.ECEAfter) != o.At(temperature).ECE() || c.Temperature != temperature {
		t.Errorf("%+v", c)
	}
	for _, near := range []float64{temperature * 1.01, temperature / 1.01} {
		if loss(near) < float64(c.LossAfter) {
			t.Errorf("the loss at %v is below that at %v", near, temperature)
		}
	}
	// Logits that were multiplied need a temperature that is as much higher.
	near(t, "temperature of scaled logits", o.At(0.25).Temperature(), 4*temperature, 1e-9)
	// One class of two, right three times of four: the loss is least where the probability is 3/4.
	known := classes([]int{0, 0, 0, 1}, []float64{0.9, 0.1}, []float64{0.9, 0.1}, []float64{0.9, 0.1}, []float64{0.9, 0.1})
	near(t, "temperature in closed form", known.Temperature(), math.Log(9)/math.Log(3), 1e-10)
	if got := classes([]int{0}, []float64{0.9, 0.1}).Temperature(); got != 0.01 {
		t.Errorf("all right: %v", got)
	}
	if got := classes([]int{1}, []float64{0.9, 0.1}).Temperature(); got != 100 {
		t.Errorf("all wrong: %v", got)
	}
	if got := (&evaluation.Outcomes{Task: evaluation.TaskLM, Weight: []float64{1}, Targets: [][]float64{{-1}}}); got.Temperature() != 1 || got.Calibrate(2) != nil {
		t.Error("tokens have no temperature")
	}
	// What a row does not choose from stays impossible.
	apart := classes([]int{0, 1}, []float64{0.8, 0.2, 0}, []float64{0, 0.6, 0.4})
	if p := apart.At(2).Probabilities(0); p[2] != 0 || math.Abs(p[0]+p[1]-1) > 1e-12 {
		t.Errorf("%v", p)
	}
}
