package report

import (
	_ "embed" // the page's template
	"fmt"
	"image/color"
	"io"
	"math"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Tone is a colour of a line. Pages have values of it for light and for dark ground.
type Tone int

// The tones.
const (
	First  Tone = iota // blue
	Second             // orange
	Third              // green
	Fourth             // violet
	Faint              // light blue
)

var tones = []tint{first, second, third, fourth, faint}

// onPaper are the colours of the style sheet for light ground.
var onPaper = map[string]color.RGBA{
	"--ink": {0x1c, 0x24, 0x30, 255}, "--rule": {0xd8, 0xdd, 0xe4, 255}, "--first": {0x1f, 0x5f, 0xbf, 255}, "--faint": {0xa8, 0xc3, 0xea, 255},
	"--second": {0xc2, 0x41, 0x0c, 255}, "--third": {0x2f, 0x7d, 0x32, 255}, "--fourth": {0x7b, 0x3f, 0xa0, 255},
}

// Line is a line of a panel: values Y over X. Values that are no numbers are left out.
type Line struct {
	Name   string // in the legend
	X, Y   []float64
	Tone   Tone
	Dashed bool
	Dots   bool // mark each value
	Bars   bool // bars instead of a curve, beside those of other lines; for panels with Names
}

// Panel is one drawing of a figure.
type Panel struct {
	Title string
	X, Y  string   // what the axes show
	Names []string // of the places 0, 1, 2 ... on the horizontal axis, instead of numbers
	Whole bool     // the horizontal axis has whole numbers alone
	Zero  bool     // the vertical axis begins at 0
	Lines []Line
}

// Figure is a picture of panels side by side.
type Figure struct {
	Title  string
	Panels []Panel
}

// Table is a table of a page.
type Table struct {
	Title string
	Note  string
	Text  int  // columns of text; the others are numbers. 0: 1, noText: none
	Named bool // the first column names the rows
	Head  []string
	Rows  [][]string
}

// Section is a part of a page. What it has none of is left out.
type Section struct {
	Title  string
	Note   string
	Pairs  []Pair
	Tables []Table
	Heats  []Heat
	Text   string // shown as it is: a recipe
	Folded bool   // shown when the reader asks for it
}

// Findings is a page with figures, sections and tables, in this order.
type Findings struct {
	Title    string
	Lead     string // what was found, in a sentence or two
	Figures  []Figure
	Sections []Section
	Tables   []Table
	// Settings are how it was found.
	Settings []Pair
}

//go:embed findings.html
var findingsText string

var findingsPage = parsed("findings", findingsText)

// chart prepares a panel; lines are in its order.
func (p *Panel) chart() (*chart, []line) {
	c := &chart{Title: p.Title, Empty: "There is nothing to draw.", zero: p.Zero, x: p.X, y: p.Y, names: p.Names, parts: !p.Whole}
	var lines []line
	for _, l := range p.Lines {
		one := line{name: l.Name, tint: tones[l.Tone], width: 1.5, dots: l.Dots, dashed: l.Dashed, bars: l.Bars}
		for i, y := range l.Y {
			if x := l.X[i]; !math.IsNaN(x) && !math.IsInf(x, 0) && !math.IsNaN(y) && !math.IsInf(y, 0) {
				one.points = append(one.points, point{x, y})
			}
		}
		lines = append(lines, one)
	}
	return c, lines
}

// Page writes a page that stands alone: figures first, tables below.
func (f *Findings) Page(w io.Writer) error {
	type figure struct {
		Title  string
		Charts []*chart
	}
	var figures []figure
	for _, one := range f.Figures {
		drawn := figure{Title: one.Title}
		for i := range one.Panels {
			c, lines := one.Panels[i].chart()
			if err := c.draw(lines...); err != nil {
				return err
			}
			drawn.Charts = append(drawn.Charts, c)
		}
		figures = append(figures, drawn)
	}
	type section struct {
		*Section
		Tables []*Table
		Maps   []*drawnHeat
	}
	var sections []section
	for i := range f.Sections {
		s := section{Section: &f.Sections[i], Tables: pointers(f.Sections[i].Tables)}
		for k := range s.Heats {
			s.Maps = append(s.Maps, s.Heats[k].draw())
		}
		sections = append(sections, s)
	}
	return findingsPage.Execute(w, map[string]any{"Title": f.Title, "Lead": f.Lead, "Figures": figures, "Sections": sections, "Tables": pointers(f.Tables), "Settings": f.Settings})
}

// pointers makes tables what templates can ask whether a column has numbers.
func pointers(tables []Table) []*Table {
	list := make([]*Table, len(tables))
	for i := range tables {
		list[i] = &tables[i]
	}
	return list
}

// Sizes of a figure that stands alone.
const (
	panelWidth  = 440 * vg.Length(1)
	panelHeight = 290 * vg.Length(1)
	headHeight  = 30 * vg.Length(1)
	keyHeight   = 18 * vg.Length(1)
	imageDPI    = 144
)

// size is that of the figure, and the number of lines of the longest legend.
func (f *Figure) size() (width, height vg.Length, keys int) {
	for _, p := range f.Panels {
		n := 0
		for _, l := range p.Lines {
			if l.Name != "" {
				n++
			}
		}
		keys = max(keys, (n+1)/2)
	}
	return panelWidth * vg.Length(len(f.Panels)), headHeight + panelHeight + keyHeight*vg.Length(keys), keys
}

// SVG writes the figure as a drawing on white ground.
func (f *Figure) SVG(w io.Writer) error {
	width, height, _ := f.size()
	canvas := vgsvg.New(width, height)
	if err := f.draw(canvas); err != nil {
		return err
	}
	_, err := canvas.WriteTo(w)
	return err
}

// PNG writes the figure as an image on white ground.
func (f *Figure) PNG(w io.Writer) error {
	width, height, _ := f.size()
	canvas := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(imageDPI))
	if err := f.draw(canvas); err != nil {
		return err
	}
	_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
	return err
}

