package connect

import (
	"fmt"
	"math"

	"github.com/mergekit/mergekit/internal/report"
)

// Variant is a way of bringing the models into one another's coordinates, with what was measured after it.
type Variant struct {
	Name string `json:"name"` // "as given", or how the models were aligned
	*Result
}

// SetInfo is a set that was measured on.
type SetInfo struct {
	Name string `json:"name"`
	File string `json:"file"`
	Rows int    `json:"rows"`
}

// Report is all that was measured, as barrier.json has it.
type Report struct {
	Models   []string  `json:"models"`
	Sets     []SetInfo `json:"sets"`
	Points   int       `json:"points"`
	Repair   string    `json:"repair"`
	Variants []Variant `json:"variants"`
	// Alignments say how models were aligned for it.
	Alignments []any  `json:"alignments,omitempty"`
	Version    string `json:"version"`
}

// cell writes a measure.
func cell(v float64) string {
	if math.Abs(v) >= 1000 {
		return fmt.Sprintf("%.4g", v)
	}
	return fmt.Sprintf("%.4f", v)
}

func middle(b *Barrier) string {
	if b.Middle == nil {
		return "–"
	}
	return cell(*b.Middle)
}

// pathName names the models of a path, by their place on the command line.
func (r *Report) pathName(p *Path) string {
	return fmt.Sprintf("%s–%s", letter(p.From), letter(p.To))
}

// letter names a model: A, B ... Z, then M27 and on.
func letter(i int) string {
	if i < 26 {
		return string(rune('A' + i))
	}
	return fmt.Sprint("M", i+1)
}

// PathTable has a row for every path, variant and set.
func (r *Report) PathTable() report.Table {
	t := report.Table{Title: "Paths", Text: 3, Note: "The barrier is the largest rise above the chord between the ends, and above their mean.",
		Head: []string{"path", "alignment", "set", "loss at 0", "loss at 1/2", "loss at 1", "barrier", "at t", "over mean", "error at 0", "error at 1/2", "error at 1", "error barrier"}}
	for _, v := range r.Variants {
		for i := range v.Paths {
			p := &v.Paths[i]
			for _, c := range p.Curves {
				l := &c.LossBarrier
				row := []string{r.pathName(p), v.Name, c.Set, cell(l.Start), middle(l), cell(l.End), cell(l.Chord), fmt.Sprintf("%.2f", l.ChordAt), cell(l.Mean)}
				if e := c.ErrorBarrier; e != nil {
					row = append(row, cell(e.Start), middle(e), cell(e.End), cell(e.Chord))
				} else {
					row = append(row, "–", "–", "–", "–")
				}
				t.Rows = append(t.Rows, row)
			}
		}
	}
	return t
}

// SimplexTable has a row for every variant and set; it has none for two models.
func (r *Report) SimplexTable() report.Table {
	t := report.Table{Title: "All models together", Text: 2, Note: "The barrier is the largest rise above the weighted sum of what the models measure.",
		Head: []string{"alignment", "set", "loss of the mean", "rise", "barrier", "of middles", "of random points", "error of the mean", "error rise", "error barrier"}}
	for _, v := range r.Variants {
		if v.Simplex == nil {
			continue
		}
		for _, c := range v.Simplex.Curves {
			row := []string{v.Name, c.Set, cell(c.CentroidLoss), cell(c.CentroidExcess), cell(c.LossBarrier.Value), cell(c.LossOfPairs.Value), cell(c.LossOfSamples.Value)}
			if c.ErrorBarrier != nil {
				row = append(row, cell(*c.CentroidError), cell(*c.CentroidErrorUp), cell(c.ErrorBarrier.Value))
			} else {
				row = append(row, "–", "–", "–")
			}
			t.Rows = append(t.Rows, row)
		}
	}
	return t
}

// variantTones are the colours of variants: what was given is orange.
var variantTones = []report.Tone{report.Second, report.First, report.Third, report.Fourth, report.Faint}

func tone(i int) report.Tone { return variantTones[i%len(variantTones)] }

// Figure draws loss and error along the paths. Between two models, colours are variants and dashed lines the first of two sets; between
// more, colours are paths on the last set, and dashed lines the first variant.
func (r *Report) Figure() report.Figure {
	loss := report.Panel{Title: "Loss", X: "t", Y: "loss"}
	wrong := report.Panel{Title: "Error", X: "t", Y: "share of wrong answers"}
	for i, v := range r.Variants {
		for k := range v.Paths {
			p := &v.Paths[k]
			for s, c := range p.Curves {
				line := report.Line{Name: c.Set, X: p.T, Tone: tone(i), Dashed: s < len(p.Curves)-1}
				if len(r.Variants) > 1 {
					line.Name = v.Name + ", " + c.Set
				}
				if len(v.Paths) > 1 {
					if s < len(p.Curves)-1 {
						continue
					}
					line.Name, line.Tone, line.Dashed = r.pathName(p), tone(k), i < len(r.Variants)-1
					if len(r.Variants) > 1 {
						line.Name += ", " + v.Name
					}
				}
				line.Y = c.Loss
				loss.Lines = append(loss.Lines, line)
				if len(c.Error) > 0 {
					line.Y = c.Error
					wrong.Lines = append(wrong.Lines, line)
				}
			}
		}
	}
	f := report.Figure{Title: "Between " + r.names(), Panels: []report.Panel{loss}}
	if len(wrong.Lines) > 0 {
		f.Panels = append(f.Panels, wrong)
	}
	return f
}

func (r *Report) names() string {
	if len(r.Models) == 2 {
		return r.Models[0] + " and " + r.Models[1]
	}
	return fmt.Sprintf("%d models", len(r.Models))
}

// Lead says in a sentence what was found.
func (r *Report) Lead() string {
	var text string
	for i, v := range r.Variants {
		worst, set := 0.0, ""
		for _, p := range v.Paths {
			c := p.Curves[len(p.Curves)-1]
			set = c.Set
			worst = max(worst, c.LossBarrier.Chord)
		}
		switch {
		case i == 0:
			text = fmt.Sprintf("The loss barrier on %s is %s %s", set, cell(worst), v.Name)
		default:
			text += fmt.Sprintf("; %s: %s", v.Name, cell(worst))
		}
	}
	return text + "."
}

// Findings is the page about it.
func (r *Report) Findings() *report.Findings {
	f := &report.Findings{Title: "Linear connectivity of " + r.names(), Lead: r.Lead(), Figures: []report.Figure{r.Figure()}, Tables: []report.Table{r.PathTable()}}
	if t := r.SimplexTable(); len(t.Rows) > 0 {
		f.Tables = append(f.Tables, t)
	}
	for i, m := range r.Models {
		f.Settings = append(f.Settings, report.Pair{Name: "model " + letter(i), Value: m})
	}
	for _, s := range r.Sets {
		f.Settings = append(f.Settings, report.Pair{Name: s.Name, Value: fmt.Sprintf("%s, %d rows", s.File, s.Rows)})
	}
	f.Settings = append(f.Settings, report.Pair{Name: "points", Value: fmt.Sprint(r.Points)}, report.Pair{Name: "repair", Value: r.Repair})
	f.Settings = append(f.Settings, report.Pair{Name: "mergekit", Value: r.Version})
	return f
}
