package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// example is the log of a run as the trainer writes it: a row a step, and rows of evaluations.
func example(steps int) []byte {
	var b bytes.Buffer
	for s := 1; s <= steps; s++ {
		x := float64(s) / float64(steps)
		noise := math.Sin(float64(s)*12.9898) * 0.15
		fmt.Fprintf(&b, `{"step":%d,"epoch":%.3f,"loss":%.5f,"lr":%.8f,"grad_norm":%.4f,"tokens":%d,"trained_tokens":%d,"tok_per_s":%.1f,"trained_tok_per_s":%.1f}`+"\n",
			s, 2*x, 1.2+2*math.Exp(-5*x)+noise, 1e-4*(1+math.Cos(math.Pi*x)), 1+2*math.Exp(-3*x)+2*noise, s*16384, s*6000, 5210+400*noise, 1900+100*noise)
		if s%max(1, steps/10) == 0 {
			loss := 1.35 + 1.9*math.Exp(-5*x)
			fmt.Fprintf(&b, `{"step":%d,"eval_loss":%.5f,"eval_ppl":%.4f,"eval_tok_acc":%.4f,"kind":"eval"}`+"\n", s, loss, math.Exp(loss), 0.5+0.2*x)
		}
	}
	return b.Bytes()
}

func render(t testing.TB, run Run) string {
	t.Helper()
	var b bytes.Buffer
	if err := Training(&b, run); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// checkAlone looks at what a page asks for, and at its drawings.
func checkAlone(t *testing.T, text string, drawings int) {
	t.Helper()
	if n := strings.Count(text, "<svg"); n != drawings {
		t.Errorf("%d drawings, want %d", n, drawings)
	}
	if bad := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|@import|url\(|\bon\w+=|src=`).FindString(text); bad != "" {
		t.Errorf("the page is not alone: %s", bad)
	}
	if rest := strings.ReplaceAll(text, `xmlns="http://www.w3.org/2000/svg"`, ""); strings.Contains(rest, "http") {
		t.Error("the page refers to something elsewhere")
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(text, -1) {
		checkXML(t, svg)
		if left := regexp.MustCompile(`#[0-9A-Fa-f]{6}`).FindString(svg); left != "" {
			t.Errorf("a drawing has the colour %s, which does not follow the ground", left)
		}
	}
	for _, v := range regexp.MustCompile(`var\((--\w+)\)`).FindAllStringSubmatch(text, -1) {
		if strings.Count(text, v[1]+":") < 2 && v[1] != "--mark" {
			t.Fatalf("%s lacks a value for light or dark ground", v[1])
		}
	}
}

// checkXML wants a drawing that can be read and whose places are numbers.
func checkXML(t *testing.T, svg string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("a drawing is no XML: %s", err)
		}
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Error("a drawing has a place that is no number")
	}
}

