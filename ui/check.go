package ui

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/stream"
)

// Severity says how bad a problem is.
type severity string

const (
	severityError   severity = "error"
	severityWarning severity = "warning"
	severityNote    severity = "note" // nothing is wrong, but a plan has to wait
)

// problem is something to say about a recipe. Line and Col count from 1; 0: no particular place.
type problem struct {
	Line     int      `json:"line"`
	Col      int      `json:"col"`
	Severity severity `json:"severity"`
	Message  string   `json:"message"`
}

// planned is a recipe's plan in figures.
type planned struct {
	Name     string         `json:"name"`
	Method   string         `json:"method"`
	Arch     string         `json:"architecture"`
	Tensors  int            `json:"tensors"`
	Elements int64          `json:"elements"`
	Read     int64          `json:"read"`
	Written  int64          `json:"written"`
	Memory   int64          `json:"memory"`
	Models   []plannedModel `json:"models"`
	Output   bool           `json:"output"`
	Fused    bool           `json:"fused,omitempty"`
	Why      string         `json:"why,omitempty"`
}

type plannedModel struct {
	Name string `json:"name"`
	Path string `json:"path,omitempty"` // for requests; "" of what is made on the way
	Base bool   `json:"base,omitempty"`
}

// checked is what there is to say about a recipe that is being written.
type checked struct {
	Problems []problem `json:"problems"`
	Plans    []planned `json:"plans"`
}

type checkRequest struct {
	Path string `json:"path"` // where the recipe is or will be, which its paths are relative to
	Text string `json:"text"`
}

// postCheck parses and plans a recipe as it is being written.
func (s *Server) postCheck(r *http.Request) (any, error) {
	q, err := body[checkRequest](r)
	if err != nil {
		return nil, err
	}
	file, err := s.folder.place(q.Path)
	if err != nil {
		return nil, err
	}
	select {
	case s.plans <- struct{}{}:
		defer func() { <-s.plans }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return s.check(file, q.Text), nil
}

func (s *Server) check(file, text string) *checked {
	c := &checked{Problems: []problem{}, Plans: []planned{}}
	list, err := recipe.ParseAll(file, []byte(text))
	if err != nil {
		c.fail(s, file, err)
		return c
	}
	for _, r := range list {
		for _, w := range r.Warnings {
			c.Problems = append(c.Problems, problem{w.Pos.Line, w.Pos.Col, severityWarning, w.Msg})
		}
	}
	o := s.o.Merge
	o.Plan.OpenAdapter, o.Plan.Fetch = merge.OpenAdapter, s.cached
	if s.o.Fetch == nil {
		o.Plan.Fetch = s.o.Cached
	}
	if len(list) == 1 {
		p, err := plan.Build(list[0], o.Plan)
		if err != nil {
			c.fail(s, file, err)
			return c
		}
		defer p.Close()
		c.add(s, p, planned{Name: list[0].Name, Output: true})
		return c
	}
	err = merge.PlanRecipes(list, o, func(st *merge.PlannedStage) error {
		one := planned{Name: st.Name, Output: st.Output, Fused: st.Fused, Why: st.Why}
		if st.Plan == nil {
			one.Method = st.Recipe.Method
			c.Plans = append(c.Plans, one)
			return nil
		}
		c.add(s, st.Plan, one)
		return nil
	})
	if err != nil {
		c.fail(s, file, err)
	}
	return c
}

// elsewhereError is why a model that is not on this machine has no plan yet.
type elsewhereError struct{ path string }

func (e *elsewhereError) Error() string {
	return "is not on this machine; a run asks the hub for it, and what it will do is known then"
}

// cached finds models that were brought before, and brings none: nobody asked for it by writing a name.
func (s *Server) cached(path, revision string, weights bool) (string, error) {
	if s.o.Cached != nil {
		if dir, err := s.o.Cached(path, revision, weights); err == nil {
			return dir, nil
		}
	}
	return "", &elsewhereError{path}
}

// add notes a plan and what it warns of.
func (c *checked) add(s *Server, p *plan.Plan, one planned) {
	one.Method, one.Tensors, one.Elements = p.Method.Name, len(p.Outputs()), p.Elements()
	one.Read, one.Written = p.BytesRead(), p.BytesWritten()
	one.Memory = stream.MemoryEstimate(s.o.Merge.Threads, p.Widest(), p.Holds())
	if p.Arch != nil {
		if one.Arch = p.Arch.Name; p.Arch.Inferred {
			one.Arch = "inferred from the tensors' names"
		}
	}
	for _, m := range p.Models {
		pm := plannedModel{Name: m.Name(), Base: p.Recipe.Base != nil && m.Ref.Same(*p.Recipe.Base)}
		if m.Stage == nil {
			s.folder.allow(m.Dir)
			if real, err := s.folder.real(m.Dir); err == nil {
				pm.Path = s.folder.name(real)
			}
		}
		one.Models = append(one.Models, pm)
	}
	for _, w := range p.Warnings {
		if at := place(p.Recipe.File, w, severityWarning); at.Line == 0 { // the others are the recipe's own
			c.Problems = append(c.Problems, problem{Severity: severityWarning, Message: s.folder.shorten(w)})
		}
	}
	c.Plans = append(c.Plans, one)
}

// fail notes what is wrong, each fault by itself.
func (c *checked) fail(s *Server, file string, err error) {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		for _, e := range many.Unwrap() {
			c.fail(s, file, e)
		}
		return
	}
	how := severityError
	var away *elsewhereError
	if errors.As(err, &away) {
		how = severityNote
		dir, _, _ := strings.Cut(away.path, "/")
		if _, here := plan.Local(file, dir); here { // more likely a slip of the finger than an organisation
			how = severityWarning
		}
	}
	p := place(file, err.Error(), how)
	p.Message = s.folder.shorten(p.Message)
	c.Problems = append(c.Problems, p)
}

var position = regexp.MustCompile(`^:(\d+):(\d+): `)

// place reads the place off a message of the form file:line:col: text.
func place(file, message string, how severity) problem {
	p := problem{Severity: how, Message: message}
	rest, ok := strings.CutPrefix(message, file)
	if !ok {
		return p
	}
	if m := position.FindStringSubmatch(rest); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		p.Col, _ = strconv.Atoi(m[2])
		p.Message = rest[len(m[0]):]
	} else if rest, ok = strings.CutPrefix(rest, ": "); ok {
		p.Message = rest
	}
	return p
}

// getRecipe reads a recipe.
func (s *Server) getRecipe(r *http.Request) (any, error) {
	file, err := s.folder.find(r.FormValue("path"))
	if err != nil {
		return nil, err
	}
	text, err := s.readRecipe(file)
	if err != nil {
		return nil, err
	}
	return map[string]any{"path": s.folder.name(file), "text": string(text), "digest": digest(text)}, nil
}

func (s *Server) readRecipe(file string) ([]byte, error) {
	if !isRecipeName(file) {
		return nil, &PathError{Path: s.folder.name(file), Msg: "is no recipe by its name, which ends in .yml or .yaml"}
	}
	text, err := readStart(file, maxRecipe+1)
	if err != nil {
		return nil, &PathError{Path: s.folder.name(file), Msg: "cannot be read", Err: err}
	}
	if len(text) > maxRecipe {
		return nil, &PathError{Path: s.folder.name(file), Msg: fmt.Sprintf("is larger than %d bytes, which no recipe is", maxRecipe)}
	}
	return text, nil
}
