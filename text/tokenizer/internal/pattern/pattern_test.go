package pattern

import (
	"encoding/json"
	"os"
	"testing"
	"unicode/utf8"
)

// TestMatches compares with the library itself; testdata/gen.py asked it.
func TestMatches(t *testing.T) {
	data, err := os.ReadFile("testdata/matches.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases struct {
		Texts    []string
		Patterns []struct {
			Pattern string
			Matches [][][3]any
		}
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases.Patterns {
		p, err := Parse(c.Pattern)
		if err != nil {
			t.Error(err)
			continue
		}
		for i, text := range cases.Texts {
			got := [][3]any{}
			err := p.Each(text, func(start, end int) bool {
				if start < end { // the pre-tokenizer that was asked leaves empty matches out
					from := utf8.RuneCountInString(text[:start])
					got = append(got, [3]any{text[start:end], float64(from), float64(from + utf8.RuneCountInString(text[start:end]))})
				}
				return true
			})
			if err != nil {
				t.Error(err)
			}
			if want := c.Matches[i]; !equal(got, want) {
				t.Errorf("%s\non %q\n got %v\nwant %v", c.Pattern, text, got, want)
			}
		}
	}
}

func equal(a, b [][3]any) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
