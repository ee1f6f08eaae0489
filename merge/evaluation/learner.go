package evaluation

import (
	"context"
	"fmt"
	"slices"

	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/model"
)

// Learner is a model whose tensors are moved and differentiated. It holds the model, and of what is differentiated as much again for the
// gradient; tensors are handed over one by one. Its methods are not safe for concurrent use.
type Learner struct {
	// Scale multiplies the logits that Gradient sees, as the inverse of a temperature; 0: 1.
	Scale float32

	judge   *Judge
	trainee trainee
	names   []string
	shapes  map[string][]int
}

// trainee is a kind of models that learn.
type trainee interface {
	set(values func(name string, dst []float32) error) error
	gradient(ctx context.Context, rows []int, objective model.Objective, scale float32) (model.Result, error)
	visit(see func(name string, g []float32) error) error
	targets(row int) (float64, error)
	outcomes(ctx context.Context, progress func(done, total int)) (*Outcomes, error)
	close()
}

// newLearner lists what is trained, by the names of the files.
func newLearner(j *Judge, t trainee, shapes map[string][]int) *Learner {
	l := &Learner{judge: j, trainee: t, shapes: shapes}
	for name := range shapes {
		l.names = append(l.names, name)
	}
	slices.Sort(l.names)
	return l
}

// Names lists the tensors that are moved, as the checkpoint's files name them, in order. Running statistics of batch norms, where train
// chose them, are moved and not differentiated.
func (l *Learner) Names() []string { return l.names }

// Shape is that of a tensor.
func (l *Learner) Shape(name string) []int { return l.shapes[name] }

// Targets is how many predictions a row asks for, by their weights: the tokens that it teaches, or the one class. The gradient of the row by
// itself times this number is that of its log likelihood.
func (l *Learner) Targets(row int) (float64, error) {
	if n := l.judge.Rows(); row < 0 || row >= n {
		return 0, fmt.Errorf("row %d is none of the %d that were read", row, n)
	}
	return l.trainee.targets(row)
}

// Set moves all tensors: values fills each, one after the other, in no order that could be relied on.
func (l *Learner) Set(values func(name string, dst []float32) error) error {
	return l.trainee.set(values)
}

// Gradient computes the gradient of the mean of the objective over these rows, numbered as the judge reads them; it takes the place of
// the last one. The result sums over the rows' targets.
func (l *Learner) Gradient(ctx context.Context, rows []int, objective model.Objective) (model.Result, error) {
	if len(rows) == 0 {
		return model.Result{}, fmt.Errorf("a gradient needs rows")
	}
	if l.judge.o.Unlabelled && objective != model.ObjectiveEntropy {
		return model.Result{}, errUnlabelled
	}
	n := l.judge.Rows()
	for _, r := range rows {
		if r < 0 || r >= n {
			return model.Result{}, fmt.Errorf("row %d is none of the %d that were read", r, n)
		}
	}
	return l.trainee.gradient(ctx, rows, objective, l.Scale)
}

// GradientTo is Gradient and Visit in one. Where a transformer takes the rows as one batch, the gradient of a block is shown and freed before
// the next one is computed, and there is never more of it.
func (l *Learner) GradientTo(ctx context.Context, rows []int, objective model.Objective, see func(name string, g []float32) error) (model.Result, error) {
	if t, ok := l.trainee.(*trained); ok {
		t.see = see
		defer func() { t.see = nil }()
	}
	r, err := l.Gradient(ctx, rows, objective)
	if err != nil {
		return r, err
	}
	return r, l.Visit(see)
}

// Visit shows the last gradient tensor by tensor. The slice is the receiver's until it returns.
func (l *Learner) Visit(see func(name string, g []float32) error) error { return l.trainee.visit(see) }

// Outcomes measures the model as it stands on all rows, without another model on the device.
func (l *Learner) Outcomes(ctx context.Context) (*Outcomes, error) {
	if l.judge.o.Unlabelled {
		return nil, errUnlabelled
	}
	return l.judge.measure(ctx, l.trainee)
}

// Score sums up what Outcomes measures.
func (l *Learner) Score(ctx context.Context) (*Score, error) {
	o, err := l.Outcomes(ctx)
	if err != nil {
		return nil, err
	}
	return o.Score(), nil
}

// Close frees what is on the device.
func (l *Learner) Close() { l.trainee.close() }

