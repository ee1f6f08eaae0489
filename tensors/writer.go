package tensors

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// WriteOptions say how an output is written.
type WriteOptions struct {
	ShardBytes    int64             // most bytes of tensors in a shard; 0: 5e9; negative: never split
	FileName      string            // of the weights, which are then one file; "": model.safetensors, or shards with an index
	Metadata      map[string]string // header metadata; "format": "pt" is always there
	IndexMetadata map[string]any    // keys for the index's metadata, beside total_size
	Force         bool              // replace an existing output, discard an interrupted one
	Resume        bool              // go on with an interrupted output if there is one
	// Fingerprint identifies everything that the tensors' values depend on. An interrupted output of another fingerprint is
	// not resumed.
	Fingerprint string
	// Files are names that will be given to WriteFile and CopyFile. They are only checked, so that a name that is not possible
	// fails before the work and not after it.
	Files []string
	Stem  string // what shards and index are called before the numbers; "": model
	Part  Part   // the share of the output to write; zero: all of it
	Join  Join   // put the output together from parts instead of writing it
}

// ShardInfo describes a file of the output.
type ShardInfo struct {
	Name    string // in the output directory
	Bytes   int64  // size of the file
	Tensors int
}

// The states of a tensor.
const (
	unfinished uint32 = iota
	finished          // complete, not in the journal yet
	recorded          // complete and in the journal
	resumed           // recorded by the run that was interrupted
)

// Writer writes a checkpoint whose tensors are known beforehand. WriteAt, Finish, WriteFile and CopyFile are safe for
// concurrent use, also beside each other. The package documentation has the protocol.
type Writer struct {
	target  *target
	infos   []Info
	options WriteOptions
	layout  *layout
	disk    disk
	owner   []int  // the part that each shard belongs to; nil: all shards are this writer's
	joined  string // the kind of backend of the parts that were joined

	lock    *os.File
	journal *journal
	shards  []*shard
	state   []atomic.Uint32
	left    []atomic.Int64 // bytes of each tensor that were not written yet
	window  window
	flusher flusher

	mu      sync.Mutex
	pending []int           // finished tensors that the journal lacks
	files   map[string]bool // side files
	err     error           // the first failure; nothing is recorded after it
	closed  bool
	discard bool // Close leaves nothing to be resumed
}

// shard is an output file, open while it has unfinished tensors.
type shard struct {
	path  string
	dirty atomic.Bool  // written since the last sync
	left  atomic.Int64 // tensors that are not in the journal
	mu    sync.Mutex
	f     *os.File
}

func (s *shard) file() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f == nil {
		f, err := os.OpenFile(s.path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		s.f = f
	}
	return s.f, nil
}

// use calls do with the file if it is open.
func (s *shard) use(do func(f *os.File)) {
	s.mu.Lock()
	f := s.f
	s.mu.Unlock()
	if f != nil {
		do(f)
	}
}

func (s *shard) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.f == nil {
		return nil
	}
	f := s.f
	s.f = nil
	return f.Close()
}

// Create lays out a checkpoint of the given tensors, to be written in directory dir, and reserves its room on the disk. The
// directory appears with Commit; until then everything is in its sibling .NAME.partial. Parents of dir are made as needed.
//
// Errors that the user can do something about without changing the disk are *FormatError: an output that exists without
// Force, an interrupted one without Resume or Force, or with Resume but of another plan. A full or read-only disk is an
// error that says so and wraps the system's. After an error nothing of the output is left, except what an interrupted run
// had made.
func Create(dir string, infos []Info, o WriteOptions) (*Writer, error) {
	return create(dir, infos, o, realDisk())
}

func create(dir string, infos []Info, o WriteOptions, d disk) (*Writer, error) {
	t, err := newTarget(dir)
	if err != nil {
		return nil, err
	}
	if o.FileName != "" {
		o.ShardBytes = -1
	}
	l, err := plan(infos, o.ShardBytes, o.Metadata)
	if err != nil {
		return nil, err
	}
	if o.FileName != "" {
		if !plainName(o.FileName) {
			return nil, t.bad("cannot hold weights called "+show(o.FileName), "choose a plain name", nil)
		}
		l.shards[0].name = o.FileName
	}
	if o.Stem != "" {
		if !plainName(o.Stem) {
			return nil, t.bad("cannot hold weights called "+show(o.Stem), "choose a plain name", nil)
		}
		l.rename(o.Stem)
	}
	w := &Writer{
		target: t, infos: infos, options: o, layout: l, disk: d,
		state: make([]atomic.Uint32, len(infos)), left: make([]atomic.Int64, len(infos)), files: map[string]bool{},
	}
	if o.Part.Of > 0 {
		w.share()
	}
	for i := range infos {
		w.left[i].Store(l.place[i].n)
	}
	for _, s := range l.shards {
		one := &shard{path: filepath.Join(t.partial, s.name)}
		one.left.Store(int64(len(s.tensors)))
		w.shards = append(w.shards, one)
	}
	for _, name := range o.Files {
		if err := w.checkName(name); err != nil {
			return nil, err
		}
	}
	if err := w.begin(); err != nil {
		err = w.explain("creating the output", err)
		w.release()
		return nil, err
	}
	w.window.init(d, windowBytes)
	w.flusher.start(w)
	return w, nil
}

