package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/connect"
	"github.com/mergekit/mergekit/tensors"
)

// barrierOptions are the flags of the barrier command.
type barrierOptions struct {
	modelOptions
	measureOptions
	find            findOptions
	points, samples int
	seed            uint64
	aligned         []string
	out             string
}

func newBarrierCommand() *cobra.Command {
	var o barrierOptions
	cmd := &cobra.Command{
		Use:   "barrier A B [C...] --data TEST",
		Short: "Measure loss and error on the straight line between models",
		Long: `barrier computes the weighted sums of models, A at t = 0 and B at t = 1, measures each on data, and prints how far loss and error rise
between them: above the chord between both ends, and above their mean. Nothing is written on the way. Three models or more also give
the paths of all pairs and the simplex: the mean of all, the middles of pairs, and random points.

Data of a network of "model_type" mlp or convnet, or of a vision transformer with classes, is a CSV file (label last, gzipped or not) or a
safetensors file with the tensors "input" and "labels"; data of a language model or a classifier of texts is a file of rows, as
'mergekit eval' reads them.

--align METHOD brings B into A's coordinates in memory and measures that version too, so that table and figure have both; methods
that need data take --calibration, or --train. --aligned NAME=B2 measures the path from A to another version of B beside it, such as what 'mergekit
align' wrote; with more models NAME=B2,C2. With -o the folder gets barrier.json, barrier.png, barrier.svg and barrier.html, a page that needs nothing else.

EXIT STATUS
  0 done, 1 failed, 2 bad models, data or command line, 3 out of memory, 130 interrupted`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError{fmt.Errorf("%s takes two models or more; got %d", cmd.CommandPath(), len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runBarrier(cmd, args, &o) },
	}
	o.modelOptions.register(cmd)
	o.measureOptions.register(cmd)
	o.find.register(cmd, true)
	f := cmd.Flags()
	f.IntVar(&o.points, "points", 25, "points of a path, both ends included")
	f.IntVar(&o.samples, "samples", 64, "random points between three models or more")
	f.Uint64Var(&o.seed, "seed", 0, "of the random points")
	f.StringArrayVar(&o.aligned, "aligned", nil, "NAME=B2: a version of B to measure beside it; NAME=B2,C2 for more models (may be given several times)")
	f.StringVarP(&o.out, "output", "o", "", "folder for the table, the drawings and the page")
	return cmd
}

// variant is the models in one version.
type variant struct {
	name string
	dirs []string
	maps []*align.Map // nil, or one for each model, nil where the model stays
}

// variants lists what is measured: the models as given, then every aligned version of all but the first.
func (o *barrierOptions) variants(cmd *cobra.Command, args []string) ([]variant, error) {
	var list []variant
	find := func(name string, specs []string) error {
		v := variant{name: name}
		for _, s := range specs {
			f, err := findModel(cmd, s, "")
			if err != nil {
				return err
			}
			if f.adapter != "" {
				return usageError{fmt.Errorf("%s: only whole checkpoints have points between them; write it with 'mergekit fuse' first", s)}
			}
			v.dirs = append(v.dirs, f.dir)
		}
		list = append(list, v)
		return nil
	}
	if err := find("as given", args); err != nil {
		return nil, err
	}
	for _, a := range o.aligned {
		name, dirs, ok := strings.Cut(a, "=")
		parts := strings.Split(dirs, ",")
		if !ok || name == "" || len(parts) != len(args)-1 {
			return nil, usageError{fmt.Errorf("--aligned %s: write NAME=DIRECTORY, with one directory for every model but the first, separated by commas (%d here)", a, len(args)-1)}
		}
		if err := find(name, append([]string{args[0]}, parts...)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// align finds the maps of every method that was asked for.
func (o *barrierOptions) align(cmd *cobra.Command, out *connect.Report, given variant) (list []variant, err error) {
	for _, method := range o.find.methods {
		found, err := o.find.find(cmd, given.dirs, method, o.backend, 0, o.calibrationOptions)
		if err != nil {
			return nil, err
		}
		v := variant{name: method, dirs: given.dirs}
		for _, f := range found {
			if f == nil {
				v.maps = append(v.maps, nil)
				continue
			}
			v.maps = append(v.maps, f.Map)
			out.Alignments = append(out.Alignments, f.Report)
		}
		list = append(list, v)
	}
	return list, nil
}

func (o *barrierOptions) check() error {
	switch {
	case o.adapter != "":
		return fmt.Errorf("--adapter: only whole checkpoints have points between them; write it with 'mergekit fuse' first")
	case len(o.data) == 0:
		return fmt.Errorf("barrier needs --data FILE, what the points are measured on")
	case o.points < 2 || o.points > 10001:
		return fmt.Errorf("--points %d: a path has from 2 to 10001 points", o.points)
	case o.samples < 0:
		return fmt.Errorf("--samples must not be negative")
	}
	if err := o.find.check(); err != nil {
		return err
	}
	return o.measureOptions.check()
}

func runBarrier(cmd *cobra.Command, args []string, o *barrierOptions) error {
	if err := o.check(); err != nil {
		return usageError{err}
	}
	variants, err := o.variants(cmd, args)
	if err != nil {
		return err
	}
	if o.out != "" {
		if st, err := os.Stat(o.out); err == nil && !st.IsDir() {
			return usageError{fmt.Errorf("%s: is a file; -o names a folder", o.out)}
		}
	}
	s, err := o.open(cmd)
	if err != nil {
		return err
	}
	defer s.close()
	out := &connect.Report{Points: o.points, Repair: o.repair, Version: version}
	for _, a := range args {
		out.Models = append(out.Models, shortName(a))
	}
	aligned, err := o.align(cmd, out, variants[0])
	if err != nil {
		return err
	}
	if err := o.measureAll(s, out, append(variants, aligned...)); err != nil {
		return err
	}
	return o.render(cmd, out)
}

// openAll opens the checkpoints of all variants, each once.
func openAll(variants []variant) (open map[string]*tensors.Checkpoint, closeAll func(), err error) {
	open = map[string]*tensors.Checkpoint{}
	closeAll = func() {
		for _, c := range open {
			c.Close()
		}
	}
	for _, v := range variants {
		for _, dir := range v.dirs {
			if open[dir] != nil {
				continue
			}
			if open[dir], err = checkpoint.Open(dir); err != nil {
				delete(open, dir)
				closeAll()
				return nil, nil, err
			}
		}
	}
	return open, closeAll, nil
}

// measureAll measures every variant.
func (o *barrierOptions) measureAll(s *session, out *connect.Report, variants []variant) error {
	open, closeAll, err := openAll(variants)
	if err != nil {
		return err
	}
	defer closeAll()
	m, err := o.prepare(s, variants, open)
	if err != nil {
		return err
	}
	defer m.close()
	out.Sets = m.infos
	for _, v := range variants {
		var models []connect.Model
		for i, dir := range v.dirs {
			w := align.OfCheckpoint(open[dir])
			if v.maps != nil && v.maps[i] != nil {
				w = align.Aligned(w, v.maps[i])
			}
			models = append(models, connect.Model{Name: dir, Weights: w})
		}
		result, err := o.measureOne(s, m, v.name, models)
		if err != nil {
			return err
		}
		out.Variants = append(out.Variants, connect.Variant{Name: v.name, Result: result})
	}
	return nil
}

// measureOne measures one variant.
func (o *barrierOptions) measureOne(s *session, m *measuring, name string, models []connect.Model) (*connect.Result, error) {
	e, done, err := m.evaluator(models)
	if err != nil {
		return nil, err
	}
	defer done()
	view := newRowsView(s.cmd, "measuring "+name)
	view.unit = "points"
	defer view.end()
	samples := o.samples
	if samples == 0 {
		samples = -1
	}
	return connect.Run(s.cmd.Context(), e, len(models), connect.Options{Points: o.points, Samples: samples, Seed: o.seed, Progress: view.show})
}

// render prints the tables and writes the files.
func (o *barrierOptions) render(cmd *cobra.Command, r *connect.Report) error {
	findings := r.Findings()
	if o.out != "" {
		if err := findings.SaveAll(o.out, "barrier"); err != nil {
			return err
		}
		if err := saveJSON(filepath.Join(o.out, "barrier.json"), r); err != nil {
			return err
		}
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, struct {
			Event string `json:"event"`
			*connect.Report
		}{"barrier", r})
		return nil
	}
	for i := range findings.Tables {
		if i > 0 {
			fmt.Println()
		}
		printTable(&findings.Tables[i])
	}
	if o.out != "" && !quietWanted(cmd) {
		fmt.Fprintf(os.Stderr, "%s\n", filepath.Join(o.out, "barrier.html"))
	}
	return nil
}

// printTable prints a table of findings.
func printTable(t *report.Table) {
	head := make([]string, len(t.Head))
	for i, h := range t.Head {
		head[i] = strings.ToUpper(h)
	}
	table(os.Stdout, append([][]string{head}, t.Rows...))
}
