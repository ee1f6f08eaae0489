package hub

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// File is a file of a repository as its listing has it.
type File struct {
	Path string // with slashes, from the repository's root
	Size int64
	Etag string // SHA-256 of a large file, git's SHA-1 of a small one; "" where nobody has said it
}

// lackingError says that files which an index names are not listed.
type lackingError struct {
	index string
	files []string
}

func (e *lackingError) Error() string {
	return fmt.Sprintf("%s names files that are not there: %s", e.index, some(e.files))
}

// some lists the first few names.
func some(names []string) string {
	const most = 5
	list := plain(strings.Join(names[:min(most, len(names))], ", "))
	if more := len(names) - most; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

var shardForm = regexp.MustCompile(`^(.*)-[0-9]+-of-([0-9]+)\.[a-z]+$`)

// oneSet reports whether files are the numbered shards of one checkpoint.
func oneSet(names []string) bool {
	var first []string
	for _, name := range names {
		m := shardForm.FindStringSubmatch(name)
		if m == nil || first != nil && (m[1] != first[1] || m[2] != first[2]) {
			return false
		}
		first = m
	}
	return true
}

// maxSide bounds what counts as a file beside the weights.
const maxSide = 256 << 20

// choose picks the files that a merge, a fine-tuning or an evaluation reads: configuration, tokenizer, chat template, model
// card, and the weights once. Where there are several sets of weights it takes the one that tensors.Open would: what an index
// lists before a single file, safetensors before pickles, both before GGUF. read returns the content of a small file; it is
// called for indexes and the configuration. Without weights only the files beside them are chosen.
func choose(all []File, weights bool, read func(File) ([]byte, error)) ([]File, error) {
	return chooseBelow(all, "", weights, read)
}

// chooseBelow is choose for a directory, given with its slash.
func chooseBelow(all []File, prefix string, weights bool, read func(File) ([]byte, error)) ([]File, error) {
	chosen, err := chooseDir(all, prefix, weights, read)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(chosen, func(f File) bool { return f.Path == prefix+"model_index.json" }); i >= 0 {
		components, err := componentsOf(chosen[i], read)
		if err != nil {
			return nil, err
		}
		for _, dir := range components {
			sub, err := chooseDir(all, prefix+dir+"/", weights, read)
			if err != nil {
				return nil, err
			}
			chosen = append(chosen, sub...)
		}
	}
	sort.Slice(chosen, func(i, j int) bool { return chosen[i].Path < chosen[j].Path })
	return chosen, nil
}

// chooseDir is choose for one directory, given with its slash.
func chooseDir(all []File, dir string, withWeights bool, read func(File) ([]byte, error)) ([]File, error) {
	var chosen []File
	here := map[string]File{}
	var names []string
	for _, f := range all {
		if name, ok := strings.CutPrefix(f.Path, dir); ok && !strings.Contains(name, "/") {
			here[name] = f
			names = append(names, name)
		}
	}
	sort.Strings(names)
	code := false
	if f, ok := here["config.json"]; ok && hasCode(names) {
		data, err := read(f)
		if err != nil {
			return nil, err
		}
		var config map[string]json.RawMessage
		if json.Unmarshal(data, &config) == nil {
			_, code = config["auto_map"]
		}
	}
	for _, name := range names {
		if f := here[name]; sideFile(name, code) && f.Size <= maxSide {
			chosen = append(chosen, f)
		}
	}
	if !withWeights {
		return chosen, nil
	}
	weights, err := weightFiles(dir, names, here, read)
	if err != nil {
		return nil, err
	}
	for _, name := range weights {
		chosen = append(chosen, here[name])
	}
	return chosen, nil
}

func hasCode(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".py") })
}

// unneeded are small files that say how a model was trained, not what it is.
var unneeded = []string{"trainer_state.json", "training_args.json", "all_results.json", "train_results.json", "eval_results.json"}

// sideFile tells whether a file beside the weights is needed. Python files are copied to an output whose configuration names
// them, and never run.
func sideFile(name string, code bool) bool {
	switch path.Ext(name) {
	case ".json":
		return !slices.Contains(unneeded, name)
	case ".jinja", ".model", ".tiktoken":
		return true
	case ".py":
		return code
	}
	switch name {
	case "merges.txt", "vocab.txt", "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md":
		return true
	}
	return false
}