// begin takes the output for this process, and makes or resumes the partial directory.
func (w *Writer) begin() (err error) {
	t := w.target
	if err := os.MkdirAll(t.parent, 0o777); err != nil {
		return err
	}
	st, err := os.Lstat(t.partial)
	exists := err == nil
	interrupted := exists
	if exists {
		if !st.IsDir() {
			return t.bad(filepath.Base(t.partial)+" beside it is not a directory", "remove it", nil)
		}
		if err := w.take(); err != nil {
			return err
		}
		// Another run may have made it a moment ago; it will find it taken. An empty one holds nothing to go on with.
		if empty, err := emptyDir(t.partial); err == nil && empty {
			interrupted = false
		}
	}
	if err := t.recover(); err != nil {
		return err
	}
	o := w.options
	if err := t.check(o.Force, o.Resume, interrupted); err != nil {
		if o.Join.Parts > 0 && errors.Is(err, fs.ErrExist) && w.joinedBefore() {
			return t.bad("exists, and the parts beside it are in it", "remove the parts", ErrJoined)
		}
		return err
	}
	switch {
	case interrupted && o.Join.Parts > 0:
		if ok, err := w.rejoin(); ok || err != nil {
			return err
		}
	case interrupted && !o.Resume && !o.Force:
		return t.bad(w.interrupted(), "use --resume to finish it or --force to start again", nil)
	case interrupted && o.Resume:
		if ok, err := w.resume(); ok || err != nil {
			return err
		}
	}
	if !exists {
		if err := os.Mkdir(t.partial, 0o777); errors.Is(err, fs.ErrExist) {
			return w.busy()
		} else if err != nil {
			return err
		}
		if err := w.take(); err != nil {
			return err
		}
	}
	if o.Join.Parts > 0 {
		err := w.adopt()
		if err != nil {
			_ = os.Remove(t.partial) // if nothing is in it
		}
		return err
	}
	if err := t.wipe(nil); err != nil {
		return err
	}
	if err := w.layOut(); err != nil {
		_ = os.RemoveAll(t.partial)
		return w.explain("laying out the shards", err)
	}
	return nil
}

// take locks the partial directory.
func (w *Writer) take() error {
	lock, busy, err := LockDir(w.target.partial)
	if busy {
		return w.busy()
	}
	w.lock = lock
	return err
}

func (w *Writer) busy() error {
	return w.target.bad("another process is writing this output", "wait for it or stop it", nil)
}

