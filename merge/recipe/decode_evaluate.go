package recipe

import (
	"slices"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

var (
	evaluateKeys        = []string{"held_out", "report", "flips", "ensemble", "temperature"}
	measureKeys         = []string{"data", "task", "metric", "field", "limit", "seq_len", "batch", "seed", "divide", "label_first"}
	searchKeys          = []string{"method", "trials", "parallel", "seed", "sigma", "keep", "parameters"}
	searchParameterKeys = []string{"path", "range", "start", "scale"}

	tasks         = []string{TaskAuto, TaskLM, TaskChoice, TaskClassify}
	metrics       = []string{MetricAuto, MetricLoss, MetricAccuracy, MetricMacroF1}
	searchMethods = []string{SearchCMAES, SearchRandom}
	scales        = []string{ScaleLinear, ScaleLog}
)

// otherMetrics are spellings of other programs.
var otherMetrics = map[string]string{"acc": MetricAccuracy, "nll": MetricLoss, "cross_entropy": MetricLoss, "f1": MetricMacroF1, "perplexity": MetricLoss}

// Bounds of a search: beyond them a number is a slip of the finger.
const (
	maxTrials     = 1_000_000
	maxParallel   = 1024
	maxParameters = 200
)

// evaluate decodes the evaluate mapping.
func (d *decoder) evaluate(f field) *Evaluate {
	e := &Evaluate{Pos: f.At.Pos}
	if f.Value.Kind != yaml.MappingNode {
		d.Errorf(f.Value, "evaluate must be a mapping; here is %s (such as evaluate: {held_out: {data: val.jsonl}})", strictyaml.Describe(f.Value))
		return e
	}
	fields, ok := d.Mapping(f.Value, "evaluate")
	measured := false
	for _, f := range fields {
		near := f.Key
		if !slices.Contains(evaluateKeys, f.Key) {
			near = Nearest(f.Key, evaluateKeys)
		}
		measured = measured || near == "held_out" || near == "report"
		if strictyaml.IsNull(f.Value) && slices.Contains(evaluateKeys, f.Key) {
			if near == "held_out" || near == "report" {
				d.Errorf(f.At, "%s has no data; add data: FILE with rows that the merge is measured on", f.Key)
			}
			continue
		}
		switch f.Key {
		case "held_out":
			e.HeldOut = d.measure(f)
		case "report":
			e.Report = d.measure(f)
		case "flips":
			d.boolean(f, &e.Flips)
		case "ensemble":
			d.boolean(f, &e.Ensemble)
		case "temperature":
			d.boolean(f, &e.Temperature)
		default:
			d.Unknown(f, "evaluate", evaluateKeys, map[string]string{
				"data":    "it stands below held_out (data that may select) or report (data that never does)",
				"metric":  "it stands below held_out or report",
				"limit":   "it stands below held_out or report",
				"barrier": "mergekit barrier measures the way between models",
			})
		}
	}
	if !measured && ok {
		d.Errorf(f.At, "evaluate measures nothing; add held_out: {data: FILE}, or report: {data: FILE}")
	}
	if e.HeldOut != nil && e.Report != nil {
		for _, file := range e.Report.Data {
			if slices.ContainsFunc(e.HeldOut.Data, func(o string) bool { return cleanPath(o) == cleanPath(file) }) {
				d.ErrorAt(e.Report.DataPos, f.Value, "report and held_out both read %s; report tells the truth only on data that nothing was selected by", strictyaml.Quoted(file))
				break
			}
		}
	}
	return e
}

// measure decodes data and what is measured on it, or the name of the data alone.
func (d *decoder) measure(f field) *Measure {
	m := DefaultMeasure()
	m.Pos, m.DataPos = f.At.Pos, f.Value.Pos
	what := f.Key
	if f.Value.Kind == yaml.ScalarNode {
		if file, ok := d.Text(f.Value, what); ok {
			m.Data = []string{file}
		}
		return m
	}
	fields, ok := d.Mapping(f.Value, what)
	hasData := false
	for _, f := range fields {
		hasData = hasData || f.Key == "data" || Nearest(f.Key, measureKeys) == "data"
		if strictyaml.IsNull(f.Value) && slices.Contains(measureKeys, f.Key) && f.Key != "data" {
			continue
		}
		switch f.Key {
		case "data":
			m.DataPos = f.Value.Pos
			m.Data = d.texts(f.Value, "data", "val.jsonl")
		case "task":
			d.choice(f, &m.Task, tasks)
		case "metric":
			d.metric(f, &m.Metric)
		case "field":
			if text, ok := d.Text(f.Value, "field"); ok {
				m.Field = text
			}
		case "limit":
			d.wholeIn(f, &m.Limit, 0, maxSamples)
		case "seq_len":
			d.wholeIn(f, &m.SeqLen, 1, maxSeqLen)
		case "batch":
			d.wholeIn(f, &m.Batch, 1, maxBatch)
		case "seed":
			d.seed(f, &m.Seed)
		case "divide":
			d.positive(f, &m.Divide)
		case "label_first":
			d.boolean(f, &m.LabelFirst)
		default:
			d.Unknown(f, what, measureKeys, map[string]string{"samples": "rows are bounded by limit", "flips": "it stands beside " + what, "ensemble": "it stands beside " + what})
		}
	}
	if !hasData && ok {
		d.Errorf(f.At, "%s has no data; add data: FILE with rows that the merge is measured on", what)
	}
	return m
}

// metric decodes a metric and knows the names that others give it.
func (d *decoder) metric(f field, into *string) {
	if f.Value.Kind == yaml.ScalarNode {
		if ours := otherMetrics[f.Value.Value]; ours != "" {
			d.Errorf(f.Value, "unknown metric %s; did you mean %q?", strictyaml.Quoted(f.Value.Value), ours)
			return
		}
	}
	d.choice(f, into, metrics)
}

// search decodes the search mapping.
func (d *decoder) search(f field) *Search {
	s := DefaultSearch()
	s.Pos = f.At.Pos
	if f.Value.Kind != yaml.MappingNode {
		d.Errorf(f.Value, "search must be a mapping; here is %s (such as search: {parameters: [{path: parameters.lambda, range: [0.1, 2]}]})", strictyaml.Describe(f.Value))
		return s
	}
	fields, ok := d.Mapping(f.Value, "search")
	searched := false
	for _, f := range fields {
		searched = searched || f.Key == "parameters" || Nearest(f.Key, searchKeys) == "parameters"
		if strictyaml.IsNull(f.Value) && slices.Contains(searchKeys, f.Key) && f.Key != "parameters" {
			continue
		}
		switch f.Key {
		case "method":
			d.choice(f, &s.Method, searchMethods)
		case "trials":
			d.wholeIn(f, &s.Trials, 1, maxTrials)
		case "parallel":
			d.wholeIn(f, &s.Parallel, 1, maxParallel)
		case "seed":
			d.seed(f, &s.Seed)
		case "sigma":
			if d.numberIn(f, &s.Sigma, 0, 1); s.Sigma == 0 {
				d.Errorf(f.Value, "sigma must be greater than 0: it is the first step, as a share of each range, such as 0.3")
			}
		case "keep":
			d.boolean(f, &s.Keep)
		case "parameters":
			s.Parameters = d.searchParameters(f.Value)
		default:
			d.Unknown(f, "search", searchKeys, map[string]string{
				"path":   "it stands below parameters",
				"range":  "it stands below parameters",
				"data":   "what is measured stands below evaluate, as held_out",
				"metric": "what is measured stands below evaluate, as held_out",
				"budget": "the number of merges is trials",
			})
		}
	}
	if !searched && ok {
		d.Errorf(f.At, "search has no parameters; add parameters: [{path: parameters.lambda, range: [0.1, 2]}]")
	}
	return s
}

func (d *decoder) searchParameters(x node) []SearchParameter {
	items, ok := d.Items(x, "parameters")
	if ok && len(items) == 0 {
		d.Errorf(x, "parameters is an empty list; give at least one entry, such as {path: parameters.lambda, range: [0.1, 2]}")
	}
	if len(items) > maxParameters {
		d.Errorf(items[maxParameters], "a search moves at most %d parameters; here are %d (with * one value serves several places)", maxParameters, len(items))
		return nil
	}
	var list []SearchParameter
	for _, item := range items {
		if p, ok := d.searchParameter(item); ok {
			list = append(list, p)
		}
	}
	return list
}

func (d *decoder) searchParameter(item node) (SearchParameter, bool) {
	p := SearchParameter{Pos: item.Pos, Scale: ScaleLinear}
	fields, ok := d.Mapping(item, "an item of parameters")
	before := len(d.Errs)
	var hasPath, hasRange bool
	var startAt, rangeAt node
	for _, f := range fields {
		near := f.Key
		if !slices.Contains(searchParameterKeys, f.Key) {
			near = Nearest(f.Key, searchParameterKeys)
		}
		hasPath, hasRange = hasPath || near == "path", hasRange || near == "range"
		if strictyaml.IsNull(f.Value) && (f.Key == "start" || f.Key == "scale") {
			continue
		}
		switch f.Key {
		case "path":
			if text, good := d.Text(f.Value, "path"); good {
				path, err := ParsePath(text)
				if err != nil {
					d.Errorf(f.Value, "%s", err)
				}
				path.Pos = f.Value.Pos
				p.Path = path
			}
		case "range":
			rangeAt = f.Value
			p.Low, p.High = d.searchRange(f)
		case "start":
			startAt = f.Value
			if v, good := d.number(f.Value, "start"); good {
				p.Start = &v
			}
		case "scale":
			d.choice(f, &p.Scale, scales)
		default:
			d.Unknown(f, "an item of parameters", searchParameterKeys, map[string]string{
				"min": "both ends stand in range: [LOW, HIGH]", "max": "both ends stand in range: [LOW, HIGH]",
				"name": "a parameter is named by its path, such as parameters.lambda", "value": "where the search begins is start",
			})
		}
	}
	if !ok || len(d.Errs) > before {
		return p, false
	}
	switch {
	case !hasPath:
		d.Errorf(item, "an item of parameters has no path; add path: parameters.NAME, what is searched")
	case !hasRange:
		d.Errorf(item, "an item of parameters has no range; add range: [LOW, HIGH]")
	case p.Scale == ScaleLog && p.Low <= 0:
		d.Errorf(rangeAt, "a range on the scale log must begin above 0; here is %g", p.Low)
	case p.Start != nil && (*p.Start < p.Low || *p.Start > p.High):
		d.Errorf(startAt, "start must lie in the range [%g, %g]; here is %g", p.Low, p.High, *p.Start)
	default:
		return p, true
	}
	return p, false
}

// searchRange decodes [LOW, HIGH].
func (d *decoder) searchRange(f field) (low, high float64) {
	items, ok := d.Items(f.Value, f.Key)
	if !ok {
		return 0, 0
	}
	if len(items) != 2 {
		d.Errorf(f.Value, "range must have two numbers, its ends, such as [0.1, 2]; here are %d", len(items))
		return 0, 0
	}
	var v [2]float64
	for i, item := range items {
		if v[i], ok = d.number(item, "range"); !ok {
			return 0, 0
		}
	}
	if v[0] >= v[1] {
		d.Errorf(f.Value, "range [%g, %g] is empty; its first number must be the smaller one", v[0], v[1])
	}
	if width := v[1] - v[0]; width > 1e300 {
		d.Errorf(f.Value, "range [%g, %g] is wider than any parameter needs; narrow it", v[0], v[1])
	}
	return v[0], v[1]
}

// checkSearch wants data to search by, and paths that lead to numbers of the recipe, no two to the same. hasEvaluate says whether the
// key stands in the recipe, right or wrong.
func (d *decoder) checkSearch(r *Recipe, root node, hasEvaluate bool) {
	s := r.Search
	if s == nil {
		return
	}
	if r.Evaluate == nil && !hasEvaluate || r.Evaluate != nil && r.Evaluate.HeldOut == nil && r.Evaluate.Report != nil {
		d.ErrorAt(s.Pos, root, "search has nothing to go by; add evaluate: {held_out: {data: FILE}}, data by which parameters are chosen")
	}
	for i := range s.Parameters {
		p := &s.Parameters[i]
		if _, err := r.Numbers(p.Path); err != nil {
			d.ErrorAt(p.Path.Pos, root, "%s", err)
			continue
		}
		for k := range s.Parameters[:i] {
			if o := &s.Parameters[k]; o.Path.overlaps(p.Path) {
				d.ErrorAt(p.Path.Pos, root, "%s is searched at line %d already, as %s; keep one", strictyaml.Clip(p.Path.String()), o.Path.Pos.Line, strictyaml.Clip(o.Path.String()))
				break
			}
		}
	}
}
