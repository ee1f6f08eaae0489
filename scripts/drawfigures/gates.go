package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/align/match"
	"github.com/mergekit/mergekit/tensors"
)

// gate is a line of the table: what was asked for and what was measured.
type gate struct {
	what, where, asked, measured string
	cases                        string // how many of the single cases are as asked
	held                         bool
}

// gates says what of the acceptance numbers is reached: digits at three widths, and the Llamas.
func gates(ctx context.Context, j *job) (*section, error) {
	t := tasks[0]
	var list []gate
	values := &report.Table{Title: "What the gates are measured by, " + t.title, Note: "Means over five pairs. Barriers of the test loss; test accuracy of the networks and of midpoints, with and without alignment by weights and repair on training images; of least squares at the size of one network (PLeaS 1).",
		Head: []string{"width", "barrier", "barrier, matched", "networks", "average", "average, repaired", "matched", "matched, repaired", "least squares"}}
	for _, w := range widths {
		more, row, err := j.widthGates(ctx, t, w)
		if err != nil {
			return nil, err
		}
		list, values.Rows = append(list, more...), append(values.Rows, row)
	}
	more, err := j.llamaGates(ctx)
	if err != nil {
		return nil, err
	}
	list = append(list, more...)
	slices.SortStableFunc(list, func(a, b gate) int { return bytes.Compare([]byte(a.what[:1]), []byte(b.what[:1])) })
	table := report.Table{Title: "Gates", Text: 6, Note: "Means decide; the cases beside them are single pairs.", Head: []string{"gate", "where", "asked", "measured", "cases", ""}}
	for _, g := range list {
		verdict := "**not held**"
		if g.held {
			verdict = "held"
		}
		table.Rows = append(table.Rows, []string{g.what, g.where, g.asked, g.measured, g.cases, verdict})
	}
	return &section{tables: []report.Table{table, *values}}, nil
}

// tally is a measured quantity over pairs, of which each should be at least a bound.
type tally struct {
	spread
	bound float64
	good  int
}

func (t *tally) add(x float64) {
	t.spread.add(x)
	if x >= t.bound {
		t.good++
	}
}

func (t *tally) cases() string { return fmt.Sprintf("%d of %.0f", t.good, t.n) }

func points(x float64) string { return fmt.Sprintf("%+.1f points", 100*x) }

// widthGates are those of one width.
func (j *job) widthGates(ctx context.Context, t task, w int) ([]gate, []string, error) {
	where := fmt.Sprintf("width %d", w)
	room := 0.02 // of accuracy that least squares may lose
	if w <= 32 {
		room = 0.05
	}
	var naive, matching, ends, average, averageRepaired, middle, middleRepaired, fitted spread
	half, gain, loss := tally{bound: 0.5}, tally{bound: 0.05}, tally{bound: -room}
	const flags = "weight,activation" // as the part on widths measures them
	for _, pair := range j.pairsOf(t, w) {
		plain, err := j.barrier(ctx, t, pair, "--align", flags)
		if err != nil {
			return nil, nil, err
		}
		repaired, err := j.barrier(ctx, t, pair, "--align", flags, "--repair", "activations", "--points", "3")
		if err != nil {
			return nil, nil, err
		}
		_, n, err := path(plain, given.variant, "test")
		if err != nil {
			return nil, nil, err
		}
		_, m, err := path(plain, "weight", "test")
		if err != nil {
			return nil, nil, err
		}
		_, nr, err := path(repaired, given.variant, "test")
		if err != nil {
			return nil, nil, err
		}
		_, mr, err := path(repaired, "weight", "test")
		if err != nil {
			return nil, nil, err
		}
		f, err := j.scored(ctx, squares(pair, 1, "merged", matched, j.calibrated(t)), j.data(t, "test"))
		if err != nil {
			return nil, nil, err
		}
		parents := 1 - (n.ErrorBarrier.Start+n.ErrorBarrier.End)/2
		naive.add(n.LossBarrier.Chord)
		matching.add(m.LossBarrier.Chord)
		ends.add(parents)
		average.add(1 - *n.ErrorBarrier.Middle)
		averageRepaired.add(1 - *nr.ErrorBarrier.Middle)
		middle.add(1 - *m.ErrorBarrier.Middle)
		middleRepaired.add(1 - *mr.ErrorBarrier.Middle)
		fitted.add(f.Class.Accuracy)
		half.add(1 - m.LossBarrier.Chord/n.LossBarrier.Chord) // the share of the barrier that matching removes
		gain.add(*m.ErrorBarrier.Middle - *mr.ErrorBarrier.Middle)
		loss.add(f.Class.Accuracy - parents)
	}
	copies, same, err := j.copies(ctx, t, w)
	if err != nil {
		return nil, nil, err
	}
	proofs, err := j.proofs(ctx, t, w)
	if err != nil {
		return nil, nil, err
	}
	ratio := matching.mean() / naive.mean()
	all := []gate{
		{"1. a permuted copy comes back", where, "bit for bit", fmt.Sprintf("%d of %d copies", same, copies), fmt.Sprintf("%d of %d", same, copies), same == copies},
		{"2. barrier after weight matching", where, "at most 0.5 of that before", fmt.Sprintf("%.2f (%s of %s)", ratio, number(matching.mean()), number(naive.mean())), half.cases(), ratio <= 0.5},
	}
	if w == 128 {
		all = append(all, gate{"3. repair after weight matching", where, "accuracy +5 points", fmt.Sprintf("%s (%s, then %s)", points(gain.mean()), percent(middle.mean()), percent(middleRepaired.mean())), gain.cases(), gain.mean() >= gain.bound})
	}
	all = append(all,
		gate{"4. least squares against the networks", where, fmt.Sprintf("at most %.0f points below", 100*room), fmt.Sprintf("%s (%s of %s)", points(loss.mean()), percent(fitted.mean()), percent(ends.mean())), loss.cases(), loss.mean() >= loss.bound},
		gate{"5. the objective never falls", where, "in no update", fmt.Sprintf("%d of %d updates fell", proofs.falls, proofs.updates), fmt.Sprintf("%d of %d", proofs.updates-proofs.falls, proofs.updates), proofs.falls == 0},
		gate{"6. assignments are optimal", where, "proved by a certificate", fmt.Sprintf("%d proved", proofs.certificates), fmt.Sprintf("%d of %d", proofs.certificates, proofs.certificates), proofs.certificates > 0})
	row := []string{fmt.Sprint(w), number(naive.mean()), number(matching.mean())}
	for _, v := range []*spread{&ends, &average, &averageRepaired, &middle, &middleRepaired, &fitted} {
		row = append(row, percent(v.mean()))
	}
	return all, row, nil
}

