package recipe

import (
	"bytes"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// FuzzParse wants of any document: an error with a position, or a recipe that can be evaluated, written and read back.
func FuzzParse(f *testing.F) {
	for _, file := range goldenFiles(f) {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(everyEvaluateKey))
	f.Add([]byte(everyPath))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse("r.yml", data)
		if err != nil {
			if r != nil {
				t.Error("a recipe and an error")
			}
			checkErrors(t, err)
			lines := bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) + bytes.Count(data, []byte("\u0085")) +
				bytes.Count(data, []byte("\u2028")) + bytes.Count(data, []byte("\u2029")) + 1
			var list interface{ Unwrap() []error }
			if !errors.As(err, &list) {
				t.Fatalf("%T is no list of errors", err)
			}
			for _, one := range list.Unwrap() {
				var e *Error
				if !errors.As(one, &e) {
					t.Fatalf("%T is no *Error", one)
				}
				if p := e.Pos; p.Line < 1 && len(data) <= strictyaml.MaxBytes || p.Line > lines+1 || p.Col < 0 {
					t.Errorf("position %v of %d lines: %s", p, lines, e)
				}
			}
			return
		}
		if len(r.References()) == 0 || r.Method == "" {
			t.Errorf("a recipe without references or method")
		}
		r.TokenizerReferences()
		evaluate(r)
		assign(t, r)
		if text := r.YAML(); len(text) < strictyaml.MaxBytes && strings.Count(string(text), ",") < strictyaml.MaxNodes/4 {
			roundTrip(t, r)
		}
	})
}

// assign puts numbers where a search would.
func assign(t *testing.T, r *Recipe) {
	if r.Search == nil {
		return
	}
	var list []Assignment
	for i := range r.Search.Parameters {
		p := &r.Search.Parameters[i]
		list = append(list, Assignment{Path: p.Path, Value: p.High, Whole: i%2 == 1 && math.Abs(p.High) < 1e15})
	}
	other, err := r.With(list)
	if err != nil {
		t.Fatalf("a path that was checked: %s", err)
	}
	for _, a := range list {
		want := a.Value
		if a.Whole {
			want = math.Trunc(want)
		}
		found, err := other.Numbers(a.Path)
		if err != nil || found.Unset > 0 || slices.ContainsFunc(found.Values, func(v float64) bool { return v != want }) {
			t.Errorf("%s is %v (%v), want %g", a.Path, found, err, want)
		}
	}
	if other.Search != nil {
		t.Error("the search is still there")
	}
}

// evaluate evaluates every setting in every way.
func evaluate(r *Recipe) {
	params := func(p Params) {
		for i := range p {
			for _, k := range []Kind{Float, Int, Bool, String} {
				for _, at := range []float64{0, 0.3, 1} {
					_, _, _ = p[i].Setting.Eval("model.layers.3.mlp.up_proj.weight", at, k)
				}
			}
		}
	}
	sources := func(list []Source) {
		for _, s := range list {
			params(s.Params)
		}
	}
	slices := func(list []Slice) {
		for _, s := range list {
			params(s.Params)
			sources(s.Sources)
		}
	}
	params(r.Params)
	sources(r.Models)
	slices(r.Slices)
	for _, m := range r.Modules {
		params(m.Params)
		sources(m.Models)
		slices(m.Slices)
	}
}

// FuzzParseAll wants of any file: errors with positions, or recipes whose texts make up the file and read back as what they are.
func FuzzParseAll(f *testing.F) {
	f.Add([]byte(two))
	f.Add([]byte("---\n---\nmerge_method: linear\nmodels: [{model: &a a}]\n...\n%YAML 1.1\n---\nname: x\nmerge_method: linear\nmodels: [{model: a}]\n"))
	f.Add([]byte(strings.Repeat("merge_method: linear\nmodels: [{model: a}]\n---\n", 101)))
	f.Add([]byte("merge_method: linear\nmodels: [{model: &a a}]\n---\nmerge_method: linear\nmodels: [{model: *a}]\n"))
	f.Add([]byte(everyEvaluateKey + "\n---\n" + everyEvaluateKey))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseAll("r.yml", data)
		if err != nil {
			if list != nil {
				t.Error("recipes and an error")
			}
			checkErrors(t, err)
			return
		}
		if len(list) == 0 || len(list) > strictyaml.MaxDocuments {
			t.Fatal(len(list), "recipes")
		}
		size := 0
		for _, r := range list {
			size += len(r.Text)
			if bytes.ContainsAny(data, "\r\u0085\u2028\u2029") || bytes.Contains(data, []byte("%")) {
				continue // other ends of lines than those that texts are cut at, and directives before a document
			}
			again, err := Parse("r.yml", r.Text)
			if err != nil {
				t.Fatalf("%q: %v", r.Text, err)
			}
			if again.Fingerprint() != r.Fingerprint() {
				t.Errorf("%q reads back as another recipe", r.Text)
			}
		}
		if size > len(data) {
			t.Errorf("%d characters of text in a file of %d", size, len(data))
		}
	})
}
