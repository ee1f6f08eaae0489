package train_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mergekit/mergekit/finetune/train"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/tensors/sparse"
)

// sparseSets are settings of a run of two phases of six steps each, with decay, which must not move what is frozen.
var sparseSets = []string{"tune=sparse", "sparse.count=137", "train.max_steps=6", "train.micro_batch=4", "train.grad_accum=1", "optim.lr=1e-2",
	"optim.weight_decay=0.1", "optim.decay_all=true", "save.every=1", "save.keep=100"}

// floatsOf reads the tensors of a file whose names begin with a prefix.
func floatsOf(t *testing.T, path, prefix string) map[string][]float32 {
	t.Helper()
	c, err := tensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := map[string][]float32{}
	for _, name := range c.Names() {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		v, err := c.View(name)
		if err != nil {
			t.Fatal(err)
		}
		f := make([]float32, v.Elems())
		if err := tensors.DecodeFloat32(f, v.Data, v.DType); err != nil {
			t.Fatal(err)
		}
		out[rest] = f
	}
	return out
}

// trainedAt reads what a checkpoint of a run holds.
func trainedAt(t *testing.T, dir string, step int) map[string][]float32 {
	t.Helper()
	return floatsOf(t, filepath.Join(dir, "out", "checkpoints", fmt.Sprintf("step-%06d", step), "checkpoint.safetensors"), "trained/")
}

// entry is a place of a tensor.
type entry struct {
	name  string
	index int64
}

func openSparse(t *testing.T, path string) (*sparse.File, map[entry]float32) {
	t.Helper()
	f, err := sparse.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	values := map[entry]float32{}
	for _, name := range f.Names() {
		x, _, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, at := range x.Index {
			values[entry{name, at}] = x.Values[i]
		}
	}
	return f, values
}

func bits(x float32) uint32 { return math.Float32bits(x) }

// TestSparse checks the whole of a run against what its checkpoints hold: the entries of the result are exactly those that the first
// phase moved most, nothing else is changed by a bit, and the values are those that the second phase ended with.
func TestSparse(t *testing.T) {
	for name, b := range backends(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustRun(t, b, parse(t, dir, tiny, sparseSets...))
			if s.Kind != "sparse" || s.Steps != 12 || s.Kept != 137 || len(s.Phases) != 2 || s.Phases[0].Chosen != 137 {
				t.Errorf("summary %+v", s)
			}
			f, values := openSparse(t, s.Result)
			if f.Count() != 137 || len(values) != 137 || f.Kind != sparse.LTSFT || f.Delta || len(f.Wholes()) != 0 {
				t.Errorf("%d entries, %+v", f.Count(), f.Header)
			}
			c, err := tensors.Open(tiny)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if hash, err := sparse.Hash(c); err != nil || f.Base != hash {
				t.Errorf("the file names the base %s, it is %s (%v)", f.Base, hash, err)
			}
			base, moved, last := floatsOf(t, tiny, ""), trainedAt(t, dir, 6), trainedAt(t, dir, 12)
			type change struct {
				entry
				by float32
			}
			var list []change
			for name, w := range moved {
				if strings.Contains(name, "norm") || strings.Contains(name, "lm_head") {
					t.Errorf("%s trains", name)
				}
				for i, x := range w {
					list = append(list, change{entry{name, int64(i)}, float32(math.Abs(float64(x - base[name][i])))})
				}
			}
			slices.SortFunc(list, func(a, b change) int {
				return cmp.Or(cmp.Compare(b.by, a.by), cmp.Compare(a.name, b.name), cmp.Compare(a.index, b.index))
			})
			for _, c := range list[:137] {
				if _, ok := values[c.entry]; !ok {
					t.Errorf("%v moved by %v and is not chosen", c.entry, c.by)
				}
			}
			changed := 0
			for name, w := range last {
				for i, x := range w {
					v, ok := values[entry{name, int64(i)}]
					switch {
					case ok && bits(v) != bits(x):
						t.Errorf("%s[%d] is %v in the result, %v in the last checkpoint", name, i, v, x)
					case !ok && bits(x) != bits(base[name][i]):
						t.Errorf("%s[%d] is not chosen and went from %v to %v", name, i, base[name][i], x)
					case ok && bits(x) != bits(base[name][i]):
						changed++
					}
				}
			}
			if changed < 130 {
				t.Errorf("only %d of the chosen entries changed", changed)
			}
		})
	}
}

