package train

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/finetune/data"
	"github.com/mergekit/mergekit/hub"
	"github.com/mergekit/mergekit/internal/report"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
	"github.com/mergekit/mergekit/text/chat"
	"github.com/mergekit/mergekit/text/tokenizer"
)

// Rows are the tokenised rows of a configuration.
type Rows struct {
	Train, Valid *data.Set // Valid is nil without any
	Tokenizer    *tokenizer.Tokenizer
	Batcher      *data.Batcher // of Train
	held         []held        // Valid by domain
}

// held is the part of the held-out rows that belongs to a domain.
type held struct {
	domain  string
	set     *data.Set
	batcher *data.Batcher
}

// dataOptions opens tokenizer and template of the base.
func dataOptions(cfg *config.Config) (data.Options, error) {
	o := data.Options{TrainOn: cfg.Data.TrainOn, Truncation: cfg.Data.Truncation, OnBadRow: cfg.Data.OnBadRow, MaxLength: cfg.Data.MaxLength,
		Packing: packing(cfg), Date: time.Date(2024, 7, 26, 0, 0, 0, 0, time.UTC)} // templates that write a date write this one, so that runs can be repeated
	if onlyTokens(cfg, "tokens") {
		return o, nil // nothing to tokenise, and a large vocabulary takes time to read
	}
	if _, err := os.Stat(filepath.Join(cfg.Model.Base, "tokenizer.json")); err == nil {
		if o.Tokenizer, err = tokenizer.Open(cfg.Model.Base); err != nil {
			return o, err
		}
	} else if !onlyTokens(cfg, "tokens", "auto") {
		return o, inputf("%s: has no tokenizer.json; rows of text need the tokenizer of the base (rows of token ids do not)", cfg.Model.Base)
	}
	t, err := chat.Find(cfg.Model.Base, cfg.Data.ChatTemplate)
	switch {
	case err == nil:
		o.Template = t
	case cfg.Data.ChatTemplate != "" || !missing(err):
		return o, err
	}
	return o, nil
}

// missing says whether a template was not found, which only rows of messages mind.
func missing(err error) bool {
	var lookup *chat.LookupError
	return errors.As(err, &lookup)
}

// onlyTokens says whether all rows are of the given formats.
func onlyTokens(cfg *config.Config, formats ...string) bool {
	for _, s := range slices.Concat(cfg.Data.Train, cfg.Data.Valid) {
		if !slices.Contains(formats, s.Format) {
			return false
		}
	}
	return cfg.Data.Replay.Path == ""
}

func sources(list []config.Source, split string) []data.Source {
	var out []data.Source
	for _, s := range list {
		out = append(out, data.Source{Path: s.Path, Format: s.Format, Domain: s.Domain, Weight: s.Weight, Split: split})
	}
	return out
}

// OpenRows reads and tokenises the rows of a configuration and plans their batches.
func OpenRows(ctx context.Context, cfg *config.Config) (*Rows, error) {
	o, err := dataOptions(cfg)
	if err != nil {
		return nil, err
	}
	d, _, err := model.ReadDescription(cfg.Model.Base)
	if err != nil {
		return nil, err
	}
	if d.Head != model.HeadLM {
		if p := packing(cfg); p != "none" {
			return nil, inputf("data.packing: %s puts several rows into one sequence, and the head of this model (%s) tells one class of each; set it to none", p, d.ClassName())
		}
		o.Labels = d.Labels // in the order of the head
	}
	rows := &Rows{Tokenizer: o.Tokenizer}
	from := sources(cfg.Data.Train, "train")
	if rows.Train, err = data.Load(ctx, from, o); err != nil {
		return nil, err
	}
	if p := cfg.Data.Replay.Path; p != "" && cfg.Data.Replay.Fraction > 0 {
		if err := rows.replay(ctx, from, p, cfg.Data.Replay.Fraction, o); err != nil {
			return nil, err
		}
	}
	if o.Labels == nil {
		o.Labels = rows.Train.Labels // the held-out rows may not show all
	}
	if len(cfg.Data.Valid) > 0 {
		if rows.Valid, err = data.Load(ctx, sources(cfg.Data.Valid, "valid"), o); err != nil {
			return nil, err
		}
	} else if cfg.Data.ValidSplit > 0 {
		rows.split(cfg.Data.ValidSplit, uint64(cfg.Run.Seed))
	}
	for _, set := range []*data.Set{rows.Train, rows.Valid} {
		if err := fits(set, d); err != nil {
			return nil, err
		}
	}
	return rows, rows.batch(cfg)
}

