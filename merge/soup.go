package merge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/gram"
	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/soup"
	"github.com/mergekit/mergekit/model"
)

// soupFile is the file of an output that says how its soup came about.
const soupFile = "soup.json"

// SoupReport says how a soup came about.
type SoupReport struct {
	Method  string        `json:"merge_method"`
	Data    []string      `json:"data"`
	Rows    int           `json:"rows"`
	Greedy  *soup.Greedy  `json:"greedy,omitempty"`
	Singles []soup.Single `json:"singles,omitempty"`
	Learned *soup.Learned `json:"learned,omitempty"`
	Line    *soup.Line    `json:"line,omitempty"`
	Angles  *soup.Angles  `json:"angles,omitempty"`
	Fisher  []FisherModel `json:"fisher,omitempty"`
}

// FisherModel is what was found about a model's Fisher information.
type FisherModel struct {
	Model string  `json:"model"`
	Rows  int     `json:"rows"`
	Norm  float64 `json:"norm"` // over all entries
}

// pot is what every soup is made in: the ingredients, and the data that decides.
type pot struct {
	j      *job
	set    *soup.Set
	base   *soup.Ingredient
	judge  *evaluation.Judge
	device compute.Backend
	// student is the model on the device that learns; nil: the judge has one of its own. There is one of them at a time.
	student soup.Learner
	teacher *evaluation.Judge // whose rows it learns on
	free    func()
	report  SoupReport
	notes   []string
	done    func() // closes the device
}

// openPot opens the ingredients and the held-out data. unlabelled allows data without labels, which is calibration data then.
func (j *job) openPot(ctx context.Context, unlabelled bool) (*pot, error) {
	m, name, err := j.choosingData(unlabelled)
	if err != nil {
		return nil, err
	}
	config, err := j.p.PatchedConfig()
	if err != nil {
		return nil, &InputError{err}
	}
	list, base, infos, err := j.inputsOf()
	if err != nil {
		return nil, err
	}
	set, err := soup.NewSet(list, infos)
	if err != nil {
		return nil, err
	}
	device, done, err := j.o.modelBackend()
	if err != nil {
		return nil, err
	}
	judge, err := openJudge(ctx, j.p, name, m, config, func(o *evaluation.Options) {
		o.Backend = device
		o.Unlabelled = name != "held_out"
	})
	if err != nil {
		done()
		return nil, err
	}
	return &pot{j: j, set: set, base: base, judge: judge, device: device, done: done, report: SoupReport{Method: j.p.Method.Name, Data: m.Data, Rows: judge.Rows()}}, nil
}

// close frees what is on the device, and the device.
func (k *pot) close() {
	k.forget()
	k.judge.Release()
	k.done()
}

// choosingData is the data by which a soup is chosen.
func (j *job) choosingData(unlabelled bool) (m *recipe.Measure, name string, err error) {
	r := j.p.Recipe
	if r.Evaluate != nil && r.Evaluate.HeldOut != nil {
		return r.Evaluate.HeldOut, "held_out", nil
	}
	if c := r.Calibration; unlabelled && c != nil {
		return &recipe.Measure{Pos: c.Pos, DataPos: c.Pos, Data: c.Data, Task: recipe.TaskAuto, Metric: recipe.MetricAuto, Field: c.Field, Limit: c.Samples, SeqLen: c.SeqLen, Batch: c.Batch, Seed: c.Seed, Divide: c.Divide, LabelFirst: c.LabelFirst}, "calibration", nil
	}
	if unlabelled {
		return nil, "", j.refuse("%s looks at what merges predict; add calibration: {data: FILE} (inputs without labels), or evaluate: {held_out: {data: FILE}}", j.p.Method.Name)
	}
	return nil, "", j.refuse("%s chooses by held-out data; add evaluate: {held_out: {data: FILE}} with rows that no model was trained on and that you will not report", j.p.Method.Name)
}

// meter makes a meter of mixes; total is how many measurements there may be, for progress.
func (k *pot) meter(ctx context.Context, set *soup.Set, total int) (*soup.Meter, error) {
	cache, err := evaluation.OpenCache("")
	if err != nil {
		return nil, err
	}
	m := &soup.Meter{Set: set, Judge: k.judge, Cache: cache}
	if k.student != nil {
		m.Judge = soup.Measure(k.student, k.judge)
	}
	for i, one := range set.List {
		k.j.fitting(i, len(set.List), "reading "+one.Name)
		hash, err := evaluation.ContentHash(ctx, one.Weights)
		if err != nil {
			return nil, err
		}
		m.Hashes = append(m.Hashes, hash)
	}
	done := 0
	k.j.fitting(0, total, "measuring")
	m.Measured = func(what string, known bool) {
		done++
		if known {
			what += " (known)"
		}
		k.j.fitting(min(done, total), total, "measuring "+what)
	}
	return m, nil
}

