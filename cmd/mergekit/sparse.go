package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/sparse"
	"github.com/mergekit/mergekit/internal/progress"
	"github.com/mergekit/mergekit/tensors"
	files "github.com/mergekit/mergekit/tensors/sparse"
)

func newSparseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sparse",
		Short: "Inspect, compose, subtract, apply, extract and convert sparse differences",
		Long: `sparse works on sparse differences: files that say which entries of a checkpoint change, and what they become. 'mergekit
finetune' writes them with tune: sparse, 'mergekit graft' too, and a recipe takes BASE+FILE wherever it takes a model.

EXIT STATUS
  0 done, 1 failed, 2 bad input, 130 interrupted`,
	}
	cmd.AddCommand(newSparseInspectCommand(), newSparseComposeCommand(), newSparseSubtractCommand(), newSparseApplyCommand(), newSparseExtractCommand(), newSparseConvertCommand())
	return gathers(cmd)
}

// severalFiles wants one argument at least.
func severalFiles(least int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least {
			return wrongCount(cmd, what, args)
		}
		return nil
	}
}

func newSparseInspectCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "inspect FILE...",
		Short: "Show what sparse differences change, and what they have in common",
		Long: `inspect counts the entries that a file changes: in all, by role (the tensors of one name in all layers) and, with --all, by
tensor. Of several files it shows how many entries each pair shares: the Jaccard index, the share of each file's entries that the other
one has too, and what that share would be by chance.

EXIT STATUS
  0 done, 1 failed, 2 bad input`,
		Args: severalFiles(1, "sparse files"),
		RunE: func(cmd *cobra.Command, args []string) error { return runSparseInspect(cmd, args, all) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "show every tensor, not roles alone")
	return cmd
}

func runSparseInspect(cmd *cobra.Command, paths []string, all bool) error {
	list, err := sparse.OpenAll(paths)
	if err != nil {
		return err
	}
	defer sparse.CloseAll(list)
	var described []*sparse.Description
	for _, f := range list {
		d, err := sparse.Describe(f)
		if err != nil {
			return err
		}
		described = append(described, d)
	}
	pairs := sparse.Pairs(list)
	if jsonWanted(cmd) {
		writeJSON(os.Stdout, map[string]any{"files": described, "pairs": pairs})
		return nil
	}
	for i, d := range described {
		if i > 0 {
			fmt.Println()
		}
		showSparse(d, all)
	}
	if len(pairs) == 0 {
		return nil
	}
	fmt.Println()
	rows := [][]string{{"A", "B", "SHARED", "JACCARD", "OF A", "OF B", "BY CHANCE"}}
	for _, p := range pairs {
		rows = append(rows, []string{p.A, p.B, count(p.Shared), fmt.Sprintf("%.4f", p.Jaccard), percent(p.OfA), percent(p.OfB), percent(p.Chance)})
	}
	table(os.Stdout, rows)
	return nil
}

func percent(x float64) string { return fmt.Sprintf("%.3g%%", 100*x) }

func showSparse(d *sparse.Description, all bool) {
	fmt.Printf("%s: %s, %s values\n", d.File, d.Kind, d.Values)
	if d.Base != "" {
		fmt.Printf("  base %.16s\n", d.Base)
	}
	fmt.Printf("  %s entries in %d tensors, %s of their elements\n", count(d.Total.Entries), len(d.Tensors), percent(d.Total.Density))
	if n := d.Total.NonFinite; n > 0 {
		fmt.Printf("  %s of the values are NaN or infinite\n", count(n))
	}
	if len(d.Wholes) > 0 {
		fmt.Printf("  replaced as a whole: %s\n", strings.Join(d.Wholes, ", "))
	}
	list, head := d.Roles, "ROLE"
	if all {
		list, head = d.Tensors, "TENSOR"
	}
	rows := [][]string{{head, "ENTRIES", "DENSITY", "OF ALL"}}
	if d.Values == "delta" {
		rows[0] = append(rows[0], "MEAN", "LARGEST")
	}
	for _, c := range list {
		row := []string{c.Name, count(c.Entries), percent(c.Density), percent(float64(c.Entries) / float64(max(d.Total.Entries, 1)))}
		if d.Values == "delta" {
			row = append(row, fmt.Sprintf("%.3g", c.Mean), fmt.Sprintf("%.3g", c.Largest))
		}
		rows = append(rows, row)
	}
	table(os.Stdout, rows)
}

