package merge

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	. "github.com/gomlx/gomlx/core/graph"

	"github.com/mergekit/mergekit/merge/method"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/stream"
)

// Methods that localize keep the largest entries of a task vector over all tensors of the model, exactly as many as asked for. Which
// those are is found before the merge, in streamed passes: one counts magnitudes by their upper bits, one those at the cut by their lower
// bits, and where magnitudes tie at the cut a third counts them tensor by tensor. Ties go by the tensors' names, then by position.

// localization is the search for one model's cut.
type localization struct {
	model *plan.Model
	share float64
	tasks []*localTask
	total int64 // entries that take part
	count int64 // entries that stay

	high uint32 // upper bits of the magnitude at the cut
	rest int64  // entries with these upper bits that stay
	key  uint32
	take int64 // entries of exactly this magnitude that stay
	ties int64 // entries of exactly this magnitude
}

// localTask is a tensor of a localized model.
type localTask struct {
	task  *plan.Task
	input int
	above int64 // entries beyond the cut's magnitude
	equal int64 // entries at it
}

const (
	upperBins = 1 << 15 // magnitudes have 31 bits
	lowerBins = 1 << 16
	lowerBits = 16
)

// localize finds the cuts that a localizing method needs and hands them to the tasks. It also sees whether sparse differences are of their
// base, which reading tells as well.
func (j *job) localize(ctx context.Context) error {
	if err := j.foreignBases(ctx); err != nil {
		return err
	}
	if !j.p.Method.Localizes {
		return nil
	}
	list, err := j.localizations()
	if err != nil || len(list) == 0 {
		return err
	}
	return j.bounded(func() error { return j.findCuts(ctx, list) })
}

// localizations lists the models of which only a share stays.
func (j *job) localizations() ([]*localization, error) {
	p := j.p
	byModel := map[*plan.Model]*localization{}
	dense := map[*plan.Model]bool{} // of which all stays
	var list []*localization
	for _, t := range p.Tasks {
		if t.Copy {
			continue
		}
		mt := t.MethodTask(p)
		excluded := mt.Excluded()
		for _, i := range mt.Others() {
			m := t.Inputs[i].Model
			share, given := mt.InputFloat(method.SparsityParam, i)
			if _, isSparse := m.Adapter.(*sparseAdapter); !given && !isSparse && p.Method.DefaultSparsity > 0 {
				share, given = p.Method.DefaultSparsity, true
			}
			if !given {
				dense[m] = true
				if byModel[m] != nil {
					return nil, j.mixedShares(m)
				}
				continue
			}
			l := byModel[m]
			if l == nil {
				l = &localization{model: m, share: share}
				byModel[m] = l
				list = append(list, l)
			}
			if l.share != share || dense[m] {
				return nil, j.mixedShares(m)
			}
			if excluded {
				if t.PerInput[i] == nil {
					t.PerInput[i] = map[string]any{}
				}
				mt.SetCut(i, method.Nothing)
				continue
			}
			l.tasks = append(l.tasks, &localTask{task: t, input: i})
			l.total += t.Elems()
		}
	}
	for _, l := range list {
		slices.SortFunc(l.tasks, func(a, b *localTask) int { return strings.Compare(a.task.Name, b.task.Name) })
		l.count = int64(l.share * float64(l.total))
	}
	return list, nil
}

func (j *job) mixedShares(m *plan.Model) error {
	return &InputError{&recipe.Error{File: j.p.Recipe.File, Pos: m.Ref.Pos, Msg: fmt.Sprintf("sparsity of %s is not the same for all tensors; it is a share of the whole model (exclude: leaves tensors out)", m.Name())}}
}

// findCuts runs the passes.
func (j *job) findCuts(ctx context.Context, list []*localization) error {
	open := slices.DeleteFunc(slices.Clone(list), func(l *localization) bool {
		if l.count <= 0 || l.count >= l.total {
			for _, lt := range l.tasks {
				c := method.Nothing
				if l.count > 0 {
					c = method.Cut{End: method.Position(lt.task.Elems())}
				}
				lt.set(c)
			}
			return true
		}
		return false
	})
	if len(open) == 0 {
		return nil
	}
	e, err := stream.NewEngine(j.o.Backend, stream.Options{Threads: j.o.Threads, MaxMemory: j.o.MaxMemory, Inputs: j.p.Widest()})
	if err != nil {
		return &InputError{err}
	}
	s := &cutSearch{j: j, e: e, list: open}
	s.plan()
	for k, pass := range []func(context.Context) error{s.upper, s.lower, s.tied} {
		j.fitting(k, 3, "looking for the largest entries")
		if err := pass(ctx); err != nil {
			return err
		}
	}
	j.fitting(3, 3, "looking for the largest entries")
	return nil
}

