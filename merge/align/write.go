package align

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/mergekit/mergekit/arch"
	"github.com/mergekit/mergekit/arch/checkpoint"
	"github.com/mergekit/mergekit/finetune/adapter"
	"github.com/mergekit/mergekit/tensors"
)

// WriteOptions say how an aligned checkpoint is written.
type WriteOptions struct {
	// DType is that of floating-point tensors; nil: each one's own if the map only moves values and flips signs, else float32, so that
	// nothing is rounded twice when the result is merged.
	DType          *tensors.DType
	ShardBytes     int64             // most bytes of tensors in a shard; 0: 5e9; negative: one file
	Threads        int               // 0: one per processor
	MaxMemory      int64             // bytes to work in, beside matrices; 0: 512 MiB
	Files          map[string][]byte // further files by name, such as README.md
	Force, Resume  bool
	Discard        bool // an interrupted output is removed, for callers that offer no Resume
	AllowNonFinite bool
	Started        func(total int64)    // bytes that will be written; may be nil
	Written        func(n int64)        // progress, from any goroutine; may be nil
	Warn           func(message string) // may be nil
}

// WriteReport says what writing an aligned checkpoint did.
type WriteReport struct {
	Output  string   `json:"output"`
	Tensors int      `json:"tensors"`
	Changed int      `json:"changed"`
	Added   []string `json:"added,omitempty"`
	Bytes   int64    `json:"bytes"`
	Shards  int      `json:"shards"`
	Seconds float64  `json:"seconds"`
}

