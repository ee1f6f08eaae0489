package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/connect"
)

// symmetryWay is a set of symmetries by which a Llama is brought to another.
type symmetryWay struct {
	name  string
	short string // below bars
	tone  report.Tone
	flags []string // nil: it stays as it is
}

// symmetryWays are in the order of what they may move. A learned map has been fitted to the loss between the models.
var symmetryWays = []symmetryWay{
	{"none", "none", report.Second, nil},
	{"permutation", "permuted", report.Faint, []string{"--symmetry", "permutation"}},
	{"signed", "signed", report.Third, []string{"--symmetry", "signed"}},
	{"full", "full", report.First, []string{"--symmetry", "full"}},
	{"learned", "learned", report.Fourth, []string{"--symmetry", "full", "--method", "learned"}},
}

// fits are ways of merging what is aligned.
var fits = []struct {
	name, block string // the block of the recipe's parameters; "": the average
	method      string
	tone        report.Tone
}{
	{"average", "", "linear", report.Second},
	{"RegMean", "", "regmean", report.Faint},
	{"least squares, own inputs", "parameters: {least_squares: {inputs: original}}", "pleas", report.Third},
	{"least squares", "parameters: {least_squares: {inputs: merged}}", "pleas", report.First},
}

// llamas are two to measure, by seed.
type llamas struct{ a, b string }

// llamaPairs are the pairs of the three seeds.
func (j *job) llamaPairs() (list []llamas) {
	const seeds = 3
	at := func(seed int) string { return filepath.Join(j.pairs, "llama", fmt.Sprintf("s%d", seed)) }
	for s := range seeds {
		list = append(list, llamas{at(s + 1), at((s+1)%seeds + 1)})
	}
	return list
}

func (j *job) text(set string) string { return filepath.Join(j.pairs, "llama", "data", set+".jsonl") }

// texts is the calibration block of texts.
func (j *job) texts() string {
	return fmt.Sprintf("calibration: {data: %q, samples: 512, seq_len: 64}", j.text("train"))
}

// aligned gives B in A's coordinates and the file of the map.
func (j *job) aligned(ctx context.Context, p llamas, w symmetryWay) (dir, file string, err error) {
	if w.flags == nil {
		file, err = j.identity(p.b)
		return p.b, file, err
	}
	args := append([]string{"align", p.a, p.b, "--on-same-base", "force", "--data", j.text("train"), "--samples", "512", "--seq-len", "64"}, w.flags...)
	dir = j.hashed("align", args...)
	file = dir + ".safetensors"
	if _, err := os.Stat(dir); err == nil {
		return dir, file, nil
	}
	return dir, file, j.call(ctx, nil, append(args, "-o", dir, "--save", file, "--quiet", "--backend", j.backend, "--force")...)
}

// identity writes the map that moves nothing, with which least squares can be asked for without alignment.
func (j *job) identity(dir string) (string, error) {
	file := j.hashed("identity", dir) + ".safetensors"
	spec, err := align.SpecFor(dir, "")
	if err != nil {
		return "", err
	}
	return file, align.Identity(spec).Save(file)
}

// paths measures a pair's paths, aligned in all ways.
func (j *job) paths(ctx context.Context, p llamas) (*connect.Report, error) {
	args := []string{"barrier", p.a, p.b, "--data", j.text("test")}
	for _, w := range symmetryWays {
		if w.flags == nil {
			continue
		}
		dir, _, err := j.aligned(ctx, p, w)
		if err != nil {
			return nil, err
		}
		args = append(args, "--aligned", w.name+"="+dir)
	}
	file, err := j.run(ctx, "barrier.json", args...)
	if err != nil {
		return nil, err
	}
	return read[connect.Report](file)
}

// variant is the name of a way in a measured path.
func (w *symmetryWay) variant() string {
	if w.flags == nil {
		return given.variant
	}
	return w.name
}

// middleLlama is what a way of aligning reaches: the barrier, and the loss in the middle for every fit.
type middleLlama struct {
	barrier  spread
	fits     [4]spread
	barriers []float64 // of the pairs
	losses   [4][]float64
}

