package report

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// Row is one line of metrics.jsonl: what was measured at a step.
type Row struct {
	Step   int
	Values map[string]float64 // by the names in the file, such as loss, lr and eval_loss; step itself is not among them
}

// FormatError is a line of metrics.jsonl that is no row.
type FormatError struct {
	File string
	Line int
	Msg  string
}

// Error is "file:line: message".
func (e *FormatError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg) }

// maxLine bounds a line, so that a file that is no log is not taken into memory.
const maxLine = 1 << 20

// ReadMetrics reads the rows of a metrics.jsonl. A run that was resumed has logged some steps twice; the later rows count. A last line
// without an end is left out, since the run may still be writing it.
func ReadMetrics(path string) ([]Row, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readMetrics(path, f)
}

func readMetrics(name string, r io.Reader) ([]Row, error) {
	var rows []Row
	in := bufio.NewReaderSize(r, maxLine)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, &FormatError{name, n, fmt.Sprintf("longer than %d bytes; is this a metrics.jsonl?", maxLine)}
		case errors.Is(err, io.EOF):
			return rows, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		row, err := parseRow(line)
		if err != nil {
			return nil, &FormatError{name, n, err.Error()}
		}
		if k := len(rows); k > 0 && row.Step < rows[k-1].Step {
			for k > 0 && rows[k-1].Step >= row.Step {
				k--
			}
			rows = rows[:k]
		}
		rows = append(rows, row)
	}
}

// parseRow reads one object. What is no number, such as a name or the null of a value that was not finite, is left out.
func parseRow(line []byte) (Row, error) {
	var fields map[string]any
	if err := json.Unmarshal(line, &fields); err != nil || fields == nil {
		return Row{}, errors.New("this is no JSON object; a row looks like {\"step\": 1, \"loss\": 2.5}")
	}
	step, ok := fields["step"].(float64)
	if !ok || step != math.Trunc(step) || step < 0 || step > 1<<40 {
		return Row{}, errors.New("the row has no step, a whole number from 0 on")
	}
	delete(fields, "step")
	row := Row{Step: int(step), Values: make(map[string]float64, len(fields))}
	for name, v := range fields {
		if f, ok := v.(float64); ok {
			row.Values[name] = f
		}
	}
	return row, nil
}

// point is a measured value at a step.
type point struct{ x, y float64 }

// series gathers the values of one name.
func series(rows []Row, name string) []point {
	var list []point
	for _, r := range rows {
		if v, ok := r.Values[name]; ok && !math.IsNaN(v) && !math.IsInf(v, 0) {
			list = append(list, point{float64(r.Step), v})
		}
	}
	return list
}

// smooth is the running mean of a series, each step counting less the longer ago it was. Its length is a twentieth of the run.
func smooth(list []point) []point {
	keep := 1 - 1/max(1, float64(len(list))/20)
	out := make([]point, len(list))
	var sum, weight float64
	for i, p := range list {
		sum = keep*sum + p.y
		weight = keep*weight + 1
		out[i] = point{p.x, sum / weight}
	}
	return out
}

// thin keeps at most about n points of a series: the lowest and the highest of each stretch, so that no spike is lost.
func thin(list []point, n int) []point {
	if len(list) <= n {
		return list
	}
	var out []point
	stretches := max(1, n/2)
	for i := range stretches {
		part := list[i*len(list)/stretches : (i+1)*len(list)/stretches]
		low, high := 0, 0
		for k, p := range part {
			if p.y < part[low].y {
				low = k
			}
			if p.y > part[high].y {
				high = k
			}
		}
		out = append(out, part[min(low, high)])
		if low != high {
			out = append(out, part[max(low, high)])
		}
	}
	return out
}
