package llamacpp

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// The kinds of tokens in tokenizer.ggml.token_type.
const (
	normalToken  = 1
	controlToken = 3
	userToken    = 4
)

// What no real vocabulary comes near: merges are looked for at every character of every token, and a warning is kept for each token that is
// there twice.
const (
	maxToken = 1024
	maxTold  = 10
)

// object is JSON in the making.
type object = map[string]any

// vocabulary is what a GGUF file says about text.
type vocabulary struct {
	m      *Model
	tokens []string
	kinds  []int64 // empty if the file does not say
	ids    map[string]int
}

// writeTokenizer makes the files of the fast tokenizer. A file without one, or with one of a kind that is not understood,
// gives weights alone and a warning.
func (m *Model) writeTokenizer(files map[string][]byte) error {
	v := &vocabulary{m: m, ids: map[string]int{}}
	var ok bool
	if v.tokens, ok = m.f.Texts("tokenizer.ggml.tokens"); !ok || len(v.tokens) == 0 {
		m.warn("the file has no vocabulary; no tokenizer is written")
		return nil
	}
	if int64(len(v.tokens)) > m.vocab {
		return m.bad("the vocabulary has %d tokens, token_embd.weight has %d rows", len(v.tokens), m.vocab)
	}
	if v.kinds, ok = m.f.Ints("tokenizer.ggml.token_type"); ok && len(v.kinds) != len(v.tokens) {
		return m.bad("the vocabulary has %d tokens but %d kinds", len(v.tokens), len(v.kinds))
	}
	twice := 0
	for i, t := range v.tokens {
		if len(t) > maxToken {
			return m.bad("token %d of the vocabulary has %d bytes; %d are possible", i, len(t), maxToken)
		}
		if !utf8.ValidString(t) {
			return m.bad("token %d of the vocabulary is not UTF-8", i)
		}
		if first, there := v.ids[t]; there {
			if twice++; twice <= maxTold {
				m.warn("the vocabulary has %q twice, as %d and %d; the tokenizer knows the first", t, first, i)
			}
			continue
		}
		v.ids[t] = i
	}
	if twice > maxTold {
		m.warn("the vocabulary has %d more tokens twice", twice-maxTold)
	}
	var tokenizer object
	var err error
	addBOS := false
	switch kind, _ := m.f.Text("tokenizer.ggml.model"); kind {
	case "gpt2":
		tokenizer, addBOS, err = v.byteLevel()
	case "llama":
		addBOS = true
		tokenizer, err = v.sentencePiece()
	default:
		m.warn("the tokenizer is of the kind %.60q; gpt2 and llama can be converted, no tokenizer is written", kind)
		return nil
	}
	if err != nil {
		return err
	}
	if b, ok := m.f.Bool("tokenizer.ggml.add_bos_token"); ok {
		addBOS = b
	}
	addEOS, _ := m.f.Bool("tokenizer.ggml.add_eos_token")
	return v.write(files, tokenizer, addBOS, addEOS)
}

// kind is the kind of a token, normal where the file does not say.
func (v *vocabulary) kind(i int) int64 {
	if len(v.kinds) == 0 {
		return normalToken
	}
	return v.kinds[i]
}

// special is a token by its role.
func (v *vocabulary) special(which string) (text string, id int64, ok bool) {
	id, ok = v.m.specialID(which)
	if !ok || id >= int64(len(v.tokens)) {
		return "", 0, false
	}
	return v.tokens[id], id, true
}

// write completes tokenizer.json with what all kinds share, and makes the files around it.
func (v *vocabulary) write(files map[string][]byte, tokenizer object, addBOS, addEOS bool) error {
	tokenizer["version"], tokenizer["truncation"], tokenizer["padding"] = "1.0", nil, nil
	tokenizer["added_tokens"] = v.added()
	tokenizer["post_processor"] = v.template(addBOS, addEOS)
	names := object{}
	for _, which := range []string{"bos", "eos", "unk", "pad"} {
		if text, _, ok := v.special(which); ok {
			names[which+"_token"] = text
		}
	}
	config := object{
		"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
		"model_input_names": []string{"input_ids", "attention_mask"}, "add_bos_token": addBOS, "add_eos_token": addEOS,
	}
	if n, ok := v.m.f.Int(v.m.arch + ".context_length"); ok {
		config["model_max_length"] = n
	}
	for key, text := range names {
		config[key] = text
	}
	if text, ok := v.m.f.Text("tokenizer.chat_template"); ok {
		config["chat_template"] = text
	}
	for name, value := range map[string]any{"tokenizer.json": tokenizer, "tokenizer_config.json": config, "special_tokens_map.json": names} {
		data, err := renderJSON(value)
		if err != nil {
			return err
		}
		files[name] = data
	}
	return nil
}

