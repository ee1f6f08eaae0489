package surgeon

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/mergekit/mergekit/tensors"
)

// Site says what became of the rows of one matrix.
type Site struct {
	Tensor       string `json:"tensor"`
	Landmarks    int    `json:"landmarks"`
	Copied       int    `json:"copied"`            // the model has the token
	Bytes        int    `json:"bytes,omitempty"`   // copied: the model has the byte
	Prefixes     int    `json:"prefix,omitempty"`  // copied: the longest token that this one begins with
	Approximated int    `json:"approximated"`      //
	Unknown      int    `json:"unknown,omitempty"` // of the approximated: nothing could be said of them, so the row is zero
	Zero         int    `json:"zero"`              // no token, or one that neither model has learnt
}

// Report says what an operation did.
type Report struct {
	Output   string   `json:"output"`
	Method   string   `json:"method"`
	Rows     int      `json:"rows"`
	Was      int      `json:"was"`
	Tensors  int      `json:"tensors"`
	Bytes    int64    `json:"bytes"`
	Sites    []Site   `json:"sites"`
	Biases   []string `json:"biases,omitempty"`
	LeftOut  []string `json:"left_out,omitempty"` // heads that loaders ignore
	Warnings []string `json:"warnings,omitempty"`
}

// Run writes the model with the donor's tokenizer to the directory out, which appears whole or not at all.
func Run(ctx context.Context, model, donor, out string, o Options) (*Report, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	for _, dir := range []string{model, donor} {
		if tensors.Holds(out, dir) {
			return nil, &Error{File: out, Msg: "the output is the directory of " + dir + ", or holds it", Hint: "choose another output directory"}
		}
	}
	t := &transplant{ctx: ctx, o: &o, out: out, report: &Report{Output: out, Method: o.Method}}
	defer t.close()
	var err error
	if t.model, err = openSubject(model); err != nil {
		return nil, err
	}
	if t.donor, err = openSubject(donor); err != nil {
		return nil, err
	}
	if err := t.plan(); err != nil {
		return nil, err
	}
	return t.report, t.write()
}

// transplant is an operation under way.
type transplant struct {
	ctx          context.Context
	o            *Options
	model, donor *subject
	out          string
	size         int // rows of the output
	infos        []tensors.Info
	sites        map[string]*operation
	biases       map[string]bool
	badModel     map[int]bool // undertrained ids
	badDonor     map[int]bool
	report       *Report
}

// operation is what is done to one matrix.
type operation struct {
	site    *site
	origins []origin
	method  approximator
	report  Site
}

// origin says where a row of the output comes from.
type origin struct {
	kind origins
	from int32 // row of the model
}

type origins uint8

const (
	nothing origins = iota // the row is zero
	copied
	approximated
)

func (t *transplant) close() {
	for _, s := range []*subject{t.model, t.donor} {
		if s != nil {
			_ = s.ckpt.Close()
		}
	}
}

func (t *transplant) warn(format string, args ...any) {
	m := fmt.Sprintf(format, args...)
	t.report.Warnings = append(t.report.Warnings, m)
	if t.o.Warn != nil {
		t.o.Warn(m)
	}
}

// plan decides everything, and prepares the methods, before a byte is written.
func (t *transplant) plan() error {
	t.size = t.donor.words.size
	t.report.Rows = t.size
	if t.o.Magikarp {
		var err error
		if t.badModel, err = t.model.undertrained(); err != nil {
			return err
		}
		if t.badDonor, err = t.donor.undertrained(); err != nil {
			return err
		}
	}
	t.sites, t.biases = map[string]*operation{}, map[string]bool{}
	for _, name := range t.model.biases {
		t.biases[name] = true
	}
	t.report.Biases, t.report.LeftOut = t.model.biases, t.model.stale
	for head, list := range [][]string{t.model.embed, t.model.head} {
		for _, name := range list {
			if err := t.operate(name, head == 1); err != nil {
				return err
			}
		}
	}
	for _, name := range t.model.ckpt.Names() {
		info, _ := t.model.ckpt.Lookup(name)
		switch {
		case slices.Contains(t.model.stale, name):
			t.warn("%s is left out: loaders use the input embedding in its place", name)
			continue
		case t.sites[name] != nil:
			t.report.Was = info.Shape[0]
			info.Shape = []int{t.size, info.Shape[1]}
		case t.biases[name]:
			info.Shape = []int{t.size}
		}
		t.infos = append(t.infos, info)
		t.report.Bytes += info.Bytes()
	}
	t.report.Tensors = len(t.infos)
	return nil
}

