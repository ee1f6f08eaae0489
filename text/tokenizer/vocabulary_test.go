package tokenizer

import "testing"

// TestVocabulary: the list has every token once, in the order of the ids, as ID and Token know them.
func TestVocabulary(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			tok := open(t, kind)
			list := tok.Vocabulary()
			last, seen := -1, 0
			for _, one := range list {
				if one.ID <= last {
					t.Fatalf("id %d comes after %d", one.ID, last)
				}
				last = one.ID
				if text, ok := tok.Token(one.ID); !ok || text != one.Text {
					t.Errorf("id %d is %q, the list has %q", one.ID, text, one.Text)
				}
				if _, added := tok.added.tokens[one.ID]; added != one.Added || one.Special != tok.Special(one.ID) {
					t.Errorf("%q: flags %+v", one.Text, one)
				}
				if one.Added {
					seen++
				}
			}
			if last != tok.Size()-1 || seen != len(tok.added.tokens) || seen == 0 {
				t.Errorf("the last id is %d of %d, %d added tokens of %d", last, tok.Size(), seen, len(tok.added.tokens))
			}
		})
	}
}
