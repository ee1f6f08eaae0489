package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/finetune/evaluate"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// evalOptions are the flags of the eval command.
type evalOptions struct {
	modelOptions
	data, shots                          []string
	base, format, template, trainOn, bad string
	fewShot, limit, batch, maxLength     int
	seed                                 uint64
}

func newEvalCommand() *cobra.Command {
	var o evalOptions
	cmd := &cobra.Command{
		Use:   "eval MODEL... --data ROWS.jsonl",
		Short: "Measure models on rows: loss, perplexity, accuracy",
		Long: `eval computes the loss, the perplexity and the token accuracy of the learnt tokens of rows (answers of conversations, completions of
prompts, all of plain texts), for one model or several, and prints one table. A model is a checkpoint directory or BASE+ADAPTER. Several
--data give several blocks; rows with a "domain" are listed by domain as well.

Rows whose answers are few short labels, such as letters, are also scored as choices: by comparing the probabilities of the labels that
occur in their domain, beside the majority baseline. Rows {"text", "label"} measure a classification head. For a network of "model_type"
mlp or convnet the data is a safetensors file with the tensors "input" and "labels".

With --few-shot K --shots FILE the table has the base without examples, the base with K solved rows in front of each row, and the tuned
model; if the tuned model is no better than the base with examples, the last line says so.

EXIT STATUS
  0 done, 1 failed, 2 bad model, rows or command line, 3 out of memory, 130 interrupted`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s takes one model or several", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runEval(cmd, args, &o) },
	}
	o.register(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&o.data, "data", nil, "file of rows, or a folder with test.jsonl or valid.jsonl (required; may be given several times)")
	f.StringVar(&o.format, "format", "auto", "form of the rows")
	f.StringVar(&o.template, "template", "", "chat template: a file or the name of a builtin one (default: the checkpoint's own)")
	f.StringVar(&o.trainOn, "train-on", "auto", "which tokens count: auto, assistant, completion, last or all")
	f.StringVar(&o.bad, "on-bad-row", "error", "error or skip")
	f.StringVar(&o.base, "base", "", "the model before tuning, for the comparison with --few-shot (default: BASE of BASE+ADAPTER)")
	f.IntVar(&o.fewShot, "few-shot", 0, "compare with the base that sees so many solved rows in front of each row")
	f.StringArrayVar(&o.shots, "shots", nil, "file of the solved rows: the training set (may be given several times)")
	f.Uint64Var(&o.seed, "seed", 0, "which solved rows are shown")
	f.IntVar(&o.limit, "limit", 0, "only the first rows of each file; 0: all")
	f.IntVar(&o.batch, "batch", 8, "rows that are computed together")
	f.IntVar(&o.maxLength, "max-length", 0, "tokens of a row; longer ones lose their end (default: as many as the model has positions)")
	return cmd
}

// contestant is a model as it is measured: with so many solved rows in front of each row.
type contestant struct {
	files modelFiles
	role  string // model, base, few-shot or tuned
	shots int
}

// name is what the table calls it.
func (c contestant) name() string {
	switch {
	case c.shots == 1:
		return c.files.name + ", 1 shot"
	case c.shots > 0:
		return fmt.Sprintf("%s, %d shots", c.files.name, c.shots)
	case c.role == "base":
		return c.files.name + ", zero-shot"
	}
	return c.files.name
}

// scored is a measured contestant on one file.
type scored struct {
	contestant
	data   string
	report *evaluate.Report
}

func (o *evalOptions) check() error {
	switch {
	case len(o.data) == 0:
		return fmt.Errorf("eval needs --data ROWS.jsonl")
	case o.fewShot < 0 || o.limit < 0 || o.maxLength < 0 || o.batch < 1:
		return fmt.Errorf("--few-shot, --limit and --max-length must not be negative, --batch must be positive")
	case o.fewShot > 0 && len(o.shots) == 0:
		return fmt.Errorf("--few-shot needs --shots FILE, the rows to show: the training set")
	case o.fewShot == 0 && (len(o.shots) > 0 || o.base != ""):
		return fmt.Errorf("--shots and --base belong to --few-shot K")
	}
	return nil
}

