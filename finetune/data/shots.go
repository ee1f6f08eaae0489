package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/mergekit/mergekit/text/chat"
)

// Shots are solved rows that are put before other rows, so that a model sees how the task is done (Brown et al., 2020, "Language
// models are few-shot learners"). What is learnt, or measured, of a row stays the same.
type Shots struct {
	K    int    // how many are put before a row, less where they would not fit into MaxLength
	Seed uint64 // which ones: drawn anew for every row, of its own domain if there are any
	rows []shot
}

type shot struct {
	c      content
	domain string
	text   string // the row as it is in its file
}

// maxShots bounds how many rows are kept to draw from.
const maxShots = 4096

// LoadShots reads rows to draw from. Conversations, prompts with completions and instructions can be shots.
func LoadShots(ctx context.Context, sources []Source, k int, seed uint64) (*Shots, error) {
	s := &Shots{K: k, Seed: seed}
	for i := range sources {
		if err := s.read(ctx, &sources[i]); err != nil {
			return nil, err
		}
	}
	if len(s.rows) < k {
		return nil, &Error{Msg: fmt.Sprintf("there are %d rows for shots, and %d are asked for before each row", len(s.rows), k)}
	}
	return s, nil
}

func (s *Shots) read(ctx context.Context, source *Source) error {
	path, err := source.file()
	if err != nil {
		return err
	}
	format, err := findFormat(source.Format)
	if err != nil {
		return &Error{File: path, Msg: err.Error()}
	}
	rows, closer, err := openRows(path)
	if err != nil {
		return err
	}
	defer closer.Close()
	for len(s.rows) < maxShots {
		if err := ctx.Err(); err != nil {
			return err
		}
		row, err := rows.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		bad := func(err error) error { return &Error{File: path, Line: row.line, Msg: err.Error(), Err: err} }
		if err == nil {
			err = row.err
		}
		if err != nil {
			return bad(err)
		}
		v, err := chat.ParseJSON(row.text)
		if err != nil {
			return bad(fmt.Errorf("not valid JSON: %w", err))
		}
		o, ok := v.(*chat.Object)
		if !ok {
			return bad(fmt.Errorf("a row is an object, not %s", kind(v)))
		}
		f := format
		if f == nil {
			if f, err = detect(o); err != nil {
				return bad(err)
			}
		}
		c, err := f.read(o)
		if err != nil {
			return bad(err)
		}
		switch c.(type) {
		case *continuation, *conversation, *instruction:
		default:
			return bad(fmt.Errorf("a row of %s shows no solved task; conversations, prompts with completions and instructions do", f.name))
		}
		var r result
		r.example.Domain = source.Domain
		if err := r.common(o); err != nil {
			return bad(err)
		}
		s.rows = append(s.rows, shot{c, r.example.Domain, string(row.text)})
	}
	return nil
}

// encode turns a row into tokens, behind shots if the options have any.
func (e *encoder) encode(c content, x *Example, row string) (tokens, error) {
	if e.Shots == nil || e.Shots.K == 0 {
		return c.encode(e)
	}
	shots := e.Shots.choose(x, row)
	for n := len(shots); ; n-- {
		all, err := e.behind(c, shots[len(shots)-n:])
		if err != nil {
			return tokens{}, err
		}
		t, err := all.encode(e)
		if err != nil || n == 0 || e.MaxLength == 0 || len(t.ids) <= e.MaxLength {
			return t, err
		}
	}
}

// choose draws the shots of a row, a function of the seed and the row's place alone.
func (s *Shots) choose(x *Example, row string) []content {
	same := slices.ContainsFunc(s.rows, func(r shot) bool { return r.domain == x.Domain && r.text != row })
	var out []content
	for _, i := range shuffled(len(s.rows), mix(s.Seed, uint64(x.source)<<40|uint64(x.Line))) {
		r := s.rows[i]
		if r.text == row || same && r.domain != x.Domain {
			continue // a row does not show its own solution
		}
		if out = append(out, r.c); len(out) == s.K {
			break
		}
	}
	return out
}

// behind puts solved rows before a row.
func (e *encoder) behind(c content, shots []content) (content, error) {
	switch c := c.(type) {
	case *instruction:
		plain, err := c.plain(e)
		if err != nil {
			return nil, err
		}
		return e.behind(plain, shots)
	case *continuation:
		text := ""
		for _, s := range shots {
			solved, err := e.solved(s)
			if err != nil {
				return nil, err
			}
			one, ok := solved.(*continuation)
			if !ok {
				return nil, fmt.Errorf("the row is a text with its completion and a shot is a conversation; shots must be of the form of the rows")
			}
			text += one.prompt + one.completion + "\n\n"
		}
		return &continuation{text + c.prompt, c.completion}, nil
	case *conversation:
		out := *c
		out.messages, out.roles, out.train = nil, nil, nil
		from := 0
		if len(c.roles) > 0 && c.roles[0] == "system" {
			from = 1
		}
		out.append(c, 0, from)
		for _, s := range shots {
			solved, err := e.solved(s)
			if err != nil {
				return nil, err
			}
			one, ok := solved.(*conversation)
			if !ok {
				return nil, fmt.Errorf("the row is a conversation and a shot is a text with its completion; shots must be of the form of the rows")
			}
			for i, role := range one.roles {
				if role == "system" {
					continue
				}
				out.append(one, i, i+1)
				out.train[len(out.train)-1] = trainNever
			}
		}
		if c.prompt >= 0 {
			out.prompt = c.prompt + len(out.messages) - from
		}
		out.append(c, from, len(c.messages))
		return &out, nil
	}
	return nil, fmt.Errorf("rows of this form cannot have shots before them; conversations, prompts with completions and instructions can")
}

// solved is a shot in the form in which it stands before a row.
func (e *encoder) solved(s content) (content, error) {
	if a, ok := s.(*instruction); ok {
		return a.plain(e)
	}
	return s, nil
}

// append adds messages of another conversation.
func (c *conversation) append(from *conversation, lo, hi int) {
	c.messages = append(c.messages, from.messages[lo:hi]...)
	c.roles = append(c.roles, from.roles[lo:hi]...)
	c.train = append(c.train, from.train[lo:hi]...)
}
