package surgeon

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/tensors"
)

// outputFiles are the files beside the weights: by content, and by the path they are copied from.
type outputFiles struct {
	content map[string][]byte
	copies  map[string]string
}

func (f *outputFiles) names() []string {
	return slices.Concat(slices.Sorted(maps.Keys(f.content)), slices.Sorted(maps.Keys(f.copies)))
}

func (f *outputFiles) write(w *tensors.Writer) error {
	for _, name := range slices.Sorted(maps.Keys(f.content)) {
		if err := w.WriteFile(name, f.content[name]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.copies)) {
		if err := checkpoint.CopyFile(w, name, f.copies[name]); err != nil {
			return err
		}
	}
	return nil
}

// generationName is what says how a model generates; it names tokens by their ids as config.json does.
const generationName = "generation_config.json"

// tokenKeys are the keys of both files that are ids of tokens.
var tokenKeys = []string{"bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "decoder_start_token_id",
	"forced_bos_token_id", "forced_eos_token_id"}

// files gathers what lies beside the model's weights, with the donor's tokenizer in the place of its own and ids of tokens as the donor has
// them.
func (t *transplant) files() (*outputFiles, error) {
	f := &outputFiles{content: map[string][]byte{}, copies: map[string]string{}}
	beside, err := adapter.SideFiles(t.model.dir)
	if err != nil {
		return nil, err
	}
	old := adapter.TokenizerFiles(t.model.dir)
	for name, path := range beside {
		if _, gone := old[name]; !gone && name != arch.ConfigName && name != generationName {
			f.copies[name] = path
		}
	}
	if !t.o.NoTokens {
		maps.Copy(f.copies, adapter.TokenizerFiles(t.donor.dir))
	}
	if f.content[arch.ConfigName], err = t.configuration(); err != nil {
		return nil, err
	}
	generation, err := t.generation()
	if err != nil {
		return nil, err
	}
	if generation != nil {
		f.content[generationName] = generation
	}
	for name, data := range t.o.Files {
		f.content[name] = data
		delete(f.copies, name)
	}
	return f, nil
}

// configuration is the model's config.json with the size of the vocabulary and the ids of the donor's special tokens.
func (t *transplant) configuration() ([]byte, error) {
	set := map[string]any{}
	c := t.model.config
	for _, key := range []string{t.model.arch.VocabKey, "vocab_size", "text_config.vocab_size"} {
		if _, ok := c.Get(key); ok && key != "" {
			set[key] = t.size
		}
	}
	if len(set) == 0 {
		set["vocab_size"] = t.size
	}
	for _, key := range tokenKeys {
		value, ok := t.donor.tokenID(key)
		for _, at := range []string{key, "text_config." + key} {
			switch _, has := c.Get(at); {
			case ok && (has || at == key):
				set[at] = value
			case has:
				set[at] = nil // an id of the old vocabulary means another token now
			}
		}
	}
	raw, err := checkpoint.PlainConfig(t.model.raw)
	if err != nil {
		return nil, err
	}
	return arch.PatchConfig(raw, set)
}

// tokenID is a configuration's id of a special token; ok is false where it does not say.
func (s *subject) tokenID(key string) (any, bool) {
	for _, at := range []string{key, "text_config." + key} {
		if v, ok := s.config.Get(at); ok {
			return v, true
		}
	}
	return nil, false
}

// generation is the model's generation_config.json with the ids of the donor's, nil where the model has none.
func (t *transplant) generation() ([]byte, error) {
	raw, err := readSmall(filepath.Join(t.model.dir, generationName))
	if raw == nil || err != nil {
		return nil, err
	}
	own, err := arch.ParseConfig(filepath.Join(t.model.dir, generationName), raw)
	if err != nil {
		return nil, err
	}
	donor := arch.Config{}
	theirs, err := readSmall(filepath.Join(t.donor.dir, generationName))
	if err != nil {
		return nil, err
	}
	if theirs != nil {
		if donor, err = arch.ParseConfig(filepath.Join(t.donor.dir, generationName), theirs); err != nil {
			return nil, err
		}
	}
	set := map[string]any{}
	for _, key := range append([]string{"suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids"}, tokenKeys...) {
		if _, has := own.Get(key); has {
			set[key] = arch.Removed
		}
	}
	for _, key := range tokenKeys {
		if v, ok := donor.Get(key); ok {
			set[key] = v
		} else if v, ok := t.donor.tokenID(key); ok && v != nil {
			set[key] = v
		}
	}
	return arch.PatchConfig(raw, set)
}

// readSmall reads a file that says something about a model; nil where there is none.
func readSmall(path string) ([]byte, error) {
	const most = 16 << 20
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() {
		return nil, nil
	}
	if st.Size() > most {
		return nil, &Error{File: path, Msg: "is too large for a configuration", Hint: "check the file"}
	}
	b, err := os.ReadFile(path)
	if err == nil && !json.Valid(b) {
		return nil, &Error{File: path, Msg: "is no JSON", Hint: "repair it, or take it out of the directory"}
	}
	return b, err
}
