package merge

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/provenance"
	"github.com/mergekit/mergekit/tensors"
)

// licenses are the inputs with the licences that they state, without files.
func licenses(from []origin) (list []provenance.Input) {
	for _, m := range from {
		list = append(list, provenance.Stated(m.ref.String(), m.base, m.dir, m.adapterDir)...)
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
	var files [][]string
	for _, m := range from {
		r.Inputs = append(r.Inputs, provenance.Input{Model: m.ref.String(), Base: m.base, Speller: m.speller, License: provenance.License(m.dir)})
		files = append(files, m.files)
	}
	return WriteRecord(w, j.out, &r, files, j.o.Hash)
}

// WriteRecord completes the record of what w writes to the directory out, and puts it there: files[i] become those of the record's input i,
// what w holds its outputs. hash: weights are identified by their SHA-256, however large.
func WriteRecord(w *tensors.Writer, out string, r *provenance.Record, files [][]string, hash bool) error {
	for i, paths := range files {
		for _, path := range paths {
			f, err := provenance.Identify(path, hash)
			if err != nil {
				return err
			}
			r.Inputs[i].Files = append(r.Inputs[i].Files, f)
		}
	}
	names := w.SideFiles()
	for _, shard := range w.Shards() {
		names = append(names, shard.Name)
	}
	slices.Sort(names)
	for _, name := range names {
		path, err := tensors.PartialFile(out, name)
		if err != nil {
			return err
		}
		f, err := provenance.Identify(path, hash)
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
	return provenance.Options{Backend: KindOf(o.Backend), Arithmetic: p.Arith.String(), Generator: generator, Seed: p.Seed, ShardBytes: o.ShardBytes,
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
