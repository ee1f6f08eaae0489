package report

import (
	"bytes"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func findings() *Findings {
	x := []float64{0, 0.25, 0.5, 0.75, 1}
	return &Findings{
		Title: "A <i>and</i> B",
		Lead:  "A hill & a valley.",
		Figures: []Figure{{Title: "Path", Panels: []Panel{
			{Title: "Loss", X: "t", Y: "loss", Zero: true, Lines: []Line{
				{Name: "before, test", X: x, Y: []float64{0.2, 0.6, 0.9, 0.6, 0.2}, Tone: Second},
				{Name: "before, train", X: x, Y: []float64{0.1, 0.5, 0.8, 0.5, 0.1}, Tone: Second, Dashed: true},
				{Name: "after, test", X: x, Y: []float64{0.2, 0.25, 0.3, math.NaN(), 0.2}, Tone: First, Dots: true},
				{Name: "others", X: x, Y: x, Tone: Third}, {Name: "more", X: x, Y: x, Tone: Fourth}, {Name: "few", X: x, Y: x, Tone: Faint}}},
			{Title: "Barrier", X: "width", Y: "barrier", Names: []string{"32", "128", "512"}, Zero: true, Lines: []Line{
				{Name: "naive", X: Over(3), Y: []float64{2.3, 1.4, 0.9}, Tone: Second, Bars: true},
				{Name: "matched", X: Over(3), Y: []float64{0.7, 0.4, 0.4}, Tone: First, Bars: true}}},
			{Title: "Nothing", X: "t"},
		}}},
		Tables:   []Table{{Title: "Barriers", Note: "of the loss", Head: []string{"set", "before", "after"}, Rows: [][]string{{"test <1>", "0.9", "0.3"}}}},
		Settings: []Pair{{"points", "5"}},
	}
}

func TestFindings(t *testing.T) {
	f := findings()
	var b bytes.Buffer
	if err := f.Page(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if path := os.Getenv("REPORT_OUT"); path != "" { // to look at it
		if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
		for name, write := range map[string]func(*os.File) error{
			"figure.png": func(w *os.File) error { return f.Figures[0].PNG(w) }, "figure.svg": func(w *os.File) error { return f.Figures[0].SVG(w) }} {
			w, err := os.Create(filepath.Join(filepath.Dir(path), name))
			if err != nil {
				t.Fatal(err)
			}
			if err := write(w); err != nil {
				t.Fatal(err)
			}
			w.Close()
		}
	}
	checkAlone(t, text, 2)
	for _, want := range []string{"A &lt;i&gt;and&lt;/i&gt; B", "A hill &amp; a valley.", `<td>test &lt;1&gt;</td><td class="n">0.9</td>`, `class="second dashed">before, train`, "There is nothing to draw.",
		`aria-label="Loss over t"`, ">512<", "<td>5</td>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	var again bytes.Buffer
	if err := findings().Page(&again); err != nil || again.String() != text {
		t.Error("the same findings give another page", err)
	}
}

// TestFigure looks at drawing and image: their size, that they are whole, and that the image is not all ground.
func TestFigure(t *testing.T) {
	f := &findings().Figures[0]
	var svg, img bytes.Buffer
	if err := f.SVG(&svg); err != nil {
		t.Fatal(err)
	}
	if err := f.PNG(&img); err != nil {
		t.Fatal(err)
	}
	checkXML(t, svg.String())
	for _, want := range []string{"before, train", "#1F5FBF", "#C2410C", "stroke-dasharray", ">Barrier<", "There is nothing to draw."} {
		if !strings.Contains(svg.String(), want) {
			t.Errorf("the drawing lacks %q", want)
		}
	}
	p, err := png.Decode(&img)
	if err != nil {
		t.Fatal(err)
	}
	if size := p.Bounds().Size(); size.X != 3*440*2 || size.Y != (30+290+3*18)*2 {
		t.Errorf("the image is %v", size)
	}
	orange := 0
	for y := range p.Bounds().Max.Y {
		for x := range p.Bounds().Max.X {
			if r, g, b, _ := p.At(x, y).RGBA(); r>>8 == 0xc2 && g>>8 == 0x41 && b>>8 == 0x0c {
				orange++
			}
		}
	}
	if orange < 1000 {
		t.Errorf("%d pixels of the orange lines and bars", orange)
	}
}

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	if err := findings().Tables[0].Markdown(&b); err != nil {
		t.Fatal(err)
	}
	if want := "| set | before | after |\n| --- | ---: | ---: |\n| test <1> | 0.9 | 0.3 |\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}

func TestNamed(t *testing.T) {
	many := make([]string, 200)
	for i := range many {
		many[i] = "model.layers.0"
	}
	written := 0
	for _, tick := range named(many).Ticks(0, 200) {
		if tick.Label != "" {
			written++
		}
	}
	if written < 2 || written > 5 {
		t.Errorf("%d names are written", written)
	}
}

func TestSave(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "folder")
	if err := findings().SaveAll(dir, "barrier"); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "barrier.html barrier.png barrier.svg" {
		t.Error(got)
	}
	// What fails leaves the file that was there, and nothing beside it.
	path := filepath.Join(dir, "barrier.svg")
	if err := Save(path, func(w io.Writer) error { fmt.Fprint(w, "half"); return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if text, err := os.ReadFile(path); err != nil || !strings.HasSuffix(strings.TrimSpace(string(text)), "</svg>") {
		t.Error("the drawing is not what it was", err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 3 {
		t.Errorf("%d files", len(list))
	}
}
