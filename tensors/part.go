package tensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Part is a share of an output that a process of its own writes: some of its shards, whole. Parts are written beside each other, by
// machines that share a file system or one after the other; Join puts them together. The zero Part is the whole output.
type Part struct {
	Index, Of int    // from 1 on
	Key       string // identifies what the output's bytes depend on, but for the kind of backend
	Engine    string // the kind of backend that computes the part; what is joined must be of one
}

// Join says that an output is put together from parts and that nothing is computed.
type Join struct {
	Parts    int           // 0: the output is not of parts
	Key      string        // that all parts must have
	Verified func(n int64) // progress of checking bytes, from any goroutine; may be nil
}

func (p Part) String() string { return fmt.Sprintf("%d/%d", p.Index, p.Of) }

// ParsePart reads "2/8".
func ParsePart(s string) (Part, error) {
	a, b, ok := strings.Cut(s, "/")
	i, errI := strconv.Atoi(a)
	n, errN := strconv.Atoi(b)
	if !ok || errI != nil || errN != nil || i < 1 || i > n || n > maxParts {
		return Part{}, fmt.Errorf("%q is no part; write for example 2/8 for the second of eight (at most %d)", s, maxParts)
	}
	return Part{Index: i, Of: n}, nil
}

const maxParts = 9999

// partName is the file that says that a part is complete.
const partName = "part.json"

// partDir is where a part is written.
func (t *target) partDir(index, of int) string {
	return filepath.Join(t.parent, fmt.Sprintf(".%s.part-%d-of-%d", filepath.Base(t.path), index, of))
}

// partRecord is the content of partName.
type partRecord struct {
	Version     int         `json:"mergekit_part"`
	Part        string      `json:"part"`
	Key         string      `json:"key"`
	Engine      string      `json:"engine"`
	Fingerprint string      `json:"fingerprint"`
	Layout      string      `json:"layout"`
	Shards      []partShard `json:"shards"`
}

type partShard struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// owners says which of n parts writes each shard: neighbours together, by bytes.
func (l *layout) owners(n int) []int {
	list := make([]int, len(l.shards))
	total, at := float64(l.bytes()), 0.0
	for i, s := range l.shards {
		list[i] = min(n, 1+int((at+float64(s.size)/2)/total*float64(n)))
		at += float64(s.size)
	}
	return list
}

// ours reports whether this writer writes a shard.
func (w *Writer) ours(shard int) bool {
	return w.owner == nil || w.owner[shard] == w.options.Part.Index
}

// share leaves all tensors of other parts to them.
func (w *Writer) share() {
	w.owner = w.layout.owners(w.options.Part.Of)
	w.target.partial = w.target.partDir(w.options.Part.Index, w.options.Part.Of)
	for i := range w.infos {
		if !w.ours(w.layout.place[i].shard) {
			w.state[i].Store(resumed)
		}
	}
}

// interrupted says what is in the output's partial directory.
func (w *Writer) interrupted() string {
	if p := w.options.Part; p.Of > 0 {
		return fmt.Sprintf("part %s, whole or interrupted, is in %s", p, filepath.Base(w.target.partial))
	}
	return "an interrupted merge is in " + filepath.Base(w.target.partial)
}

