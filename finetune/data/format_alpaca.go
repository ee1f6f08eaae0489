package data

import (
	"fmt"

	"github.com/mergekit/mergekit/text/chat"
)

// alpacaFormat is an instruction, perhaps with an input, and its output. With a chat template it becomes a conversation, in
// which the input follows the instruction on a line of its own (as in LLaMA-Factory, whose `system` and `history` are read as
// well); without one, the text with which Alpaca was trained.
var alpacaFormat = &format{
	name: "alpaca",
	keys: `{"instruction", "input", "output"}`,
	has:  func(o *chat.Object) bool { return has(o, "instruction", "output") },
	read: func(o *chat.Object) (content, error) {
		a := &instruction{}
		var err error
		if a.instruction, err = stringField(o, "instruction"); err != nil {
			return nil, err
		}
		if a.output, err = stringField(o, "output"); err != nil {
			return nil, err
		}
		for _, f := range []struct {
			key string
			to  *string
		}{{"input", &a.input}, {"system", &a.system}} {
			if has(o, f.key) {
				if *f.to, err = stringField(o, f.key); err != nil {
					return nil, err
				}
			}
		}
		if !has(o, "history") {
			return a, nil
		}
		history, ok := field(o, "history").([]any)
		if !ok {
			return nil, fmt.Errorf("\"history\" is %s, not a list of pairs", kind(field(o, "history")))
		}
		for i, x := range history {
			pair, ok := x.([]any)
			if !ok || len(pair) != 2 {
				return nil, fmt.Errorf("history[%d] is no pair of question and answer", i)
			}
			a.history = append(a.history, message("user", pair[0]), message("assistant", pair[1]))
		}
		return a, nil
	},
}

type instruction struct {
	instruction, input, output, system string
	history                            []any
}

// Taori et al., 2023, "Stanford Alpaca", PROMPT_DICT.
const (
	alpacaWithInput = "Below is an instruction that describes a task, paired with an input that provides further context. " +
		"Write a response that appropriately completes the request.\n\n### Instruction:\n%s\n\n### Input:\n%s\n\n### Response:\n"
	alpacaWithoutInput = "Below is an instruction that describes a task. " +
		"Write a response that appropriately completes the request.\n\n### Instruction:\n%s\n\n### Response:\n"
)

func (a *instruction) encode(e *encoder) (tokens, error) {
	c, err := a.plain(e)
	if err != nil {
		return tokens{}, err
	}
	return c.encode(e)
}

// plain is the instruction as a conversation, or without a template as a text with its completion.
func (a *instruction) plain(e *encoder) (content, error) {
	if e.template == nil {
		if a.system != "" || len(a.history) > 0 {
			return nil, fmt.Errorf("\"system\" and \"history\" need a chat template, and %s", noTemplate)
		}
		prompt := fmt.Sprintf(alpacaWithoutInput, a.instruction)
		if a.input != "" {
			prompt = fmt.Sprintf(alpacaWithInput, a.instruction, a.input)
		}
		return &continuation{prompt, a.output}, nil
	}
	question := a.instruction
	if a.input != "" {
		question += "\n" + a.input
	}
	var list []any
	if a.system != "" {
		list = append(list, message("system", a.system))
	}
	list = append(append(list, a.history...), message("user", question))
	c := &conversation{prompt: len(list)}
	return c, c.add(append(list, message("assistant", a.output)))
}
