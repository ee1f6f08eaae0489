package ui

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/recipe"
)

// completion is one thing that could be written at the cursor.
type completion struct {
	Label  string `json:"label"`
	Insert string `json:"insert"` // in place of the word
	Detail string `json:"detail,omitempty"`
	Doc    string `json:"doc,omitempty"`
	More   bool   `json:"more,omitempty"` // what is inserted has something to complete behind it
}

// completions are what could be written, and the word that they take the place of.
type completions struct {
	Word  string       `json:"word"`
	Items []completion `json:"items"`
}

type completeRequest struct {
	Path   string `json:"path"`
	Before string `json:"before"` // the text before the cursor
	After  string `json:"after"`
}

func (s *Server) getMethods(*http.Request) (any, error) {
	var list []method.Description
	for _, m := range slices.Concat(method.All(), method.Wholes()) {
		list = append(list, m.Describe())
	}
	return list, nil
}

// postComplete lists what could be written at the cursor.
func (s *Server) postComplete(r *http.Request) (any, error) {
	q, err := body[completeRequest](r)
	if err != nil {
		return nil, err
	}
	file, err := s.folder.place(q.Path)
	if err != nil {
		return nil, err
	}
	return complete(q.Before, q.After, func() []Entry { return s.references(file, q.Before+q.After) }), nil
}

// references are the models that a recipe can name: those below the folder, as seen from the recipe, and the other documents of its file.
func (s *Server) references(file, text string) []Entry {
	var list []Entry
	for _, line := range strings.Split(text, "\n") {
		if name, ok := strings.CutPrefix(line, "name:"); ok && unquoted(name) != "" {
			list = append(list, Entry{Name: unquoted(name), Detail: "document of this file"})
		}
	}
	for _, e := range s.folder.models() {
		rel, err := filepath.Rel(filepath.Dir(file), filepath.Join(s.folder.root, filepath.FromSlash(e.Path)))
		if err != nil {
			continue
		}
		e.Name = filepath.ToSlash(rel)
		list = append(list, e)
	}
	return list
}

// complete lists what could be written between two texts.
func complete(before, after string, models func() []Entry) completions {
	before, after = document(before, after)
	o := outlined(before)
	if o.inert {
		return completions{Items: []completion{}}
	}
	at := scope{place: recipe.InRecipe}
	for i := range o.frames {
		at = at.below(&o.frames[i])
	}
	at.method = methodIn(before, after)
	var items []completion
	if o.value {
		items = at.values(o.key, models)
	} else if at.place == recipe.InRecipe && len(o.frames) == 0 {
		items = at.keys(o, append(o.has(), rootKeys(after)...))
	} else {
		items = at.keys(o, o.has())
	}
	word := o.word
	quote := ""
	if o.value && (strings.HasPrefix(word, `"`) || strings.HasPrefix(word, "'")) {
		quote, word = word[:1], word[1:]
	}
	return completions{Word: quote + word, Items: fitting(items, word, quote)}
}

// methodIn is the merge method of a document.
func methodIn(before, after string) *method.Method {
	if m := methodLine.FindStringSubmatch(before + after); m != nil {
		found, _ := method.Get(m[1])
		return found
	}
	return nil
}

// rootKeys are the keys of the document behind the cursor's line.
func rootKeys(after string) []string {
	var list []string
	lines := strings.Split(after, "\n")
	for _, line := range lines[1:] {
		if text, indent := unindented(line); indent == 0 {
			if key, _, ok := entry(text); ok {
				list = append(list, key)
			}
		}
	}
	return list
}

// scope is a mapping of a recipe that the cursor may be in.
type scope struct {
	place    recipe.Place
	list     bool // a list of mappings, and no item of it yet
	named    bool // a mapping whose keys are the writer's
	params   bool // parameters of the method
	perModel bool // of one model
	setting  string
	unknown  bool
	method   *method.Method
}

// below is the scope of what stands under a frame.
func (sc scope) below(f *frame) scope {
	switch {
	case sc.unknown:
		return sc
	case sc.params && sc.setting == "":
		if f.item {
			return scope{unknown: true}
		}
		return scope{params: true, setting: f.key, perModel: sc.perModel}
	case sc.params: // below a parameter: a condition, alone or in a list
		return scope{place: recipe.InCondition}
	case sc.named:
		return scope{place: sc.place}
	case sc.list:
		if !f.item {
			return scope{unknown: true}
		}
		return scope{place: sc.place}
	case f.item:
		return scope{unknown: true}
	}
	k, ok := keyOf(sc.place, f.key)
	if !ok {
		return scope{unknown: true}
	}
	switch k.Takes {
	case recipe.TakesMapping:
		return scope{place: k.Below}
	case recipe.TakesList:
		return scope{place: k.Below, list: true}
	case recipe.TakesNamed:
		return scope{place: k.Below, named: true}
	case recipe.TakesParameters:
		return scope{params: true, perModel: sc.place == recipe.InModel || sc.place == recipe.InSource}
	case recipe.TakesModel:
		return scope{place: recipe.InReference}
	}
	return scope{unknown: true}
}

