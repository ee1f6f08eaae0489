package adapter

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/tensors"
)

// sideFiles are the files beside the weights: by content, and by the path they are copied from.
type sideFiles struct {
	content map[string][]byte
	copies  map[string]string
}

func (s *sideFiles) names() []string {
	names := slices.Collect(maps.Keys(s.content))
	for n := range s.copies {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (s *sideFiles) write(w *tensors.Writer) error {
	for _, name := range slices.Sorted(maps.Keys(s.content)) {
		if err := w.WriteFile(name, s.content[name]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.copies)) {
		if err := checkpoint.CopyFile(w, name, s.copies[name]); err != nil {
			return err
		}
	}
	return nil
}

// sideKinds are the ends of the names of files that belong to a model beside its weights.
var sideKinds = []string{".json", ".jinja", ".txt", ".model", ".py", ".tiktoken", ".vocab"}

// SideFile tells whether a file beside the weights goes with the model when those are written anew, by its name. A folder that still held an adapter's files would be
// loaded as that adapter.
func SideFile(name string) bool {
	switch {
	case strings.HasPrefix(name, "."), strings.HasPrefix(name, "adapter_"), strings.HasSuffix(name, ".index.json"),
		name == arch.ConfigName, name == "trainer_state.json":
		return false
	case name == "LICENSE", name == "NOTICE", name == "USE_POLICY":
		return true
	}
	return slices.Contains(sideKinds, strings.ToLower(filepath.Ext(name)))
}

// SideFiles lists the files that go with a checkpoint when its weights are written anew, config.json among them: paths by name. A checkpoint
// that is one file has none.
func SideFiles(dir string) (map[string]string, error) {
	out := map[string]string{}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return out, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list %s: %w", dir, err)
	}
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); (SideFile(e.Name()) || e.Name() == arch.ConfigName) && isFile(path) {
			out[e.Name()] = path
		}
	}
	return out, nil
}

// findFiles lists the files to copy and writes the new configuration and card.
func (f *fusion) findFiles() error {
	f.files = sideFiles{map[string][]byte{}, map[string]string{}}
	entries, err := os.ReadDir(f.baseDir)
	if err != nil {
		return fmt.Errorf("cannot list the base: %w", err)
	}
	own := func(name string) bool { return Tokenizer(f.adapter.Dir, name) }
	for _, e := range entries {
		if name := e.Name(); SideFile(name) && isFile(filepath.Join(f.baseDir, name)) && !own(name) {
			f.files.copies[name] = filepath.Join(f.baseDir, name)
		}
	}
	for _, name := range slices.Concat(vocabularyFiles, templateFiles) {
		if from := filepath.Join(f.adapter.Dir, name); own(name) && isFile(from) {
			f.files.copies[name] = from
		}
	}
	if f.raw != nil {
		config := f.raw
		if len(f.set) > 0 {
			if config, err = arch.PatchConfig(f.raw, f.set); err != nil {
				return err
			}
		}
		f.files.content[arch.ConfigName] = config
	}
	f.files.content["README.md"] = f.card()
	return nil
}

// card is a short README.
func (f *fusion) card() []byte {
	var b strings.Builder
	b.WriteString("---\nlibrary_name: transformers\ntags:\n- mergekit\n- lora\n---\n# A base with its adapter fused\n\n")
	fmt.Fprintf(&b, "* base: `%s`\n* adapter: `%s`, %d tensors changed\n", baseName(f.baseDir), baseName(f.adapter.Dir), len(f.deltas))
	c := f.adapter.Config
	fmt.Fprintf(&b, "* rank %d, alpha %s%s%s\n", c.R, pyNumber(c.Alpha), ifThen(c.RSLoRA, ", rsLoRA"), ifThen(c.DoRA, ", DoRA"))
	b.WriteString("\nThe arithmetic was float32, rounded once to the dtype of the weights.\n")
	return []byte(b.String())
}

func ifThen(yes bool, s string) string {
	if yes {
		return s
	}
	return ""
}

func baseName(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return filepath.Base(dir)
	}
	return filepath.Base(abs)
}
