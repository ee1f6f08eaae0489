package merge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/tensors"
)

// AlignReport says how a model was aligned.
type AlignReport struct {
	Model     string   `json:"model"`
	Reference string   `json:"reference"`           // recipe.UniverseReference for a consensus
	Method    string   `json:"method"`              // as in recipes; "map" for a saved alignment
	File      string   `json:"file,omitempty"`      // the saved alignment
	Spec      string   `json:"spec"`                // family, or file
	SpecHash  string   `json:"spec_hash"`           // of the symmetry spec
	Seed      uint64   `json:"seed"`                // of the matching
	Exact     bool     `json:"exact"`               // values were only moved and their signs flipped
	Turned    bool     `json:"turned"`              // the residual stream was turned, and gains folded
	Skipped   string   `json:"skipped,omitempty"`   // why the model stayed as it is
	SavedAs   string   `json:"saved_as,omitempty"`  // name of the map in the output
	Resumed   bool     `json:"resumed,omitempty"`   // the map is from the run that was interrupted
	Matched   *Match   `json:"matched,omitempty"`   // nil for saved alignments
	Learned   *Learned `json:"learned,omitempty"`   // of the methods that learn
	Groups    []Kind   `json:"groups,omitempty"`    // what the map does, by kinds of groups
	Ancestry  string   `json:"ancestry,omitempty"`  // what the weights say about a common origin
	Same      bool     `json:"same_base,omitempty"` // the verdict is that both share their ancestry without any map
	Anchors   int      `json:"anchors,omitempty"`   // tokens that both vocabularies have, where they differ
	Seconds   float64  `json:"-"`
}

// Match are the figures of a matching.
type Match struct {
	Before       float64 `json:"objective_before"` // inner product with the reference over the norms: 1 for equal models
	After        float64 `json:"objective_after"`
	Moved        float64 `json:"moved"`     // share of the units that are not where they were
	L2Before     float64 `json:"l2_before"` // distance to the reference; 0 and 0 for a consensus, where the objective is the mean over pairs
	L2After      float64 `json:"l2_after"`
	Rounds       int     `json:"rounds"`
	Certificates int     `json:"certificates"` // assignments that were proved to be optimal
}

// Learned are the losses of a map that was learned: of the models, and of their midpoint before and after.
type Learned struct {
	LossReference float64 `json:"loss_reference"` // on the held-out data
	LossModel     float64 `json:"loss_model"`
	HeldOutBefore float64 `json:"held_out_before"`
	HeldOutAfter  float64 `json:"held_out_after"`
	TrainBefore   float64 `json:"train_before"`
	TrainAfter    float64 `json:"train_after"`
	Steps         int     `json:"steps"`
	Best          int     `json:"best"` // the step whose map was taken
}

// Ratio is the distance after over the distance before.
func (m *Match) Ratio() float64 {
	if m.L2Before == 0 {
		return 1
	}
	return m.L2After / m.L2Before
}

// Kind counts the elements of a kind in a map.
type Kind struct {
	Kind    string `json:"kind"`
	Groups  int    `json:"groups"`
	Changed int    `json:"changed"` // groups that are not left as they are
}

// keyOfRun and reportNote are the notes of a map that a run keeps: what the map depends on, and the report about it.
const (
	keyOfRun   = "run"
	reportNote = "report"
)

// aligned are the maps of a plan's models.
type aligned struct {
	maps    map[*plan.Model]*align.Map
	reports []AlignReport
	files   map[*plan.Model]string // names in the output
	keep    bool                   // the maps are part of the output
}

// alignModels finds the maps of the models that a plan aligns: saved ones, the ones of the run that is resumed, or by matching.
func alignModels(ctx context.Context, p *plan.Plan, out string, o Options) (*aligned, error) {
	a := &aligned{maps: map[*plan.Model]*align.Map{}, files: alignmentFiles(p), keep: p.Recipe.SaveAlignment != ""}
	reports := map[*plan.Model]*AlignReport{}
	var left []*plan.Model
	for _, m := range p.Aligned.Models {
		var err error
		file := p.Aligned.Map(m)
		switch {
		case file != nil:
			a.maps[m], reports[m], err = loadMap(p, m, file)
		case o.Resume:
			a.maps[m], reports[m] = resumedMap(p, m, out, a.files[m], o)
		}
		if err != nil {
			return nil, err
		}
		if a.maps[m] == nil {
			left = append(left, m)
		}
	}
	if len(left) > 0 {
		if p.Aligned.Reference == nil {
			left = p.Aligned.Models // a consensus is one matching
		}
		if err := matchModels(ctx, p, left, o, a.maps, reports); err != nil {
			return nil, err
		}
	}
	for _, m := range p.Aligned.Models {
		r := reports[m]
		describe(a.maps[m], r)
		if a.keep {
			r.SavedAs = a.files[m]
		}
		a.reports = append(a.reports, *r)
	}
	return a, nil
}

