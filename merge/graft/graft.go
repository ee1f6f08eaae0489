package graft

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// How a mask is found.
const (
	ByMagnitude = "magnitude" // what fine-tuning moved most; needs no data
	Learn       = "learned"   // from there on data (Panigrahi et al., 2023)
	L1          = "l1"        // from a larger first mask, shrinking under a penalty (He et al., 2024)
)

// Options say how a graft is made.
type Options struct {
	Base, Tuned string   // checkpoints
	Config      []byte   // config.json of the base; needed with data
	Output      string   // the graft's file
	Sparsity    float64  // share of the space; 0: Count
	Count       int64    // elements
	Exclude     string   // tensors that are not masked, as merge method graft has it
	Whole       []string // patterns of tensors that are taken over whole: a head that the base has not trained
	Mask        string
	Learn       LearnOptions
	// Data is learned from, HeldOut chooses among masks, Test is measured at the end only. All may be without files.
	Data, HeldOut, Test evaluation.Options
	Backend             compute.Backend
	Threads             int
	Force               bool
	Progress            func(done, total int, what string)
}

// Measured is what base, fine-tune and graft score on one set of rows.
type Measured struct {
	Set   string            `json:"set"` // data, held_out or test
	Base  *evaluation.Score `json:"base"`
	Tuned *evaluation.Score `json:"tuned"`
	Graft *evaluation.Score `json:"graft"`
	// Kept is the share of the fine-tune's gain over the base that the graft keeps, by the metric; nil where there is no gain.
	Kept *float64 `json:"kept,omitempty"`
}

// Result says what a graft is.
type Result struct {
	Output   string     `json:"output"`
	Mask     string     `json:"mask"`
	Entries  int64      `json:"entries"`
	Asked    int64      `json:"asked"`
	Space    int64      `json:"space"` // elements that the mask ranges over
	Moved    int64      `json:"moved"` // of these, the ones in which base and fine-tune differ
	Total    int64      `json:"total"` // elements of the base
	Share    float64    `json:"share"` // Entries of Total
	Whole    []string   `json:"whole,omitempty"`
	Learned  *Learned   `json:"learned,omitempty"`
	Measured []Measured `json:"measured,omitempty"`
	Bytes    int64      `json:"bytes"`
	Memory   int64      `json:"mask_memory_bytes"` // that learning holds beside the model
	Seconds  float64    `json:"seconds"`
	Notes    []string   `json:"notes,omitempty"`
}

// start is how many times larger than the asked mask the first one of L1 is.
const start = 5

// Default fills in what is not given.
func (o *Options) Default() {
	l := &o.Learn
	set := func(x *float64, v float64) {
		if *x == 0 {
			*x = v
		}
	}
	if l.Optimizer == "" {
		l.Optimizer = Momentum
	}
	lr, anchor := 0.5, 10.0 // the paper's c
	if o.Mask == L1 {
		anchor = 5
		set(&l.Penalty, 0.5) // of the typical gain
	}
	set(&l.Anchor, anchor)
	set(&l.LR, lr)
	if l.Steps == 0 {
		l.Steps = 100
	}
	if l.Rows == 0 {
		l.Rows = 64
	}
	if l.Every == 0 {
		l.Every = max(1, l.Steps/10)
	}
}

func bad(format string, args ...any) error {
	return &model.InputError{Msg: fmt.Sprintf(format, args...)}
}

// Check refuses options that cannot work.
func (o *Options) Check() error {
	switch {
	case o.Mask != ByMagnitude && o.Mask != Learn && o.Mask != L1:
		return bad("mask %q is not known; magnitude, learned and l1 are", o.Mask)
	case o.Mask != ByMagnitude && len(o.Data.Data.Files) == 0:
		return bad("a mask is learned on data; name a file (--data), or take --mask magnitude")
	case o.Learn.Optimizer != Adam && o.Learn.Optimizer != Momentum:
		return bad("optimizer %q is not known; momentum and adam are", o.Learn.Optimizer)
	case o.Count < 0, o.Count == 0 && !(o.Sparsity > 0 && o.Sparsity <= 1):
		return bad("sparsity %g is no share; use a value above 0 and up to 1, or a count of entries", o.Sparsity)
	case o.Learn.Steps < 1, o.Learn.Rows < 1, o.Learn.Every < 1:
		return bad("steps, rows of a step and steps between measurements are at least 1")
	case !(o.Learn.LR > 0) || math.IsInf(o.Learn.LR, 0), !(o.Learn.Penalty >= 0) || math.IsInf(o.Learn.Penalty, 0):
		return bad("the learning rate is a number above 0, the penalty one that is not negative")
	}
	return sparse.CheckOutput(o.Output, o.Force)
}