// sparseFlags are those that several of the commands have.
type sparseFlags struct {
	out, base, overlap string
	weights            []float64
	anyBase, force     bool
}

func (o *sparseFlags) add(cmd *cobra.Command, out string) {
	f := cmd.Flags()
	f.StringVarP(&o.out, "out", "o", "", out)
	f.StringVar(&o.base, "base", "", "the checkpoint that the files are differences from; needed where they hold what entries become and a difference is asked for")
	f.StringVar(&o.overlap, "on-overlap", string(sparse.Sum), "an entry that several files change: sum, mean or sign_elect")
	f.BoolVar(&o.anyBase, "any-base", false, "also files that name another base")
	f.BoolVar(&o.force, "force", false, "replace an existing output")
}

// sparseInput is what the commands read.
type sparseInput struct {
	way   sparse.OnOverlap
	list  []*files.File
	parts []sparse.Part
	base  *tensors.Checkpoint // nil without --base
}

// open opens the files with their weights, and --base. The caller closes them.
func (o *sparseFlags) open(cmd *cobra.Command, paths []string) (*sparseInput, error) {
	if err := required(cmd, "out"); err != nil {
		return nil, err
	}
	way, err := sparse.ParseOnOverlap(o.overlap)
	if err != nil {
		return nil, usageError{fmt.Errorf("--on-overlap: %w", err)}
	}
	if len(o.weights) > 0 && len(o.weights) != len(paths) {
		return nil, usageError{fmt.Errorf("--weights: %d weights for %d files", len(o.weights), len(paths))}
	}
	for _, w := range o.weights {
		if math.IsNaN(w) || math.IsInf(w, 0) {
			return nil, usageError{fmt.Errorf("--weights: %v is no number to multiply by", w)}
		}
	}
	in := &sparseInput{way: way}
	if in.list, err = sparse.OpenAll(paths); err != nil {
		return nil, err
	}
	in.parts = sparse.Parts(in.list)
	for i, w := range o.weights {
		in.parts[i].Weight = w
	}
	if in.base, err = openBase(cmd, o.base); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// openBase opens --base, if it is given.
func openBase(cmd *cobra.Command, dir string) (*tensors.Checkpoint, error) {
	if dir == "" {
		return nil, nil
	}
	if err := bring(cmd, &dir); err != nil {
		return nil, err
	}
	return checkpoint.Open(dir)
}

func (in *sparseInput) close() {
	sparse.CloseAll(in.list)
	if in.base != nil {
		_ = in.base.Close()
	}
}

func newSparseComposeCommand() *cobra.Command {
	var o sparseFlags
	cmd := &cobra.Command{
		Use:   "compose FILE... -o OUT.safetensors",
		Short: "Make one sparse difference of several",
		Long: `compose adds sparse differences up: of a task and a language, of several tasks. Where one file alone changes an entry, its
value is kept bit for bit. Where several do, the differences are summed, averaged, or those that have the sign of the sum are summed;
of files that hold what entries become, that needs --base.

EXIT STATUS
  0 done, 1 failed, 2 bad input`,
		Args: severalFiles(1, "sparse files"),
		RunE: func(cmd *cobra.Command, args []string) error { return runSparseCompose(cmd, args, &o) },
	}
	o.add(cmd, "file to write")
	cmd.Flags().Float64SliceVar(&o.weights, "weights", nil, "a factor for each file's differences, for example 1,-0.5 (default: all 1)")
	return cmd
}

func runSparseCompose(cmd *cobra.Command, paths []string, o *sparseFlags) error {
	in, err := o.open(cmd, paths)
	if err != nil {
		return err
	}
	defer in.close()
	r, err := sparse.Compose(o.out, in.parts, sparse.ComposeOptions{OnOverlap: in.way, Base: in.base, AnyBase: o.anyBase, Force: o.force})
	if err != nil {
		return err
	}
	warnLeft(cmd, r.Left)
	if jsonWanted(cmd) {
		writeDone(r)
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %s entries of %d files; %s (%s) are changed by several (%s), %s of them in different directions\n", r.Output, count(r.Entries), len(paths),
			count(r.Overlap), percent(r.Share), in.way, count(r.Conflict))
	}
	return nil
}

