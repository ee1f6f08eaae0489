package data

import (
	"fmt"
	"math"

	"github.com/mergekit/mergekit/text/chat"
)

// tokensFormat is a row that was tokenised elsewhere. Its labels are aligned with input_ids as in Hugging Face's files: the
// label of a position is the token at that position, -100 where it is not learnt; without labels everything is learnt.
var tokensFormat = &format{
	name: "tokens",
	keys: `{"input_ids", "labels"}`,
	has:  func(o *chat.Object) bool { return has(o, "input_ids") },
	read: func(o *chat.Object) (content, error) {
		ids, err := numbers(o, "input_ids", 0)
		if err != nil {
			return nil, err
		}
		labels := ids
		if has(o, "labels") {
			if labels, err = numbers(o, "labels", Ignored); err != nil {
				return nil, err
			}
		}
		if len(labels) != len(ids) {
			return nil, fmt.Errorf("%d input_ids and %d labels; labels are aligned with input_ids", len(ids), len(labels))
		}
		if has(o, "attention_mask") {
			n, err := attended(o, len(ids))
			if err != nil {
				return nil, err
			}
			ids, labels = ids[:n], labels[:n]
		}
		if len(ids) == 0 {
			return nil, fmt.Errorf("\"input_ids\" is empty")
		}
		return &tokenRow{ids, labels}, nil
	},
}

type tokenRow struct{ ids, labels []int32 }

// numbers reads a list of token ids; the only number below zero that a list may hold is masked, if it is one.
func numbers(o *chat.Object, key string, masked int64) ([]int32, error) {
	v := field(o, key)
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("%q is %s, not a list of token ids", key, kind(v))
	}
	out := make([]int32, len(list))
	for i, x := range list {
		n, ok := x.(int64)
		if !ok {
			return nil, fmt.Errorf("%s[%d] is %s, not a token id", key, i, kind(x))
		}
		if n > math.MaxInt32 || n < 0 && (n != masked || masked == 0) {
			return nil, fmt.Errorf("%s[%d] is %d, which is no token id", key, i, n)
		}
		out[i] = int32(n)
	}
	return out, nil
}

// attended returns how many tokens are no padding, which may only stand at the end.
func attended(o *chat.Object, want int) (int, error) {
	list, ok := field(o, "attention_mask").([]any)
	if !ok || len(list) != want {
		return 0, fmt.Errorf("\"attention_mask\" is no list as long as input_ids")
	}
	n := 0
	for i, x := range list {
		switch x {
		case int64(1), true:
			if n < i {
				return 0, fmt.Errorf("attention_mask[%d] is 1 after a 0: padding can only stand at the end", i)
			}
			n++
		case int64(0), false:
		default:
			return 0, fmt.Errorf("attention_mask[%d] is neither 0 nor 1", i)
		}
	}
	return n, nil
}

func (r *tokenRow) encode(e *encoder) (tokens, error) {
	if size := e.vocabulary(); size > 0 {
		for _, list := range [][]int32{r.ids, r.labels} {
			for i, id := range list {
				if int(id) >= size {
					return tokens{}, fmt.Errorf("token id %d at %d is outside of the tokenizer's %d tokens", id, i, size)
				}
			}
		}
	}
	t := tokens{ids: r.ids, labels: r.labels, class: noClass}
	switch e.trainOn {
	case "auto", "assistant", "completion", "last":
	case "all":
		t.labels = r.ids
	}
	return t, nil
}
