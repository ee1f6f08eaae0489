package recipe

import (
	"fmt"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/mergekit/mergekit/internal/strictyaml"
)

var (
	alignKeys = []string{"reference", "method", "symmetry", "groups", "spec", "rounds", "restarts", "normalize", "init", "seed", "lambda",
		"learn", "on_same_base", "map"}
	groupKeys       = []string{"residual", "mlp", "heads", "qk", "vo"}
	learnKeys       = []string{"groups", "steps", "lr", "lambda", "batch", "held_out"}
	alignMapKeys    = []string{"model", "file"}
	repairKeys      = []string{"mode", "samples"}
	calibrationKeys = []string{"data", "field", "samples", "seq_len", "seed", "batch", "divide", "label_first"}

	alignMethods   = []string{AlignWeight, AlignActivation, AlignDual, AlignSTE, AlignLearned}
	symmetries     = []string{"auto", "permutation", "signed", "full"}
	residualKinds  = []string{"auto", "none", "permutation", "signed", "orthogonal"}
	voKinds        = []string{"none", "orthogonal", "invertible"}
	normalizations = []string{"none", "tensor"}
	initialMaps    = []string{"anchors", "identity", "random"}
	sameBase       = []string{SameBaseWarn, SameBaseSkip, SameBaseForce}
	repairModes    = []string{RepairResetNorm, RepairActivations, RepairNorms, RepairNone}
)

// Bounds of what is counted in recipes about alignment: beyond them a number is a slip of the finger.
const (
	maxRounds  = 1000
	maxSteps   = 10_000_000
	maxSamples = 1 << 30
	maxSeqLen  = 1 << 20
	maxBatch   = 1 << 20
)

// align decodes the align mapping.
func (d *decoder) align(f field) *Align {
	a := DefaultAlign()
	a.Pos = f.At.Pos
	for _, f := range d.block(f.Value, "align", "align: {} takes all defaults") {
		if strictyaml.IsNull(f.Value) && slices.Contains(alignKeys, f.Key) {
			continue
		}
		switch f.Key {
		case "reference":
			if f.Value.Kind == yaml.ScalarNode && f.Value.Value == UniverseReference {
				a.Universe = true
			} else if ref, ok := d.ref(f.Value, "reference"); ok {
				a.Reference = &ref
			}
		case "method":
			d.choice(f, &a.Method, alignMethods)
		case "symmetry":
			d.choice(f, &a.Symmetry, symmetries)
		case "groups":
			d.alignGroups(f.Value, &a.Groups)
		case "spec":
			a.SpecPos = f.Value.Pos
			if text, ok := d.Text(f.Value, "spec"); ok && text != "auto" {
				a.Spec = text
			}
		case "rounds":
			d.wholeIn(f, &a.Rounds, 1, maxRounds)
		case "restarts":
			d.wholeIn(f, &a.Restarts, 0, maxRounds)
		case "normalize":
			d.choice(f, &a.Normalize, normalizations)
		case "init":
			d.choice(f, &a.Init, initialMaps)
		case "seed":
			d.seed(f, &a.Seed)
		case "lambda":
			d.numberIn(f, &a.Lambda, 0, 1)
		case "learn":
			d.learn(f, &a.Learn)
		case "on_same_base":
			d.choice(f, &a.OnSameBase, sameBase)
		case "map":
			a.Maps = d.alignMaps(f.Value)
		default:
			d.Unknown(f, "align", alignKeys, map[string]string{
				"residual":       "it stands below groups",
				"samples":        "it stands below calibration, beside align",
				"data":           "it stands below calibration, beside align",
				"save":           "the key beside align is save_alignment",
				"save_alignment": "it stands beside align",
				"repair":         "it stands beside align",
			})
		}
	}
	return a
}

// block reads the entries of a mapping that has a place of its own among the keys of a recipe.
func (d *decoder) block(x node, what, hint string) []field {
	if x.Kind == yaml.ScalarNode {
		d.Errorf(x, "%s must be a mapping; here is %s (%s)", what, strictyaml.Describe(x), hint)
		return nil
	}
	fields, _ := d.Mapping(x, what)
	return fields
}