// whole is a number of the recipe.
func (j *job) whole(name string, least int) (int, error) {
	n, _ := j.p.Shared[name].(int)
	if n < least {
		return 0, j.refuse("%s %d is too small; it is at least %d", name, n, least)
	}
	return n, nil
}

// word is a text of the recipe, one of some.
func (j *job) word(name string, of ...string) (string, error) {
	s := j.text(name)
	if !slices.Contains(of, s) {
		return "", j.refuse("%s %q is not known; it is one of %v", name, s, of)
	}
	return s, nil
}

func (j *job) seed() uint64 {
	n, _ := j.p.Shared["seed"].(int)
	return uint64(int64(n))
}

func (j *job) flag(name string) bool {
	b, _ := j.p.Shared[name].(bool)
	return b
}

// Beyond these numbers a recipe is a slip of the pen: every copy and every point is a measurement.
const (
	maxCopies = 100
	maxPoints = 1001
)

// greedyOptions reads the recipe.
func (j *job) greedyOptions() (o soup.GreedyOptions, err error) {
	if o.Order, err = j.word("order", soup.OrderMetric, soup.OrderRandom, soup.OrderListed); err != nil {
		return o, err
	}
	tie, err := j.word("tie", "accept", "strict")
	if err != nil {
		return o, err
	}
	o.Strict, o.Seed = tie == "strict", j.seed()
	if o.Copies, err = j.whole("with_replacement", 1); err != nil {
		return o, err
	}
	if o.Copies > maxCopies {
		return o, j.refuse("with_replacement %d is too much; a model may be in the soup up to %d times", o.Copies, maxCopies)
	}
	switch gain := j.p.Shared["min_gain"].(type) {
	case float64:
		if o.MinGain = gain; !(gain >= 0) || math.IsInf(gain, 0) {
			return o, j.refuse("min_gain %v is no number from 0 on", gain)
		}
	case string:
		if o.Sure = gain == "1se"; !o.Sure {
			return o, j.refuse("min_gain %q is neither a number nor 1se", gain)
		}
	}
	return o, nil
}

// greedySoup makes a greedy soup.
func greedySoup(ctx context.Context, j *job) (*blended, error) {
	o, err := j.greedyOptions()
	if err != nil {
		return nil, err
	}
	k, err := j.openPot(ctx, false)
	if err != nil {
		return nil, err
	}
	defer k.close()
	if o.Sure && k.judge.Metric() == evaluation.MetricMacroF1 {
		return nil, j.refuse("min_gain: 1se compares rows, and macro_f1 is no mean over rows; measure accuracy or loss, or give min_gain a number")
	}
	points, err := k.points()
	if err != nil {
		return nil, err
	}
	n := len(k.set.List)
	meter, err := k.meter(ctx, k.set, n+1+(n-1)+(o.Copies-1)*n)
	if err != nil {
		return nil, err
	}
	g, err := soup.MakeGreedy(ctx, meter, o)
	if err != nil {
		return nil, err
	}
	k.report.Greedy = g
	k.note("greedy soup of %d of %d models by %s on %d held-out rows: %s, the best single model (%s) %s, the mean of all %s", len(g.Weights), n, g.Metric, k.judge.Rows(),
		soup.Figure(g.Score), g.Best, soup.Figure(g.Singles[indexOf(k.set, g.Best)].Score), soup.Figure(g.Uniform))
	for _, w := range g.Weights {
		k.note("%s has %.4g of the soup", w.Name, w.Weight)
	}
	counts := soup.CountShare(g.Counts)
	return k.finish(ctx, k.set.Counted(g.Counts), func(string) soup.Share { return counts }, fmt.Sprint(g.Counts), points)
}

func indexOf(s *soup.Set, name string) int {
	return slices.IndexFunc(s.List, func(i soup.Ingredient) bool { return i.Name == name })
}

