// Package fill completes a checkpoint from a larger one that it is a part of: the language model of a model that sees and hears, merged on its
// own, goes back into its place, and what it lacks (towers, projectors) comes from there.
package fill

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/tensors"
)

// Error is a mistake in what the user gave: checkpoints that do not fit. Programs map it to the exit status for bad input.
type Error struct {
	File, Tensor string
	Msg, Hint    string
}

// Error renders "file: tensor: msg; hint".
func (e *Error) Error() string {
	f := tensors.FormatError{File: e.File, Tensor: e.Tensor, Msg: e.Msg, Hint: e.Hint}
	return f.Error()
}

// Options say how the output is written.
type Options struct {
	Prefix     string // in the place of what the part's names begin with, as FROM=TO or TO alone; "": found
	ShardBytes int64  // 0: the writer's; negative: one file
	Threads    int
	Force      bool
	Warn       func(message string)
	Started    func(total int64)
	Written    func(n int64)
}

// Report says where the output's tensors come from.
type Report struct {
	Output   string   `json:"output"`
	From     string   `json:"from"` // what the part's names begin with
	To       string   `json:"to"`   // and what the base has in its place
	Tensors  int      `json:"tensors"`
	Replaced int      `json:"replaced"`
	Filled   int      `json:"filled"`
	Bytes    int64    `json:"bytes"`
	LeftOut  []string `json:"left_out,omitempty"` // tensors of the part that the base has no place for
}

// Missing writes base with the tensors of part in the place of its own, and the files beside base. part's names may lack a prefix that base's
// have, or have another one. The output appears whole or not at all.
func Missing(ctx context.Context, base, part, out string, o Options) (*Report, error) {
	for _, dir := range []string{base, part} {
		if tensors.Holds(out, dir) {
			return nil, &Error{File: out, Msg: "the output is the directory of " + dir + ", or holds it", Hint: "choose another output directory"}
		}
	}
	b, err := checkpoint.Open(base)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	p, err := checkpoint.Open(part)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	f := &filling{base: b, part: p, out: out, o: o, report: &Report{Output: out}}
	if err := f.plan(); err != nil {
		return nil, err
	}
	files, err := adapter.SideFiles(base)
	if err != nil {
		return nil, err
	}
	w, err := tensors.Create(out, f.infos, tensors.WriteOptions{ShardBytes: o.ShardBytes, Force: o.Force, Files: slices.Collect(maps.Keys(files)), Metadata: b.Metadata()})
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Discard() }()
	if err := f.fill(ctx, w); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := checkpoint.CopyFile(w, name, files[name]); err != nil {
			return nil, err
		}
	}
	return f.report, w.Commit()
}

// filling is the work of Missing.
type filling struct {
	base, part *tensors.Checkpoint
	out        string
	o          Options
	infos      []tensors.Info
	from       map[string]string // names in the part by names in the base
	report     *Report
}

// plan finds the place of every tensor of the part.
func (f *filling) plan() error {
	for _, c := range []*tensors.Checkpoint{f.base, f.part} {
		if len(c.Names()) == 0 {
			return &Error{File: c.Path(), Msg: "has no tensors", Hint: "check that the download or the merge that made it ended"}
		}
	}
	names := map[string]bool{}
	for _, n := range f.base.Names() {
		names[n] = true
	}
	var err error
	if f.o.Prefix != "" {
		f.report.From, f.report.To = parsePrefix(f.o.Prefix)
		if !slices.ContainsFunc(f.part.Names(), func(n string) bool { return strings.HasPrefix(n, f.report.From) }) {
			return &Error{File: f.part.Path(), Msg: fmt.Sprintf("has no tensor whose name begins with %q, which --prefix replaces; the first is %s", f.report.From, f.part.Names()[0]), Hint: "correct --prefix, or leave it out"}
		}
	} else if f.report.From, f.report.To, err = f.findPrefix(names); err != nil {
		return err
	}
	f.from = map[string]string{}
	for _, n := range f.part.Names() {
		to := place(n, f.report.From, f.report.To)
		if !names[to] {
			f.report.LeftOut = append(f.report.LeftOut, n)
			continue
		}
		if first, twice := f.from[to]; twice {
			return &Error{File: f.part.Path(), Tensor: n, Msg: "has the same place in the base as " + first + ": " + to, Hint: "give --prefix"}
		}
		f.from[to] = n
	}
	if len(f.from) == 0 {
		return f.nothing()
	}
	if err := f.check(); err != nil {
		return err
	}
	f.report.Tensors, f.report.Replaced, f.report.Filled = len(f.infos), len(f.from), len(f.infos)-len(f.from)
	return nil
}

func (f *filling) nothing() error {
	return &Error{File: f.part.Path(), Msg: fmt.Sprintf("has no tensor in common with %s: %s is in the one, %s in the other", f.base.Path(), f.part.Names()[0], f.base.Names()[0]),
		Hint: "if its names have a place there after all, say so with --prefix FROM=TO"}
}

