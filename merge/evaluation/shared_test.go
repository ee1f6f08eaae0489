package evaluation_test

import (
	"strings"
	"testing"

	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/evaluation"
)

// TestShared counts rows that two sets have in common, by what is in them.
func TestShared(t *testing.T) {
	on := func(name, text string) evaluation.Options {
		return evaluation.Options{Data: calibration.Options{Files: []string{write(t, name, text)}}}
	}
	a := judge(t, line, "", on("a.csv", "2,0,0\n0,1,1\n1,0,1\n"))
	for want, text := range map[int]string{3: "1,0,1\n2,0,0\n0,1.0,1\n", 1: "9,9,0\n2,0,0\n1,0,0\n", 0: "7,7,0\n"} {
		if n := evaluation.Shared(a, judge(t, line, "", on("b.csv", text))); n != want {
			t.Errorf("%q shares %d rows, want %d", text, n, want)
		}
	}
	config, dir, _ := checkpoint(t, "base")
	text := func(rows ...string) *evaluation.Judge {
		return judge(t, config, dir, on("rows.jsonl", strings.Join(rows, "\n")))
	}
	const one, two, other = `{"prompt": "a ", "completion": "b c d"}`, `{"prompt": "c ", "completion": "d e f"}`, `{"prompt": "a b", "completion": " c d"}`
	if n := evaluation.Shared(text(one, two), text(other, two)); n != 1 {
		t.Errorf("%d texts are shared, want 1: what is asked for counts", n)
	}
	if n := evaluation.Shared(a, text(one)); n != 0 {
		t.Errorf("%d rows of numbers are texts", n)
	}
}