// commitPart ends the writing of a part. It stays where it is until it is joined.
func (w *Writer) commitPart() error {
	if err := w.flusher.flush(); err != nil {
		return err
	}
	if err := w.syncAll(); err != nil {
		return err
	}
	for _, s := range w.shards {
		if err := s.close(); err != nil {
			return w.fail("closing a shard", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(w.target.partial, partName)); err != nil { // else it was complete before
		if err := w.completePart(); err != nil {
			return w.explain("completing the part", err)
		}
	}
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	err := w.journal.f.Close()
	w.release()
	return err
}

// completePart says, on the disk, that a part is there, with what its shards hold.
func (w *Writer) completePart() error {
	p := w.options.Part
	record := partRecord{Version: 1, Part: p.String(), Key: p.Key, Engine: p.Engine, Fingerprint: w.options.Fingerprint, Layout: w.layout.hash(), Shards: []partShard{}}
	for i, s := range w.layout.shards {
		if w.ours(i) {
			record.Shards = append(record.Shards, partShard{Name: s.name, Bytes: s.size})
		}
	}
	err := digests(len(record.Shards), func(i int) (err error) {
		s := &record.Shards[i]
		s.SHA256, err = SHA256(filepath.Join(w.target.partial, s.Name))
		return err
	})
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	const making = partName + ".new"
	err = w.put(making, func(f *os.File) error {
		if _, err := f.Write(append(text, '\n')); err != nil {
			return err
		}
		return w.disk.datasync(f)
	})
	if err == nil {
		err = w.disk.rename(filepath.Join(w.target.partial, making), filepath.Join(w.target.partial, partName))
	}
	if err == nil {
		err = syncDir(w.target.partial)
	}
	return err
}

// digests calls do for 0 to n-1, several at once, and returns the first error.
func digests(n int, do func(i int) error) error {
	var wait sync.WaitGroup
	errs := make([]error, n)
	limit := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	for i := range n {
		limit <- struct{}{}
		wait.Go(func() {
			defer func() { <-limit }()
			errs[i] = do(i)
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// FindParts says of how many parts an output in dir was split into, by the directories that are there: 0 if there are none. Parts of several
// splittings are an error.
func FindParts(dir string) (int, error) {
	t, err := newTarget(dir)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(t.parent)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, unreadable(t.parent, err)
	}
	name := regexp.MustCompile(`^\.` + regexp.QuoteMeta(filepath.Base(t.path)) + `\.part-[1-9][0-9]*-of-([1-9][0-9]*)$`)
	var found []int
	for _, e := range entries {
		if m := name.FindStringSubmatch(e.Name()); m != nil && e.IsDir() {
			if n, err := strconv.Atoi(m[1]); err == nil && n <= maxParts && !slices.Contains(found, n) {
				found = append(found, n)
			}
		}
	}
	switch len(found) {
	case 0:
		return 0, nil
	case 1:
		return found[0], nil
	}
	slices.Sort(found)
	return 0, t.bad(fmt.Sprintf("has parts of %d and of %d beside it", found[0], found[1]), "say how many with --parts, and remove the others", nil)
}

// RemoveParts removes the parts of an output that has been joined.
func RemoveParts(dir string, n int) error {
	t, err := newTarget(dir)
	if err != nil {
		return err
	}
	for i := range n {
		err = errors.Join(err, os.RemoveAll(t.partDir(i+1, n)))
	}
	return err
}

// readPart reads what a part says of itself.
func (w *Writer) readPart(i int) (*partRecord, error) {
	t, n := w.target, w.options.Join.Parts
	which := Part{Index: i, Of: n}.String()
	file := filepath.Join(t.partDir(i, n), partName)
	damaged := func() error {
		return t.bad("part "+which+" has a damaged "+partName, "merge it again with --part "+which+" --force", nil)
	}
	st, err := os.Stat(file) // before reading, which would wait for ever on a pipe
	if err == nil && (!st.Mode().IsRegular() || st.Size() > maxHeader) {
		return nil, damaged()
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(file)
	}
	if errors.Is(err, fs.ErrNotExist) {
		what := "is not finished"
		if _, err := os.Lstat(t.partDir(i, n)); err != nil {
			what = "is missing"
		}
		return nil, t.bad("part "+which+" "+what, "merge it with --part "+which+" --resume", nil)
	}
	if err != nil {
		return nil, unreadable(file, err)
	}
	var r partRecord
	if json.Unmarshal(text, &r) != nil || r.Version != 1 || r.Part != which {
		return nil, damaged()
	}
	switch {
	case r.Key != w.options.Join.Key:
		return nil, t.bad("part "+which+" is of another recipe, other models or other options", "join with the recipe and the options of the parts, or merge it again with --force", nil)
	case r.Layout != w.layout.hash():
		return nil, t.bad("part "+which+" has another layout (other tensors, dtypes or shard size)", "join with the options of the parts, or merge it again with --force", nil)
	}
	return &r, nil
}

// rejoin goes on with a join that was killed once it had taken everything over. false means that there is none.
func (w *Writer) rejoin() (bool, error) {
	t := w.target
	data, err := os.ReadFile(filepath.Join(t.partial, journalName))
	if err != nil {
		return false, nil
	}
	head, done, _, ok := parseJournal(data)
	if !ok {
		return false, nil
	}
	if r, err := w.readPart(1); err == nil && len(done) == len(w.infos) && head.Fingerprint == r.Fingerprint {
		w.options.Fingerprint, w.joined = r.Fingerprint, r.Engine
		return w.resume()
	}
	if !w.options.Force {
		return false, t.bad(w.interrupted(), "finish it with merge --resume, or use --force to join the parts in its place", nil)
	}
	return false, nil
}

// adopt takes the shards of all parts over, once all of them are there and what they say they are.
func (w *Writer) adopt() error {
	t, n := w.target, w.options.Join.Parts
	var first *partRecord
	var errs []error
	const told = 8 // of thousands of parts
	want := map[string]partShard{}
	from := map[string]int{}
	for i := 1; i <= n; i++ {
		r, err := w.readPart(i)
		if err != nil {
			if errs = append(errs, err); len(errs) == told && i < n {
				errs = append(errs, t.bad(fmt.Sprintf("parts %d to %d were not looked at", i+1, n), "merge these first", nil))
				break
			}
			continue
		}
		if first == nil {
			first = r
		}
		if r.Fingerprint != first.Fingerprint {
			errs = append(errs, t.bad(fmt.Sprintf("part %s was computed by %s and part %s by %s, which round differently", first.Part, first.Engine, r.Part, r.Engine), "merge one of them again with the other's --backend and --force", nil))
		}
		for _, s := range r.Shards {
			want[s.Name], from[s.Name] = s, i
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	keep := map[string]bool{} // what a join has moved that was killed
	for _, s := range w.layout.shards {
		keep[s.name] = true
	}
	if err := t.wipe(keep); err != nil {
		return err
	}
	w.owner = w.layout.owners(n)
	place := make([]string, len(w.layout.shards)) // where each shard is now
	for i, s := range w.layout.shards {
		if from[s.name] != w.owner[i] {
			return t.bad(fmt.Sprintf("part %d/%d does not have %s", w.owner[i], n, s.name), "merge it again with --force", nil)
		}
		place[i] = filepath.Join(t.partDir(w.owner[i], n), s.name)
		if _, err := os.Lstat(place[i]); err != nil && w.moved(i) { // by a join that was killed, on a disk without hard links
			place[i] = w.shards[i].path
		}
	}
	err := digests(len(place), func(i int) error {
		s, part := want[w.layout.shards[i].name], Part{Index: w.owner[i], Of: n}.String()
		if _, err := os.Lstat(place[i]); errors.Is(err, fs.ErrNotExist) {
			return t.bad(fmt.Sprintf("%s, which part %s wrote, is missing", s.Name, part), "merge it again with --part "+part+" --force", nil)
		}
		got, err := sha256Of(place[i], w.options.Join.Verified)
		if err == nil && got != s.SHA256 {
			err = t.bad(fmt.Sprintf("%s is not what part %s wrote (its SHA-256 is another)", s.Name, part), "merge it again with --part "+part+" --force", nil)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range place {
		if to := w.shards[i].path; place[i] != to {
			if err := take(place[i], to); err != nil {
				return err
			}
		}
		w.shards[i].dirty.Store(true)
	}
	w.options.Fingerprint, w.joined, w.owner = first.Fingerprint, first.Engine, nil
	if w.journal, err = newJournal(t.partial, w.head(), nil); err != nil {
		return err
	}
	for i := range w.state {
		w.state[i].Store(resumed)
	}
	return w.rejournal()
}

// JoinedEngine is the kind of backend that computed the parts of a joined output; "" for others.
func (w *Writer) JoinedEngine() string { return w.joined }

// moved reports whether a shard of the output is in the partial directory already.
func (w *Writer) moved(i int) bool {
	st, err := os.Lstat(w.shards[i].path)
	return err == nil && st.Mode().IsRegular() && st.Size() == w.layout.shards[i].size
}

// take gives a file a second name, so that a kill loses nothing, or, where files have one name only, another.
func take(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Link(from, to); err == nil {
		return nil
	}
	return os.Rename(from, to)
}
