package config

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/finetune/schedule"
)

var update = flag.Bool("update", false, "write the tables of docs/finetuning/config.md anew")

// TestDocs holds the page of keys to the structs: every key with its default, its words and its comment.
func TestDocs(t *testing.T) {
	const path = "../../docs/finetuning/config.md"
	const begin, end = "<!-- keys: made by go test ./finetune/config -update -->\n", "<!-- end of keys -->\n"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(page), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the marks of its tables", path)
	}
	want := head + begin + tables(t) + end + tail
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if string(page) != want {
		t.Errorf("%s is not what the structs say; run go test ./finetune/config -update", path)
	}
}

// tables writes a table for each section.
func tables(t *testing.T) string {
	comments := fieldComments(t)
	defaults := map[string]string{}
	for _, e := range Defaults("", "").Entries() {
		defaults[e.Key] = e.Value
	}
	for key, text := range map[string]string{ // what Defaults leaves to the file
		"run.name": "by output_dir", "run.output_dir": "by name", "model.base": "required", "data.train": "required", "data.valid": "[]",
	} {
		defaults[key] = text
	}
	var b strings.Builder
	var section func(typ reflect.Type, path string)
	section = func(typ reflect.Type, path string) {
		title := path
		if path == "" {
			title = "The file"
		}
		fmt.Fprintf(&b, "\n### %s\n\n", title)
		if path != "" {
			about := strings.TrimPrefix(comments[typ.Name()], typ.Name()+" is ")
			fmt.Fprintf(&b, "%s%s\n\n", strings.ToUpper(about[:1]), about[1:])
		}
		b.WriteString("| key | default | meaning |\n|---|---|---|\n")
		type below struct {
			t    reflect.Type
			path string
		}
		var later []below
		for _, k := range keysOf(typ) {
			f := typ.Field(k.index)
			at := join(path, k.name)
			text := comments[typ.Name()+"."+f.Name]
			if text == "" {
				t.Errorf("%s has no comment", at)
			}
			if rest, ok := strings.CutPrefix(text, f.Name); ok {
				text = "`" + k.name + "`" + rest
			}
			value := defaults[at]
			switch {
			case f.Type == reflect.TypeFor[[]Source]():
				if at == "data.train" {
					later = append(later, below{f.Type.Elem(), at + "[]"})
				}
			case f.Type.Kind() == reflect.Struct && !isValue(reflect.New(f.Type).Elem()):
				value = "see below"
				later = append(later, below{f.Type, at})
			}
			if path == "data.train[]" {
				value = map[string]string{"path": "required", "format": "auto", "weight": "1.0", "domain": "null"}[k.name]
			}
			if at == "schedule.kind" {
				text = "`kind` of curve: " + strings.Join(schedule.Names(), ", ") + "."
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", k.name, value, strings.ReplaceAll(text, "|", `\|`))
		}
		for _, l := range later {
			section(l.t, l.path)
		}
	}
	section(reflect.TypeFor[Config](), "")
	b.WriteString("\n## Methods\n\n| method | what it does |\n|---|---|\n")
	for _, m := range Methods() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", m.Name, m.Summary)
	}
	b.WriteString("\n## Curves\n\n| `schedule.kind` | the learning rate |\n|---|---|\n")
	for _, k := range schedule.Kinds() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", k.Name, k.Summary)
	}
	b.WriteByte('\n')
	return b.String()
}

// fieldComments reads the comments of the types and fields in config.go.
func fieldComments(t *testing.T) map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	line := func(g *ast.CommentGroup) string { return strings.Join(strings.Fields(g.Text()), " ") }
	comments := map[string]string{}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, s := range g.Specs {
			s := s.(*ast.TypeSpec)
			comments[s.Name.Name] = line(g.Doc)
			fields, ok := s.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, f := range fields.Fields.List {
				for _, n := range f.Names {
					comments[s.Name.Name+"."+n.Name] = line(f.Doc)
				}
			}
		}
	}
	return comments
}