// Make finds a graft, writes it, and measures it.
func Make(ctx context.Context, o Options) (*Result, error) {
	began := time.Now()
	o.Default()
	if err := o.Check(); err != nil {
		return nil, err
	}
	base, err := checkpoint.Open(o.Base)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	tuned, err := checkpoint.Open(o.Tuned)
	if err != nil {
		return nil, err
	}
	defer tuned.Close()
	s, err := NewSpace(base, tuned, o.Exclude, o.Whole, threadsOr(o.Threads))
	if err != nil {
		return nil, err
	}
	m := &making{o: o, s: s, r: &Result{Output: o.Output, Mask: o.Mask, Space: s.Total, Notes: s.Notes}}
	defer m.close()
	if err := m.run(ctx); err != nil {
		return nil, err
	}
	m.r.Seconds = time.Since(began).Seconds()
	return m.r, nil
}

// making is a graft in the making.
type making struct {
	o     Options
	s     *Space
	r     *Result
	whole []tensors.View
	sets  []set
	mask  *Mask
}

// set is rows that are measured.
type set struct {
	name  string
	judge *evaluation.Judge
}

func (m *making) close() {
	for _, s := range m.sets {
		s.judge.Release()
	}
}

func (m *making) run(ctx context.Context) error {
	var err error
	if m.whole, err = m.s.Wholes(m.o.Whole); err != nil {
		return err
	}
	for _, v := range m.whole {
		m.r.Whole = append(m.r.Whole, v.Name)
	}
	for _, name := range m.s.base.Names() {
		info, _ := m.s.base.Lookup(name)
		m.r.Total += info.Elems()
	}
	k := m.o.Count
	if k == 0 {
		k = int64(m.o.Sparsity * float64(m.s.Total))
	}
	if k < 1 || k > m.s.Total {
		return bad("sparsity %g of %d elements is %d entries; ask for at least one, and not for more than there are", m.o.Sparsity, m.s.Total, k)
	}
	m.r.Asked = k
	if err := m.open(ctx); err != nil { // what is wrong with data shows before the work
		return err
	}
	if err := m.find(ctx, k); err != nil {
		return err
	}
	if m.r.Entries, m.r.Moved = m.mask.Count(), m.s.Moved; m.r.Entries < k {
		m.r.Notes = append(m.r.Notes, fmt.Sprintf("base and fine-tune differ in %d elements of the space only, which are all in the graft", m.r.Entries))
	}
	m.r.Share = float64(m.r.Entries) / float64(max(m.r.Total, 1))
	if err := m.measure(ctx); err != nil {
		return err
	}
	return m.write()
}

// open reads the sets.
func (m *making) open(ctx context.Context) error {
	dir := m.o.Base
	for _, x := range []struct {
		name string
		o    evaluation.Options
	}{{"data", m.o.Data}, {"held_out", m.o.HeldOut}, {"test", m.o.Test}} {
		if len(x.o.Data.Files) == 0 {
			continue
		}
		if m.o.Config == nil {
			return bad("%s has no config.json, without which no model can be measured; give a directory", m.o.Base)
		}
		x.o.Backend = m.o.Backend
		if len(m.sets) > 0 {
			x.o.Share = m.sets[0].judge
		}
		j, err := evaluation.Open(ctx, m.o.Config, dir, x.o)
		if err != nil {
			return err
		}
		for _, s := range m.sets {
			earlier, later := strings.ReplaceAll(s.name, "_", "-"), strings.ReplaceAll(x.name, "_", "-")
			switch n := evaluation.Shared(s.judge, j); {
			case n == j.Rows():
				return bad("%s and %s are the same rows; what is measured on must not be what was learned from or chosen by", earlier, later)
			case n > 0:
				m.r.Notes = append(m.r.Notes, fmt.Sprintf("%d of the %d rows of %s are in %s too, so that it looks better on them than it is", n, j.Rows(), later, earlier))
			}
		}
		m.sets = append(m.sets, set{x.name, j})
	}
	return nil
}

