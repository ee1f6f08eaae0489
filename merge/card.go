package merge

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/repair"
	"github.com/mergekit/mergekit/tensors"
)

// fullHashBytes is the size up to which a model card names the SHA-256 of an input's whole content; larger files are
// identified by their header and size unless their content hash is known already.
const fullHashBytes = 64 << 20

type cardFile struct{ Name, Size, Kind, Hash string }

type cardModel struct {
	Name  string
	Link  string
	Base  bool
	Files []cardFile
}

type card struct {
	Title, Version        string
	HubIDs                []string
	Method, URL, Citation string
	Base                  string
	Models                []cardModel
	Recipe                string
	File                  string
	Tensors               int
	Elements              int64
	Config                []string
	Aligned               []AlignReport
	Repaired              string
	Searched              string
	Evaluated             string
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
tags:
- mergekit
- merge
---
# {{.Title}}

A merge of {{len .Models}} checkpoint{{if ne (len .Models) 1}}s{{end}}, made with mergekit{{if .Version}} {{.Version}}{{end}}.

## Method

{{if .URL}}[{{.Method}}]({{.URL}}){{else}}{{.Method}}{{end}}{{if .Base}}, on the base {{.Base}}{{end}}: {{.Tensors}} tensors, {{.Elements}} parameters.
{{- if .Citation}}

{{.Citation}}.
{{- end}}

## Inputs
{{range .Models}}
* {{if .Link}}[{{.Name}}]({{.Link}}){{else}}{{.Name}}{{end}}{{if .Base}} (base){{end}}
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
func modelCard(p *plan.Plan, maps *aligned, report *repair.Report, measured *Evaluated, searched *SearchReport, out, version string) ([]byte, error) {
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
	for _, m := range p.Models {
		cm := cardModel{Name: m.Name()}
		if id, ok := hubID(m.Ref); ok {
			c.HubIDs = append(c.HubIDs, id)
			cm.Link = "https://huggingface.co/" + id
		}
		if p.Recipe.Base != nil && m.Ref.Same(*p.Recipe.Base) {
			cm.Base = true
			c.Base = m.Name()
		}
		for _, f := range m.Files() {
			cf, err := identify(f)
			if err != nil {
				return nil, err
			}
			cm.Files = append(cm.Files, cf)
		}
		c.Models = append(c.Models, cm)
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

// identify describes a weight file: by the SHA-256 of its content where that is cheap (small files, or files of the
// Hugging Face cache, whose names are their hashes), else by the SHA-256 of its header together with its size.
func identify(file string) (cardFile, error) {
	st, err := os.Stat(file)
	if err != nil {
		return cardFile{}, err
	}
	c := cardFile{Name: filepath.Base(file), Size: fmt.Sprint(st.Size()), Kind: "SHA-256"}
	if real, err := filepath.EvalSymlinks(file); err == nil && filepath.Base(filepath.Dir(real)) == "blobs" && len(filepath.Base(real)) == 64 {
		c.Hash = filepath.Base(real)
		return c, nil
	}
	if st.Size() <= fullHashBytes {
		c.Hash, err = tensors.SHA256(file)
		return c, err
	}
	c.Kind = "SHA-256 of the header"
	c.Hash, err = tensors.HeaderDigest(file)
	return c, err
}

// hubID returns the reference's hub id, when it looks like one and is no local path.
func hubID(ref recipe.ModelRef) (string, bool) {
	p := ref.Path
	if strings.Count(p, "/") != 1 || strings.HasPrefix(p, "/") || strings.HasPrefix(p, ".") || strings.HasPrefix(p, "~") || strings.HasSuffix(p, "/") {
		return "", false
	}
	if _, err := os.Stat(p); err == nil {
		return "", false
	}
	return p, true
}