// added lists the tokens that are found in a text before it is cut: control tokens, those with a role, and users' own.
func (v *vocabulary) added() []object {
	roles := map[int64]bool{}
	for _, which := range []string{"bos", "eos", "unk", "pad"} {
		if _, id, ok := v.special(which); ok {
			roles[id] = true
		}
	}
	list := []object{}
	for i, t := range v.tokens {
		special := v.kind(i) == controlToken || roles[int64(i)]
		if t == "" || v.ids[t] != i || !special && v.kind(i) != userToken {
			continue
		}
		list = append(list, object{"id": i, "content": t, "special": special, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
	}
	return list
}

// template puts BOS before and EOS behind each text.
func (v *vocabulary) template(addBOS, addEOS bool) any {
	var before, after []string
	tokens := object{}
	add := func(want bool, which string, to *[]string) {
		if text, id, ok := v.special(which); want && ok {
			*to = append(*to, text)
			tokens[text] = object{"id": text, "ids": []int64{id}, "tokens": []string{text}}
		}
	}
	add(addBOS, "bos", &before)
	add(addEOS, "eos", &after)
	if len(tokens) == 0 {
		return nil
	}
	sequence := func(name string, kind int) []object {
		var list []object
		for _, t := range before {
			list = append(list, object{"SpecialToken": object{"id": t, "type_id": kind}})
		}
		list = append(list, object{"Sequence": object{"id": name, "type_id": kind}})
		for _, t := range after {
			list = append(list, object{"SpecialToken": object{"id": t, "type_id": kind}})
		}
		return list
	}
	single := sequence("A", 0)
	return object{"type": "TemplateProcessing", "single": single, "pair": append(slices.Clone(single), sequence("B", 1)...), "special_tokens": tokens}
}

// orderedVocab renders token: id in the order of the ids, as tokenizer.json has it.
type orderedVocab struct{ v *vocabulary }

// MarshalJSON implements json.Marshaler.
func (o orderedVocab) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, t := range o.v.tokens {
		if o.v.ids[t] != i {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		key, err := json.Marshal(t)
		if err != nil {
			return nil, err
		}
		b = append(append(b, key...), ':')
		id, err := json.Marshal(i)
		if err != nil {
			return nil, err
		}
		b = append(b, id...)
	}
	return append(b, '}'), nil
}

// fileMerges reads the merges that the file lists, pairs with a space between.
func (v *vocabulary) fileMerges() ([][2]string, bool, error) {
	lines, ok := v.m.f.Texts("tokenizer.ggml.merges")
	if !ok {
		return nil, false, nil
	}
	merges := make([][2]string, 0, len(lines))
	for i, line := range lines {
		left, right, ok := strings.Cut(line, " ")
		if !ok {
			return nil, false, v.m.bad("merge %d of the tokenizer, %.60q, is not of two tokens", i, line)
		}
		_, known := v.ids[left+right]
		_, knownLeft := v.ids[left]
		_, knownRight := v.ids[right]
		if known && knownLeft && knownRight {
			merges = append(merges, [2]string{left, right})
		}
	}
	// Readers of tokenizer.json refuse a merge of unknown tokens; nothing is lost, for it can never take part.
	if n := len(lines) - len(merges); n > 0 {
		v.m.warn("%d merges of the tokenizer are of tokens that the vocabulary does not have; they are left out", n)
	}
	return merges, true, nil
}

// byteLevel is the tokenizer of GPT-2's kind: each byte is a character, merges join them. addBOS is what holds when the file
// does not say.
func (v *vocabulary) byteLevel() (tokenizer object, addBOS bool, err error) {
	merges, ok, err := v.fileMerges()
	if err != nil {
		return nil, false, err
	}
	if !ok {
		return nil, false, v.m.bad("the setting tokenizer.ggml.merges is missing")
	}
	pre, _ := v.m.f.Text("tokenizer.ggml.pre")
	s, known := splits[pre]
	if !known {
		v.m.warn("how the tokenizer splits text (tokenizer.ggml.pre is %.60q) is not known; it is written with GPT-2's way and may cut some texts differently", pre)
	}
	bytes := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": s.regex == ""}
	var splitter any = bytes
	switch {
	case s.digits:
		splitter = sequenceOf("pretokenizers", object{"type": "Digits", "individual_digits": true}, bytes)
	case s.regex != "":
		splitter = sequenceOf("pretokenizers", object{"type": "Split", "pattern": object{"Regex": s.regex}, "behavior": "Isolated", "invert": false}, bytes)
	}
	var normalizer any
	if s.nfc {
		normalizer = object{"type": "NFC"}
	}
	return object{
		"normalizer": normalizer, "pre_tokenizer": splitter,
		"decoder": object{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model":   v.bpe(merges, object{"ignore_merges": s.whole}),
	}, s.addsBOS, nil
}

// sequenceOf chains parts of a tokenizer; name is what the list is called.
func sequenceOf(name string, parts ...object) object {
	return object{"type": "Sequence", name: parts}
}

// bpe is the model part of tokenizer.json.
func (v *vocabulary) bpe(merges [][2]string, more object) object {
	model := object{
		"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
		"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": orderedVocab{v}, "merges": merges,
	}
	for key, value := range more {
		model[key] = value
	}
	return model
}

// sentencePiece is the tokenizer of Llama 1 and 2: spaces are visible characters, unknown characters fall back to bytes.
func (v *vocabulary) sentencePiece() (object, error) {
	merges, ok, err := v.fileMerges()
	if err != nil {
		return nil, err
	}
	if !ok {
		scores, ok := v.m.f.Floats("tokenizer.ggml.scores")
		if !ok || len(scores) != len(v.tokens) {
			return nil, v.m.bad("the setting tokenizer.ggml.scores is missing or not one number for each of %d tokens", len(v.tokens))
		}
		merges = v.mergesByScore(scores)
	}
	const space = "▁"
	normal := []object{{"type": "Replace", "pattern": object{"String": " "}, "content": space}}
	decode := []object{
		{"type": "Replace", "pattern": object{"String": space}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
	}
	// A text, and what follows a special token, begins as if a space were before it. llama.cpp does that too.
	if prefix, ok := v.m.f.Bool("tokenizer.ggml.add_space_prefix"); prefix || !ok {
		normal = slices.Insert(normal, 0, object{"type": "Prepend", "prepend": space})
		decode = append(decode, object{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	more := object{"byte_fallback": true, "fuse_unk": true}
	if text, _, ok := v.special("unk"); ok {
		more["unk_token"] = text
	}
	return object{
		"normalizer": sequenceOf("normalizers", normal...), "pre_tokenizer": nil,
		"decoder": sequenceOf("decoders", decode...), "model": v.bpe(merges, more),
	}, nil
}

// mergesByScore finds the merges that a SentencePiece vocabulary implies: every way to make a token out of two others, the
// best score first. Tokens that are no text (control, bytes) take no part: a text must not grow into them.
func (v *vocabulary) mergesByScore(scores []float64) [][2]string {
	type merge struct {
		pair   [2]string
		left   int // id
		right  int
		lenL   int // in characters
		lenR   int
		target int // id
	}
	var all []merge
	for i, t := range v.tokens {
		if v.kind(i) != normalToken || v.ids[t] != i {
			continue
		}
		n, total := 0, utf8.RuneCountInString(t)
		for at := range t {
			if at > 0 {
				n++
				l, okL := v.ids[t[:at]]
				r, okR := v.ids[t[at:]]
				if okL && okR && v.kind(l) == normalToken && v.kind(r) == normalToken {
					all = append(all, merge{[2]string{t[:at], t[at:]}, l, r, n, total - n, i})
				}
			}
		}
	}
	// The order is transformers': by score, then longer parts first, then by id.
	slices.SortFunc(all, func(a, b merge) int {
		return cmp.Or(cmp.Compare(scores[b.target], scores[a.target]), cmp.Compare(b.lenL, a.lenL), cmp.Compare(b.lenR, a.lenR),
			cmp.Compare(a.target, b.target), cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right))
	})
	merges := make([][2]string, len(all))
	for i, m := range all {
		merges[i] = m.pair
	}
	return merges
}
