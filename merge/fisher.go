package merge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/merge/align"
	"github.com/mergekit/mergekit/merge/evaluation"
	"github.com/mergekit/mergekit/merge/recipe"
	"github.com/mergekit/mergekit/merge/soup"
	"github.com/mergekit/mergekit/tensors"
)

// fisherMerge averages models by their Fisher information. What is found about a model is kept beside the output until that is complete:
// one model's information is in memory at a time, and a run that is stopped goes on with the next model.
func fisherMerge(ctx context.Context, j *job) (*blended, error) {
	k, err := j.openPot(ctx, false)
	if err != nil {
		return nil, err
	}
	defer k.close()
	// A model's information is most of the heap, so that a fifth of it in waste would be much.
	defer debug.SetGCPercent(debug.SetGCPercent(collectAt / 2))
	judges := []*evaluation.Judge{k.judge}
	if j.flag("per_model") {
		if judges, err = k.perModel(ctx); err != nil {
			return nil, err
		}
	}
	var list []soup.Importance
	var dirs []string
	var norms []float64
	var open []*tensors.Checkpoint
	closeAll := func() error {
		var err error
		for _, c := range open {
			err = errors.Join(err, c.Close())
		}
		return err
	}
	for i, one := range k.set.List {
		judge := judges[min(i, len(judges)-1)]
		dir, norm, err := k.fisherOf(ctx, i, judge)
		if err != nil {
			return nil, err
		}
		dirs, norms = append(dirs, dir), append(norms, norm)
		k.report.Fisher = append(k.report.Fisher, FisherModel{one.Name, judge.Rows(), norm})
		k.note("%s: Fisher information by %d rows, norm %.4g", one.Name, judge.Rows(), norm)
	}
	identity := fmt.Sprint("normalize ", j.flag("normalize"))
	for i, one := range k.set.List {
		c, err := tensors.Open(dirs[i])
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		open = append(open, c)
		importance := soup.Importance{Fisher: align.OfCheckpoint(c), Scale: 1, Weight: j.weightOf(one.Name)}
		if j.flag("normalize") && norms[i] > 0 {
			importance.Scale = 1 / norms[i]
		}
		list = append(list, importance)
		identity += "|" + judges[min(i, len(judges)-1)].Digest()
	}
	made, err := k.blended(k.set.Fisher(list), identity)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	made.done = func() error {
		err := closeAll()
		for _, dir := range dirs {
			err = errors.Join(err, os.RemoveAll(dir))
		}
		return err
	}
	return made, nil
}

// weightOf is the factor of a model in each tensor, by the recipe. Factors must not be negative, nor all zero.
func (j *job) weightOf(model string) func(tensor string) float64 {
	of := map[string]float64{}
	for _, t := range j.p.Tasks {
		for i, in := range t.Inputs {
			if in.Model.Name() != model || t.Copy {
				continue
			}
			w, _ := t.PerInput[i]["weight"].(float64)
			for _, piece := range t.Pieces {
				of[piece.Name] = w
			}
		}
	}
	return func(tensor string) float64 { return of[tensor] }
}

// perModel opens a judge for the data of each model.
func (k *pot) perModel(ctx context.Context) ([]*evaluation.Judge, error) {
	m := k.j.p.Recipe.Evaluate.HeldOut
	if len(m.Data) != len(k.set.List) {
		return nil, &InputError{&recipe.Error{File: k.j.p.Recipe.File, Pos: m.DataPos, Msg: fmt.Sprintf("per_model: %d files are not one for each of %d models, in their order", len(m.Data), len(k.set.List))}}
	}
	config, err := k.j.p.PatchedConfig()
	if err != nil {
		return nil, &InputError{err}
	}
	var list []*evaluation.Judge
	for _, file := range m.Data {
		one := *m
		one.Data = []string{file}
		judge, err := openJudge(ctx, k.j.p, "held_out", &one, config, func(o *evaluation.Options) { o.Backend, o.Share = k.device, k.judge })
		if err != nil {
			return nil, err
		}
		list = append(list, judge)
	}
	return list, nil
}

// normKey is the side file of kept information with what it was made of, and its norm.
const normKey = "fisher_key"

// fisherOf measures the information of an ingredient, or takes over what a run that was stopped has measured.
func (k *pot) fisherOf(ctx context.Context, i int, judge *evaluation.Judge) (dir string, norm float64, err error) {
	if dir, err = beside(k.j.out, fmt.Sprintf("fisher-%d", i+1)); err != nil {
		return "", 0, err
	}
	one := k.set.List[i]
	key := k.j.soupKey(judge.Digest() + "|" + one.Name)
	if text, err := os.ReadFile(filepath.Join(dir, normKey)); err == nil && !(k.j.o.Force && !k.j.o.Resume) {
		if have, norm, ok := strings.Cut(strings.TrimSpace(string(text)), " "); ok && have == key {
			if f, err := strconv.ParseFloat(norm, 64); err == nil {
				return dir, f, nil
			}
		}
	}
	if k.student == nil || k.teacher != judge {
		err = k.learn(ctx, judge, one.Weights)
	} else {
		err = k.student.Set(func(name string, dst []float32) error { return align.ReadAt(one.Weights, name, dst, 0) })
	}
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", one.Name, err)
	}
	sum := map[string][]float32{}
	norm, err = soup.EstimateFisher(ctx, k.student, judge.Rows(), sum, func(done, total int) { k.j.fitting(done, total, "Fisher information of "+one.Name) })
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w", one.Name, err)
	}
	var infos []tensors.Info
	for _, name := range slices.Sorted(maps.Keys(sum)) {
		infos = append(infos, tensors.Info{Name: name, DType: tensors.F32, Shape: []int{len(sum[name])}})
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{ShardBytes: -1, Force: true})
	if err != nil {
		return "", 0, err
	}
	for n, info := range infos {
		b := make([]byte, info.Bytes())
		err := tensors.EncodeFloat32(b, tensors.F32, sum[info.Name])
		if err == nil {
			err = w.WriteAt(n, b, 0)
		}
		if err == nil {
			err = w.Finish(n)
		}
		if err != nil {
			return "", 0, errors.Join(err, w.Close())
		}
		delete(sum, info.Name)
	}
	if err := w.WriteFile(normKey, []byte(key+" "+strconv.FormatFloat(norm, 'x', -1, 64))); err != nil {
		return "", 0, errors.Join(err, w.Close())
	}
	return dir, norm, w.Commit()
}
