package report

import (
	"bytes"
	"fmt"
	"html"
	"html/template"
	"image/color"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A chart is drawn near the size at which it is shown on a telephone, and at most half as large again on a desk, so that its text is of
// the size of the page's text in both.
const (
	chartWidth  = 380 * vg.Length(1)
	chartHeight = 240 * vg.Length(1)
	chartPoints = 600 // points of a line; more would not be seen
)

// tint is a colour of the drawing. The page's style sheet gives it its values, one for light ground and one for dark.
type tint struct {
	drawn    color.RGBA
	variable string
}

// The colours in which the library draws stand for the style sheet's variables.
var (
	ink     = tint{color.RGBA{R: 0x11, G: 0x11, B: 0x11, A: 255}, "--ink"}
	rule    = tint{color.RGBA{R: 0x22, G: 0x22, B: 0x22, A: 255}, "--rule"}
	first   = tint{color.RGBA{R: 0x33, G: 0x33, B: 0x33, A: 255}, "--first"}
	faint   = tint{color.RGBA{R: 0x44, G: 0x44, B: 0x44, A: 255}, "--faint"}
	second  = tint{color.RGBA{R: 0x55, G: 0x55, B: 0x55, A: 255}, "--second"}
	third   = tint{color.RGBA{R: 0x66, G: 0x66, B: 0x66, A: 255}, "--third"}
	fourth  = tint{color.RGBA{R: 0x77, G: 0x77, B: 0x77, A: 255}, "--fourth"}
	tints   = []tint{ink, rule, first, faint, second, third, fourth}
	palette = strings.NewReplacer(replacements()...)
)

func replacements() []string {
	var list []string
	for _, t := range tints {
		list = append(list, fmt.Sprintf("#%02X%02X%02X", t.drawn.R, t.drawn.G, t.drawn.B), "var("+t.variable+")")
	}
	// The metrics of the drawing's font are those of Arial too, for machines that lack it.
	return append(list, "font-family:Liberation Sans;font-variant:normal;font-weight:normal;font-style:normal;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")
}

// line is a curve of a chart.
type line struct {
	name   string // in the legend; "" leaves it out there
	points []point
	tint   tint
	width  float64
	dots   bool // mark each value
	dashed bool
	bars   bool // a bar for each value instead of a curve
}

// curve is a line and nothing else.
func curve(name string, points []point, t tint, width float64) line {
	return line{name: name, points: points, tint: t, width: width}
}

// chart is a figure of the page.
type chart struct {
	Title  string
	Legend []legend
	SVG    template.HTML
	Empty  string                 // said in place of a drawing
	zero   bool                   // the axis begins at 0
	x, y   string                 // labels of the axes; x is "step" if it is empty
	names  []string               // what stands at 0, 1, 2 ... of the horizontal axis in place of numbers
	parts  bool                   // the horizontal axis has fractions
	look   func(tint) color.Color // the colours in which it is drawn; nil: those that the style sheet replaces
}

// colour is how a tint is drawn.
func (c *chart) colour(t tint) color.Color {
	if c.look == nil {
		return t.drawn
	}
	return c.look(t)
}

// legend is an entry below a chart.
type legend struct{ Name, Class string }

// draw draws the lines over the steps.
func (c *chart) draw(lines ...line) error {
	p, err := c.plot(lines)
	if p == nil || err != nil {
		return err
	}
	canvas := vgsvg.New(chartWidth, chartHeight)
	drawOn(p, canvas)
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return fmt.Errorf("drawing %s: %w", c.Title, err)
	}
	c.SVG = inline(b.String(), c.Title+" over "+c.over())
	return nil
}

// over names the horizontal axis.
func (c *chart) over() string {
	if c.x == "" {
		return "steps"
	}
	return c.x
}

// drawOn draws with a margin for the labels of the outermost ticks.
func drawOn(p *plot.Plot, canvas vg.CanvasSizer) {
	p.Draw(draw.Crop(draw.New(canvas), 0, vg.Points(-12), 0, vg.Points(-6)))
}

// plot puts the lines into a plot, nil if there is nothing to draw.
func (c *chart) plot(lines []line) (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = nil
	ink, rule := c.colour(ink), c.colour(rule)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.LineStyle.Color = ink
		axis.LineStyle.Width = vg.Points(0.8)
		axis.Label.TextStyle.Color = ink
		axis.Label.TextStyle.Font = sans(12)
		axis.Tick.Label.Color = ink
		axis.Tick.Label.Font = sans(11)
		axis.Tick.LineStyle.Color = ink
		axis.Tick.Length = vg.Points(4)
	}
	if p.X.Label.Text = c.x; c.x == "" {
		p.X.Label.Text = "step"
	}
	p.Y.Label.Text = c.y
	p.X.Tick.Marker = ticks{count: 5, whole: !c.parts}
	if c.names != nil {
		p.X.Tick.Marker = named(c.names)
	}
	p.Y.Tick.Marker = ticks{count: 5}
	p.X.Padding, p.Y.Padding = 0, 0
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = rule
	p.Add(grid)
	drawn, bar, bars := false, 0, 0
	for _, l := range lines {
		if l.bars && len(l.points) > 0 {
			bars++
		}
	}
	for _, l := range lines {
		if len(l.points) == 0 {
			continue
		}
		drawn = true
		if err := c.add(p, l, group{bar, bars}); err != nil {
			return nil, err
		}
		if l.bars {
			bar++
		}
		if l.name != "" {
			class := strings.TrimPrefix(l.tint.variable, "--")
			if l.dashed {
				class += " dashed"
			}
			c.Legend = append(c.Legend, legend{l.name, class})
		}
	}
	if !drawn {
		return nil, nil
	}
	c.Empty = ""
	if c.names != nil {
		p.X.Min, p.X.Max = -0.5, float64(len(c.names))-0.5
	}
	if p.X.Min == p.X.Max {
		p.X.Min, p.X.Max = p.X.Min-1, p.X.Max+1
	}
	// A little air, so that a line along an edge is seen; where 0 is near, the axis begins there.
	margin := (p.Y.Max - p.Y.Min) * 0.05
	if margin == 0 {
		margin = max(math.Abs(p.Y.Max)*0.1, 1e-9)
	}
	if p.Y.Min >= 0 && (c.zero || p.Y.Min < p.Y.Max*0.25) {
		p.Y.Min = 0
	} else {
		p.Y.Min -= margin
	}
	p.Y.Max += margin
	return p, nil
}

