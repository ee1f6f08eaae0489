package merge_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// The peer gives new tokens ids by the order of a hash, which changes from run to run. So outputs are compared by their tokens: every
// token has the flags and the rows that it should have, whatever its id.

// sameText compares tokenizers by their tokens, and chat templates by what they write.
func sameText(t *testing.T, got, want string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(want, "tokenizer.json")); errors.Is(err, os.ErrNotExist) {
		return
	}
	g, w := tokensOf(t, got), tokensOf(t, want)
	for text, one := range w {
		mine, ok := g[text]
		one.ID = mine.ID
		if !ok || mine != one {
			t.Errorf("token %q is %+v, want %+v", text, mine, one)
		}
	}
	if len(g) != len(w) {
		t.Errorf("%d tokens, want %d", len(g), len(w))
	}
	gf, wf := readJSON(t, filepath.Join(got, "tokenizer.json")), readJSON(t, filepath.Join(want, "tokenizer.json"))
	delete(gf, "added_tokens")
	delete(wf, "added_tokens")
	if !reflect.DeepEqual(gf, wf) {
		t.Error("tokenizer.json differs beside its added tokens")
	}
	gc, wc := readJSON(t, filepath.Join(got, "tokenizer_config.json")), readJSON(t, filepath.Join(want, "tokenizer_config.json"))
	for _, key := range []string{"bos_token", "eos_token", "tokenizer_class", "model_max_length"} {
		if !reflect.DeepEqual(gc[key], wc[key]) {
			t.Errorf("tokenizer_config.json: %s is %v, want %v", key, gc[key], wc[key])
		}
	}
	if tokenRows(t, got, want) == nil { // the same ids: the same file
		compareFile(t, got, want, "tokenizer.json")
	}
	compareTemplates(t, got, want)
}

func tokensOf(t *testing.T, dir string) map[string]tokenizer.Token {
	t.Helper()
	tok, err := tokenizer.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]tokenizer.Token{}
	for _, one := range tok.Vocabulary() {
		list[one.Text] = one
	}
	return list
}

func compareTemplates(t *testing.T, got, want string) {
	t.Helper()
	w, err := chat.Find(want, "")
	if errors.Is(err, os.ErrNotExist) {
		if _, err := chat.Find(got, ""); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("there is a chat template, and should be none: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	g, err := chat.Find(got, "")
	if err != nil {
		t.Fatal(err)
	}
	var messages []any
	for i, content := range []string{"Be brief.", "Hi, 2 < 3?\n", "Yes. ", "Why?"} {
		role := []string{"system", "user", "assistant", "user"}[i]
		messages = append(messages, map[string]any{"role": role, "content": content})
		for _, prompt := range []bool{false, true} {
			in := chat.Input{Messages: messages, AddGenerationPrompt: prompt, BOS: "<s>", EOS: "</s>"}
			a, errA := g.Render(in)
			b, errB := w.Render(in)
			if a.Text != b.Text || errA != nil || errB != nil {
				t.Errorf("the chat template writes %q (%v), want %q (%v)", a.Text, errA, b.Text, errB)
			}
		}
	}
}

// tokenRows is, for each id of want, the id that its token has in got; nil where they are the same.
func tokenRows(t *testing.T, got, want string) []int {
	t.Helper()
	for _, dir := range []string{got, want} {
		if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err != nil {
			return nil
		}
	}
	g, w := tokensOf(t, got), tokensOf(t, want)
	rows := make([]int, len(w))
	same := true
	for text, one := range w {
		if one.ID >= len(rows) {
			t.Fatalf("ids of %s have holes", want)
		}
		rows[one.ID] = g[text].ID
		same = same && rows[one.ID] == one.ID
	}
	if same {
		return nil
	}
	return rows
}

// byToken puts the rows of a tensor with as many rows as there are tokens into another order.
func byToken(v tensors.View, rows []int) tensors.View {
	if rows == nil || len(v.Shape) == 0 || v.Shape[0] < len(rows) {
		return v
	}
	size := len(v.Data) / v.Shape[0]
	data := slices.Clone(v.Data)
	for i, from := range rows {
		copy(data[i*size:(i+1)*size], v.Data[from*size:(from+1)*size])
	}
	v.Data = data
	return v
}

// TestGoldenTokenizersComplete: all of the field's cases are here.
func TestGoldenTokenizersComplete(t *testing.T) {
	for _, name := range []string{"tokenizer_base", "tokenizer_tokens", "tokenizer_union", "tokenizer_union_permuted", "chat_template"} {
		data, err := os.ReadFile(filepath.Join(golden, "cases", name, "case.json"))
		var c map[string]any
		if err != nil || json.Unmarshal(data, &c) != nil || c["kind"] != "exact" {
			t.Errorf("%s: %v %s", name, err, fmt.Sprint(slices.Sorted(maps.Keys(c))))
		}
	}
}