// operate plans one matrix.
func (t *transplant) operate(name string, head bool) error {
	s := &site{ctx: t.ctx, o: t.o, name: name, head: head, model: t.model, donor: t.donor, marks: &landmarks{}}
	var err error
	if s.marks.model, err = openRows(t.model.ckpt, name); err != nil {
		return err
	}
	if s.marks.donor, err = openRows(t.donor.ckpt, t.donor.table(name, head)); err != nil {
		return err
	}
	op := &operation{site: s, report: Site{Tensor: name}}
	op.origins = t.origins(s, &op.report)
	shared := len(s.marks.inDonor)
	if op.report.Approximated > 0 {
		if op.method, err = s.newApproximator(); err != nil {
			return err
		}
	}
	if op.report.Landmarks = len(s.marks.inDonor); op.report.Landmarks < shared {
		t.warn("%s: %d tokens that both have hold NaN or infinite values, in the model or in the donor, and do not show how the two lie to each other", name, shared-op.report.Landmarks)
	}
	t.sites[name] = op
	return nil
}

// origins finds out where the rows come from, and the landmarks.
func (t *transplant) origins(s *site, r *Site) []origin {
	model, donor := t.model.words, t.donor.words
	out := make([]origin, t.size)
	take := func(id, from int) bool {
		if from < s.marks.model.n && !t.badModel[from] {
			out[id] = origin{copied, int32(from)}
			return true
		}
		return false
	}
	for id := range out {
		if donor.key[id] == "" {
			r.Zero++
			continue
		}
		own, same := model.same(donor, id, s.head)
		if same && take(id, own) {
			r.Copied++
			if id < s.marks.donor.n && !t.badDonor[id] {
				s.marks.inDonor, s.marks.inOwn = append(s.marks.inDonor, int32(id)), append(s.marks.inOwn, int32(own))
			}
			continue
		}
		if same && t.badModel[own] && t.badDonor[id] {
			r.Zero++
			continue
		}
		if at(t.o.ByteMatch, s.head) {
			if from, ok := model.sameByte(donor, id); ok && take(id, from) {
				r.Bytes++
				continue
			}
		}
		if at(t.o.PrefixMatch, s.head) {
			if from, ok := model.prefix(donor, id); ok && take(id, from) {
				r.Prefixes++
				continue
			}
		}
		out[id].kind = approximated
		r.Approximated++
	}
	return out
}

// write makes the output.
func (t *transplant) write() error {
	files, err := t.files()
	if err != nil {
		return err
	}
	w, err := tensors.Create(t.out, t.infos, tensors.WriteOptions{ShardBytes: t.o.ShardBytes, Force: t.o.Force, Files: files.names()})
	if err != nil {
		return err
	}
	defer func() { _ = w.Discard() }()
	err = w.Fill(t.ctx, tensors.Filling{Threads: t.o.Threads, Started: t.o.Started, Written: t.o.Written, Cut: t.cut,
		Worker: func() func(i int, lo, hi int64) (int64, error) {
			return func(i int, lo, hi int64) (int64, error) { return t.piece(w, i, lo, hi) }
		}})
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(t.sites)) {
		op := t.sites[name]
		if op.report.Unknown = int(op.site.failed.Load()); op.report.Unknown > 0 {
			t.warn("%s: %d tokens of the donor could not be approximated by %s, and their rows are zero", name, op.report.Unknown, t.o.Method)
		}
		t.report.Sites = append(t.report.Sites, op.report)
	}
	if err := files.write(w); err != nil {
		return err
	}
	return w.Commit()
}

