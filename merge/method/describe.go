package method

// Description is what there is to say about a method, for programs to read.
type Description struct {
	Name       string                 `json:"name"`
	Title      string                 `json:"title"`
	Summary    string                 `json:"summary"`
	Formula    string                 `json:"formula"`
	Base       string                 `json:"base"`
	Min        int                    `json:"min_inputs"`
	Max        int                    `json:"max_inputs"` // 0: no limit
	Parameters []ParameterDescription `json:"parameters"`
	Paper      string                 `json:"paper"`
	URL        string                 `json:"url"`
}

// ParameterDescription is what there is to say about a parameter.
type ParameterDescription struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	PerModel bool   `json:"per_model"`
	Required bool   `json:"required"`
	Default  any    `json:"default"`
	Doc      string `json:"doc"`
}

// Describe says what the method is and what it takes.
func (m *Method) Describe() Description {
	d := Description{Name: m.Name, Title: m.Title, Summary: m.Summary, Formula: m.Formula, Base: m.Base.String(), Min: m.Min, Max: m.Max, Paper: m.Paper.Text, URL: m.Paper.URL}
	for _, p := range m.Params {
		d.Parameters = append(d.Parameters, ParameterDescription{p.Name, p.Kind.String(), p.PerInput, p.Required, p.Default, p.Doc})
	}
	return d
}
