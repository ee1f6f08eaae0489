package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/internal/backend"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/text/tokenizer"
)

const golden = "../../testdata/golden/"

func loadModel(t *testing.T, dir string) *model.Model {
	t.Helper()
	b, _, err := backend.OpenModel("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Finalize)
	m, err := model.Load(context.Background(), dir, model.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func openTokenizer(t *testing.T) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.Open(golden + "models/base")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func rows(t *testing.T, list ...string) *data.Set {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(strings.Join(list, "\n")), 0o666); err != nil {
		t.Fatal(err)
	}
	s, err := data.Load(context.Background(), []data.Source{{Path: path}}, data.Options{Tokenizer: openTokenizer(t)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func measure(t *testing.T, m *model.Model, s *data.Set, o Options) *Report {
	t.Helper()
	r, err := Run(context.Background(), m, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// logProbs computes the log probabilities of every token after the first of one text, by a full pass of its own.
func logProbs(t *testing.T, m *model.Model, ids []int32) (logs []float64, best []int32) {
	t.Helper()
	out, err := m.Forward(model.Input{Rows: 1, Length: len(ids), IDs: ids})
	if err != nil {
		t.Fatal(err)
	}
	v := m.D.Vocab
	for i := range len(ids) - 1 {
		row := out.Data[i*v : (i+1)*v]
		top := slices.Max(row)
		var sum float64
		for _, x := range row {
			sum += math.Exp(float64(x - top))
		}
		logs = append(logs, float64(row[ids[i+1]]-top)-math.Log(sum))
		best = append(best, int32(slices.Index(row, top)))
	}
	return logs, best
}

// TestLossIsThatOfSinglePasses compares the sums over batches of rows of several lengths, with weights and domains, with one pass
// for each row.
func TestLossIsThatOfSinglePasses(t *testing.T) {
	m := loadModel(t, golden+"models/base")
	var list []string
	for i := range 13 {
		list = append(list, fmt.Sprintf(`{"prompt": %q, "completion": " answer %d of many", "domain": "%c", "weight": %d}`, strings.Repeat("word ", i*i%7+1), i, 'a'+i%3, 1+i%2))
	}
	s := rows(t, list...)
	for i := range s.Examples {
		s.Examples[i].Share = 0.25 // of the rows in an epoch of training; they all count here
	}
	want := map[string]*model.Result{"": {}}
	tokens := map[string]int{}
	for i := range s.Examples {
		x := &s.Examples[i]
		logs, best := logProbs(t, m, x.IDs)
		for k := 1; k < len(x.IDs); k++ {
			if x.Labels[k] == data.Ignored {
				continue
			}
			one := model.Result{Loss: -float64(x.Weight) * logs[k-1], Weight: float64(x.Weight)}
			if best[k-1] == x.IDs[k] {
				one.Correct = one.Weight
			}
			for _, d := range []string{"", x.Domain} {
				if want[d] == nil {
					want[d] = &model.Result{}
				}
				want[d].Add(one)
				tokens[d]++
			}
		}
	}
	done := 0
	r := measure(t, m, s, Options{Batch: 4, Tokenizer: openTokenizer(t), Progress: func(d, total int) {
		if d <= done || total != 13 {
			t.Errorf("progress %d of %d after %d", d, total, done)
		}
		done = d
	}})
	if done != 13 || len(r.Domains) != 3 || r.All.Rows != 13 || r.Domains[0].Domain != "a" || r.Domains[0].Rows != 5 {
		t.Errorf("%d rows, report %+v", done, r)
	}
	check := func(d string, got Score) {
		w := want[d]
		if math.Abs(got.Result.Loss-w.Loss) > 1e-3 || got.Result.Weight != w.Weight || got.Result.Correct != w.Correct || got.Tokens != tokens[d] {
			t.Errorf("domain %q: %+v, want %+v of %d tokens", d, got, *w, tokens[d])
		}
	}
	check("", r.All)
	for _, d := range r.Domains {
		check(d.Domain, d.Score)
	}
	if r.All.Choice != nil || r.All.Class != nil {
		t.Errorf("no choices here: %+v", r.All)
	}
	// Rows of tokens alone, without a tokenizer.
	if plain := measure(t, m, s, Options{Batch: 3}); math.Abs(plain.All.Result.Loss-r.All.Result.Loss) > 1e-3 {
		t.Errorf("in batches of 3: %+v, of 4: %+v", plain.All, r.All)
	}
}

// TestChoices scores letters by one position and longer labels by their whole text, each domain among its own labels.
func TestChoices(t *testing.T) {
	m := loadModel(t, golden+"models/base")
	tok := openTokenizer(t)
	var list []string
	for i := range 9 {
		list = append(list, fmt.Sprintf(`{"prompt": "Question %d?\nAnswer:", "completion": " %c", "domain": "letters"}`, i*i, "ABC"[i%3]))
		list = append(list, fmt.Sprintf(`{"prompt": "Is %d even? ", "completion": "%s", "domain": "words"}`, i, []string{"yes", "yesno", "no"}[i%3]))
		list = append(list, fmt.Sprintf(`{"prompt": "%d + 1 = ", "completion": "%d", "domain": "numbers"}`, i*7, i*7+1))
	}
	s := rows(t, list...)
	r := measure(t, m, s, Options{Batch: 5, Tokenizer: tok})
	// By hand: the candidate with the largest sum of log probabilities, over the letter alone or over all tokens with the end.
	right := map[string]int{}
	candidates := map[string][]string{"letters": {" A", " B", " C"}, "words": {"yes", "yesno", "no"}}
	for i := range s.Examples {
		x := &s.Examples[i]
		start := slices.IndexFunc(x.Labels, func(l int32) bool { return l != data.Ignored })
		best, top := "", math.Inf(-1)
		for _, c := range candidates[x.Domain] {
			ids := slices.Clone(x.IDs[:start])
			for _, id := range tok.Encode(c, false) {
				ids = append(ids, int32(id))
			}
			if x.Domain == "words" {
				_, eos, _ := tok.EOS()
				ids = append(ids, int32(eos))
			}
			logs, _ := logProbs(t, m, ids)
			var sum float64
			for _, l := range logs[start-1:] {
				sum += l
			}
			if x.Domain == "letters" { // the blank before the letter may be a token of its own, alike for all
				sum = logs[len(logs)-1]
			}
			if sum > top {
				best, top = c, sum
			}
		}
		if answer := answerOf(x, tok); strings.TrimSpace(best) == answer.text {
			right[x.Domain]++
		}
	}
	for _, d := range r.Domains {
		if d.Domain == "numbers" {
			if d.Choice != nil {
				t.Errorf("numbers that do not come back are no labels: %+v", d.Choice)
			}
			continue
		}
		if d.Choice == nil {
			t.Errorf("%s: no choice", d.Domain)
			continue
		}
		if want := float64(right[d.Domain]) / 9; math.Abs(d.Choice.Accuracy-want) > 1e-12 || d.Choice.Rows != 9 || math.Abs(d.Choice.Majority-1.0/3) > 1e-12 {
			t.Errorf("%s: %+v, want an accuracy of %v", d.Domain, *d.Choice, want)
		}
	}
	if r.All.Choice == nil || r.All.Choice.Rows != 18 {
		t.Errorf("all: %+v", r.All.Choice)
	}
}

// classSet has rows for a classifier of tokens below 96.
func classSet(classes ...int) *data.Set {
	s := &data.Set{Labels: []string{"0", "1", "2"}}
	for i, c := range classes {
		x := data.Example{Class: c, Weight: 1, Share: 1, Domain: "d"}
		for k := range 3 + i {
			x.IDs = append(x.IDs, int32((7*k+5*i)%96))
			x.Labels = append(x.Labels, data.Ignored)
		}
		s.Examples = append(s.Examples, x)
	}
	return s
}

func TestClasses(t *testing.T) {
	m := loadModel(t, golden+"forward/bert-classifier")
	s := classSet(0, 1, 2, 0, 1, 2, 1)
	right, loss := 0, 0.0
	for i := range s.Examples {
		x := &s.Examples[i]
		in := model.Input{Rows: 1, Length: len(x.IDs), IDs: x.IDs}
		out, err := m.Forward(in)
		if err != nil {
			t.Fatal(err)
		}
		one, err := m.Loss(in, m.D.ClassTargets(in, []int32{int32(x.Class)}, []float32{1}), 0)
		if err != nil {
			t.Fatal(err)
		}
		loss += one.Loss
		if slices.Index(out.Data, slices.Max(out.Data)) == x.Class {
			right++
		}
	}
	r := measure(t, m, s, Options{Batch: 3})
	if c := r.All.Class; c == nil || c.Rows != 7 || math.Abs(c.Accuracy-float64(right)/7) > 1e-12 || math.Abs(c.Majority-3.0/7) > 1e-12 || r.All.Tokens != 0 {
		t.Errorf("%+v, want %d of 7", r.All, right)
	}
	if got := r.All.Result; math.Abs(got.Loss-loss) > 1e-4 || got.Weight != 7 || got.Correct != float64(right) {
		t.Errorf("%+v, want a loss of %v and %d right", got, loss, right)
	}
	if len(r.Domains) != 1 || r.Domains[0].Class.Rows != 7 {
		t.Errorf("domains %+v", r.Domains)
	}
}

func TestRefusals(t *testing.T) {
	text := rows(t, `{"text": "hello"}`)
	text.Examples[0].IDs = []int32{1, 2}
	text.Examples[0].Labels = []int32{1, 2}
	many := classSet(0)
	many.Labels = []string{"a", "b", "c", "d"}
	for _, c := range []struct {
		model string
		set   *data.Set
		want  string
	}{
		{"llama", classSet(0), "has no classification head"},
		{"llama-reward", classSet(0), "it is a reward model"},
		{"bert-classifier", many, "its rows have 4 classes, the model's head tells 3"},
		{"bert", text, "has no language-model head"},
	} {
		_, err := Run(context.Background(), loadModel(t, golden+"forward/"+c.model), c.set, Options{})
		var input *model.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.model, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, loadModel(t, golden+"forward/llama"), text, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestCompare(t *testing.T) {
	loss := func(v float64) *Score { return &Score{Rows: 4, Result: model.Result{Loss: v, Weight: 1}} }
	choice := func(v float64, n int) *Score {
		s := loss(1 - v)
		s.Choice = &model.ClassScore{Rows: n, Accuracy: v}
		return s
	}
	for _, c := range []struct {
		tuned, base *Score
		metric      string
		better      bool
	}{
		{loss(1), loss(2), "loss", true},
		{loss(2), loss(2), "loss", false},
		{choice(.8, 4), choice(.7, 4), "accuracy", true},
		{choice(.7, 4), choice(.7, 4), "accuracy", false},
		{choice(.7, 2), choice(.9, 2), "loss", false}, // half of the rows are no choices
		{&Score{Rows: 1, Class: &model.ClassScore{Accuracy: .5}}, &Score{Rows: 1, Class: &model.ClassScore{Accuracy: .4}}, "accuracy", true},
	} {
		v := Compare(c.tuned, c.base)
		if v.Metric != c.metric || v.Better != c.better {
			t.Errorf("%+v, want %s, better %v", v, c.metric, c.better)
		}
	}
	if m := (Verdict{Metric: "accuracy", Tuned: .5, Base: .75}).Message("a+b", "a", 4); !strings.Contains(m, "a+b has accuracy 0.5000, and a with 4 solved rows in front of each has 0.7500") {
		t.Error(m)
	}
}
