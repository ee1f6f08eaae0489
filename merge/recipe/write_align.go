package recipe

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

// number writes a number as YAML 1.1 reads it.
func number(v float64) string {
	return strictyaml.Scalar{Form: strictyaml.FormFloat, Float: v}.String()
}

// flow writes a list of texts on one line.
func flow(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = strictyaml.WriteText(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// alignment writes the keys about alignment. What is the default is left out.
func (w *writer) alignment(r *Recipe) {
	if r.Align != nil {
		w.align(r.Align)
	}
	if r.Repair != nil {
		w.line(0, "repair: {mode: %s, samples: %d}", r.Repair.Mode, r.Repair.Samples)
	}
	if c := r.Calibration; c != nil {
		w.line(0, "calibration: {data: %s%s}", flow(c.Data), c.settings())
	}
	if r.SaveAlignment != "" {
		w.line(0, "save_alignment: %s", strictyaml.WriteText(r.SaveAlignment))
	}
	w.evaluation(r)
	if len(r.Requires) > 0 {
		w.line(0, "requires: %s", flow(r.Requires))
	}
}

// settings lists what is set.
func (l *Learn) settings() string {
	s := fmt.Sprintf("groups: %s, lambda: [%s, %s], batch: %d, held_out: %s", flow(l.Groups), number(l.Lambda[0]), number(l.Lambda[1]), l.Batch, number(l.HeldOut))
	if l.Steps > 0 {
		s += fmt.Sprintf(", steps: %d", l.Steps)
	}
	if l.LR > 0 {
		s += ", lr: " + number(l.LR)
	}
	return s
}

// settings lists what is not the default.
func (c *Calibration) settings() string {
	def := defaultCalibration()
	var s string
	add := func(different bool, format string, args ...any) {
		if different {
			s += ", " + fmt.Sprintf(format, args...)
		}
	}
	add(c.Field != def.Field, "field: %s", strictyaml.WriteText(c.Field))
	add(c.Samples != def.Samples, "samples: %d", c.Samples)
	add(c.SeqLen != def.SeqLen, "seq_len: %d", c.SeqLen)
	add(c.Seed != def.Seed, "seed: %d", c.Seed)
	add(c.Batch != def.Batch, "batch: %d", c.Batch)
	add(c.Divide != def.Divide, "divide: %s", number(c.Divide))
	add(c.LabelFirst != def.LabelFirst, "label_first: %t", c.LabelFirst)
	return s
}

func (w *writer) align(a *Align) {
	def := DefaultAlign()
	var lines []string
	add := func(different bool, format string, args ...any) {
		if different {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	add(a.Universe, "reference: %s", UniverseReference)
	if a.Reference != nil {
		ref := reference(*a.Reference)
		if ref == UniverseReference {
			ref = "{model: " + ref + "}"
		}
		add(true, "reference: %s", ref)
	}
	add(a.Method != def.Method, "method: %s", a.Method)
	add(a.Symmetry != def.Symmetry, "symmetry: %s", a.Symmetry)
	add(a.Groups != def.Groups, "groups: {residual: %s, mlp: %t, heads: %t, qk: %t, vo: %s}", a.Groups.Residual, a.Groups.MLP, a.Groups.Heads, a.Groups.QK, a.Groups.VO)
	add(a.Spec != "", "spec: %s", strictyaml.WriteText(a.Spec))
	add(a.Rounds != def.Rounds, "rounds: %d", a.Rounds)
	add(a.Restarts != def.Restarts, "restarts: %d", a.Restarts)
	add(a.Normalize != def.Normalize, "normalize: %s", a.Normalize)
	add(a.Init != def.Init, "init: %s", a.Init)
	add(a.Seed != def.Seed, "seed: %d", a.Seed)
	add(a.Lambda != def.Lambda, "lambda: %s", number(a.Lambda))
	l := a.Learn
	l.Pos = Pos{}
	add(!reflect.DeepEqual(l, def.Learn), "learn: {%s}", l.settings())
	add(a.OnSameBase != def.OnSameBase, "on_same_base: %s", a.OnSameBase)
	if len(lines) == 0 && len(a.Maps) == 0 {
		w.line(0, "align: {}")
		return
	}
	w.line(0, "align:")
	for _, s := range lines {
		w.line(1, "%s", s)
	}
	switch {
	case len(a.Maps) == 1 && a.Maps[0].Model == nil:
		w.line(1, "map: %s", strictyaml.WriteText(a.Maps[0].File))
	case len(a.Maps) > 0:
		w.line(1, "map:")
		for i := range a.Maps {
			w.line(2, "- {model: %s, file: %s}", reference(*a.Maps[i].Model), strictyaml.WriteText(a.Maps[i].File))
		}
	}
}
