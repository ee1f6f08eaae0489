package evaluation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/calibration"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// The tasks. Auto takes what the model and the rows say.
const (
	Auto         = "auto"
	TaskLM       = "lm"
	TaskChoice   = "choice"
	TaskClassify = "classify"
	TaskValues   = "values" // of plain networks with the squared error
)

// The metrics.
const (
	MetricLoss     = "loss"
	MetricAccuracy = "accuracy"
	MetricMacroF1  = "macro_f1"
)

// Options say what models are measured on, and how.
type Options struct {
	// Data are the files. Samples bounds the rows, which Seed chooses; SeqLen the tokens of a row.
	Data   calibration.Options
	Task   string // auto, lm, choice or classify; "": auto
	Metric string // auto, loss, accuracy or macro_f1; auto: accuracy where rows have classes or choices, else the loss; "": auto
	// Backend computes. Measuring needs one, reading the data does not.
	Backend  compute.Backend
	Progress func(done, total int) // rows; may be nil
	// Unlabelled says that rows need no labels, and that labels are not looked at: a Learner can differentiate the entropy, and nothing
	// can be measured.
	Unlabelled bool
	// Share lends the model on the device of another judge of the same config.json, so that several sets need one model. May be nil.
	Share *Judge
}

// Judge measures weights on rows. Its methods are not safe for concurrent use.
type Judge struct {
	o            Options
	subject      subject
	task, metric string
	digest       string
	notes        []string
}

// subject is a kind of models with the rows that they are measured on.
type subject interface {
	rows() int
	// identity tells a row from others by all that it gives the model and asks for.
	identity(row int) [sha256.Size]byte
	// fill gives the model on the device these weights; it loads the model at the first call.
	fill(ctx context.Context, w align.Weights) error
	// outcomes measures the model on the device.
	outcomes(ctx context.Context, progress func(done, total int)) (*Outcomes, error)
	release()
	use(b compute.Backend)
	learner(ctx context.Context, j *Judge, w align.Weights, train func(name string) bool) (*Learner, error)
}

// Open reads the data for models of this config.json; dir has the tokenizer. What is wrong with data and options is a *model.InputError
// or another error about input.
func Open(ctx context.Context, config []byte, dir string, o Options) (*Judge, error) {
	if o.Task == "" {
		o.Task = Auto
	}
	if o.Metric == "" {
		o.Metric = Auto
	}
	if !slices.Contains([]string{Auto, TaskLM, TaskChoice, TaskClassify}, o.Task) {
		return nil, bad("task %q is not known; auto, lm, choice and classify are", o.Task)
	}
	if !slices.Contains([]string{Auto, MetricLoss, MetricAccuracy, MetricMacroF1}, o.Metric) {
		return nil, bad("metric %q is not known; auto, loss, accuracy and macro_f1 are", o.Metric)
	}
	if len(o.Data.Files) == 0 {
		return nil, bad("there is no data to measure on; name a file")
	}
	for _, file := range o.Data.Files {
		if st, err := os.Stat(file); err == nil && st.IsDir() {
			return nil, &model.InputError{File: file, Msg: "is a folder; name the files with rows"}
		}
	}
	j := &Judge{o: o}
	var err error
	if model.IsPlain(config) {
		err = j.openPlain(config)
	} else {
		err = j.openTransformer(ctx, config, dir)
	}
	if err != nil {
		return nil, err
	}
	if j.metric, err = chooseMetric(o.Metric, j.task); err != nil {
		return nil, err
	}
	j.digest, err = digest(config, dir, j)
	return j, err
}

func bad(format string, args ...any) error {
	return &model.InputError{Msg: fmt.Sprintf(format, args...)}
}

// chooseMetric refuses metrics that a task does not have.
func chooseMetric(metric, task string) (string, error) {
	classes := task == TaskChoice || task == TaskClassify
	switch {
	case metric == Auto && classes:
		return MetricAccuracy, nil
	case metric == Auto:
		return MetricLoss, nil
	case metric == MetricMacroF1 && !classes:
		return "", bad("metric macro_f1 is of rows with classes or choices, and these have neither; take loss")
	case metric == MetricAccuracy && task == TaskValues:
		return "", bad("metric accuracy is of rows with classes, and this network gives values; take loss")
	}
	return metric, nil
}

