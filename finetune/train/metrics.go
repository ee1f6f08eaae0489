package train

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// metricsLog appends rows to metrics.jsonl.
type metricsLog struct{ f *os.File }

// openMetrics opens the log of a run that has made step steps: what a run that was killed wrote beyond them is taken away, since
// it comes again.
func openMetrics(path string, step int) (*metricsLog, error) {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var kept bytes.Buffer
	lines := bufio.NewScanner(bytes.NewReader(old))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var row struct {
			Step *int `json:"step"`
		}
		// A torn last line is no row.
		if json.Unmarshal(lines.Bytes(), &row) == nil && row.Step != nil && *row.Step <= step && step > 0 {
			kept.Write(lines.Bytes())
			kept.WriteByte('\n')
		}
	}
	if err := writeFile(path, kept.Bytes()); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &metricsLog{f}, nil
}

func (l *metricsLog) add(row Metrics) error {
	raw, err := json.Marshal(row)
	if err != nil {
		return err
	}
	_, err = l.f.Write(append(raw, '\n'))
	return err
}

func (l *metricsLog) sync() error { return l.f.Sync() }

func (l *metricsLog) close() error {
	if l.f == nil {
		return nil
	}
	err := errors.Join(l.f.Sync(), l.f.Close())
	l.f = nil
	return err
}

// writeFile makes a file appear whole: a temporary name, fsync, rename.
func writeFile(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Chmod(f.Name(), 0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func writeJSON(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(raw, '\n'))
}