// contestants lists what is measured, bases before what was made of them.
func (o *evalOptions) contestants(cmd *cobra.Command, args []string) ([]contestant, error) {
	if o.adapter != "" && len(args) > 1 {
		return nil, usageError{fmt.Errorf("--adapter belongs to a single model; write BASE+ADAPTER for each")}
	}
	var out []contestant
	seen := map[string]bool{}
	addBase := func(f modelFiles) {
		if f.adapter = ""; !seen[f.dir] {
			seen[f.dir] = true
			out = append(out, contestant{f, "base", 0}, contestant{f, "few-shot", o.fewShot})
		}
	}
	var base modelFiles
	if o.base != "" {
		var err error
		if base, err = findModel(cmd, o.base, ""); err != nil {
			return nil, err
		}
		addBase(base)
	}
	for _, arg := range args {
		f, err := findModel(cmd, arg, o.adapter)
		if err != nil {
			return nil, err
		}
		switch {
		case o.fewShot == 0:
			out = append(out, contestant{f, "model", 0})
			continue
		case o.base == "" && f.adapter == "": // the base itself
			addBase(f)
			continue
		case o.base == "":
			b := f
			b.name = f.dir
			addBase(b)
		}
		out = append(out, contestant{f, "tuned", 0})
	}
	return out, nil
}

func runEval(cmd *cobra.Command, args []string, o *evalOptions) error {
	if err := o.check(); err != nil {
		return usageError{err}
	}
	list, err := o.contestants(cmd, args)
	if err != nil {
		return err
	}
	s, err := o.open(cmd)
	if err != nil {
		return err
	}
	defer s.close()
	var all []scored
	for i := 0; i < len(list); {
		from := i
		for i < len(list) && list[i].files == list[from].files { // the same model is loaded once
			i++
		}
		done, err := o.measure(s, list[from:i])
		if err != nil {
			return err
		}
		all = append(all, done...)
	}
	renderEval(cmd, all)
	return nil
}

// measure loads a model and measures it on all files.
func (o *evalOptions) measure(s *session, list []contestant) ([]scored, error) {
	files := list[0].files
	if isPlain(files.dir) {
		return o.measurePlain(s, list[0])
	}
	rows, err := o.rows(files)
	if err != nil {
		return nil, err
	}
	m, err := s.load(files)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var out []scored
	for _, c := range list {
		for _, path := range o.data {
			set, err := rows.load(s.cmd, m, path, c.shots)
			if err != nil {
				return nil, err
			}
			view := newRowsView(s.cmd, fmt.Sprintf("measuring %s on %s", c.name(), path))
			report, err := evaluate.Run(s.cmd.Context(), m, set, evaluate.Options{Batch: o.batch, Tokenizer: rows.o.Tokenizer, Progress: view.show})
			view.end()
			if err != nil {
				return nil, err
			}
			out = append(out, scored{c, path, report})
		}
	}
	return out, nil
}

// rowReader turns rows into tokens as a model sees them.
type rowReader struct {
	*evalOptions
	o data.Options
}

// rows opens tokenizer and chat template of a model.
func (o *evalOptions) rows(files modelFiles) (*rowReader, error) {
	r := &rowReader{evalOptions: o, o: data.Options{TrainOn: o.trainOn, OnBadRow: o.bad,
		// Templates that write a date write the one of training, so that results can be repeated.
		Date: time.Date(2024, 7, 26, 0, 0, 0, 0, time.UTC)}}
	for _, dir := range files.dirs() {
		if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err != nil {
			continue // rows of tokens need none; other rows will say that it is missing
		}
		var err error
		if r.o.Tokenizer, err = tokenizer.Open(dir); err != nil {
			return nil, err
		}
		break
	}
	for _, dir := range files.dirs() {
		t, err := chat.Find(dir, o.template)
		var lookup *chat.LookupError
		if err == nil {
			r.o.Template = t
			break
		}
		if o.template != "" || !errors.As(err, &lookup) {
			return nil, err
		}
	}
	return r, nil
}

