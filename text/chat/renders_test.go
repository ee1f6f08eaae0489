package chat

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRenders compares with what transformers rendered or refused: scripts/check-chat makes a larger file of the same form,
// with the templates that packages ship, and names it in MERGEKIT_CHAT_RENDERS.
func TestRenders(t *testing.T) {
	path := os.Getenv("MERGEKIT_CHAT_RENDERS")
	if path == "" {
		path = "testdata/renders.json"
	}
	file := readJSON(t, path)
	date, err := time.Parse("2006-01-02T15:04:05", get[string](t, file, "date"))
	if err != nil {
		t.Fatal(err)
	}
	foreign := get[*Object](t, file, "templates")
	templates := map[string]*Template{}
	compared, refused := 0, 0
	conversations := get[*Object](t, file, "conversations")
	for _, c := range get[[]any](t, file, "cases") {
		name := get[string](t, c, "template")
		if templates[name] == nil {
			source, ok := foreign.Get(name)
			if !ok {
				data, err := os.ReadFile(filepath.Join("testdata/templates", name+".jinja"))
				if err != nil {
					t.Fatal(err)
				}
				source = string(data)
			}
			if templates[name], err = Parse(source.(string)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		conversation := get[string](t, c, "conversation")
		in := Input{Messages: get[[]any](t, conversations, conversation), BOS: "<s>", EOS: "</s>", Date: date, Extra: map[string]any{}}
		if v, ok := c.(*Object).Get("tools"); ok {
			in.Tools = v.([]any)
		}
		in.AddGenerationPrompt = get[bool](t, c, "add_generation_prompt")
		if v, ok := c.(*Object).Get("extra"); ok {
			for _, k := range v.(*Object).Keys() {
				in.Extra[k], _ = v.(*Object).Get(k)
			}
		}
		out, err := templates[name].Render(in)
		if compareRender(t, name+", "+conversation, c, out, err) {
			refused++
		}
		compared++
		if training := templates[name].Training(); training != nil && training != templates[name] {
			compareVariant(t, name+", "+conversation, training, in, out, err)
		}
	}
	variables := get[*Object](t, file, "variables")
	for _, c := range get[[]any](t, file, "expressions") {
		source := get[string](t, c, "source")
		in := Input{BOS: "<s>", EOS: "</s>", Date: date, Extra: map[string]any{}}
		for _, k := range variables.Keys() {
			in.Extra[k], _ = variables.Get(k)
		}
		tpl, err := Parse(source)
		var out Output
		if err == nil {
			out, err = tpl.Render(in)
		}
		if compareRender(t, source, c, out, err) {
			refused++
		}
		compared++
	}
	if compared < 1000 || refused < 100 {
		t.Errorf("compared %d renders, %d of them refused", compared, refused)
	}
}

// compareRender says whether transformers refused.
func compareRender(t *testing.T, name string, c any, out Output, err error) bool {
	t.Helper()
	o := c.(*Object)
	if kind, ok := o.Get("error"); ok {
		var e *Error
		message, _ := o.Get("message")
		switch {
		case err == nil:
			t.Errorf("%s: %q instead of %s", name, out.Text, kind)
		case !errors.As(err, &e):
			t.Errorf("%s: an error without a place: %v", name, err)
		case e.Line == 0:
			t.Errorf("%s: no line: %v", name, err)
		case message != nil && !strings.HasPrefix(e.Message, message.(string)):
			t.Errorf("%s: refused with %q instead of %q", name, e.Message, message)
		case kind == KindTemplate && e.Kind != KindTemplate, kind == KindUndefined && e.Kind != KindUndefined, kind == KindSyntax && e.Kind != KindSyntax,
			kind == KindSecurity && e.Kind != KindSecurity:
			t.Errorf("%s: %s (%v) instead of %s", name, e.Kind, err, kind)
		}
		return true
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return false
	}
	if want, _ := o.Get("render"); out.Text != want {
		t.Errorf("%s:\n got %q\nwant %q", name, out.Text, want)
		return false
	}
	var want []Span
	if spans, ok := o.Get("spans"); ok {
		for _, s := range spans.([]any) {
			want = append(want, Span{int(s.([]any)[0].(int64)), int(s.([]any)[1].(int64))})
		}
	}
	if len(want) != len(out.Generated) || out.Unplaced != 0 {
		t.Errorf("%s: spans %v (%d unplaced) instead of %v", name, out.Generated, out.Unplaced, want)
		return false
	}
	for i := range want {
		if out.Generated[i] != want[i] {
			t.Errorf("%s: span %d is %v instead of %v", name, i, out.Generated[i], want[i])
		}
	}
	return false
}

// compareVariant checks that a training variant renders the same text, and marks every answer in it.
func compareVariant(t *testing.T, name string, training *Template, in Input, stock Output, stockErr error) {
	t.Helper()
	out, err := training.Render(in)
	if (err != nil) != (stockErr != nil) {
		t.Errorf("%s: %s: %v, the stock template: %v", name, training.Name(), err, stockErr)
		return
	}
	if out.Text != stock.Text {
		t.Errorf("%s: %s:\n got %q\nwant %q", name, training.Name(), out.Text, stock.Text)
	}
	answers := 0
	for _, m := range in.Messages {
		if role, _ := m.(*Object).Get("role"); role == "assistant" {
			answers++
		}
	}
	if err == nil && (len(out.Generated) != answers || out.Unplaced != 0) {
		t.Errorf("%s: %s: %d spans for %d answers", name, training.Name(), len(out.Generated), answers)
	}
	for _, span := range out.Generated {
		if text := out.Text[span.Start:span.End]; !strings.HasSuffix(text, ">") {
			t.Errorf("%s: %s: the span %q does not end with the end of the turn", name, training.Name(), text)
		}
	}
}
