package lmc

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	a := random(1, shapes)
	r := &Report{A: "one", B: "two <b>", Aligned: "by weight", Analysis: analyze(t, a, permuted(a), a, Options{KeepVectors: true}), Version: "0"}
	if err := r.Read("0.weight", false, a["2.weight"].Data[:400], 10, 40); err != nil {
		t.Fatal(err)
	}
	r.Finish()
	var b bytes.Buffer
	f := r.Findings()
	if err := f.Page(&b); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"Singular vectors of one and two &lt;b&gt;", "1.000 after alignment; the distance becomes 0.00 of what it was", `class="first">after, R(0.3)`, `class="second dashed">before, R(0)`,
		`<td>4.weight</td><td>10 60</td><td class="n">10</td>`, "inputs along large vectors", "by weight"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if bad := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|@import|url\(|src=`).FindString(text); bad != "" {
		t.Errorf("the page is not alone: %s", bad)
	}
	for _, table := range f.Tables {
		for _, row := range table.Rows {
			if len(row) != len(table.Head) {
				t.Errorf("%s: %d cells below %d heads", table.Title, len(row), len(table.Head))
			}
		}
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(raw, &back); err != nil || len(back.Layers) != 4 || back.After.R[0] != r.After.R[0] || back.Energy.Rows != 10 {
		t.Errorf("the JSON says something else: %v", err)
	}
	// Without an aligned version, and without data, columns are left out.
	r = &Report{A: "one", B: "two", Analysis: analyze(t, a, permuted(a), nil, Options{}), Version: "0"}
	for _, table := range r.Findings().Tables {
		for _, row := range table.Rows {
			if len(row) != len(table.Head) || strings.Contains(strings.Join(table.Head, " "), "after") {
				t.Errorf("%v: %v", table.Head, row)
			}
		}
	}
	if !strings.Contains(r.Lead(), ". The singular values differ by 0.0%.") {
		t.Error(r.Lead())
	}
}