// stems are the names that weights have, best first, in each format. Names with a variant (fp16) are not among them.
var stems = []struct{ ext, index string }{{".safetensors", ".safetensors.index.json"}, {".bin", ".bin.index.json"}}

// weightFiles picks the weights of one directory.
func weightFiles(dir string, names []string, here map[string]File, read func(File) ([]byte, error)) ([]string, error) {
	has := func(name string) bool { _, ok := here[name]; return ok }
	for _, format := range stems {
		standard := []string{"model", "adapter_model", "diffusion_pytorch_model"}
		if format.ext == ".bin" {
			standard = []string{"pytorch_model", "adapter_model", "diffusion_pytorch_model"}
		}
		for _, stem := range standard {
			if has(stem + format.index) {
				return indexed(dir, stem+format.index, here, read)
			}
			if has(stem + format.ext) {
				return []string{stem + format.ext}, nil
			}
		}
		var indexes, weights []string
		for _, name := range names {
			switch {
			case strings.HasSuffix(name, format.index):
				indexes = append(indexes, name)
			case strings.HasSuffix(name, format.ext) && !trainingState(name):
				weights = append(weights, name)
			}
		}
		switch {
		case len(indexes) == 1:
			return indexed(dir, indexes[0], here, read)
		case len(weights) == 1 || len(weights) > 1 && len(indexes) == 0 && oneSet(weights):
			return weights, nil
		case len(weights)+len(indexes) > 0:
			return nil, &Error{Msg: fmt.Sprintf("holds several checkpoints: %s", some(append(indexes, weights...))), Hint: "name one of the files: hf://org/name/" + dir + append(indexes, weights...)[0]}
		}
	}
	for _, ext := range []string{".pth", ".pt", ".gguf"} {
		var found []string
		for _, name := range names {
			if strings.HasSuffix(name, ext) && !trainingState(name) {
				found = append(found, name)
			}
		}
		if len(found) == 1 {
			return found, nil
		}
		if len(found) > 1 && ext == ".gguf" {
			return nil, &Error{Msg: fmt.Sprintf("has %d GGUF files and no other weights: %s", len(found), some(found)), Hint: "name one of the files: hf://org/name/" + dir + found[0]}
		}
	}
	return nil, nil
}

func trainingState(name string) bool {
	for _, stem := range []string{"training_args", "optimizer", "scheduler", "rng_state", "scaler"} {
		if strings.HasPrefix(name, stem) {
			return true
		}
	}
	return false
}

// indexed lists the shards of an index.
func indexed(dir, index string, here map[string]File, read func(File) ([]byte, error)) ([]string, error) {
	data, err := read(here[index])
	if err != nil {
		return nil, err
	}
	var x struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &x); err != nil || len(x.WeightMap) == 0 {
		return nil, &Error{File: dir + index, Msg: "is no index of weights", Hint: "tell the repository's owners"}
	}
	seen := map[string]bool{}
	var shards, lacking []string
	for _, shard := range x.WeightMap {
		if seen[shard] {
			continue
		}
		seen[shard] = true
		if _, ok := here[shard]; !ok {
			lacking = append(lacking, dir+plain(shard))
			continue
		}
		shards = append(shards, shard)
	}
	sort.Strings(shards)
	sort.Strings(lacking)
	if len(lacking) > 0 {
		return nil, &lackingError{index: dir + index, files: lacking}
	}
	return shards, nil
}

// componentsOf lists the directories that a diffusers model_index.json names.
func componentsOf(f File, read func(File) ([]byte, error)) ([]string, error) {
	data, err := read(f)
	if err != nil {
		return nil, err
	}
	var index map[string]json.RawMessage
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, &Error{File: f.Path, Msg: "is no index of components", Hint: "tell the repository's owners"}
	}
	var dirs []string
	for name, v := range index {
		var pair []any
		if json.Unmarshal(v, &pair) == nil && len(pair) == 2 && plainPath(name) && !strings.Contains(name, "/") {
			dirs = append(dirs, name)
		}
	}
	sort.Strings(dirs)
	return dirs, nil
}
