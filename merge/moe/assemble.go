package moe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"text/template"
	"time"

	"github.com/mergekit/mergekit/internal/memory"
	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/provenance"
	"github.com/mergekit/mergekit/tensors"
)

// Options of an assembly.
type Options struct {
	Plan PlanOptions
	Gate GateOptions

	Threads       int   // workers; 0: all cores
	ShardBytes    int64 // 0: 5 GB; negative: one file
	Force         bool  // replace an existing output
	Resume        bool  // finish an interrupted assembly
	CopyTokenizer bool
	ModelCard     bool
	Provenance    bool // write mergekit_provenance.json
	Hash          bool // with the SHA-256 of weights, however large

	AllowNonFinite bool // accept NaN and infinite values in the output

	Version string // of the program, for the model card
	Started func(total int64)
	Written func(n int64)
	Warn    func(message string)
}

// Summary says what was assembled.
type Summary struct {
	Output       string   `json:"output"`
	Architecture string   `json:"architecture"`
	Gate         string   `json:"gate_mode"`
	Experts      int      `json:"experts"`
	PerToken     int      `json:"experts_per_token"`
	Shared       int      `json:"shared_experts,omitempty"`
	Tensors      int      `json:"tensors"`
	Parameters   int64    `json:"parameters"`
	Active       int64    `json:"active_parameters"` // that one token meets
	Written      int64    `json:"bytes_written"`
	Shards       int      `json:"shards"`
	Seconds      float64  `json:"seconds"`
	PeakAnon     int64    `json:"peak_anonymous_bytes"`
	PeakRSS      int64    `json:"peak_resident_bytes"`
	Notes        []string `json:"notes,omitempty"`
}

// Run reads a configuration and writes the mixture to the directory out.
func Run(ctx context.Context, file, out string, o Options) (*Summary, error) {
	c, err := ParseFile(file)
	if err != nil {
		return nil, err
	}
	if o.Plan.Models.OpenAdapter == nil {
		o.Plan.Models.OpenAdapter = merge.OpenAdapter
	}
	p, err := Build(c, o.Plan)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return Assemble(ctx, p, out, o)
}