// check compares shapes, and lists the output's tensors.
func (f *filling) check() error {
	if len(f.report.LeftOut) > 0 {
		const most = 5
		some := f.report.LeftOut[:min(most, len(f.report.LeftOut))]
		for _, n := range f.report.LeftOut {
			if !arch.Recomputed(n) && n != "lm_head.weight" {
				return &Error{File: f.part.Path(), Tensor: n, Msg: fmt.Sprintf("has no place in %s (with %q in the place of %q), like %d of %d tensors", f.base.Path(), f.report.To, f.report.From, len(f.report.LeftOut), len(f.part.Names())),
					Hint: "the part is of another model; --prefix FROM=TO says where its names belong"}
			}
		}
		f.warn("left out, because the base has no place for it: %s", strings.Join(some, ", ")) // a tied head
	}
	dtypes := map[string]string{}
	for _, n := range f.base.Names() {
		info, _ := f.base.Lookup(n)
		if from, ok := f.from[n]; ok {
			own, _ := f.part.Lookup(from)
			if !slices.Equal(own.Shape, info.Shape) {
				return &Error{File: f.part.Path(), Tensor: from, Msg: fmt.Sprintf("has shape %v, and %s has %v in its place", own.Shape, f.base.Path(), info.Shape), Hint: "the two have different sizes; give the base whose part this is"}
			}
			if own.DType != info.DType {
				dtypes[own.DType.String()] = info.DType.String()
			}
			info.DType = own.DType
		}
		f.infos = append(f.infos, info)
		f.report.Bytes += info.Bytes()
	}
	for _, d := range slices.Sorted(maps.Keys(dtypes)) {
		f.warn("tensors of the part are %s and those of the base %s: the output has both; `mergekit convert --dtype` makes them one", d, dtypes[d])
	}
	return nil
}

func (f *filling) warn(format string, args ...any) {
	if f.o.Warn != nil {
		f.o.Warn(fmt.Sprintf(format, args...))
	}
}

// parsePrefix reads FROM=TO, or TO alone. A prefix ends with a dot.
func parsePrefix(s string) (from, to string) {
	from, to, both := strings.Cut(s, "=")
	if !both {
		from, to = "", from
	}
	dotted := func(p string) string {
		if p != "" && !strings.HasSuffix(p, ".") {
			p += "."
		}
		return p
	}
	return dotted(from), dotted(to)
}

// place is where a name of the part is in the base. Names that do not begin with from stay what they are.
func place(name, from, to string) string {
	if rest, ok := strings.CutPrefix(name, from); ok {
		return to + rest
	}
	return name
}

// deepest is how many components of a name may be a prefix.
const deepest = 3

// findPrefix finds what to put in the place of what: the pair of prefixes under which most names of the part are names of the base; of equals
// the shortest.
func (f *filling) findPrefix(names map[string]bool) (from, to string, err error) {
	best := -1
	var rivals []string
	for _, x := range prefixes(f.part.Names()) {
		// A prefix of a few names is no place in another model, but what makes them alike by chance.
		if with := slices.DeleteFunc(f.part.Names(), func(n string) bool { return !strings.HasPrefix(n, x) }); 2*len(with) <= len(f.part.Names()) {
			continue
		}
		for _, y := range prefixes(f.base.Names()) {
			found := 0
			for _, n := range f.part.Names() {
				if names[place(n, x, y)] {
					found++
				}
			}
			switch {
			case found > best || found == best && len(x)+len(y) < len(from)+len(to):
				from, to, best, rivals = x, y, found, nil
			case found == best && len(x)+len(y) == len(from)+len(to) && found > 0:
				rivals = append(rivals, y)
			}
		}
	}
	if best <= 0 {
		return "", "", f.nothing()
	}
	if len(rivals) > 0 {
		return "", "", &Error{File: f.part.Path(), Msg: fmt.Sprintf("has several places in %s: %q and %q", f.base.Path(), to, rivals[0]), Hint: "choose one with --prefix"}
	}
	return from, to, nil
}

// prefixes are the beginnings of names at their dots, the empty one first, each once, in order.
func prefixes(names []string) []string {
	seen := map[string]bool{"": true}
	for _, n := range names {
		for at, depth := 0, 0; depth < deepest; depth++ {
			i := strings.IndexByte(n[at:], '.')
			if i < 0 {
				break
			}
			at += i + 1
			if last := n[:at-1]; isNumber(last[strings.LastIndexByte(last, '.')+1:]) {
				break // the number of a layer
			}
			seen[n[:at]] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func isNumber(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// fill copies the tensors' bytes.
func (f *filling) fill(ctx context.Context, w *tensors.Writer) error {
	const step = 8 << 20
	return w.Fill(ctx, tensors.Filling{Threads: f.o.Threads, Started: f.o.Started, Written: f.o.Written,
		Cut: func(i int) tensors.Pieces { return tensors.Pieces{Units: f.infos[i].Bytes(), Step: step} },
		Worker: func() func(i int, lo, hi int64) (int64, error) {
			return func(i int, lo, hi int64) (int64, error) {
				c, name := f.base, f.infos[i].Name
				if from, ok := f.from[name]; ok {
					c, name = f.part, from
				}
				r, err := c.Reader(name)
				if err != nil {
					return 0, err
				}
				data, err := r.Bytes(lo, hi-lo, nil)
				if err != nil {
					return 0, err
				}
				if err := w.WriteAt(i, data, lo); err != nil {
					return 0, err
				}
				r.Release(lo, hi-lo)
				return hi - lo, nil
			}
		}})
}