// load reads a file of rows.
func (r *rowReader) load(cmd *cobra.Command, m *model.Model, path string, shots int) (*data.Set, error) {
	o := r.o
	o.MaxLength = r.maxLength
	if n := m.D.MaxPositions; n > 0 && (o.MaxLength == 0 || m.D.LearnedPositions > 0 && o.MaxLength > n) {
		o.MaxLength = n
	}
	if m.D.Head == model.HeadScore || m.D.Head == model.HeadClassifier {
		o.Labels = m.D.Labels
	}
	if shots > 0 {
		var from []data.Source
		for _, p := range r.shots {
			from = append(from, data.Source{Path: p, Format: r.format})
		}
		var err error
		if o.Shots, err = data.LoadShots(cmd.Context(), from, shots, r.seed); err != nil {
			return nil, err
		}
	}
	set, err := data.Load(cmd.Context(), []data.Source{{Path: path, Format: r.format, Split: r.split(path)}}, o)
	if err != nil {
		return nil, err
	}
	if r.limit > 0 && r.limit < len(set.Examples) {
		first := make([]int, r.limit)
		for i := range first {
			first[i] = i
		}
		set = set.Only(first)
	}
	if n := set.Report.Truncated + set.Report.Untrained; n > 0 {
		warn(cmd, fmt.Sprintf("%s: %d of %d rows are longer than %d tokens and lost their end", path, n, len(set.Examples)+set.Report.Untrained, o.MaxLength))
	}
	if n := set.Report.Skipped; n > 0 {
		warn(cmd, fmt.Sprintf("%s: %d bad rows were skipped, the first: %s", path, n, set.Report.Bad[0]))
	}
	return set, nil
}

// split says which file of a folder is measured: that for the test, else that for validation.
func (r *rowReader) split(path string) string {
	if _, err := os.Stat(filepath.Join(path, "test.jsonl")); err == nil {
		return "test"
	}
	return "valid"
}

// scoreJSON is a score as an event.
type scoreJSON struct {
	Event    string            `json:"event"`
	Model    string            `json:"model"`
	Adapter  string            `json:"adapter,omitempty"`
	Role     string            `json:"role"`
	Shots    int               `json:"shots"`
	Data     string            `json:"data"`
	Domain   string            `json:"domain,omitempty"`
	Rows     int               `json:"rows"`
	Tokens   int               `json:"tokens"`
	Loss     *float64          `json:"loss,omitempty"`
	PPL      *float64          `json:"perplexity,omitempty"`
	Accuracy *float64          `json:"token_accuracy,omitempty"`
	Choice   *model.ClassScore `json:"choice,omitempty"`
	Class    *model.ClassScore `json:"class,omitempty"`
}

func (s scored) json(domain string, score *evaluate.Score) scoreJSON {
	j := scoreJSON{Event: "score", Model: s.files.dir, Adapter: s.files.adapter, Role: s.role, Shots: s.shots, Data: s.data, Domain: domain,
		Rows: score.Rows, Tokens: score.Tokens, Choice: score.Choice, Class: score.Class}
	switch {
	case score.Tokens > 0:
		loss, ppl, acc := score.Result.MeanLoss(), score.Result.Perplexity(), score.Result.Accuracy()
		j.Loss, j.PPL, j.Accuracy = &loss, &ppl, &acc
	case score.Result.Weight > 0: // of a plain network
		loss := score.Result.MeanLoss()
		j.Loss = &loss
	}
	return j
}

