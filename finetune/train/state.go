package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	gt "github.com/gomlx/gomlx/core/tensors"

	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
)

// stateSchema is the version of checkpoints; another one is not resumed.
const stateSchema = 1

// State is where a run was when a checkpoint was written. With the tensors beside it, it is all that a resumed run needs: the
// order of rows and dropout are functions of seed, epoch and step.
type State struct {
	Schema        int      `json:"schema"`
	Step          int      `json:"step"`       // optimizer steps made
	Total         int      `json:"total"`      // steps of the run
	Epoch         int      `json:"epoch"`      // of the next step
	EpochStep     int      `json:"epoch_step"` // of the next step, in its epoch
	Tokens        int64    `json:"tokens"`
	TrainedTokens int64    `json:"trained_tokens"`
	Seed          int64    `json:"seed"`
	ConfigDigest  string   `json:"config_digest"`
	Config        string   `json:"config"` // the resolved file
	DataDigest    string   `json:"data_digest"`
	BaseDigest    string   `json:"base_digest"`
	Skipped       int      `json:"skipped"` // steps with a gradient that was not finite
	InARow        int      `json:"skipped_in_a_row"`
	Evaluated     int      `json:"evaluated"` // 1 + the step of the last evaluation, 0 before the first
	BestStep      int      `json:"best_step"`
	BestLoss      *float64 `json:"best_loss"`
	Waited        int      `json:"evaluations_without_gain"`
	Stopped       bool     `json:"stopped_early"`
	// With tune: sparse. Epoch, EpochStep and what follows Skipped count from the beginning of the phase.
	Phase        string         `json:"phase,omitempty"`         // full or masked
	Round        int            `json:"round,omitempty"`         // from 1
	PhaseStart   int            `json:"phase_start,omitempty"`   // steps before the phase
	PhaseSkipped int            `json:"phase_skipped,omitempty"` // of those, the skipped ones
	Phases       []PhaseSummary `json:"phases,omitempty"`        // those that are over
	// What summary.json tells of the whole run, however often it was resumed.
	FirstLoss     *float64 `json:"first_loss,omitempty"`
	LastLoss      *float64 `json:"last_loss,omitempty"`
	FirstEvalLoss *float64 `json:"first_eval_loss,omitempty"`
	EvalLoss      *float64 `json:"eval_loss,omitempty"`
	Version       string   `json:"version"`
}

// The prefixes of a checkpoint's tensors: what trains, and the two moments; of a sparse fine-tune also the entries that are chosen and,
// in later rounds, the values at the round's start.
const (
	prefixTrained = "trained/"
	prefixM       = "adamw.m/"
	prefixV       = "adamw.v/"
	prefixMask    = "mask/"
	prefixStart   = "start/"
)

const stateName = "state.json"

// onHost reads a vector where it lies if that is the host's memory, else from a copy that is gone afterwards.
func onHost(t *gt.Tensor, do func(all []float32) error) error { return onHostAs(t, do) }

func onHostAs[T float32 | bool](t *gt.Tensor, do func(all []T) error) error {
	var failed error
	err := gt.ConstFlatData(t, func(all []T) { failed = do(all) })
	t.FinalizeLocal()
	return errors.Join(err, failed)
}