// layOut makes all shards at their final size, with their headers, and then the journal. Reserving the blocks finds a full
// disk now and not after hours.
func (w *Writer) layOut() error {
	for i, s := range w.layout.shards {
		if !w.ours(i) {
			continue
		}
		f, err := os.OpenFile(w.shards[i].path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
		if err != nil {
			return err
		}
		if err = w.disk.truncate(f, s.size); err == nil {
			err = w.disk.reserve(f, s.size)
		}
		if err == nil {
			_, err = w.disk.writeAt(f, s.header, 0)
		}
		if e := f.Close(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
		w.shards[i].dirty.Store(true)
	}
	var err error
	w.journal, err = newJournal(w.target.partial, w.head(), nil)
	return err
}

func (w *Writer) head() journalHead {
	h := journalHead{Version: 1, Fingerprint: w.options.Fingerprint, Layout: w.layout.hash(), Tensors: len(w.infos), Bytes: w.layout.total}
	if p := w.options.Part; p.Of > 0 {
		h.Part = p.String()
	}
	return h
}

// resume takes over what an interrupted run finished. false means that there is nothing to take over.
func (w *Writer) resume() (bool, error) {
	t := w.target
	data, err := os.ReadFile(filepath.Join(t.partial, journalName))
	if err != nil {
		return false, nil // killed before the journal was made, or within Commit
	}
	head, done, valid, ok := parseJournal(data)
	if !ok {
		return false, nil
	}
	refuse := func(msg string) (bool, error) {
		if w.options.Force {
			return false, nil
		}
		return false, t.bad("the interrupted merge in "+filepath.Base(t.partial)+" "+msg, "use --force to start again", nil)
	}
	want := w.head()
	switch {
	case head.Fingerprint != want.Fingerprint:
		return refuse("is of another recipe, other models or other options")
	case head != want:
		return refuse("has another layout (other tensors, dtypes or shard size)")
	}
	if name, ok := w.intact(); !ok {
		if len(done) == 0 {
			return false, nil // killed while laying out
		}
		return refuse("is damaged: " + name + " is not what was laid out")
	}
	keep := map[string]bool{journalName: true, partName: w.options.Part.Of > 0}
	for _, s := range w.layout.shards {
		keep[s.name] = true
	}
	if err := t.wipe(keep); err != nil { // side files are written anew
		return false, err
	}
	if w.journal, err = openJournal(t.partial, data, valid); err != nil {
		return false, err
	}
	for i, s := range w.shards {
		s.dirty.Store(w.ours(i)) // a kill leaves nothing lost, but perhaps nothing on the disk either
	}
	for _, i := range done {
		if w.state[i].Swap(resumed) == unfinished {
			w.shards[w.layout.place[i].shard].left.Add(-1)
		}
	}
	return true, nil
}

// intact reports whether all shards have their size and their header, else the name of one that has not.
func (w *Writer) intact() (name string, ok bool) {
	for i, s := range w.layout.shards {
		if !w.ours(i) {
			continue
		}
		st, err := os.Lstat(w.shards[i].path)
		if err != nil || !st.Mode().IsRegular() || st.Size() != s.size {
			return s.name, false
		}
		f, err := os.Open(w.shards[i].path)
		if err != nil {
			return s.name, false
		}
		got := make([]byte, len(s.header))
		_, err = io.ReadFull(f, got)
		_ = f.Close()
		if err != nil || !bytes.Equal(got, s.header) {
			return s.name, false
		}
	}
	return "", true
}

// Done reports whether tensor i is complete from the run that was interrupted. Nothing needs to be written then; what is
// written is ignored.
func (w *Writer) Done(i int) bool { return i >= 0 && i < len(w.state) && w.state[i].Load() == resumed }

// WriteAt writes p, bytes of tensor i, at byte off of it. p may be reused when it returns. When the disk is slower than the
// caller it waits, so that what is not on the disk yet stays small; see windowBytes.
func (w *Writer) WriteAt(i int, p []byte, off int64) error {
	if i < 0 || i >= len(w.infos) {
		return fmt.Errorf("write: there is no tensor %d of %d", i, len(w.infos))
	}
	at := w.layout.place[i]
	if off < 0 || off > at.n || int64(len(p)) > at.n-off {
		return fmt.Errorf("%s: bytes %d to %d are outside the tensor, which has %d", show(w.infos[i].Name), off, off+int64(len(p)), at.n)
	}
	switch w.state[i].Load() {
	case resumed:
		return nil
	case unfinished:
	default:
		return fmt.Errorf("%s: written after it was finished", show(w.infos[i].Name))
	}
	if err := w.failed(); err != nil || len(p) == 0 {
		return err
	}
	s := w.shards[at.shard]
	f, err := s.file()
	if err == nil {
		_, err = w.disk.writeAt(f, p, at.off+off)
	}
	if err != nil {
		return w.fail("writing "+w.layout.shards[at.shard].name, err)
	}
	s.dirty.Store(true) // after the write: a sync in between must not clear it
	w.left[i].Add(-int64(len(p)))
	w.flusher.wrote(int64(len(p)))
	w.window.add(s, at.off+off, int64(len(p)))
	return nil
}

// Finish says that all bytes of tensor i are written. The journal gets it once they are on the disk. It is an error when
// fewer bytes were written than the tensor has.
func (w *Writer) Finish(i int) error {
	if i < 0 || i >= len(w.infos) {
		return fmt.Errorf("finish: there is no tensor %d of %d", i, len(w.infos))
	}
	if w.state[i].Load() != unfinished {
		return nil
	}
	if left := w.left[i].Load(); left > 0 {
		return fmt.Errorf("%s: finished with %s of its %s bytes not written", show(w.infos[i].Name), group(left), group(w.layout.place[i].n))
	}
	if err := w.failed(); err != nil {
		return err
	}
	if w.state[i].CompareAndSwap(unfinished, finished) {
		w.mu.Lock()
		w.pending = append(w.pending, i)
		w.mu.Unlock()
		w.flusher.finished()
	}
	return nil
}

// Shards describes the weight files that are written, in order.
func (w *Writer) Shards() []ShardInfo {
	var list []ShardInfo
	for i, s := range w.layout.shards {
		if !w.ours(i) {
			continue
		}
		list = append(list, ShardInfo{Name: s.name, Bytes: s.size, Tensors: len(s.tensors)})
	}
	return list
}

func (w *Writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed && w.err == nil {
		return fmt.Errorf("%s: written after it was closed", w.target.where())
	}
	return w.err
}

// fail keeps the first failure. After one, nothing more is recorded: the system may have forgotten which pages it could not
// write.
func (w *Writer) fail(doing string, err error) error {
	err = w.explain(doing, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	return err
}

// interval and flushBytes say when the journal is brought up to date: a kill loses about a second's work.
const (
	interval   = time.Second
	flushBytes = 512 << 20
)