// fits refuses rows that the model's head cannot learn.
func fits(set *data.Set, d *model.Description) error {
	if set == nil {
		return nil
	}
	for i := range set.Examples {
		e := &set.Examples[i]
		where := fmt.Sprintf("%s:%d", e.File, e.Line)
		switch {
		case d.Head == model.HeadLM && e.Class >= 0:
			return inputf("%s: the row has a label, and the model (%s) has no classification head; give a classifier as the base, or write rows as prompts with the label as completion", where, d.ClassName())
		case d.Head == model.HeadLM:
		case d.Head == model.HeadNone:
			return inputf("the model (%s) has no head that can be trained on rows; give a language model or a classifier as the base", d.ClassName())
		case d.NumLabels < 2:
			return inputf("the model (%s) gives a single score: a reward model, which is trained by methods that this version does not have", d.ClassName())
		case e.Class < 0:
			return inputf("%s: the row has no label, and the model (%s) tells classes; rows need {\"text\", \"label\"}", where, d.ClassName())
		case e.Class >= d.NumLabels:
			return inputf("%s: the label is class %d, the model's head tells %d (from 0); correct the row, or set num_labels in a base with a larger head", where, e.Class, d.NumLabels)
		}
	}
	return nil
}

// replay loads a second set whose rows make up the given share of an epoch.
func (r *Rows) replay(ctx context.Context, from []data.Source, path string, share float64, o data.Options) error {
	old, err := data.Load(ctx, []data.Source{{Path: path, Format: "auto", Domain: "replay", Weight: 1}}, o)
	if err != nil {
		return err
	}
	if len(old.Examples) == 0 {
		return inputf("data.replay: %s has no rows", path)
	}
	weight := share / (1 - share) * float64(len(r.Train.Examples)) / float64(len(old.Examples))
	both, err := data.Load(ctx, append(slices.Clone(from), data.Source{Path: path, Format: "auto", Domain: "replay", Weight: weight}), o)
	if err == nil {
		r.Train = both
	}
	return err
}

// split takes a share of the rows out of training to measure with, chosen by the seed.
func (r *Rows) split(share float64, seed uint64) {
	n := len(r.Train.Examples)
	hold := min(max(int(math.Round(share*float64(n))), 1), n-1)
	if hold < 1 {
		return
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := mix(seed^0x5b117, uint64(a)), mix(seed^0x5b117, uint64(b))
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return a - b
	})
	out := slices.Clone(order[:hold])
	slices.Sort(out)
	r.Train, r.Valid = r.Train.Without(out), r.Train.Only(out)
}

// packing is how rows share sequences. Rows that packing cuts must be read whole.
func packing(cfg *config.Config) string {
	if cfg.Data.Packing != "auto" {
		return cfg.Data.Packing
	}
	if cfg.Method == "cpt" {
		return "wrapped"
	}
	return "none"
}

// batch plans the batches.
func (r *Rows) batch(cfg *config.Config) (err error) {
	pad := int32(0)
	if r.Tokenizer != nil {
		if _, id, ok := r.Tokenizer.PAD(); ok {
			pad = int32(id)
		} else if _, id, ok := r.Tokenizer.EOS(); ok {
			pad = int32(id) // masked by position, so that it can be any token
		}
	}
	o := data.BatchOptions{MicroBatch: cfg.Train.MicroBatch, GradAccum: cfg.Train.GradAccum, Packing: packing(cfg), Buckets: cfg.Data.Buckets,
		MaxLength: cfg.Data.MaxLength, Shuffle: cfg.Data.Shuffle, Seed: uint64(cfg.Run.Seed), PadID: pad, Replicas: cfg.Train.Replicas}
	if r.Batcher, err = data.NewBatcher(r.Train, o); err != nil {
		return err
	}
	if r.Valid == nil || len(r.Valid.Examples) == 0 {
		return nil
	}
	o.GradAccum, o.Shuffle, o.Replicas = 1, false, 1
	by := map[string][]int{}
	for i := range r.Valid.Examples {
		d := r.Valid.Examples[i].Domain
		by[d] = append(by[d], i)
	}
	for _, d := range slices.Sorted(maps.Keys(by)) {
		h := held{domain: d, set: r.Valid.Only(by[d])}
		if h.batcher, err = data.NewBatcher(h.set, o); err != nil {
			return err
		}
		r.held = append(r.held, h)
	}
	return nil
}

