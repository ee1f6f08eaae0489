package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Options say how rows become tokens.
type Options struct {
	Tokenizer *tokenizer.Tokenizer // may be nil where all rows are token ids
	Template  *chat.Template       // for conversations
	// TrainOn says what is learnt: assistant (all answers), completion (what follows the prompt), last (the last answer), all,
	// or auto: answers of conversations, completions of prompts, all of a text.
	TrainOn string
	// Truncation of rows longer than MaxLength: keep_start (the default) or drop.
	Truncation string
	// Packing is the batcher's: bfd_split and wrapped cut long rows themselves, so that none is truncated here.
	Packing string
	// OnBadRow is error (the default) or skip.
	OnBadRow string
	// MaxLength in tokens; 0: no bound.
	MaxLength int
	// Date is what strftime_now of chat templates gives; zero: they do not see that function.
	Date time.Time
	// TemplateArgs are further variables of the template, for example enable_thinking. A row's chat_template_kwargs go before.
	TemplateArgs map[string]any
	// NoEOS leaves texts and completions without the token that ends a text.
	NoEOS bool
	// Shots are put before every row; nil: none.
	Shots *Shots
	// Labels are the classes of classified rows in order; nil: those that occur.
	Labels []string
}

// job is a few rows of one file for a worker.
type job struct {
	source *Source
	index  int // of the source
	file   string
	format *format
	rows   []rawRow
	done   chan []result
}

// result is what became of a row.
type result struct {
	example Example
	label   string
	notes   note
	full    int // tokens before truncation
	format  *format
	err     error // a bad row
	fatal   error // the file cannot be read on
}

// Sizes of jobs: enough rows that handing them over costs nothing, little enough that all cores have work.
const (
	jobRows  = 128
	jobBytes = 1 << 20
)

// Load reads rows and makes them examples, in the order of the sources and their rows. Workers tokenise in parallel.
func Load(ctx context.Context, sources []Source, o Options) (*Set, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := newEncoder(o)
	workers := runtime.GOMAXPROCS(0)
	unread := make(chan *job)
	ordered := make(chan *job, 4*workers) // the same jobs in order; its length bounds what is read ahead
	var wg sync.WaitGroup
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range unread {
				j.done <- j.run(e)
			}
		}()
	}
	go func() {
		defer close(ordered)
		defer close(unread)
		for i := range sources {
			if !read(ctx, &sources[i], i, unread, ordered) {
				return
			}
		}
	}()
	c := &collector{o: o, set: &Set{}, files: map[string]*FileReport{}}
	var failed error
	for j := range ordered {
		results := <-j.done
		if failed != nil {
			continue // the reader has been told to stop
		}
		for i := range results {
			if failed = c.add(j, &results[i]); failed != nil {
				cancel()
				break
			}
		}
	}
	wg.Wait()
	if failed != nil {
		return nil, failed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return c.finish(e)
}

func (o *Options) check() error {
	for _, c := range []struct {
		name, value string
		known       []string
	}{
		{"train_on", o.TrainOn, []string{"auto", "assistant", "completion", "last", "all"}},
		{"truncation", o.Truncation, []string{"keep_start", "drop"}},
		{"on_bad_row", o.OnBadRow, []string{"error", "skip"}},
		{"packing", o.Packing, append(slices.Clone(packings), "auto")},
	} {
		if c.value != "" && !slices.Contains(c.known, c.value) {
			return &Error{Msg: fmt.Sprintf("%s: %q is not known; %s are", c.name, c.value, strings.Join(c.known, ", "))}
		}
	}
	if o.MaxLength < 0 {
		return &Error{Msg: fmt.Sprintf("max_length is %d", o.MaxLength)}
	}
	return nil
}

// read cuts a source into jobs; false says that nothing more is wanted.
func read(ctx context.Context, s *Source, index int, unread, ordered chan<- *job) bool {
	send := func(j *job) bool {
		j.source, j.index, j.done = s, index, make(chan []result, 1)
		select {
		case ordered <- j:
		case <-ctx.Done():
			return false
		}
		if j.format == nil && len(j.rows) == 0 {
			return true
		}
		unread <- j // workers never stop before unread is closed
		return true
	}
	fail := func(err error) bool {
		j := &job{}
		if !send(j) {
			return false
		}
		j.done <- []result{{fatal: err}}
		return false
	}
	path, err := s.file()
	if err != nil {
		return fail(err)
	}
	format, err := findFormat(s.Format)
	if err != nil {
		return fail(&Error{File: path, Msg: err.Error()})
	}
	rows, closer, err := openRows(path)
	if err != nil {
		return fail(err)
	}
	defer closer.Close()
	_, plain := rows.(*textReader)
	if plain {
		format = textFormat
	} else if s.Field != "" {
		format = fieldFormat(s.Field)
	}
	j, bytes := &job{file: path, format: format}, 0
	for {
		row, err := rows.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if len(j.rows) > 0 && !send(j) {
				return false
			}
			return fail(&Error{File: path, Line: row.line, Msg: "cannot be read on: " + reason(err)})
		}
		if j.format == nil && row.err == nil { // the first row that can be read decides
			if f, err := detectText(row.text); err == nil {
				j.format = f // otherwise the worker says why not
			}
		}
		j.rows = append(j.rows, row)
		if bytes += len(row.text); len(j.rows) >= jobRows || bytes >= jobBytes {
			format := j.format
			if !send(j) {
				return false
			}
			j, bytes = &job{file: path, format: format}, 0
		}
	}
	return len(j.rows) == 0 || send(j)
}

