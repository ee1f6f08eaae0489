package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// named is a token that the configuration names for a purpose.
type named struct {
	token string
	id    int
	ok    bool
}

// other forms of tokenizers, which this program does not read.
var otherForms = []string{"tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "vocab.json", "merges.txt", "tekken.json"}

// Present says whether a directory has a tokenizer in any form, also in one that this program does not read.
func Present(dir string) bool {
	for _, name := range append([]string{"tokenizer.json"}, otherForms...) {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// Open reads dir/tokenizer.json and, where they exist, tokenizer_config.json and special_tokens_map.json, which name the tokens for
// the beginning and the end of a text, for padding and for unknown text. Tokens that those files mark as special and tokenizer.json
// does not mark so are special too, as they are for transformers.
func Open(dir string) (*Tokenizer, error) {
	path := filepath.Join(dir, "tokenizer.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		var found []string
		for _, name := range otherForms {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				found = append(found, name)
			}
		}
		what := "no tokenizer: looked for tokenizer.json"
		if len(found) > 0 {
			what += "; there is " + strings.Join(found, ", ") + ", which transformers' AutoTokenizer can save as tokenizer.json"
		} else if _, err := os.Stat(dir); err != nil {
			what = "no such directory; looked there for tokenizer.json"
		} else {
			what += ", and for " + strings.Join(otherForms, ", ")
		}
		return nil, &Error{Path: dir, What: what}
	}
	if err != nil {
		return nil, err
	}
	t, err := Parse(data)
	if err != nil {
		return nil, in(path, err)
	}
	config, err := readJSON(filepath.Join(dir, "tokenizer_config.json"))
	if err != nil {
		return nil, err
	}
	special, err := readJSON(filepath.Join(dir, "special_tokens_map.json"))
	if err != nil {
		return nil, err
	}
	t.config = config
	return t, t.configure(config, special)
}

func in(path string, err error) error {
	var e *Error
	if errors.As(err, &e) && e.Path == "" {
		e.Path = path
	}
	return err
}

func readJSON(path string) (map[string]any, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, &Error{Path: path, Err: err}
	}
	return m, nil
}

// configure takes the names of tokens from the configuration, or from the map of special tokens.
func (t *Tokenizer) configure(config, special map[string]any) error {
	var more []addedToken
	declared, _ := config["added_tokens_decoder"].(map[string]any)
	ids := slices.SortedFunc(maps.Keys(declared), func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	})
	next := t.added.next
	for _, key := range ids {
		tok, ok := describedToken(declared[key])
		if _, has := t.added.ids[tok.content]; !ok || has {
			continue
		}
		id, known := t.model.id(tok.content)
		if !known {
			id = next
		}
		if strconv.Itoa(id) != key {
			return &Error{At: "added_tokens_decoder", What: fmt.Sprintf("tokenizer_config.json gives %q the id %s, tokenizer.json would give it %d", tok.content, key, id)}
		}
		if !known {
			next++
		}
		more = append(more, tok)
	}
	for _, n := range []struct {
		key string
		to  *named
	}{{"bos_token", &t.bos}, {"eos_token", &t.eos}, {"pad_token", &t.pad}, {"unk_token", &t.unknown}, {"sep_token", nil}, {"cls_token", nil}, {"mask_token", nil}} {
		v, ok := config[n.key]
		if !ok {
			v = special[n.key]
		}
		tok, ok := describedToken(v)
		if !ok {
			continue
		}
		if n.to != nil {
			n.to.token = tok.content
		}
		// A name that no vocabulary has stays a name: the model has no embedding for it.
		_, known := t.model.id(tok.content)
		if _, has := t.added.ids[tok.content]; known && !has && !slices.ContainsFunc(more, func(m addedToken) bool { return m.content == tok.content }) {
			tok.special = true
			more = append(more, tok)
		}
	}
	if len(more) > 0 {
		if err := t.add(more); err != nil {
			return err
		}
	}
	for _, n := range []*named{&t.bos, &t.eos, &t.pad, &t.unknown} {
		if n.token != "" {
			n.id, n.ok = t.ID(n.token)
		}
	}
	return nil
}

// describedToken reads a token that is a string or an object with its content.
func describedToken(v any) (addedToken, bool) {
	switch v := v.(type) {
	case string:
		return addedToken{content: v}, v != ""
	case map[string]any:
		is := func(key string) bool { b, _ := v[key].(bool); return b }
		s, _ := v["content"].(string)
		return addedToken{content: s, singleWord: is("single_word"), lstrip: is("lstrip"), rstrip: is("rstrip"), normalized: is("normalized"), special: is("special")}, s != ""
	}
	return addedToken{}, false
}

// BOS returns the token that begins a text and its id. The id is false if no file names such a token or the vocabulary lacks it.
func (t *Tokenizer) BOS() (string, int, bool) { return t.bos.token, t.bos.id, t.bos.ok }

// EOS returns the token that ends a text, as BOS does.
func (t *Tokenizer) EOS() (string, int, bool) { return t.eos.token, t.eos.id, t.eos.ok }

// PAD returns the token that fills up batches, as BOS does.
func (t *Tokenizer) PAD() (string, int, bool) { return t.pad.token, t.pad.id, t.pad.ok }

// UNK returns the token for what the vocabulary cannot spell, as BOS does.
func (t *Tokenizer) UNK() (string, int, bool) { return t.unknown.token, t.unknown.id, t.unknown.ok }

// Config is the parsed tokenizer_config.json, or nil.
func (t *Tokenizer) Config() map[string]any { return t.config }