func (d *decoder) alignGroups(x node, g *AlignGroups) {
	for _, f := range d.block(x, "groups", "such as groups: {residual: signed, vo: none}") {
		if strictyaml.IsNull(f.Value) && slices.Contains(groupKeys, f.Key) {
			continue
		}
		switch f.Key {
		case "residual":
			d.switched(f, &g.Residual, residualKinds, "auto")
		case "vo":
			d.switched(f, &g.VO, voKinds, "orthogonal")
		case "mlp":
			d.boolean(f, &g.MLP)
		case "heads":
			d.boolean(f, &g.Heads)
		case "qk":
			d.boolean(f, &g.QK)
		default:
			d.Unknown(f, "groups", groupKeys, nil)
		}
	}
}

func (d *decoder) learn(f field, l *Learn) {
	l.Pos = f.At.Pos
	for _, f := range d.block(f.Value, "learn", "such as learn: {steps: 500, lr: 1e-3}") {
		if strictyaml.IsNull(f.Value) && slices.Contains(learnKeys, f.Key) {
			continue
		}
		switch f.Key {
		case "groups":
			l.Groups = d.texts(f.Value, "groups", "residual")
		case "steps":
			d.wholeIn(f, &l.Steps, 1, maxSteps)
		case "lr":
			d.positive(f, &l.LR)
		case "lambda":
			d.interval(f, &l.Lambda)
		case "batch":
			d.wholeIn(f, &l.Batch, 1, maxBatch)
		case "held_out":
			if d.numberIn(f, &l.HeldOut, 0, 1); l.HeldOut == 0 || l.HeldOut == 1 {
				d.Errorf(f.Value, "held_out must leave rows on both sides: a share between 0 and 1, such as 0.2")
			}
		default:
			d.Unknown(f, "learn", learnKeys, nil)
		}
	}
}

// alignMaps decodes saved alignments: a file, or a list of {model, file}.
func (d *decoder) alignMaps(x node) []AlignMap {
	if x.Kind == yaml.ScalarNode {
		if file, ok := d.Text(x, "map"); ok {
			return []AlignMap{{File: file, Pos: x.Pos}}
		}
		return nil
	}
	items, _ := d.Items(x, "map")
	if len(items) == 0 && x.Kind == yaml.SequenceNode {
		d.Errorf(x, "map is an empty list; name a file or remove the key")
	}
	var list []AlignMap
	for _, item := range items {
		m := AlignMap{Pos: item.Pos}
		fields, ok := d.Mapping(item, "an item of map")
		for _, f := range fields {
			var good bool
			switch f.Key {
			case "model":
				var ref ModelRef
				if ref, good = d.ref(f.Value, "model"); good {
					m.Model = &ref
				}
			case "file":
				m.File, good = d.Text(f.Value, "file")
			default:
				good = false
				d.Unknown(f, "an item of map", alignMapKeys, nil)
			}
			ok = ok && good
		}
		switch {
		case !ok:
			continue
		case m.Model == nil:
			d.Errorf(item, "an item of map has no model; add model: PATH, the model that the alignment is of")
			continue
		case m.File == "":
			d.Errorf(item, "an item of map has no file; add file: PATH, an alignment that was saved")
			continue
		}
		if slices.ContainsFunc(list, func(o AlignMap) bool { return o.Model.Same(*m.Model) }) {
			d.ErrorAt(m.Pos, x, "map has two alignments of %s; keep one", strictyaml.Clip(m.Model.String()))
			continue
		}
		list = append(list, m)
	}
	return list
}

// repair decodes the repair mapping, or its mode alone.
func (d *decoder) repair(f field) *Repair {
	r := &Repair{Pos: f.At.Pos, Samples: 2048}
	if f.Value.Kind == yaml.ScalarNode {
		f.Key = "repair"
		d.choice(f, &r.Mode, repairModes)
		return r
	}
	fields, ok := d.Mapping(f.Value, "repair")
	hasMode := false
	for _, f := range fields {
		hasMode = hasMode || f.Key == "mode" || Nearest(f.Key, repairKeys) == "mode"
		if strictyaml.IsNull(f.Value) && slices.Contains(repairKeys, f.Key) {
			continue
		}
		switch f.Key {
		case "mode":
			d.choice(f, &r.Mode, repairModes)
		case "samples":
			d.wholeIn(f, &r.Samples, 1, maxSamples)
		default:
			d.Unknown(f, "repair", repairKeys, map[string]string{"data": "it stands below calibration, beside repair"})
		}
	}
	if r.Mode == "" && ok && !hasMode {
		d.Errorf(f.At, "repair has no mode; it is one of %s", strictyaml.Listed(repairModes))
	}
	return r
}