func keyOf(p recipe.Place, name string) (recipe.Key, bool) {
	for _, k := range recipe.Keys(p) {
		if k.Name == name {
			return k, true
		}
	}
	return recipe.Key{}, false
}

// keys lists the keys that are not there yet.
func (sc scope) keys(o *outline, has []string) []completion {
	if sc.unknown || sc.named {
		return nil
	}
	if sc.params && sc.setting == "" {
		return sc.parameters(has)
	}
	if sc.params {
		sc = scope{place: recipe.InCondition}
	}
	dash := ""
	if sc.list && !o.dashed {
		dash = "- "
	}
	var items []completion
	for _, k := range recipe.Keys(sc.place) {
		if slices.Contains(has, k.Name) {
			continue
		}
		column := o.column + len(dash)
		c := completion{Label: k.Name, Insert: dash + k.Name + ": ", Doc: k.Doc, More: true}
		switch k.Takes {
		case recipe.TakesMapping, recipe.TakesParameters, recipe.TakesNamed:
			c.Insert = dash + k.Name + ":\n" + strings.Repeat(" ", column+2)
			if o.flow {
				c.Insert = k.Name + ": {"
			}
		case recipe.TakesList:
			c.Insert = dash + k.Name + ":\n" + strings.Repeat(" ", column+2) + "- "
			if o.flow {
				c.Insert = k.Name + ": ["
			}
		case recipe.TakesText, recipe.TakesFile:
			c.More = false
		}
		items = append(items, c)
	}
	return items
}

// parameters lists what the method takes.
func (sc scope) parameters(has []string) []completion {
	if sc.method == nil {
		return nil
	}
	var items []completion
	for _, p := range sc.method.Params {
		if slices.Contains(has, p.Name) || strings.HasSuffix(p.Name, "*") || sc.perModel && !p.PerInput {
			continue
		}
		detail := p.Kind.String()
		switch {
		case p.Required:
			detail += ", required"
		case p.Default != nil:
			detail += fmt.Sprintf(", default %v", p.Default)
		}
		if p.PerInput && !sc.perModel {
			detail += ", for all models"
		}
		items = append(items, completion{Label: p.Name, Insert: p.Name + ": ", Detail: detail, Doc: p.Doc, More: p.Kind == method.Bool})
	}
	return items
}

// values lists what a key takes.
func (sc scope) values(key string, models func() []Entry) []completion {
	var items []completion
	words := func(list ...string) {
		for _, w := range list {
			items = append(items, completion{Label: w, Insert: w})
		}
	}
	if sc.params {
		if sc.method == nil {
			return nil
		}
		p := sc.method.Param(key)
		switch {
		case p == nil:
		case p.Kind == method.Bool:
			words("true", "false")
		case p.Default != nil:
			items = append(items, completion{Label: fmt.Sprint(p.Default), Insert: fmt.Sprint(p.Default), Detail: "default", Doc: p.Doc})
		}
		return items
	}
	if sc.unknown {
		return nil
	}
	k, ok := keyOf(sc.place, key)
	if !ok {
		return nil
	}
	words(k.Values...)
	switch k.Takes {
	case recipe.TakesBool:
		words("true", "false")
	case recipe.TakesMethod:
		for _, name := range method.Names() {
			m, _ := method.Get(name)
			items = append(items, completion{Label: name, Insert: name, Detail: m.Title, Doc: m.Summary})
		}
	case recipe.TakesModel:
		for _, e := range models() {
			items = append(items, completion{Label: e.Name, Insert: quoted(e.Name), Detail: string(e.Kind), Doc: e.Detail})
		}
	}
	return items
}

// quoted is a path as YAML takes it.
func quoted(s string) string {
	if strings.ContainsAny(s, "#:{}[],&*!|>'\"%@`") || strings.TrimSpace(s) != s {
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	return s
}

// maxItems bounds a list that people read.
const maxItems = 100

// fitting are the items that the word may become: those that begin with it, then those that hold it.
func fitting(items []completion, word, quote string) []completion {
	low := strings.ToLower(word)
	first, then := []completion{}, []completion{}
	for _, c := range items {
		label := strings.ToLower(c.Label)
		if quote != "" {
			c.Insert = quote + c.Label + quote
		}
		if strings.HasPrefix(label, low) {
			first = append(first, c)
		} else if strings.Contains(label, low) {
			then = append(then, c)
		}
	}
	list := append(first, then...)
	return list[:min(len(list), maxItems)]
}