// writeCheckpoint writes a checkpoint of the engine; the directory appears whole or not at all. One tensor at a time is copied:
// values and moments of full fine-tuning are three times the model.
func (e *Engine) writeCheckpoint(dir string, st State) error {
	type part struct {
		prefix string
		of     func(i int) *gt.Tensor
	}
	opt := e.replicas[0].opt
	parts := []part{
		{prefixTrained, func(i int) *gt.Tensor { return e.Model.Vectors[i].Value }},
		{prefixM, func(i int) *gt.Tensor { return opt.state[i].m }},
		{prefixV, func(i int) *gt.Tensor { return opt.state[i].v }},
	}
	if e.round != nil {
		parts = append(parts, part{prefixStart, func(i int) *gt.Tensor { return e.round[i] }})
	}
	var infos []tensors.Info
	for _, v := range e.Model.Vectors {
		if v == nil {
			continue
		}
		for _, p := range parts {
			for _, s := range v.Packed.Segments {
				infos = append(infos, tensors.Info{Name: p.prefix + v.Prefix + s.Name, DType: tensors.F32, Shape: s.Shape})
			}
		}
		if opt.mask != nil {
			for _, s := range v.Packed.Segments {
				infos = append(infos, tensors.Info{Name: prefixMask + v.Prefix + s.Name, DType: tensors.Bool, Shape: s.Shape})
			}
		}
	}
	slices.SortFunc(infos, func(a, b tensors.Info) int { return strings.Compare(a.Name, b.Name) })
	at := map[string]int{}
	for i, info := range infos {
		at[info.Name] = i
	}
	w, err := tensors.Create(dir, infos, tensors.WriteOptions{FileName: "checkpoint.safetensors", Force: true, Files: []string{stateName}})
	if err != nil {
		return err
	}
	defer w.Close()
	var raw []byte
	for i, v := range e.Model.Vectors {
		if v == nil {
			continue
		}
		for _, p := range parts {
			err := onHost(p.of(i), func(all []float32) error {
				for _, s := range v.Packed.Segments {
					k, n := at[p.prefix+v.Prefix+s.Name], 4*s.Size()
					raw = slices.Grow(raw[:0], n)[:n]
					if err := tensors.EncodeFloat32(raw, tensors.F32, all[s.Offset:s.Offset+s.Size()]); err != nil {
						return err
					}
					if err := w.WriteAt(k, raw, 0); err != nil {
						return err
					}
					if err := w.Finish(k); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		if opt.mask == nil {
			continue
		}
		err := onHostAs(opt.mask[i], func(all []bool) error {
			for _, s := range v.Packed.Segments {
				k := at[prefixMask+v.Prefix+s.Name]
				raw = slices.Grow(raw[:0], s.Size())[:s.Size()]
				for j, chosen := range all[s.Offset : s.Offset+s.Size()] {
					raw[j] = 0
					if chosen {
						raw[j] = 1
					}
				}
				if err := w.WriteAt(k, raw, 0); err != nil {
					return err
				}
				if err := w.Finish(k); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return err
	}
	if err := w.WriteFile(stateName, append(text, '\n')); err != nil {
		return err
	}
	return w.Commit()
}

// readState reads the state of a checkpoint.
func readState(dir string) (State, error) {
	var st State
	path := filepath.Join(dir, stateName)
	raw, err := os.ReadFile(path)
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(raw, &st); err != nil {
		return st, inputf("%s: is no state of a run: %v; resume from another checkpoint", path, err)
	}
	if st.Schema != stateSchema {
		return st, inputf("%s: has schema %d, this version reads %d; finish the run with the version that began it", path, st.Schema, stateSchema)
	}
	return st, nil
}

// checkpointTensors opens the tensors of a checkpoint.
func checkpointTensors(dir string) (*tensors.Checkpoint, error) {
	return tensors.Open(filepath.Join(dir, "checkpoint.safetensors"))
}

// readTrained returns the trained tensors of a checkpoint, by full name.
func readTrained(dir string) (map[string]model.Tensor, error) {
	c, err := checkpointTensors(dir)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	out := map[string]model.Tensor{}
	for _, name := range c.Names() {
		full, ok := strings.CutPrefix(name, prefixTrained)
		if !ok {
			continue
		}
		f, shape, err := values(c, name)
		if err != nil {
			return nil, err
		}
		out[full] = model.Tensor{Shape: shape, Data: f}
	}
	return out, nil
}

func values(c *tensors.Checkpoint, name string) ([]float32, []int, error) {
	v, err := c.View(name)
	if err != nil {
		return nil, nil, err
	}
	f := make([]float32, v.Elems())
	return f, v.Shape, tensors.DecodeFloat32(f, v.Data, v.DType)
}

// restore brings the engine to a checkpoint.
func (e *Engine) restore(dir string, st State) error {
	c, err := checkpointTensors(dir)
	if err != nil {
		return err
	}
	defer c.Close()
	for i, v := range e.Model.Vectors {
		if v == nil {
			continue
		}
		w, err := packed(c, dir, prefixTrained, v)
		if err != nil {
			return err
		}
		m, err := packed(c, dir, prefixM, v)
		if err != nil {
			return err
		}
		v2, err := packed(c, dir, prefixV, v)
		if err != nil {
			return err
		}
		for _, r := range e.replicas {
			if err := r.m.SetVector(r.m.Vectors[i], w); err != nil {
				return err
			}
			if err := r.opt.setState(i, m, v2); err != nil {
				return err
			}
		}
	}
	e.step, e.updates = st.Step, st.Step-st.PhaseStart-(st.Skipped-st.PhaseSkipped)
	return nil
}

// restoreValues brings what trains, and nothing else, to a checkpoint.
func (e *Engine) restoreValues(dir string) error {
	c, err := checkpointTensors(dir)
	if err != nil {
		return err
	}
	defer c.Close()
	for i, v := range e.Model.Vectors {
		if v == nil {
			continue
		}
		w, err := packed(c, dir, prefixTrained, v)
		if err != nil {
			return err
		}
		if err := e.setVector(i, w); err != nil {
			return err
		}
	}
	return nil
}

// setVector gives a packed vector new values, on every device.
func (e *Engine) setVector(i int, w []float32) error {
	for _, r := range e.replicas {
		if err := r.m.SetVector(r.m.Vectors[i], w); err != nil {
			return err
		}
	}
	return nil
}

// packed reads a vector whose tensors stand in a checkpoint under a prefix.
func packed(c *tensors.Checkpoint, dir, prefix string, v *model.Vector) ([]float32, error) {
	data := make([]float32, v.Packed.Size)
	for _, s := range v.Packed.Segments {
		f, _, err := values(c, prefix+v.Prefix+s.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		if len(f) != s.Size() {
			return nil, inputf("%s: %s has %d values, this run has %d; the checkpoint is of another run", dir, v.Prefix+s.Name, len(f), s.Size())
		}
		copy(data[s.Offset:], f)
	}
	return data, nil
}

// checkpoints lists the checkpoints of a run by step, ascending.
func checkpoints(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var steps []int
	for _, e := range entries {
		if k := stepOf(e.Name()); k >= 0 && e.IsDir() {
			if _, err := os.Stat(filepath.Join(dir, e.Name(), stateName)); err == nil {
				steps = append(steps, k)
			}
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// removed ends the name of a checkpoint that is on its way out: half of one must not look like one.
const removed = ".removed"

// prune removes old checkpoints: the newest keep of them stay, and the best.
func prune(dir string, keep, best int) error {
	steps, err := checkpoints(dir)
	if err != nil {
		return err
	}
	for i, k := range steps {
		if i >= len(steps)-max(keep, 1) || k == best {
			continue
		}
		path := filepath.Join(dir, stepDir(k))
		if err := os.Rename(path, path+removed); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries { // with those of a run that was killed here
		if strings.HasPrefix(e.Name(), "step-") && strings.HasSuffix(e.Name(), removed) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
