package moe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/provenance"
	"github.com/mergekit/mergekit/tensors"
)

// inputs are the models that a mixture is made of, with the licences that they state, and their files.
func (p *Plan) inputs() (list []provenance.Input, files [][]string) {
	for _, m := range p.Models {
		list = append(list, provenance.Input{Model: m.Ref.String(), Base: m == p.Base, License: provenance.License(m.Dir)})
		files = append(files, m.Files())
	}
	return list, files
}

// legal is what the licences of the models mean for a mixture of them.
type legal struct {
	license          string // of the mixture; "" where none follows
	conflicts, notes []string
}

func (p *Plan) judge() (l legal) {
	var list []provenance.Input
	for _, m := range p.Models {
		list = append(list, provenance.Stated(m.Ref.String(), m == p.Base, m.Dir, m.AdapterDir)...)
	}
	l.license, l.conflicts, l.notes = provenance.Judge(list)
	return l
}

// all are conflicts and notes.
func (l legal) all() []string { return slices.Concat(l.conflicts, l.notes) }

// record writes what the mixture was made of.
func (p *Plan) record(w *tensors.Writer, out string, g *Gates, l legal, o Options) error {
	sum := sha256.Sum256(p.Config.Text)
	r := provenance.Record{Version: 1, Program: "mergekit " + o.Version, Method: provenance.MixtureMethod, License: l.license, Notes: l.all(),
		Recipe: provenance.File{Name: configName, Bytes: int64(len(p.Config.Text)), SHA256: hex.EncodeToString(sum[:])},
		Options: provenance.Options{Backend: g.Backend, Seed: p.Options.Seed, ShardBytes: o.ShardBytes, AllowCrimes: p.Options.AllowCrimes,
			AllowNonFinite: o.AllowNonFinite, FuseExperts: p.Options.Layout == LayoutFused, CopyTokenizer: o.CopyTokenizer, ModelCard: o.ModelCard}}
	var files [][]string
	r.Inputs, files = p.inputs()
	return merge.WriteRecord(w, out, &r, files, o.Hash)
}

// Maker makes recorded mixtures again, for merge.Verify. Its options are how: threads, progress, and the backend of hidden states.
type Maker struct{ Options }

// plan reads a recorded mixture's configuration.
func (m Maker) plan(file string, text []byte, r *provenance.Record) (*Plan, error) {
	c, err := Parse(file, text)
	if err != nil {
		return nil, err
	}
	o := m.Plan
	o.Layout, o.Seed, o.AllowCrimes, o.Useless = LayoutExperts, r.Options.Seed, r.Options.AllowCrimes, true // it was made once
	if r.Options.FuseExperts {
		o.Layout = LayoutFused
	}
	if o.Models.OpenAdapter == nil {
		o.Models.OpenAdapter = merge.OpenAdapter
	}
	return Build(c, o)
}

// Inputs implements merge.Maker.
func (m Maker) Inputs(file string, text []byte, r *provenance.Record) (map[string][]string, error) {
	p, err := m.plan(file, text, r)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	list, files := p.inputs()
	out := map[string][]string{}
	for i, in := range list {
		out[in.Model] = files[i]
	}
	return out, nil
}

// Make implements merge.Maker.
func (m Maker) Make(ctx context.Context, file string, text []byte, r *provenance.Record, out string) error {
	p, err := m.plan(file, text, r)
	if err != nil {
		return err
	}
	defer p.Close()
	o, open := m.Options, m.Gate.Backend
	o.Gate.Backend = func() (compute.Backend, func(), error) {
		b, done, err := open()
		if err == nil && merge.KindOf(b) != r.Options.Backend {
			done()
			return nil, nil, &merge.InputError{Err: fmt.Errorf("the hidden states of %s were computed by the backend %s, and others round differently; choose it with --backend", file, r.Options.Backend)}
		}
		return b, done, err
	}
	o.ShardBytes, o.AllowNonFinite, o.CopyTokenizer, o.ModelCard = r.Options.ShardBytes, r.Options.AllowNonFinite, r.Options.CopyTokenizer, r.Options.ModelCard
	o.Force, o.Resume, o.Provenance, o.Warn = false, false, false, nil
	_, err = Assemble(ctx, p, out, o)
	return err
}