func (k *pot) note(format string, args ...any) {
	k.notes = append(k.notes, fmt.Sprintf(format, args...))
}

// points is how many points of the line from the base are measured.
func (k *pot) points() (int, error) {
	n, err := k.j.whole("line", 0)
	switch {
	case err != nil || n == 0:
		return n, err
	case n > maxPoints:
		return 0, k.j.refuse("line %d is too many points, each of which is measured; give up to %d (21 measures every twentieth)", n, maxPoints)
	case n == 1:
		return 0, k.j.refuse("line 1 is a single point; give 2 or more (21 measures every twentieth), or 0 for none")
	case k.base == nil:
		return 0, k.j.refuse("line goes from the base model to the soup; add base_model, or remove line")
	}
	return n, nil
}

// finish measures angles and the line from the base, and makes what is to be written.
func (k *pot) finish(ctx context.Context, mix *soup.Mix, share func(tensor string) soup.Share, identity string, points int) (*blended, error) {
	var err error
	k.j.fitting(0, 1, "angles between the models")
	if k.report.Angles, err = soup.FindAngles(ctx, gram.New(nil, k.j.o.Threads), k.set, k.base); err != nil {
		return nil, err
	}
	k.j.fitting(1, 1, "angles between the models")
	from, apart := "their mean", 180.0
	switch n := len(k.set.List); {
	case k.base != nil:
		from, apart = k.base.Name, 90
	case n > 1:
		apart = 180 / math.Pi * math.Acos(-1/float64(n-1))
	}
	k.note("mean angle between the models' ways from %s: %.1f degrees; ways with nothing in common have %.1f", from, k.report.Angles.Mean, apart)
	if points > 0 {
		wide := *k.set
		wide.List = append(slices.Clone(k.set.List), *k.base)
		meter, err := k.meter(ctx, &wide, points)
		if err != nil {
			return nil, err
		}
		line, err := soup.MakeLine(ctx, meter, share, identity, points)
		if err != nil {
			return nil, err
		}
		k.report.Line = line
		k.note("of %d points on the line from %s to the soup, %.4g of the way is best: %s", points, k.base.Name, line.Taken, soup.Figure(line.Score))
		mix, identity = line.Mix, fmt.Sprintf("%s|line %x", identity, math.Float64bits(line.Taken))
	}
	return k.blended(mix, identity)
}

// blended is the result.
func (k *pot) blended(values align.Weights, identity string) (*blended, error) {
	text, err := json.MarshalIndent(k.report, "", "  ")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(k.judge.Digest() + "|" + identity))
	return &blended{values: values, digest: hex.EncodeToString(sum[:]), report: k.report, notes: k.notes, file: append(text, '\n')}, nil
}

// learnOptions reads the recipe.
func (k *pot) learnOptions() (o soup.LearnOptions, err error) {
	o.Rows, o.Seed, o.Rate = k.judge.Rows(), k.j.seed(), k.j.number("lr")
	if !(o.Rate > 0) {
		return o, k.j.refuse("lr %v must be positive", o.Rate)
	}
	if o.Batch, err = k.j.whole("batch", 1); err != nil {
		return o, err
	}
	o.Batch = min(o.Batch, o.Rows)
	o.Progress = k.j.fitting
	o.Keep, o.Kept, err = k.j.keepSoup(k.judge.Digest())
	return o, err
}

// groups are the tensors that share numbers.
func (k *pot) groups() (*soup.Groups, error) {
	g, err := k.j.word("granularity", soup.ByModel, soup.ByLayer, soup.ByTensor)
	if err != nil {
		return nil, err
	}
	return soup.GroupTensors(k.set, g), nil
}

// learn makes a model on the device that starts with these weights and learns on the rows of a judge. It takes the place of the last one.
func (k *pot) learn(ctx context.Context, judge *evaluation.Judge, w align.Weights) error {
	k.forget()
	l, err := judge.Learner(ctx, w, func(string) bool { return true })
	if err != nil {
		return err
	}
	k.student, k.teacher, k.free = soup.Of(l), judge, l.Close
	return nil
}

// forget frees the model that learns.
func (k *pot) forget() {
	if k.free != nil {
		k.free()
	}
	k.student, k.teacher, k.free = nil, nil, nil
}

