package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Heat is a map of values by rows and columns: a drawing whose cells have both a colour and their value, and the same as a table.
type Heat struct {
	Title, Note string
	Row         string // what a row is, for the table
	Rows, Cols  []string
	Values      [][]float64 // by row and column; NaN where there is none
	Percent     bool        // values from 0 to 1 are shown in percent
	Max         float64     // end of the scale, which begins at 0; 0: the largest value
}

// levels is how many colours a map has. The style sheet's colours h0 to h7 have the text colour "below" up to lastBelow, "above" beyond.
const (
	levels    = 8
	lastBelow = 4
)

// Sizes of a drawing, in pixels as shown: the text must stay legible on a telephone, so wide maps scroll and never shrink.
const (
	cellWidth  = 46
	cellHeight = 24
	letter     = 6.5 // mean width of a letter
	longLabel  = 22  // letters; longer ones lose their middle
)

// drawnHeat is a map as the template takes it.
type drawnHeat struct {
	Title, Note, Empty string
	Labels, Cells      template.HTML
	Low, High          string
	Levels             []string
	Table              *Table
}

// scale is the largest value, the end of the colours; 0 if there is no value.
func (h *Heat) scale() float64 {
	top := h.Max
	if top == 0 {
		for _, row := range h.Values {
			for _, v := range row {
				if !math.IsNaN(v) && !math.IsInf(v, 0) {
					top = max(top, v)
				}
			}
		}
	}
	return top
}

// level is the colour of a value.
func level(v, top float64) int {
	if !(top > 0) || math.IsNaN(v) {
		return 0
	}
	return int(min(max(v/top*levels, 0), levels-1))
}

// draw makes the drawing and the table.
func (h *Heat) draw() *drawnHeat {
	d := &drawnHeat{Title: h.Title, Note: h.Note}
	if len(h.Rows) == 0 || len(h.Cols) == 0 {
		d.Empty = "There is nothing to draw."
		return d
	}
	top := h.scale()
	d.Low, d.High = "0", h.full(top)
	for l := range levels {
		d.Levels = append(d.Levels, fmt.Sprintf("h%d", l))
	}
	tilt, side := 0.0, 0.0 // room for the columns' names, which lean to the right
	for i, name := range h.Cols {
		length := letter * float64(utf8.RuneCountInString(middle(name)))
		tilt = max(tilt, 0.71*length)
		side = max(side, 0.71*length+12-cellWidth*float64(len(h.Cols)-1-i)-cellWidth/2)
	}
	head := math.Ceil(tilt) + 14
	height := head + cellHeight*float64(len(h.Rows)) + 2

	labels := 0.0
	for _, name := range h.Rows {
		labels = max(labels, letter*float64(utf8.RuneCountInString(middle(name)))+10)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg aria-hidden="true" width="%.0f" height="%.0f" xmlns="http://www.w3.org/2000/svg">`, labels, height)
	for i, name := range h.Rows {
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" text-anchor="end">%s</text>`, labels-6, head+cellHeight*float64(i)+16, html.EscapeString(middle(name)))
	}
	b.WriteString("</svg>")
	d.Labels = template.HTML(b.String()) //nolint:gosec // names are escaped

	b.Reset()
	fmt.Fprintf(&b, `<svg role="img" aria-label="%s; the table below has the values" width="%.0f" height="%.0f" xmlns="http://www.w3.org/2000/svg">`,
		html.EscapeString(h.Title), cellWidth*float64(len(h.Cols))+math.Ceil(side)+2, height)
	for i, name := range h.Cols {
		x, y := cellWidth*float64(i)+cellWidth/2+3, head-6
		fmt.Fprintf(&b, `<text transform="translate(%.0f %.0f) rotate(-45)">%s</text>`, x, y, html.EscapeString(middle(name)))
	}
	for i, row := range h.Values {
		for j, v := range row {
			x, y := float64(cellWidth*j), head+cellHeight*float64(i)
			if math.IsNaN(v) || math.IsInf(v, 0) {
				fmt.Fprintf(&b, `<text class="x" x="%.0f" y="%.0f" text-anchor="middle">–</text>`, x+cellWidth/2, y+16)
				continue
			}
			l, class := level(v, top), "b"
			if l > lastBelow {
				class = "a"
			}
			fmt.Fprintf(&b, `<rect class="h%d" x="%.0f" y="%.0f" width="%d" height="%d"/><text class="%s" x="%.0f" y="%.0f" text-anchor="middle">%s</text>`,
				l, x, y, cellWidth, cellHeight, class, x+cellWidth/2, y+16, h.brief(v))
		}
	}
	b.WriteString("</svg>")
	d.Cells = template.HTML(b.String()) //nolint:gosec // names are escaped

	d.Table = &Table{Head: append([]string{h.Row}, h.Cols...), Named: true}
	for i, name := range h.Rows {
		cells := []string{name}
		for _, v := range h.Values[i] {
			cells = append(cells, h.full(v))
		}
		d.Table.Rows = append(d.Table.Rows, cells)
	}
	return d
}

// brief writes a value into a cell: three digits that count, at most five letters.
func (h *Heat) brief(v float64) string {
	if h.Percent {
		v *= 100
	}
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 9999.5 || a < 0.0005:
		digits, power, _ := strings.Cut(strconv.FormatFloat(v, 'e', 0, 64), "e")
		n, _ := strconv.Atoi(power)
		return digits + "e" + strconv.Itoa(n)
	case a >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.0995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
}

// full writes a value into the table.
func (h *Heat) full(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case h.Percent:
		return strconv.FormatFloat(100*v, 'g', 4, 64) + " %"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// middle shortens a long name in its middle: names of tensors and of models differ at both ends.
func middle(s string) string {
	r := []rune(s)
	if len(r) <= longLabel {
		return s
	}
	const front = longLabel/2 - 1
	return string(r[:front]) + "…" + string(r[len(r)-(longLabel-front-1):])
}