// calibration decodes the calibration mapping, or the name of its data alone.
func (d *decoder) calibration(f field) *Calibration {
	c := defaultCalibration()
	c.Pos = f.At.Pos
	if f.Value.Kind == yaml.ScalarNode {
		if file, ok := d.Text(f.Value, "calibration"); ok {
			c.Data = []string{file}
		}
		return c
	}
	fields, ok := d.Mapping(f.Value, "calibration")
	hasData := false
	for _, f := range fields {
		hasData = hasData || f.Key == "data" || Nearest(f.Key, calibrationKeys) == "data"
		if strictyaml.IsNull(f.Value) && slices.Contains(calibrationKeys, f.Key) && f.Key != "data" {
			continue
		}
		switch f.Key {
		case "data":
			c.Data = d.texts(f.Value, "data", "calib.jsonl")
		case "field":
			if text, ok := d.Text(f.Value, "field"); ok {
				c.Field = text
			}
		case "samples":
			d.wholeIn(f, &c.Samples, 1, maxSamples)
		case "seq_len":
			d.wholeIn(f, &c.SeqLen, 1, maxSeqLen)
		case "seed":
			d.seed(f, &c.Seed)
		case "batch":
			d.wholeIn(f, &c.Batch, 1, maxBatch)
		case "divide":
			d.positive(f, &c.Divide)
		case "label_first":
			d.boolean(f, &c.LabelFirst)
		default:
			d.Unknown(f, "calibration", calibrationKeys, nil)
		}
	}
	if !hasData && ok {
		d.Errorf(f.At, "calibration has no data; add data: FILE with rows of text (or examples, for networks that are no language models)")
	}
	return c
}