// TestTraining looks at a page as a reader's program does: what it asks for, whether its drawings are whole, what they and the tables say.
func TestTraining(t *testing.T) {
	rows, err := readMetrics("metrics.jsonl", bytes.NewReader(example(200)))
	if err != nil {
		t.Fatal(err)
	}
	text := render(t, Run{Name: "legal <b>letters</b>", Rows: rows, Summary: []Pair{{"Machine", "2 cores & 8 GB"}}, Settings: []Pair{{"optim.lr", "2.0e-4"}, {"lora.r", "16"}}})
	if path := os.Getenv("REPORT_OUT"); path != "" { // to look at it
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"legal &lt;b&gt;letters&lt;/b&gt;", "<td>2.0e-4</td>", "2 cores &amp; 8 GB", "Best validation", "running mean", "validation", "trained tokens"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	checkAlone(t, text, 4)
	if again := render(t, Run{Name: "legal <b>letters</b>", Rows: rows, Summary: []Pair{{"Machine", "2 cores & 8 GB"}}, Settings: []Pair{{"optim.lr", "2.0e-4"}, {"lora.r", "16"}}}); again != text {
		t.Error("the same run gives another page")
	}
}

// TestCurvesFollowTheValues finds the learning rate's line in its drawing: it must fall as the values do, in page coordinates from the
// lower left.
func TestCurvesFollowTheValues(t *testing.T) {
	var rows []Row
	for s := 1; s <= 10; s++ {
		rows = append(rows, Row{Step: s, Values: map[string]float64{"lr": float64(10 - s)}})
	}
	charts, err := trainingCharts(rows)
	if err != nil {
		t.Fatal(err)
	}
	var path string
	for _, m := range regexp.MustCompile(`(?s)<path d="([^"]*)"\s*style="([^"]*)"`).FindAllStringSubmatch(string(charts[1].SVG), -1) {
		if strings.Contains(m[2], "--first") {
			path = m[1]
		}
	}
	var xs, ys []float64
	for _, m := range regexp.MustCompile(`[ML]([-0-9.e]+),([-0-9.e]+)`).FindAllStringSubmatch(path, -1) {
		var x, y float64
		if _, err := fmt.Sscan(m[1], &x); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(m[2], &y); err != nil {
			t.Fatal(err)
		}
		xs, ys = append(xs, x), append(ys, y)
	}
	if len(xs) != 10 {
		t.Fatalf("%d points in %q", len(xs), path)
	}
	for i := 1; i < 10; i++ {
		if math.Abs((xs[i]-xs[i-1])-(xs[1]-xs[0])) > 0.02 || math.Abs((ys[i]-ys[i-1])-(ys[1]-ys[0])) > 0.02 || ys[i] >= ys[i-1] {
			t.Fatalf("x %v, y %v", xs, ys)
		}
	}
	if charts[0].Empty == "" || charts[0].SVG != "" {
		t.Error("a curve without values was drawn")
	}
}

func TestFewRows(t *testing.T) {
	for _, rows := range [][]Row{nil, {{Step: 1}}, {{Step: 1, Values: map[string]float64{"loss": 2, "lr": 0, "grad_norm": math.NaN()}}},
		{{Step: 5, Values: map[string]float64{"eval_loss": 3}}}, {{Step: 1, Values: map[string]float64{"loss": 1e300}}, {Step: 2, Values: map[string]float64{"loss": -1e300}}},
		{{Step: 1, Values: map[string]float64{"loss": 1e-300, "lr": math.MaxFloat64}}}} {
		if text := render(t, Run{Name: "x", Rows: rows}); !strings.Contains(text, "</html>") || strings.Contains(text, "NaN") {
			t.Errorf("%v: the page is not whole", rows)
		}
	}
}

func TestReadMetrics(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "metrics.jsonl")
	text := `{"step":1,"loss":2.5,"domain":"law","lr":null}
{"step":2,"loss":2.25}
{"step":2,"eval_loss":3}

{"step":3,"loss":9}
{"step":2,"loss":2.125}
{"step":3,"loss":2}
{"step":4,"lo`
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	rows, err := ReadMetrics(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(rows); got != "[{1 map[loss:2.5]} {2 map[loss:2.125]} {3 map[loss:2]}]" {
		t.Error(got)
	}
	if _, err := ReadMetrics(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"{\"step\":1}\n[]\n":                  "m:2: this is no JSON object",
		"null\n":                              "m:1: this is no JSON object",
		"{\"loss\":1}\n":                      "m:1: the row has no step",
		"{\"step\":1.5}\n":                    "m:1: the row has no step",
		strings.Repeat("x", maxLine+1) + "\n": "m:1: longer than",
	} {
		_, err := readMetrics("m", strings.NewReader(text))
		var e *FormatError
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
	}
}

func TestThinAndSmooth(t *testing.T) {
	var list []point
	for i := range 10000 {
		list = append(list, point{float64(i), 1})
	}
	list[4321].y = 7
	out := thin(list, 600)
	spike := false
	for i, p := range out {
		spike = spike || p.y == 7
		if i > 0 && p.x <= out[i-1].x {
			t.Fatal("the order is lost")
		}
	}
	if !spike || len(out) > 602 {
		t.Errorf("%d points, spike kept: %v", len(out), spike)
	}
	for _, p := range smooth(list)[:4000] {
		if math.Abs(p.y-1) > 1e-12 {
			t.Fatalf("the mean of ones is %v", p.y)
		}
	}
	if got := smooth([]point{{0, 1}, {1, 3}}); got[1].y != 3 {
		t.Errorf("a short run is not its own mean: %v", got)
	}
}

func TestTicks(t *testing.T) {
	for _, test := range []struct {
		t         ticks
		low, high float64
		want      string
	}{
		{ticks{5, true}, 1, 10, "2 4 6 8 10"},
		{ticks{5, true}, 1, 2, "1 2"},
		{ticks{5, false}, 0, 2e-4, "0 5e-5 1e-4 1.5e-4 2e-4"},
		{ticks{5, false}, 1.1, 3.3, "1.5 2.0 2.5 3.0"},
		{ticks{5, true}, 0, 120000, "0 50k 100k"},
		{ticks{5, false}, 0, 0.03, "0 0.01 0.02 0.03"},
		{ticks{5, false}, 2, 2, "2"},
	} {
		var got []string
		for _, k := range test.t.Ticks(test.low, test.high) {
			got = append(got, k.Label)
		}
		if s := strings.Join(got, " "); s != test.want {
			t.Errorf("%v to %v: %s, want %s", test.low, test.high, s, test.want)
		}
	}
}

// FuzzReadMetrics wants of any log: an error with a line, or rows that make a page.
func FuzzReadMetrics(f *testing.F) {
	f.Add(example(12))
	f.Add([]byte("{\"step\":1,\"loss\":1e308,\"lr\":-1e308}\n{\"step\":1,\"loss\":\"NaN\"}\n"))
	f.Add([]byte("{\"step\":1099511627776}\n{\"step\":0,\"eval_loss\":1e-320,\"eval_tok_acc\":7}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := readMetrics("m", bytes.NewReader(data))
		var e *FormatError
		if err != nil {
			if !errors.As(err, &e) || e.Line < 1 {
				t.Error(err)
			}
			return
		}
		if len(rows) < 50 {
			render(t, Run{Name: "x", Rows: rows})
		}
	})
}
