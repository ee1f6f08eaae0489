package chat

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// builtin templates can be named instead of a file.
var builtin = map[string]string{
	"chatml": `{% for message in messages %}{{ '<|im_start|>' + message.role + '
' }}{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '
' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}`,
}

// Builtin returns the names of the builtin templates.
func Builtin() []string {
	names := make([]string, 0, len(builtin))
	for name := range builtin {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

const (
	templateFile = "chat_template.jinja"
	configFile   = "tokenizer_config.json"
	namedFolder  = "additional_chat_templates"
	toolUseName  = "tool_use"
	maxConfig    = 64 << 20
)

// Find returns the chat template of a checkpoint. With override it is that instead: a file, the name of a builtin template, or
// the text of one. Without, it is chat_template.jinja, then the chat_template of tokenizer_config.json, in which there may be
// several by name: "default", and "tool_use" for inputs with tools. A checkpoint without a template is an error: to train on
// a made-up one would teach a format that nothing else knows.
func Find(dir, override string) (*Template, error) {
	if override != "" {
		return findOverride(override)
	}
	named := map[string]string{}
	source, err := readLimited(filepath.Join(dir, templateFile), maxTemplateBytes)
	switch {
	case err == nil:
		named["default"] = source
		if err := readNamed(filepath.Join(dir, namedFolder), named); err != nil {
			return nil, err
		}
		return choose(filepath.Join(dir, templateFile), named)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	path := filepath.Join(dir, configFile)
	if err := readConfig(path, named); err != nil {
		return nil, err
	}
	if len(named) == 0 {
		return nil, &LookupError{dir, fmt.Sprintf("no chat template: neither %s nor a chat_template in %s; name one (a file, or %s)",
			templateFile, configFile, strings.Join(Builtin(), ", ")), true}
	}
	return choose(path, named)
}

func findOverride(override string) (*Template, error) {
	if source, ok := builtin[override]; ok {
		return parseNamed(source, override)
	}
	if strings.Contains(override, "{{") || strings.Contains(override, "{%") {
		return parseNamed(override, "")
	}
	source, err := readLimited(override, maxTemplateBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &LookupError{override, fmt.Sprintf("no such chat template; it is neither a file nor one of %s", strings.Join(Builtin(), ", ")), true}
	}
	if err != nil {
		return nil, err
	}
	return parseNamed(source, override)
}

// readNamed reads the templates besides the default one.
func readNamed(dir string, named map[string]string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".jinja")
		if !ok {
			continue
		}
		if named[name], err = readLimited(filepath.Join(dir, e.Name()), maxTemplateBytes); err != nil {
			return err
		}
	}
	return nil
}

// readConfig reads the templates in tokenizer_config.json: one, or a list of {name, template}.
func readConfig(path string, named map[string]string) error {
	text, err := readLimited(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	v, err := ParseJSON([]byte(text))
	if err != nil {
		return &LookupError{path, err.Error(), false}
	}
	config, ok := v.(*Object)
	if !ok {
		return &LookupError{path, "not a JSON object", false}
	}
	v, _ = config.Get("chat_template")
	switch v := v.(type) {
	case nil:
	case string:
		named["default"] = v
	case []any:
		for i, item := range v {
			o, _ := item.(*Object)
			if o == nil {
				return &LookupError{path, fmt.Sprintf("chat_template %d is no object with name and template", i), false}
			}
			name, _ := o.Get("name")
			source, _ := o.Get("template")
			n, okName := name.(string)
			s, okSource := source.(string)
			if !okName || !okSource {
				return &LookupError{path, fmt.Sprintf("chat_template %d is no object with name and template", i), false}
			}
			named[n] = s
		}
	case *Object:
		for _, n := range v.Keys() {
			if s, _ := v.Get(n); s != nil {
				if named[n], ok = s.(string); !ok {
					return &LookupError{path, fmt.Sprintf("chat_template %q is no string", n), false}
				}
			}
		}
	default:
		return &LookupError{path, "chat_template is neither a string nor a list", false}
	}
	return nil
}

// choose takes the default template, and tool_use for inputs with tools.
func choose(path string, named map[string]string) (*Template, error) {
	source, ok := named["default"]
	if !ok {
		names := make([]string, 0, len(named))
		for n := range named {
			names = append(names, n)
		}
		slices.Sort(names)
		if len(names) != 1 {
			return nil, &LookupError{path, fmt.Sprintf("no chat template is named \"default\", only %s; write the one to use into a file and name that", strings.Join(names, ", ")), false}
		}
		source = named[names[0]]
	}
	t, err := parseNamed(source, path)
	if err != nil {
		return nil, err
	}
	if tools, has := named[toolUseName]; has && ok {
		if t.toolUse, err = parseNamed(tools, path+" ("+toolUseName+")"); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// readLimited reads a file of at most limit bytes.
func readLimited(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return "", &LookupError{path, "a directory, not a chat template", false}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return "", err
	}
	if int64(len(data)) > limit {
		return "", &LookupError{path, fmt.Sprintf("more than %d bytes", limit), false}
	}
	return string(data), nil
}