func (l *localTask) set(c method.Cut) {
	mt := method.Task{PerInput: l.task.PerInput}
	mt.SetCut(l.input, c)
}

// cutSearch runs kernels over the tensors of all localized models at once.
type cutSearch struct {
	j    *job
	e    *stream.Engine
	list []*localization

	tasks []*plan.Task // each once
	of    map[*plan.Task][]cutTarget
}

// cutTarget is an input of a task whose magnitudes are counted.
type cutTarget struct {
	l  *localization
	lt *localTask
}

func (s *cutSearch) plan() {
	s.of = map[*plan.Task][]cutTarget{}
	for _, l := range s.list {
		for _, lt := range l.tasks {
			if s.of[lt.task] == nil {
				s.tasks = append(s.tasks, lt.task)
			}
			s.of[lt.task] = append(s.of[lt.task], cutTarget{l, lt})
		}
	}
}

// each runs do on all tasks, several at a time.
func (s *cutSearch) each(ctx context.Context, tasks []*plan.Task, do func(t *method.Task, targets []cutTarget) error) error {
	var jobs []*stream.Job
	for _, t := range tasks {
		targets := s.of[t]
		job := &stream.Job{Task: t.MethodTask(s.j.p), Out: t.DType}
		job.Method = &method.Method{Name: "localize", Merge: func(mt *method.Task) error { return do(mt, targets) }}
		for _, in := range t.Inputs {
			src, err := newSource(in)
			if err != nil {
				return err
			}
			job.Inputs = append(job.Inputs, src)
		}
		jobs = append(jobs, job)
	}
	return s.e.Run(ctx, jobs)
}

