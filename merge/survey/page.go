package survey

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"

	"github.com/mergekit/mergekit/internal/report"
)

// openPairs is how many pairs of models a map of layers shows without being asked for.
const openPairs = 10

// Sections are the parts of a page about a survey.
func (s *Survey) Sections() []report.Section {
	all := s.Sum(nil)
	if all.Tensors == 0 {
		return nil
	}
	v := &view{Survey: s, all: all, layerLines: s.layers(), roleLines: s.roles(), labels: Labels(s.Models)}
	for i := range all.Models {
		if all.Models[i].Vector {
			v.vectors = append(v.vectors, i)
		}
		if all.Models[i].Masked {
			v.masked = append(v.masked, i)
		}
		if all.Models[i].Read {
			v.read = append(v.read, i)
		}
	}
	var list []report.Section
	if len(v.vectors) > 0 {
		list = append(list, v.taskVectors())
	}
	if len(v.masked) > 0 {
		list = append(list, v.survivalByRole())
	}
	if len(v.masked) > 1 {
		list = append(list, v.conflicts(), v.overlap(), v.overlapByLayer())
	}
	return append(list, v.distances())
}

// Labels are short names of models: the last part of a path where that tells them apart.
func Labels(models []string) []string {
	var short []string
	for _, m := range models {
		short = append(short, filepath.Base(filepath.Clean(m)))
	}
	for i := range short {
		for k := range short {
			if k != i && filepath.Base(filepath.Clean(models[k])) == filepath.Base(filepath.Clean(models[i])) {
				short[i] = models[i]
			}
		}
	}
	return short
}

// view is a survey on its way to a page.
type view struct {
	*Survey
	all                   *Cell
	layerLines, roleLines []line
	labels                []string
	vectors, masked, read []int // models with task vectors, with masks of them, and models that were read
}

func (v *view) names(models []int) []string {
	var list []string
	for _, i := range models {
		list = append(list, v.labels[i])
	}
	return list
}

// lines is a map whose rows are layers or roles and whose columns are what value gives of each row's sums.
func (v *view) lines(title, note, row string, lines []line, cols []string, value func(c *Cell) []float64) report.Heat {
	h := report.Heat{Title: title, Note: note, Row: row, Cols: cols, Percent: true}
	for _, l := range lines {
		h.Rows = append(h.Rows, l.name)
		h.Values = append(h.Values, value(v.Sum(l.takes)))
	}
	return h
}

// grid is a map of layers by roles. The first column is over all roles, and the only one for what is outside of layers.
func (v *view) grid(title, note string, value func(c *Cell) float64) report.Heat {
	h := report.Heat{Title: title, Note: note, Row: "layer", Cols: []string{"all"}, Percent: true}
	for _, r := range v.roleLines {
		h.Cols = append(h.Cols, r.name)
	}
	for _, l := range v.layerLines {
		row := []float64{value(v.Sum(l.takes))}
		for _, r := range v.roleLines {
			row = append(row, value(v.Sum(func(p Place) bool { return l.takes(p) && r.takes(p) })))
		}
		h.Rows = append(h.Rows, l.name)
		h.Values = append(h.Values, row)
	}
	return h
}

// matrix is a map of models by models, without its diagonal.
func (v *view) matrix(title, note string, value func(i, j int) float64) report.Heat {
	h := report.Heat{Title: title, Note: note, Row: "model", Rows: v.names(v.masked), Cols: v.names(v.masked)}
	for _, i := range v.masked {
		var row []float64
		for _, j := range v.masked {
			x := math.NaN()
			if i != j {
				x = value(i, j)
			}
			row = append(row, x)
		}
		h.Values = append(h.Values, row)
	}
	return h
}

// each lists a value of each of the models.
func each(models []int, value func(i int) float64) []float64 {
	list := make([]float64, len(models))
	for k, i := range models {
		list[k] = value(i)
	}
	return list
}

func survived(c *Cell, i int) float64 { return ratio(c.Models[i].Survived, c.Models[i].NonZero) }

// taskVectors is how large they are, and how much of them is left.
func (v *view) taskVectors() report.Section {
	t := report.Table{Named: true, Head: []string{"model", "norm over the base's"}}
	masks := len(v.masked) > 0
	if masks {
		t.Head = append(t.Head, "entries changed", "left", "share left", "share of norm left")
	}
	for _, i := range v.vectors {
		m := &v.all.Models[i]
		row := []string{v.labels[i], percent(lengths(m.Delta, v.all.Base))}
		if masks {
			row = append(row, report.Grouped(float64(m.NonZero)), report.Grouped(float64(m.Survived)), percent(ratio(m.Survived, m.NonZero)), percent(lengths(m.Left, m.Delta)))
		}
		t.Rows = append(t.Rows, row)
	}
	s := report.Section{Title: "Task vectors", Note: "A task vector is a model less the base.", Tables: []report.Table{t}}
	if masks {
		s.Note += " An entry is left if the method's mask keeps it and it is not zero; whether a vote on signs then drops it is not looked at."
		shares := func(c *Cell) []float64 { return each(v.masked, func(i int) float64 { return survived(c, i) }) }
		const left = "Share left of each task vector"
		s.Heats = append(s.Heats, v.lines(left+", by layer, in percent", "", "layer", v.layerLines, v.names(v.masked), shares),
			v.lines(left+", by role, in percent", "", "role", v.roleLines, v.names(v.masked), shares))
	}
	sizes := func(c *Cell) []float64 {
		return append(each(v.vectors, func(i int) float64 {
			if !c.Models[i].Vector {
				return math.NaN()
			}
			return lengths(c.Models[i].Delta, c.Base)
		}), lengths(c.Shift, c.Base))
	}
	const size = "Norm of each task vector over the base's"
	names := append(v.names(v.vectors), "merge")
	s.Heats = append(s.Heats, v.lines(size+", by layer, in percent", "Before masks and weights; the last column is what the merge adds to the base.", "layer", v.layerLines, names, sizes),
		v.lines(size+", by role, in percent", "The last column is what the merge adds to the base.", "role", v.roleLines, names, sizes))
	return s
}

