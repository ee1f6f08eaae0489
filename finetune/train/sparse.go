package train

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mergekit/mergekit/finetune/config"
	"github.com/mergekit/mergekit/finetune/sparse"
	"github.com/mergekit/mergekit/model"
	"github.com/mergekit/mergekit/tensors"
	files "github.com/mergekit/mergekit/tensors/sparse"
)

// sparseName is the result of a sparse fine-tune in the run directory.
const sparseName = "sparse.safetensors"

// sparsity is what a subject of tune: sparse has beyond full tuning.
type sparsity struct {
	maskable map[string]bool // tensors whose entries are chosen; the others that train are kept whole
	elems    int64           // entries of those
	count    int64           // that are to be chosen, over all rounds
	rounds   int
	on       []string // content hashes of the files below
}

// sparseTune makes everything train that may be changed, in places or whole.
func (s *subject) sparseTune(cfg *config.Config) error {
	c := &cfg.Sparse
	kinds, err := s.kindsOf(c)
	if err != nil {
		return err
	}
	s.kind = "sparse"
	s.sparse = &sparsity{maskable: map[string]bool{}, rounds: c.Rounds}
	values := map[string]model.Tensor{}
	wanted := func(name string) bool { return kinds[name] != "frozen" }
	if s.dry {
		for name, shape := range s.desc.Shapes() {
			if wanted(name) {
				values[name] = model.Tensor{Shape: shape}
			}
		}
	} else if values, err = s.desc.Weights(s.ckpt, wanted); err != nil {
		return err
	}
	for name, t := range values {
		if kinds[name] == "sparse" {
			s.sparse.maskable[name] = true
			s.sparse.elems += elems(t.Shape)
		}
	}
	s.sparse.count = int64(c.Count)
	if c.Count == 0 {
		s.sparse.count = max(1, int64(math.Round(c.Share*float64(s.sparse.elems))))
	}
	switch {
	case s.sparse.elems == 0:
		return inputf("tune sparse: nothing may be changed in places; leave something of sparse.embeddings, sparse.norms, sparse.head and the blocks sparse")
	case s.sparse.count > s.sparse.elems:
		return inputf("sparse.count: %d entries are more than the %d that may change", s.sparse.count, s.sparse.elems)
	case s.sparse.count < int64(c.Rounds):
		return inputf("sparse.rounds: every round adds an entry at least, and %d are to be chosen in %d rounds", s.sparse.count, c.Rounds)
	}
	s.overlay = &model.Overlay{Tensors: values}
	return s.below(c.OnTopOf)
}

func elems(shape []int) int64 { return tensors.Info{Shape: shape}.Elems() }

// kindsOf says of every tensor of the model whether it is frozen, sparse or whole.
func (s *subject) kindsOf(c *config.Sparse) (map[string]string, error) {
	d, n := s.desc, &s.desc.Names
	head := c.Head
	if head == "auto" {
		head = "whole"
		if d.Head == model.HeadLM {
			head = "frozen"
		}
	}
	excluded, used, err := excluder(c.ExcludeModules)
	if err != nil {
		return nil, err
	}
	kinds := map[string]string{}
	set := func(kind string, names ...string) {
		for _, name := range names {
			for _, end := range []string{"", ".weight", ".bias"} {
				if _, ok := kinds[name+end]; ok && name != "" {
					kinds[name+end] = kind
				}
			}
		}
	}
	for name := range d.Shapes() {
		kinds[name] = "sparse"
	}
	for _, t := range d.StemTensors() {
		kinds[t.Name] = c.Embeddings
	}
	set(c.Norms, n.EmbedNorm, n.FinalNorm)
	for i := range d.Layers {
		for _, rel := range []string{n.AttnNorm, n.AttnPostNorm, n.MLPNorm, n.MLPPostNorm, n.QNorm, n.KNorm} {
			if rel != "" {
				set(c.Norms, d.LayerName(i, rel))
			}
		}
	}
	// The last map alone: what lies before it, such as BERT's pooler, is part of what was pre-trained.
	if list := d.HeadLinears(); len(list) > 0 {
		set(head, list[len(list)-1].Name)
	}
	for name := range kinds {
		if excluded(moduleOf(name)) {
			kinds[name] = "frozen"
		}
	}
	if missing := used(); missing != "" {
		return nil, inputf("sparse.exclude_modules: no module of this model is named by %q; its names look like %s", missing, d.LayerName(0, n.Q+n.QKV))
	}
	return kinds, nil
}