// openData reads the rows and refuses those that the model cannot read.
func (r *run) openData(ctx context.Context) error {
	r.tell(Event{Kind: "prepare", Message: "reading and tokenising rows"})
	rows, err := OpenRows(ctx, r.cfg)
	if err != nil {
		return err
	}
	if t := rows.Tokenizer; t != nil && t.Size() > r.s.desc.Vocab {
		return inputf("%s: the tokenizer has %d tokens, the embedding of the model %d rows; use the checkpoint's own tokenizer, or a checkpoint whose embedding was resized for the new tokens", r.cfg.Model.Base, t.Size(), r.s.desc.Vocab)
	}
	for _, set := range []*data.Set{rows.Train, rows.Valid} {
		if set == nil {
			continue
		}
		for _, w := range set.Report.Warnings {
			r.warn("%s", w)
		}
		for _, e := range set.Examples {
			for _, id := range e.IDs {
				if id < 0 || int(id) >= r.s.desc.Vocab {
					return inputf("%s:%d: token id %d is outside of the model's embedding of %d rows", e.File, e.Line, id, r.s.desc.Vocab)
				}
			}
		}
	}
	if max := r.s.desc.MaxPositions; max > 0 && r.cfg.Data.MaxLength > max {
		longest := 0
		for _, s := range rows.Batcher.Shapes() {
			if s[1] > longest {
				longest = s[1]
			}
		}
		if longest > max {
			return inputf("data.max_length: batches of %d tokens are longer than the %d positions of the model; set data.max_length to %d or less", longest, max, max)
		}
	}
	r.set, r.train, r.held = rows.Train, rows.Batcher, rows.held
	return nil
}

