package recipe

import (
	"strings"
	"testing"
)

// TestGrouped: parameters below others go by both names, and recipes that are written back say the same.
func TestGrouped(t *testing.T) {
	const head = "merge_method: pleas\nmodels: [{model: a}, {model: b}]\n"
	r, err := Parse("r.yml", []byte(head+"parameters: {budget: 1.2, widths: {hidden.fc1: 0.2, tail_from: 3}, least_squares: {mode: stacked, ridge: 1e-2}}"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range r.Params {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "budget widths.hidden.fc1 widths.tail_from least_squares.mode least_squares.ridge" {
		t.Error(got)
	}
	v, ok, err := r.Params.Get("least_squares.ridge").Eval("pleas", 0, Float)
	if err != nil || !ok || v.Float() != 0.01 {
		t.Errorf("%v %v %v", v, ok, err)
	}
	again, err := Parse("again.yml", r.YAML())
	if err != nil || again.Fingerprint() != r.Fingerprint() {
		t.Errorf("%v\n%s", err, r.YAML())
	}
	// Elsewhere a mapping is a condition, as it was.
	_, err = Parse("r.yml", []byte(head+"parameters: {weight: {mode: 1}}"))
	if err == nil || !strings.Contains(err.Error(), "condition") {
		t.Errorf("%v", err)
	}
	_, err = Parse("r.yml", []byte(head+"parameters: {widths: {mlp: 0.1}, widths.mlp: 0.2}"))
	if err == nil || !strings.Contains(err.Error(), "given twice") {
		t.Errorf("%v", err)
	}
}