// draw draws title, panels and legends.
func (f *Figure) draw(sized vg.CanvasSizer) error {
	width, height, keys := f.size()
	all := draw.New(sized)
	all.SetColor(color.White)
	all.Fill(all.Rectangle.Path())
	ink := onPaper[ink.variable]
	style := func(size float64) draw.TextStyle {
		return draw.TextStyle{Color: ink, Font: sans(size), Handler: plot.DefaultTextHandler, XAlign: text.XLeft, YAlign: text.YCenter}
	}
	all.FillText(style(14), vg.Point{X: 14, Y: height - headHeight/2}, f.Title)
	for i := range f.Panels {
		left := panelWidth * vg.Length(i)
		part := draw.Crop(all, left+8, left+panelWidth-width-16, keyHeight*vg.Length(keys)+4, -headHeight)
		c, lines := f.Panels[i].chart()
		c.look = func(t tint) color.Color { return onPaper[t.variable] }
		p, err := c.plot(lines)
		if err != nil {
			return err
		}
		if p == nil {
			part.FillText(style(12), part.Center(), c.Empty)
			continue
		}
		p.Title.Text = c.Title
		p.Title.TextStyle = style(12)
		p.Title.TextStyle.XAlign, p.Title.TextStyle.YAlign = text.XCenter, text.YTop
		p.Title.Padding = 6
		p.Draw(part)
		at := 0
		for _, l := range lines {
			if l.name == "" || len(l.points) == 0 {
				continue
			}
			x := left + 40 + (panelWidth-60)/2*vg.Length(at%2)
			y := keyHeight*vg.Length(keys-at/2) - keyHeight/2
			key := draw.LineStyle{Color: c.colour(l.tint), Width: 2}
			if l.bars {
				key.Width = 7
			}
			if l.dashed {
				key.Dashes = []vg.Length{5, 3}
			}
			all.StrokeLine2(key, x, y, x+22, y)
			all.FillText(style(11), vg.Point{X: x + 28, Y: y}, l.name)
			at++
		}
	}
	return nil
}

// Over returns 0 … n-1, for lines over numbered places.
func Over(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(i)
	}
	return x
}

// noText is Table.Text where all columns are numbers.
const noText = -1

func (t *Table) texts() int {
	switch t.Text {
	case 0:
		return 1
	case noText:
		return 0
	}
	return t.Text
}

// Number reports whether a column has numbers.
func (t *Table) Number(column int) bool { return column >= t.texts() }

// Markdown writes a table in Markdown.
func (t *Table) Markdown(w io.Writer) error {
	row := func(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
	align := make([]string, len(t.Head))
	for i := range align {
		align[i] = "---:"
	}
	for i := range min(t.texts(), len(align)) {
		align[i] = "---"
	}
	out := row(t.Head) + row(align)
	for _, r := range t.Rows {
		out += row(r)
	}
	_, err := fmt.Fprint(w, out)
	return err
}