// moduleOf is the path of the module that a tensor belongs to.
func moduleOf(name string) string {
	for _, end := range []string{".weight", ".bias"} {
		if m, ok := strings.CutSuffix(name, end); ok {
			return m
		}
	}
	return name
}

// excluder tells whether a module is named by a selection, and which part of it has named none so far.
func excluder(m config.Modules) (excluded func(module string) bool, unused func() string, err error) {
	if m.Pattern != "" {
		re, err := regexp.Compile("^(?:" + m.Pattern + ")$")
		if err != nil {
			return nil, nil, inputf("sparse.exclude_modules: %q is no regular expression: %v", m.Pattern, err)
		}
		found := false
		return func(module string) bool { ok := re.MatchString(module); found = found || ok; return ok },
			func() string {
				if found {
					return ""
				}
				return m.Pattern
			}, nil
	}
	seen := map[string]bool{}
	return func(module string) bool {
			any := false
			for _, name := range m.Names {
				if module == name || strings.HasSuffix(module, "."+name) {
					seen[name], any = true, true
				}
			}
			return any
		}, func() string {
			for _, name := range m.Names {
				if !seen[name] {
					return name
				}
			}
			return ""
		}, nil
}

// below adds sparse files to the base: what is trained begins there, what is frozen stays there.
func (s *subject) below(paths []string) error {
	for _, path := range paths {
		hash, err := tensors.SHA256(path)
		if err != nil {
			return err
		}
		s.sparse.on = append(s.sparse.on, hash)
	}
	if len(paths) == 0 || s.dry {
		return nil
	}
	values, err := WithSparse(s.desc, s.ckpt, paths)
	if err != nil {
		return err
	}
	s.replace = map[string]model.Tensor{}
	for name, t := range values {
		if _, trains := s.overlay.Tensors[name]; trains {
			s.overlay.Tensors[name] = t
		} else {
			s.replace[name] = t
		}
	}
	return nil
}

