package evaluation

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"slices"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/finetune/evaluate"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// body is a transformer on the device.
type body struct{ m *model.Model }

func (b *body) release() {
	if b.m != nil {
		b.m.Close()
		b.m = nil
	}
}

// transformer measures transformers on rows of text, or on labelled images.
type transformer struct {
	d       *model.Description
	backend compute.Backend
	body    *body
	batch   int
	text    *data.Set // nil: images
	images  *samples.Set
	choices bool // rows of text are scored as choices
	tok     *tokenizer.Tokenizer
	// unlabelled rows have any class.
	unlabelled bool
}

// openTransformer reads rows.
func (j *Judge) openTransformer(ctx context.Context, config []byte, dir string) error {
	d, err := model.Describe(config)
	if err != nil {
		return err
	}
	s := &transformer{d: d, backend: j.o.Backend, body: &body{}, batch: j.o.Data.Batch}
	if s.batch <= 0 {
		s.batch = 8
	}
	if j.o.Share != nil {
		if other, ok := j.o.Share.subject.(*transformer); ok && reflect.DeepEqual(other.d, d) {
			s.body = other.body
		}
	}
	j.subject = s
	if d.Image != nil {
		return j.openImages(s)
	}
	if s.text, s.tok, j.notes, err = readText(ctx, dir, d, j.o.Data); err != nil {
		return err
	}
	if j.o.Unlabelled && (d.Head == model.HeadScore || d.Head == model.HeadClassifier) {
		j.task, s.unlabelled = TaskClassify, true
		return nil
	}
	if err := evaluate.Check(d, s.text); err != nil {
		return err
	}
	chosen := evaluate.Choices(s.text, s.tok)
	switch {
	case len(s.text.Labels) > 0:
		j.task = TaskClassify
	case (j.o.Task == Auto || j.o.Task == TaskChoice) && chosen == len(s.text.Examples):
		j.task, s.choices = TaskChoice, true
	case j.o.Task == TaskChoice:
		return bad("task choice: %d of %d rows are choices: their answers are not few short labels; task lm measures their tokens", chosen, len(s.text.Examples))
	default:
		j.task = TaskLM
	}
	if j.o.Task != Auto && j.o.Task != j.task {
		return bad("task %s: these rows are measured by %s; leave task out, or give other rows", j.o.Task, j.task)
	}
	return nil
}

// openImages reads labelled images.
func (j *Judge) openImages(s *transformer) error {
	d := s.d
	if d.NumLabels < 2 || d.Head == model.HeadNone {
		return bad("config.json describes a model of images without classes (%s), so nothing can be measured; give a classifier", d.ClassName())
	}
	j.task = TaskClassify
	if j.o.Task != Auto && j.o.Task != j.task {
		return bad("task %s: images are measured by their classes; leave task out", j.o.Task)
	}
	p := d.Image
	var err error
	s.images, err = examples(&model.PlainDescription{ModelType: d.ModelType, Input: []int{p.Channels, p.Image[0], p.Image[1]}, Output: []int{d.NumLabels}, Loss: model.CrossEntropy}, j.o)
	return err
}

func (s *transformer) rows() int {
	if s.images != nil {
		return s.images.N
	}
	return len(s.text.Examples)
}

func (s *transformer) release() { s.body.release() }

func (s *transformer) use(b compute.Backend) { s.backend = b }

// fill copies weights to the device, one tensor after the other.
func (s *transformer) fill(ctx context.Context, w align.Weights) error {
	if s.body.m == nil {
		m, err := model.Unfilled(s.d, model.Options{Backend: s.backend})
		if err != nil {
			return err
		}
		s.body.m = m
	}
	err := s.body.m.Refill(ctx, reader(s.d, w))
	if err != nil {
		s.release() // some tensors would be missing, or another model's
	}
	return err
}

// collectEvery is how many bytes of tensors that went to the device may wait for the collector, which would let as much lie around as the
// model itself takes where that is in the same memory.
const collectEvery = 128 << 20

// reader reads tensors that the model's class calls so from files that may call them otherwise.
func reader(d *model.Description, w align.Weights) func(name string, shape []int) ([]float32, error) {
	waiting := 0
	return func(name string, shape []int) ([]float32, error) {
		pieces, have := d.Pieces(w, name)
		if pieces == nil {
			return nil, &model.MissingError{Checkpoint: "the weights", Tensor: name, Shape: shape}
		}
		if !slices.Equal(have, shape) {
			return nil, &model.ShapeError{Checkpoint: "the weights", Tensor: pieces[0].Name, Have: have, Want: shape}
		}
		if waiting > collectEvery {
			runtime.GC()
			waiting = 0
		}
		var x []float32
		for _, p := range pieces {
			part, err := w.Read(p.Name)
			if err != nil {
				return nil, err
			}
			if len(pieces) == 1 {
				x = part
			} else {
				x = append(x, part...)
			}
		}
		waiting += 4 * len(x)
		return x, nil
	}
}

// outcomes measures the model on the device.
func (s *transformer) outcomes(ctx context.Context, progress func(done, total int)) (*Outcomes, error) {
	return s.measure(ctx, s.body.m, progress)
}

func (s *transformer) measure(ctx context.Context, m *model.Model, progress func(done, total int)) (*Outcomes, error) {
	if s.images != nil {
		return s.measureImages(ctx, m, progress)
	}
	options := evaluate.Options{Batch: s.batch, PadID: s.pad(), Progress: progress, Outcomes: true}
	if s.choices {
		options.Tokenizer = s.tok
	}
	r, err := evaluate.Run(ctx, m, s.text, options)
	if err != nil {
		return nil, err
	}
	classes := len(s.text.Labels) > 0
	o := &Outcomes{Labels: r.Labels}
	for i := range r.Outcomes {
		x := &r.Outcomes[i]
		o.Weight = append(o.Weight, x.Weight)
		if !classes {
			o.Targets, o.First = append(o.Targets, x.Targets), append(o.First, x.First)
		}
		if classes || s.choices {
			logs, chosen := logSoftmax(x.Logs), x.Chosen
			if largest(logs) < 0 {
				chosen = -1
			}
			o.Truth, o.Chosen, o.Logs = append(o.Truth, x.Truth), append(o.Chosen, chosen), append(o.Logs, logs)
		}
	}
	return o, nil
}

func (s *transformer) pad() int32 { return int32(max(s.d.PAD, 0)) }

func (s *transformer) measureImages(ctx context.Context, m *model.Model, progress func(done, total int)) (*Outcomes, error) {
	o := &Outcomes{Labels: s.d.Labels}
	n, classes := s.images.N, s.d.NumLabels
	batch := min(s.batch, n)
	for from := 0; from < n; from += batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := s.images.Range(from, min(from+batch, n))
		got, err := m.Forward(model.Input{Rows: batch, Pixels: s.padded(part, batch)})
		if err != nil {
			return nil, err
		}
		if len(got.Data) < part.N*classes {
			return nil, fmt.Errorf("the model gives %v for %d images of %d classes", got.Shape, batch, classes)
		}
		for i := range part.N {
			o.Weight = append(o.Weight, 1)
			o.addClass(got.Data[i*classes:(i+1)*classes], int(part.Labels.Classes[i]))
		}
		if progress != nil {
			progress(from+part.N, n)
		}
	}
	return o, nil
}

// padded fills a batch of images up with black ones, so that one graph serves all batches.
func (s *transformer) padded(part *samples.Set, batch int) []float32 {
	if part.N == batch {
		return part.X
	}
	return append(slices.Clone(part.X), make([]float32, (batch-part.N)*s.d.Image.Pixels())...)
}
