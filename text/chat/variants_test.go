package chat

import (
	"strings"
	"testing"
)

// A template of our own stands in for a stock one: what the known ones give is compared by scripts/check-chat, on the files
// of the packages that ship them.
func TestTraining(t *testing.T) {
	const stock = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</>' }}{% endfor %}\n"
	tpl, err := Parse(stock)
	if err != nil {
		t.Fatal(err)
	}
	if tpl.Training() != nil {
		t.Fatal("an unknown template has a training variant")
	}
	digest := stockDigest(strings.TrimSpace(stock))
	variants[digest] = variant{"own", []edit{{" + m.content + '</>' ", " }}" + ifAssistant("m.role", "m.content + '</>'") + "{{ '' "}}}
	defer delete(variants, digest)
	in := Input{Messages: []any{map[string]any{"role": "user", "content": "a"}, map[string]any{"role": "assistant", "content": "b"}}}
	want, err := tpl.Render(in)
	if err != nil {
		t.Fatal(err)
	}
	training := tpl.Training()
	if training == nil || !training.HasGeneration() || training.Name() != "training variant of own" {
		t.Fatalf("variant: %v", training)
	}
	got, err := training.Render(in)
	if err != nil || got.Text != want.Text {
		t.Fatalf("%q, %v; want %q", got.Text, err, want.Text)
	}
	if len(got.Generated) != 1 || got.Text[got.Generated[0].Start:got.Generated[0].End] != "b</>" {
		t.Errorf("spans %v", got.Generated)
	}
	if training.Training() != training {
		t.Error("the training variant of a template with generation blocks is itself")
	}
	variants[digest] = variant{"own", []edit{{"m.", "n."}}}
	if tpl.Training() != nil {
		t.Error("an edit that fits several places was made")
	}
}
