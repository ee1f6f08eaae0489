package merge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mergekit/mergekit/merge/soup"
)

// What a soup has learned so far is kept beside the output, under a hidden name, until the output is complete: a run that is stopped goes
// on from there when it is started again, with the same result.

// beside is a hidden name beside the output.
func beside(out, what string) (string, error) {
	abs, err := filepath.Abs(out)
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(abs), "."+filepath.Base(abs)+"."+what), nil
}

// keptSoup is the file.
type keptSoup struct {
	Key   string      `json:"key"`
	State *soup.State `json:"state"`
}

// soupKey identifies what learning depends on.
func (j *job) soupKey(data string) string {
	sum := sha256.Sum256([]byte(fingerprint(j.p, j.maps, j.o) + "|" + data))
	return hex.EncodeToString(sum[:])
}

// keepSoup returns how learning is kept, and what was kept by a run that was stopped. data identifies the rows.
func (j *job) keepSoup(data string) (keep func(*soup.State) error, kept func() *soup.State, err error) {
	path, err := beside(j.out, "soup")
	if err != nil {
		return nil, nil, err
	}
	key := j.soupKey(data)
	keep = func(s *soup.State) error {
		text, err := json.Marshal(keptSoup{key, s})
		if err != nil {
			return err
		}
		return writeAtomically(path, text)
	}
	kept = func() *soup.State {
		if j.o.Force && !j.o.Resume {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		var k keptSoup
		if json.NewDecoder(bytes.NewReader(text)).Decode(&k) != nil || k.Key != key {
			return nil // of another recipe or other data, or torn: learning anew gives the same
		}
		return k.State
	}
	return keep, kept, nil
}

// dropSoup removes what was kept.
func (j *job) dropSoup() error {
	path, err := beside(j.out, "soup")
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeAtomically writes a file that appears whole or not at all.
func writeAtomically(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
