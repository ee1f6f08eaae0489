package merge

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// What a model needs to read and write text. Without tokenizer and chat_template in the recipe, the files of the donor are copied as they
// are. With them, what is written is one whole: the vocabulary, the names of its tokens, the template, and ids in the configurations.

const (
	tokenizerFile  = "tokenizer.json"
	tokenizerSetup = "tokenizer_config.json"
	specialNames   = "special_tokens_map.json"
	addedNames     = "added_tokens.json"
	templateFile   = "chat_template.jinja"
	oldTemplate    = "chat_template.json"
	generationFile = "generation_config.json"
	videoFile      = "video_preprocessor_config.json"
)

// slowFiles are vocabularies in the forms of other readers than transformers' fast tokenizers. They fit as long as no id of theirs is
// gone; new tokens stand in added_tokens.json.
var slowFiles = []string{"tokenizer.model", "merges.txt", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"}

// sideFile is a file of the output: made here, or copied.
type sideFile struct {
	name string
	from string // "": data
	data []byte
}

// rewritesText says whether the recipe asks for other text files than the donor's.
func rewritesText(p *plan.Plan) bool { return p.Vocabulary != nil || p.Template != "" }

// textFiles lists the files with which the output reads and writes text. notes tell what has changed in them.
func textFiles(p *plan.Plan, o Options) (files []sideFile, notes []string, err error) {
	switch {
	case !rewritesText(p) && o.CopyTokenizer:
		return besideFiles(p.Donor, tokenizerFiles...), nil, nil
	case !rewritesText(p):
		return nil, nil, nil
	case p.Vocabulary == nil && !o.CopyTokenizer:
		return nil, []string{"chat_template has no effect, because the tokenizer is not copied"}, nil
	case p.Vocabulary != nil: // what the recipe says about the tokenizer holds, whether or not files are copied
		files, err = builtTokenizer(p)
	default:
		files, err = otherTemplate(p)
	}
	if err != nil {
		return nil, nil, err
	}
	generation, notes, err := generationConfig(p)
	return slices.Concat(files, generation, besideFiles(p.Donor, videoFile)), notes, err
}

// besideFiles are those of some files that a model has beside its weights; an adapter may bring its own.
func besideFiles(m *plan.Model, names ...string) (files []sideFile) {
	seen := map[string]bool{}
	for _, name := range names {
		from := filepath.Join(m.Dir, name)
		if m.AdapterDir != "" && adapter.Tokenizer(m.AdapterDir, name) {
			from = filepath.Join(m.AdapterDir, name)
		}
		if st, err := os.Stat(from); err == nil && st.Mode().IsRegular() && !seen[name] {
			seen[name] = true
			files = append(files, sideFile{name: name, from: from})
		}
	}
	return files
}

// otherTemplate is the donor's tokenizer with the recipe's template.
func otherTemplate(p *plan.Plan) ([]sideFile, error) {
	files := besideFiles(p.Donor, slices.Concat([]string{tokenizerFile, tokenizerSetup, specialNames, addedNames}, slowFiles)...)
	same := &tokenizer.Edited{}
	for i := range files {
		if files[i].name != tokenizerSetup {
			continue
		}
		if err := edit(&files[i], func(data []byte) ([]byte, error) { return same.Config(data, "chat_template") }); err != nil {
			return nil, err
		}
	}
	return append(files, sideFile{name: templateFile, data: []byte(p.Template)}), nil
}

// edit turns a copied file into a changed one.
func edit(f *sideFile, change func(data []byte) ([]byte, error)) error {
	data, err := os.ReadFile(f.from)
	if err == nil {
		data, err = change(data)
	}
	if err != nil {
		return &InputError{fmt.Errorf("%s: %w", f.from, err)}
	}
	f.from, f.data = "", data
	return nil
}

// builtTokenizer is the tokenizer that the recipe asks for.
func builtTokenizer(p *plan.Plan) ([]sideFile, error) {
	v := p.Vocabulary
	e := v.Tokenizer
	files := []sideFile{{name: tokenizerFile, data: e.JSON}}
	has := func(name string) (sideFile, bool) {
		f := sideFile{name: name, from: filepath.Join(v.Dir, name)}
		st, err := os.Stat(f.from)
		return f, err == nil && st.Mode().IsRegular()
	}
	for _, name := range []string{tokenizerSetup, specialNames} {
		f, ok := has(name)
		if !ok {
			continue
		}
		var drop []string
		if p.Template != "" {
			drop = []string{"chat_template"}
		}
		if !v.Same || drop != nil {
			if err := edit(&f, func(data []byte) ([]byte, error) { return e.Config(data, drop...) }); err != nil {
				return nil, err
			}
		}
		files = append(files, f)
	}
	slow := false
	for _, name := range slowFiles {
		if f, ok := has(name); ok && len(e.Removed) == 0 {
			files, slow = append(files, f), true
		}
	}
	switch f, ok := has(addedNames); {
	case ok && v.Same:
		files = append(files, f)
	case ok:
		if err := edit(&f, e.AddedMap); err != nil {
			return nil, err
		}
		files = append(files, f)
	case slow && len(e.New) > 0:
		data, err := e.AddedMap(nil)
		if err != nil {
			return nil, err
		}
		files = append(files, sideFile{name: addedNames, data: data})
	}
	if p.Template != "" {
		return append(files, sideFile{name: templateFile, data: []byte(p.Template)}), nil
	}
	for _, name := range []string{templateFile, oldTemplate} {
		if f, ok := has(name); ok {
			files = append(files, f)
		}
	}
	return files, nil
}

// generationConfig is the donor's, with the ids of the output's tokens.
func generationConfig(p *plan.Plan) (files []sideFile, notes []string, err error) {
	files = besideFiles(p.Donor, generationFile)
	if len(files) == 0 || p.Vocabulary == nil {
		return files, nil, nil
	}
	f := &files[0]
	return files, notes, edit(f, func(data []byte) ([]byte, error) {
		config, err := arch.ParseConfig(f.name, data)
		if err != nil {
			return nil, err
		}
		changes, lost := p.TokenIDs(config)
		for _, key := range lost {
			notes = append(notes, fmt.Sprintf("%s: %s is of a token that the output does not have; set it to one that it has", generationFile, key))
		}
		if len(changes) == 0 {
			return data, nil
		}
		return arch.PatchConfig(data, changes)
	})
}

// textDir is a directory with the tokenizer and the template of the output: the donor's, or a temporary one that goes with the plan.
func textDir(p *plan.Plan) (string, error) {
	if !rewritesText(p) {
		return p.Donor.TokenizerDir(), nil
	}
	if p.TextDir != "" {
		return p.TextDir, nil
	}
	files, _, err := textFiles(p, Options{CopyTokenizer: true})
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "mergekit-text-")
	if err != nil {
		return "", err
	}
	p.TextDir = dir // from here on Close removes it
	for _, f := range files {
		data := f.data
		if f.from != "" {
			if data, err = os.ReadFile(f.from); errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return "", err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, f.name), data, 0o666); err != nil {
			return "", err
		}
	}
	return dir, nil
}
