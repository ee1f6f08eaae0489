package adapter

import (
	"os"
	"path/filepath"
	"slices"
)

// vocabularyFiles are those of a tokenizer that belong together; templateFiles may be changed on their own.
var (
	vocabularyFiles = []string{
		"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
		"merges.txt", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
	}
	templateFiles = []string{"chat_template.jinja", "chat_template.json"}
)

// Tokenizer says whether a file of a tokenizer is to be taken from beside the adapter rather than from its base: adapters
// that add tokens or change the chat template bring theirs along. A tokenizer is taken whole or not at all, so that no file
// of the base's contradicts it.
func Tokenizer(dir, name string) bool {
	if slices.Contains(templateFiles, name) {
		return isFile(filepath.Join(dir, name))
	}
	if !slices.Contains(vocabularyFiles, name) {
		return false
	}
	for _, own := range []string{"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"} {
		if isFile(filepath.Join(dir, own)) {
			return true
		}
	}
	return false
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// TokenizerFiles lists the files of a model's tokenizer and chat template, by name, for SaveOptions.Copies.
func TokenizerFiles(dir string) map[string]string {
	out := map[string]string{}
	for _, name := range slices.Concat(vocabularyFiles, templateFiles) {
		if path := filepath.Join(dir, name); isFile(path) {
			out[name] = path
		}
	}
	return out
}
