package chat

import (
	"os"
	"path/filepath"
	"testing"
)

const golden = "../../testdata/golden/text/chat"

// readJSON reads a fixture with the order of its keys.
func readJSON(t testing.TB, path string) any {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ParseJSON(data)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

func get[T any](t testing.TB, o any, key string) T {
	t.Helper()
	v, ok := o.(*Object).Get(key)
	if !ok {
		t.Fatalf("no key %q", key)
	}
	x, ok := v.(T)
	if !ok && v != nil {
		t.Fatalf("%q is %T", key, v)
	}
	return x
}

// caseInput reads the input of a case.
func caseInput(t testing.TB, c any) Input {
	in := Input{
		Messages:            get[[]any](t, c, "messages"),
		Tools:               get[[]any](t, c, "tools"),
		AddGenerationPrompt: get[bool](t, c, "add_generation_prompt"),
		BOS:                 get[string](t, c, "bos_token"),
		EOS:                 get[string](t, c, "eos_token"),
		Extra:               map[string]any{},
	}
	extra := get[*Object](t, c, "extra")
	for _, k := range extra.Keys() {
		in.Extra[k], _ = extra.Get(k)
	}
	return in
}

// Every render and every refusal of transformers 5.23 on the golden templates.
func TestGolden(t *testing.T) {
	cases := readJSON(t, filepath.Join(golden, "cases.json")).([]any)
	if len(cases) != 128 {
		t.Fatalf("%d cases", len(cases))
	}
	refusals := 0
	for i, c := range cases {
		name := get[string](t, c, "template")
		source, err := os.ReadFile(filepath.Join(golden, name+".jinja"))
		if err != nil {
			t.Fatal(err)
		}
		tpl, err := Parse(string(source))
		if err != nil {
			t.Fatal(err)
		}
		got, err := tpl.Render(caseInput(t, c))
		if want := get[string](t, c, "error"); want != "" {
			refusals++
			e, ok := err.(*Error) //nolint:errorlint // Render wraps nothing
			if !ok {
				t.Errorf("case %d, %s: %q instead of the refusal %q", i, name, got.Text, want)
			} else if e.Kind+": "+e.Message != want || e.Line == 0 {
				t.Errorf("case %d, %s: refused with %v, want %q", i, name, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("case %d, %s: %v", i, name, err)
		} else if want := get[string](t, c, "render"); got.Text != want {
			t.Errorf("case %d, %s:\n got %q\nwant %q", i, name, got.Text, want)
		}
	}
	if refusals != 8 {
		t.Errorf("%d refusals", refusals)
	}
}
