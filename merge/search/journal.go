package search

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// JournalError says that a journal cannot be gone on with.
type JournalError struct{ File, Msg, Hint string }

// Error is "file: message; hint".
func (e *JournalError) Error() string { return e.File + ": " + e.Msg + "; " + e.Hint }

// head is the journal's first line.
type head struct {
	Version int    `json:"mergekit_search"`
	Key     string `json:"key"` // of what is searched
}

const journalVersion = 1

// maxJournal bounds what is read: a trial's line has some hundred bytes.
const maxJournal = 1 << 30

// journal is a file of trials that are finished.
type journal struct {
	f     *os.File
	sync  func(*os.File) error
	known map[int]Trial
}

// parseJournal reads a journal: its trials, and how many bytes of it are whole lines. None are when not even the head was written.
func parseJournal(file string, data []byte, key string) (trials map[int]Trial, valid int, err error) {
	damaged := func(line int, what string) error {
		return &JournalError{file, fmt.Sprintf("line %d %s", line, what), "the file is damaged; remove it to search anew"}
	}
	trials = map[int]Trial{}
	for line := 1; ; line++ {
		end := bytes.IndexByte(data[valid:], '\n')
		if end < 0 {
			return trials, valid, nil // what is left was torn
		}
		text := data[valid : valid+end]
		last := valid+end+1 == len(data)
		if line == 1 {
			var h head
			if err := strict(text, &h); err != nil {
				return nil, 0, &JournalError{file, "is no journal of a search", "choose another output, or remove the file"}
			}
			if h.Version != journalVersion {
				return nil, 0, &JournalError{file, fmt.Sprintf("is a journal of version %d, and this program writes %d", h.Version, journalVersion), "finish it with the program that began it, or remove it"}
			}
			if h.Key != key {
				return nil, 0, &JournalError{file, "belongs to another search: recipe, models, data or the program's version have changed since", "remove it, or use --force without --resume, to search anew"}
			}
			valid += end + 1
			continue
		}
		var t Trial
		if err := strict(text, &t); err != nil {
			if last {
				return trials, valid, nil // a line can be torn in the middle of its bytes, with what was to follow missing
			}
			return nil, 0, damaged(line, "cannot be read")
		}
		if _, twice := trials[t.Number]; twice || t.Number < 0 {
			return nil, 0, damaged(line, fmt.Sprintf("has trial %d, which cannot stand there", t.Number))
		}
		if (t.Outcome == nil) == (t.Failed == "") {
			return nil, 0, damaged(line, "has not one outcome")
		}
		trials[t.Number] = t
		valid += end + 1
	}
}

func strict(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// openJournal begins a journal, or goes on with one.
func openJournal(file, key string, resume bool, sync func(*os.File) error) (*journal, error) {
	if sync == nil {
		sync = (*os.File).Sync
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f, sync: sync, known: map[int]Trial{}}
	if err := j.begin(file, key, resume); err != nil {
		_ = f.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) begin(file, key string, resume bool) error {
	if lock(j.f) {
		return &JournalError{file, "another process is searching there", "wait for it, or choose another output"}
	}
	valid := 0
	if resume {
		data, err := io.ReadAll(io.LimitReader(j.f, maxJournal+1))
		if err != nil {
			return err
		}
		if len(data) > maxJournal {
			return &JournalError{file, "is larger than any journal of a search", "remove it to search anew"}
		}
		if j.known, valid, err = parseJournal(file, data, key); err != nil {
			return err
		}
	}
	if err := j.f.Truncate(int64(valid)); err != nil {
		return err
	}
	if _, err := j.f.Seek(int64(valid), io.SeekStart); err != nil {
		return err
	}
	if valid > 0 {
		return nil
	}
	if err := j.line(head{journalVersion, key}); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// line adds a line that is on the disk when it returns.
func (j *journal) line(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := j.f.Write(append(b, '\n')); err != nil {
		return err
	}
	return j.sync(j.f)
}

// take returns the trial if it is known. The values are to be those that the search asks for.
func (j *journal) take(file string, number int, values []float64) (*Trial, error) {
	t, ok := j.known[number]
	if !ok {
		return nil, nil
	}
	if !slices.Equal(t.Values, values) {
		return nil, &JournalError{file, fmt.Sprintf("trial %d has other values than this search asks for", number), "remove the file to search anew"}
	}
	return &t, nil
}

// Journaled says whether there is a journal with something in it.
func Journaled(file string) bool {
	st, err := os.Stat(file)
	return err == nil && st.Size() > 0
}

// Forget removes the journal of a search that is done.
func Forget(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes a new name in a directory last. Systems that cannot do it do without.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	_ = d.Sync()
	return d.Close()
}