// renderEval prints the table, one block for each file, and the verdicts.
func renderEval(cmd *cobra.Command, all []scored) {
	rows := [][]string{{"MODEL", "DATA", "ROWS", "LOSS", "PERPLEXITY", "TOKEN ACCURACY", "ACCURACY", "MACRO-F1", "MAJORITY"}}
	var verdicts []string
	for _, s := range byData(all) {
		list := []evaluate.DomainScore{{Score: s.report.All}}
		for _, d := range append(list, s.report.Domains...) {
			if jsonWanted(cmd) {
				writeJSON(os.Stdout, s.json(d.Domain, &d.Score))
				continue
			}
			if d.Domain != "" && len(s.report.Domains) == 1 {
				continue // the same row again
			}
			rows = append(rows, s.row(&d))
		}
	}
	for _, tuned := range all {
		if tuned.role != "tuned" {
			continue
		}
		few := fewShot(all, tuned)
		if few == nil {
			continue
		}
		v := evaluate.Compare(&tuned.report.All, &few.report.All)
		message := v.Message(tuned.files.name, few.files.name, few.shots)
		if jsonWanted(cmd) {
			writeJSON(os.Stdout, struct {
				Event string `json:"event"`
				Model string `json:"model"`
				Data  string `json:"data"`
				evaluate.Verdict
			}{"verdict", tuned.files.name, tuned.data, v})
		} else if !v.Better {
			verdicts = append(verdicts, message+" ("+tuned.data+")")
		}
	}
	if jsonWanted(cmd) {
		return
	}
	table(os.Stdout, rows)
	for _, v := range verdicts {
		fmt.Println(v)
	}
}

// byData orders scores by file, the models of each in the order in which they were given.
func byData(all []scored) []scored {
	var out []scored
	done := map[string]bool{}
	for _, first := range all {
		if done[first.data] {
			continue
		}
		done[first.data] = true
		for _, s := range all {
			if s.data == first.data {
				out = append(out, s)
			}
		}
	}
	return out
}

// fewShot finds what a tuned model is compared with: the base of its adapter, or the only base.
func fewShot(all []scored, tuned scored) *scored {
	var found *scored
	for i := range all {
		s := &all[i]
		if s.role != "few-shot" || s.data != tuned.data {
			continue
		}
		if found == nil || s.files.dir == tuned.files.dir {
			found = s
		}
	}
	return found
}

// row is a line of the table.
func (s scored) row(d *evaluate.DomainScore) []string {
	name, where := s.name(), s.data
	if d.Domain != "" {
		name, where = "", "  "+d.Domain
	}
	out := []string{name, where, fmt.Sprint(d.Rows), "-", "-", "-", "-", "-", "-"}
	if d.Result.Weight > 0 {
		out[3] = fmt.Sprintf("%.4f", d.Result.MeanLoss())
	}
	if d.Tokens > 0 {
		out[4], out[5] = fmt.Sprintf("%.4g", d.Result.Perplexity()), fmt.Sprintf("%.4f", d.Result.Accuracy())
	}
	for _, c := range []*model.ClassScore{d.Choice, d.Class} {
		if c != nil {
			out[6], out[7], out[8] = fmt.Sprintf("%.4f", c.Accuracy), fmt.Sprintf("%.4f", c.MacroF1), fmt.Sprintf("%.4f", c.Majority)
		}
	}
	return out
}

// rowsView shows how many rows are done: a line that changes on a terminal, one every few seconds elsewhere, events with --json.
type rowsView struct {
	cmd      *cobra.Command
	what     string
	unit     string
	terminal bool
	last     time.Time
	open     bool
}

func newRowsView(cmd *cobra.Command, what string) *rowsView {
	return &rowsView{cmd: cmd, what: what, unit: "rows", terminal: term.IsTerminal(int(os.Stderr.Fd())), last: time.Now()}
}

func (v *rowsView) show(done, total int) {
	every := 5 * time.Second
	switch {
	case jsonWanted(v.cmd):
		every = time.Second
	case v.terminal:
		every = 100 * time.Millisecond
	}
	if quietWanted(v.cmd) || time.Since(v.last) < every {
		return
	}
	v.last = time.Now()
	switch {
	case jsonWanted(v.cmd):
		writeJSON(os.Stdout, map[string]any{"event": "progress", "description": v.what, "done": done, "total": total, "unit": v.unit})
	case v.terminal:
		fmt.Fprintf(os.Stderr, "\r\033[K%s: %d of %d %s", v.what, done, total, v.unit)
		v.open = true
	default:
		fmt.Fprintf(os.Stderr, "%s: %d of %d %s\n", v.what, done, total, v.unit)
	}
}

func (v *rowsView) end() {
	if v.open {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
}