// warnLeft tells of tensors that a weight leaves out.
func warnLeft(cmd *cobra.Command, left []string) {
	if len(left) > 0 {
		warn(cmd, fmt.Sprintf("left as they are, since there is no part of a tensor that is replaced as a whole, and none to take away: %s", strings.Join(left, ", ")))
	}
}

func newSparseSubtractCommand() *cobra.Command {
	var o sparseFlags
	cmd := &cobra.Command{
		Use:   "subtract FROM FILE... -o OUT",
		Short: "Take sparse differences away from a file or a checkpoint",
		Long: `subtract takes the differences of FILEs away from FROM: from another sparse difference, which gives one, or from a checkpoint,
which gives a checkpoint. Of files that hold what entries become, that needs --base. An entry of a checkpoint that has the very value
that a file gave it becomes the base's again, bit for bit.

EXIT STATUS
  0 done, 1 failed, 2 bad input, 130 interrupted`,
		Args: severalFiles(2, "a sparse file or a checkpoint, and sparse files"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.weights = make([]float64, len(args)-1)
			for i := range o.weights {
				o.weights[i] = -1
			}
			if files.Is(args[0]) {
				o.weights = append([]float64{1}, o.weights...)
				return runSparseCompose(cmd, args, &o)
			}
			return runSparseApply(cmd, args[0], args[1:], &o)
		},
	}
	o.add(cmd, "file or directory to write")
	return cmd
}

func newSparseApplyCommand() *cobra.Command {
	var o sparseFlags
	cmd := &cobra.Command{
		Use:   "apply CHECKPOINT FILE... -o OUT",
		Short: "Write a checkpoint with sparse differences added",
		Long: `apply adds sparse differences to a checkpoint and writes the result, in the dtypes of the checkpoint, with its tokenizer and
configuration. Entries that one file changes have its values; all others keep their bytes. OUT appears whole or not at all.

A merge needs no such checkpoint: a recipe takes CHECKPOINT+FILE wherever it takes a model, and merge_method: compose_sparse takes several.

EXIT STATUS
  0 done, 1 failed, 2 bad input, 130 interrupted`,
		Args: severalFiles(2, "a checkpoint and sparse files"),
		RunE: func(cmd *cobra.Command, args []string) error { return runSparseApply(cmd, args[0], args[1:], &o) },
	}
	o.add(cmd, "directory to write")
	cmd.Flags().Float64SliceVar(&o.weights, "weights", nil, "a factor for each file's differences (default: all 1)")
	return cmd
}

func runSparseApply(cmd *cobra.Command, dir string, paths []string, o *sparseFlags) error {
	in, err := o.open(cmd, paths)
	if err != nil {
		return err
	}
	defer in.close()
	for _, p := range in.parts {
		if in.base == nil && !p.File.Delta && p.Weight < 0 {
			return usageError{fmt.Errorf("%s: holds what entries become, so that what to take away is not known without the base it was made on; give --base", p.File.Path())}
		}
	}
	var bar *progress.Progress
	r, err := sparse.Apply(cmd.Context(), dir, o.out, in.parts, sparse.ApplyOptions{OnOverlap: in.way, Origin: in.base, AnyBase: o.anyBase, Force: o.force,
		Started: func(total int64) { bar = newProgress(cmd, total, "applying") }, Written: func(n int64) { bar.Add(n) }})
	bar.Done()
	if err != nil {
		return err
	}
	warnLeft(cmd, r.Left)
	if jsonWanted(cmd) {
		writeDone(r)
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %d tensors, %d of them changed in %s entries, %s\n", r.Output, r.Tensors, r.Changed, count(r.Entries), bytesText(r.Bytes))
	}
	return nil
}

