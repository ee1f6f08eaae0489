package connect

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// example is a report of measured hills: two variants of n models.
func example(t *testing.T, n int) *Report {
	t.Helper()
	r := &Report{Models: []string{"a", "b <i>", "c"}[:n], Sets: []SetInfo{{"train", "train.csv", 4}, {"test", "test.csv", 2}}, Points: 5, Repair: "none", Version: "0"}
	for _, name := range []string{"as given", "weight"} {
		result, err := Run(context.Background(), &bowl{wrong: 0.25}, n, Options{Points: 5, Samples: 3})
		if err != nil {
			t.Fatal(err)
		}
		r.Variants = append(r.Variants, Variant{name, result})
	}
	return r
}

// TestPage wants a page that stands alone and says what was measured; and the JSON to hold all of it.
func TestPage(t *testing.T) {
	for n := 2; n <= 3; n++ {
		r := example(t, n)
		var b bytes.Buffer
		if err := r.Findings().Page(&b); err != nil {
			t.Fatal(err)
		}
		text := b.String()
		want := []string{"The loss barrier on test is 0.0000 as given; weight: 0.0000.", `<td>A–B</td><td>weight</td><td>test</td><td class="n">2.0000</td>`, "test.csv, 2 rows", "error barrier"}
		if n == 2 {
			want = append(want, "Linear connectivity of a and b &lt;i&gt;", `class="first dashed">weight, train`, `class="second">as given, test`)
		} else {
			want = append(want, "Linear connectivity of 3 models", "All models together", `class="third">B–C, weight`, `class="third dashed">B–C, as given`)
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%d models: the page lacks %q", n, w)
			}
		}
		if bad := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|@import|url\(|src=`).FindString(text); bad != "" {
			t.Errorf("the page is not alone: %s", bad)
		}
		if drawings := strings.Count(text, "<svg"); drawings != 2 {
			t.Errorf("%d drawings", drawings)
		}
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var back Report
		if err := json.Unmarshal(raw, &back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back.Variants, r.Variants) || !reflect.DeepEqual(back.Sets, r.Sets) {
			t.Errorf("the JSON says something else: %s", raw)
		}
	}
}

// TestWithoutErrors: a measure without right and wrong has one panel and dashes.
func TestWithoutErrors(t *testing.T) {
	r := example(t, 2)
	for i := range r.Variants[0].Paths[0].Curves {
		c := &r.Variants[0].Paths[0].Curves[i]
		c.Error, c.ErrorBarrier = nil, nil
	}
	r.Variants = r.Variants[:1]
	f := r.Figure()
	if len(f.Panels) != 1 || f.Panels[0].Lines[0].Name != "train" {
		t.Errorf("%+v", f)
	}
	table := r.PathTable()
	if row := table.Rows[0]; row[len(row)-1] != "–" || len(row) != len(table.Head) {
		t.Errorf("%v", row)
	}
}