// describe adds what is seen of the map itself.
func describe(m *align.Map, r *AlignReport) {
	r.Spec, r.SpecHash, r.Seed = m.Spec.Name, m.Spec.Hash(), m.Seed
	r.Exact, r.Turned = m.Exact(), m.AnyTurned()
	r.Groups = kindsOf(m)
}

// kindsOf counts the elements of a map by kinds.
func kindsOf(m *align.Map) []Kind {
	var list []Kind
	for i := range m.Spec.Groups {
		g := &m.Spec.Groups[i]
		e := m.Elements[g.ID]
		kind := e.Kind
		if kind == "" {
			kind = g.Kind
		}
		at := slices.IndexFunc(list, func(k Kind) bool { return k.Kind == string(kind) })
		if at < 0 {
			at, list = len(list), append(list, Kind{Kind: string(kind)})
		}
		list[at].Groups++
		if !e.Identity() {
			list[at].Changed++
		}
	}
	return list
}

// loadMap reads a saved alignment and checks that it is one of the model.
func loadMap(p *plan.Plan, m *plan.Model, file *recipe.AlignMap) (*align.Map, *AlignReport, error) {
	at := func(err error) error {
		return &InputError{&recipe.Error{File: p.Recipe.File, Pos: file.Pos, Msg: fmt.Sprintf("map of %s: %s", m.Name(), err)}}
	}
	got, err := align.Load(p.Resolve(file.File))
	if err != nil {
		return nil, nil, at(err)
	}
	config, err := m.PatchedModelConfig()
	if err != nil {
		return nil, nil, at(err)
	}
	if err := got.Fits(config, modelWeights{m}); err != nil {
		return nil, nil, at(err)
	}
	return got, &AlignReport{Model: m.Name(), Reference: referenceName(p), Method: "map", File: file.File, Ancestry: got.Note["ancestry"]}, nil
}

func referenceName(p *plan.Plan) string {
	if p.Aligned.Reference == nil {
		return recipe.UniverseReference
	}
	return p.Aligned.Reference.Name()
}

// resumedMap reads the map that an interrupted run has found, if it found one for the very same models and settings.
func resumedMap(p *plan.Plan, m *plan.Model, out, name string, o Options) (*align.Map, *AlignReport) {
	got := interruptedMap(out, name)
	if got == nil || got.Note[keyOfRun] != runKey(p, o) || got.Spec.Validate(modelWeights{m}) != nil {
		return nil, nil
	}
	var r AlignReport
	if json.Unmarshal([]byte(got.Note[reportNote]), &r) != nil || r.Model != m.Name() {
		return nil, nil
	}
	r.Resumed = true
	return got, &r
}

// interruptedMap loads a map from where an interrupted run keeps it: beside the output in the making, or beside the merge that is to
// be repaired. Whatever is wrong with the file, matching anew gives the same map.
func interruptedMap(out, name string) *align.Map {
	stage, err := stagePath(out)
	if err != nil {
		return nil
	}
	for _, dir := range []string{out, stage} {
		path, err := tensors.PartialFile(dir, name)
		if err != nil {
			continue
		}
		if m, err := align.Load(path); err == nil {
			return m
		}
	}
	m, err := align.Load(filepath.Join(stage, name))
	if err != nil {
		return nil
	}
	return m
}

// runKey identifies what a matching depends on.
func runKey(p *plan.Plan, o Options) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s|%s|%s|", p.Recipe.Fingerprint(), o.Backend.Name(), o.Version)
	for _, m := range p.Models {
		identifyModel(h, m)
	}
	identifyFiles(h, alignFiles(p))
	return hex.EncodeToString(h.Sum(nil))
}

