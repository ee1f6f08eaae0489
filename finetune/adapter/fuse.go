package adapter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/tensors"
)

// FuseOptions say how an adapter is fused into its base.
type FuseOptions struct {
	DType          *tensors.DType // of floating-point tensors; nil: the base's
	Tie            Tie
	ShardBytes     int64 // most bytes of tensors in a shard; 0: 5e9; negative: one file
	Threads        int   // 0: one per processor
	Force, Resume  bool
	AllowNonFinite bool
	Started        func(total int64)    // bytes that will be written; may be nil
	Written        func(n int64)        // progress, from any goroutine; may be nil
	Warn           func(message string) // may be nil
}

// FuseReport says what fusing did.
type FuseReport struct {
	Output  string   `json:"output"`
	Tensors int      `json:"tensors"`
	Changed int      `json:"changed"`
	Added   []string `json:"added,omitempty"`
	Bytes   int64    `json:"bytes"`
	Shards  int      `json:"shards"`
	Seconds float64  `json:"seconds"`
}

// Fuse writes the base with the adapter's changes as a checkpoint of its own: tensor by tensor from the mapped base, in
// float32, rounded once to the dtype that is written. The output appears whole or not at all; an interrupted one is finished
// with Resume. Files beside the weights come from the base, tokenizers from the adapter where it has its own.
func Fuse(ctx context.Context, base, dir, out string, o FuseOptions) (*FuseReport, error) {
	start := time.Now()
	f, err := openFusion(base, dir, o)
	if err != nil {
		return nil, err
	}
	defer f.close()
	for _, in := range []string{f.baseDir, dir} {
		if tensors.Holds(out, in) {
			return nil, &tensors.FormatError{File: out, Msg: "the output is a directory that is read, or holds it", Hint: "choose another output directory"}
		}
	}
	if err := f.plan(); err != nil {
		return nil, err
	}
	w, err := tensors.Create(out, f.infos, tensors.WriteOptions{ShardBytes: o.ShardBytes, Force: o.Force, Resume: o.Resume,
		Metadata: f.ckpt.Metadata(), Fingerprint: f.fingerprint(), Files: f.files.names()})
	if err != nil {
		return nil, err
	}
	if err := f.write(ctx, w); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	r := &FuseReport{Output: out, Tensors: len(f.infos), Changed: len(f.deltas), Shards: len(w.Shards())}
	for _, s := range w.Shards() {
		r.Bytes += s.Bytes
	}
	for _, d := range f.deltas {
		if d.New {
			r.Added = append(r.Added, d.Tensor)
		}
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// fusion is a base, an adapter and what comes of them.
type fusion struct {
	o       FuseOptions
	baseDir string
	ckpt    *tensors.Checkpoint
	raw     []byte // config.json of the base, nil without one
	config  arch.Config
	adapter *Adapter
	modules []Module
	deltas  []Delta
	infos   []tensors.Info
	jobs    []job
	files   sideFiles
	set     map[string]any // keys of config.json that change
}

// job makes one output tensor: from a tensor of the base, a delta, or both.
type job struct {
	base  *tensors.Reader // nil where nothing of the base is used
	delta *Delta
}

func openFusion(base, dir string, o FuseOptions) (*fusion, error) {
	f := &fusion{o: o, set: map[string]any{}}
	if o.DType != nil && !o.DType.IsFloat() {
		return nil, &tensors.FormatError{Msg: "weights cannot become " + o.DType.String(), Hint: "use float32, float16, bfloat16 or float64"}
	}
	var err error
	if f.ckpt, err = checkpoint.Open(base); err != nil {
		return nil, err
	}
	f.baseDir = filepath.Dir(f.ckpt.Files()[0])
	if f.config, f.raw, err = arch.ReadConfigFile(base); err != nil && !errors.Is(err, os.ErrNotExist) {
		f.close()
		return nil, err
	}
	if f.raw != nil {
		if f.raw, err = checkpoint.PlainConfig(f.raw); err != nil {
			f.close()
			return nil, err
		}
	}
	if f.adapter, err = OpenMapped(dir); err != nil {
		f.close()
		return nil, err
	}
	for _, m := range f.adapter.Warnings {
		f.warn("%s", m)
	}
	if f.modules, err = Modules(f.ckpt, f.raw); err == nil {
		f.deltas, err = f.adapter.BindTied(f.modules, o.Tie)
	}
	if err == nil && !o.AllowNonFinite {
		err = f.adapter.CheckFinite()
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *fusion) close() {
	if f.ckpt != nil {
		_ = f.ckpt.Close()
	}
	if f.adapter != nil {
		_ = f.adapter.Close()
	}
}

func (f *fusion) warn(format string, args ...any) {
	if f.o.Warn != nil {
		f.o.Warn(fmt.Sprintf(format, args...))
	}
}

// CheckFinite returns an error that names the first tensor with NaN or infinite values.
func (a *Adapter) CheckFinite() error {
	for _, key := range a.Keys() {
		t, ok := a.Tensors[key]
		if !ok {
			var err error
			if t, err = decode(a.views[key]); err != nil {
				return err
			}
		}
		if !finite(t.Data) {
			return &Error{File: a.File(), Where: key, Msg: "holds NaN or infinite values", Hint: "the training diverged; take an earlier checkpoint (--allow-non-finite writes the result all the same)"}
		}
	}
	return nil
}

// plan lists the output's tensors and files.
func (f *fusion) plan() error {
	rename, drop := f.head()
	byTensor := map[string]*Delta{}
	for i := range f.deltas {
		byTensor[f.deltas[i].Tensor] = &f.deltas[i]
	}
	written := tensors.DType(0)
	for _, name := range f.ckpt.Names() {
		v, err := f.ckpt.Reader(name)
		if err != nil {
			return err
		}
		info := v.Info
		if info.DType.IsFloat() {
			if f.o.DType != nil {
				info.DType = *f.o.DType
			}
			if written == 0 {
				written = info.DType
			}
		}
		if drop(name) {
			continue
		}
		d := byTensor[name]
		switch {
		case d != nil && d.New:
			continue // a head that loaders ignored while it was tied
		case d != nil:
			info.Shape = d.Shape
		}
		info.Name = rename(name)
		f.infos, f.jobs = append(f.infos, info), append(f.jobs, job{v, d})
	}
	if written == 0 {
		written = tensors.F32
	}
	for i := range f.deltas {
		d := &f.deltas[i]
		if !d.New {
			continue
		}
		j := job{delta: d}
		dtype := written
		if d.From != "" {
			var err error
			if j.base, err = f.ckpt.Reader(d.From); err != nil {
				return err
			}
			if dtype = j.base.DType; f.o.DType != nil {
				dtype = *f.o.DType
			}
		}
		f.infos, f.jobs = append(f.infos, tensors.Info{Name: d.Tensor, DType: dtype, Shape: d.Shape}), append(f.jobs, j)
	}
	if err := f.configure(); err != nil {
		return err
	}
	return f.findFiles()
}

// taskClasses are the ends of the names of classes with a head for a task.
var taskClasses = map[string]string{"SEQ_CLS": "ForSequenceClassification", "TOKEN_CLS": "ForTokenClassification", "QUESTION_ANS": "ForQuestionAnswering"}

// classEnds are what follows the family's name in a class.
var classEnds = []string{"ForCausalLM", "LMHeadModel", "ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "Model"}

// head finds out whether the adapter brings a head that the base lacks. The output is then a checkpoint of the class with
// that head: the base's own head over the vocabulary is left out, and names get the prefix that the class has.
func (f *fusion) head() (rename func(string) string, drop func(string) bool) {
	rename, drop = func(n string) string { return n }, func(string) bool { return false }
	added := false
	for i := range f.deltas {
		added = added || f.deltas[i].New && f.deltas[i].Module.Weight == ""
	}
	end := taskClasses[f.adapter.Config.TaskType]
	if !added || end == "" {
		if added {
			f.warn("the adapter adds modules that the base's class does not have; config.json still names that class")
		}
		return rename, drop
	}
	class := ""
	if a := f.config.Architectures(); len(a) > 0 {
		class = a[0]
	}
	stem := ""
	for _, e := range classEnds {
		if s, ok := strings.CutSuffix(class, e); ok {
			stem = s
			break
		}
	}
	if stem == "" {
		f.warn("config.json does not say which family this is, so it cannot be told that the fused model has a head; set architectures yourself")
		return rename, drop
	}
	f.set["architectures"] = []string{stem + end}
	bare := basePrefixes[f.config.ModelType()]
	has := slices.ContainsFunc(f.ckpt.Names(), func(n string) bool { return bare != "" && strings.HasPrefix(n, bare+".") })
	other := func(n string) bool {
		return slices.ContainsFunc([]string{"lm_head", "embed_out", "cls"}, func(h string) bool { return strings.HasPrefix(n, h+".") })
	}
	drop = other
	if bare != "" && !has {
		rename = func(n string) string { return bare + "." + n }
	}
	return rename, drop
}

// configure decides what changes in config.json.
func (f *fusion) configure() error {
	if f.raw == nil {
		return nil
	}
	if f.o.DType != nil {
		for _, key := range f.config.DTypeKeys() {
			f.set[key] = f.o.DType.TorchName()
		}
	}
	input, output := -1, -1 // rows of the embedding and the head
	for i := range f.deltas {
		d := &f.deltas[i]
		switch {
		case d.New && d.Module.Tied:
			f.set["tie_word_embeddings"] = false
			output = d.Shape[0]
		case d.Module.Kind == Embedding && slices.Contains(inputEmbeddings, last(d.Module.Path)):
			input = d.Shape[0]
		case d.Module.OutputHead && len(d.Shape) == 2 && slices.Contains([]string{"lm_head", "embed_out"}, last(d.Module.Path)):
			output = d.Shape[0]
		case len(d.Shape) == 2 && d.whole != nil && slices.Contains([]string{"score", "classifier", "out_proj"}, last(d.Module.Path)):
			f.labels(d.Shape[0])
		}
	}
	return f.vocabulary(input, output)
}

// labels names the classes where the configuration has names for another number of them.
func (f *fusion) labels(n int) {
	if have, ok := f.config.Get("id2label"); ok {
		if m, ok := have.(map[string]any); ok && len(m) == n {
			return
		}
	}
	const most = 1 << 16
	if n > most {
		return
	}
	to, from := map[string]any{}, map[string]any{}
	for i := range n {
		label := fmt.Sprintf("LABEL_%d", i)
		to[fmt.Sprint(i)], from[label] = label, i
	}
	f.set["id2label"], f.set["label2id"] = to, from
	if _, ok := f.config.Int("num_labels"); ok {
		f.set["num_labels"] = n
	}
}

// vocabulary follows an adapter that has more tokens than its base.
func (f *fusion) vocabulary(input, output int) error {
	rows := func(path string, changed int) int {
		if changed >= 0 {
			return changed
		}
		for _, m := range f.modules {
			if last(m.Path) == path && len(m.Shape) == 2 {
				return m.Shape[0]
			}
		}
		return -1
	}
	if input < 0 && output < 0 {
		return nil
	}
	in, out := input, rows("lm_head", output)
	for _, m := range f.modules {
		if in < 0 && m.Kind == Embedding && slices.Contains(inputEmbeddings, last(m.Path)) {
			in = m.Shape[0]
		}
		if m.Tied && output < 0 && input >= 0 {
			out = in // the head follows
		}
	}
	if in >= 0 && out >= 0 && in != out {
		return &Error{File: f.adapter.Dir, Msg: fmt.Sprintf("the fused model would have an embedding of %d tokens and a head of %d", in, out),
			Hint: "the adapter holds only one of the two resized matrices; save it with both in modules_to_save"}
	}
	for _, key := range []string{"vocab_size", "text_config.vocab_size"} {
		if have, ok := f.config.Int(key); ok && in >= 0 && have != in {
			f.set[key] = in
			f.warn("the vocabulary grows from %d to %d tokens with the adapter", have, in)
		}
	}
	return nil
}

// fingerprint names everything that the output's bytes depend on.
func (f *fusion) fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "fuse 1|%v|%v|%d|", f.o.DType, f.o.Tie, f.o.ShardBytes)
	files := append(f.ckpt.Files(), f.adapter.File(), filepath.Join(f.adapter.Dir, ConfigName))
	for _, name := range files {
		digest, err := tensors.HeaderDigest(name)
		if err != nil {
			digest = "" // no weights
		}
		if st, err := os.Stat(name); err == nil {
			fmt.Fprintf(h, "%s %s %d %d|", filepath.Base(name), digest, st.Size(), st.ModTime().UnixNano())
		}
	}
	for _, i := range f.infos {
		fmt.Fprintf(h, "%s%v%s|", i.Name, i.Shape, i.DType)
	}
	return hex.EncodeToString(h.Sum(nil))
}
