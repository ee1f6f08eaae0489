// Package tokenizer turns text into token ids and back, exactly as Hugging Face's tokenizers library does, from the
// tokenizer.json that checkpoints carry.
package tokenizer

// Span is a half-open range of byte offsets in the original text.
type Span struct{ Start, End int }

// Tokenizer is one parsed tokenizer.json. It is safe for concurrent use.
type Tokenizer struct{}

// Open reads dir/tokenizer.json and, where they exist, tokenizer_config.json and special_tokens_map.json.
func Open(dir string) (*Tokenizer, error) { return nil, &Error{What: "not built yet"} }

// Parse reads a tokenizer.json.
func Parse(tokenizerJSON []byte) (*Tokenizer, error) { return nil, &Error{What: "not built yet"} }

// Error is a tokenizer that cannot be read: bad input, not a failure of the program.
type Error struct {
	Path string // the file, or ""
	At   string // where in the file, as "pre_tokenizer.pretokenizers[1]", or ""
	What string
}

// Error says where and what.
func (e *Error) Error() string {
	s := e.What
	if e.At != "" {
		s = e.At + ": " + s
	}
	if e.Path != "" {
		s = e.Path + ": " + s
	}
	return s
}

// Encode returns the ids of text. Special tokens inside the text are parsed.
func (t *Tokenizer) Encode(text string, addSpecial bool) []int { return nil }

// EncodeErr is Encode, with the error of a pattern that ran out of time.
func (t *Tokenizer) EncodeErr(text string, addSpecial bool) ([]int, error) { return nil, nil }

// EncodeSpans returns the ids of text and, for each, the bytes of text that it stands for.
func (t *Tokenizer) EncodeSpans(text string, addSpecial bool) ([]int, []Span) { return nil, nil }

// Decode returns the text of ids.
func (t *Tokenizer) Decode(ids []int, skipSpecial bool) string { return "" }

// Size is the largest id plus one, added tokens included.
func (t *Tokenizer) Size() int { return 0 }

// ID returns the id of a token.
func (t *Tokenizer) ID(token string) (int, bool) { return 0, false }

// Token returns the token of an id.
func (t *Tokenizer) Token(id int) (string, bool) { return "", false }

// Special says whether id is a special token.
func (t *Tokenizer) Special(id int) bool { return false }

// BOS returns the token that begins a sequence and its id.
func (t *Tokenizer) BOS() (string, int, bool) { return "", 0, false }

// EOS returns the token that ends a sequence and its id.
func (t *Tokenizer) EOS() (string, int, bool) { return "", 0, false }

// PAD returns the padding token and its id.
func (t *Tokenizer) PAD() (string, int, bool) { return "", 0, false }

// UNK returns the token that stands for what the vocabulary lacks, and its id.
func (t *Tokenizer) UNK() (string, int, bool) { return "", 0, false }

// Config is the parsed tokenizer_config.json, or nil.
func (t *Tokenizer) Config() map[string]any { return nil }

// Stream begins an incremental decoding.
func (t *Tokenizer) Stream() *Stream { return &Stream{} }

// Stream decodes ids one by one.
type Stream struct{}

// Next returns the text that id completes, or "".
func (s *Stream) Next(id int) string { return "" }

// Flush returns what is left.
func (s *Stream) Flush() string { return "" }
