package merge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/merge/provenance"
	"github.com/mergekit/mergekit/merge/recipe"
)

// VerifyOptions say what is verified beside the output's files.
type VerifyOptions struct {
	Recipe    string // the recipe's file; "": the one in the output
	From      string // the directory that the recipe's paths start from; "": that of Recipe, or the working directory for the one in the output
	Inputs    bool   // whether the inputs are those that were read
	Reproduce bool   // whether merging again gives the same bytes
	Checked   func(bytes int64)
	Sized     func(total int64) // what Checked will count to
	Merge     Options           // how to merge again: backend, threads, memory and progress
	Makers    map[string]Maker  // of outputs that no merge makes, by the method that their records name
}

// Maker makes outputs of a kind again. file is where the recipe's relative paths start from, text is what it says.
type Maker interface {
	// Inputs lists the weight files of each model that the recipe reads, by the model's name in the record.
	Inputs(file string, text []byte, r *provenance.Record) (map[string][]string, error)
	// Make writes what the recipe says to the directory out.
	Make(ctx context.Context, file string, text []byte, r *provenance.Record, out string) error
}

// Verified is what verifying an output has shown.
type Verified struct {
	Output     string                          `json:"output"`
	Files      []provenance.Finding            `json:"files"`
	Inputs     map[string][]provenance.Finding `json:"inputs,omitempty"`
	Reproduced []provenance.Finding            `json:"reproduced,omitempty"`
	Tensors    int                             `json:"tensors"`
	Good       bool                            `json:"good"`
	Record     *provenance.Record              `json:"-"`
}

// Verify checks an output against its record: that its files are those that were written, that it opens as a checkpoint and, where that is
// asked for, that its inputs are those that were read and that its recipe gives its bytes again.
func Verify(ctx context.Context, dir string, o VerifyOptions) (*Verified, error) {
	r, err := provenance.Read(dir)
	if err != nil {
		return nil, err
	}
	v := &Verified{Output: dir, Record: r, Good: true}
	if o.Sized != nil {
		o.Sized(provenance.Size(r.Outputs))
	}
	if v.Files, err = provenance.Check(ctx, dir, r.Outputs, o.Checked); err != nil {
		return nil, err
	}
	index, err := r.CheckIndex(dir)
	if err != nil {
		return nil, err
	}
	unknown, err := r.Unknown(dir)
	if err != nil {
		return nil, err
	}
	v.Files = append(append(v.Files, index...), unknown...)
	v.judge(v.Files)
	if v.Good {
		if v.Tensors, err = countTensors(dir, r); err != nil {
			return nil, err
		}
	}
	if !o.Inputs && !o.Reproduce {
		return v, nil
	}
	file, text, err := recordedRecipe(dir, r, o)
	if err != nil {
		return nil, err
	}
	if m := o.Makers[r.Method]; m != nil {
		return v, v.made(ctx, m, file, text, dir, o)
	}
	list, err := recipe.ParseAll(file, text)
	if err != nil {
		return nil, err
	}
	if o.Inputs {
		if err := v.inputs(ctx, list, r, o); err != nil {
			return nil, err
		}
	}
	if o.Reproduce {
		err = v.reproduce(ctx, list, text, r, dir, o)
	}
	return v, err
}

// made verifies what a maker has made.
func (v *Verified) made(ctx context.Context, m Maker, file string, text []byte, dir string, o VerifyOptions) error {
	if o.Inputs {
		from, err := m.Inputs(file, text, v.Record)
		if err == nil {
			err = v.compare(ctx, func(in provenance.Input) []string { return from[in.Model] })
		}
		if err != nil {
			return err
		}
	}
	if !o.Reproduce {
		return nil
	}
	return v.again(dir, func(out string) error { return m.Make(ctx, file, text, v.Record, out) })
}

func (v *Verified) judge(list []provenance.Finding) {
	for _, f := range list {
		v.Good = v.Good && !f.State.Bad()
	}
}