// digest identifies everything that a score depends on beside the weights and the backend.
func digest(config []byte, dir string, j *Judge) (string, error) {
	d := j.o.Data
	h := sha256.New()
	fmt.Fprintf(h, "evaluation 1|%s|%s|%q|%d|%d|%d|%d|%v|%v|", j.task, j.metric, d.Field, d.Samples, d.SeqLen, d.Seed, d.Batch, d.Divide, d.LabelFirst)
	for _, file := range d.Files {
		sum, err := tensors.SHA256(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %s|", filepath.Base(file), sum) // the ending says how a file is read
	}
	_, _ = h.Write(config) // a hash does not fail
	if model.IsPlain(config) {
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	names := []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "chat_template.json"}
	const more = "additional_chat_templates"
	templates, _ := os.ReadDir(filepath.Join(dir, more)) // sorted; where there is none, none is read
	for _, t := range templates {
		names = append(names, filepath.Join(more, t.Name()))
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			continue // what is missing is not read
		}
		fmt.Fprintf(h, "|%s|", name)
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Digest identifies data, options, config.json and tokenizer: what a score depends on beside the weights.
func (j *Judge) Digest() string { return j.digest }

// Rows is how many rows are measured.
func (j *Judge) Rows() int { return j.subject.rows() }

// Task is what the rows ask for.
func (j *Judge) Task() string { return j.task }

// Metric is what a score's Value is.
func (j *Judge) Metric() string { return j.metric }

// Notes say what became of rows that could not be read whole.
func (j *Judge) Notes() []string { return j.notes }

// Files are the files that were read.
func (j *Judge) Files() []string { return j.o.Data.Files }

// Key is what a Cache keeps the score of weights under; content is their ContentHash.
func (j *Judge) Key(content string) string {
	kind := ""
	if j.o.Backend != nil {
		kind = j.o.Backend.Description() // with the plugin: XLA has one name on processors and on accelerators
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{content, j.digest, kind, program()}, "|")))
	return hex.EncodeToString(sum[:])
}

// program identifies what computed a score, so that another build of this program measures anew.
var program = sync.OnceValue(func() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	id := []string{b.Main.Version}
	for _, s := range b.Settings {
		if s.Key == "vcs.revision" || s.Key == "vcs.modified" {
			id = append(id, s.Value)
		}
	}
	return strings.Join(id, " ")
})

// Score measures weights. The first call loads the model; later ones refill it.
func (j *Judge) Score(ctx context.Context, w align.Weights) (*Score, error) {
	o, err := j.Outcomes(ctx, w)
	if err != nil {
		return nil, err
	}
	return o.Score(), nil
}

// Outcomes measures weights row by row.
func (j *Judge) Outcomes(ctx context.Context, w align.Weights) (*Outcomes, error) {
	if err := j.ready(); err != nil {
		return nil, err
	}
	if j.o.Unlabelled {
		return nil, errUnlabelled
	}
	if err := j.subject.fill(ctx, w); err != nil {
		return nil, err
	}
	return j.measure(ctx, j.subject)
}

// measure measures the model that a subject has on the device.
func (j *Judge) measure(ctx context.Context, s interface {
	outcomes(ctx context.Context, progress func(done, total int)) (*Outcomes, error)
}) (*Outcomes, error) {
	o, err := s.outcomes(ctx, j.o.Progress)
	if err != nil {
		return nil, err
	}
	o.Task, o.Metric = j.task, j.metric
	return o, nil
}

// errUnlabelled says that there is nothing to compare answers with.
var errUnlabelled = errors.New("nothing is measured on rows whose labels are not looked at")

func (j *Judge) ready() error {
	if j.o.Backend == nil {
		return fmt.Errorf("measuring needs a backend, and the judge was opened without one")
	}
	return nil
}

// Learner makes a model of its own whose tensors are moved and differentiated: those that train chooses by the names of the
// checkpoint's files. It starts with the weights w, and so do all others stay.
func (j *Judge) Learner(ctx context.Context, w align.Weights, train func(name string) bool) (*Learner, error) {
	if err := j.ready(); err != nil {
		return nil, err
	}
	return j.subject.learner(ctx, j, w, train)
}

// Use sets the backend of a judge that was opened without one, or with another.
func (j *Judge) Use(b compute.Backend) {
	j.Release()
	j.o.Backend = b
	j.subject.use(b)
}

// Release frees the model on the device; the next measuring loads it again.
func (j *Judge) Release() { j.subject.release() }
