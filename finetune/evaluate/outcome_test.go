package evaluate

import (
	"fmt"
	"math"
	"testing"

	"github.com/mergekit/mergekit/model"
)

// TestOutcomes: what is kept of every row sums up to the report, for tokens, for choices of one position and of several, and for classes.
func TestOutcomes(t *testing.T) {
	m := loadModel(t, golden+"models/base")
	tok := openTokenizer(t)
	var list []string
	for i := range 8 {
		list = append(list, fmt.Sprintf(`{"prompt": "Question %d?\nAnswer:", "completion": " %c", "domain": "letters", "weight": %d}`, i*i, "ABC"[i%3], 1+i%2))
		list = append(list, fmt.Sprintf(`{"prompt": "Is %d even? ", "completion": "%s", "domain": "words"}`, i, []string{"yes", "yesno", "no"}[i%3]))
	}
	s := rows(t, list...)
	if n := Choices(s, tok); n != 16 {
		t.Fatalf("%d choices", n)
	}
	r := measure(t, m, s, Options{Batch: 5, Tokenizer: tok, Outcomes: true})
	plain := measure(t, m, s, Options{Batch: 5, Tokenizer: tok})
	if plain.Outcomes != nil || plain.All.Result != r.All.Result || *plain.All.Choice != *r.All.Choice || len(r.Outcomes) != 16 || len(r.Labels) != 6 {
		t.Errorf("%+v, %v", r.All, r.Labels)
	}
	var sum model.Result
	var truth, chosen []int
	for i := range r.Outcomes {
		o := &r.Outcomes[i]
		for k, l := range o.Targets {
			one := model.Result{Loss: -o.Weight * l, Weight: o.Weight}
			if o.First[k] {
				one.Correct = o.Weight
			}
			sum.Add(one)
		}
		truth, chosen = append(truth, o.Truth), append(chosen, o.Chosen)
		open, best := 0, 0
		for k, l := range o.Logs {
			if !math.IsInf(l, -1) {
				open++
			}
			if l > o.Logs[best] {
				best = k
			}
		}
		if open != 3 || best != o.Chosen || math.IsInf(o.Logs[o.Truth], -1) {
			t.Errorf("row %d: %+v", i, o)
		}
	}
	if got := model.ScoreClasses(truth, chosen); got != *r.All.Choice {
		t.Errorf("%+v, the report has %+v", got, *r.All.Choice)
	}
	if math.Abs(sum.Loss-r.All.Result.Loss) > 1e-6 || sum.Weight != r.All.Result.Weight || sum.Correct != r.All.Result.Correct {
		t.Errorf("%+v, the report has %+v", sum, r.All.Result)
	}

	m = loadModel(t, golden+"forward/bert-classifier")
	classes := classSet(0, 1, 2, 0, 1)
	r = measure(t, m, classes, Options{Batch: 2, Outcomes: true})
	var loss float64
	for i := range r.Outcomes {
		o := &r.Outcomes[i]
		var e float64
		for _, l := range o.Logs {
			e += math.Exp(l)
		}
		loss += math.Log(e) - o.Logs[o.Truth]
		if o.Truth != classes.Examples[i].Class || o.Targets != nil {
			t.Errorf("row %d: %+v", i, o)
		}
	}
	if math.Abs(loss-r.All.Result.Loss) > 1e-5 || len(r.Labels) != 3 {
		t.Errorf("loss %v, the report has %v; labels %v", loss, r.All.Result.Loss, r.Labels)
	}
}
