package merge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/stages"
	"github.com/mergekit/mergekit/merge/stream"
	"github.com/mergekit/mergekit/tensors"
)

// StageOptions say where the stages of a file with several recipes are written.
type StageOptions struct {
	Cache string // directory, where they stay; "": beside the output, until that is there
	Keep  bool   // write all stages, and let them stay also beside the output
	// Dir is a directory in which every recipe with a name appears under its name, as mergekit-multi has it; "": none.
	Dir  string
	Lazy bool // with Dir: what is there is not made again if it is what the recipe would make
}

// The states of a stage.
const (
	StageMaking = "making" // is being written to Dir
	StageFused  = "fused"  // computed where it is read
	StageMade   = "made"   // written to Dir
	StageReused = "reused" // was in Dir
	StageLeft   = "left"   // nothing uses it
)

// StageReport says what became of a stage.
type StageReport struct {
	Name    string  `json:"name"`
	Method  string  `json:"merge_method"`
	State   string  `json:"state"`
	Why     string  `json:"why,omitempty"` // it was not fused
	Dir     string  `json:"directory,omitempty"`
	Tensors int     `json:"tensors,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// stageMark is the file that says which stage a directory holds, where its name does not.
const stageMark = "mergekit_stage.txt"

// made says whether a path is a stage that has appeared in Dir: that may be the working directory, or the one of the recipes.
func (o StageOptions) made(path string) bool {
	if o.Dir == "" || !tensors.SameDir(path, filepath.Join(o.Dir, filepath.Base(path))) {
		return false
	}
	_, err := os.Stat(filepath.Join(path, stageMark))
	return err == nil
}

// staging is the merge of a file with several recipes.
type staging struct {
	g      *stages.Graph
	o      Options
	out    string
	engine *stream.Engine // lends its kernels to fused stages; nil before there are values
	dirs   map[*stages.Stage]string
	keys   map[*stages.Stage]string
	reads  map[*stages.Stage][]origin // of those that were planned: models that no stage makes

	mu     sync.Mutex
	made   map[*stages.Stage]*plan.Stage // those that nobody has written, once they were asked for
	values map[*plan.Stage]*stageValues
}

// newStaging makes the graph of a file's recipes, decides what is fused, and sees that all recipes can be planned.
func newStaging(list []*recipe.Recipe, o Options) (*staging, error) {
	if o.Plan.OpenAdapter == nil {
		o.Plan.OpenAdapter = OpenAdapter
	}
	g, err := stages.Build(list, o.Stages.made)
	if err != nil {
		return nil, err
	}
	g.Fuse(o.Plan.RNG, o.Stages.Keep || o.Stages.Dir != "")
	st := &staging{g: g, o: o, dirs: map[*stages.Stage]string{}, keys: map[*stages.Stage]string{}, reads: map[*stages.Stage][]origin{}, made: map[*stages.Stage]*plan.Stage{}, values: map[*plan.Stage]*stageValues{}}
	st.o.stages, st.o.Plan.OpenStage = st, st.open
	if o.Plan.Fetch != nil {
		st.o.Plan.Fetch = fetchOnce(o.Plan.Fetch)
	}
	return st, nil
}

// fetchOnce remembers where models were brought to. Recipes are planned several times, and all of them must read the same revision.
func fetchOnce(fetch plan.Fetch) plan.Fetch {
	type question struct {
		path, revision string
		weights        bool
	}
	dirs := map[question]string{}
	var mu sync.Mutex
	return func(path, revision string, weights bool) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		q := question{path, revision, weights}
		if dir, ok := dirs[q]; ok {
			return dir, nil
		}
		dir, err := fetch(path, revision, weights)
		if err == nil {
			dirs[q] = dir
		}
		return dir, err
	}
}

// open finds a stage by name: the directory it was written to, or its values as they will be.
func (st *staging) open(name string) (*plan.Stage, error) {
	s := st.g.Named(name)
	if s == nil {
		return nil, nil
	}
	if dir := st.dirs[s]; dir != "" {
		return &plan.Stage{Name: name, Dir: dir, Key: st.keys[s]}, nil
	}
	st.mu.Lock()
	made := st.made[s]
	st.mu.Unlock()
	if made != nil {
		return made, nil
	}
	p, err := plan.Build(s.Recipe, st.o.Plan) // which opens what this stage uses
	if err != nil {
		return nil, err
	}
	v := &stageValues{st: st, p: p, tasks: map[string]*stageTask{}}
	c, err := v.checkpoint(name)
	if err != nil {
		p.Close()
		return nil, err
	}
	made = &plan.Stage{Name: name, Made: p, Checkpoint: c, Key: st.key(s, p), Wide: p.Widest()}
	st.mu.Lock()
	defer st.mu.Unlock()
	if first := st.made[s]; first != nil {
		made.Close()
		return first, nil
	}
	st.made[s], st.values[made] = made, v
	return made, nil
}

// forget closes what was opened of stages that nobody has written: at the end, and when one has been, since plans of others that use
// it are now of what is in its directory. No plan is in use then.
func (st *staging) forget() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, made := range st.made {
		made.Close()
	}
	clear(st.made)
	clear(st.values)
}

func (st *staging) valuesOf(s *plan.Stage) *stageValues {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.values[s]
}

// wanted lists the stages that are made, in order.
func (st *staging) wanted() []*stages.Stage {
	if st.o.Stages.Dir != "" { // also those that nothing uses
		return st.g.Stages
	}
	return slices.DeleteFunc(slices.Clone(st.g.Stages), func(s *stages.Stage) bool { return slices.Contains(st.g.Unused, s) })
}

// pending says whether a stage can be planned only when another one has been made: which tensors a method that sees models as wholes
// makes is known then, and so is a tokenizer that is made by one stage and read by another.
func (st *staging) pending(s *stages.Stage) bool {
	written := func(u *stages.Stage) bool { return st.dirs[u] != "" }
	way := s.Upstream(written)
	for _, u := range way {
		if !u.Foreseen() {
			return true
		}
	}
	for _, u := range append(way, s) {
		if u.OwnTokenizer() && slices.ContainsFunc(u.Upstream(written), (*stages.Stage).OwnTokenizer) {
			return true
		}
	}
	return false
}

// check plans all stages, so that what is wrong with any of them shows before any is made. planned is called with each plan, which is
// closed afterwards.
func (st *staging) check(planned func(s *stages.Stage, p *plan.Plan) error) error {
	for _, s := range st.wanted() {
		if st.pending(s) {
			continue
		}
		p, err := plan.Build(s.Recipe, st.o.Plan)
		if err != nil {
			return &InputError{err}
		}
		st.key(s, p)
		err = errors.Join(checkRepair(p), checkData(p))
		if err == nil && planned != nil {
			err = planned(s, p)
		}
		p.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// PlannedStage is a recipe of a file with several, planned.
type PlannedStage struct {
	*stages.Stage
	Output bool
	Plan   *plan.Plan // nil: it can be planned when the stages before it have been made
}

// PlanRecipes plans the recipes of a file in the order in which they are made. Plans are closed when see returns.
func PlanRecipes(list []*recipe.Recipe, o Options, see func(s *PlannedStage) error) error {
	st, err := newStaging(list, o)
	if err != nil {
		return err
	}
	defer st.forget()
	for _, s := range st.wanted() {
		one := &PlannedStage{Stage: s, Output: s == st.g.Output}
		if !st.pending(s) {
			if one.Plan, err = plan.Build(s.Recipe, st.o.Plan); err != nil {
				return &InputError{err}
			}
		}
		err := see(one)
		if one.Plan != nil {
			one.Plan.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// key identifies everything that a stage's bytes depend on, but for the kind of backend, on which the last bits do: recipe, inputs,
// options, program.
func (st *staging) key(s *stages.Stage, p *plan.Plan) string {
	st.reads[s] = direct(p)
	if key := st.keys[s]; key != "" {
		return key
	}
	nameless := *p.Recipe
	nameless.Name = "" // renamed, it is what it was
	q := *p
	q.Recipe = &nameless
	o := st.o
	if o.Stages.Dir == "" {
		o.ShardBytes = 0 // as make has it
	}
	h := sha256.New()
	po := st.o.Plan
	fmt.Fprintf(h, "stage 2|%s|%s|%t %t %t %t|%t %t %t|", st.o.Version, identity(&q, nil, o, ""), po.AllowCrimes, po.TruncateVocabulary, po.KeepUndescribed, po.FuseExperts,
		st.o.CopyTokenizer, st.o.ModelCard, st.o.AllowNonFinite)
	for _, m := range p.Read() { // configurations, tokenizers and what else is copied
		if m.Stage != nil {
			fmt.Fprintf(h, "stage %s|", m.Stage.Key)
		} else {
			identifyFiles(h, filesIn(m.Dir))
		}
		identifyFiles(h, filesIn(m.AdapterDir))
	}
	if r := p.Recipe; r.Search != nil || r.Evaluate != nil { // which a fingerprint leaves out
		h.Write(nameless.YAML())
		if e := r.Evaluate; e != nil {
			for _, m := range []*recipe.Measure{e.HeldOut, e.Report} {
				if m == nil {
					continue
				}
				for _, f := range m.Data {
					identifyFiles(h, []string{p.Resolve(f)})
				}
			}
		}
	}
	key := hex.EncodeToString(h.Sum(nil))
	st.keys[s] = key
	return key
}

// filesIn lists the files of a directory; none where it is a file or nothing.
func filesIn(dir string) (names []string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range list {
		if e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0 {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names
}

// identifyModel hashes what tells a model's files from others, or what a stage is made of.
func identifyModel(h interface{ Write([]byte) (int, error) }, m *plan.Model) {
	if m.Stage == nil {
		identifyFiles(h, m.Files())
		return
	}
	fmt.Fprintf(h, "stage %s|", m.Stage.Key)
	if m.Adapter != nil {
		identifyFiles(h, m.Adapter.Files())
	}
}

// RunRecipes merges the recipes of a file, whose text it is, into the directory out. Recipes use the results of others by name.
func RunRecipes(ctx context.Context, list []*recipe.Recipe, text []byte, out string, o Options) (*Summary, error) {
	start := time.Now()
	st, err := newStaging(list, o)
	if err != nil {
		return nil, err
	}
	defer st.forget()
	st.out = out
	if err := st.ready(); err != nil {
		return nil, err
	}
	if err := st.check(st.checkOutput); err != nil {
		return nil, err
	}
	if st.engine, err = stream.NewEngine(o.Backend, stream.Options{Threads: 1}); err != nil {
		return nil, err
	}
	defer st.engine.Close()

	var reports []StageReport
	var last *Summary
	for _, s := range st.g.Stages {
		report := StageReport{Name: s.Name, Method: s.Recipe.Method, Why: s.Why}
		switch {
		case !slices.Contains(st.wanted(), s):
			report.State, report.Why = StageLeft, "nothing uses it"
			st.warn("%s:%d:%d: no document on the way to the output uses %s, so it is not made", s.Recipe.File, s.Recipe.Pos.Line, s.Recipe.Pos.Col, s.Label())
		case s == st.g.Output && out != "":
			continue // comes last
		case s.Fused:
			report.State = StageFused
		default:
			sum, err := st.make(ctx, s, &report)
			if err != nil {
				return nil, err
			}
			if sum != nil {
				last = sum
			}
		}
		reports = append(reports, report)
		if o.Stage != nil {
			o.Stage(report)
		}
	}
	if out == "" {
		if last == nil {
			last = &Summary{Output: o.Stages.Dir, Backend: o.Backend.Description(), Method: st.g.Output.Recipe.Method}
		}
		last.Stages, last.Seconds = reports, time.Since(start).Seconds()
		return last, nil
	}
	if err := st.spared(out); err != nil { // inputs of stages that could not be planned before
		return nil, err
	}
	final := *st.g.Output.Recipe
	final.Text = text
	final.Others = st.others(list)
	s, err := RunRecipe(ctx, &final, out, st.o)
	if err != nil {
		return nil, err
	}
	st.clean()
	s.Stages, s.Seconds = reports, time.Since(start).Seconds()
	return s, nil
}
