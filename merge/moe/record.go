package moe

import (
	"crypto/sha256"
	"encoding/hex"

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

// licenses are the inputs and, where they state another licence, their adapters.
func (p *Plan) licenses() []provenance.Input {
	list, _ := p.inputs()
	for i, m := range p.Models {
		if m.AdapterDir != "" {
			if l := provenance.License(m.AdapterDir); l != "" && l != list[i].License {
				list = append(list, provenance.Input{Model: list[i].Model, License: l})
			}
		}
	}
	return list
}

// record writes what the mixture was made of.
func (p *Plan) record(w *tensors.Writer, out string, o Options) error {
	license, conflicts, notes := provenance.Judge(p.licenses())
	sum := sha256.Sum256(p.Config.Text)
	r := provenance.Record{Version: 1, Program: "mergekit " + o.Version, Method: provenance.MixtureMethod, License: license, Notes: append(conflicts, notes...),
		Recipe: provenance.File{Name: configName, Bytes: int64(len(p.Config.Text)), SHA256: hex.EncodeToString(sum[:])},
		Options: provenance.Options{Seed: p.Options.Seed, ShardBytes: o.ShardBytes, AllowCrimes: p.Options.AllowCrimes, AllowNonFinite: o.AllowNonFinite,
			CopyTokenizer: o.CopyTokenizer, ModelCard: o.ModelCard}}
	var files [][]string
	r.Inputs, files = p.inputs()
	return merge.WriteRecord(w, out, &r, files, o.Hash)
}
