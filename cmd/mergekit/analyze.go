package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/merge/lmc"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

func newAnalyzeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "analyze",
		Short: "Explain how two models lie to each other",
	}
	cmd.AddCommand(newAnalyzeLMCCommand(), newAncestryCommand())
	return gathers(cmd)
}

// analyzeOptions are the flags of the analyze verbs.
type analyzeOptions struct {
	modelOptions
	find       findOptions
	aligned    string
	data       string
	samples    int
	divide     float64
	labelFirst bool
	fullUpTo   int
	rank       int
	threads    int
	seed       uint64
	out        string
}

func newAnalyzeLMCCommand() *cobra.Command {
	var o analyzeOptions
	cmd := &cobra.Command{
		Use:   "lmc A B",
		Short: "Compare the singular vectors of two models, layer by layer",
		Long: `analyze lmc says why two models are linearly connected, or why not. For every layer it prints how far the singular values differ, how much
the singular vectors agree (R: 1 for equal layers, about 0 for unrelated ones; R(0) over all values, R(0.3) over those that are at least 0.3
of the largest), and the distance of the weights; with --aligned B2, or --align METHOD in memory, before and after alignment. With --data it also prints how much of what
a layer of A reads lies along its large singular vectors.

Matrices whose smaller side is larger than --full-up-to are compared by their --rank largest values, found by random projection.
With -o the folder gets lmc.json, lmc.png, lmc.svg and lmc.html, a page that needs nothing else.

EXIT STATUS
  0 done, 1 failed, 2 bad models, data or command line, 3 out of memory, 130 interrupted`,
		Args: exactly(2, "two checkpoints"),
		RunE: func(cmd *cobra.Command, args []string) error { return runAnalyzeLMC(cmd, args[0], args[1], &o) },
	}
	o.register(cmd)
	o.find.register(cmd, false)
	f := cmd.Flags()
	f.StringVar(&o.aligned, "aligned", "", "B after alignment, such as what 'mergekit align' wrote")
	f.StringVar(&o.data, "data", "", "what A reads for the energy along its singular vectors: rows of text, or examples")
	f.IntVar(&o.samples, "samples", 256, "rows of --data that are used, chosen by --seed; 0: all")
	f.Float64Var(&o.divide, "divide", 1, "what the numbers of CSV files are divided by: 255 for the bytes of images")
	f.BoolVar(&o.labelFirst, "label-first", false, "labels of CSV files stand before the numbers")
	f.IntVar(&o.fullUpTo, "full-up-to", 1024, "smaller side up to which all singular values of a matrix are computed")
	f.IntVar(&o.rank, "rank", 256, "singular values that are computed of larger matrices")
	f.IntVar(&o.threads, "threads", 0, "layers that are compared at the same time; 0: all cores")
	f.Uint64Var(&o.seed, "seed", 0, "of random projections and of the choice of rows")
	f.StringVarP(&o.out, "output", "o", "", "folder for the tables, the drawings and the page")
	return cmd
}

func runAnalyzeLMC(cmd *cobra.Command, a, b string, o *analyzeOptions) error {
	if o.fullUpTo < 1 || o.rank < 1 || o.samples < 0 || o.threads < 0 || !(o.divide > 0) {
		return usageError{fmt.Errorf("--full-up-to, --rank and --divide must be positive, --samples and --threads must not be negative")}
	}
	if err := o.find.check(); err != nil {
		return usageError{err}
	}
	if len(o.find.methods) > 1 || len(o.find.methods) == 1 && o.aligned != "" {
		return usageError{fmt.Errorf("give one --align METHOD, or --aligned B2")}
	}
	dirs := []string{a, b}
	if o.aligned != "" {
		dirs = append(dirs, o.aligned)
	}
	var weights [3]align.Weights
	for i, name := range dirs {
		c, err := openWhole(cmd, name)
		if err != nil {
			return err
		}
		defer c.Close()
		weights[i] = align.OfCheckpoint(c)
	}
	r := &lmc.Report{A: shortName(a), B: shortName(b), Version: version}
	if o.aligned != "" {
		r.Aligned = shortName(o.aligned)
	}
	if len(o.find.methods) == 1 {
		found, err := o.find.find(cmd, []string{a, b}, o.find.methods[0], o.backend, o.threads, o.calibration)
		if err != nil {
			return err
		}
		weights[2] = align.Aligned(weights[1], found[1].Map)
		r.Aligned, r.Alignment = "by "+o.find.methods[0], found[1].Report
	}
	view := newRowsView(cmd, "comparing")
	view.unit = "tensors"
	analysis, err := lmc.Analyze(cmd.Context(), weights[0], weights[1], weights[2], lmc.Options{FullUpTo: o.fullUpTo, Rank: o.rank, Seed: o.seed,
		Threads: o.threads, KeepVectors: o.data != "", Progress: view.show})
	view.end()
	if err != nil {
		return err
	}
	if o.data != "" {
		if err := o.read(cmd, a, weights[0], analysis); err != nil {
			return err
		}
	}
	r.Analysis = analysis
	return o.render(cmd, r)
}

