package chat

import (
	"strings"
	"testing"
)

func say(role, content string) any {
	return map[string]any{"role": role, "content": content}
}

// TestBundled: each template writes the format of its family.
func TestBundled(t *testing.T) {
	three := []any{say("system", "Be brief. "), say("user", "Hi"), say("assistant", "Yo"), say("user", "Q2")}
	for _, c := range []struct {
		name     string
		messages []any
		prompt   bool
		want     string
	}{
		{"chatml", three, true, "<|im_start|>system\nBe brief. <|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n"},
		{"chatml", three[1:3], false, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"},
		{"llama3", three, true, "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
		{"mistral", three, true, "<s> [INST] Be brief. \n\nHi [/INST] Yo</s> [INST] Q2 [/INST]"},
		{"mistral", three[1:3], false, "<s> [INST] Hi [/INST] Yo</s>"},
		{"alpaca", three, true, "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nYo\n\n### Instruction:\nQ2\n\n### Response:\n"},
		{"alpaca", []any{say("user", "Sum"), say("input", "1 2")}, true, "### Instruction:\nSum\n\n### Input:\n1 2\n\n### Response:\n"},
		{"exaone", three, true, "[|system|]Be brief. [|endofturn|]\n[|user|]Hi\n[|assistant|]Yo[|endofturn|]\n[|user|]Q2\n[|assistant|]"},
		{"exaone", three[1:2], false, "[|system|][|endofturn|]\n[|user|]Hi\n"},
	} {
		source, ok := Bundled(c.name)
		if !ok {
			t.Fatalf("no template %s", c.name)
		}
		tpl, err := Parse(source)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got, err := tpl.Render(Input{Messages: c.messages, AddGenerationPrompt: c.prompt, BOS: "<s>", EOS: "</s>"})
		if err != nil || got.Text != c.want {
			t.Errorf("%s: %v\n got %q\nwant %q", c.name, err, got.Text, c.want)
		}
	}
	for _, name := range []string{"", "llama4", "../chatml", "chatml.jinja", `a\b`} {
		if _, ok := Bundled(name); ok {
			t.Errorf("%q is a template", name)
		}
	}
	source, _ := Bundled("mistral")
	tpl, err := Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]any{{say("assistant", "Yo")}, {say("user", "a"), say("user", "b")}, {say("user", "a"), say("system", "b")}, {say("tool", "a")}} {
		if _, err := tpl.Render(Input{Messages: bad, BOS: "<s>", EOS: "</s>"}); err == nil || !strings.Contains(err.Error(), "user") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
