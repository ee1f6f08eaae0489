package report

import (
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"math"
	"strconv"
)

// Run is what a page shows of a training run.
type Run struct {
	// Name of the run.
	Name string
	// Rows are its metrics; ReadMetrics reads them.
	Rows []Row
	// Summary is what there is to say of its result, beside what the rows tell: the output's place, the machine, the time.
	Summary []Pair
	// Settings are its configuration.
	Settings []Pair
}

// Pair is a line of a table.
type Pair struct{ Name, Value string }

//go:embed style.html
var styleText string

//go:embed parts.html
var partsText string

//go:embed page.html
var pageText string

var page = parsed("page", pageText)

// parsed is a page's template with the parts that pages share.
func parsed(name, text string) *template.Template {
	shared := template.Must(template.Must(template.New("style").Parse(styleText)).New("parts").Parse(partsText))
	return template.Must(shared.New(name).Parse(text))
}

// evalRows bounds the table of evaluations.
const evalRows = 200

// Training writes the page of a run.
func Training(w io.Writer, run Run) error {
	charts, err := trainingCharts(run.Rows)
	if err != nil {
		return err
	}
	return page.Execute(w, map[string]any{
		"Title":    run.Name + " – training run",
		"Name":     run.Name,
		"Charts":   charts,
		"Summary":  append(told(run.Rows), run.Summary...),
		"Settings": run.Settings,
		"Evals":    evaluations(run.Rows),
	})
}

// trainingCharts draws the curves.
func trainingCharts(rows []Row) ([]*chart, error) {
	loss := series(rows, "loss")
	train := []line{curve("training", loss, first, 1.4)}
	if len(loss) >= 40 { // a long run is noise with a line in it
		train = []line{curve("training, each step", loss, faint, 0.7), curve("running mean", smooth(loss), first, 1.5)}
	}
	norm := series(rows, "grad_norm")
	norms := []line{curve("before clipping", norm, first, 1.2)}
	if len(norm) >= 40 {
		norms = []line{curve("before clipping, each step", norm, faint, 0.7), curve("running mean", smooth(norm), first, 1.5)}
	}
	list := []struct {
		title string
		zero  bool
		lines []line
	}{
		{"Loss", false, append(train, line{name: "validation", points: series(rows, "eval_loss"), tint: second, width: 1.4, dots: true})},
		{"Learning rate", true, []line{curve("", series(rows, "lr"), first, 1.5)}},
		{"Gradient norm", true, norms},
		{"Tokens per second", true, []line{curve("all tokens", series(rows, "tok_per_s"), first, 1.2),
			curve("trained tokens", series(rows, "trained_tok_per_s"), second, 1.2)}},
	}
	var charts []*chart
	for _, l := range list {
		c := &chart{Title: l.title, Empty: "The run has logged none.", zero: l.zero}
		if err := c.draw(l.lines...); err != nil {
			return nil, err
		}
		charts = append(charts, c)
	}
	return charts, nil
}

// told is the summary that the rows give.
func told(rows []Row) []Pair {
	var list []Pair
	add := func(name, format string, args ...any) { list = append(list, Pair{name, fmt.Sprintf(format, args...)}) }
	if len(rows) == 0 {
		return []Pair{{"Steps", "none logged"}}
	}
	add("Steps", "%d", rows[len(rows)-1].Step)
	if epochs := series(rows, "epoch"); len(epochs) > 0 {
		add("Epochs", "%s", short(epochs[len(epochs)-1].y))
	}
	if loss := series(rows, "loss"); len(loss) > 0 {
		add("Training loss", "%s at first, %s at last", short(loss[0].y), short(loss[len(loss)-1].y))
	}
	if evals := series(rows, "eval_loss"); len(evals) > 0 {
		best := evals[0]
		for _, e := range evals {
			if e.y < best.y {
				best = e
			}
		}
		add("Validation loss", "%s at first, %s at last", short(evals[0].y), short(evals[len(evals)-1].y))
		add("Best validation", "%s at step %.0f (perplexity %s)", short(best.y), best.x, short(math.Exp(best.y)))
	}
	if n, ok := last(rows, "tokens"); ok {
		text := Grouped(n)
		if trained, ok := last(rows, "trained_tokens"); ok && n > 0 {
			text += fmt.Sprintf(", of which %s trained (%.0f%%)", Grouped(trained), 100*trained/n)
		}
		add("Tokens", "%s", text)
	}
	if speed := series(rows, "tok_per_s"); len(speed) > 0 {
		var sum float64
		for _, s := range speed {
			sum += s.y
		}
		add("Tokens per second", "%s on average", short(sum/float64(len(speed))))
	}
	return list
}

func last(rows []Row, name string) (float64, bool) {
	s := series(rows, name)
	if len(s) == 0 {
		return 0, false
	}
	return s[len(s)-1].y, true
}

// evaluations is the table of what was measured on held-out rows.
func evaluations(rows []Row) *Table {
	t := &Table{Head: []string{"Step", "Loss", "Perplexity", "Token accuracy"}, Text: noText}
	for _, r := range rows {
		loss, ok := r.Values["eval_loss"]
		if !ok {
			continue
		}
		row := []string{strconv.Itoa(r.Step), short(loss), "", ""}
		if v, ok := r.Values["eval_ppl"]; ok {
			row[2] = short(v)
		}
		if v, ok := r.Values["eval_tok_acc"]; ok {
			row[3] = fmt.Sprintf("%.1f%%", 100*v)
		}
		t.Rows = append(t.Rows, row)
	}
	if more := len(t.Rows) - evalRows; more > 0 {
		t.Note = fmt.Sprintf("The last ones; %d earlier ones are in metrics.jsonl.", more)
		t.Rows = t.Rows[more:]
	}
	return t
}

// short writes a number with four digits that count.
func short(v float64) string {
	if a := math.Abs(v); a >= 1e4 && a < 1e15 {
		return Grouped(v)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// Grouped writes a whole number with thin spaces between thousands.
func Grouped(v float64) string {
	s := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	sign := ""
	if len(s) > 0 && s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return sign + s
}
