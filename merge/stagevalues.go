package merge

import (
	"errors"
	"fmt"
	"sync"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// taskJob is the job that makes a task's tensor, without a sink.
func taskJob(p *plan.Plan, t *plan.Task, o Options) (*stream.Job, error) {
	job := &stream.Job{Task: t.MethodTask(p), Method: p.Method, Out: t.DType, AllowNonFinite: o.AllowNonFinite}
	if t.Copy {
		job.Method, job.Identical = nil, t.Check
	}
	for _, in := range t.Inputs {
		src, err := newSource(in)
		if err != nil {
			return nil, err
		}
		job.Inputs = append(job.Inputs, src)
		needs, err := o.stages.needs(in)
		if err != nil {
			return nil, err
		}
		job.Needs = append(job.Needs, needs...)
	}
	return job, nil
}

// stageValues are the tensors of a stage that nobody writes.
type stageValues struct {
	st    *staging
	p     *plan.Plan
	tasks map[string]*stageTask // by the names of what they would write
}

// stageTask is a task of a stage, computed where it is read.
type stageTask struct {
	values *stageValues
	task   *plan.Task
	once   sync.Once
	d      *stream.Derived
	err    error
}

// stagePart is a tensor that a task would write: all it makes, or one of its pieces.
type stagePart struct {
	*stageTask
	begin int64 // byte of what the task makes
}

// checkpoint lists a plan's outputs as a checkpoint that nobody has written.
func (v *stageValues) checkpoint(name string) (*tensors.Checkpoint, error) {
	var list []tensors.Listing
	for _, t := range v.p.Tasks {
		task := &stageTask{values: v, task: t}
		begin := int64(0)
		for _, piece := range t.Pieces {
			v.tasks[piece.Name] = task
			list = append(list, tensors.Listing{Info: piece, Source: &stagePart{task, begin}})
			begin += piece.Bytes()
		}
	}
	return tensors.Assemble(name, nil, list, nil)
}

// derived returns the task's tensor, which is set up when it is first asked for.
func (t *stageTask) derived() (*stream.Derived, error) {
	t.once.Do(func() {
		t.err = errNotComputed // stays if what follows panics
		st := t.values.st
		if st.engine == nil {
			t.err = errors.New("its values are not there before the recipe is merged")
			return
		}
		job, err := taskJob(t.values.p, t.task, st.o)
		if err == nil {
			t.d, err = st.engine.Derive(job)
		}
		t.err = err
	})
	return t.d, t.err
}

// ReadAt implements tensors.Source.
func (s *stagePart) ReadAt(dst []byte, off int64) error {
	d, err := s.derived()
	if err != nil {
		return err
	}
	return d.ReadAt(dst, s.begin+off)
}

// WillNeed implements tensors.Source.
func (s *stagePart) WillNeed(off, n int64) {
	if d, err := s.derived(); err == nil {
		d.WillNeed(s.begin+off, n)
	}
}

// Release implements tensors.Source.
func (s *stagePart) Release(off, n int64) {
	if d, err := s.derived(); err == nil {
		d.Release(s.begin+off, n)
	}
}

// Close implements io.Closer.
func (s *stagePart) Close() error {
	if s.d != nil {
		return s.d.Close()
	}
	return nil
}

// needs lists the computed tensors that an input reads, so that their statistics are gathered by all workers. A nil staging has none.
func (st *staging) needs(in plan.Input) ([]*stream.Derived, error) {
	if st == nil || in.Model.Stage == nil {
		return nil, nil
	}
	v := st.valuesOf(in.Model.Stage)
	if v == nil {
		return nil, nil
	}
	var list []*stream.Derived
	for _, name := range in.Pieces {
		t := v.tasks[name]
		if t == nil {
			return nil, fmt.Errorf("%s: the stage %s does not make it", name, in.Model.Stage.Name)
		}
		d, err := t.derived()
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", name, in.Model.Stage.Name, err)
		}
		if len(list) == 0 || list[len(list)-1] != d {
			list = append(list, d)
		}
	}
	return list, nil
}