func detectText(text []byte) (*format, error) {
	v, err := chat.ParseJSON(text)
	if err != nil {
		return nil, err
	}
	o, ok := v.(*chat.Object)
	if !ok {
		return nil, fmt.Errorf("not an object")
	}
	return detect(o)
}

func (j *job) run(e *encoder) []result {
	out := make([]result, len(j.rows))
	for i, row := range j.rows {
		r := &out[i]
		r.example = Example{Weight: 1, Share: j.source.Weight, Domain: j.source.Domain, File: j.file, Line: row.line, source: j.index}
		if r.example.Share == 0 {
			r.example.Share = 1
		}
		r.err = row.err
		if r.err == nil {
			r.err = r.read(e, j.format, row.text, strings.HasSuffix(strings.ToLower(j.file), ".txt"))
		}
		j.rows[i].text = nil
	}
	return out
}

// read makes a row an example.
func (r *result) read(e *encoder, f *format, text []byte, plain bool) error {
	var c content
	if plain {
		o := &chat.Object{}
		o.Set("text", string(text))
		if !validText(text) {
			return fmt.Errorf("not valid UTF-8")
		}
		r.format = textFormat
		c = plainText(text)
	} else {
		v, err := chat.ParseJSON(text)
		if err != nil {
			return fmt.Errorf("not valid JSON: %w", err)
		}
		o, ok := v.(*chat.Object)
		if !ok {
			return fmt.Errorf("a row is an object, not %s", kind(v))
		}
		if f == nil {
			if f, err = detect(o); err != nil {
				return err
			}
		}
		r.format = f
		if c, err = f.read(o); err != nil {
			if other, _ := detect(o); other != nil && other != f {
				err = fmt.Errorf("%w; the file's rows are read as %s, this one looks like %s", err, f.name, other.name)
			}
			return err
		}
		if err := r.common(o); err != nil {
			return err
		}
	}
	t, err := e.encode(c, &r.example, string(text))
	if err != nil {
		return err
	}
	if len(t.ids) == 0 {
		return fmt.Errorf("the row has no tokens")
	}
	r.notes, r.label = t.notes, t.label
	if e.endsTurn(t.ids, t.labels) {
		r.notes |= noteEndsTurn
	}
	x := &r.example
	x.IDs, x.Labels, x.Class, r.full = t.ids, t.labels, t.class, len(t.ids)
	if x.Targets() == 0 && r.label == "" {
		return fmt.Errorf("no token of this row is learnt: %s", why(c, e))
	}
	if e.MaxLength > 0 && len(x.IDs) > e.MaxLength && e.Packing != "bfd_split" && e.Packing != "wrapped" {
		x.Truncated = true
		if e.Truncation != "drop" {
			x.IDs, x.Labels = slices.Clone(x.IDs[:e.MaxLength]), slices.Clone(x.Labels[:e.MaxLength])
		}
	}
	return nil
}

// why explains a row without a target.
func why(c content, e *encoder) string {
	switch c := c.(type) {
	case *conversation:
		wanted := c.wanted(e.trainOn)
		if !slices.Contains(wanted, true) {
			return fmt.Sprintf("the conversation has no message to learn (its roles are %s)", strings.Join(c.roles, ", "))
		}
		return "the template writes nothing for the messages that are to be learnt"
	case *tokenRow:
		return "its labels are all -100, but for the first, which nothing predicts"
	}
	return "it has a single token, and the first one is never predicted"
}

// common reads what any row may have.
func (r *result) common(o *chat.Object) error {
	x := &r.example
	if v := field(o, "weight"); v != nil {
		switch v := v.(type) {
		case int64:
			x.Weight = float32(v)
		case float64:
			x.Weight = float32(v)
		default:
			return fmt.Errorf("\"weight\" is %s, not a number", kind(v))
		}
		if !(x.Weight > 0 && x.Weight < 1e6) {
			return fmt.Errorf("\"weight\" is %v; it scales the loss of a row and is more than 0", v)
		}
	}
	for _, f := range []struct {
		key string
		to  *string
	}{{"domain", &x.Domain}, {"id", &x.ID}} {
		switch v := field(o, f.key).(type) {
		case nil:
		case string:
			*f.to = v
		case int64:
			*f.to = strconv.FormatInt(v, 10)
		default:
			if f.key == "domain" {
				return fmt.Errorf("\"domain\" is %s, not a string", kind(v))
			}
		}
	}
	return nil
}
