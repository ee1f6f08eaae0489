package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/connect"
	"github.com/mergekit/mergekit/merge/repair"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/tensors"
)

// measureOptions are the flags of verbs that measure models that are in no file.
type measureOptions struct {
	data, train               string
	repair, calibration       string
	rows                      evalOptions // flags of rows of text
	divide                    float64
	labelFirst                bool
	limit, batch, calibrators int
	calibrationSeed           uint64
}

func (o *measureOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.data, "data", "", "what models are measured on: the test set (required)")
	f.StringVar(&o.train, "train", "", "the training set, measured beside it")
	f.StringVar(&o.rows.format, "format", "auto", "form of rows of text")
	f.StringVar(&o.rows.template, "template", "", "chat template: a file or the name of a builtin one (default: the checkpoint's own)")
	f.StringVar(&o.rows.trainOn, "train-on", "auto", "which tokens of rows count: auto, assistant, completion, last or all")
	f.StringVar(&o.rows.bad, "on-bad-row", "error", "error or skip")
	f.IntVar(&o.rows.maxLength, "max-length", 0, "tokens of a row; longer ones lose their end (default: as many as the model has positions)")
	f.Float64Var(&o.divide, "divide", 1, "what the numbers of CSV files are divided by: 255 for the bytes of images")
	f.BoolVar(&o.labelFirst, "label-first", false, "labels of CSV files stand before the numbers")
	f.IntVar(&o.limit, "limit", 0, "only the first rows of each set; 0: all")
	f.IntVar(&o.batch, "batch", 8, "rows that are computed together")
	f.StringVar(&o.repair, "repair", repair.None, "repair of the points between models: none, norms, activations or reset_norm (batch norms)")
	f.StringVar(&o.calibration, "calibration", "", "data of repairs and of alignments that take some (default: --train)")
	f.IntVar(&o.calibrators, "calibration-samples", 2048, "rows of it that are used, chosen by --calibration-seed; 0: all")
	f.Uint64Var(&o.calibrationSeed, "calibration-seed", 0, "which rows of it are used")
}

// calibrationOptions say which data repairs and alignments see.
func (o *measureOptions) calibrationOptions() (calibration.Options, error) {
	path := o.calibration
	if path == "" {
		path = o.train
	}
	if path == "" {
		return calibration.Options{}, usageError{fmt.Errorf("this needs --calibration FILE (or --train): what models are measured on must not be what they are fitted to")}
	}
	return calibration.Options{Files: []string{path}, Samples: o.calibrators, SeqLen: o.rows.maxLength, Seed: o.calibrationSeed, Batch: o.batch, Divide: o.divide, LabelFirst: o.labelFirst}, nil
}

func (o *measureOptions) check() error {
	if !slices.Contains([]string{repair.None, repair.Norms, repair.Activations, repair.ResetNorm}, o.repair) {
		return fmt.Errorf("--repair %s: unknown; none, norms, activations and reset_norm are", o.repair)
	}
	if o.calibrators < 0 {
		return fmt.Errorf("--calibration-samples must not be negative")
	}
	if o.limit < 0 || o.batch < 1 || o.rows.maxLength < 0 || !(o.divide > 0) {
		return fmt.Errorf("--limit and --max-length must not be negative, --batch and --divide must be positive")
	}
	return nil
}

// file is a set and where it comes from.
type file struct{ name, path string }

// files lists the sets, the test set last.
func (o *measureOptions) files() []file {
	list := []file{{"test", o.data}}
	if o.train != "" {
		list = slices.Insert(list, 0, file{"train", o.train})
	}
	return list
}

// measuring is what measures models of one architecture.
type measuring struct {
	infos []connect.SetInfo
	// evaluator makes an evaluator of models; done frees what it holds.
	evaluator func(models []connect.Model) (e connect.Evaluator, done func(), err error)
	close     func()
}

// prepare reads the data for models of the architecture of the first one.
func (o *measureOptions) prepare(s *session, variants []variant, open map[string]*tensors.Checkpoint) (*measuring, error) {
	first := variants[0].dirs[0]
	for _, v := range variants {
		for _, dir := range v.dirs {
			if isPlain(dir) != isPlain(first) {
				return nil, &model.InputError{File: filepath.Join(dir, "config.json"), Msg: fmt.Sprintf("describes another kind of network than that of %s; only models of one architecture have points between them", first)}
			}
		}
	}
	if isPlain(first) {
		return o.openPlain(s, variants)
	}
	return o.openTransformer(s, variants, open)
}