// Write applies a map to a checkpoint and writes the result, tensor by tensor from the mapped files, with what lies beside the weights in
// dir ("": nothing). The output appears whole or not at all; an interrupted one is finished with Resume, or is gone with Discard.
func Write(ctx context.Context, m *Map, from *tensors.Checkpoint, dir, out string, o WriteOptions) (*WriteReport, error) {
	start := time.Now()
	if o.DType != nil && !o.DType.IsFloat() {
		return nil, &Error{Msg: "weights cannot become " + o.DType.String(), Hint: "use float32, float16, bfloat16 or float64"}
	}
	if dir != "" && tensors.Holds(out, dir) {
		return nil, &tensors.FormatError{File: out, Msg: "the output is a directory that is read, or holds it", Hint: "choose another output directory"}
	}
	w := &writing{m: m, from: from, dir: dir, o: o}
	if err := w.plan(); err != nil {
		return nil, err
	}
	to, err := tensors.Create(out, w.infos, tensors.WriteOptions{ShardBytes: o.ShardBytes, Force: o.Force, Resume: o.Resume,
		Metadata: from.Metadata(), Fingerprint: w.fingerprint(), Files: slices.Concat(sortedKeys(w.content), sortedKeys(w.copies))})
	if err != nil {
		return nil, err
	}
	if err := w.write(ctx, to); err != nil {
		if o.Discard {
			return nil, errors.Join(err, to.Discard())
		}
		return nil, errors.Join(err, to.Close())
	}
	r := &WriteReport{Output: out, Tensors: len(w.infos), Shards: len(to.Shards()), Added: w.added}
	for _, s := range to.Shards() {
		r.Bytes += s.Bytes
	}
	for _, j := range w.jobs {
		if j.t != nil {
			r.Changed++
		}
	}
	if err := to.Commit(); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// writing is an aligned checkpoint in the making.
type writing struct {
	m       *Map
	from    *tensors.Checkpoint
	dir     string
	o       WriteOptions
	infos   []tensors.Info
	jobs    []job
	added   []string
	content map[string][]byte // files beside the weights
	copies  map[string]string
}

// job makes one tensor of the output.
type job struct {
	from *tensors.Reader
	t    *Transform // nil: as it is
	rows int        // of a piece; of a tensor that stays, elements
}

// pieceElems is how many elements of a tensor that stays are copied at a time.
const pieceElems = 1 << 20

// plan lists the output's tensors and files.
func (w *writing) plan() error {
	w.content, w.copies = map[string][]byte{}, map[string]string{}
	own := OwnGains{}
	if w.m.AnyTurned() {
		var err error
		if own, err = ReadGains(w.m.Spec, OfCheckpoint(w.from)); err != nil {
			return err
		}
	}
	p, err := w.m.Prepare(own)
	if err != nil {
		return err
	}
	untied, exact := w.m.Untied(), w.m.Exact()
	names := w.from.Names()
	for _, to := range sortedKeys(untied) {
		if _, there := w.from.Lookup(to); !there {
			names, w.added = append(names, to), append(w.added, to)
		}
	}
	budget := w.o.MaxMemory
	if budget <= 0 {
		budget = 512 << 20
	}
	budget /= int64(w.threads())
	for _, name := range names {
		origin := name
		if from, ok := untied[name]; ok {
			origin = from
		}
		j := job{rows: pieceElems}
		if j.from, err = w.from.Reader(origin); err != nil {
			return err
		}
		if j.t, err = p.Transform(name, j.from.Shape); err != nil {
			return err
		}
		if j.t != nil {
			if !j.from.DType.IsFloat() && (!j.t.Exact() || j.from.DType.Size() == 0) {
				return &Error{File: w.from.Path(), Tensor: name, Msg: fmt.Sprintf("has dtype %s, and the map computes with it", j.from.DType), Hint: "dequantise the checkpoint first"}
			}
			j.t.Threads = 1 // pieces are what runs side by side
			j.rows = j.t.RowsWithin(budget)
		}
		info := j.from.Info
		info.Name = name
		if info.DType.IsFloat() {
			switch {
			case w.o.DType != nil:
				info.DType = *w.o.DType
			case !exact:
				info.DType = tensors.F32
			}
		}
		w.infos, w.jobs = append(w.infos, info), append(w.jobs, j)
	}
	return w.findFiles(exact)
}

func (w *writing) threads() int {
	if w.o.Threads > 0 {
		return w.o.Threads
	}
	return max(2, runtime.GOMAXPROCS(0))
}

// nestedTie is where models of several parts say it.
const nestedTie = "text_config.tie_word_embeddings"

// findFiles lists what goes beside the weights and rewrites the configuration.
func (w *writing) findFiles(exact bool) error {
	for name, data := range w.o.Files {
		w.content[name] = data
	}
	if w.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return fmt.Errorf("cannot list the checkpoint's directory: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(w.dir, e.Name())
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() || !adapter.SideFile(e.Name()) || w.content[e.Name()] != nil {
			continue
		}
		w.copies[e.Name()] = path
	}
	config, raw, err := arch.ReadConfigFile(w.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	set := map[string]any{}
	if len(w.m.Untied()) > 0 {
		set["tie_word_embeddings"] = false
		if _, nested := config.Bool(nestedTie); nested {
			set[nestedTie] = false
		}
	}
	dtype := w.o.DType
	if dtype == nil && !exact {
		f32 := tensors.F32
		dtype = &f32
	}
	if dtype != nil {
		for _, key := range config.DTypeKeys() {
			set[key] = dtype.TorchName()
		}
	}
	if raw, err = checkpoint.PlainConfig(raw); err != nil {
		return err
	}
	if len(set) > 0 {
		if raw, err = arch.PatchConfig(raw, set); err != nil {
			return err
		}
	}
	w.content[arch.ConfigName] = raw
	return nil
}

// fingerprint names everything that the output's bytes depend on.
func (w *writing) fingerprint() string {
	h := sha256.New()
	fmt.Fprintf(h, "align 1|%s|%d|", w.m.Digest(), w.o.ShardBytes)
	for _, name := range w.from.Files() {
		digest, err := tensors.HeaderDigest(name)
		if err != nil {
			digest = ""
		}
		if st, err := os.Stat(name); err == nil {
			fmt.Fprintf(h, "%s %s %d %d|", filepath.Base(name), digest, st.Size(), st.ModTime().UnixNano())
		}
	}
	for _, i := range w.infos {
		fmt.Fprintf(h, "%q%v%s|", i.Name, i.Shape, i.DType)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Digest names everything that a map does: spec, elements and gains, but not how it was found.
func (m *Map) Digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "map 1|%s|", m.Spec.Hash())
	number := func(x float64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], math.Float64bits(x))
		h.Write(b[:])
	}
	numbers := func(x []float64) {
		fmt.Fprintf(h, "|%d ", len(x))
		for _, v := range x {
			number(v)
		}
	}
	for _, id := range sortedKeys(m.Elements) {
		e := m.Elements[id]
		if e.Identity() {
			continue
		}
		fmt.Fprintf(h, "|%q %s %v", id, e.Kind, e.Index)
		numbers(e.Scale)
		numbers(e.Matrix)
		for _, c := range e.Plane {
			number(real(c))
			number(imag(c))
		}
	}
	for _, n := range m.Spec.Norms {
		if m.Turned(n.Group) {
			fmt.Fprintf(h, "|%q", n.Gain)
			numbers(m.Gains[n.Gain].To)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// write makes all tensors that the writer lacks, and the files beside them.
func (w *writing) write(ctx context.Context, to *tensors.Writer) error {
	if err := to.Fill(ctx, tensors.Filling{
		Threads: w.threads(), Started: w.o.Started, Written: w.o.Written, Cut: w.cut,
		Worker: func() func(i int, lo, hi int64) (int64, error) {
			b := &buffers{}
			return func(i int, lo, hi int64) (int64, error) { return w.make(to, i, lo, hi, b) }
		},
		Whole: func(i int) { w.jobs[i].from.Release(0, w.jobs[i].from.Info.Bytes()) },
	}); err != nil {
		return err
	}
	for _, name := range sortedKeys(w.content) {
		if err := to.WriteFile(name, w.content[name]); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(w.copies) {
		if err := checkpoint.CopyFile(to, name, w.copies[name]); err != nil {
			return err
		}
	}
	return nil
}

// cut cuts a tensor into rows, one that stays as it is into elements.
func (w *writing) cut(i int) tensors.Pieces {
	p := tensors.Pieces{Units: w.infos[i].Elems(), Step: int64(w.jobs[i].rows)}
	if t := w.jobs[i].t; t != nil {
		p.Units = int64(t.rows())
	} else if w.infos[i].DType.Size() == 0 {
		p.Step = p.Units // types of less than a byte are copied whole
	}
	return p
}

// buffers are one worker's.
type buffers struct {
	in, out []byte
	raw     []byte // what is made of a tensor that no file has as it is
	values  []float32
}

// scratch is the room that n bytes of a tensor need beside the file.
func scratch(r *tensors.Reader, n int64) int64 {
	if r.Stored() {
		return 0
	}
	return n
}

func sized[T any](x *[]T, n int64) []T {
	if int64(cap(*x)) < n {
		*x = make([]T, n)
	}
	return (*x)[:n]
}

// make computes and writes rows lo to hi of output i (of a tensor that stays, elements), and returns their bytes.
func (w *writing) make(to *tensors.Writer, i int, lo, hi int64, b *buffers) (int64, error) {
	j, info := w.jobs[i], w.infos[i]
	v, dtype := j.from, info.DType
	fault := func(err error) error {
		if e, ok := err.(*Error); ok { //nolint:errorlint // only errors made here lack the tensor
			e.File, e.Tensor = w.from.Path(), info.Name
			return e
		}
		return fmt.Errorf("%s: %w", show(info.Name), err)
	}
	if j.t == nil {
		from, n := int64(v.DType.BitSize()), hi-lo
		data, err := v.Bytes(lo*from/8, n*from/8, sized(&b.raw, scratch(v, n*from/8)))
		if err != nil {
			return 0, err
		}
		if dtype != v.DType {
			out := sized(&b.out, n*int64(dtype.Size()))
			if err := tensors.Convert(out, dtype, data, v.DType); err != nil {
				return 0, fault(err)
			}
			data = out
		}
		return int64(len(data)), to.WriteAt(i, data, lo*int64(dtype.BitSize())/8)
	}
	cols := int64(j.t.cols())
	n := (hi - lo) * cols
	out := sized(&b.out, n*int64(dtype.Size()))
	if j.t.Exact() {
		moved := out
		if dtype != v.DType {
			moved = sized(&b.in, n*int64(v.DType.Size()))
		}
		if err := j.t.MoveBytes(moved, v.DType, int(lo), int(hi), func(x []byte, off int64) error {
			data, err := v.Bytes(off, int64(len(x)), x)
			copy(x, data)
			return err
		}); err != nil {
			return 0, fault(err)
		}
		if dtype != v.DType {
			if err := tensors.Convert(out, dtype, moved, v.DType); err != nil {
				return 0, fault(err)
			}
		}
	} else {
		values := sized(&b.values, n)
		size := int64(v.DType.Size())
		if err := j.t.Rows(values, int(lo), int(hi), func(x []float32, off int64) error {
			n := int64(len(x)) * size
			data, err := v.Bytes(off*size, n, sized(&b.raw, scratch(v, n)))
			if err != nil {
				return err
			}
			return tensors.DecodeFloat32(x, data, v.DType)
		}); err != nil {
			return 0, fault(err)
		}
		if err := tensors.EncodeFloat32(out, dtype, values); err != nil {
			return 0, fault(err)
		}
	}
	if !w.o.AllowNonFinite && dtype.IsFloat() {
		if err := checkFinite(out, dtype, sized(&b.values, n)); err != nil {
			return 0, fault(err)
		}
	}
	return int64(len(out)), to.WriteAt(i, out, lo*cols*int64(dtype.Size()))
}

// checkFinite refuses values that are none, also those that became too large for their dtype.
func checkFinite(data []byte, dtype tensors.DType, values []float32) error {
	if err := tensors.DecodeFloat32(values, data, dtype); err != nil {
		return err
	}
	if slices.ContainsFunc(values, func(x float32) bool { return x-x != 0 }) {
		return &Error{Msg: fmt.Sprintf("has NaN or infinite values in %s after the map", dtype.TorchName()), Hint: "the checkpoint is damaged, or the dtype too narrow for the map: choose float32"}
	}
	return nil
}
