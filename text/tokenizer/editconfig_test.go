package tokenizer

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestConfigOfEdited: new tokens come into the configuration, in its layout; what is gone leaves it; the rest keeps its bytes.
func TestConfigOfEdited(t *testing.T) {
	tok, err := Parse([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"<s>":1,"<pad>":2,"<far>":3},"merges":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	e, err := tok.edit([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"<s>":1,"<pad>":2,"<far>":3},"merges":[]}}`), Changes{Limit: 2, Add: []Token{{Text: "<é\"\u00a0>", Special: true, RStrip: true}}})
	if err != nil {
		t.Fatal(err)
	}
	config := `{
  "added_tokens_decoder": {
    "1": {
      "content": "<s>",
      "special": true
    },
    "2": {
      "content": "<pad>"
    }
  },
  "additional_special_tokens": ["<far>", "<s>"],
  "bos_token": "<s>",
  "chat_template": "{{ 1 }}",
  "model_max_length": 1000000000000000019884624838656,
  "pad_token": {"content": "<pad>", "lstrip": false},
  "extra_special_tokens": null
}
`
	want := `{
  "added_tokens_decoder": {
    "1": {
      "content": "<s>",
      "special": true
    },
    "2": {
      "content": "<é\"` + "\u00a0" + `>",
      "lstrip": false,
      "normalized": false,
      "rstrip": true,
      "single_word": false,
      "special": true
    }
  },
  "additional_special_tokens": [ "<s>"],
  "bos_token": "<s>",
  "model_max_length": 1000000000000000019884624838656,
  "extra_special_tokens": null
}
`
	got, err := e.Config([]byte(config), "chat_template")
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	if got, err = e.Config([]byte(`{"added_tokens_decoder":{}}`)); err != nil || string(got) != `{"added_tokens_decoder":{"2": {"content": "<é\"`+"\u00a0"+`>","lstrip": false,"normalized": false,"rstrip": true,"single_word": false,"special": true}}}` {
		t.Errorf("%v %s", err, got)
	}
	if got, err = e.AddedMap([]byte(`{"<far>": 3, "<s>": 1}`)); err != nil || string(got) != "{\n  \"<s>\": 1,\n  \"<é\\\"\u00a0>\": 2\n}\n" {
		t.Errorf("%v %s", err, got)
	}
	for _, bad := range []string{"", "[]", "{", `{"added_tokens_decoder": 1}`} {
		if got, err := e.Config([]byte(bad)); err == nil {
			t.Errorf("%s becomes %s", bad, got)
		}
	}
}

// FuzzConfig changes hostile configurations: an error, or JSON without what is gone.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"added_tokens_decoder":{"0":{"content":"a"},"7":{}},"pad_token":"<pad>","chat_template":[]}`))
	f.Add([]byte(`{"additional_special_tokens":["<pad>",{"content":"<pad>"},1],"bos_token":{"content":"<pad>"}}`))
	f.Add([]byte(" { \n } "))
	tok, err := Parse([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"<pad>":1},"merges":[]}}`))
	if err != nil {
		f.Fatal(err)
	}
	e, err := tok.edit([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"<pad>":1},"merges":[]}}`), Changes{Limit: 1, Add: []Token{{Text: "<x>"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 20_000 {
			return
		}
		got, err := e.Config(data, "chat_template")
		if err != nil {
			return
		}
		var out map[string]any
		if json.Valid(data) {
			if err := json.Unmarshal(got, &out); err != nil {
				t.Fatalf("%v\n%s\nof\n%s", err, got, data)
			}
			if _, has := out["chat_template"]; has || out["pad_token"] == "<pad>" && strings.Count(string(data), "pad_token") == 1 {
				t.Fatalf("%s\nof\n%s", got, data)
			}
		}
		if got, err := e.AddedMap(data); err == nil && json.Unmarshal(got, &out) != nil {
			t.Fatalf("added tokens: %s\nof\n%s", got, data)
		}
	})
}
