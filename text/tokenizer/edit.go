package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Changes say how a tokenizer is to differ from the one of a directory.
type Changes struct {
	Limit int // tokens from this id on go; 0: none does
	// Add are added tokens with their flags. New ones get the ids behind those there are, in this order; one that the vocabulary has
	// keeps its id and is found in texts from now on. Their IDs are not looked at.
	Add []Token
}

// Edited is a tokenizer that was made of another one.
type Edited struct {
	*Tokenizer
	JSON    []byte  // its tokenizer.json: what did not have to change has the bytes that it had
	Removed []Token // by Changes.Limit
	New     []Token // of Changes.Add, those that the tokenizer did not have, with their ids
}

// Edit makes a tokenizer out of the one of a directory. It is an error if what is to go is needed: by the model as the token for unknown
// text, or by the post-processor.
func Edit(dir string, c Changes) (*Edited, error) {
	t, err := Open(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "tokenizer.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e, err := t.edit(data, c)
	if err != nil {
		return nil, in(path, err)
	}
	e.config = t.config
	return e, nil
}

// edit changes data, which t was read from.
func (t *Tokenizer) edit(data []byte, c Changes) (*Edited, error) {
	limit := c.Limit
	if limit <= 0 {
		limit = t.Size()
	}
	e := &Edited{JSON: data}
	var added []Token
	for _, one := range t.Vocabulary() {
		switch {
		case one.ID >= limit:
			e.Removed = append(e.Removed, one)
		case one.Added:
			added = append(added, one)
		}
	}
	if len(e.Removed) == 0 && len(c.Add) == 0 {
		e.Tokenizer = t
		return e, nil
	}
	for _, one := range c.Add {
		if one.Text == "" {
			return nil, errorAt("added_tokens", "a token without text cannot be added")
		}
		if id, has := t.added.ids[one.Text]; has && id < limit {
			return nil, errorAt("added_tokens", "%q cannot be added: it is an added token already, with id %d", one.Text, id)
		}
	}
	added = append(added, c.Add...)
	root, err := membersOf(data)
	if err != nil {
		return nil, err
	}
	changed := map[string][]byte{}
	if len(e.Removed) > 0 {
		if err := t.spares(limit); err != nil {
			return nil, err
		}
		i := slices.IndexFunc(root.list, func(m member) bool { return m.key == "model" })
		if i < 0 {
			return nil, errorAt("model", "the file has no model")
		}
		if changed["model"], err = cutModel(root.list[i].value, limit, e.Removed); err != nil {
			return nil, err
		}
	}
	// The ids of new tokens are those that reading gives: what transformers will have decides, not what was meant.
	indented := bytes.HasPrefix(data, []byte("{\n"))
	changed["added_tokens"] = renderAdded(added, indented)
	if e.Tokenizer, err = Parse(root.with(changed)); err != nil {
		return nil, fmt.Errorf("after its change: %w", err)
	}
	for i := range added {
		added[i].ID, _ = e.ID(added[i].Text)
		if text, ok := t.Token(added[i].ID); ok && added[i].ID < limit && text != added[i].Text {
			return nil, errorAt("added_tokens", "the ids of the vocabulary have holes: the new token %q would get the id %d, which is of %q", added[i].Text, added[i].ID, text)
		}
	}
	for _, one := range t.Vocabulary() {
		if text, _ := e.Token(one.ID); one.ID < limit && text != one.Text {
			return nil, errorAt("added_tokens", "the ids of the vocabulary have holes: without the removed tokens, the id %d would be of %q instead of %q", one.ID, text, one.Text)
		}
	}
	for _, one := range added[len(added)-len(c.Add):] {
		if id, has := t.ID(one.Text); !has || id >= limit {
			e.New = append(e.New, one)
		}
	}
	slices.SortStableFunc(added, func(a, b Token) int { return a.ID - b.ID }) // as the library writes them
	changed["added_tokens"] = renderAdded(added, indented)
	e.JSON = root.with(changed)
	e.bos, e.eos, e.pad, e.unknown = t.bos, t.eos, t.pad, t.unknown
	for _, n := range []*named{&e.bos, &e.eos, &e.pad, &e.unknown} {
		if n.id, n.ok = e.ID(n.token); !n.ok {
			*n = named{}
		}
	}
	return e, nil
}

// spares is an error where a token from limit on is needed.
func (t *Tokenizer) spares(limit int) error {
	const why = "it has no row in the model's embedding, and cannot be taken out"
	unk := ""
	switch m := t.model.(type) {
	case *bpe:
		unk = m.unk
	case *wordPiece:
		unk = m.unk
	case *wordLevel:
		unk = m.unk
	case *unigram:
		if m.unk >= limit {
			return errorAt("model.unk_id", "the token for unknown text has the id %d: %s", m.unk, why)
		}
	}
	if id, ok := t.model.id(unk); ok && unk != "" && id >= limit {
		return errorAt("model.unk_token", "the token for unknown text, %q, has the id %d: %s", unk, id, why)
	}
	for _, id := range wrapping(t.processor) {
		if id >= limit {
			text, _ := t.Token(id)
			return errorAt("post_processor", "%q (%d) is put around texts: %s", text, id, why)
		}
	}
	return nil
}

// wrapping lists the ids that a processor puts around texts.
func wrapping(p processor) (ids []int) {
	switch p := p.(type) {
	case processors:
		for _, one := range p {
			ids = append(ids, wrapping(one)...)
		}
	case template:
		for _, piece := range p.pieces {
			ids = append(ids, piece.ids...)
		}
	case wrap:
		ids = slices.Concat(p.before.ids, p.after.ids)
	}
	return ids
}

// cutModel removes the tokens from limit on, and the merges that need them.
func cutModel(data []byte, limit int, removed []Token) ([]byte, error) {
	model, err := membersOf(data)
	if err != nil {
		return nil, err
	}
	gone := map[string]bool{}
	for _, one := range removed {
		gone[one.Text] = true
	}
	changed := map[string][]byte{}
	prefix := ""
	for _, m := range model.list {
		if m.key == "continuing_subword_prefix" {
			_ = json.Unmarshal(m.value, &prefix) // null: none
		}
	}
	for _, m := range model.list {
		if m.key != "vocab" && m.key != "merges" {
			continue
		}
		list, err := membersOf(m.value)
		if err != nil {
			return nil, err
		}
		switch {
		case m.key == "merges":
			list.keep(func(_ int, one member) bool {
				a, b, ok := mergeOf(one.value)
				right := b
				if len(b) >= len(prefix) {
					right = b[len(prefix):]
				}
				return !ok || !gone[a] && !gone[b] && !gone[a+right]
			})
		case list.array: // of Unigram: the place is the id
			list.keep(func(i int, _ member) bool { return i < limit })
		default:
			list.keep(func(_ int, one member) bool {
				var id int
				return json.Unmarshal(one.value, &id) != nil || id < limit
			})
		}
		changed[m.key] = list.with(nil)
	}
	return model.with(changed), nil
}

// mergeOf reads a merge in either form.
func mergeOf(raw []byte) (a, b string, ok bool) {
	var pair []string
	if json.Unmarshal(raw, &pair) == nil && len(pair) == 2 {
		return pair[0], pair[1], true
	}
	var line string
	if json.Unmarshal(raw, &line) != nil {
		return "", "", false
	}
	left, right, ok := bytes.Cut([]byte(line), []byte(" "))
	return string(left), string(right), ok
}

// renderAdded writes added_tokens as the library does, indented where the file is. The ids of new tokens are those that reading gives.
func renderAdded(tokens []Token, indented bool) []byte {
	type entry struct {
		ID         int    `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
		Special    bool   `json:"special"`
	}
	list := make([]entry, len(tokens))
	for i, one := range tokens {
		list[i] = entry{one.ID, one.Text, one.SingleWord, one.LStrip, one.RStrip, one.Normalized, one.Special}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if indented {
		enc.SetIndent("  ", "  ")
	}
	_ = enc.Encode(list) // numbers, texts and flags cannot fail
	return bytes.TrimSpace(b.Bytes())
}
