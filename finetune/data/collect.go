package data

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

func validText(b []byte) bool { return utf8.Valid(b) }

// maxReasons bounds how many reasons for skipped rows a report keeps.
const maxReasons = 5

// collector assembles a set from results in order.
type collector struct {
	o      Options
	set    *Set
	labels []string // of each example, for classified rows
	files  map[string]*FileReport
	order  []string
	notes  map[note]*noted
	ends   bool
}

type noted struct {
	count int
	first string
}

func (c *collector) add(j *job, r *result) error {
	if r.fatal != nil {
		return r.fatal
	}
	report := &c.set.Report
	f := c.files[j.file]
	if f == nil {
		f = &FileReport{Path: j.file}
		c.files[j.file] = f
		c.order = append(c.order, j.file)
	}
	f.Rows++
	if r.format != nil && f.Format == "" {
		f.Format = r.format.name
	}
	x := &r.example
	if r.err != nil {
		bad := &Error{File: x.File, Line: x.Line, Msg: r.err.Error(), Err: r.err}
		if c.o.OnBadRow != "skip" {
			return bad
		}
		f.Skipped++
		report.Skipped++
		if len(report.Bad) < maxReasons {
			report.Bad = append(report.Bad, bad.Error())
		}
		return nil
	}
	c.note(r)
	report.Longest = max(report.Longest, r.full)
	if x.Truncated {
		if c.o.Truncation == "drop" {
			report.Dropped++
			return nil
		}
		if x.Targets() == 0 && r.label == "" {
			report.Untrained++
			return nil
		}
	}
	c.set.Examples = append(c.set.Examples, *x)
	c.labels = append(c.labels, r.label)
	return nil
}

func (c *collector) note(r *result) {
	c.ends = c.ends || r.notes&noteEndsTurn != 0
	if c.notes == nil {
		c.notes = map[note]*noted{}
	}
	for n := note(1); n <= r.notes; n <<= 1 {
		if r.notes&n == 0 {
			continue
		}
		if c.notes[n] == nil {
			c.notes[n] = &noted{first: fmt.Sprintf("%s:%d", r.example.File, r.example.Line)}
		}
		c.notes[n].count++
	}
}

// finish gives classes their numbers and checks what concerns the set as a whole.
func (c *collector) finish(e *encoder) (*Set, error) {
	s := c.set
	for _, path := range c.order {
		s.Report.Files = append(s.Report.Files, *c.files[path])
	}
	if err := c.classes(); err != nil {
		return nil, err
	}
	s.count()
	if len(s.Examples) == 0 {
		return nil, &Error{File: strings.Join(c.order, ", "), Msg: "no row is left: " + c.emptiness()}
	}
	classified := len(s.Labels) > 0
	if s.Report.TrainedTokens == 0 && !classified {
		return nil, &Error{File: strings.Join(c.order, ", "), Msg: "no token of any row is learnt; look at the rows with mergekit preview"}
	}
	c.warn(e, classified)
	return s, nil
}

func (c *collector) emptiness() string {
	r := &c.set.Report
	switch {
	case r.Skipped > 0:
		return fmt.Sprintf("%d were skipped as bad, the first because of %s", r.Skipped, r.Bad[0])
	case r.Dropped > 0:
		return fmt.Sprintf("%d are longer than max_length %d and dropped; raise it, or set truncation to keep_start", r.Dropped, c.o.MaxLength)
	case r.Untrained > 0:
		return fmt.Sprintf("of %d nothing that is learnt is within max_length %d; raise it", r.Untrained, c.o.MaxLength)
	}
	return "the files are empty"
}

func (c *collector) warn(e *encoder, classified bool) {
	r := &c.set.Report
	say := func(format string, a ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, a...)) }
	for _, n := range []struct {
		note note
		text string
	}{
		{noteDoubleBOS, "%d rows began with two tokens that begin a text; one was dropped (first: %s)"},
		{noteApart, "%d rows have a token that would reach over the border of prompt and completion; the two were tokenised apart (first: %s); end prompts before a blank, not after it"},
		{noteBorder, "%d rows have a token that reaches over the border of generation prompt and answer, so that inference begins answers with other tokens than training (first: %s); let the generation prompt end where a token ends"},
		{noteLastTurn, "the template writes earlier turns differently than they were when they were the last, or differently than its generation prompt begins them; %d rows are learnt in their last turn alone (first: %s)"},
	} {
		if x := c.notes[n.note]; x != nil {
			say(n.text, x.count, x.first)
		}
	}
	if !c.ends && !classified && e.Tokenizer != nil {
		end := "no learnt token is special"
		if t, _, ok := e.Tokenizer.EOS(); ok {
			end = fmt.Sprintf("neither %q nor another special token is ever learnt", t)
		}
		say("%s: the tuned model will not stop; the template or the rows must end answers with the token that ends a turn", end)
	}
	total := len(c.set.Examples) + r.Dropped + r.Untrained
	if r.Dropped > 0 {
		say("%d of %d rows are longer than max_length %d and were dropped", r.Dropped, total, c.o.MaxLength)
	}
	if r.Untrained > 0 {
		say("%d of %d rows have nothing to learn within max_length %d and were left out", r.Untrained, total, c.o.MaxLength)
	}
	if r.Truncated > 0 && 20*r.Truncated > total {
		say("%d of %d rows are longer than max_length %d and lost their end", r.Truncated, total, c.o.MaxLength)
	}
	if r.Skipped > 0 {
		say("%d rows were skipped, the first because of %s", r.Skipped, r.Bad[0])
	}
}

// classes numbers the labels: as the option says, or by number if all are numbers, or in alphabetical order.
func (c *collector) classes() error {
	s := c.set
	classified := 0
	for _, l := range c.labels {
		if l != "" {
			classified++
		}
	}
	if classified == 0 {
		return nil
	}
	if classified < len(s.Examples) {
		for i := range s.Examples {
			if c.labels[i] == "" {
				x := &s.Examples[i]
				return &Error{File: x.File, Line: x.Line, Msg: "a row without a label among rows with labels; classification needs one in every row"}
			}
		}
	}
	s.Labels = c.o.Labels
	highest, numbers := 0, true
	seen := map[string]bool{}
	for _, l := range c.labels {
		seen[l] = true
		n, err := strconv.Atoi(l)
		numbers = numbers && err == nil && n >= 0 && n < 1<<20
		highest = max(highest, n)
	}
	if s.Labels == nil && numbers {
		if highest >= 64*(len(seen)+16) {
			return &Error{File: s.Examples[0].File, Msg: fmt.Sprintf("labels go up to %d with %d different ones; are they class numbers?", highest, len(seen))}
		}
		for n := range highest + 1 {
			s.Labels = append(s.Labels, strconv.Itoa(n))
		}
	}
	if s.Labels == nil {
		for l := range seen {
			s.Labels = append(s.Labels, l)
		}
		slices.Sort(s.Labels)
	}
	index := map[string]int{}
	for i, l := range s.Labels {
		index[l] = i
	}
	for i := range s.Examples {
		x := &s.Examples[i]
		n, ok := index[c.labels[i]]
		if !ok {
			if n, ok = c.number(c.labels[i]); !ok {
				return &Error{File: x.File, Line: x.Line, Msg: fmt.Sprintf("the label %q is none of the classes %s", c.labels[i], strings.Join(s.Labels, ", "))}
			}
		}
		x.Class = n
	}
	return nil
}

// number reads a label as the number of a class that has a name.
func (c *collector) number(l string) (int, bool) {
	n, err := strconv.Atoi(l)
	return n, err == nil && n >= 0 && n < len(c.set.Labels)
}
