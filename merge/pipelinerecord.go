package merge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/merge/provenance"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// record writes what the pipeline was made of, beside the components' own records: its files have paths there, such as unet/config.json.
func (p *pipeline) record(c *tensors.Collection) error {
	var stated []provenance.Input
	for _, ref := range p.r.References() {
		dir := p.dirs[placeOf(ref)]
		stated = append(stated, provenance.Input{Model: ref.String(), Base: p.r.Base != nil && ref.Same(*p.r.Base), License: provenance.License(dir)})
	}
	license, conflicts, notes := provenance.Judge(stated)
	if p.o.Warn != nil {
		for _, m := range conflicts {
			p.o.Warn("licences: " + m)
		}
	}
	if !p.o.Provenance {
		return nil
	}
	sum := sha256.Sum256(p.r.Text)
	r := provenance.Record{Version: 1, Program: "mergekit " + p.o.Version, Method: p.r.Method, License: license, Notes: append(conflicts, notes...),
		Recipe:  provenance.File{Name: "mergekit_config.yml", Bytes: int64(len(p.r.Text)), SHA256: hex.EncodeToString(sum[:])},
		Options: p.o.recorded(p.o.Plan)}
	for _, name := range p.components {
		of, err := provenance.Read(c.Dir(name))
		if err != nil {
			return err
		}
		for i, ref := range p.r.References() {
			ref = p.inside(ref, name)
			at := slices.IndexFunc(of.Inputs, func(in provenance.Input) bool { return in.Model == ref.String() })
			if at < 0 { // the recipe gives it no weight here
				continue
			}
			for _, f := range of.Inputs[at].Files {
				f.Name = path.Join(name, f.Name)
				stated[i].Files = append(stated[i].Files, f)
			}
		}
	}
	r.Inputs = stated
	root := c.Dir("")
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil || strings.HasPrefix(rel, ".") { // marks of what is finished
			return err
		}
		f, err := provenance.Identify(file, p.o.Hash)
		f.Name = filepath.ToSlash(rel)
		r.Outputs = append(r.Outputs, f)
		return err
	})
	if err != nil {
		return err
	}
	text, err := r.Text()
	if err != nil {
		return err
	}
	return c.WriteFile(provenance.FileName, text)
}

// isPipeline says whether a record is that of a pipeline.
func isPipeline(r *provenance.Record) bool {
	return slices.ContainsFunc(r.Outputs, func(f provenance.File) bool { return f.Name == pipelineIndex })
}

// countTensors opens an output, or the components of one, and counts its tensors.
func countTensors(dir string, r *provenance.Record) (n int, err error) {
	dirs := []string{dir}
	if isPipeline(r) {
		names, err := componentsOf(dir)
		if err != nil {
			return 0, err
		}
		dirs = nil
		for _, name := range names {
			dirs = append(dirs, filepath.Join(dir, name))
		}
	}
	for _, d := range dirs {
		c, err := checkpoint.Open(d)
		if err != nil {
			return 0, err
		}
		n += len(c.Names())
		if err := c.Close(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// pipelineInputs compares the files of the pipelines that a recipe reads with the recorded ones.
func (v *Verified) pipelineInputs(ctx context.Context, of *recipe.Recipe, r *provenance.Record, o Options) error {
	p, err := openPipeline(of, o)
	if err != nil {
		return err
	}
	v.Inputs = map[string][]provenance.Finding{}
	for _, want := range r.Inputs {
		list := make([]provenance.Finding, len(want.Files))
		for i, f := range want.Files {
			list[i] = provenance.Finding{File: f.Name, State: provenance.Missing}
		}
		for _, ref := range of.References() {
			if p != nil && ref.String() == want.Model {
				if list, err = provenance.Check(ctx, p.dirs[placeOf(ref)], want.Files, nil); err != nil {
					return err
				}
			}
		}
		v.Inputs[want.Model] = list
		v.judge(list)
	}
	return nil
}
