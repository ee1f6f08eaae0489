package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/graft"
)

// task is a task as scripts/finetunes records it.
type task struct {
	Name       string  `json:"name"`
	What       string  `json:"what"`
	Classes    int     `json:"classes"`
	Base       float64 `json:"base_test_accuracy"`
	Individual float64 `json:"test_accuracy"`
	HeldOut    float64 `json:"held_out_accuracy"`
	head       weights
}

// method is a way to merge tasks, with the numbers that are tried.
type method struct {
	title string
	name  string  // merge_method
	each  bool    // gives every task a model of its own
	graft float64 // models are grafts of this share, learned on data; 0: the fine-tunes
	grid  []setting
}

// setting is what a recipe says below the models, and below all.
type setting struct{ model, shared string }

func (s setting) String() string {
	return strings.TrimSuffix(strings.TrimPrefix(strings.ReplaceAll(s.model+", "+s.shared, "rescale: true, ", ""), ", "), ", ")
}

// settings are all combinations of values: "NAME=a,b,c" for the models, "+NAME=a,b" for all.
func settings(axes ...string) []setting {
	list := []setting{{}}
	for _, axis := range axes {
		name, values, _ := strings.Cut(axis, "=")
		shared := strings.HasPrefix(name, "+")
		name = strings.TrimPrefix(name, "+")
		var next []setting
		for _, s := range list {
			for v := range strings.SplitSeq(values, ",") {
				n, text := s, name+": "+v
				to := &n.model
				if shared {
					to = &n.shared
				}
				if *to != "" {
					*to += ", "
				}
				*to += text
				next = append(next, n)
			}
		}
		list = next
	}
	return list
}

// methods in the order of the table.
var methods = []method{
	{title: "average", name: "uniform_soup", grid: settings()},
	{title: "task arithmetic", name: "task_arithmetic", grid: settings("weight=0.1,0.15,0.2,0.3,0.4,0.6,0.8")},
	{title: "TIES", name: "ties", grid: settings("weight=1", "density=0.1,0.2,0.5", "+lambda=0.5,0.8,1.2,1.6,2")},
	{title: "DARE", name: "dare_linear", grid: settings("density=0.2,0.5,0.8", "weight=0.1,0.2,0.3,0.4,0.6")},
	{title: "DELLA", name: "della", grid: settings("weight=1", "density=0.3,0.6", "+lambda=0.5,0.8,1.2,1.6,2")},
	{title: "Breadcrumbs", name: "breadcrumbs", grid: settings("density=0.15,0.4,0.8", "gamma=0.006,0.02", "weight=0.2,0.3,0.5,0.8", "+granularity=row")},
	{title: "Consensus", name: "consensus", grid: settings("threshold=0.2,0.4,0.6", "+lambda=0.2,0.3,0.4,0.6,0.9")},
	{title: "Localize-and-Stitch, by magnitude", name: "localize_stitch", grid: settings("sparsity=0.01,0.05,0.1,0.2,0.4")},
	{title: "grafts, learned, 1%", name: "graft", graft: 0.01, grid: settings()},
	{title: "grafts, learned, 5%", name: "graft", graft: 0.05, grid: settings()},
	{title: "TSV-M", name: "tsv_m", grid: settings("+lambda=0.5,0.75,1,1.5,2")},
	{title: "Iso-C", name: "iso_c", grid: settings("+lambda=0.7,1,2,3,4,6,9")},
	{title: "Iso-CTS", name: "iso_cts", grid: settings("+lambda=0.7,1,2,3,4,6,9")},
	{title: "WUDI", name: "wudi", grid: settings("+toward=sum,mean", "+ridge=0.001,0.1,1", "+lambda=0.75,1")},
	{title: "KnOTS, rank 32", name: "knots", grid: settings("density=0.3,1", "+rank=32", "+lambda=0.8,1.2,1.6,2,2.5")},
	{title: "Core Space, rank 32, TSV", name: "core_space", grid: settings("+rank=32", "+merge=tsv", "+lambda=0.7,1,1.3,1.6,2")},
	{title: "Core Space, rank 32, Iso", name: "core_space", grid: settings("+rank=32", "+merge=iso", "+lambda=0.7,1,1.3,1.6,2,3")},
	{title: "EMR, task known", name: "emr", each: true, grid: settings()},
	{title: "TALL masks, task known", name: "consensus", each: true, grid: settings("threshold=0.2,0.4,0.6", "+lambda=0.6,1,1.3")},
}

// chooseOn is how many tasks, from the first on, choose the numbers.
const chooseOn = 3

// counts are the numbers of tasks that are merged; windows of them begin at every second task.
var counts = []int{2, 4, 6, 8}

