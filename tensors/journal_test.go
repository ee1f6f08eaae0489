package tensors

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// quickDisk never waits for the disk: for tests without a power cut.
func quickDisk() disk {
	d := realDisk()
	d.datasync = func(*os.File) error { return nil }
	return d
}

// partialOf is where an output comes to be.
func partialOf(dir string) string {
	return filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".partial")
}

// recordedIn returns the tensors that an output's journal lists now.
func recordedIn(t *testing.T, dir string) []int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(partialOf(dir), journalName))
	if err != nil {
		t.Fatal(err)
	}
	_, done, _, ok := parseJournal(text)
	if !ok {
		t.Fatalf("no journal: %q", text)
	}
	return done
}

// A power cut keeps only what was synced. So whatever the journal says at any moment must have been synced before, and all
// files must be when the output appears.
func TestRecordedMeansOnTheDisk(t *testing.T) {
	infos, data := sample()
	dir := filepath.Join(t.TempDir(), "out")
	l, err := plan(infos, 9000, nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	durable := map[string][]byte{} // by file name, as of its last sync
	seen, appeared := 0, false
	d := realDisk()
	d.datasync = func(f *os.File) error {
		now, err := os.ReadFile(f.Name())
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if filepath.Base(f.Name()) == journalName { // may reach the disk from here on, sync or no sync
			_, done, _, ok := parseJournal(now)
			if !ok {
				t.Errorf("a journal that cannot be read: %q", now)
			}
			for _, i := range done {
				at := l.place[i]
				kept := durable[l.shards[at.shard].name]
				if int64(len(kept)) < at.off+at.n || !bytes.Equal(kept[at.off:at.off+at.n], data[i]) {
					t.Errorf("%s is recorded, but a power cut would lose it", infos[i].Name)
				}
			}
			seen = max(seen, len(done))
		}
		durable[filepath.Base(f.Name())] = now
		return nil
	}
	d.rename = func(from, to string) error {
		mu.Lock()
		defer mu.Unlock()
		appeared = true
		got := files(t, from)
		if len(got) != len(l.shards)+2 { // the index and config.json
			t.Errorf("%d files appear, want %d", len(got), len(l.shards)+2)
		}
		for name, text := range got {
			if string(durable[name]) != text {
				t.Errorf("%s appears, but a power cut would lose some of it", name)
			}
		}
		return os.Rename(from, to)
	}
	w, err := create(dir, infos, WriteOptions{ShardBytes: 9000}, d)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.WriteFile("config.json", []byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	// Flushes run beside the writes, as they do in a merge.
	var writers, flushes sync.WaitGroup
	stop := make(chan struct{})
	flushes.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := w.flusher.flush(); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
		}
	})
	for worker := range 3 {
		writers.Go(func() {
			for i := worker; i < len(infos); i += 3 {
				for off := 0; off < len(data[i]); off += 500 {
					if err := w.WriteAt(i, data[i][off:min(off+500, len(data[i]))], int64(off)); err != nil {
						t.Error(err)
					}
					time.Sleep(100 * time.Microsecond)
				}
				if err := w.Finish(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	flushes.Wait()
	if err := w.flusher.flush(); err != nil {
		t.Fatal(err)
	}
	if got := recordedIn(t, dir); len(got) != len(infos) || seen != len(infos) {
		t.Errorf("%v are recorded, %d were seen, want all %d", got, seen, len(infos))
	}
	if err := w.Commit(); err != nil || !appeared {
		t.Fatalf("%v, appeared: %v", err, appeared)
	}
}

// A kill loses about a second's work, and less when much was written.
func TestJournalFollowsTheWork(t *testing.T) {
	infos, data := sample()
	dir := filepath.Join(t.TempDir(), "out")
	w, err := create(dir, infos, WriteOptions{}, quickDisk())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	wait := func(n int) time.Duration {
		begin := time.Now()
		for len(recordedIn(t, dir)) < n {
			if time.Since(begin) > 20*interval {
				t.Fatalf("%d tensors are not recorded after %v", n, 20*interval)
			}
			time.Sleep(2 * time.Millisecond)
		}
		return time.Since(begin)
	}
	finish := func(i int) {
		if err := errors.Join(w.WriteAt(i, data[i], 0), w.Finish(i)); err != nil {
			t.Fatal(err)
		}
	}
	var took time.Duration
	const quick = 5
	for i := range quick {
		w.flusher.bytes.Store(flushBytes)
		finish(i)
		took += wait(i + 1)
	}
	if took > (quick-2)*interval {
		t.Errorf("%d flushes took %v: they waited for the clock, not for the bytes", quick, took)
	}
	finish(quick)
	wait(quick + 1)
}

// A journal that was cut, or that lost or changed bits in its records, never keeps a merge from going on: no --force needed.
// Changed bits in its first line may make it another's; then it is refused, and nothing is touched.
func TestTornJournalNeedsNoForce(t *testing.T) {
	root, infos, data, o, want := wanted(t)
	kept := filepath.Join(root, "kept")
	interrupt(t, kept, infos, data, 7, o)
	before := files(t, partialOf(kept))
	text := before[journalName]
	head := strings.IndexByte(text, '\n') + 1
	type torn struct {
		text   string
		refuse bool
	}
	var cases []torn
	for n := range len(text) {
		cases = append(cases, torn{text: text[:n]})
	}
	for i := range text {
		b := []byte(text)
		b[i] ^= 1
		cases = append(cases, torn{string(b), i < head})
	}
	for i := head; i < len(text); i += recordSize { // a record lost in the middle; a page of zeros, as after a power cut
		cases = append(cases, torn{text: text[:i] + text[i+recordSize:]}, torn{text: text[:i] + strings.Repeat("\x00", len(text)-i)})
	}
	refused := 0
	o.Resume = true
	dir := filepath.Join(root, "out")
	partial := partialOf(dir)
	for k, c := range cases {
		if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(partial), os.Mkdir(partial, 0o777)); err != nil {
			t.Fatal(err)
		}
		for name, b := range before {
			writeFile(t, partial, name, []byte(b))
		}
		writeFile(t, partial, journalName, []byte(c.text))
		found := files(t, partial)
		w, err := create(dir, infos, o, quickDisk())
		if err != nil {
			if !c.refuse || !errors.As(err, new(*FormatError)) || !strings.Contains(err.Error(), "use --force to start again") {
				t.Fatalf("journal %d, %q: %v", k, c.text, err)
			}
			refused++
			same(t, files(t, partial), found)
			continue
		}
		garbled := slices.Clone(data)
		for i := range infos {
			if w.Done(i) { // must be there already: what is written now does not count
				garbled[i] = bytes.Repeat([]byte{0x77}, len(data[i]))
			}
		}
		if err := errors.Join(fill(w, garbled, -1), w.WriteFile("config.json", []byte("{}\n")), w.Commit()); err != nil {
			t.Fatalf("journal %d: %v", k, err)
		}
		same(t, files(t, dir), want)
		if t.Failed() {
			t.Fatalf("journal %d: %q", k, c.text)
		}
	}
	if refused == 0 {
		t.Error("a journal of another fingerprint was taken")
	}
}

// What follows a torn record is gone for good: records of the next run must not make it valid again.
func TestTornTailIsCut(t *testing.T) {
	infos, data := sample()
	dir := filepath.Join(t.TempDir(), "out")
	o := WriteOptions{ShardBytes: 9000, Fingerprint: "this"}
	interrupt(t, dir, infos, data, 7, o)
	before := recordedIn(t, dir)
	text := []byte(files(t, partialOf(dir))[journalName])
	text[bytes.IndexByte(text, '\n')+1+3*recordSize] ^= 1 // the fourth record
	writeFile(t, partialOf(dir), journalName, text)
	o.Resume = true
	w, err := create(dir, infos, o, quickDisk())
	if err != nil {
		t.Fatal(err)
	}
	last := before[len(before)-1]
	if err := errors.Join(w.WriteAt(last, data[last], 0), w.Finish(last), w.Close()); err != nil {
		t.Fatal(err)
	}
	if got, want := recordedIn(t, dir), append(slices.Clone(before[:3]), last); !slices.Equal(got, want) {
		t.Errorf("%v are recorded, want %v", got, want)
	}
}

// What is beside the output under the name of its partial directory, and is none.
func TestForeignPartial(t *testing.T) {
	infos, data := sample()
	o := WriteOptions{ShardBytes: 9000, Fingerprint: "this"}
	resume, force := o, o
	resume.Resume, force.Force = true, true
	refused := func(t *testing.T, dir string, says string, options ...WriteOptions) {
		t.Helper()
		for _, o := range options {
			w, err := Create(dir, infos, o)
			if err == nil {
				w.Close()
			}
			if !errors.As(err, new(*FormatError)) || !strings.Contains(err.Error(), says) {
				t.Errorf("%v, want %q", err, says)
			}
		}
	}
	t.Run("a file", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		writeFile(t, filepath.Dir(dir), ".out.partial", []byte("precious"))
		refused(t, dir, ".out.partial beside it is not a directory; remove it", o, resume, force)
		same(t, files(t, filepath.Dir(dir)), map[string]string{".out.partial": "precious"})
	})
	t.Run("a link to a directory", func(t *testing.T) {
		dir, precious := filepath.Join(t.TempDir(), "out"), t.TempDir()
		writeFile(t, precious, "thesis", nil)
		if err := os.Symlink(precious, partialOf(dir)); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "is not a directory", o, resume, force)
		same(t, files(t, precious), map[string]string{"thesis": ""})
	})
	for _, c := range []struct {
		name string
		o    WriteOptions
	}{{"resume", resume}, {"force", force}} {
		t.Run("a directory without a journal, "+c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "out")
			if err := os.MkdirAll(filepath.Join(partialOf(dir), "below"), 0o777); err != nil {
				t.Fatal(err)
			}
			writeFile(t, partialOf(dir), "model-00001-of-00005.safetensors", []byte("torn while it was laid out"))
			refused(t, dir, "an interrupted merge is in .out.partial", o)
			write(t, dir, infos, data, c.o)
			nothing(t, filepath.Dir(dir), "out")
			nothing(t, dir, "config.json", "model.safetensors.index.json", "model-00001-of-00005.safetensors", "model-00002-of-00005.safetensors",
				"model-00003-of-00005.safetensors", "model-00004-of-00005.safetensors", "model-00005-of-00005.safetensors")
		})
	}
	t.Run("side files of the interrupted run", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		w, err := Create(dir, infos, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fill(w, data, 4), w.WriteFile("old.json", []byte("old")), w.WriteFile("config.json", []byte("old and longer")), w.Close()); err != nil {
			t.Fatal(err)
		}
		if w.Close() != nil {
			t.Error("a second Close fails")
		}
		for range 2 { // an interrupted output can be interrupted again
			if w, err = Create(dir, infos, resume); err != nil {
				t.Fatal(err)
			}
			done := 0
			for i := range infos {
				if w.Done(i) {
					done++
				}
			}
			if done != 4 || w.Done(-1) || w.Done(len(infos)) {
				t.Errorf("%d tensors are done, want 4", done)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		write(t, dir, infos, data, resume)
		if got := files(t, dir); got["config.json"] != "{}\n" || got["old.json"] != "" {
			t.Errorf("config.json is %q, old.json is %q", got["config.json"], got["old.json"])
		}
	})
	t.Run("nothing finished leaves nothing", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		w, err := Create(dir, infos, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.WriteAt(0, data[0][:5], 0), w.Close()); err != nil {
			t.Fatal(err)
		}
		nothing(t, filepath.Dir(dir))
	})
	t.Run("a power cut while it was laid out", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		interrupt(t, dir, infos, data, 2, o)
		text := files(t, partialOf(dir))[journalName]
		if err := os.RemoveAll(partialOf(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(partialOf(dir), 0o777); err != nil {
			t.Fatal(err)
		}
		writeFile(t, partialOf(dir), journalName, []byte(text)) // but no shard reached the disk
		refused(t, dir, "is damaged: model-00001-of-00005.safetensors is not what was laid out; use --force", resume)
		writeFile(t, partialOf(dir), journalName, []byte(text[:strings.IndexByte(text, '\n')+1]))
		write(t, dir, infos, data, resume) // nothing was recorded, so nothing is lost
	})
	t.Run("resume without an interrupted output", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "out")
		write(t, dir, infos, data, resume)
		if n := len(open(t, dir).Names()); n != len(infos) {
			t.Errorf("%d tensors", n)
		}
	})
}