// TestRewind sees that the second phase begins where the first began: with a first step at a learning rate of 0 it ends at the base,
// bit for bit.
func TestRewind(t *testing.T) {
	dir := t.TempDir()
	s := mustRun(t, goBackend(t), parse(t, dir, tiny, append(sparseSets, "sparse.masked.max_steps=1", "schedule.warmup_steps=1", "schedule.offset=hf")...))
	base := floatsOf(t, tiny, "")
	_, values := openSparse(t, s.Result)
	for e, v := range values {
		if bits(v) != bits(base[e.name][e.index]) {
			t.Fatalf("%v is %v, the base has %v", e, v, base[e.name][e.index])
		}
	}
	if len(values) != 137 {
		t.Errorf("%d entries", len(values))
	}
}

// TestSecondPhaseIsAFirst chooses everything: then the second phase is the first over again, with the same rows, moments that begin at
// nothing and the same learning rates, and ends with the same bits.
func TestSecondPhaseIsAFirst(t *testing.T) {
	dir := t.TempDir()
	mustRun(t, goBackend(t), parse(t, dir, tiny, append(sparseSets[:1:1], "sparse.share=1.0", "train.micro_batch=4", "train.grad_accum=1", "optim.lr=1e-2", "save.every=1", "save.keep=100", "schedule.kind=cosine", "train.max_steps=5")...))
	first, second := trainedAt(t, dir, 5), trainedAt(t, dir, 10)
	if len(first) == 0 {
		t.Fatal("nothing trains")
	}
	for name, w := range first {
		for i, x := range w {
			if bits(x) != bits(second[name][i]) {
				t.Fatalf("%s[%d] is %v after the first phase, %v after the second", name, i, x, second[name][i])
			}
		}
	}
}