// mixer merges tasks and measures the merges.
type mixer struct {
	*study
	tasks []task
	from  string
	known map[string]float64 // what was measured before, by what it is of
}

// multitask measures every method against the number of tasks.
func multitask(s *study) (map[string][]report.Table, error) {
	m := &mixer{study: s, from: filepath.Join(s.from, "tasks"), known: map[string]float64{}}
	if text, err := os.ReadFile(m.kept()); err == nil {
		if err := json.Unmarshal(text, &m.known); err != nil {
			return nil, fmt.Errorf("%s: %w", m.kept(), err)
		}
	}
	text, err := os.ReadFile(filepath.Join(m.from, "tasks.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &m.tasks); err != nil {
		return nil, err
	}
	for i := range m.tasks {
		t := &m.tasks[i]
		if t.head, err = load(filepath.Join(m.from, t.Name, "base")); err != nil {
			return nil, err
		}
		for _, name := range t.head.Names() {
			if !strings.HasPrefix(name, "head.") {
				delete(t.head, name)
			}
		}
	}
	table := report.Table{Title: "Merged", Note: "Normalised accuracy in percent: of each merged task's test images, divided by what the task's own network has; the mean over the tasks, and over the windows of tasks. Numbers were chosen on held-out images of the first three tasks, and kept. The last column chose them anew, on held-out images of all eight.",
		Head: []string{"method", "2 tasks", "4 tasks", "6 tasks", "8 tasks", "8, chosen on 8"}}
	chosen := report.Table{Title: "Chosen numbers", Note: "Of as many settings as were tried.", Text: 3, Head: []string{"method", "on three tasks", "on eight tasks", "tried"}}
	table.Rows = append(table.Rows, m.untouched())
	for i := range methods {
		x := &methods[i]
		if err := m.prepare(x); err != nil {
			return nil, err
		}
		few, err := m.choose(x, m.tasks[:chooseOn])
		if err != nil {
			return nil, err
		}
		many, err := m.choose(x, m.tasks)
		if err != nil {
			return nil, err
		}
		row := []string{x.title}
		for _, n := range counts {
			value, err := m.overWindows(x, few, n)
			if err != nil {
				return nil, err
			}
			row = append(row, percent(value))
		}
		again := "–"
		if len(x.grid) > 1 {
			value, err := m.overWindows(x, many, len(m.tasks))
			if err != nil {
				return nil, err
			}
			again = percent(value)
			chosen.Rows = append(chosen.Rows, []string{x.title, few.String(), many.String(), fmt.Sprint(len(x.grid))})
		}
		table.Rows = append(table.Rows, append(row, again))
		fmt.Fprintln(os.Stderr, strings.Join(table.Rows[len(table.Rows)-1], "  "))
	}
	singles := report.Table{Title: "The tasks", Note: "Accuracy in percent on test images: the base with the task's head, and the task's own network.", Text: 2, Head: []string{"task", "images and question", "classes", "base", "own network"}}
	for _, t := range m.tasks {
		singles.Rows = append(singles.Rows, []string{t.Name, t.What, fmt.Sprint(t.Classes), percent(t.Base), percent(t.Individual)})
	}
	return map[string][]report.Table{"tasks": {singles}, "merged": {table}, "chosen": {chosen}}, nil
}

// untouched is the row of the base.
func (m *mixer) untouched() []string {
	row := []string{"base"}
	for _, n := range counts {
		sum := 0.0
		list := m.windows(n)
		for _, w := range list {
			for _, t := range w {
				sum += t.Base / t.Individual / float64(n*len(list))
			}
		}
		row = append(row, percent(sum))
	}
	return append(row, "–")
}

// windows are the runs of n tasks, around the end.
func (m *mixer) windows(n int) (list [][]task) {
	if n == len(m.tasks) {
		return [][]task{m.tasks}
	}
	twice := slices.Concat(m.tasks, m.tasks)
	for i := 0; i < len(m.tasks); i += 2 {
		list = append(list, twice[i:i+n])
	}
	return list
}

// choose takes the numbers that are best on held-out images of some tasks.
func (m *mixer) choose(x *method, tasks []task) (best setting, err error) {
	top := -1.0
	for _, s := range x.grid {
		if len(x.grid) == 1 {
			return s, nil
		}
		value, err := m.measure(x, s, tasks, "heldout")
		if err != nil {
			return best, err
		}
		if value > top {
			top, best = value, s
		}
	}
	return best, nil
}

// overWindows is the mean normalised accuracy on test images.
func (m *mixer) overWindows(x *method, s setting, n int) (float64, error) {
	list := m.windows(n)
	sum := 0.0
	for _, w := range list {
		value, err := m.measure(x, s, w, "test")
		if err != nil {
			return 0, err
		}
		sum += value / float64(len(list))
	}
	return sum, nil
}

// measure is the mean of the tasks' accuracies under one setting, each divided by that of the task's own network. What was measured before is
// not measured again.
func (m *mixer) measure(x *method, s setting, tasks []task, set string) (float64, error) {
	names := make([]string, len(tasks))
	for i, t := range tasks {
		names[i] = fmt.Sprintf("%s %g", t.Name, t.Individual)
	}
	key := fmt.Sprint(m.recipe(x, s, tasks, -1), x.each, set, names)
	if value, ok := m.known[key]; ok {
		return value, nil
	}
	value, err := m.merge(x, s, tasks, set)
	if err != nil {
		return 0, err
	}
	m.known[key] = value
	text, err := json.Marshal(m.known)
	if err != nil {
		return 0, err
	}
	return value, os.WriteFile(m.kept(), text, 0o666)
}

func (m *mixer) kept() string { return filepath.Join(m.work, "multitask.json") }

// merge merges tasks and returns the mean of their accuracies, each divided by that of the task's own network.
func (m *mixer) merge(x *method, s setting, tasks []task, set string) (float64, error) {
	var merged weights
	sum := 0.0
	for i, t := range tasks {
		if merged == nil || x.each {
			mark := -1
			if x.each {
				mark = i
			}
			dir, _, err := m.merged("multitask", m.recipe(x, s, tasks, mark))
			if err != nil {
				return 0, err
			}
			if merged, err = load(dir); err != nil {
				return 0, err
			}
		}
		whole := weights{}
		for _, part := range []weights{merged, t.head} {
			for name, v := range part {
				whole[name] = v
			}
		}
		accuracy, err := m.accuracy(whole, filepath.Join(m.from, t.Name, "base"), filepath.Join(m.from, t.Name, "data", set+".safetensors"))
		if err != nil {
			return 0, err
		}
		own := t.Individual
		if set == "heldout" {
			own = t.HeldOut
		}
		sum += accuracy / own / float64(len(tasks))
	}
	return sum, nil
}

// recipe merges trunks; heads are the tasks' own. marked is the task whose model is wanted, -1: one for all.
func (m *mixer) recipe(x *method, s setting, tasks []task, marked int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "merge_method: %s\n", x.name)
	if x.name != "uniform_soup" {
		fmt.Fprintf(&b, "base_model: %q\n", filepath.Join(m.from, "base"))
	}
	b.WriteString("models:\n")
	for i, t := range tasks {
		dir := filepath.Join(m.from, t.Name, "trunk")
		if x.graft > 0 {
			dir = m.graftOf(t, x.graft)
		}
		fmt.Fprintf(&b, "  - model: %q\n", dir)
		parameters := s.model
		if i == marked {
			parameters = strings.TrimPrefix(parameters+", task: true", ", ")
		}
		if parameters != "" {
			fmt.Fprintf(&b, "    parameters: {%s}\n", parameters)
		}
	}
	if s.shared != "" {
		fmt.Fprintf(&b, "parameters: {%s}\n", s.shared)
	}
	return b.String()
}