// baseDigest identifies the base by the headers of its weight files and its config.json; hashing every weight would cost more than
// loading them.
func (r *run) baseDigest() (string, error) {
	h := sha256.New()
	for _, f := range r.s.ckpt.Files() {
		d, err := tensors.HeaderDigest(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, filepath.Base(f), d)
	}
	raw, err := os.ReadFile(filepath.Join(r.cfg.Model.Base, "config.json"))
	if err != nil {
		return "", err
	}
	h.Write(raw)
	if r.s.sparse != nil {
		for _, file := range r.s.sparse.on {
			fmt.Fprintln(h, "on top of", file)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// resumed finds the checkpoint to go on from and refuses one of another run. It returns its directory, "" for a run that has none
// yet.
func (r *run) resumed(fresh State) (string, error) {
	dir := filepath.Join(r.dir, "checkpoints")
	steps, err := checkpoints(dir)
	if err != nil {
		return "", err
	}
	step := 0
	if len(steps) > 0 {
		step = steps[len(steps)-1]
	}
	if k := r.o.ResumeStep; k > 0 {
		if !slices.Contains(steps, k) {
			return "", inputf("%s: has no checkpoint of step %d; there are %v", dir, k, steps)
		}
		step = k
	}
	raw, err := os.ReadFile(filepath.Join(r.dir, configName))
	if err != nil {
		return "", err
	}
	if before, err := config.Parse(filepath.Join(r.dir, configName), raw, nil); err == nil && !r.o.ResumeForce {
		if diff := config.Diff(before, r.cfg); len(diff) > 0 {
			return "", inputf("%s: the run in it was begun with other settings, so its result would be neither one's: %s; restore them, or use --resume-force", r.dir, strings.Join(diff, "; "))
		}
	}
	if step == 0 {
		return "", nil // killed before the first checkpoint: begin again
	}
	from := filepath.Join(dir, stepDir(step))
	st, err := readState(from)
	if err != nil {
		return "", err
	}
	if !r.o.ResumeForce {
		for _, c := range []struct{ what, a, b string }{{"the rows or their order", st.DataDigest, fresh.DataDigest}, {"the base model", st.BaseDigest, fresh.BaseDigest}, {"the configuration", st.ConfigDigest, fresh.ConfigDigest}} {
			if c.a != c.b {
				return "", inputf("%s: %s changed since this checkpoint was written; restore them, or use --resume-force", from, c.what)
			}
		}
	}
	st.ConfigDigest, st.Config, st.DataDigest, st.BaseDigest, st.Version = fresh.ConfigDigest, fresh.Config, fresh.DataDigest, fresh.BaseDigest, fresh.Version
	at := r.phaseIndex(&st)
	if at < 0 {
		return "", inputf("%s: is in phase %s of round %d, which this run does not have; begin again with --force", from, st.Phase, st.Round)
	}
	st.Total, st.Stopped = r.expected(&st), st.Stopped && st.Step < st.PhaseStart+r.phases[at].steps
	if r.cfg.Eval.SaveBest && st.BestStep > 0 && !slices.Contains(steps, st.BestStep) {
		r.warn("the checkpoint of the best step, %d, is gone; the best is looked for anew", st.BestStep)
		st.BestStep, st.BestLoss = 0, nil
	}
	for _, k := range steps {
		if k > step { // another future than the one that begins now
			if err := os.RemoveAll(filepath.Join(dir, stepDir(k))); err != nil {
				return "", err
			}
		}
	}
	r.st = st
	return from, nil
}

// saveOptions are the side files of the result.
func (r *run) saveOptions() saveOptions {
	names := sideFiles
	if r.s.kind == "model" {
		names = append(slices.Clone(names), "config.json", "generation_config.json")
	}
	o := saveOptions{compat: r.cfg.Save.Compat, copies: copies(r.cfg.Model.Base, names), files: map[string][]byte{}}
	o.files["README.md"] = r.card()
	return o
}

// card is the model card of the result.
func (r *run) card() []byte {
	var b bytes.Buffer
	base := filepath.Base(r.cfg.Model.Base)
	if repo, _, ok := hub.Origin(r.cfg.Model.Base); ok {
		base = repo
	}
	fmt.Fprintf(&b, "---\nbase_model: %s\n", base)
	if r.s.kind == "adapter" {
		fmt.Fprintln(&b, "library_name: peft")
	} else {
		fmt.Fprintln(&b, "library_name: transformers")
	}
	fmt.Fprintf(&b, "tags: [mergekit, %s, %s]\n---\n\n# %s\n\n", r.cfg.Method, r.cfg.Tune, r.cfg.Run.Name)
	fmt.Fprintf(&b, "Trained with mergekit: %s, %s, %d steps, %d target tokens.\n\n", r.cfg.Method, r.cfg.Tune, r.st.Step, r.st.TrainedTokens)
	loss := r.st.EvalLoss
	if r.cfg.Eval.SaveBest && r.st.BestLoss != nil {
		loss = r.st.BestLoss // the result is that of the best step
	}
	if loss != nil {
		fmt.Fprintf(&b, "Loss on held-out rows: %.4f", *loss)
		if r.st.FirstEvalLoss != nil {
			fmt.Fprintf(&b, " (before training %.4f)", *r.st.FirstEvalLoss)
		}
		fmt.Fprint(&b, ".\n\n")
	}
	fmt.Fprintf(&b, "```yaml\n%s```\n", r.cfg.YAML())
	return b.Bytes()
}

// page writes report.html.
func (r *run) page() error {
	rows, err := report.ReadMetrics(filepath.Join(r.dir, metricsName))
	if err != nil {
		return err
	}
	p := report.Run{Name: r.cfg.Run.Name, Rows: rows}
	s := &r.summary
	p.Summary = []report.Pair{{Name: "result", Value: s.Result}, {Name: "trained parameters", Value: fmt.Sprintf("%d of %d", s.Trainable, s.Parameters)},
		{Name: "backend", Value: s.Backend}, {Name: "time", Value: time.Duration(s.Seconds * float64(time.Second)).Round(time.Second).String()}}
	if r.s.sparse != nil {
		p.Summary = append(p.Summary, report.Pair{Name: "changed parameters", Value: fmt.Sprint(s.Kept)}, report.Pair{Name: "phases", Value: phaseText(s.Phases)})
	}
	for _, e := range r.cfg.Entries() {
		p.Settings = append(p.Settings, report.Pair{Name: e.Key, Value: e.Value})
	}
	var b bytes.Buffer
	if err := report.Training(&b, p); err != nil {
		return err
	}
	return writeFile(filepath.Join(r.dir, "report.html"), b.Bytes())
}