// inputs lists what a pass reads: the base and the targets.
func inputs(t *method.Task, targets []cutTarget) []int {
	list := []int{t.Base}
	for _, c := range targets {
		list = append(list, c.lt.input)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func cutOf(what string, i int) string { return fmt.Sprintf("%s.%d", what, i) }

// histograms counts, for every target, what key makes of its magnitudes.
func (s *cutSearch) histograms(ctx context.Context, name string, bins int, v func(c cutTarget) (string, any), key func(c *method.Chunk, i int) *Node) (map[*localization][]int64, error) {
	sums := map[*localization][]int64{}
	for _, l := range s.list {
		sums[l] = make([]int64, bins)
	}
	var mu sync.Mutex
	err := s.each(ctx, s.tasks, func(t *method.Task, targets []cutTarget) error {
		values := method.Values{}
		for _, c := range targets {
			if v != nil {
				name, x := v(c)
				values[name] = x
			}
		}
		used := inputs(t, targets)
		stats, err := t.Run(&method.Kernel{Name: fmt.Sprintf("localize/%s%v", name, used), Inputs: used, Build: func(c *method.Chunk) {
			for _, x := range targets {
				c.Histogram(cutOf("h", x.lt.input), key(c, x.lt.input), bins)
			}
		}}, values)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, x := range targets {
			sum := sums[x.l]
			for b, n := range stats.Histograms[cutOf("h", x.lt.input)] {
				sum[b] += n
			}
		}
		return nil
	})
	return sums, err
}

// upper finds the upper bits of each cut.
func (s *cutSearch) upper(ctx context.Context) error {
	sums, err := s.histograms(ctx, "upper", upperBins, nil, func(c *method.Chunk, i int) *Node {
		return BitwiseShiftRightLogicalScalar(c.TaskKey(i), uint32(lowerBits))
	})
	if err != nil {
		return err
	}
	for _, l := range s.list {
		l.high, l.rest = fromLargest(sums[l], l.count)
	}
	return nil
}

// lower finds the lower bits.
func (s *cutSearch) lower(ctx context.Context) error {
	value := func(x cutTarget) (string, any) { return cutOf("high", x.lt.input), x.l.high }
	sums, err := s.histograms(ctx, "lower", lowerBins, value, func(c *method.Chunk, i int) *Node {
		key := c.TaskKey(i)
		in := Equal(BitwiseShiftRightLogicalScalar(key, uint32(lowerBits)), c.Uint(cutOf("high", i)))
		return Where(in, BitwiseAnd(key, Const(c.Graph, uint32(lowerBins-1))), Const(c.Graph, uint32(lowerBins)))
	})
	if err != nil {
		return err
	}
	for _, l := range s.list {
		low, take := fromLargest(sums[l], l.rest)
		l.key, l.take, l.ties = l.high<<lowerBits|low, take, sums[l][low]
	}
	return nil
}

// fromLargest finds the bin in which the count-th largest lies, and how many of the bin are among the count largest.
func fromLargest(h []int64, count int64) (bin uint32, take int64) {
	for b := len(h) - 1; b >= 0; b-- {
		if count <= h[b] {
			return uint32(b), count
		}
		count -= h[b]
	}
	return 0, 0
}

// tied gives the cuts to the tasks. Where only some of the entries of the cut's magnitude stay it counts them first, and finds the place
// in the tensor where they end.
func (s *cutSearch) tied(ctx context.Context) error {
	list := s.list
	s.list = slices.DeleteFunc(slices.Clone(list), func(l *localization) bool { return l.take == l.ties })
	for _, l := range list {
		if l.take < l.ties {
			continue
		}
		for _, lt := range l.tasks {
			lt.set(method.Cut{Key: l.key, End: method.Position(lt.task.Elems())})
		}
	}
	if len(s.list) == 0 {
		return nil
	}
	s.tasks = nil
	s.plan()
	if err := s.count(ctx); err != nil {
		return err
	}
	split := map[*plan.Task][]cutTarget{}
	var tasks []*plan.Task
	for _, l := range s.list {
		left := l.take
		for _, lt := range l.tasks {
			n := min(left, lt.equal)
			left -= n
			switch n {
			case lt.equal:
				lt.set(method.Cut{Key: l.key, End: method.Position(lt.task.Elems())})
			case 0:
				lt.set(method.Cut{Key: l.key})
			default:
				lt.equal = n
				if split[lt.task] == nil {
					tasks = append(tasks, lt.task)
				}
				split[lt.task] = append(split[lt.task], cutTarget{l, lt})
			}
		}
	}
	s.of = split
	return s.each(ctx, tasks, func(t *method.Task, targets []cutTarget) error {
		for _, x := range targets {
			i := x.lt.input
			cuts, err := t.LargestCuts(fmt.Sprintf("localize/split%d", i), method.Flat, inputs(t, []cutTarget{x}), func(c *method.Chunk) []*Node { return []*Node{c.TaskKey(i)} }, nil,
				[]method.Rank{{Count: x.lt.above + x.lt.equal}})
			if err != nil {
				return err
			}
			x.lt.set(cuts[0]) // a tensor is one job, so nobody else has it
		}
		return nil
	})
}

// count counts the entries above and at each cut, tensor by tensor.
func (s *cutSearch) count(ctx context.Context) error {
	return s.each(ctx, s.tasks, func(t *method.Task, targets []cutTarget) error {
		values := method.Values{}
		for _, x := range targets {
			values[cutOf("key", x.lt.input)] = x.l.key
		}
		used := inputs(t, targets)
		stats, err := t.Run(&method.Kernel{Name: fmt.Sprintf("localize/count%v", used), Inputs: used, Build: func(c *method.Chunk) {
			for _, x := range targets {
				i := x.lt.input
				key, at := c.TaskKey(i), c.Uint(cutOf("key", i))
				c.Count(cutOf("above", i), GreaterThan(key, at))
				c.Count(cutOf("equal", i), Equal(key, at))
			}
		}}, values)
		if err != nil {
			return err
		}
		for _, x := range targets {
			x.lt.above, x.lt.equal = int64(stats.Totals[cutOf("above", x.lt.input)]), int64(stats.Totals[cutOf("equal", x.lt.input)])
		}
		return nil
	})
}