// survivalByRole has a map of layers and roles for each model.
func (v *view) survivalByRole() report.Section {
	s := report.Section{Title: "Share left by layer and role, for each model", Folded: true}
	for _, i := range v.masked {
		s.Heats = append(s.Heats, v.grid(v.labels[i]+": share left, in percent", "", func(c *Cell) float64 { return survived(c, i) }))
	}
	return s
}

// conflicts is where signs differ.
func (v *view) conflicts() report.Section {
	s := report.Section{Title: "Sign conflicts",
		Note: fmt.Sprintf("In %s of %s elements at least two task vectors have something left; in %s of them not all signs agree.", report.Grouped(float64(v.all.Overlap)), report.Grouped(float64(v.all.Elements)), percent(ratio(v.all.Conflict, v.all.Overlap)))}
	s.Heats = append(s.Heats, v.grid("Elements with opposite signs, in percent of those where several are left", "", func(c *Cell) float64 { return ratio(c.Conflict, c.Overlap) }))
	m := v.matrix("Opposite signs between two models, in percent of the elements that both have left", "Unrelated task vectors disagree in half of them.", v.all.Clash)
	m.Percent = true
	s.Heats = append(s.Heats, m)
	return s
}

// overlap is how far masks lie on each other.
func (v *view) overlap() report.Section {
	return report.Section{Title: "Overlap of the masks", Note: "Over all tensors. A mask is the set of entries that are left of a task vector.",
		Heats: []report.Heat{
			v.matrix("Jaccard index: |i ∧ j| / |i ∨ j|", "1 for equal masks, 0 for disjoint ones. Masks of density d that have nothing to do with each other come to d / (2 − d).", v.all.Jaccard),
			v.matrix("|i ∧ j| / |j|, i the row and j the column", "How much of the column's mask lies within the row's.", v.all.Within)}}
}

// overlapByLayer has a column for each pair.
func (v *view) overlapByLayer() report.Section {
	var names []string
	var pairs [][2]int
	for a, i := range v.masked {
		for _, j := range v.masked[a+1:] {
			names = append(names, fmt.Sprintf("%s, %s", v.labels[i], v.labels[j]))
			pairs = append(pairs, [2]int{i, j})
		}
	}
	indices := func(c *Cell) []float64 {
		var list []float64
		for _, p := range pairs {
			list = append(list, c.Jaccard(p[0], p[1]))
		}
		return list
	}
	h := v.lines("Jaccard index of each two masks, by layer", "", "layer", v.layerLines, names, indices)
	r := v.lines("Jaccard index of each two masks, by role", "", "role", v.roleLines, names, indices)
	h.Percent, r.Percent = false, false
	return report.Section{Title: "Overlap by layer and role", Heats: []report.Heat{h, r}, Folded: len(pairs) > openPairs}
}

// distances is how far the merge is from what it was made of.
func (v *view) distances() report.Section {
	t := report.Table{Named: true, Head: []string{"model", "elements", "norm", "distance to the merge", "over its norm"}}
	for _, i := range v.read {
		m := &v.all.Models[i]
		name := v.labels[i]
		if i == v.Base {
			name += " (base)"
		}
		t.Rows = append(t.Rows, []string{name, report.Grouped(float64(m.Elements)), short(math.Sqrt(m.Norm)), short(math.Sqrt(m.Distance)), percent(lengths(m.Distance, m.Norm))})
	}
	far := func(c *Cell) []float64 {
		return each(v.read, func(i int) float64 { return lengths(c.Models[i].Distance, c.Models[i].Norm) })
	}
	const title = "Distance of the merge from each model over the model's norm"
	return report.Section{Title: "Distances", Note: fmt.Sprintf("The norm of the merge is %s.", short(math.Sqrt(v.all.Out))), Tables: []report.Table{t},
		Heats: []report.Heat{v.lines(title+", by layer, in percent", "", "layer", v.layerLines, v.names(v.read), far), v.lines(title+", by role, in percent", "", "role", v.roleLines, v.names(v.read), far)}}
}

// percent writes a share, a dash for one of nothing.
func percent(x float64) string {
	if math.IsNaN(x) {
		return "–"
	}
	return short(100*x) + " %"
}

func short(x float64) string { return strconv.FormatFloat(x, 'g', 4, 64) }