// TestPull sees that the pull does what its formula says: an entry without a gradient of its own stays where it is, what is logged is
// the distance, and a stronger pull makes it shorter.
func TestPull(t *testing.T) {
	b := goBackend(t)
	base := floatsOf(t, tiny, "")
	used := map[int]bool{}
	for i := range 16 {
		for k := range 8 {
			used[3+(i*31+k*k*7+k)%90] = true
		}
	}
	distance := map[string]float64{}
	for _, reg := range []string{"0", "0.1", "3000"} {
		dir := t.TempDir()
		var logged float64
		cfg := parse(t, dir, tiny, append(sparseSets, "sparse.full.reg="+reg, "optim.weight_decay=0")...)
		_, err := train.Run(context.Background(), cfg, train.Options{Backend: b, Report: func(e train.Event) {
			if e.Kind == "step" && e.Step == 6 {
				if (e.Metrics.Pull != nil) != (reg != "0") || e.Metrics.Phase != "full" {
					t.Errorf("reg %s: %+v", reg, e.Metrics)
				}
				if e.Metrics.Pull != nil {
					logged = *e.Metrics.Pull
				}
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		before, after, parameters := trainedAt(t, dir, 5), trainedAt(t, dir, 6), 0
		for _, w := range base {
			parameters += len(w)
		}
		sum := 0.0
		for name, w := range after {
			for i := range w {
				distance[reg] += math.Abs(float64(w[i]) - float64(base[name][i]))
				sum += math.Abs(float64(before[name][i]) - float64(base[name][i]))
			}
		}
		var strength float64
		if _, err := fmt.Sscan(reg, &strength); err != nil {
			t.Fatal(err)
		}
		if want := strength * sum / float64(parameters); math.Abs(logged-want) > 1e-5*want {
			t.Errorf("reg %s: %v is logged, the distance before the last step makes it %v", reg, logged, want)
		}
		const table = "model.embed_tokens.weight"
		width := len(base[table]) / 96
		for row := range 96 {
			for i := range width {
				if at := row*width + i; !used[row] && bits(after[table][at]) != bits(base[table][at]) {
					t.Fatalf("reg %s: element %d of the unused row %d went from %v to %v", reg, i, row, base[table][at], after[table][at])
				}
			}
		}
	}
	if !(distance["3000"] < distance["0.1"]*0.9) || !(distance["0.1"] <= distance["0"]*1.01) {
		t.Errorf("distances by strength of the pull: %v", distance)
	}
}

// TestSparseRounds chooses in three rounds: each adds its part of the count, none takes an entry twice, and the remainder is not lost.
func TestSparseRounds(t *testing.T) {
	dir := t.TempDir()
	s := mustRun(t, goBackend(t), parse(t, dir, tiny, append(sparseSets, "sparse.rounds=3", "sparse.count=100", "train.max_steps=2")...))
	if s.Steps != 12 || len(s.Phases) != 6 {
		t.Fatalf("%+v", s)
	}
	var parts []int64
	for _, p := range s.Phases {
		if p.Phase == "full" {
			parts = append(parts, p.Chosen)
		}
	}
	if !slices.Equal(parts, []int64{33, 33, 34}) {
		t.Errorf("the rounds chose %v", parts)
	}
	_, values := openSparse(t, s.Result)
	base, last := floatsOf(t, tiny, ""), trainedAt(t, dir, 12)
	for name, w := range last {
		for i, x := range w {
			if _, ok := values[entry{name, int64(i)}]; !ok && bits(x) != bits(base[name][i]) {
				t.Fatalf("%s[%d] is not chosen and changed", name, i)
			}
		}
	}
	if len(values) != 100 {
		t.Errorf("%d entries", len(values))
	}
	// A round begins with what the one before it learnt.
	start := floatsOf(t, filepath.Join(dir, "out", "checkpoints", "step-000006", "checkpoint.safetensors"), "start/")
	for name, w := range trainedAt(t, dir, 4) {
		for i, x := range w {
			if bits(start[name][i]) != bits(x) {
				t.Fatalf("%s[%d] begins the second round as %v, and was %v", name, i, start[name][i], x)
			}
		}
	}
}

// TestSparseHeads keeps tensors whole where the configuration says so, and leaves others alone.
func TestSparseHeads(t *testing.T) {
	b := goBackend(t)
	base := floatsOf(t, tiny, "")
	dir := t.TempDir()
	s := mustRun(t, b, parse(t, dir, tiny, append(sparseSets, "sparse.head=whole", "sparse.norms=sparse", "sparse.embeddings=frozen",
		"sparse.exclude_modules=[q_proj]")...))
	f, values := openSparse(t, s.Result)
	if got := f.Wholes(); !slices.Equal(got, []string{"lm_head.weight"}) {
		t.Errorf("kept whole: %v", got)
	}
	if f.Count() != 137 || s.Kept != 137+int64(len(base["lm_head.weight"])) {
		t.Errorf("%d entries, %d parameters", f.Count(), s.Kept)
	}
	v, _, err := f.Whole("lm_head.weight")
	if err != nil {
		t.Fatal(err)
	}
	head := make([]float32, v.Elems())
	if err := tensors.DecodeFloat32(head, v.Data, v.DType); err != nil {
		t.Fatal(err)
	}
	last := trainedAt(t, dir, 12)
	if !slices.Equal(head, last["lm_head.weight"]) || slices.Equal(head, base["lm_head.weight"]) {
		t.Error("the head is not the trained one")
	}
	for name := range last {
		if strings.Contains(name, "q_proj") || strings.Contains(name, "embed") {
			t.Errorf("%s trains", name)
		}
	}
	if last["model.norm.weight"] == nil || len(values) != 137 {
		t.Error("norms do not train")
	}
	for _, c := range []struct{ set, want string }{
		{"sparse.exclude_modules=[q_projj]", `no module of this model is named by "q_projj"`},
		{"sparse.exclude_modules=(", "no regular expression"},
		{"sparse.count=100000000", "are more than"},
		{"sparse.on_top_of=[nowhere.safetensors]", "nowhere.safetensors"},
		{"model.adapter_in=nowhere", "fuse the adapter first"},
	} {
		_, err := train.Run(context.Background(), parse(t, t.TempDir(), tiny, append(sparseSets, c.set)...), train.Options{Backend: b})
		var input *train.InputError
		var format *tensors.FormatError
		if !errors.As(err, &input) && !errors.As(err, &format) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.set, err)
		}
	}
}

// TestOnTopOf trains a task on top of a language: the run begins at the sum, and its file holds differences, which together with the
// first file give what the run ended with.
func TestOnTopOf(t *testing.T) {
	b := goBackend(t)
	first := t.TempDir()
	language := mustRun(t, b, parse(t, first, tiny, sparseSets...))
	dir := t.TempDir()
	task := mustRun(t, b, parse(t, dir, tiny, append(sparseSets, "sparse.on_top_of=["+language.Result+"]", "run.seed=5", "optim.weight_decay=0")...))
	if d := math.Abs(*task.FirstLoss - *language.FirstLoss); d < 1e-3 {
		t.Errorf("the task begins with the loss of the base, %v", *task.FirstLoss)
	}
	f, phi := openSparse(t, task.Result)
	_, below := openSparse(t, language.Result)
	if !f.Delta || f.Meta["on_top_of"] == "" {
		t.Errorf("%+v", f.Header)
	}
	base, last := floatsOf(t, tiny, ""), trainedAt(t, dir, 12)
	for name, w := range last {
		for i, x := range w {
			e := entry{name, int64(i)}
			start, ok := below[e]
			if !ok {
				start = base[name][i]
			}
			if d, ok := phi[e]; ok {
				if math.Abs(float64(start)+float64(d)-float64(x)) > 1e-7 {
					t.Fatalf("%v: %v and %v are not %v", e, start, d, x)
				}
			} else if bits(start) != bits(x) {
				t.Fatalf("%v is not chosen and went from %v to %v", e, start, x)
			}
		}
	}
	other := filepath.Join(t.TempDir(), "other")
	copyModel(t, other)
	if _, err := train.Run(context.Background(), parse(t, t.TempDir(), other, append(sparseSets, "sparse.on_top_of=["+language.Result+"]")...), train.Options{Backend: b}); err == nil || !strings.Contains(err.Error(), "another base") {
		t.Errorf("a file for another base: %v", err)
	}
}

// copyModel copies the tiny model with one bit changed.
func copyModel(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join(tiny, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "model.safetensors" {
			data[len(data)-4] ^= 1
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSparseResume interrupts a run of two rounds at every step, some of them twice, and resumes it: result and log are those of an
// undisturbed run. Both phases may stop early, and the mask is made from the best step.
func TestSparseResume(t *testing.T) {
	b := goBackend(t)
	volatile := regexp.MustCompile(`"(tok_per_s|trained_tok_per_s|mem_peak|step_ms|data_ms|compile_ms)":[^,}]*,?`)
	sets := []string{"tune=sparse", "sparse.share=0.03", "sparse.rounds=2", "sparse.full.max_steps=4", "sparse.masked.max_steps=3",
		"train.micro_batch=4", "train.grad_accum=1", "data.valid_split=0.25", "eval.every=1", "eval.early_stopping.patience=2", "optim.lr=3e-2",
		"sparse.head=whole", "save.every=3", "save.keep=1"}
	run := func(at ...int) (string, *train.Summary) {
		dir := t.TempDir()
		cfg := parse(t, dir, tiny, sets...)
		o := train.Options{Backend: b}
		for _, stop := range at {
			ctx, cancel := context.WithCancel(context.Background())
			o.Report = func(e train.Event) {
				if e.Kind == "step" && e.Step == stop {
					cancel()
				}
			}
			if _, err := train.Run(ctx, cfg, o); !errors.Is(err, context.Canceled) {
				t.Fatalf("stopping at %d: %v", stop, err)
			}
			cancel()
			o.Report, o.Resume = nil, true
		}
		s, err := train.Run(context.Background(), cfg, o)
		if err != nil {
			t.Fatalf("after stops at %v: %v", at, err)
		}
		var all bytes.Buffer
		for _, name := range []string{"metrics.jsonl", "sparse.safetensors"} {
			raw, err := os.ReadFile(filepath.Join(dir, "out", name))
			if err != nil {
				t.Fatal(err)
			}
			all.Write(volatile.ReplaceAll(raw, nil))
		}
		return all.String(), s
	}
	want, s := run()
	early := slices.ContainsFunc(s.Phases, func(p train.PhaseSummary) bool { return p.StoppedEarly })
	late := slices.ContainsFunc(s.Phases, func(p train.PhaseSummary) bool { return p.Phase == "full" && p.BestStep > 0 && p.LastLoss != nil })
	if len(s.Phases) != 4 || !late {
		t.Fatalf("%+v", s.Phases)
	}
	t.Logf("%d steps, stopped early: %v", s.Steps, early)
	stops := [][]int{}
	for k := 1; k <= s.Steps; k++ {
		stops = append(stops, []int{k})
	}
	stops = append(stops, []int{2, 5}, []int{4, s.Steps - 1})
	for _, at := range stops {
		got, again := run(at...)
		if got != want {
			t.Errorf("stopped at %v: the run differs from an undisturbed one", at)
		}
		if fmt.Sprint(len(again.Phases), *again.EvalLoss, again.Kept) != fmt.Sprint(len(s.Phases), *s.EvalLoss, s.Kept) {
			t.Errorf("stopped at %v: summary %+v, undisturbed %+v", at, again, s)
		}
	}
}

// TestSparseReplicas divides the rows among two devices: the mask has the same count, what is not in it keeps its bits, and the losses are
// those of one device.
func TestSparseReplicas(t *testing.T) {
	b, ok := backends(t)["xla:cpu"]
	if !ok {
		t.Skip("without the XLA plugin there is one device only")
	}
	one := mustRun(t, b, parse(t, t.TempDir(), tiny, sparseSets...))
	dir := t.TempDir()
	two := mustRun(t, b, parse(t, dir, tiny, append(sparseSets, "train.replicas=2")...))
	if d := math.Abs(*one.LastLoss - *two.LastLoss); d > 1e-3**one.LastLoss || two.Kept != 137 {
		t.Errorf("loss %v on one device, %v on two", *one.LastLoss, *two.LastLoss)
	}
	_, values := openSparse(t, two.Result)
	base := floatsOf(t, tiny, "")
	for name, w := range trainedAt(t, dir, 12) {
		for i, x := range w {
			if _, chosen := values[entry{name, int64(i)}]; !chosen && bits(x) != bits(base[name][i]) {
				t.Fatalf("%s[%d] is not chosen and changed", name, i)
			}
		}
	}
	if len(values) != 137 {
		t.Errorf("%d entries", len(values))
	}
}