// saveAlignment decodes the name of the file that keeps the map.
func (d *decoder) saveAlignment(x node) string {
	name, ok := d.Text(x, "save_alignment")
	switch {
	case !ok:
		return ""
	case name == "model.safetensors" || strings.HasPrefix(name, "model-"):
		d.Errorf(x, "save_alignment: %s is what weights are called; choose another name, such as alignment.safetensors", strictyaml.Quoted(name))
		return ""
	case strings.ContainsAny(name, `/\`) || !strings.HasSuffix(name, ".safetensors") || strings.HasPrefix(name, "."):
		d.Errorf(x, "save_alignment must be the name of a safetensors file in the output's directory, such as alignment.safetensors; here is %s", strictyaml.Quoted(name))
		return ""
	}
	return name
}

// requires decodes the features that a recipe counts on.
func (d *decoder) requires(x node) []string {
	list := d.texts(x, "requires", "align")
	for i, name := range list {
		if slices.Contains(features, name) {
			continue
		}
		hint := "it has " + strictyaml.Listed(features) + "; a newer version may have it"
		if near := Nearest(name, features); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		at := x
		if x.Kind == yaml.SequenceNode && i < len(x.Content) {
			at = d.Open(x.Content[i], x)
		}
		d.Errorf(at, "this version does not have the feature %s that the recipe requires; %s", strictyaml.Quoted(name), hint)
	}
	return list
}

// texts decodes a list of texts, or one alone.
func (d *decoder) texts(x node, what, example string) []string {
	if x.Kind == yaml.ScalarNode {
		if text, ok := d.Text(x, what); ok {
			return []string{text}
		}
		return nil
	}
	items, ok := d.Items(x, what)
	if ok && len(items) == 0 {
		d.Errorf(x, "%s is an empty list; give at least one entry, such as %s", what, example)
	}
	var list []string
	for _, item := range items {
		if text, ok := d.Text(item, what); ok {
			list = append(list, text)
		}
	}
	return list
}

// choice decodes one of several words.
func (d *decoder) choice(f field, into *string, among []string) {
	text, ok := d.Text(f.Value, f.Key)
	if !ok {
		return
	}
	if slices.Contains(among, text) {
		*into = text
		return
	}
	hint := "it is one of " + strictyaml.Listed(among)
	if near := Nearest(text, among); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	}
	d.Errorf(f.Value, "unknown %s %s; %s", f.Key, strictyaml.Quoted(text), hint)
}

// switched decodes one of several words, or off (none) and on.
func (d *decoder) switched(f field, into *string, among []string, on string) {
	if f.Value.Kind == yaml.ScalarNode {
		if s := strictyaml.Meaning(f.Value.Node); s.Form == strictyaml.FormBool {
			*into = "none"
			if s.Bool {
				*into = on
			}
			return
		}
	}
	d.choice(f, into, among)
}

func (d *decoder) boolean(f field, into *bool) {
	s, ok := d.Scalar(f.Value, f.Key)
	if !ok {
		return
	}
	b, err := toBool(s)
	if err != nil {
		d.Errorf(f.Value, "%s: %s", f.Key, err)
		return
	}
	*into = b
}

// wholeIn decodes a whole number in [lo, hi].
func (d *decoder) wholeIn(f field, into *int, lo, hi int) {
	i, ok := d.wholeNumber(f)
	if !ok {
		return
	}
	if i < lo || i > hi {
		d.Errorf(f.Value, "%s must be between %d and %d; here is %d", f.Key, lo, hi, i)
		return
	}
	*into = i
}

func (d *decoder) seed(f field, into *uint64) {
	i, ok := d.wholeNumber(f)
	if !ok {
		return
	}
	if i < 0 {
		d.Errorf(f.Value, "%s must be at least 0; here is %d", f.Key, i)
		return
	}
	*into = uint64(i)
}

func (d *decoder) wholeNumber(f field) (int, bool) {
	s, ok := d.Scalar(f.Value, f.Key)
	if !ok {
		return 0, false
	}
	return d.whole(f.Value, s, f.Key)
}

func (d *decoder) number(x node, what string) (float64, bool) {
	s, ok := d.Scalar(x, what)
	if !ok {
		return 0, false
	}
	v, err := toFloat(s)
	if err != nil {
		d.Errorf(x, "%s: %s", what, err)
		return 0, false
	}
	return v, true
}

// numberIn decodes a number in [lo, hi].
func (d *decoder) numberIn(f field, into *float64, lo, hi float64) {
	v, ok := d.number(f.Value, f.Key)
	if !ok {
		return
	}
	if v < lo || v > hi {
		d.Errorf(f.Value, "%s must be between %g and %g; here is %g", f.Key, lo, hi, v)
		return
	}
	*into = v
}

func (d *decoder) positive(f field, into *float64) {
	v, ok := d.number(f.Value, f.Key)
	if !ok {
		return
	}
	if v <= 0 {
		d.Errorf(f.Value, "%s must be greater than 0; here is %g", f.Key, v)
		return
	}
	*into = v
}

// interval decodes [lo, hi] within [0, 1].
func (d *decoder) interval(f field, into *[2]float64) {
	items, ok := d.Items(f.Value, f.Key)
	if !ok {
		return
	}
	if len(items) != 2 {
		d.Errorf(f.Value, "%s must have two numbers, the ends of an interval such as [0.4, 0.6]; here are %d", f.Key, len(items))
		return
	}
	var v [2]float64
	for i, item := range items {
		if v[i], ok = d.number(item, f.Key); !ok {
			return
		}
	}
	if v[0] < 0 || v[1] > 1 || v[0] > v[1] {
		d.Errorf(f.Value, "%s must be an interval within [0, 1], such as [0.4, 0.6]; here is [%g, %g]", f.Key, v[0], v[1])
		return
	}
	*into = v
}

// checkData wants calibration data where something is measured on it. seen says which keys stand in the recipe, right or wrong.
func (d *decoder) checkData(r *Recipe, root node, hasCalibration bool) {
	if a := r.Align; a != nil && a.NeedsData() && !hasCalibration {
		d.ErrorAt(a.Pos, root, "align by method %s needs data; add calibration: {data: FILE} beside align", a.Method)
	}
	if p := r.Repair; p != nil && p.NeedsData() && !hasCalibration {
		d.ErrorAt(p.Pos, root, "repair by mode %s needs data; add calibration: {data: FILE} beside repair (mode: norms needs none)", p.Mode)
	}
	if r.SaveAlignment != "" && r.Align == nil && r.Method != "weight_matching" {
		d.ErrorAt(r.SaveAlignmentPos, root, "save_alignment: nothing is aligned; add align: {} or remove the key")
	}
}