// measureLlamas measures all pairs in all ways; ends are the losses of the models.
func (j *job) measureLlamas(ctx context.Context) (found []middleLlama, ends spread, err error) {
	found = make([]middleLlama, len(symmetryWays))
	for _, p := range j.llamaPairs() {
		r, err := j.paths(ctx, p)
		if err != nil {
			return nil, ends, err
		}
		for i := range symmetryWays {
			w := &symmetryWays[i]
			_, c, err := path(r, w.variant(), "test")
			if err != nil {
				return nil, ends, err
			}
			found[i].barrier.add(c.LossBarrier.Chord)
			found[i].barriers = append(found[i].barriers, c.LossBarrier.Chord)
			if i == 0 {
				ends.add(c.LossBarrier.Start)
			}
			_, file, err := j.aligned(ctx, p, *w)
			if err != nil {
				return nil, ends, err
			}
			for k, f := range fits {
				v, err := j.scored(ctx, recipe(f.method, []string{p.a, p.b}, f.block, fmt.Sprintf("align: {map: %q}", file), j.texts()), j.text("test"))
				if err != nil {
					return nil, ends, err
				}
				found[i].fits[k].add(v.Loss)
				found[i].losses[k] = append(found[i].losses[k], v.Loss)
			}
		}
	}
	return found, ends, nil
}

// llama shows what lies between small Llamas that were trained apart, by the symmetries that are used, and what least squares makes of it.
func llama(ctx context.Context, j *job) (*section, error) {
	s := &section{figure: &report.Figure{Title: "Two small Llamas trained apart on text, test loss"},
		alt: "Left the loss between two Llamas by symmetry; right bars of the loss in the middle, averaged and fitted by least squares"}
	found, ends, err := j.measureLlamas(ctx)
	if err != nil {
		return nil, err
	}
	line := report.Panel{Title: "The path, seeds 1 and 2", X: "t", Y: "loss"}
	r, err := j.paths(ctx, j.llamaPairs()[0])
	if err != nil {
		return nil, err
	}
	bars := report.Panel{Title: "The middle, means over three pairs", Y: "loss", X: "symmetries", Zero: true}
	table := report.Table{Title: "Two small Llamas, by symmetry",
		Note: fmt.Sprintf("Test loss, means over three pairs: the largest rise above the chord, with the lowest and the highest, and the middle, merged in four ways. The models have %s (%s to %s).", number(ends.mean()), number(ends.low), number(ends.high)),
		Head: []string{"symmetries", "barrier", "from", "to"}}
	for _, f := range fits {
		table.Head = append(table.Head, f.name)
	}
	heights := make([][]float64, len(fits))
	for i := range symmetryWays {
		w, m := &symmetryWays[i], &found[i]
		p, c, err := path(r, w.variant(), "test")
		if err != nil {
			return nil, err
		}
		line.Lines = append(line.Lines, report.Line{Name: w.name, X: p.T, Y: c.Loss, Tone: w.tone})
		bars.Names = append(bars.Names, w.short)
		row := []string{w.name, number(m.barrier.mean()), number(m.barrier.low), number(m.barrier.high)}
		for k := range fits {
			heights[k] = append(heights[k], m.fits[k].mean())
			row = append(row, number(m.fits[k].mean()))
		}
		table.Rows = append(table.Rows, row)
	}
	for k, f := range fits {
		bars.Lines = append(bars.Lines, report.Line{Name: f.name, X: report.Over(len(symmetryWays)), Y: heights[k], Tone: f.tone, Bars: true})
	}
	wide, err := j.wideLlamas(ctx)
	if err != nil {
		return nil, err
	}
	s.figure.Panels = []report.Panel{line, bars}
	s.tables = []report.Table{table, *wide}
	return s, nil
}

// wideLlamas measures merged Llamas that keep units and heads of both.
func (j *job) wideLlamas(ctx context.Context) (*report.Table, error) {
	table := &report.Table{Title: "Two small Llamas, by size", Note: "Test loss of least squares with all symmetries, and from the learned map; means over three pairs. The stream stays one, so the size ends below 2.",
		Head: []string{"kept from both", "full", "learned"}}
	for _, kind := range []struct{ name, parameters string }{
		{"nothing", "{}"},
		{"budget 1.2", "{budget: 1.2}"},
		{"budget 1.4", "{budget: 1.4}"},
		{"budget 1.6", "{budget: 1.6}"},
		{"all hidden units", "{budget: 2, widths: {mlp: 1, default: 0}}"},
		{"all hidden units and heads", "{budget: 2}"},
	} {
		row := []string{kind.name}
		for _, w := range symmetryWays[3:] {
			var loss spread
			for _, p := range j.llamaPairs() {
				_, file, err := j.aligned(ctx, p, w)
				if err != nil {
					return nil, err
				}
				v, err := j.scored(ctx, recipe("pleas", []string{p.a, p.b}, "parameters: "+kind.parameters, fmt.Sprintf("align: {map: %q}", file), j.texts()), j.text("test"))
				if err != nil {
					return nil, err
				}
				loss.add(v.Loss)
			}
			row = append(row, number(loss.mean()))
		}
		table.Rows = append(table.Rows, row)
	}
	return table, nil
}