// Records are eighteen bytes, whatever the number, and the first line is readable by other programs.
func TestJournalText(t *testing.T) {
	dir := t.TempDir()
	head := journalHead{Version: 1, Fingerprint: "line\nbreak", Layout: "l", Tensors: 1 << 20, Bytes: 5}
	j, err := newJournal(dir, head, []int{0, 1<<20 - 1})
	if err != nil {
		t.Fatal(err)
	}
	synced := 0
	if err := j.record([]int{77}, func(*os.File) error { synced++; return nil }); err != nil || synced != 1 {
		t.Fatalf("%v, %d syncs", err, synced)
	}
	if err := j.f.Close(); err != nil {
		t.Fatal(err)
	}
	text := files(t, dir)[journalName]
	got, done, valid, ok := parseJournal([]byte(text))
	if !ok || got != head || fmt.Sprint(done) != "[0 1048575 77]" || valid != int64(len(text)) {
		t.Errorf("%+v, %v, %d of %d bytes, %v", got, done, valid, len(text), ok)
	}
	if n := len(text) - strings.IndexByte(text, '\n') - 1; n != 3*recordSize {
		t.Errorf("three records have %d bytes", n)
	}
	for _, bad := range []string{"", "\n", "{}\n", `{"mergekit_journal":2}` + "\n", `{"mergekit_journal":1,"tensors":-1}` + "\n", `{"mergekit_journal":1}`} {
		if _, _, _, ok := parseJournal([]byte(bad)); ok {
			t.Errorf("%q is taken for a journal", bad)
		}
	}
}
