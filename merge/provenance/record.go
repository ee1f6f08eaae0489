package provenance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/tensors"
)

// FileName is the record's name in the output.
const FileName = "mergekit_provenance.json"

// MixtureMethod is what records of mixtures of experts have in the place of a merge method.
const MixtureMethod = "moe"

// Record is the content of the file.
type Record struct {
	Version  int      `json:"mergekit_provenance"`
	Program  string   `json:"program"`
	Method   string   `json:"merge_method"`
	Recipe   File     `json:"recipe"`             // mergekit_config.yml (of a mixture mergekit_moe_config.yml) as it is, or would be, beside the weights
	Searched bool     `json:"searched,omitempty"` // a search has found numbers of the recipe
	Options  Options  `json:"options"`
	Inputs   []Input  `json:"inputs"`
	Outputs  []File   `json:"outputs"` // all files but the index, which follows from the weights, and this one
	License  string   `json:"license,omitempty"`
	Notes    []string `json:"license_notes,omitempty"`
}

// Options are those that the output's bytes depend on.
type Options struct {
	Backend            string `json:"backend"` // its kind: others round differently
	Arithmetic         string `json:"arithmetic"`
	Generator          string `json:"random_generator"`
	Seed               uint64 `json:"seed"`
	ShardBytes         int64  `json:"shard_bytes"` // negative: one file
	AllowCrimes        bool   `json:"allow_crimes,omitempty"`
	TruncateEmbeddings bool   `json:"truncate_embeddings,omitempty"`
	KeepUndescribed    bool   `json:"keep_undescribed,omitempty"`
	FuseExperts        bool   `json:"fuse_experts,omitempty"`
	AllowNonFinite     bool   `json:"allow_non_finite,omitempty"`
	CopyTokenizer      bool   `json:"copy_tokenizer"`
	ModelCard          bool   `json:"model_card"`
}

// Input is a model that was read.
type Input struct {
	Model   string `json:"model"` // as the recipe writes it
	Base    bool   `json:"base,omitempty"`
	Speller bool   `json:"tokenizer_only,omitempty"` // the output has its tokenizer and none of its weights
	License string `json:"license,omitempty"`        // as its model card states it; "": it states none
	Files   []File `json:"files"`
}

// File is a file by its content. Large files are known by their header and size alone, unless their hashes were asked for.
type File struct {
	Name         string `json:"name"` // of a file of a pipeline's component with slashes
	Bytes        int64  `json:"bytes"`
	SHA256       string `json:"sha256,omitempty"`
	HeaderSHA256 string `json:"header_sha256,omitempty"` // of a safetensors file's header and its size
}

// fullBytes is the size up to which a file is hashed in any case.
const fullBytes = 64 << 20

// Identify describes a file: by the SHA-256 of its content where that is asked for or costs little (small files, or files of the Hugging
// Face cache, whose names are their hashes), else by the SHA-256 of its header together with its size.
func Identify(file string, full bool) (File, error) {
	st, err := os.Stat(file)
	if err != nil {
		return File{}, err
	}
	f := File{Name: filepath.Base(file), Bytes: st.Size()}
	if real, err := filepath.EvalSymlinks(file); err == nil && filepath.Base(filepath.Dir(real)) == "blobs" && len(filepath.Base(real)) == 64 {
		f.SHA256 = filepath.Base(real)
		return f, nil
	}
	if full || st.Size() <= fullBytes || filepath.Ext(file) != ".safetensors" {
		f.SHA256, err = tensors.SHA256(file)
		return f, err
	}
	f.HeaderSHA256, err = tensors.HeaderDigest(file)
	return f, err
}

// maxRecord is the most that a record is read of.
const maxRecord = 64 << 20

// Read reads the record of an output. Errors of what it holds are *tensors.FormatError.
func Read(dir string) (*Record, error) {
	path := filepath.Join(dir, FileName)
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() { // opening a pipe would wait for ever
		return nil, &tensors.FormatError{File: path, Msg: "is not a regular file", Hint: "the output cannot be verified; merge again"}
	}
	f, err := os.Open(path)
	if st, e := os.Stat(dir); errors.Is(err, fs.ErrNotExist) || err != nil && e == nil && !st.IsDir() {
		return nil, &tensors.FormatError{File: dir, Msg: "has no " + FileName, Hint: "only outputs of mergekit merge and mergekit moe have one"}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return nil, err
	}
	return parse(path, text)
}

func parse(file string, text []byte) (*Record, error) {
	bad := func(msg string) error {
		return &tensors.FormatError{File: file, Msg: "is damaged: " + msg, Hint: "the output cannot be verified; merge again"}
	}
	if len(text) > maxRecord {
		return nil, bad("it is too large")
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&r); err != nil {
		return nil, bad(err.Error())
	}
	if r.Version != 1 {
		return nil, &tensors.FormatError{File: file, Msg: fmt.Sprintf("is of version %d, and this program reads version 1", r.Version), Hint: "use a newer mergekit"}
	}
	files := append([]File{r.Recipe}, r.Outputs...)
	for _, in := range r.Inputs {
		files = append(files, in.Files...)
	}
	for _, f := range files {
		if f.Name != path.Clean(f.Name) || f.Name == "." || strings.Contains(f.Name, `\`) || !filepath.IsLocal(filepath.FromSlash(f.Name)) || f.Bytes < 0 {
			return nil, bad(fmt.Sprintf("%q is no name of a file", f.Name))
		}
	}
	return &r, nil
}

// Text renders a record.
func (r *Record) Text() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(r)
	return b.Bytes(), err
}