// WithSparse reads the tensors of a checkpoint that sparse files change, as they become, under the names of the model's class: what
// model.Options.Replace takes. Where several files change an entry, their differences are summed.
func WithSparse(d *model.Description, ckpt *tensors.Checkpoint, paths []string) (map[string]model.Tensor, error) {
	list, err := sparse.OpenAll(paths)
	if err != nil {
		return nil, err
	}
	defer sparse.CloseAll(list)
	if err := sparse.Fits(list, ckpt); err != nil {
		return nil, err
	}
	left := map[string]bool{}
	for _, f := range list {
		for _, name := range slices.Concat(f.Names(), f.Wholes()) {
			left[name] = true
		}
	}
	changed := map[string]string{} // by the name of the class
	for name := range d.Shapes() {
		if info, ok := d.Find(ckpt, name); ok && left[info.Name] {
			changed[name] = info.Name
			delete(left, info.Name)
		}
	}
	if d.Tied && d.Head == model.HeadLM { // some files hold the tied matrix twice
		delete(left, d.Names.LMHead+".weight")
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		return nil, inputf("%s: is changed by %s, and the model does not compute with it", name, strings.Join(paths, ", "))
	}
	values, err := d.Weights(ckpt, func(name string) bool { return changed[name] != "" })
	if err != nil {
		return nil, err
	}
	for name, t := range values {
		if err := sparse.Add(t.Data, changed[name], list, sparse.Sum); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// pull is what the distance of an entry counts in a phase: the setting over the number of parameters, as composable-sft has it.
func (s *subject) pull(p phase) float64 {
	if s.sparse == nil {
		return 0
	}
	return p.reg / float64(s.desc.Parameters())
}

// segment is a tensor of a packed vector, with the name that the checkpoint's file gives it.
type segment struct {
	model.Segment
	full, file string
	vector     int
}

// segments lists what trains by the names in the file, the order in which ties are broken.
func (r *run) segments() ([]segment, error) {
	var list []segment
	for i, v := range r.m.Vectors {
		if v == nil {
			continue
		}
		for _, s := range v.Packed.Segments {
			info, ok := r.s.desc.Find(r.s.ckpt, v.Prefix+s.Name)
			if !ok {
				return nil, fmt.Errorf("the checkpoint has no tensor for %s", v.Prefix+s.Name)
			}
			list = append(list, segment{s, v.Prefix + s.Name, info.Name, i})
		}
	}
	slices.SortFunc(list, func(a, b segment) int { return cmp.Compare(a.file, b.file) })
	return list, nil
}

// choose takes the entries that moved most since the start into the mask, beside those of earlier rounds, and returns how many they
// are. A round takes its part of the count, so that all together take all of it.
func (r *run) choose(round int) (int64, error) {
	sp := r.s.sparse
	list, err := r.segments()
	if err != nil {
		return 0, err
	}
	old, err := r.e.masks()
	if err != nil {
		return 0, err
	}
	byName := map[string]segment{}
	var names []string
	mask := make([][]bool, len(r.m.Vectors))
	for _, s := range list {
		if mask[s.vector] == nil {
			mask[s.vector] = make([]bool, r.m.Vectors[s.vector].Packed.Size)
			if old != nil {
				copy(mask[s.vector], old[s.vector])
			}
		}
		if !sp.maskable[s.full] { // all of it learns, in both phases
			for i := range s.Size() {
				mask[s.vector][s.Offset+i] = true
			}
			continue
		}
		byName[s.file], names = s, append(names, s.file)
	}
	var scratch []float32
	k := sp.count*int64(round)/int64(sp.rounds) - sp.count*int64(round-1)/int64(sp.rounds)
	chosen, err := sparse.Largest(k, names, func(name string, do func([]float32) error) error {
		s := byName[name]
		scratch = slices.Grow(scratch[:0], s.Size())[:s.Size()]
		return onHost(r.m.Vectors[s.vector].Value, func(now []float32) error {
			return onHost(r.e.replicas[0].opt.start[s.vector], func(start []float32) error {
				for i := range scratch {
					at := s.Offset + i
					scratch[i] = -1 // an earlier round has it
					if !mask[s.vector][at] {
						scratch[i] = float32(math.Abs(float64(now[at] - start[at])))
					}
				}
				return do(scratch)
			})
		})
	})
	if err != nil {
		return 0, err
	}
	for name, places := range chosen {
		s := byName[name]
		for _, at := range places {
			mask[s.vector][s.Offset+int(at)] = true
		}
	}
	return k, r.e.setMask(mask)
}

// saveSparse writes the chosen entries as they are now, and the tensors that learnt whole. On top of other files the values are
// differences: what they become depends on what lies below.
func (r *run) saveSparse(path string) error {
	list, err := r.segments()
	if err != nil {
		return err
	}
	mask, err := r.e.masks()
	if err != nil {
		return err
	}
	if mask == nil {
		return errors.New("no entries are chosen: the run has not reached its second phase")
	}
	sp := r.s.sparse
	h := files.Header{Kind: files.LTSFT, Delta: len(sp.on) > 0, Meta: map[string]string{
		"count": strconv.FormatInt(sp.count, 10), "rounds": strconv.Itoa(sp.rounds), "steps": strconv.Itoa(r.st.Step)}}
	if len(sp.on) > 0 {
		h.Meta["on_top_of"] = strings.Join(sp.on, ",")
	}
	if h.Base, err = files.Hash(r.s.ckpt); err != nil {
		return err
	}
	var changed []files.Tensor
	var whole []tensors.View
	for _, s := range list {
		err := onHost(r.m.Vectors[s.vector].Value, func(now []float32) error {
			return onHost(r.e.replicas[0].opt.start[s.vector], func(start []float32) error {
				now, start := now[s.Offset:s.Offset+s.Size()], start[s.Offset:s.Offset+s.Size()]
				for i, x := range now {
					if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
						return fmt.Errorf("%s holds %v at %d after training, so the result is not written; the checkpoints are in %s", s.file, x, i, filepath.Join(r.dir, "checkpoints"))
					}
				}
				if !sp.maskable[s.full] {
					v := tensors.View{Info: tensors.Info{Name: s.file, DType: tensors.F32, Shape: s.Shape}, Data: make([]byte, 4*s.Size())}
					whole = append(whole, v)
					return tensors.EncodeFloat32(v.Data, tensors.F32, now)
				}
				t := files.Tensor{Name: s.file, Shape: s.Shape, DType: tensors.F32}
				for i := range now {
					if !mask[s.vector][s.Offset+i] {
						continue
					}
					t.Index = append(t.Index, int64(i))
					if h.Delta {
						t.Values = append(t.Values, now[i]-start[i])
					} else {
						t.Values = append(t.Values, now[i])
					}
				}
				changed = append(changed, t)
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return files.Write(path, h, changed, whole, true)
}

// kept is how many parameters of the model the result changes: the chosen entries, and the tensors that learn whole.
func (s *subject) kept() int64 {
	if s.sparse == nil {
		return 0
	}
	return s.sparse.count + s.trained() - s.sparse.elems
}
