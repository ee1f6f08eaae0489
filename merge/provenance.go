package merge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/provenance"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// licenses are the inputs with the licences that they state, without files.
func licenses(from []origin) (list []provenance.Input) {
	for _, m := range from {
		in := provenance.Input{Model: m.ref.String(), Base: m.base, License: provenance.License(m.dir)}
		list = append(list, in)
		if m.adapterDir != "" {
			if l := provenance.License(m.adapterDir); l != "" && l != in.License {
				list = append(list, provenance.Input{Model: in.Model, License: l})
			}
		}
	}
	return list
}

// record writes what the output was made of.
func (j *job) record(w *tensors.Writer) error {
	from := j.o.stages.origins(j.p)
	license, conflicts, notes := provenance.Judge(licenses(from))
	if j.o.Warn != nil {
		for _, c := range conflicts {
			j.o.Warn("licences: " + c)
		}
	}
	if !j.o.Provenance {
		return nil
	}
	sum := sha256.Sum256(j.p.Recipe.Text)
	r := provenance.Record{Version: 1, Program: "mergekit " + j.o.Version, Method: j.p.Method.Name, License: license, Notes: append(conflicts, notes...),
		Recipe: provenance.File{Name: "mergekit_config.yml", Bytes: int64(len(j.p.Recipe.Text)), SHA256: hex.EncodeToString(sum[:])}, Searched: j.o.searched != nil,
		Options: j.o.recorded(j.p.Options)}
	if kind := w.JoinedEngine(); kind != "" {
		r.Options.Backend = kind
	}
	for _, m := range from {
		in := provenance.Input{Model: m.ref.String(), Base: m.base, License: provenance.License(m.dir)}
		for _, path := range m.files {
			f, err := provenance.Identify(path, j.o.Hash)
			if err != nil {
				return err
			}
			in.Files = append(in.Files, f)
		}
		r.Inputs = append(r.Inputs, in)
	}
	names := w.SideFiles()
	for _, shard := range w.Shards() {
		names = append(names, shard.Name)
	}
	slices.Sort(names)
	for _, name := range names {
		path, err := tensors.PartialFile(j.out, name)
		if err != nil {
			return err
		}
		f, err := provenance.Identify(path, j.o.Hash)
		if err != nil {
			return err
		}
		r.Outputs = append(r.Outputs, f)
	}
	text, err := r.Text()
	if err != nil {
		return err
	}
	return w.WriteFile(provenance.FileName, text)
}

// recorded are the options that the output's bytes depend on.
func (o *Options) recorded(p plan.Options) provenance.Options {
	generator := "counter"
	if p.RNG == method.Peer {
		generator = "mergekit"
	}
	return provenance.Options{Backend: kindOf(o.Backend), Arithmetic: p.Arith.String(), Generator: generator, Seed: p.Seed, ShardBytes: o.ShardBytes,
		AllowCrimes: p.AllowCrimes, TruncateEmbeddings: p.TruncateVocabulary, KeepUndescribed: p.KeepUndescribed, FuseExperts: p.FuseExperts,
		AllowNonFinite: o.AllowNonFinite, CopyTokenizer: o.CopyTokenizer, ModelCard: o.ModelCard}
}

// repeat are the options of a merge that makes the bytes of a record again.
func (o Options) repeat(r *provenance.Record) Options {
	s := r.Options
	o.Plan.Seed, o.Plan.AllowCrimes, o.Plan.TruncateVocabulary = s.Seed, s.AllowCrimes, s.TruncateEmbeddings
	o.Plan.KeepUndescribed, o.Plan.FuseExperts = s.KeepUndescribed, s.FuseExperts
	o.Plan.Arith, o.Plan.RNG = method.Wide, method.Counter
	if s.Arithmetic == method.Native.String() {
		o.Plan.Arith = method.Native
	}
	if s.Generator == "mergekit" {
		o.Plan.RNG = method.Peer
	}
	o.ShardBytes, o.AllowNonFinite, o.CopyTokenizer, o.ModelCard = s.ShardBytes, s.AllowNonFinite, s.CopyTokenizer, s.ModelCard
	o.Force, o.Resume, o.Report, o.Provenance, o.Hash = false, false, "", false, false
	return o
}

