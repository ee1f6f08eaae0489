package report

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func heats() *Findings {
	long := "model.with.a.very.long.name.that.nobody.can.read"
	return &Findings{
		Title: "Merge <x>",
		Sections: []Section{
			{Title: "Kept & lost", Note: "by layer", Pairs: []Pair{{"base", "<base>"}}, Heats: []Heat{
				{Title: "Survives", Row: "layer", Rows: []string{"0", "1", long}, Cols: []string{"q_proj", "<script>alert(1)</script>", long}, Percent: true,
					Values: [][]float64{{0, 0.125, 0.25}, {0.5, 1, math.NaN()}, {0.0001, math.Inf(1), 0.99}}},
				{Title: "Nothing"},
			}, Tables: []Table{{Title: "Models", Head: []string{"model", "share"}, Named: true, Rows: [][]string{{"a<b>", "0.5"}}}}},
			{Title: "Recipe", Text: "merge_method: ties # <&>\n", Folded: true},
		},
	}
}

func TestHeat(t *testing.T) {
	f := heats()
	var b bytes.Buffer
	if err := f.Page(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if path := os.Getenv("REPORT_OUT"); path != "" { // to look at it
		if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	checkAlone(t, text, 2)
	for _, want := range []string{"Merge &lt;x&gt;", "Kept &amp; lost", "&lt;base&gt;", "&lt;script&gt;", `<th scope="row">a&lt;b&gt;</th>`, "merge_method: ties # &lt;&amp;&gt;", "There is nothing to draw.",
		// Values stand in the cells and, longer, in the table; the scale ends at the largest.
		">12.5</text>", ">50.0</text>", ">100</text>", ">0.010</text>", `<td class="n">12.5 %</td>`, `<td class="n">–</td>`, "<span>100 %</span>",
		"model.with…dy.can.read</text>", "model.with.a.very.long.name.that.nobody.can.read</th>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	cells := regexp.MustCompile(`<rect class="h(\d)"[^>]*/><text class="(\w)"[^>]*>([^<]*)<`).FindAllStringSubmatch(text, -1)
	got := ""
	for _, c := range cells {
		got += c[1] + c[2] + c[3] + " "
	}
	if want := "0b0 1b12.5 2b25.0 4b50.0 7a100 0b0.010 7a99.0 "; got != want {
		t.Errorf("cells %s, want %s", got, want)
	}
}

// A reader must see values on every colour of a map, and its colours in order, on both grounds: contrast as WCAG 2 measures it.
func TestHeatContrast(t *testing.T) {
	light, dark, _ := strings.Cut(styleText, "@media (prefers-color-scheme: dark)")
	for ground, style := range map[string]string{"light": light, "dark": dark} {
		luminance := func(name string) float64 {
			m := regexp.MustCompile(`--` + name + `: #([0-9a-f]{6})`).FindStringSubmatch(style)
			if m == nil {
				t.Fatalf("%s ground has no colour %s", ground, name)
			}
			sum := 0.0
			for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
				n, err := strconv.ParseUint(m[1][2*i:2*i+2], 16, 8)
				if err != nil {
					t.Fatal(err)
				}
				c := float64(n) / 255
				if c <= 0.04045 {
					c /= 12.92
				} else {
					c = math.Pow((c+0.055)/1.055, 2.4)
				}
				sum += weight * c
			}
			return sum
		}
		contrast := func(a, b float64) float64 { return (max(a, b) + 0.05) / (min(a, b) + 0.05) }
		for l := range levels {
			on := "below"
			if l > lastBelow {
				on = "above"
			}
			if c := contrast(luminance(fmt.Sprintf("h%d", l)), luminance(on)); c < 4.5 {
				t.Errorf("%s: the text on level %d has a contrast of %.2f", ground, l, c)
			}
			if l > 0 {
				if c := contrast(luminance(fmt.Sprintf("h%d", l)), luminance(fmt.Sprintf("h%d", l-1))); c < 1.1 {
					t.Errorf("%s: levels %d and %d are too much alike: %.2f", ground, l-1, l, c)
				}
			}
		}
		for _, name := range []string{"ink", "soft"} {
			for _, on := range []string{"ground", "card"} {
				if c := contrast(luminance(name), luminance(on)); c < 4.5 {
					t.Errorf("%s: %s on %s has a contrast of %.2f", ground, name, on, c)
				}
			}
		}
	}
}

func TestHeatValues(t *testing.T) {
	for _, c := range []struct {
		v       float64
		percent bool
		brief   string
		full    string
	}{
		{0, true, "0", "0 %"}, {1, true, "100", "100 %"}, {0.9996, true, "100", "99.96 %"}, {0.14285, true, "14.3", "14.29 %"}, {0.099949, true, "9.99", "9.995 %"}, {0.00101, true, "0.10", "0.101 %"}, {0.0005, true, "0.050", "0.05 %"},
		{1e-7, true, "1e-5", "1e-05 %"}, {0.083333, false, "0.083", "0.08333"}, {0.5, false, "0.50", "0.5"}, {12345, false, "1e4", "1.234e+04"}, {321.5, false, "322", "321.5"}, {0.0001, false, "1e-4", "0.0001"},
	} {
		h := &Heat{Percent: c.percent}
		if got := h.brief(c.v); got != c.brief {
			t.Errorf("%v in a cell is %q, want %q", c.v, got, c.brief)
		}
		if got := h.full(c.v); got != c.full {
			t.Errorf("%v in the table is %q, want %q", c.v, got, c.full)
		}
	}
	for v, want := range map[float64]int{0: 0, 0.124: 0, 0.126: 1, 0.99: 7, 1: 7, 2: 7, -1: 0} {
		if got := level(v, 1); got != want {
			t.Errorf("%v has level %d, want %d", v, got, want)
		}
	}
	if level(1, 0) != 0 || level(math.NaN(), 1) < 0 {
		t.Error("a scale without end")
	}
}