func (m *making) judge(name string) *evaluation.Judge {
	for _, s := range m.sets {
		if s.name == name {
			return s.judge
		}
	}
	return nil
}

// find makes the mask.
func (m *making) find(ctx context.Context, k int64) error {
	m.tell(0, 1, "ranking differences")
	first := k
	if m.o.Mask == L1 {
		first = min(start*k, m.s.Total)
	}
	mask, err := m.s.Magnitude(ctx, first)
	if err != nil {
		return err
	}
	m.tell(1, 1, "ranking differences")
	m.mask = mask
	if m.s.Moved == 0 {
		return bad("base and fine-tune are the same in all that the mask ranges over, so there is nothing to graft")
	}
	if m.o.Mask == ByMagnitude {
		return nil
	}
	train := m.judge("data")
	m.r.Memory = m.s.Total * 8
	if m.o.Learn.Optimizer == Adam {
		m.r.Memory = m.s.Total * 12
	}
	l, err := train.Learner(ctx, m.s.empty().Weights(m.o.Whole), func(name string) bool { _, ok := m.s.at[name]; return ok })
	if err != nil {
		return err
	}
	defer l.Close()
	o := m.o.Learn
	o.Progress = m.o.Progress
	m.r.Learned, err = m.s.Learn(ctx, mask, k, Teacher{Learner: l, Rows: train.Rows(), HeldOut: m.judge("held_out"), Whole: m.o.Whole}, o)
	if err != nil {
		return err
	}
	m.mask = m.r.Learned.Mask
	if m.judge("held_out") == nil {
		m.r.Notes = append(m.r.Notes, "the mask was chosen on the rows that it was learned from; --held-out chooses on others")
	}
	return nil
}

func (m *making) tell(done, total int, what string) {
	if m.o.Progress != nil {
		m.o.Progress(done, total, what)
	}
}

// measure scores base, fine-tune and graft on every set.
func (m *making) measure(ctx context.Context) error {
	for k, s := range m.sets {
		m.tell(k, len(m.sets), "measuring")
		one := Measured{Set: s.name}
		for _, x := range []struct {
			to *(*evaluation.Score)
			w  align.Weights
		}{{&one.Base, align.OfCheckpoint(m.s.base)}, {&one.Tuned, align.OfCheckpoint(m.s.tuned)}, {&one.Graft, m.mask.Weights(m.o.Whole)}} {
			var err error
			if *x.to, err = s.judge.Score(ctx, x.w); err != nil {
				return err
			}
		}
		if gain := one.Tuned.Value - one.Base.Value; gain > 0 && !math.IsInf(gain, 0) {
			if kept := (one.Graft.Value - one.Base.Value) / gain; !math.IsInf(kept, 0) {
				one.Kept = &kept
			}
		}
		m.r.Measured = append(m.r.Measured, one)
	}
	return nil
}

// write writes the graft's file.
func (m *making) write() error {
	m.tell(0, 1, "writing")
	hash, err := sparse.Hash(m.s.base)
	if err != nil {
		return err
	}
	meta := map[string]string{"mask": m.o.Mask, "space": strconv.FormatInt(m.s.Total, 10), "exclude": m.o.Exclude, "task": strings.TrimSuffix(filepath.Base(m.o.Output), ".safetensors")}
	list := m.mask.Tensors()
	if err := sparse.Write(m.o.Output, sparse.Header{Kind: sparse.Graft, Base: hash, Meta: meta}, list, m.whole, m.o.Force); err != nil {
		return err
	}
	for _, t := range list {
		m.r.Bytes += int64(len(t.Raw)) + 4*int64(len(t.Index))
	}
	for _, v := range m.whole {
		m.r.Bytes += int64(len(v.Data))
	}
	m.tell(1, 1, "writing")
	return nil
}