// openPlain reads examples for networks without attention.
func (o *measureOptions) openPlain(s *session, variants []variant) (*measuring, error) {
	first := variants[0].dirs[0]
	d, err := model.ReadPlainDescription(first)
	if err != nil {
		return nil, err
	}
	for _, v := range variants {
		for _, dir := range v.dirs {
			other, err := model.ReadPlainDescription(dir)
			if err != nil {
				return nil, err
			}
			if fmt.Sprint(*other) != fmt.Sprint(*d) {
				return nil, &model.InputError{File: filepath.Join(dir, "config.json"), Msg: fmt.Sprintf("describes other layers than that of %s; only models of one architecture have points between them", first)}
			}
		}
	}
	m := &measuring{close: func() {}}
	var sets []connect.Examples
	for _, f := range o.files() {
		set, err := o.examples(f.path, d)
		if err != nil {
			return nil, err
		}
		sets = append(sets, connect.Examples{Name: f.name, Set: set})
		m.infos = append(m.infos, connect.SetInfo{Name: f.name, File: f.path, Rows: set.N})
	}
	var data *samples.Set
	if o.repairsWithData() {
		from, err := o.calibrationOptions()
		if err != nil {
			return nil, err
		}
		from.Unlabelled = true // repairs look at none
		if data, err = calibration.Plain(d, from); err != nil {
			return nil, err
		}
	}
	m.evaluator = func(models []connect.Model) (connect.Evaluator, func(), error) {
		p, err := connect.NewPlain(d, models, sets, s.backend)
		if err != nil {
			return nil, nil, err
		}
		if o.repair != repair.None {
			p.Repair = func(merged align.Weights, weights []float64) (align.Weights, error) {
				changes, _, err := repair.Plain(s.cmd.Context(), d, merged, parentsOf(models, weights), data, repair.Options{Mode: o.repair, Backend: s.backend})
				return repair.View(merged, changes), err
			}
		}
		return p, p.Close, nil
	}
	return m, nil
}

func (o *measureOptions) repairsWithData() bool {
	return o.repair == repair.Activations || o.repair == repair.ResetNorm
}

// parentsOf are the models that a point is between.
func parentsOf(models []connect.Model, weights []float64) (list []repair.Parent) {
	for i, w := range weights {
		if w > 0 {
			list = append(list, repair.Parent{Weights: models[i].Weights, Share: w})
		}
	}
	return list
}

// examples reads labelled examples.
func (o *measureOptions) examples(path string, d *model.PlainDescription) (*samples.Set, error) {
	set, err := samples.Read(path, d, samples.Options{Divide: o.divide, LabelFirst: o.labelFirst, Max: o.limit})
	if err != nil {
		return nil, err
	}
	if !set.Labelled {
		return nil, &model.InputError{File: path, Msg: "has no labels, so there is no loss; a safetensors file needs a tensor \"labels\", a CSV file a column more than the network has inputs"}
	}
	for i, c := range set.Labels.Classes {
		if c < 0 || int(c) >= d.Output[0] {
			return nil, &model.InputError{File: path, Msg: fmt.Sprintf("example %d has the class %d; the network tells classes from 0 to %d", i+1, c, d.Output[0]-1)}
		}
	}
	return set, nil
}

