package train

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mergekit/mergekit/internal/tfevents"
)

// The names of what is logged in a run directory.
const (
	metricsName = "metrics.jsonl"
	boardName   = "tensorboard"
)

// metricsLog appends rows to metrics.jsonl, and where that is wanted to an event file of TensorBoard.
type metricsLog struct {
	f     *os.File
	board *tfevents.Writer // nil: none
}

// openMetrics opens the log of a run in dir that has made step steps: what a run that was killed wrote beyond them is taken away, since
// it comes again.
func openMetrics(dir string, step int, board bool) (*metricsLog, error) {
	path := filepath.Join(dir, metricsName)
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
	l := &metricsLog{f: f}
	if board {
		if step == 0 { // nothing of a run that was killed before its first checkpoint counts
			if err := os.RemoveAll(filepath.Join(dir, boardName)); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		if l.board, err = tfevents.Create(filepath.Join(dir, boardName), time.Now(), int64(step)+1); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return l, nil
}

// scalars are a row's numbers under the names that transformers' Trainer and TRL give them.
func (row *Metrics) scalars() (list []tfevents.Scalar) {
	add := func(tag string, v *float64) {
		if v != nil {
			list = append(list, tfevents.Scalar{Tag: tag, Value: *v})
		}
	}
	add("train/loss", row.Loss)
	add("train/mean_token_accuracy", row.Accuracy)
	add("train/learning_rate", row.LR)
	add("train/grad_norm", row.GradNorm)
	add("train/pull", row.Pull)
	if row.LR != nil { // a step
		tokens := float64(row.Tokens)
		add("train/epoch", &row.Epoch)
		add("train/num_tokens", &tokens)
		if row.TokPerS > 0 {
			add("train/tokens_per_second", &row.TokPerS)
		}
	}
	add("eval/loss", row.EvalLoss)
	add("eval/perplexity", row.EvalPPL)
	add("eval/mean_token_accuracy", row.EvalAccuracy)
	for _, name := range slices.Sorted(maps.Keys(row.Domains)) {
		v := row.Domains[name]
		add("eval/loss/"+name, &v)
	}
	return list
}

func (l *metricsLog) add(row Metrics) error {
	raw, err := json.Marshal(row)
	if err != nil {
		return err
	}
	if _, err = l.f.Write(append(raw, '\n')); err == nil && l.board != nil {
		err = l.board.Add(time.Now(), int64(row.Step), row.scalars()...)
	}
	return err
}

func (l *metricsLog) sync() error {
	err := l.f.Sync()
	if l.board != nil {
		err = errors.Join(err, l.board.Sync())
	}
	return err
}

func (l *metricsLog) close() error {
	if l.f == nil {
		return nil
	}
	err := errors.Join(l.sync(), l.f.Close())
	if l.board != nil {
		err = errors.Join(err, l.board.Close())
	}
	l.f, l.board = nil, nil
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
