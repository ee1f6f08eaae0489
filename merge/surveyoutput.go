package merge

import (
	"context"
	"slices"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// What no kernel has made (by methods that see whole tensors or whole models, or in a run that was interrupted) is compared with the
// models when it is on disk: distances are known of it, and no masks.

// surveyElems is how many elements are compared at a time.
const surveyElems = 256 << 10

// reading is an input as float32.
type reading struct {
	model int // index in the plan
	read  func(dst []float32, off int64) error
}

// surveyOutput takes in what the survey lacks.
func (j *job) surveyOutput(ctx context.Context) error {
	s := j.o.survey
	out, err := tensors.Open(j.out)
	if err != nil {
		return err
	}
	defer out.Close()
	for _, t := range j.p.Tasks {
		switch {
		case s.Seen(t.Name):
			continue
		case t.Copy || !t.DType.IsFloat():
			s.Copied++
			continue
		}
		list, base, err := j.readings(t)
		if err != nil {
			return err
		}
		task := &method.Task{Name: t.Name, Shape: t.Shape, N: t.Elems(), Inputs: len(list), Base: base, Surveyed: &method.Survey{Inputs: make([]method.InputSurvey, len(list))}}
		var models []int
		for _, r := range list {
			models = append(models, r.model)
		}
		off := int64(0)
		for _, piece := range t.Pieces {
			v, err := out.View(piece.Name)
			if err != nil {
				return err
			}
			if err := compare(ctx, task, v, off, list); err != nil {
				return err
			}
			off += piece.Elems()
		}
		s.Add(task, models)
	}
	return nil
}

// readings are the inputs of a task, in the coordinates of the merge. A method for whole models has made what tasks do not list: there
// every model is an input that has a tensor of this name and shape.
func (j *job) readings(t *plan.Task) (list []reading, base int, err error) {
	if len(t.Inputs) > 0 {
		models := modelIndices(j.p, t)
		for i, in := range t.Inputs {
			src, err := newSource(in)
			if err != nil {
				return nil, 0, err
			}
			list = append(list, reading{models[i], func(dst []float32, off int64) error { return readSource(src, dst, off) }})
		}
		return list, t.Base, nil
	}
	base = -1
	for i, m := range j.p.Models {
		w := j.weights(m)
		info, ok := w.Lookup(t.Name)
		if !ok || !info.DType.IsFloat() || !slices.Equal(info.Shape, t.Shape) {
			continue
		}
		if i == j.o.survey.Base {
			base = len(list)
		}
		list = append(list, reading{i, func(dst []float32, off int64) error { return align.ReadAt(w, t.Name, dst, off) }})
	}
	return list, base, nil
}

func readSource(src stream.Source, dst []float32, off int64) error {
	n := int64(len(dst))
	b, err := src.Bytes(off, n, make([]byte, n*int64(src.DType().Size())))
	if err != nil {
		return err
	}
	return tensors.DecodeFloat32(dst, b, src.DType())
}

// compare adds the sums of an output, whose first element is element at of the task's tensor.
func compare(ctx context.Context, t *method.Task, out tensors.View, at int64, list []reading) error {
	size := int64(out.DType.Size())
	y, x, b := make([]float32, surveyElems), make([]float32, surveyElems), make([]float32, surveyElems)
	for off := int64(0); off < out.Elems(); off += surveyElems {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(surveyElems, out.Elems()-off)
		y, x, b := y[:n], x[:n], b[:n]
		if err := tensors.DecodeFloat32(y, out.Data[off*size:(off+n)*size], out.DType); err != nil {
			return err
		}
		for _, v := range y {
			t.Surveyed.Out += float64(v) * float64(v)
		}
		if t.Base >= 0 {
			if err := list[t.Base].read(b, at+off); err != nil {
				return err
			}
		}
		for i, r := range list {
			if err := r.read(x, at+off); err != nil {
				return err
			}
			in := &t.Surveyed.Inputs[i]
			in.Read = true
			for k, v := range x {
				d := float64(y[k]) - float64(v)
				in.Norm += float64(v) * float64(v)
				in.Distance += d * d
				if t.Base >= 0 {
					d = float64(v) - float64(b[k])
					in.Delta += d * d
				}
			}
		}
	}
	return nil
}
