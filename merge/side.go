package merge

import (
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/repair"
	"github.com/mergekit/mergekit/tensors"
)

// tokenizerFiles are the files beside the weights that a model needs to read text and to generate.
var tokenizerFiles = slices.Concat(vocabularyFiles, []string{generationFile, videoFile})

// vocabularyFiles are those of them that a tokenizer is.
var vocabularyFiles = slices.Concat([]string{tokenizerFile, tokenizerSetup, specialNames, addedNames}, slowFiles, []string{templateFile, oldTemplate})

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
	text, notes, err := textFiles(p, o)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, f := range text {
		seen[f.name] = true
		if f.from == "" {
			err = w.WriteFile(f.name, f.data)
		} else {
			err = w.CopyFile(f.name, f.from)
		}
		if err != nil {
			return err
		}
	}
	if o.Warn != nil {
		for _, note := range notes {
			o.Warn(note)
		}
	}
	return tagAlong(p, w, func(name string) bool { return seen[name] || p.Vocabulary != nil && slices.Contains(slowFiles, name) })
}

// tagAlong copies the donor's other files that its architecture or its configuration names.
func tagAlong(p *plan.Plan, w *tensors.Writer, written func(name string) bool) error {
	if st, err := os.Stat(p.Donor.Dir); err != nil || !st.IsDir() {
		return nil
	}
	names := slices.Clone(p.Arch.TagAlong)
	if _, remote := p.Donor.Config["auto_map"]; remote { // the configuration names Python files that loaders import
		py, _ := filepath.Glob(filepath.Join(p.Donor.Dir, "*.py"))
		for _, f := range py {
			names = append(names, filepath.Base(f))
		}
	}
	names = slices.DeleteFunc(names, written)
	return copyBeside(w, p.Donor, names)
}

// copyBeside copies files that stand beside a model's weights, or those of its adapter in their place where it brings its own.
func copyBeside(w *tensors.Writer, m *plan.Model, names []string) error {
	for _, f := range besideFiles(m, names...) {
		if err := w.CopyFile(f.name, f.from); err != nil {
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
	card, err := modelCard(p, o.stages.origins(p), maps, report, measured, o.searched, out, o.Version)
	if err != nil {
		return err
	}
	return w.WriteFile("README.md", card)
}
