package evaluation

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/model/samples"
)

// plainBody is a network without attention on the device.
type plainBody struct{ m *model.PlainModel }

func (b *plainBody) release() {
	if b.m != nil {
		b.m.Close()
		b.m = nil
	}
}

// plain measures networks without attention on labelled examples.
type plain struct {
	d       *model.PlainDescription
	set     *samples.Set
	backend compute.Backend
	body    *plainBody
}

// openPlain reads examples.
func (j *Judge) openPlain(config []byte) error {
	d, err := model.DescribePlain(config)
	if err != nil {
		return err
	}
	j.task = TaskClassify
	if d.Loss == model.SquaredError {
		j.task = TaskValues
	}
	if j.o.Task != Auto && j.o.Task != j.task {
		return bad("task %s: a network of model_type %s with the loss %s is measured by %s; leave task out", j.o.Task, d.ModelType, d.Loss, j.task)
	}
	set, err := examples(d, j.o)
	if err != nil {
		return err
	}
	s := &plain{d: d, set: set, backend: j.o.Backend, body: &plainBody{}}
	if j.o.Share != nil {
		if other, ok := j.o.Share.subject.(*plain); ok && reflect.DeepEqual(other.d, d) {
			s.body = other.body
		}
	}
	j.subject = s
	return nil
}

// examples reads examples, with labels unless none are looked at.
func examples(d *model.PlainDescription, o Options) (*samples.Set, error) {
	if !o.Unlabelled {
		return labelled(d, o.Data)
	}
	o.Data.Unlabelled = true
	set, err := calibration.Plain(d, o.Data)
	if err == nil && d.Loss == model.CrossEntropy {
		set.Labels.Classes = make([]int32, set.N) // any class: batches need one
	}
	return set, err
}

// labelled reads examples whose labels the network can have.
func labelled(d *model.PlainDescription, o calibration.Options) (*samples.Set, error) {
	o.Unlabelled = false
	set, err := calibration.Plain(d, o)
	if err != nil {
		return nil, err
	}
	if !set.Labelled {
		return nil, &model.InputError{File: fmt.Sprint(o.Files[0]), Msg: "has no labels, so nothing can be measured on it; a safetensors file needs a tensor \"labels\", a CSV file a column more than the network has inputs"}
	}
	for _, c := range set.Labels.Classes {
		if c < 0 || int(c) >= d.Output[0] {
			return nil, &model.InputError{File: fmt.Sprint(o.Files[0]), Msg: fmt.Sprintf("an example has the class %d; the network tells classes from 0 to %d", c, d.Output[0]-1)}
		}
	}
	return set, nil
}

func (s *plain) rows() int { return s.set.N }

func (s *plain) release() { s.body.release() }

func (s *plain) use(b compute.Backend) { s.backend = b }

// fill copies weights to the device.
func (s *plain) fill(ctx context.Context, w align.Weights) error {
	return fillPlain(ctx, s.d, s.body, s.backend, w)
}

// readPlain reads a tensor of the shape that the network has it in.
func readPlain(d *model.PlainDescription, w align.Weights, spec model.TensorSpec) ([]float32, error) {
	info, ok := w.Lookup(spec.Name)
	if !ok {
		return nil, &model.MissingError{Checkpoint: "the weights", Tensor: spec.Name, Shape: spec.Shape}
	}
	if !slices.Equal(info.Shape, spec.Shape) {
		return nil, &model.ShapeError{Checkpoint: "the weights", Tensor: spec.Name, Have: info.Shape, Want: spec.Shape}
	}
	return w.Read(spec.Name)
}

func fillPlain(ctx context.Context, d *model.PlainDescription, body *plainBody, b compute.Backend, w align.Weights) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if body.m == nil {
		values := map[string]model.Tensor{}
		for _, t := range slices.Concat(d.Tensors(), d.Statistics()) {
			x, err := readPlain(d, w, t)
			if err != nil {
				return err
			}
			values[t.Name] = model.Tensor{Shape: t.Shape, Data: x}
		}
		var err error
		body.m, err = model.NewPlain(d, values, b, 0)
		return err
	}
	for _, v := range []*model.Vector{body.m.Weights, body.m.Statistics} {
		if v == nil {
			continue
		}
		flat := make([]float32, v.Packed.Size)
		for _, t := range v.Packed.Segments {
			x, err := readPlain(d, w, model.TensorSpec{Name: t.Name, Shape: t.Shape})
			if err != nil {
				return err
			}
			copy(flat[t.Offset:], x)
		}
		if err := body.m.SetVector(v, flat); err != nil {
			return err
		}
	}
	return nil
}

// pieceRows is how many examples are measured between two looks at the context.
const pieceRows = 2048

// outcomes measures the network on the device.
func (s *plain) outcomes(ctx context.Context, progress func(done, total int)) (*Outcomes, error) {
	return plainOutcomes(ctx, s.d, s.body.m, s.set, progress)
}

func plainOutcomes(ctx context.Context, d *model.PlainDescription, m *model.PlainModel, set *samples.Set, progress func(done, total int)) (*Outcomes, error) {
	o := &Outcomes{Weight: make([]float64, set.N)}
	width := 1
	for _, n := range d.Output {
		width *= n
	}
	for from := 0; from < set.N; from += pieceRows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		part := set.Range(from, min(from+pieceRows, set.N))
		got, err := m.Forward(part.X, part.N)
		if err != nil {
			return nil, err
		}
		for i := range part.N {
			o.Weight[from+i] = 1
			row := got.Data[i*width : (i+1)*width]
			if d.Loss == model.SquaredError {
				o.addErrors(row, part.Labels.Values[i*width:(i+1)*width])
			} else {
				o.addClass(row, int(part.Labels.Classes[i]))
			}
		}
		if progress != nil {
			progress(from+part.N, set.N)
		}
	}
	return o, nil
}

// addErrors adds a row of values.
func (o *Outcomes) addErrors(outputs, want []float32) {
	e := make([]float64, len(outputs))
	for k, v := range outputs {
		e[k] = float64(v) - float64(want[k])
	}
	o.Errors = append(o.Errors, e)
}

// addClass adds a row with a class.
func (o *Outcomes) addClass(logits []float32, truth int) {
	x := make([]float64, len(logits))
	for k, v := range logits {
		x[k] = float64(v)
	}
	logs := logSoftmax(x)
	o.Logs, o.Truth, o.Chosen = append(o.Logs, logs), append(o.Truth, truth), append(o.Chosen, largest(logs))
}
