package merge

import (
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/repair"
	"github.com/mergekit/mergekit/tensors"
)

// tokenizerFiles are the files beside the weights that a model needs to read text and to generate.
var tokenizerFiles = []string{
	"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"merges.txt", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
	"chat_template.jinja", "chat_template.json", "generation_config.json", "video_preprocessor_config.json",
}

// sideFiles writes what a model needs beside the weights.
func sideFiles(p *plan.Plan, w *tensors.Writer, o Options) error {
	for _, name := range slices.Sorted(maps.Keys(o.extra)) {
		if err := w.WriteFile(name, o.extra[name]); err != nil {
			return err
		}
	}
	config, err := p.PatchedConfig()
	if err != nil {
		return err
	}
	if config != nil {
		if err := w.WriteFile("config.json", config); err != nil {
			return err
		}
	}
	if st, err := os.Stat(p.Donor.Dir); err == nil && st.IsDir() {
		names := append([]string{}, p.Arch.TagAlong...)
		if o.CopyTokenizer {
			names = append(names, tokenizerFiles...)
		}
		if _, remote := p.Donor.Config["auto_map"]; remote { // the configuration names Python files that loaders import
			py, _ := filepath.Glob(filepath.Join(p.Donor.Dir, "*.py"))
			for _, f := range py {
				names = append(names, filepath.Base(f))
			}
		}
		return copyBeside(w, p.Donor, names)
	}
	return nil
}

// copyBeside copies files that stand beside a model's weights, or those of its adapter in their place where it brings its own.
func copyBeside(w *tensors.Writer, m *plan.Model, names []string) error {
	seen := map[string]bool{}
	for _, name := range names {
		from := filepath.Join(m.Dir, name)
		if m.AdapterDir != "" && adapter.Tokenizer(m.AdapterDir, name) {
			from = filepath.Join(m.AdapterDir, name)
		}
		if st, err := os.Stat(from); seen[name] || err != nil || !st.Mode().IsRegular() {
			continue
		}
		seen[name] = true
		if err := w.CopyFile(name, from); err != nil {
			return err
		}
	}
	return nil
}

// cardFiles writes what tells people about the output, if that is wanted.
func cardFiles(p *plan.Plan, maps *aligned, report *repair.Report, measured *Evaluated, w *tensors.Writer, out string, o Options) error {
	if !o.ModelCard {
		return nil
	}
	if err := w.WriteFile("mergekit_config.yml", p.Recipe.Text); err != nil {
		return err
	}
	card, err := modelCard(p, maps, report, measured, o.searched, out, o.Version)
	if err != nil {
		return err
	}
	return w.WriteFile("README.md", card)
}
