package config

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestShippedConfigs wants every file of configs/finetune to be read, to find its model and its rows, and to be a page with comments.
func TestShippedConfigs(t *testing.T) {
	files, err := filepath.Glob("../../configs/finetune/*.yml")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		c, err := Load(file, []string{"train.max_steps=2"})
		if err != nil {
			t.Error(err)
			continue
		}
		roundTrip(t, c)
		if _, err := os.Stat(filepath.Join(c.Model.Base, "config.json")); err != nil {
			t.Errorf("%s: %s", file, err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yml")
		if c.Run.Name != name || c.Run.OutputDir != "out/"+name {
			t.Errorf("%s: its run is %s in %s", file, c.Run.Name, c.Run.OutputDir)
		}
		rows := 0
		for _, s := range c.Data.Train {
			rows += countRows(t, s.Path)
		}
		if rows < 20 {
			t.Errorf("%s: %d rows to learn from", file, rows)
		}
		for _, s := range c.Data.Valid {
			if countRows(t, s.Path) < 5 {
				t.Errorf("%s: hardly a row to measure with", file)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "# ") || !strings.Contains(string(text), "# real: ") {
			t.Errorf("%s does not say what it is for and what to change", file)
		}
	}
}

// TestDocsSnippets reads the pieces of YAML in the pages: each is a configuration but for its model.
func TestDocsSnippets(t *testing.T) {
	files, err := filepath.Glob("../../docs/finetuning/*.md")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	n := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), "```yaml\n")
		for found {
			var snippet string
			snippet, rest, _ = strings.Cut(rest, "```")
			n++
			if _, err := Parse(file, []byte("model: {base: m}\n"+snippet), nil); err != nil {
				t.Error(err)
			}
			_, rest, found = strings.Cut(rest, "```yaml\n")
		}
	}
	if n == 0 {
		t.Error("no snippet found")
	}
}

// countRows counts the rows of a file, and wants each to be an object that no other row equals.
func countRows(t *testing.T, path string) int {
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer f.Close()
	seen := map[string]bool{}
	for in := bufio.NewScanner(f); in.Scan(); {
		var row map[string]any
		if err := json.Unmarshal(in.Bytes(), &row); err != nil {
			t.Errorf("%s:%d: %s", path, len(seen)+1, err)
		}
		if seen[in.Text()] {
			t.Errorf("%s: a row stands twice: %s", path, in.Text())
		}
		seen[in.Text()] = true
	}
	return len(seen)
}