// cut cuts matrices over the vocabulary into rows and everything else into bytes.
func (t *transplant) cut(i int) tensors.Pieces {
	info := t.infos[i]
	if t.sites[info.Name] != nil {
		return tensors.Pieces{Units: int64(t.size), Step: int64(t.o.Batch)}
	}
	if t.biases[info.Name] {
		return tensors.Pieces{Units: int64(t.size), Step: int64(t.size)}
	}
	return tensors.Pieces{Units: info.Bytes(), Step: 8 << 20}
}

func (t *transplant) piece(w *tensors.Writer, i int, lo, hi int64) (int64, error) {
	info := t.infos[i]
	if op := t.sites[info.Name]; op != nil {
		return t.matrix(w, i, op, int(lo), int(hi))
	}
	if t.biases[info.Name] {
		return t.bias(w, i, info.Name)
	}
	r, err := t.model.ckpt.Reader(info.Name)
	if err != nil {
		return 0, err
	}
	data, err := r.Bytes(lo, hi-lo, nil)
	if err != nil {
		return 0, err
	}
	if err := w.WriteAt(i, data, lo); err != nil {
		return 0, err
	}
	r.Release(lo, hi-lo)
	return hi - lo, nil
}

// matrix writes rows lo to hi of a matrix.
func (t *transplant) matrix(w *tensors.Writer, i int, op *operation, lo, hi int) (int64, error) {
	r := op.site.marks.model
	size := r.size
	out := make([]byte, (hi-lo)*size)
	var ids []int32
	for id := lo; id < hi; id++ {
		switch from := op.origins[id]; from.kind {
		case copied:
			raw, err := r.raw(int(from.from), 1)
			if err != nil {
				return 0, err
			}
			copy(out[(id-lo)*size:][:size], raw)
		case approximated:
			ids = append(ids, int32(id))
		}
	}
	if len(ids) > 0 {
		made := make([]float32, len(ids)*r.width)
		if err := op.method.rows(made, ids); err != nil {
			return 0, err
		}
		t.change(op.site, made, ids)
		for k, id := range ids {
			if err := tensors.EncodeFloat32(out[(int(id)-lo)*size:][:size], r.DType, made[k*r.width:(k+1)*r.width]); err != nil {
				return 0, err
			}
		}
	}
	return int64(len(out)), w.WriteAt(i, out, int64(lo*size))
}

// change scales approximated rows and adds noise.
func (t *transplant) change(s *site, made []float32, ids []int32) {
	if t.o.Scale == 1 && t.o.Noise == 0 {
		return
	}
	d := s.marks.model.width
	z := make([]float32, d)
	for k, id := range ids {
		row := made[k*d:][:d]
		if t.o.Noise > 0 {
			s.normal(z, "noise", id)
		}
		for j, v := range row {
			row[j] = float32(float64(v)*t.o.Scale + t.o.Noise*float64(z[j]))
		}
	}
}

// bias writes a vector over the vocabulary: what the model has of the donor's tokens, and zeros.
func (t *transplant) bias(w *tensors.Writer, i int, name string) (int64, error) {
	v, err := t.model.ckpt.View(name)
	if err != nil {
		return 0, err
	}
	size := v.DType.Size()
	out := make([]byte, t.size*size)
	for id := range t.size {
		if t.donor.words.key[id] == "" {
			continue
		}
		if own, ok := t.model.words.same(t.donor.words, id, true); ok && own < v.Shape[0] {
			copy(out[id*size:][:size], v.Data[own*size:])
		}
	}
	return int64(len(out)), w.WriteAt(i, out, 0)
}