// openTransformer loads one model and reads rows for it.
func (o *measureOptions) openTransformer(s *session, variants []variant, open map[string]*tensors.Checkpoint) (*measuring, error) {
	first := variants[0].dirs[0]
	descriptions := map[string]*model.Description{}
	untied := false
	for dir := range open {
		d, _, err := model.ReadDescription(dir)
		if err != nil {
			return nil, err
		}
		descriptions[dir] = d
		untied = untied || !d.Tied
	}
	d := descriptions[first]
	for _, v := range variants {
		for _, dir := range v.dirs {
			if err := sameShapes(d, descriptions[dir], first, dir); err != nil {
				return nil, err
			}
		}
	}
	for _, v := range variants {
		for _, m := range v.maps {
			untied = untied || m != nil && len(m.Untied()) > 0
		}
	}
	load := model.Options{Backend: s.backend, Compute: s.compute, Widen: true}
	if d.Tied && untied { // an aligned version has a head of its own
		load.Overlay = &model.Overlay{Untied: true}
	}
	m, err := model.LoadFrom(s.cmd.Context(), d, open[first], load)
	if err != nil {
		return nil, err
	}
	out := &measuring{close: m.Close}
	rows, infos, reader, err := o.readRows(s, m, first)
	if err != nil {
		m.Close()
		return nil, err
	}
	out.infos = infos
	var batches []model.Input
	if o.repairsWithData() {
		from, err := o.calibrationOptions()
		if err == nil {
			batches, err = calibration.Inputs(s.cmd.Context(), first, d, from)
		}
		if err != nil {
			m.Close()
			return nil, err
		}
	}
	out.evaluator = func(models []connect.Model) (connect.Evaluator, func(), error) {
		t := &connect.Transformer{M: m, Rows: rows, Batch: o.batch}
		if reader != nil {
			t.Tokenizer = reader.o.Tokenizer
		}
		for _, one := range models {
			own := d
			if known := descriptions[one.Name]; known != nil {
				own = known
			}
			t.Models = append(t.Models, connect.Model{Name: one.Name, Weights: connect.ByClass(own, one.Weights)})
		}
		if o.repair != repair.None {
			t.Repair = func(merged align.Weights, weights []float64) (align.Weights, error) {
				changes, _, err := o.repairTransformer(s, m, merged, parentsOf(t.Models, weights), batches)
				return repair.View(merged, changes), err
			}
		}
		return t, func() {}, nil
	}
	return out, nil
}

func (o *measureOptions) repairTransformer(s *session, m *model.Model, merged align.Weights, parents []repair.Parent, batches []model.Input) (repair.Changes, *repair.Report, error) {
	options := repair.Options{Mode: o.repair, Backend: s.backend}
	if o.repair == repair.Norms {
		return repair.TransformerNorms(s.cmd.Context(), m.D, merged, parents, options)
	}
	return repair.Transformer(s.cmd.Context(), m, merged, parents, batches, options)
}

// readRows reads rows of text or labelled images.
func (o *measureOptions) readRows(s *session, m *model.Model, dir string) (rows []connect.Rows, infos []connect.SetInfo, reader *rowReader, err error) {
	o.rows.limit, o.rows.batch = o.limit, o.batch
	if m.D.Image == nil {
		if reader, err = o.rows.rows(modelFiles{name: dir, dir: dir}); err != nil {
			return nil, nil, nil, err
		}
	}
	for _, f := range o.files() {
		r := connect.Rows{Name: f.name}
		n := 0
		if m.D.Image != nil {
			p := m.D.Image
			if m.D.NumLabels < 2 || m.D.Head == model.HeadNone {
				return nil, nil, nil, &model.InputError{File: filepath.Join(dir, "config.json"), Msg: "describes a model of images without classes, so there is no loss; give a classifier"}
			}
			r.Images, err = o.examples(f.path, &model.PlainDescription{ModelType: m.D.ModelType, Input: []int{p.Channels, p.Image[0], p.Image[1]}, Output: []int{m.D.NumLabels}, Loss: model.CrossEntropy})
			if err == nil {
				n = r.Images.N
			}
		} else {
			r.Text, err = reader.load(s.cmd, m, f.path, 0)
			if err == nil {
				n = len(r.Text.Examples)
			}
		}
		if err != nil {
			return nil, nil, nil, err
		}
		rows = append(rows, r)
		infos = append(infos, connect.SetInfo{Name: f.name, File: f.path, Rows: n})
	}
	return rows, infos, reader, nil
}

// sameShapes refuses models that differ in a tensor.
func sameShapes(a, b *model.Description, dirA, dirB string) error {
	if a.ClassName() != b.ClassName() {
		return &model.InputError{Msg: fmt.Sprintf("%s is a %s, %s a %s; only models of one architecture have points between them", dirA, a.ClassName(), dirB, b.ClassName())}
	}
	sa, sb := a.Shapes(), b.Shapes()
	if len(a.Layers) != len(b.Layers) {
		return &model.InputError{Msg: fmt.Sprintf("%s has %d layers, %s has %d; only models of one size have points between them", dirA, len(a.Layers), dirB, len(b.Layers))}
	}
	for name, shape := range sa {
		if other, ok := sb[name]; ok && !slices.Equal(shape, other) {
			return &model.InputError{Msg: fmt.Sprintf("%s is %v in %s and %v in %s; only models of one size have points between them", name, shape, dirA, other, dirB)}
		}
	}
	return nil
}