// learnedSoup makes a learned soup.
func learnedSoup(ctx context.Context, j *job) (*blended, error) {
	k, err := j.openPot(ctx, false)
	if err != nil {
		return nil, err
	}
	defer k.close()
	o, err := k.learnOptions()
	if err != nil {
		return nil, err
	}
	o.Decay, o.Temperature = j.number("weight_decay"), j.flag("temperature")
	if !(o.Decay >= 0) {
		return nil, j.refuse("weight_decay %v must not be negative", o.Decay)
	}
	if o.Epochs, err = j.whole("epochs", 0); err != nil {
		return nil, err
	}
	groups, err := k.groups()
	if err != nil {
		return nil, err
	}
	points, err := k.points()
	if err != nil {
		return nil, err
	}
	if err := k.learn(ctx, k.judge, k.set.List[0].Weights); err != nil {
		return nil, err
	}
	meter, err := k.meter(ctx, k.set, len(k.set.List))
	if err != nil {
		return nil, err
	}
	if k.report.Singles, err = soup.MeasureSingles(ctx, meter); err != nil {
		return nil, err
	}
	b := &soup.Blend{Set: k.set, Groups: groups, Form: soup.Softmax{}, N: soup.NewNumbers(len(groups.Names), len(k.set.List), 0)}
	r, err := b.Learn(ctx, k.student, o)
	if err != nil {
		return nil, err
	}
	k.report.Learned = r
	best := soup.BestSingle(k.report.Singles)
	taken := r.Epochs[r.Taken]
	k.note("learned soup by %s on %d held-out rows: %s after epoch %d of %d, equal shares %s, the best single model (%s) %s", r.Metric, k.judge.Rows(),
		soup.Figure(taken.Score), r.Taken, o.Epochs, soup.Figure(r.Epochs[0].Score), k.report.Singles[best].Name, soup.Figure(k.report.Singles[best].Score))
	if k.report.Singles[best].Score.Value > taken.Score.Value {
		k.note("the soup is worse than %s on the held-out data: the models may not be fine-tunes of one model, or have left its basin (a high learning rate); greedy_soup leaves such models out", k.report.Singles[best].Name)
	}
	for _, w := range r.Mean {
		k.note("%s has %.4g of the soup", w.Name, w.Weight)
	}
	made, err := k.finish(ctx, b.Mix(false), b.Shares(), numbersText(r.Best), points)
	if err == nil {
		made.done = j.dropSoup
	}
	return made, err
}

// numbersText identifies numbers.
func numbersText(n soup.Numbers) string {
	var list []string
	for g := range n {
		for _, x := range n[g] {
			list = append(list, strconv.FormatFloat(x, 'x', -1, 64))
		}
	}
	return fmt.Sprint(list)
}

// adaMerging learns factors of task vectors without labels.
func adaMerging(ctx context.Context, j *job) (*blended, error) {
	k, err := j.openPot(ctx, true)
	if err != nil {
		return nil, err
	}
	defer k.close()
	o, err := k.learnOptions()
	if err != nil {
		return nil, err
	}
	steps, err := j.whole("steps", 0)
	if err != nil {
		return nil, err
	}
	groups, err := k.groups()
	if err != nil {
		return nil, err
	}
	if k.judge.Task() == evaluation.TaskValues {
		return nil, j.refuse("adamerging makes predictions sure, and a network of values predicts no probabilities; take learned_soup")
	}
	wide := *k.set
	wide.List = append(slices.Clone(k.set.List), *k.base)
	start := j.number("init")
	b := &soup.Blend{Set: &wide, Groups: groups, Form: soup.TaskVectors{Unit: j.flag("clamp")}, N: soup.NewNumbers(len(groups.Names), len(k.set.List), start)}
	if err := k.learn(ctx, k.judge, k.base.Weights); err != nil {
		return nil, err
	}
	r, err := b.Descend(ctx, k.student, steps, model.ObjectiveEntropy, o)
	if err != nil {
		return nil, err
	}
	k.report.Learned = r
	if n := len(r.Values); n > 0 {
		k.note("entropy of predictions: %.4g nats over the first %d steps, %.4g over the last", r.Values[0].Mean, r.Values[0].Step, r.Values[n-1].Mean)
	}
	for _, w := range r.Mean[:len(k.set.List)] {
		k.note("the task vector of %s counts %.4g times", w.Name, w.Weight)
	}
	made, err := k.finish(ctx, b.Mix(false), b.Shares(), numbersText(r.Best), 0)
	if err == nil {
		made.done = j.dropSoup
	}
	return made, err
}