// zero makes a gradient begin anew. Sums that the last one took away are made again.
func zero(old *model.Gradients, make func() (*model.Gradients, error)) (*model.Gradients, error) {
	if old != nil {
		old.Free()
	}
	return make()
}

// segments shows the tensors of a packed vector on the device.
func segments(p model.Packed, value *gt.Tensor, see func(s model.Segment, x []float32) error) error {
	all, err := gt.CopyFlatData[float32](value)
	if err != nil {
		return err
	}
	value.FinalizeLocal() // a device that is not the host has its own copy beside ours
	for _, s := range p.Segments {
		if err := see(s, all[s.Offset:s.Offset+s.Size()]); err != nil {
			return err
		}
	}
	return nil
}

// plainTrainee is a network without attention that learns. All of its weights are one vector, which is differentiated as a whole.
type plainTrainee struct {
	s       *plain
	m       *model.PlainModel
	trained map[string]bool
	now     map[*model.Vector][]float32 // what is on the device
	sum     *model.Gradients
}

func (s *plain) learner(ctx context.Context, j *Judge, w align.Weights, train func(name string) bool) (*Learner, error) {
	own := &plainBody{}
	if err := fillPlain(ctx, s.d, own, s.backend, w); err != nil {
		return nil, err
	}
	t := &plainTrainee{s: s, m: own.m, trained: map[string]bool{}, now: map[*model.Vector][]float32{}}
	shapes := map[string][]int{}
	for _, v := range t.vectors() {
		for _, seg := range v.Packed.Segments {
			if train(seg.Name) {
				shapes[seg.Name], t.trained[seg.Name] = seg.Shape, true
			}
		}
		x, err := gt.CopyFlatData[float32](v.Value)
		if err != nil {
			own.release()
			return nil, err
		}
		t.now[v] = x
	}
	if len(shapes) == 0 {
		own.release()
		return nil, bad("no tensor of the network is to be learned")
	}
	return newLearner(j, t, shapes), nil
}

func (t *plainTrainee) vectors() (list []*model.Vector) {
	for _, v := range []*model.Vector{t.m.Weights, t.m.Statistics} {
		if v != nil {
			list = append(list, v)
		}
	}
	return list
}

func (t *plainTrainee) set(values func(name string, dst []float32) error) error {
	for _, v := range t.vectors() {
		moved := false
		for _, seg := range v.Packed.Segments {
			if !t.trained[seg.Name] {
				continue
			}
			moved = true
			if err := values(seg.Name, t.now[v][seg.Offset:seg.Offset+seg.Size()]); err != nil {
				return err
			}
		}
		if moved {
			// The device may take over the memory that it is handed.
			if err := t.m.SetVector(v, slices.Clone(t.now[v])); err != nil {
				return err
			}
		}
	}
	return nil
}

// learnRows is how many examples are differentiated together.
const learnRows = 256

func (t *plainTrainee) gradient(ctx context.Context, rows []int, objective model.Objective, scale float32) (model.Result, error) {
	var err error
	if t.sum, err = zero(t.sum, t.m.NewGradients); err != nil {
		return model.Result{}, err
	}
	var all model.Result
	for part := range slices.Chunk(rows, learnRows) {
		if err := ctx.Err(); err != nil {
			return all, err
		}
		set := t.s.set.Only(part)
		one, err := t.m.BackwardOf(set.X, set.Labels, set.N, t.sum, model.PlainPass{Factor: 1 / float32(len(rows)), Objective: objective, Scale: scale})
		if err != nil {
			return all, err
		}
		all.Add(one)
	}
	return all, nil
}

func (t *plainTrainee) visit(see func(name string, g []float32) error) error {
	if t.sum == nil {
		return fmt.Errorf("there is no gradient yet")
	}
	return segments(t.m.Weights.Packed, t.sum.Sums[0], func(s model.Segment, g []float32) error {
		if !t.trained[s.Name] {
			return nil
		}
		return see(s.Name, g)
	})
}

func (t *plainTrainee) targets(int) (float64, error) { return 1, nil }

func (t *plainTrainee) outcomes(ctx context.Context, progress func(done, total int)) (*Outcomes, error) {
	return plainOutcomes(ctx, t.s.d, t.m, t.s.set, progress)
}

func (t *plainTrainee) close() {
	if t.sum != nil {
		t.sum.Free()
		t.sum = nil
	}
	t.m.Close()
}
