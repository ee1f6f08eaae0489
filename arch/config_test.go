package arch

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestReadConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if _, err := ReadConfig(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no config.json: %v", err)
	}
	if _, err := ReadConfig(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	const text = `{"a": 12345678901234567890.10, "limit": [0.0, Infinity], "architectures": ["X"]}`
	write(ConfigName, text)
	file := write("model.safetensors", "")
	for _, p := range []string{dir, file} {
		c, raw, err := ReadConfigFile(p)
		if err != nil || c["a"] != json.Number("12345678901234567890.10") || c.Architectures()[0] != "X" || string(raw) != text {
			t.Errorf("%s: %v %v", p, c, err)
		}
	}
	write(ConfigName, "{\n  \"a\": 1,\n  \"b\" 2\n}")
	var ce *ConfigError
	if _, err := ReadConfig(dir); !errors.As(err, &ce) || ce.Line != 3 || ce.Col != 7 || !strings.HasSuffix(ce.File, ConfigName) {
		t.Errorf("malformed: %v", err)
	}
	write(ConfigName, "{}"+strings.Repeat(" ", maxConfigBytes))
	if _, err := ReadConfig(dir); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("too large: %v", err)
	}
}

func TestParseConfigErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "c:1:1: the file is empty"},
		{"[]", "c:1:1: a JSON object is expected"},
		{"{", "c:1:2: the file ends where a key in quotes is expected; it may be cut short"},
		{`{"a": 1} x`, "c:1:10: text after the end"},
		{`{"a": tru}`, `c:1:7: unexpected 't' where a value is expected`},
		{`{"a": 01}`, `c:1:8: unexpected '1' where a comma or } is expected`},
		{`{"a": 1.}`, `c:1:9: unexpected '}' where a digit is expected`},
		{`{"a": -}`, "where a digit is expected"},
		{`{"a": 1e+}`, "where a digit is expected"},
		{`{"a": [1 2]}`, "where a comma or ] is expected"},
		{`{"a": 1,}`, "where a key in quotes is expected"},
		{`{"a": "b`, "where the end of a string is expected"},
		{"{\"a\": \"b\n\"}", "a control character inside a string"},
		{`{"a": "\q"}`, "an escape that JSON does not have"},
		{`{"a": 1 "b": 2}`, "where a comma or } is expected"},
		{"{\n\"a\": \"é\", \xff}", "c:2:12: a byte that is not UTF-8"},
		{`{"a":` + strings.Repeat("[", 300), "more than 200 levels"},
		{`{"a":[` + strings.Repeat("1,", maxJSONValues) + "1]}", "this is no configuration"},
	} {
		_, err := ParseConfig("c", []byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.40q: %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestConfigAccess(t *testing.T) {
	c, err := ParseConfig("c", []byte(`{"model_type": "x", "n": 7, "f": 7.5, "b": true, "null": null, "in": {"n": 8, "d.e": 9}, "x.y": 1, "x": {"y": 2}, "architectures": ["A", 3, "B"]}`))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{"n": 7, "in.n": 8, "in.d.e": 9, "x.y": 1} {
		if n, ok := c.Int(key); !ok || n != want {
			t.Errorf("%s: %d %v, want %d", key, n, ok, want)
		}
	}
	for _, key := range []string{"f", "b", "null", "in", "none", "in.none", "n.n", ""} {
		if n, ok := c.Int(key); ok {
			t.Errorf("%s is %d", key, n)
		}
	}
	if c.ModelType() != "x" || c.Str("n") != "" || !slices.Equal(c.Architectures(), []string{"A", "B"}) {
		t.Error("strings are read wrongly")
	}
	if v, ok := c.Bool("b"); !v || !ok {
		t.Error("a boolean is read wrongly")
	}
	var none Config
	if _, ok := none.Int("n"); ok || none.ModelType() != "" || none.Architectures() != nil || LayerCountKey(none) != "" {
		t.Error("a nil configuration has something in it")
	}
	for v, want := range map[any]bool{3: true, int64(3): true, 3.0: true, 3.5: false, "3": false, json.Number("3"): true, json.Number("3.0"): false} {
		if _, ok := (Config{"k": v}).Int("k"); ok != want {
			t.Errorf("%T %v is a whole number: %v", v, v, ok)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		text  string
		layer string
		dtype []string
	}{
		{`{}`, "", []string{"dtype"}},
		{`{"n_layer": 2, "torch_dtype": "float16"}`, "n_layer", []string{"torch_dtype"}},
		{`{"num_layers": 2, "dtype": "a", "torch_dtype": "a"}`, "num_layers", []string{"dtype", "torch_dtype"}},
		{`{"text_config": {"num_hidden_layers": 2, "dtype": "a"}, "vision_config": {"torch_dtype": "a", "depth": 3}}`, "text_config.num_hidden_layers", []string{"dtype", "text_config.dtype", "vision_config.torch_dtype"}},
		{`{"n_layers": 4, "num_hidden_layers": 5}`, "num_hidden_layers", []string{"dtype"}},
		{`{"num_hidden_layers": "many", "depth": 3}`, "depth", []string{"dtype"}},
	} {
		c, err := ParseConfig("c", []byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if got := LayerCountKey(c); got != tt.layer {
			t.Errorf("%s: layers under %q, want %q", tt.text, got, tt.layer)
		}
		if got := c.DTypeKeys(); !slices.Equal(got, tt.dtype) {
			t.Errorf("%s: dtype under %q, want %q", tt.text, got, tt.dtype)
		}
	}
}

func TestPatchConfig(t *testing.T) {
	for _, tt := range []struct {
		name, raw string
		set       map[string]any
		want      string
		err       string
	}{
		{"order, spelling and unknown keys stay", `{"z": 1.50, "a": "\u00e9", "mine": [1, {"x": null}], "e": {}, "l": []}`, nil,
			"{\n  \"z\": 1.50,\n  \"a\": \"\\u00e9\",\n  \"mine\": [\n    1,\n    {\n      \"x\": null\n    }\n  ],\n  \"e\": {},\n  \"l\": []\n}\n", ""},
		{"a key in its place, new ones at the end by name", `{"n": 1, "last": true}`, map[string]any{"n": 2, "d": "bfloat16", "b": false},
			"{\n  \"n\": 2,\n  \"last\": true,\n  \"b\": false,\n  \"d\": \"bfloat16\"\n}\n", ""},
		{"dotted", `{"text_config": {"n": 1}, "a.b": 1}`, map[string]any{"text_config.n": 3, "a.b": 2, "new.in": "x"},
			"{\n  \"text_config\": {\n    \"n\": 3\n  },\n  \"a.b\": 2,\n  \"new\": {\n    \"in\": \"x\"\n  }\n}\n", ""},
		{"taken out", `{"a": 1, "b": {"c": 2, "d": 3}, "e.f": 4}`, map[string]any{"a": Removed, "b.c": Removed, "e.f": Removed, "x": Removed, "a.y": Removed},
			"{\n  \"b\": {\n    \"d\": 3\n  }\n}\n", ""},
		{"of two equal keys the last counts", `{"a": 1, "b": 2, "a": 3}`, nil, "{\n  \"a\": 3,\n  \"b\": 2\n}\n", ""},
		{"only the dtype key that was named", `{"torch_dtype": "float32"}`, map[string]any{"torch_dtype": "bfloat16"}, "{\n  \"torch_dtype\": \"bfloat16\"\n}\n", ""},
		{"Python's numbers", `{"limit": [0.0, Infinity, -Infinity, NaN]}`, map[string]any{"x": json.Number("Infinity")},
			"{\n  \"limit\": [\n    0.0,\n    Infinity,\n    -Infinity,\n    NaN\n  ],\n  \"x\": Infinity\n}\n", ""},
		{"values", `{}`, map[string]any{"f": 0.5, "l": []int{1}, "m": map[string]any{"k": nil}, "s": `<&">`},
			"{\n  \"f\": 0.5,\n  \"l\": [\n    1\n  ],\n  \"m\": {\n    \"k\": null\n  },\n  \"s\": \"<&\\\">\"\n}\n", ""},
		{"no configuration", "", map[string]any{"a": 1}, "{\n  \"a\": 1\n}\n", ""},
		{"through what is no object", `{"a": 1}`, map[string]any{"a.b": 1}, "", `"a.b" cannot be set, for "a" is no object`},
		{"what JSON cannot say", `{}`, map[string]any{"a": func() {}}, "", `the value for "a" cannot be written`},
		{"malformed", `{`, nil, "", "config.json:1:2"},
	} {
		got, err := PatchConfig([]byte(tt.raw), tt.set)
		if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) || string(got) != tt.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", tt.name, err, got, tt.want)
		}
	}
}

// TestPatchRealConfigs: the configurations that transformers writes come back byte for byte.
func TestPatchRealConfigs(t *testing.T) {
	files, _ := filepath.Glob("testdata/checkpoints/*/config.json")
	if len(files) == 0 {
		t.Fatal("no configurations")
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := PatchConfig(raw, nil)
		if err != nil || string(got) != string(raw) {
			t.Errorf("%s has changed: %v\n%s", f, err, got)
		}
	}
}

// FuzzConfig compares the reader with the standard library's and patches what it reads.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{`{}`, `{"a": 1, "b": [true, null, "\ud83d\ude00"], "c": {"d": -1.5e-3}}`, `{"a": Infinity, "b": NaN}`, `{"a":{"a":1},"a":2}`, `{"a.b": 1, "a": 3}`, "{\"a\": \"\\u0000\"}", `{"n": {"x": []}}`, `{"a":1e400}`} {
		f.Add([]byte(s), "n.layers")
	}
	f.Fuzz(func(t *testing.T, raw []byte, key string) {
		c, err := ParseConfig("c", raw)
		trimmed := strings.TrimLeft(string(raw), " \t\r\n")
		if err != nil {
			if utf8.Valid(raw) && json.Valid(raw) && strings.HasPrefix(trimmed, "{") && !strings.Contains(err.Error(), "more than") {
				t.Fatalf("refused valid JSON: %v", err)
			}
			return
		}
		special := false
		for _, s := range []string{"NaN", "Infinity"} {
			special = special || strings.Contains(string(raw), s)
		}
		if !special && !json.Valid(raw) {
			t.Fatal("accepted what is not JSON")
		}
		same, err := PatchConfig(raw, nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig("c", same)
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("rewriting changed %v to %v (%v)", c, again, err)
		}
		if twice, err := PatchConfig(same, nil); err != nil || string(twice) != string(same) {
			t.Fatalf("rewriting twice differs: %v", err)
		}
		if !utf8.ValidString(key) {
			return
		}
		patched, err := PatchConfig(raw, map[string]any{key: 7})
		if err != nil {
			if !strings.Contains(err.Error(), "is no object") && !strings.Contains(err.Error(), "more than") {
				t.Fatal(err)
			}
			return
		}
		c, err = ParseConfig("c", patched)
		if n, ok := c.Int(key); err != nil || !ok || n != 7 {
			t.Fatalf("%q is %v after being set to 7 (%v):\n%s", key, n, err, patched)
		}
	})
}