// copies permutes every network of a width, brings the copies back, and counts those that are the same bytes.
func (j *job) copies(ctx context.Context, t task, w int) (copies, same int, err error) {
	for seed, network := range j.networks(t, w, 5) {
		args := []string{"align", "--random", fmt.Sprint(seed + 1), network, "--symmetry", "permutation"}
		shuffled := j.hashed("align", args...)
		if _, err := os.Stat(shuffled); err != nil {
			if err := j.call(ctx, nil, append(args, "-o", shuffled, "--quiet")...); err != nil {
				return 0, 0, err
			}
		}
		args = []string{"align", network, shuffled, "--on-same-base", "force"}
		back := j.hashed("align", args...)
		if _, err := os.Stat(back); err != nil {
			if err := j.call(ctx, nil, append(args, "-o", back, "--quiet", "--verify")...); err != nil {
				return 0, 0, err
			}
		}
		moved, err := equal(network, shuffled)
		if err != nil {
			return 0, 0, err
		}
		if moved {
			return 0, 0, fmt.Errorf("%s: is %s unchanged, so there is nothing to bring back", shuffled, network)
		}
		ok, err := equal(network, back)
		if err != nil {
			return 0, 0, err
		}
		if copies++; ok {
			same++
		}
	}
	return copies, same, nil
}

// equal reports whether two checkpoints have the same tensors, byte by byte.
func equal(a, b string) (bool, error) {
	one, err := tensors.Open(a)
	if err != nil {
		return false, err
	}
	defer one.Close()
	other, err := tensors.Open(b)
	if err != nil {
		return false, err
	}
	defer other.Close()
	names := one.Names()
	if !slices.Equal(slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(other.Names()))) {
		return false, nil
	}
	for _, name := range names {
		x, err := one.View(name)
		if err != nil {
			return false, err
		}
		y, err := other.View(name)
		if err != nil {
			return false, err
		}
		if x.DType != y.DType || !slices.Equal(x.Shape, y.Shape) || !bytes.Equal(x.Data, y.Data) {
			return false, nil
		}
	}
	return true, nil
}

// proof is what matching says of itself.
type proof struct{ updates, falls, certificates int }

// proofs matches all pairs of a width with certificates, looking at every update. A certificate that fails is an error.
func (j *job) proofs(ctx context.Context, t task, w int) (out proof, err error) {
	for _, pair := range j.pairsOf(t, w) {
		if err := out.match(ctx, pair[0], pair[1]); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (p *proof) match(ctx context.Context, a, b string) error {
	spec, err := align.SpecFor(a, "")
	if err != nil {
		return err
	}
	one, err := tensors.Open(a)
	if err != nil {
		return err
	}
	defer one.Close()
	other, err := tensors.Open(b)
	if err != nil {
		return err
	}
	defer other.Close()
	r, err := match.Pair(ctx, spec, align.OfCheckpoint(one), align.OfCheckpoint(other), match.Options{Verify: true})
	if err != nil {
		return fmt.Errorf("%s and %s: %w", a, b, err)
	}
	p.certificates += r.Certificates
	for i := 1; i < len(r.Trace); i++ {
		if p.updates++; r.Trace[i] < r.Trace[i-1] {
			p.falls++
		}
	}
	return nil
}

// llamaGates are those of the Llamas: more symmetries are better, and least squares is better than the average.
func (j *job) llamaGates(ctx context.Context) ([]gate, error) {
	found, _, err := j.measureLlamas(ctx)
	if err != nil {
		return nil, err
	}
	barrier := func(i int) float64 { return found[i].barrier.mean() }
	const none, permutation, full, average, fitted = 0, 1, 3, 0, 3
	mid, fit := found[full].fits[average].mean(), found[full].fits[fitted].mean()
	ordered, below, pairs := 0, 0, len(found[full].barriers)
	for i := range pairs {
		if found[full].barriers[i] < found[permutation].barriers[i] && found[permutation].barriers[i] < found[none].barriers[i] {
			ordered++
		}
		if found[full].losses[fitted][i] < found[full].losses[average][i] {
			below++
		}
	}
	return []gate{
		{what: "8. barrier with all symmetries", where: "Llamas", asked: "below permutations, below none", measured: fmt.Sprintf("%s, %s, %s", number(barrier(full)), number(barrier(permutation)), number(barrier(none))),
			cases: fmt.Sprintf("%d of %d", ordered, pairs), held: barrier(full) < barrier(permutation) && barrier(permutation) < barrier(none)},
		{what: "8. loss of least squares in the middle", where: "Llamas", asked: "below that of the average", measured: fmt.Sprintf("%s, %s", number(fit), number(mid)),
			cases: fmt.Sprintf("%d of %d", below, pairs), held: fit < mid},
	}, nil
}
