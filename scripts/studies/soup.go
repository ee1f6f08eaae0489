package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/evaluation"
)

// sets of the soup study: the first chooses, the others are reported.
var soupSets = []struct{ file, head string }{
	{"heldout", "held out"}, {"test", "test"}, {"test-turned", "turned"}, {"test-shifted", "shifted"}, {"test-noisy", "noisy"}, {"test-faint", "faint"},
}

// ingredient is a fine-tune as scripts/finetunes records it.
type ingredient struct {
	Name   string  `json:"name"`
	Rate   float64 `json:"learning_rate"`
	Epochs int     `json:"epochs"`
	Batch  int     `json:"batch"`
	Decay  float64 `json:"weight_decay"`
	Turned float64 `json:"turned_by"`
	Moved  float64 `json:"shifted_by"`
}

// soups measures single models, soups and the ensemble.
func soups(s *study) (map[string][]report.Table, error) {
	text, err := os.ReadFile(filepath.Join(s.from, "soup", "soup.json"))
	if err != nil {
		return nil, err
	}
	var list []ingredient
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	kind := filepath.Join(s.from, "soup", "base")
	measure := func(w weights) (all []*evaluation.Outcomes, err error) {
		for _, set := range soupSets {
			o, err := s.outcomes(w, kind, filepath.Join(s.from, "soup", "data", set.file+".safetensors"))
			if err != nil {
				return nil, err
			}
			all = append(all, o)
		}
		return all, nil
	}
	head := []string{"", "held out", "test", "test loss", "turned", "shifted", "noisy", "faint", "mean of shifts"}
	singles := report.Table{Title: "The fine-tunes", Note: "Accuracy; what differs between them; the best on held-out data in bold.", Text: 2, Head: slices.Insert(slices.Clone(head), 1, "hyper-parameters")}
	row := func(all []*evaluation.Outcomes) (cells []string) {
		shifts := 0.0
		for i, o := range all {
			score := o.Score()
			cells = append(cells, percent(score.Accuracy))
			if i == 1 {
				cells = append(cells, fmt.Sprintf("%.3f", score.Loss))
			}
			if i > 1 {
				shifts += score.Accuracy / float64(len(all)-2)
			}
		}
		return append(cells, percent(shifts))
	}
	var parents [][]*evaluation.Outcomes
	best := 0
	models, calm := "", ""
	for i, f := range list {
		dir := filepath.Join(s.from, "soup", f.Name)
		w, err := load(dir)
		if err != nil {
			return nil, err
		}
		all, err := measure(w)
		if err != nil {
			return nil, err
		}
		parents = append(parents, all)
		if all[0].Score().Accuracy > parents[best][0].Score().Accuracy {
			best = i
		}
		models += fmt.Sprintf("  - model: %q\n", dir)
		if i < len(list)-1 {
			calm += fmt.Sprintf("  - model: %q\n", dir)
		}
	}
	for i, f := range list {
		name := f.Name
		if i == best {
			name = "**" + name + "**"
		}
		what := []string{fmt.Sprintf("rate %g, %d epochs, batch %d", f.Rate, f.Epochs, f.Batch)}
		if f.Decay > 0 {
			what = append(what, fmt.Sprintf("decay %g", f.Decay))
		}
		if f.Turned > 0 || f.Moved > 0 {
			what = append(what, fmt.Sprintf("turned ±%g°, shifted ±%g", f.Turned, f.Moved))
		}
		singles.Rows = append(singles.Rows, append([]string{name, strings.Join(what, ", ")}, row(parents[i])...))
	}

	table := report.Table{Title: "Soups", Note: "Accuracy in percent. Only the held-out images chose anything. Flips: test images that the best single model has right and this one wrong, and the reverse.",
		Head: append(slices.Clone(head), "flips", "models in it")}
	add := func(title string, all []*evaluation.Outcomes, members string) error {
		f, err := evaluation.Flips(parents[best][1], all[1])
		if err != nil {
			return err
		}
		table.Rows = append(table.Rows, append(append([]string{title}, row(all)...), fmt.Sprintf("−%d +%d", f.Negative, f.Positive), members))
		return nil
	}
	if err := add("best single model ("+list[best].Name+")", parents[best], "1"); err != nil {
		return nil, err
	}
	evaluate := fmt.Sprintf("evaluate: {held_out: {data: %q}}\nrequires: [evaluate]\n", filepath.Join(s.from, "soup", "data", "heldout.safetensors"))
	for _, v := range []struct{ title, text string }{
		{"uniform soup", "merge_method: uniform_soup\nmodels:\n" + models},
		{"uniform soup without " + list[len(list)-1].Name, "merge_method: uniform_soup\nmodels:\n" + calm},
		{"greedy soup", "merge_method: greedy_soup\nmodels:\n" + models + evaluate},
		{"greedy soup, ties left out", "merge_method: greedy_soup\nmodels:\n" + models + "parameters: {tie: strict}\n" + evaluate},
		{"learned soup", "merge_method: learned_soup\nmodels:\n" + models + "parameters: {epochs: 5}\n" + evaluate},
		{"learned soup, by layer", "merge_method: learned_soup\nmodels:\n" + models + "parameters: {granularity: layer, epochs: 5}\n" + evaluate},
	} {
		dir, sum, err := s.merged(strings.NewReplacer(" ", "-", ",", "").Replace(v.title), v.text)
		if err != nil {
			return nil, err
		}
		w, err := load(dir)
		if err != nil {
			return nil, err
		}
		all, err := measure(w)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(v.title, "greedy") && all[0].Score().Accuracy < parents[best][0].Score().Accuracy {
			return nil, fmt.Errorf("the %s is worse on held-out data than the best single model: %v and %v", v.title, all[0].Score().Accuracy, parents[best][0].Score().Accuracy)
		}
		if err := add(v.title, all, members(sum.Report, strings.Count(v.text, "- model:"))); err != nil {
			return nil, err
		}
	}
	var all []*evaluation.Outcomes
	for i := range soupSets {
		var together []*evaluation.Outcomes
		for _, p := range parents {
			together = append(together, p[i])
		}
		o, err := evaluation.Ensemble(together)
		if err != nil {
			return nil, err
		}
		all = append(all, o)
	}
	if err := add("ensemble of all (eight times the work)", all, fmt.Sprint(len(list))); err != nil {
		return nil, err
	}
	return map[string][]report.Table{"soups": {table}, "fine-tunes": {singles}}, nil
}

// members says which ingredients a soup has.
func members(what any, all int) string {
	r, ok := what.(merge.SoupReport)
	switch {
	case ok && r.Greedy != nil:
		var names []string
		for _, w := range r.Greedy.Weights {
			if w.Weight > 0 {
				names = append(names, filepath.Base(w.Name))
			}
		}
		return strings.Join(names, ", ")
	case ok && r.Learned != nil:
		var parts []string
		for _, w := range r.Learned.Mean {
			parts = append(parts, fmt.Sprintf("%s %.2f", filepath.Base(w.Name), w.Weight))
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprint(all)
}

func percent(x float64) string { return fmt.Sprintf("%.1f", 100*x) }