func newSparseExtractCommand() *cobra.Command {
	var o sparse.ExtractOptions
	var base, tuned, out string
	cmd := &cobra.Command{
		Use:   "extract --base BASE --tuned MODEL --share 0.01 -o OUT.safetensors",
		Short: "Keep the entries of any fine-tune that moved most",
		Long: `extract compares a fine-tune with its base and keeps the entries that moved most, over all tensors together, with the bytes
that they have in the fine-tune. The count is exact; what ties at the cut is taken in the order of names and places.

This is no sparse fine-tune: the values learnt together with all the others, which are gone. tune: sparse trains those that are kept
once more without the others, and graft looks for the entries that carry the skill. The file says "mask: magnitude".

EXIT STATUS
  0 done, 1 failed, 2 bad input`,
		Args: exactly(0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := required(cmd, "base", "tuned", "out"); err != nil {
				return err
			}
			switch given := cmd.Flags().Changed; {
			case given("count") == given("share"):
				return usageError{errors.New("extract needs --count or --share, one of the two")}
			case given("count") && o.Count < 1:
				return usageError{fmt.Errorf("--count %d: must be 1 or more", o.Count)}
			case given("share") && !(o.Share > 0 && o.Share <= 1):
				return usageError{fmt.Errorf("--share %v: must be above 0 and at most 1", o.Share)}
			}
			return runSparseExtract(cmd, base, tuned, out, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&base, "base", "", "the base")
	f.StringVar(&tuned, "tuned", "", "the fine-tune")
	f.StringVarP(&out, "out", "o", "", "file to write")
	f.Int64Var(&o.Count, "count", 0, "how many entries")
	f.Float64Var(&o.Share, "share", 0, "how many, as a share of those that may be taken")
	f.StringSliceVar(&o.Exclude, "exclude", nil, "patterns of names of tensors that stay the base's, such as '*.norm.weight' (repeatable)")
	f.BoolVar(&o.Force, "force", false, "replace an existing output")
	return cmd
}

func runSparseExtract(cmd *cobra.Command, base, tuned, out string, o sparse.ExtractOptions) error {
	if err := bring(cmd, &base, &tuned); err != nil {
		return err
	}
	b, err := checkpoint.Open(base)
	if err != nil {
		return err
	}
	defer b.Close()
	t, err := checkpoint.Open(tuned)
	if err != nil {
		return err
	}
	defer t.Close()
	view := newStepView(cmd)
	o.Progress = func(done, total int) { view.show(done, total, "reading tensors") }
	r, err := sparse.Extract(b, t, out, o)
	view.end()
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(r)
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %s of %s entries (%s), with %s of the squared difference; %s differ at all\n", r.Output, count(r.Entries), count(r.Candidates),
			percent(float64(r.Entries)/float64(r.Candidates)), percent(r.Kept), count(r.Differing))
	}
	return nil
}

func newSparseConvertCommand() *cobra.Command {
	var base string
	var force bool
	cmd := &cobra.Command{
		Use:   "convert FILE OUT",
		Short: "Turn composable-sft's files into sparse differences and back",
		Long: `convert reads a pytorch_diff.bin of composable-sft (or the directory it lies in) and writes a sparse difference as safetensors,
or the other way round, by the ending of OUT. What is in a pickle is not carried out: it may build tensors and plain values, and a file
that names anything else is refused. composable-sft keeps differences: of a file that holds what entries become, convert needs --base.

EXIT STATUS
  0 done, 1 failed, 2 bad input`,
		Args: exactly(2, "a file and an output"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSparseConvert(cmd, args[0], args[1], base, force)
		},
	}
	cmd.Flags().StringVar(&base, "base", "", "the checkpoint that the file is a difference from")
	cmd.Flags().BoolVar(&force, "force", false, "replace an existing output")
	return cmd
}

func runSparseConvert(cmd *cobra.Command, from, to, base string, force bool) error {
	var r *sparse.Converted
	var err error
	switch filepath.Ext(to) {
	case ".safetensors":
		r, err = sparse.FromTorch(from, to, force)
	case ".bin":
		var b *tensors.Checkpoint
		if b, err = openBase(cmd, base); err != nil {
			return err
		}
		if b != nil {
			defer b.Close()
		}
		r, err = sparse.ToTorch(from, to, b, force)
	default:
		return usageError{fmt.Errorf("%s: end it with .safetensors for a sparse difference, or with .bin for composable-sft", to)}
	}
	if err != nil {
		return err
	}
	if jsonWanted(cmd) {
		writeDone(r)
	} else if !quietWanted(cmd) {
		fmt.Printf("%s: %s entries in %d tensors, %d replaced as a whole\n", r.Output, count(r.Entries), r.Tensors, len(r.Wholes))
	}
	return nil
}
