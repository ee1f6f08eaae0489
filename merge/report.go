package merge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/search"
	"github.com/mergekit/mergekit/merge/survey"
	"github.com/mergekit/mergekit/tensors"
)

// A report is a page about what a merge did. What it shows is gathered while tensors are merged, and only for it.

// CheckReport sees, before any weight is read, that a page about what out holds can be written. It replaces nothing but with force, and
// then nothing that has not the name of a page.
func CheckReport(path, out string, force bool) error {
	bad := func(msg, hint string) error {
		return &tensors.FormatError{File: path, Msg: msg, Hint: hint}
	}
	if ext := strings.ToLower(filepath.Ext(path)); ext != ".html" && ext != ".htm" {
		return bad("a report is a page, and this is not its name", "give a name that ends in .html")
	}
	st, err := os.Lstat(path)
	switch {
	case err == nil && !st.Mode().IsRegular():
		return bad("exists and is no file", "choose another name for the report")
	case err == nil && !force:
		return bad("exists", "use --force to replace it, or choose another name for the report")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return bad("cannot be looked at: "+cause(err), "choose another name for the report")
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return err
	}
	if whole, err := filepath.Abs(out); err == nil && dir == whole { // which is there when the page is written
		return nil
	}
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return bad("cannot be written: "+cause(err), "make the folder, or choose another name for the report")
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// cause is what an error of the file system says beyond the path.
func cause(err error) string {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}

// newSurvey is what a report is gathered in.
func newSurvey(p *plan.Plan) *survey.Survey {
	var names []string
	base := -1
	for i, m := range p.Models {
		names = append(names, m.Name())
		if p.Recipe.Base != nil && m.Ref.Same(*p.Recipe.Base) {
			base = i
		}
	}
	return survey.New(names, base)
}

// modelIndices says which of the plan's models each input of a task is of.
func modelIndices(p *plan.Plan, t *plan.Task) []int {
	var list []int
	for _, in := range t.Inputs {
		list = append(list, slices.Index(p.Models, in.Model))
	}
	return list
}

// reported writes the report of a merge that is done.
func (j *job) reported(ctx context.Context, s *Summary, err error) (*Summary, error) {
	if err != nil || j.o.survey == nil {
		return s, err
	}
	if err := j.surveyOutput(ctx); err != nil {
		return nil, fmt.Errorf("the output is complete, but it could not be read for its report: %w", err)
	}
	if err := report.Save(j.o.Report, j.findings(s).Page); err != nil {
		return nil, fmt.Errorf("the output is complete, but its report could not be written: %w", err)
	}
	s.Page = j.o.Report
	return s, nil
}

// findings are the page. It holds nothing that changes from run to run.
func (j *job) findings(s *Summary) *report.Findings {
	p := j.p
	f := &report.Findings{Title: "Merge: " + cardTitle(j.out), Lead: j.lead(s)}
	about := report.Section{Pairs: []report.Pair{{Name: "Method", Value: p.Method.Title + " (" + p.Method.Name + ")"}}}
	add := func(name, format string, args ...any) {
		about.Pairs = append(about.Pairs, report.Pair{Name: name, Value: fmt.Sprintf(format, args...)})
	}
	if p.Method.Paper.Text != "" {
		add("Source", "%s", p.Method.Paper.Text)
	}
	var models []string
	labels := survey.Labels(j.o.survey.Models)
	for i, name := range labels {
		if i == j.o.survey.Base {
			add("Base", "%s", name)
		} else {
			models = append(models, name)
		}
	}
	add("Models", "%s", strings.Join(models, ", "))
	add("Tensors", "%d, %s parameters", s.Tensors, report.Grouped(float64(s.Elements)))
	if n := j.o.survey.Copied; n > 0 {
		add("Passed through", "%d tensors, which are in none of the figures below", n)
	}
	if s.Resumed > 0 {
		add("Made before", "%d tensors, by a run that was interrupted; of them only distances are known", s.Resumed)
	}
	if s.Repaired != nil {
		add("Repair", "%s; the figures below are of the merge before it", repairText(s.Repaired))
	}
	add("Backend", "%s", s.Backend)
	f.Sections = append(f.Sections, about)
	if s.Evaluated != nil {
		f.Sections = append(f.Sections, evaluationSection(s.Evaluated, j.o.survey.Models, labels))
	}
	if j.o.searched != nil {
		f.Sections = append(f.Sections, searchSection(j.o.searched))
	}
	f.Sections = append(f.Sections, j.o.survey.Sections()...)
	if len(s.Aligned) > 0 {
		f.Sections = append(f.Sections, alignmentSection(s.Aligned))
	}
	if len(p.Warnings) > 0 {
		var notes []report.Pair
		for i, w := range p.Warnings {
			notes = append(notes, report.Pair{Name: fmt.Sprint(i + 1), Value: w})
		}
		f.Sections = append(f.Sections, report.Section{Title: "Notes from the merge", Pairs: notes})
	}
	f.Sections = append(f.Sections, report.Section{Title: "Recipe", Text: string(p.Recipe.Text), Folded: true})
	return f
}

// lead is the merge in a sentence or two.
func (j *job) lead(s *Summary) string {
	text := fmt.Sprintf("%s: %d models.", j.p.Method.Title, len(j.p.Models))
	if j.o.survey.Base >= 0 {
		text = fmt.Sprintf("%s: a base and %d other models.", j.p.Method.Title, len(j.p.Models)-1)
	}
	if len(s.Survival) > 0 {
		var left, all int64
		for _, m := range s.Survival {
			left, all = left+m.Survived, all+m.NonZero
		}
		if all > 0 {
			text += fmt.Sprintf(" Of the entries in which models differ from the base, %.1f %% are left.", 100*float64(left)/float64(all))
		}
	}
	if c := s.Conflicts; c != nil && c.Overlap > 0 {
		text += fmt.Sprintf(" Where several models have something left, signs disagree in %.1f %%.", 100*c.Share)
	}
	return text
}

// alignmentSection tells how models were brought into the coordinates of a reference.
func alignmentSection(list []AlignReport) report.Section {
	t := report.Table{Named: true, Text: 3, Head: []string{"model", "in the coordinates of", "by", "agreement before", "after", "distance before", "after", "units moved"}}
	var notes []report.Pair
	for i := range list {
		r := &list[i]
		row := []string{r.Model, r.Reference, r.Method, "–", "–", "–", "–", "–"}
		if r.File != "" {
			row[2] = r.File
		}
		if m := r.Matched; m != nil {
			row[3], row[4] = fmt.Sprintf("%.4f", m.Before), fmt.Sprintf("%.4f", m.After)
			if m.L2Before > 0 {
				row[5], row[6] = fmt.Sprintf("%.4g", m.L2Before), fmt.Sprintf("%.4g", m.L2After)
			}
			row[7] = fmt.Sprintf("%.1f %%", 100*m.Moved)
		}
		t.Rows = append(t.Rows, row)
		if r.Skipped != "" {
			notes = append(notes, report.Pair{Name: r.Model, Value: "not aligned: " + r.Skipped})
		}
		if r.Ancestry != "" {
			notes = append(notes, report.Pair{Name: r.Model, Value: "ancestry: " + r.Ancestry})
		}
	}
	return report.Section{Title: "Alignment", Note: "Agreement is the inner product with the reference over the norms.", Pairs: notes, Tables: []report.Table{t}}
}

// evaluationSection is what was measured of the merge on data.
func evaluationSection(e *Evaluated, models, labels []string) report.Section {
	s := report.Section{Title: "Evaluation"}
	for _, set := range e.Sets() {
		rows := set.Table()
		for _, row := range rows[1:] {
			if i := slices.Index(models, row[0]); i >= 0 {
				row[0] = labels[i]
			}
		}
		s.Tables = append(s.Tables, report.Table{Title: set.Heading(), Note: set.Note(), Named: true, Head: rows[0], Rows: rows[1:]})
	}
	return s
}

// searchSection is where the recipe's numbers come from.
func searchSection(r *SearchReport) report.Section {
	t := report.Table{Named: true, Head: []string{"", strings.ReplaceAll(r.Metric, "_", " ")}}
	for i := range r.Parameters {
		t.Head = append(t.Head, r.Parameters[i].Name)
	}
	row := func(what string, trial *search.Trial) {
		cells := []string{what, r.Figure(trial)}
		for i := range r.Parameters {
			value := "as it stood"
			if trial.Values != nil {
				value = formatValue(trial.Values[i])
			}
			cells = append(cells, value)
		}
		t.Rows = append(t.Rows, cells)
	}
	row("the recipe", &r.Own)
	row(fmt.Sprintf("trial %d, the best", r.Best.Number), &r.Best)
	return report.Section{Title: "Search", Tables: []report.Table{t},
		Note: fmt.Sprintf("%d trials, measured on %s. The best of many looks better on the data that chose it than it is.", len(r.Trials), strings.Join(r.Data, ", "))}
}
