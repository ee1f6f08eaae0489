package recipe

import (
	"fmt"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// evaluation writes evaluate and search. What is the default is left out.
func (w *writer) evaluation(r *Recipe) {
	if e := r.Evaluate; e != nil {
		w.line(0, "evaluate:")
		if e.HeldOut != nil {
			w.line(1, "held_out: {data: %s%s}", flow(e.HeldOut.Data), e.HeldOut.settings())
		}
		if e.Report != nil {
			w.line(1, "report: {data: %s%s}", flow(e.Report.Data), e.Report.settings())
		}
		for _, f := range []struct {
			key string
			on  bool
		}{{"flips", e.Flips}, {"ensemble", e.Ensemble}, {"temperature", e.Temperature}} {
			if f.on {
				w.line(1, "%s: true", f.key)
			}
		}
	}
	if r.Search != nil {
		w.search(r.Search)
	}
}

// settings lists what is not the default.
func (m *Measure) settings() string {
	def := DefaultMeasure()
	var s strings.Builder
	add := func(different bool, format string, args ...any) {
		if different {
			fmt.Fprintf(&s, ", "+format, args...)
		}
	}
	add(m.Task != def.Task, "task: %s", m.Task)
	add(m.Metric != def.Metric, "metric: %s", m.Metric)
	add(m.Field != def.Field, "field: %s", strictyaml.WriteText(m.Field))
	add(m.Limit != def.Limit, "limit: %d", m.Limit)
	add(m.SeqLen != def.SeqLen, "seq_len: %d", m.SeqLen)
	add(m.Batch != def.Batch, "batch: %d", m.Batch)
	add(m.Seed != def.Seed, "seed: %d", m.Seed)
	add(m.Divide != def.Divide, "divide: %s", number(m.Divide))
	add(m.LabelFirst != def.LabelFirst, "label_first: %t", m.LabelFirst)
	return s.String()
}

func (w *writer) search(s *Search) {
	def := DefaultSearch()
	w.line(0, "search:")
	add := func(different bool, format string, args ...any) {
		if different {
			w.line(1, format, args...)
		}
	}
	add(s.Method != def.Method, "method: %s", s.Method)
	add(s.Trials != def.Trials, "trials: %d", s.Trials)
	add(s.Parallel != def.Parallel, "parallel: %d", s.Parallel)
	add(s.Seed != def.Seed, "seed: %d", s.Seed)
	add(s.Sigma != def.Sigma, "sigma: %s", number(s.Sigma))
	add(s.Keep, "keep: true")
	w.line(1, "parameters:")
	for _, p := range s.Parameters {
		var more string
		if p.Start != nil {
			more += ", start: " + number(*p.Start)
		}
		if p.Scale != ScaleLinear {
			more += ", scale: " + p.Scale
		}
		w.line(2, "- {path: %s, range: [%s, %s]%s}", strictyaml.WriteText(p.Path.String()), number(p.Low), number(p.High), more)
	}
}
