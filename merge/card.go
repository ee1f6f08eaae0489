package merge

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/provenance"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/repair"
)

type cardFile struct{ Name, Size, Kind, Hash string }

type cardModel struct {
	Name  string
	Link  string
	Role  string // what it is, beside or instead of one whose weights are merged
	Files []cardFile
}

type card struct {
	Title, Version        string
	HubIDs                []string
	Method, URL, Citation string
	Base                  string
	Models                []cardModel
	Merged                int // of the models
	Recipe                string
	File                  string
	Tensors               int
	Elements              int64
	Config                []string
	Aligned               []AlignReport
	Repaired              string
	Searched              string
	Evaluated             string
	License               string
	LicenseNotes          []string
	Warnings              []string
}

var cardTemplate = template.Must(template.New("card").Funcs(template.FuncMap{"percent": func(x float64) float64 { return 100 * x }}).Parse(`---
{{- if .HubIDs}}
base_model:
{{- range .HubIDs}}
- {{.}}
{{- end}}
{{- end}}
library_name: transformers
{{- if .License}}
license: {{.License}}
{{- end}}
tags:
- mergekit
- merge
---
# {{.Title}}

A merge of {{.Merged}} checkpoint{{if ne .Merged 1}}s{{end}}, made with mergekit{{if .Version}} {{.Version}}{{end}}.

## Method

{{if .URL}}[{{.Method}}]({{.URL}}){{else}}{{.Method}}{{end}}{{if .Base}}, on the base {{.Base}}{{end}}: {{.Tensors}} tensors, {{.Elements}} parameters.
{{- if .Citation}}

{{.Citation}}.
{{- end}}

## Inputs
{{range .Models}}
* {{if .Link}}[{{.Name}}]({{.Link}}){{else}}{{.Name}}{{end}}{{if .Role}} ({{.Role}}){{end}}
{{- range .Files}}
  * ` + "`{{.Name}}`, {{.Size}} bytes, {{.Kind}} `{{.Hash}}`" + `
{{- end}}
{{- end}}
{{if .Aligned}}
## Alignment
{{range .Aligned}}
* {{.Model}}{{if .Skipped}} was not aligned: {{.Skipped}}{{else}} in the coordinates of {{.Reference}}, by {{if eq .Method "map"}}the saved alignment {{.File}}{{else}}{{.Method}} matching, seed {{.Seed}}{{end}}{{end}}
{{- with .Matched}}
  * agreement (inner product over norms) {{printf "%.4f" .Before}} before, {{printf "%.4f" .After}} after{{if .L2Before}}; distance {{printf "%.4g" .L2Before}} before, {{printf "%.4g" .L2After}} after (ratio {{printf "%.3f" .Ratio}}){{end}}
  * {{printf "%.1f" (percent .Moved)}} % of the units moved; {{.Rounds}} round{{if ne .Rounds 1}}s{{end}}{{if .Certificates}}, {{.Certificates}} assignments proved optimal{{end}}
{{- end}}
  * symmetry spec {{.Spec}}, hash ` + "`{{.SpecHash}}`" + `{{if .Exact}}; values were only moved and their signs flipped{{end}}{{if .Turned}}; the stream was turned and gains were folded{{end}}
{{- if .Ancestry}}
  * ancestry: {{.Ancestry}}
{{- end}}
{{- if .SavedAs}}
  * map: ` + "`{{.SavedAs}}`" + `
{{- end}}
{{- end}}
{{end}}
{{- if .Repaired}}
## Repair

{{.Repaired}}.
{{end}}
{{- if .Searched}}
## Search

{{.Searched}}
{{end}}
{{- if .Evaluated}}
## Evaluation

{{.Evaluated}}
{{end}}
{{- if .LicenseNotes}}
## Licences
{{range .LicenseNotes}}
* {{.}}
{{- end}}

As the inputs' model cards state them; this is no legal advice.
{{end}}
{{- if .Warnings}}
## Notes from the merge
{{range .Warnings}}
* {{.}}
{{- end}}
{{end}}
## Recipe

` + "```yaml" + `
{{.Recipe}}
` + "```" + `
`))

// modelCard renders README.md. It holds nothing that changes from run to run: the same merge writes the same card.
func modelCard(p *plan.Plan, from []origin, maps *aligned, report *repair.Report, measured *Evaluated, searched *SearchReport, out, version string) ([]byte, error) {
	c := card{Title: cardTitle(out), Version: version, Method: p.Method.Title, URL: p.Method.Paper.URL, Citation: p.Method.Paper.Text,
		Recipe: strings.TrimRight(string(p.Recipe.Text), "\n"), Tensors: len(p.Outputs()), Elements: p.Elements(), Warnings: p.Warnings}
	if report != nil {
		c.Repaired = repairText(report)
	}
	if searched != nil {
		c.Searched = searched.text()
	}
	if measured != nil {
		c.Evaluated = evaluatedText(measured)
	}
	if maps != nil {
		c.Aligned = maps.reports
	}
	if p.Recipe.Base != nil {
		c.Base = p.Recipe.Base.String()
	}
	for _, m := range from {
		cm := cardModel{Name: m.ref.String()}
		switch {
		case m.speller:
			cm.Role = "its tokenizer alone"
		case m.base:
			cm.Role = "base"
		}
		if !m.speller {
			c.Merged++
		}
		if id, ok := HubID(m.ref, m.remote); ok {
			if !m.speller { // a hub draws its trees of models from these
				c.HubIDs = append(c.HubIDs, id)
			}
			cm.Link = hub.DefaultEndpoint + "/" + id
		}
		for _, f := range m.files {
			cf, err := identify(f)
			if err != nil {
				return nil, err
			}
			cm.Files = append(cm.Files, cf)
		}
		c.Models = append(c.Models, cm)
	}
	license, conflicts, notes := provenance.Judge(licenses(from))
	c.LicenseNotes = append(conflicts, notes...)
	if provenance.Known(license) {
		c.License = license
	}
	var b bytes.Buffer
	if err := cardTemplate.Execute(&b, c); err != nil {
		return nil, fmt.Errorf("model card: %w", err)
	}
	return b.Bytes(), nil
}

func cardTitle(out string) string {
	abs, err := filepath.Abs(out)
	if err != nil {
		return filepath.Base(out)
	}
	return filepath.Base(abs)
}

// identify describes a weight file for people.
func identify(file string) (cardFile, error) {
	f, err := provenance.Identify(file, false)
	if err != nil {
		return cardFile{}, err
	}
	c := cardFile{Name: f.Name, Size: fmt.Sprint(f.Bytes), Kind: "SHA-256", Hash: f.SHA256}
	if c.Hash == "" {
		c.Kind, c.Hash = "SHA-256 of the header", f.HeaderSHA256
	}
	return c, nil
}

// HubID returns the reference's repository on a hub, when that is where it leads (remote).
func HubID(ref recipe.ModelRef, remote bool) (string, bool) {
	if !remote || !hub.Looks(ref.Path) {
		return "", false
	}
	n, err := hub.ParseName(ref.Path, ref.Revision)
	return n.Repo, err == nil
}