func (m *mixer) graftOf(t task, share float64) string {
	return filepath.Join(m.work, fmt.Sprintf("graft-%s-%g.safetensors", t.Name, share))
}

// prepare learns the grafts that a method merges, each on its own task's images.
func (m *mixer) prepare(x *method) error {
	if x.graft == 0 {
		return nil
	}
	for _, t := range m.tasks {
		dir := filepath.Join(m.from, t.Name)
		config, err := os.ReadFile(filepath.Join(dir, "base", "config.json"))
		if err != nil {
			return err
		}
		data := func(set string) evaluation.Options {
			return evaluation.Options{Data: calibration.Options{Files: []string{filepath.Join(dir, "data", set+".safetensors")}}}
		}
		if _, err := os.Stat(m.graftOf(t, x.graft)); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		r, err := graft.Make(m.ctx, graft.Options{Base: filepath.Join(dir, "base"), Tuned: filepath.Join(dir, "model"), Config: config, Output: m.graftOf(t, x.graft),
			Sparsity: x.graft, Mask: graft.Learn, Data: data("train"), HeldOut: data("heldout"), Backend: m.networks})
		if err != nil {
			return fmt.Errorf("a graft of %s: %w", t.Name, err)
		}
		if k := r.Measured[len(r.Measured)-1].Kept; k != nil {
			fmt.Fprintf(os.Stderr, "graft of %g of %s keeps %.3f of the gain on held-out images, %.0f s\n", x.graft, t.Name, *k, r.Seconds)
		}
	}
	return nil
}
