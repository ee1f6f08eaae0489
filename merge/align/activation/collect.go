package activation

import (
	"context"

	"github.com/mergekit/mergekit/arch/symmetry"
	"github.com/mergekit/mergekit/model"
)

// seen is what a map read in one batch.
type seen struct {
	x           []float32
	rows, width int
}

// collector turns what maps read into scores.
type collector struct {
	spec *symmetry.Spec
	o    Options
	out  *Scores
	// means are sums of the scores of groups with several sources, until all of them are done.
	means map[string][]float64
	total map[string]int // sources of a group that differ
}

func newCollector(s *symmetry.Spec, o Options) *collector {
	return &collector{spec: s, o: o, out: newScores(s, o.MaxMemory), means: map[string][]float64{}, total: map[string]int{}}
}

// batch is what the maps of both networks read on one batch, by module.
type batch struct{ a, b map[string]seen }

func newBatch() batch { return batch{map[string]seen{}, map[string]seen{}} }

func keepIn(into map[string]seen) model.Feature {
	return func(module string, x []float32, rows, width int) error {
		s := into[module]
		if s.x == nil { // nothing is copied if a map comes in one piece
			s = seen{x, rows, width}
		} else {
			s = seen{append(s.x[:len(s.x):len(s.x)], x...), s.rows + rows, width}
		}
		into[module] = s
		return nil
	}
}

// pass adds a batch to the sums of some sources. Several maps that read the same values are one source of a group.
func (c *collector) pass(list []source, sums []*cross, b batch) error {
	type place struct {
		group string
		at    *float32
	}
	done := map[place]bool{}
	for i := range list {
		s := &list[i]
		a, other := b.a[s.module], b.b[s.module]
		if len(a.x) == 0 {
			continue
		}
		if p := (place{s.group.ID, &a.x[0]}); done[p] {
			continue
		} else {
			done[p] = true
		}
		if a.rows != other.rows || a.width != other.width {
			return &model.InputError{Msg: "group " + s.group.ID + ": " + s.module + " has another shape in the two networks; they cannot be matched unit by unit"}
		}
		x, rows, err := s.rows(a.x, a.rows, a.width)
		if err != nil {
			return err
		}
		y, _, err := s.rows(other.x, other.rows, other.width)
		if err != nil {
			return err
		}
		if sums[i] == nil {
			sums[i] = newCross(s.width())
		}
		if err := sums[i].add(c.o.Gram, x, y, rows); err != nil {
			return err
		}
	}
	return nil
}

// finish makes the sums of sources scores.
func (c *collector) finish(list []source, sums []*cross) error {
	for i := range list {
		if sums[i] == nil {
			continue
		}
		s := &list[i]
		if err := sums[i].finite(s.module); err != nil {
			return err
		}
		var score []float64
		if s.group.Kind == symmetry.HeadGroup {
			l := headLayout(c.spec, s.group, s.ref)
			heads, err := l.scores(sums[i])
			if err != nil {
				return err
			}
			outer, err := l.outer(heads)
			if err != nil {
				return err
			}
			for k, child := range l.child {
				if child != nil {
					c.out.heads[child.ID] = headScores{l, heads, k, s.group.ID}
				}
			}
			if err := c.out.keep(s.group.ID, outer); err != nil {
				return err
			}
			sums[i] = nil
			continue
		}
		score = sums[i].correlation()
		sums[i] = nil
		if c.means[s.group.ID] == nil {
			c.means[s.group.ID] = score
		} else {
			for k, v := range score {
				c.means[s.group.ID][k] += v
			}
		}
		c.total[s.group.ID]++
	}
	return nil
}

// done stores the scores of the groups whose sources are all done.
func (c *collector) done(groups func(id string) bool) error {
	for i := range c.spec.Groups {
		id := c.spec.Groups[i].ID
		sum, n := c.means[id], c.total[id]
		if sum == nil || !groups(id) {
			continue
		}
		score := make([]float32, len(sum))
		for k, v := range sum {
			score[k] = float32(v / float64(n))
		}
		delete(c.means, id)
		if err := c.out.keep(id, score); err != nil {
			return err
		}
	}
	return nil
}

// bytes is what the sums of a source take.
func (s *source) bytes() int64 { return 8 * int64(s.width()) * int64(s.width()) }

// Plain scores the groups of a plain network: a and b are the two, on the same description; x is n examples.
func Plain(ctx context.Context, s *symmetry.Spec, a, b *model.PlainModel, x []float32, n int, o Options) (*Scores, error) {
	o.complete()
	c := newCollector(s, o)
	grouped := map[string]bool{}
	for _, l := range a.D.Modules() {
		grouped[l.Name] = l.Groups > 1
	}
	list := sources(s, func(tensor string) (string, int, bool) {
		name, ok := weightOf(tensor)
		in, known := grouped[name]
		// A grouped convolution's second axis is not that of its channels: those are seen elsewhere.
		return name, 1, ok && known && !in
	})
	width := 1
	for _, d := range a.D.Input {
		width *= d
	}
	const part = 256
	for from := 0; from < len(list); {
		// As many sources at a time as there is room for.
		to, bytes := from, int64(0)
		for to < len(list) && (to == from || bytes+list[to].bytes() <= o.MaxMemory) {
			bytes += list[to].bytes()
			to++
		}
		some := list[from:to]
		wanted := map[string]bool{}
		for _, s := range some {
			wanted[s.module] = true
		}
		want := func(module string) bool { return wanted[module] }
		sums := make([]*cross, len(some))
		for at := 0; at < n; at += part {
			if err := ctx.Err(); err != nil {
				return nil, c.fail(err)
			}
			k := min(part, n-at)
			rows := newBatch()
			if err := a.Features(x[at*width:(at+k)*width], k, want, keepIn(rows.a)); err != nil {
				return nil, c.fail(err)
			}
			if err := b.Features(x[at*width:(at+k)*width], k, want, keepIn(rows.b)); err != nil {
				return nil, c.fail(err)
			}
			if err := c.pass(some, sums, rows); err != nil {
				return nil, c.fail(err)
			}
			o.Progress(from*n+(to-from)*(at+k), len(list)*n, "activations")
		}
		if err := c.finish(some, sums); err != nil {
			return nil, c.fail(err)
		}
		from = to
	}
	if err := c.done(func(string) bool { return true }); err != nil {
		return nil, c.fail(err)
	}
	c.out.Rows = n
	return c.out, nil
}

func (c *collector) fail(err error) error {
	_ = c.out.Close()
	return err
}
