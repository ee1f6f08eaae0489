package samples

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/mergekit/mergekit/model"
)

// bytesPerField is more than any number that a program writes takes.
const bytesPerField = 64

// csv reads comma-separated lines from r, unpacking them if they are gzipped.
func (s *Set) csv(r io.Reader, path string, d *model.PlainDescription, o Options) error {
	bad := func(line int, format string, args ...any) error {
		file := path
		if line > 0 {
			file = fmt.Sprintf("%s:%d", path, line)
		}
		return &model.InputError{File: file, Msg: fmt.Sprintf(format, args...)}
	}
	raw := bufio.NewReader(r)
	if magic, _ := raw.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(raw)
		if err != nil {
			return bad(0, "cannot be unpacked: %v", err)
		}
		defer z.Close() //nolint:errcheck // of reading
		r = z
	} else {
		r = raw
	}
	label := 1 // columns of a label
	if d.Loss == model.SquaredError {
		label = s.given
	}
	// A line is held whole, so it may be no longer than its columns need.
	in := bufio.NewReaderSize(r, min((s.width+label)*bytesPerField+4096, 1<<30))
	fields := make([]float64, 0, s.width+label)
	for line := 1; ; line++ {
		text, err := in.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return bad(line, "the line is longer than an example of %d values can be", s.width)
		case err != nil && !errors.Is(err, io.EOF):
			return bad(line, "cannot be read on: %v", err)
		}
		last := err != nil
		if line == 1 {
			text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			var columns, names, first int
			fields, columns, names, first = numbers(fields[:0], text, s.width+label)
			switch {
			case line == 1 && names == columns:
				// a header
			case names > 0:
				return bad(line, "column %d is no number", first)
			default:
				if err := s.add(fields, columns, label, line, d, o, bad); err != nil {
					return err
				}
			}
		}
		if last || o.Max > 0 && s.N == o.Max {
			break
		}
	}
	if s.N == 0 {
		return bad(0, "holds no examples")
	}
	return nil
}

// numbers splits a line. It returns its fields, at most most of them, the number of columns, how many of them are no numbers, and the
// first one that is none. NaN and infinities are no numbers here.
func numbers(fields []float64, text []byte, most int) (out []float64, columns, names, first int) {
	for more := true; more; columns++ {
		var field []byte
		field, text, more = bytes.Cut(text, []byte{','})
		field = bytes.TrimSpace(field)
		if n := len(field); n >= 2 && field[0] == '"' && field[n-1] == '"' {
			field = field[1 : n-1]
		}
		v, ok := number(field)
		if !ok {
			if names++; first == 0 {
				first = columns + 1
			}
		}
		if len(fields) < most {
			fields = append(fields, v)
		}
	}
	return fields, columns, names, first
}

func number(field []byte) (float64, bool) {
	if len(field) > 0 && len(field) < 9 { // bytes of images, mostly
		n := 0
		for _, c := range field {
			if c < '0' || c > '9' {
				n = -1
				break
			}
			n = 10*n + int(c-'0')
		}
		if n >= 0 {
			return float64(n), true
		}
	}
	v, err := strconv.ParseFloat(string(field), 64)
	return v, err == nil && !math.IsNaN(v) && math.Abs(v) <= math.MaxFloat32
}

// add takes a line's fields as an example.
func (s *Set) add(fields []float64, columns, label, line int, d *model.PlainDescription, o Options, bad func(line int, format string, args ...any) error) error {
	labelled := columns == s.width+label
	switch {
	case columns != s.width && !labelled:
		return bad(line, "has %d columns; an example of %v is %d values, and %d with its label", columns, d.Input, s.width, s.width+label)
	case s.N > 0 && columns != s.columns:
		return bad(line, "has %d columns, the lines before have another number", columns)
	case len(s.X)+len(fields) > maxValues:
		return bad(line, "the file holds more than %d numbers; use a part of it (samples)", maxValues)
	}
	s.columns, s.Labelled = columns, labelled && !o.Unlabelled
	x, y := fields, []float64(nil)
	if labelled {
		x, y = fields[:s.width], fields[s.width:]
		if o.LabelFirst {
			x, y = fields[label:], fields[:label]
		}
	}
	for _, v := range x {
		f := v / o.Divide
		if math.Abs(f) > math.MaxFloat32 {
			return bad(line, "%v divided by %v is no float32", v, o.Divide)
		}
		s.X = append(s.X, float32(f))
	}
	s.N++
	if !labelled || o.Unlabelled {
		return nil
	}
	if d.Loss == model.SquaredError {
		for _, v := range y {
			s.Labels.Values = append(s.Labels.Values, float32(v))
		}
		return nil
	}
	if c := y[0]; c != math.Trunc(c) || c < 0 || c >= float64(s.given) {
		where := "last"
		if o.LabelFirst {
			where = "first"
		}
		return bad(line, "the %s column is %v; it is the class, a whole number from 0 to %d", where, c, s.given-1)
	}
	s.Labels.Classes = append(s.Labels.Classes, int32(y[0]))
	return nil
}