// Assemble writes a planned mixture to the directory out, which appears whole or not at all.
func Assemble(ctx context.Context, p *Plan, out string, o Options) (*Summary, error) {
	start := time.Now()
	watch := memory.Watch()
	defer watch.Stop()
	for _, m := range p.Models {
		if tensors.Holds(out, m.Dir) || m.AdapterDir != "" && tensors.Holds(out, m.AdapterDir) {
			return nil, &tensors.FormatError{File: out, Msg: "the output is a directory of the input " + m.Name() + ", or holds it", Hint: "choose another output directory"}
		}
	}
	if err := tensors.CheckOutput(out, o.Force, o.Resume); err != nil { // before the forward pass
		return nil, err
	}
	l := p.judge()
	if o.Warn != nil {
		for _, c := range l.conflicts {
			o.Warn("licences: " + c)
		}
		for _, w := range p.Warnings {
			o.Warn(w)
		}
	}
	g, err := p.Gates(ctx, o.Gate)
	if err == nil {
		err = g.finite()
	}
	if err != nil {
		return nil, err
	}
	if o.Warn != nil {
		for _, n := range g.Notes {
			o.Warn(n)
		}
	}
	s := &Summary{Output: out, Architecture: p.Family, Gate: p.Config.Gate, Experts: len(p.Config.Experts), PerToken: p.Config.PerToken, Shared: len(p.Config.Shared), Tensors: len(p.Tasks), Written: p.Bytes(), Notes: g.Notes}
	s.Parameters, s.Active = p.Parameters()
	w, err := tensors.Create(out, p.Outputs(), tensors.WriteOptions{ShardBytes: o.ShardBytes, Force: o.Force, Resume: o.Resume, Fingerprint: p.fingerprint(g)})
	if err != nil {
		return nil, err
	}
	if err = p.fill(ctx, w, g, o); err == nil {
		err = p.files(w, s, l, o)
	}
	if err == nil && o.Provenance {
		err = p.record(w, out, g, l, o)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	s.Shards = len(w.Shards())
	if err := w.Commit(); err != nil {
		return nil, err
	}
	s.Seconds = time.Since(start).Seconds()
	s.PeakAnon, s.PeakRSS = watch.Stop()
	return s, nil
}

// fingerprint identifies everything that the output's bytes depend on.
func (p *Plan) fingerprint(g *Gates) string {
	h := sha256.New()
	fmt.Fprintf(h, "moe|%s|%s|seed %d|", p.Family, p.Options.Layout, p.Options.Seed)
	for _, m := range p.Models {
		merge.Identify(h, m)
	}
	for _, t := range p.Tasks {
		fmt.Fprintf(h, "%s%v%s|", t.Name, t.Shape, t.DType)
		for i := range t.Parts {
			part := &t.Parts[i]
			fmt.Fprintf(h, "%s %v %v %s|", part.Source(), part.Scale, part.Noise, part.stream)
		}
	}
	for _, rows := range [][]float32{g.Rows, g.SharedRows} {
		b := make([]byte, 4*len(rows))
		_ = tensors.EncodeFloat32(b, tensors.F32, rows) // of the right size
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// configName is what the configuration is called in the output.
const configName = "mergekit_moe_config.yml"

// files writes what stands beside the weights.
func (p *Plan) files(w *tensors.Writer, s *Summary, l legal, o Options) error {
	if err := w.WriteFile("config.json", p.JSON); err != nil {
		return err
	}
	if o.CopyTokenizer {
		if err := merge.CopyTokenizer(w, p.Base); err != nil {
			return err
		}
	}
	if !o.ModelCard {
		return nil
	}
	if err := w.WriteFile(configName, p.Config.Text); err != nil {
		return err
	}
	var b bytes.Buffer
	abs, err := filepath.Abs(s.Output)
	if err != nil {
		abs = s.Output
	}
	license := ""
	if provenance.Known(l.license) {
		license = l.license
	}
	err = card.Execute(&b, map[string]any{"Title": filepath.Base(abs), "S": s, "P": p, "Version": o.Version, "Hub": p.hubModels(), "License": license,
		"LicenseNotes": l.all(), "Text": string(bytes.TrimSpace(p.Config.Text))})
	if err != nil {
		return err
	}
	return w.WriteFile("README.md", b.Bytes())
}

// hubModels names the repositories of a hub among the models.
func (p *Plan) hubModels() []string {
	var list []string
	for _, m := range p.Models {
		if id, ok := merge.HubID(m.Ref, m.Remote); ok && !slices.Contains(list, id) {
			list = append(list, id)
		}
	}
	return list
}

var card = template.Must(template.New("card").Parse(`---
{{- if .Hub}}
base_model:
{{- range .Hub}}
- {{.}}
{{- end}}
{{- end}}
library_name: transformers
{{- if .License}}
license: {{.License}}
{{- end}}
tags:
- mergekit
- moe
---
# {{.Title}}

A mixture of {{.S.Experts}} experts ({{.P.Family}}), assembled with mergekit{{if .Version}} {{.Version}}{{end}}: {{.S.Parameters}} parameters, of which a token meets {{.S.Active}}; {{.S.PerToken}} experts for each token. The router was made by gate_mode {{.S.Gate}} and not trained.

## Models

* base: {{.P.Base.Name}}
{{- range .P.Config.Experts}}
* expert: {{.Model}}{{if .Noise}}, noise {{.Noise}}{{end}}{{if ne .Residual 1.0}}, residual_scale {{.Residual}}{{end}}
{{- end}}
{{- range .P.Config.Shared}}
* shared expert: {{.Model}}{{if .Noise}}, noise {{.Noise}}{{end}}{{if ne .Residual 1.0}}, residual_scale {{.Residual}}{{end}}
{{- end}}
{{- if .LicenseNotes}}

## Licences
{{range .LicenseNotes}}
* {{.}}
{{- end}}

As the inputs' model cards state them; this is no legal advice.
{{- end}}
{{- if .S.Notes}}

## Notes
{{range .S.Notes}}
* {{.}}
{{- end}}
{{- end}}

## Configuration

` + "```yaml" + `
{{.Text}}
` + "```" + `
`))