// VerifyOptions say what is verified beside the output's files.
type VerifyOptions struct {
	Recipe    string // the recipe's file; "": the one in the output
	From      string // the directory that the recipe's paths start from; "": that of Recipe, or the working directory for the one in the output
	Inputs    bool   // whether the inputs are those that were read
	Reproduce bool   // whether merging again gives the same bytes
	Checked   func(bytes int64)
	Sized     func(total int64) // what Checked will count to
	Merge     Options           // how to merge again: backend, threads, memory and progress
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
	unknown, err := r.Unknown(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range unknown {
		v.Files = append(v.Files, provenance.Finding{File: name, State: provenance.NotRecorded})
	}
	v.judge(v.Files)
	if v.Good {
		c, err := tensors.Open(dir)
		if err != nil {
			return nil, err
		}
		v.Tensors = len(c.Names())
		if err := c.Close(); err != nil {
			return nil, err
		}
	}
	if !o.Inputs && !o.Reproduce {
		return v, nil
	}
	list, text, err := recordedRecipes(dir, r, o)
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

func (v *Verified) judge(list []provenance.Finding) {
	for _, f := range list {
		v.Good = v.Good && !f.State.Bad()
	}
}

// recordedRecipes reads the recipe that the output was made by, or the recipes of its file, and their text.
func recordedRecipes(dir string, r *provenance.Record, o VerifyOptions) ([]*recipe.Recipe, []byte, error) {
	file := o.Recipe
	if file == "" {
		file = filepath.Join(dir, r.Recipe.Name)
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, &InputError{fmt.Errorf("%s: is not there, so it is not known what to read; name the recipe with --recipe", file)}
		}
	}
	state, err := provenance.Compare(file, r.Recipe)
	if err != nil {
		return nil, nil, err
	}
	if state != provenance.Same {
		return nil, nil, &InputError{fmt.Errorf("%s: is not the recipe that %s was made by (its SHA-256 is another); name that one with --recipe", file, dir)}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	from := o.From
	if from == "" && o.Recipe == "" {
		from = "."
	}
	if from != "" { // where the recipe's paths start
		file = filepath.Join(from, filepath.Base(file))
	}
	list, err := recipe.ParseAll(file, text)
	return list, text, err
}

// inputs compares the files that the recipe reads with the recorded ones.
func (v *Verified) inputs(ctx context.Context, list []*recipe.Recipe, r *provenance.Record, o VerifyOptions) error {
	again := o.Merge.repeat(r)
	if again.Plan.OpenAdapter == nil {
		again.Plan.OpenAdapter = OpenAdapter
	}
	from, err := read(list, again)
	if err != nil {
		return err
	}
	v.Inputs = map[string][]provenance.Finding{}
	for _, want := range r.Inputs {
		i := slices.IndexFunc(from, func(m origin) bool { return m.ref.String() == want.Model })
		var list []provenance.Finding
		for k, f := range want.Files {
			finding := provenance.Finding{File: f.Name, State: provenance.Missing}
			if i >= 0 && k < len(from[i].files) && filepath.Base(from[i].files[k]) == f.Name {
				if err := ctx.Err(); err != nil {
					return err
				}
				if finding.State, err = provenance.Compare(from[i].files[k], f); err != nil {
					return err
				}
			}
			list = append(list, finding)
		}
		v.Inputs[want.Model] = list
		v.judge(list)
	}
	return nil
}

// reproduce merges again, beside the output, and compares.
func (v *Verified) reproduce(ctx context.Context, list []*recipe.Recipe, text []byte, r *provenance.Record, dir string, o VerifyOptions) error {
	again := o.Merge.repeat(r)
	if kindOf(again.Backend) != r.Options.Backend {
		return &InputError{fmt.Errorf("%s was made by the backend %s, and others round differently; choose it with --backend", dir, r.Options.Backend)}
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	place, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".verify-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(place)
	out := filepath.Join(place, filepath.Base(path)) // of the same name: the card has it as its title
	if len(list) == 1 {
		list[0].Search = nil // its numbers are found
	}
	if _, err := runAll(ctx, list, text, out, again); err != nil {
		return err
	}
	for _, f := range r.Outputs {
		if r.Searched && (f.Name == SearchFile || f.Name == "README.md") { // they tell of a search, which is not repeated
			continue
		}
		full, err := provenance.Identify(filepath.Join(dir, f.Name), true)
		if err != nil {
			return err
		}
		state, err := provenance.Compare(filepath.Join(out, f.Name), full)
		if err != nil {
			return err
		}
		v.Reproduced = append(v.Reproduced, provenance.Finding{File: f.Name, State: state})
	}
	v.judge(v.Reproduced)
	return nil
}