// recordedRecipe reads the file that the output was made by. file is where its relative paths start from.
func recordedRecipe(dir string, r *provenance.Record, o VerifyOptions) (file string, text []byte, err error) {
	file = o.Recipe
	if file == "" {
		file = filepath.Join(dir, r.Recipe.Name)
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return "", nil, &InputError{fmt.Errorf("%s: is not there, so it is not known what to read; name the recipe with --recipe", file)}
		}
	}
	state, err := provenance.Compare(file, r.Recipe)
	if err != nil {
		return "", nil, err
	}
	if state != provenance.Same {
		return "", nil, &InputError{fmt.Errorf("%s: is not the recipe that %s was made by (its SHA-256 is another); name that one with --recipe", file, dir)}
	}
	if text, err = os.ReadFile(file); err != nil {
		return "", nil, err
	}
	from := o.From
	if from == "" && o.Recipe == "" {
		from = "."
	}
	if from != "" { // where the recipe's paths start
		file = filepath.Join(from, filepath.Base(file))
	}
	return file, text, nil
}

// inputs compares the files that the recipe reads with the recorded ones.
func (v *Verified) inputs(ctx context.Context, list []*recipe.Recipe, r *provenance.Record, o VerifyOptions) error {
	again := o.Merge.repeat(r)
	if again.Plan.OpenAdapter == nil {
		again.Plan.OpenAdapter = OpenAdapter
	}
	if isPipeline(r) && len(list) == 1 {
		return v.pipelineInputs(ctx, list[0], r, again)
	}
	from, err := read(list, again)
	if err != nil {
		return err
	}
	return v.compare(ctx, func(in provenance.Input) []string {
		i := slices.IndexFunc(from, func(m origin) bool { return m.ref.String() == in.Model && m.speller == in.Speller })
		if i < 0 {
			return nil
		}
		return from[i].files
	})
}

// compare compares the recorded inputs with files, which are in the order of the record's.
func (v *Verified) compare(ctx context.Context, files func(in provenance.Input) []string) error {
	v.Inputs = map[string][]provenance.Finding{}
	for _, want := range v.Record.Inputs {
		from := files(want)
		var list []provenance.Finding
		for k, f := range want.Files {
			finding := provenance.Finding{File: f.Name, State: provenance.Missing}
			if k < len(from) && filepath.Base(from[k]) == f.Name {
				err := ctx.Err()
				if err == nil {
					finding.State, err = provenance.Compare(from[k], f)
				}
				if err != nil {
					return err
				}
			}
			list = append(list, finding)
		}
		v.Inputs[want.Model] = append(v.Inputs[want.Model], list...)
		v.judge(list)
	}
	return nil
}

// reproduce merges again, beside the output, and compares.
func (v *Verified) reproduce(ctx context.Context, list []*recipe.Recipe, text []byte, r *provenance.Record, dir string, o VerifyOptions) error {
	again := o.Merge.repeat(r)
	if KindOf(again.Backend) != r.Options.Backend {
		return &InputError{fmt.Errorf("%s was made by the backend %s, and others round differently; choose it with --backend", dir, r.Options.Backend)}
	}
	if len(list) == 1 {
		list[0].Search = nil // its numbers are found
	}
	return v.again(dir, func(out string) error {
		_, err := runAll(ctx, list, text, out, again)
		return err
	})
}

// again makes an output a second time, in a hidden directory beside it, and compares.
func (v *Verified) again(dir string, make func(out string) error) error {
	path, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	place, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(place)
	out := filepath.Join(place, nameOf(path))
	if err := make(out); err != nil {
		return err
	}
	r := v.Record
	for _, f := range r.Outputs {
		if filepath.Base(f.Name) == provenance.FileName { // of a component, and not made again
			continue
		}
		if r.Searched && (f.Name == SearchFile || f.Name == "README.md") { // they tell of a search, which is not repeated
			continue
		}
		state, err := provenance.SameBytes(filepath.Join(dir, f.Name), filepath.Join(out, f.Name))
		if err != nil {
			return err
		}
		v.Reproduced = append(v.Reproduced, provenance.Finding{File: f.Name, State: state})
	}
	v.judge(v.Reproduced)
	return nil
}

// nameOf is what an output was called when it was made, which its card has as its title: it may have been moved since.
func nameOf(dir string) string {
	if card, err := os.ReadFile(filepath.Join(dir, "README.md")); err == nil {
		_, body, _ := strings.Cut(string(card), "\n---\n")
		title, _, _ := strings.Cut(body, "\n")
		if name, ok := strings.CutPrefix(title, "# "); ok && name == filepath.Base(name) && filepath.IsLocal(name) && name != "." {
			return name
		}
	}
	return filepath.Base(dir)
}