// alignFiles are the other files that maps depend on.
func alignFiles(p *plan.Plan) []string {
	var files []string
	if a := p.Aligned; a != nil {
		if a.Recipe.Spec != "" {
			files = append(files, p.Resolve(a.Recipe.Spec))
		}
		for _, m := range a.Recipe.Maps {
			files = append(files, p.Resolve(m.File))
		}
	}
	if c := p.Recipe.Calibration; c != nil {
		for _, f := range c.Data {
			files = append(files, p.Resolve(f))
		}
	}
	return files
}

// alignmentFiles names the files that keep the maps in the output: the recipe's name for one model, with the models' names for several.
func alignmentFiles(p *plan.Plan) map[*plan.Model]string {
	name := p.Recipe.SaveAlignment
	if name == "" {
		name = "alignment.safetensors"
	}
	files := map[*plan.Model]string{}
	if len(p.Aligned.Models) == 1 {
		files[p.Aligned.Models[0]] = name
		return files
	}
	stem := strings.TrimSuffix(name, ".safetensors")
	taken := map[string]bool{}
	for i, m := range p.Aligned.Models {
		base := plainBase(m)
		file := fmt.Sprintf("%s-%s.safetensors", stem, base)
		if taken[file] {
			file = fmt.Sprintf("%s-%s-%d.safetensors", stem, base, i+1)
		}
		taken[file] = true
		files[m] = file
	}
	return files
}

// plainBase is the last part of a model's name, with what file names should not hold replaced.
func plainBase(m *plan.Model) string {
	base := filepath.Base(m.Ref.Path)
	if strings.Trim(base, "./~") == "" { // such as "..", which is the name of no directory
		base = "model"
		if abs, err := filepath.Abs(m.Dir); err == nil && strings.Trim(filepath.Base(abs), "./") != "" {
			base = filepath.Base(abs)
		}
	}
	if m.Ref.LoraPath != "" {
		base += "+" + filepath.Base(m.Ref.LoraPath)
	}
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("._+-", r) {
			return r
		}
		return '_'
	}, base)
}

// alignShare is the part of the memory that computed tensors may take.
const alignShare = 3

// apply gives the plan's models their maps. limit bounds the memory of computed tensors.
func (a *aligned) apply(p *plan.Plan, limit int64) error {
	cache := newBlockCache(limit)
	of := map[*plan.Model]plan.Alignment{}
	for _, m := range p.Aligned.Models {
		one, err := newAlignment(a.maps[m], m, cache)
		if err != nil {
			return err
		}
		of[m] = one
	}
	return p.Align(of)
}

// save writes the maps into the output that is being made, for its reader or for the run that has to resume it.
func (a *aligned) save(p *plan.Plan, w *tensors.Writer, o Options) error {
	key := runKey(p, o)
	for i, m := range p.Aligned.Models {
		report, err := json.Marshal(a.reports[i])
		if err != nil {
			return err
		}
		one := a.maps[m].Clone()
		one.Note[reportNote], one.Note[keyOfRun] = string(report), key
		if err := saveMap(one, w, a.files[m]); err != nil {
			return err
		}
	}
	return nil
}

// saveMap writes a map as a side file.
func saveMap(m *align.Map, w *tensors.Writer, name string) error {
	dir, err := os.MkdirTemp("", "mergekit-map-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, name)
	if err := m.Save(file); err != nil {
		return err
	}
	return w.CopyFile(name, file)
}

// finish leaves the maps that are part of the output, without what only a resumed run needs, and removes others.
func (a *aligned) finish(p *plan.Plan, w *tensors.Writer) error {
	for i, m := range p.Aligned.Models {
		if a.keep {
			one := a.maps[m].Clone()
			r := a.reports[i]
			r.Resumed = false
			report, err := json.Marshal(r)
			if err != nil {
				return err
			}
			one.Note[reportNote] = string(report)
			delete(one.Note, keyOfRun)
			if err := saveMap(one, w, a.files[m]); err != nil {
				return err
			}
			continue
		}
		if err := w.RemoveFile(a.files[m]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// digest identifies the maps, bit by bit.
func (a *aligned) digest(p *plan.Plan) string {
	h := sha256.New()
	for _, m := range p.Aligned.Models {
		fmt.Fprintf(h, "%s|", a.maps[m].Digest())
	}
	return hex.EncodeToString(h.Sum(nil))
}