// group says which of the bars beside each other a line is.
type group struct{ index, of int }

// add draws one line.
func (c *chart) add(p *plot.Plot, l line, g group) error {
	xys := make(plotter.XYs, 0, len(l.points))
	for _, q := range thin(l.points, chartPoints) {
		xys = append(xys, plotter.XY{X: q.x, Y: q.y})
	}
	colour := c.colour(l.tint)
	if l.bars {
		width := 0.8 / float64(g.of)
		for _, q := range xys {
			left := q.X - 0.4 + width*float64(g.index)
			bar, err := plotter.NewPolygon(plotter.XYs{{X: left, Y: 0}, {X: left, Y: q.Y}, {X: left + width*0.92, Y: q.Y}, {X: left + width*0.92, Y: 0}})
			if err != nil {
				return fmt.Errorf("drawing %s: %w", c.Title, err)
			}
			bar.Color, bar.Width = colour, 0
			p.Add(bar)
		}
		return nil
	}
	drawing, err := plotter.NewLine(xys)
	if err != nil {
		return fmt.Errorf("drawing %s: %w", c.Title, err)
	}
	drawing.Color = colour
	drawing.Width = vg.Points(l.width)
	if l.dashed {
		drawing.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
	}
	p.Add(drawing)
	if l.dots || len(xys) == 1 {
		dots, err := plotter.NewScatter(xys)
		if err != nil {
			return fmt.Errorf("drawing %s: %w", c.Title, err)
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: colour, Radius: vg.Points(2.2), Shape: draw.CircleGlyph{}}
		p.Add(dots)
	}
	return nil
}

func sans(size float64) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Points(size)}
}

// inline makes a part of a page out of a document: the head goes, colours become the style sheet's, and the size follows the column.
func inline(svg, title string) template.HTML {
	begin := strings.Index(svg, "<svg")
	end := begin + strings.IndexByte(svg[begin:], '>') + 1
	head := fmt.Sprintf(`<svg role="img" aria-label="%s" viewBox="0 0 %g %g" xmlns="http://www.w3.org/2000/svg">`,
		html.EscapeString(title), chartWidth.Points(), chartHeight.Points())
	// The library's own text is escaped by it; nothing of a run's names gets in but as text.
	return template.HTML(head + palette.Replace(svg[end:])) //nolint:gosec // drawn here
}

// ticks puts round values on an axis.
type ticks struct {
	count int
	whole bool // steps are whole numbers
}

// Ticks lists the values with their labels.
func (t ticks) Ticks(low, high float64) []plot.Tick {
	span := high - low
	if !(span > 0) || math.IsInf(span, 0) {
		return []plot.Tick{{Value: low, Label: label(low, 0)}}
	}
	step := math.Pow(10, math.Floor(math.Log10(span/float64(t.count))))
	for _, m := range []float64{1, 2, 5, 10} {
		if span/(step*m) <= float64(t.count)+0.5 {
			step *= m
			break
		}
	}
	if t.whole {
		step = max(1, math.Round(step))
	}
	var list []plot.Tick
	for i := math.Ceil(low/step - 1e-9); i*step <= high+step*1e-9 && len(list) <= 4*t.count; i++ {
		list = append(list, plot.Tick{Value: i * step, Label: label(i*step, step)})
	}
	return list
}

// named puts names at 0, 1, 2 ...; if they are many, only some of them are written.
type named []string

// Ticks lists the places with their names.
func (n named) Ticks(_, _ float64) []plot.Tick {
	longest := 1
	for _, s := range n {
		longest = max(longest, len([]rune(s)))
	}
	every := max(1, (len(n)*(longest+2)+55)/56) // about as many characters have room
	var list []plot.Tick
	for i, s := range n {
		if i%every != 0 {
			s = ""
		}
		list = append(list, plot.Tick{Value: float64(i), Label: s})
	}
	return list
}

// label writes a tick with as many places as its distance to the next one needs, and large and small ones short.
func label(v, step float64) string {
	size := max(math.Abs(v), step)
	switch {
	case v == 0:
		return "0"
	case size < 1e-3 || step > 0 && step < 1e-3:
		digits, power, _ := strings.Cut(strconv.FormatFloat(v, 'e', 3, 64), "e")
		n, _ := strconv.Atoi(power)
		return strings.TrimRight(strings.TrimRight(digits, "0"), ".") + "e" + strconv.Itoa(n)
	case size >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 4, 64) + "M"
	case size >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 4, 64) + "k"
	}
	places := 0
	if step > 0 && step < 1 {
		places = int(math.Ceil(-math.Log10(step) - 1e-9))
	}
	return strconv.FormatFloat(v, 'f', places, 64)
}
