package chat

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind(t *testing.T) {
	tools := []any{map[string]any{"name": "f"}}
	tests := map[string]struct {
		files    map[string]string
		override string
		want     string // of a render without tools
		tools    string // of one with tools; empty: the same
		problem  string
	}{
		"the file comes first": {
			files: map[string]string{"chat_template.jinja": "file", "tokenizer_config.json": `{"chat_template": "config"}`}, want: "file"},
		"the configuration": {
			files: map[string]string{"tokenizer_config.json": `{"chat_template": "config"}`}, want: "config"},
		"named templates": {
			files: map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "u"}, {"name": "rag", "template": "{% bad %}"}]}`},
			want:  "d", tools: "u"},
		"named files": {
			files: map[string]string{"chat_template.jinja": "d", "additional_chat_templates/tool_use.jinja": "u", "additional_chat_templates/x.txt": "x"}, want: "d", tools: "u"},
		"one template of another name": {
			files: map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "only", "template": "o"}]}`}, want: "o"},
		"no default": {
			files:   map[string]string{"tokenizer_config.json": `{"chat_template": [{"name": "b", "template": ""}, {"name": "a", "template": ""}]}`},
			problem: `no chat template is named "default", only a, b`},
		"none":                {files: map[string]string{"tokenizer_config.json": `{"bos_token": "x"}`}, problem: "no chat template: neither"},
		"no files":            {problem: "no chat template: neither"},
		"malformed":           {files: map[string]string{"tokenizer_config.json": `{"chat_template": `}, problem: "tokenizer_config.json: column 19"},
		"a number":            {files: map[string]string{"tokenizer_config.json": `{"chat_template": 1}`}, problem: "neither a string nor a list"},
		"a list of strings":   {files: map[string]string{"tokenizer_config.json": `{"chat_template": ["a"]}`}, problem: "chat_template 0 is no object"},
		"a syntax error":      {files: map[string]string{"chat_template.jinja": "a\n{% if %}"}, problem: "chat_template.jinja:2: expected an expression"},
		"builtin":             {override: "chatml", want: "<|im_start|>user\nhi<|im_end|>\n"},
		"override":            {override: "own.jinja", files: map[string]string{"own.jinja": "own", "chat_template.jinja": "file"}, want: "own"},
		"override by text":    {override: "{{ messages[0].content }}!", want: "hi!"},
		"override of nothing": {override: "lama3", problem: "lama3: no such chat template; it is neither a file nor one of chatml"},
		"override by folder":  {override: ".", problem: "a directory"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := write(t, t.TempDir(), test.files)
			override := test.override
			if strings.HasSuffix(override, ".jinja") {
				override = filepath.Join(dir, override)
			}
			tpl, err := Find(dir, override)
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Fatalf("error %v, want %q", err, test.problem)
				}
				var lookup *LookupError
				var syntax *Error
				if !errors.As(err, &lookup) && !errors.As(err, &syntax) {
					t.Errorf("untyped error %T", err)
				}
				if absent := strings.Contains(test.problem, "no chat template: neither") || strings.Contains(test.problem, "no such"); errors.Is(err, fs.ErrNotExist) != absent {
					t.Errorf("a template that does not exist: %v", !absent)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			in := Input{Messages: []any{map[string]any{"role": "user", "content": "hi"}}}
			out, err := tpl.Render(in)
			if err != nil || out.Text != test.want {
				t.Errorf("%q, %v; want %q", out.Text, err, test.want)
			}
			in.Tools = tools
			if test.tools == "" {
				test.tools = test.want
			}
			if out, err = tpl.Render(in); err != nil || out.Text != test.tools {
				t.Errorf("with tools %q, %v; want %q", out.Text, err, test.tools)
			}
		})
	}
}
