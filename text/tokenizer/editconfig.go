package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// roleKeys name single tokens in tokenizer_config.json and special_tokens_map.json, roleLists several.
var (
	roleKeys  = []string{"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}
	roleLists = []string{"additional_special_tokens", "extra_special_tokens"}
)

// Config is the tokenizer_config.json or special_tokens_map.json of the edited tokenizer, made of that of the one before. Names of tokens that are gone go too:
// transformers would add them again, with ids that no model has rows for. The keys in drop are left out.
func (e *Edited) Config(data []byte, drop ...string) ([]byte, error) {
	m, err := objectOf(data)
	if err != nil {
		return nil, err
	}
	changed := map[string][]byte{}
	for _, one := range m.list {
		if one.key != "added_tokens_decoder" || bytes.Equal(one.value, []byte("null")) {
			continue
		}
		if changed[one.key], err = e.decoder(one.value, bytes.HasPrefix(data, []byte("{\n"))); err != nil {
			return nil, err
		}
	}
	e.dropNames(m, changed)
	m.keep(func(_ int, one member) bool { return !slices.Contains(drop, one.key) })
	return m.with(changed), nil
}

// AddedMap is the added_tokens.json of the edited tokenizer, which readers of SentencePiece's own files take beside them: the tokens of
// the one before (nil: none) that are not gone, and the new ones.
func (e *Edited) AddedMap(data []byte) ([]byte, error) {
	if data == nil {
		data = []byte("{}")
	}
	m, err := objectOf(data)
	if err != nil {
		return nil, err
	}
	ids := map[string]int{}
	for _, one := range m.list {
		var id int
		if json.Unmarshal(one.value, &id) == nil {
			ids[one.key] = id
		}
	}
	for _, one := range e.Removed {
		delete(ids, one.Text)
	}
	for _, one := range e.New {
		ids[one.Text] = one.ID
	}
	names := make([]string, 0, len(ids))
	for name := range ids {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if ids[a] != ids[b] {
			return ids[a] - ids[b]
		}
		return bytes.Compare([]byte(a), []byte(b))
	})
	var b bytes.Buffer
	b.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n  %s: %d", text(name), ids[name])
	}
	b.WriteString("\n}\n")
	return b.Bytes(), nil
}

// decoder is added_tokens_decoder with what is gone taken out and what is new put in.
func (e *Edited) decoder(data []byte, indented bool) ([]byte, error) {
	m, err := objectOf(data)
	if err != nil {
		return nil, &Error{At: "added_tokens_decoder", Err: err}
	}
	limit := -1
	if len(e.Removed) > 0 {
		limit = e.Removed[0].ID
	}
	m.keep(func(_ int, one member) bool {
		id, err := strconv.Atoi(one.key)
		return err != nil || limit < 0 || id < limit
	})
	lead := func(depth int) []byte {
		if !indented {
			return nil
		}
		return append([]byte("\n"), bytes.Repeat([]byte("  "), depth)...)
	}
	for _, one := range e.New {
		var b bytes.Buffer
		b.WriteByte('{')
		for i, f := range []struct {
			key   string
			value any
		}{{"content", one.Text}, {"lstrip", one.LStrip}, {"normalized", one.Normalized}, {"rstrip", one.RStrip}, {"single_word", one.SingleWord}, {"special", one.Special}} {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(lead(3))
			value := fmt.Sprint(f.value)
			if s, ok := f.value.(string); ok {
				value = text(s)
			}
			fmt.Fprintf(&b, "%q: %s", f.key, value)
		}
		b.Write(lead(2))
		b.WriteByte('}')
		m.list = append(m.list, member{lead: fmt.Appendf(lead(2), "%q: ", strconv.Itoa(one.ID)), value: b.Bytes()})
	}
	if len(bytes.TrimSpace(m.end)) == len(m.end) && len(e.New) > 0 {
		m.end = append(lead(1), m.end...)
	}
	return m.with(nil), nil
}

// dropNames takes names of tokens out that the tokenizer does not have any more.
func (e *Edited) dropNames(m *members, changed map[string][]byte) {
	gone := func(raw []byte) bool {
		var v any
		if json.Unmarshal(raw, &v) != nil {
			return false
		}
		tok, ok := describedToken(v)
		if !ok {
			return false
		}
		if _, has := e.ID(tok.content); has {
			return false
		}
		return slices.ContainsFunc(e.Removed, func(r Token) bool { return r.Text == tok.content })
	}
	if len(e.Removed) == 0 {
		return
	}
	m.keep(func(_ int, one member) bool { return !slices.Contains(roleKeys, one.key) || !gone(one.value) })
	for _, one := range m.list {
		if !slices.Contains(roleLists, one.key) {
			continue
		}
		list, err := membersOf(one.value)
		if err != nil {
			continue // null
		}
		list.keep(func(_ int, one member) bool { return !gone(one.value) })
		changed[one.key] = list.with(nil)
	}
}

// text is a JSON string as the library writes it.
func text(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a text cannot fail
	return string(bytes.TrimSpace(b.Bytes()))
}