func shortName(path string) string { return filepath.Base(filepath.Clean(path)) }

// openWhole opens a checkpoint that is no adapter.
func openWhole(cmd *cobra.Command, name string) (*tensors.Checkpoint, error) {
	f, err := findModel(cmd, name, "")
	if err != nil {
		return nil, err
	}
	if f.adapter != "" {
		return nil, usageError{fmt.Errorf("%s: only whole checkpoints can be compared; write it with 'mergekit fuse' first", name)}
	}
	return checkpoint.Open(f.dir)
}

// calibration says which data alignment sees.
func (o *analyzeOptions) calibration() (calibration.Options, error) {
	if o.data == "" {
		return calibration.Options{}, usageError{fmt.Errorf("--align %s needs --data FILE", o.find.methods[0])}
	}
	return calibration.Options{Files: []string{o.data}, Samples: o.samples, Seed: o.seed, Batch: 8, Divide: o.divide, LabelFirst: o.labelFirst}, nil
}

// read sends data through the first model and shows the analysis what its layers read.
func (o *analyzeOptions) read(cmd *cobra.Command, dir string, w align.Weights, a *lmc.Analysis) error {
	s, err := o.open(cmd)
	if err != nil {
		return err
	}
	defer s.close()
	from, err := o.calibration()
	if err != nil {
		return err
	}
	every := func(string) bool { return true }
	if isPlain(dir) {
		m, err := model.LoadPlain(cmd.Context(), dir, s.backend, 0)
		if err != nil {
			return err
		}
		defer m.Close()
		from.Unlabelled = true
		set, err := calibration.Plain(m.D, from)
		if err != nil {
			return err
		}
		err = m.Taps(set.X, set.N, every, func(module string, in, _ []float32, rows, width, _ int) error {
			return a.Read(module+".weight", false, in, rows, width)
		})
		if err != nil {
			return err
		}
		a.Finish()
		return nil
	}
	m, err := s.load(modelFiles{name: dir, dir: dir})
	if err != nil {
		return err
	}
	defer m.Close()
	batches, err := calibration.Inputs(cmd.Context(), dir, m.D, from)
	if err != nil {
		return err
	}
	inputsFirst := map[string]bool{} // GPT-2 keeps the maps of its blocks so
	if m.D.Conv1D {
		for i := range m.D.Layers {
			for _, l := range m.D.BlockLinears() {
				inputsFirst[m.D.LayerName(i, l.Name)] = true
			}
		}
	}
	for _, in := range batches {
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		err := m.Features(in, every, func(module string, in []float32, rows, width int) error {
			info, ok := m.D.Find(w, module+".weight")
			if !ok {
				return nil
			}
			return a.Read(info.Name, inputsFirst[module], in, rows, width)
		})
		if err != nil {
			return err
		}
	}
	a.Finish()
	return nil
}

// render prints the tables and writes the files.
func (o *analyzeOptions) render(cmd *cobra.Command, r *lmc.Report) error {
	findings := r.Findings()
	if o.out != "" {
		if err := findings.SaveAll(o.out, "lmc"); err != nil {
			return err
		}
		if err := saveJSON(filepath.Join(o.out, "lmc.json"), r); err != nil {
			return err
		}
	}
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, struct {
			Event string `json:"event"`
			*lmc.Report
		}{"lmc", r})
		return nil
	}
	for i := range findings.Tables {
		if i > 0 {
			fmt.Println()
		}
		printTable(&findings.Tables[i])
	}
	fmt.Printf("\nthe singular values differ by %.2f%%; the formula of the distance misses it by at most %.1e\n", 100*r.Spectra, r.Identity)
	if o.out != "" && !quietWanted(cmd) {
		fmt.Fprintf(os.Stderr, "%s\n", filepath.Join(o.out, "lmc.html"))
	}
	return nil
}

// saveJSON writes a file of indented JSON that appears whole.
func saveJSON(path string, v any) error {
	return report.Save(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	})
}
