package merge

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync"

	"github.com/mergekit/mergekit/merge/plan"
	"github.com/mergekit/mergekit/merge/vocabulary"
	"github.com/mergekit/mergekit/tensors"
)

// gatheredSource is a tensor with an axis of the vocabulary whose rows stand in the order of the output's tokens: a row is the model's
// own, another model's, a mean or zeros. Rows are looked up where they are read, so that no matrix is ever made. Rows that follow each
// other in the file are read at once.
type gatheredSource struct {
	rows  *vocabulary.Rows
	parts []part // of the models that rows are taken of
	own   int    // which of them is this one
	dtype tensors.DType
	cols  int64
	// native rounds a mean after every addition, as arithmetic in the dtype does; otherwise it is rounded once.
	native bool

	announced sync.Once // all of the model's own tensor
	once      sync.Once // the row of padding
	mean      []byte
	meanErr   error
}

// newGathered puts an input's rows together.
func newGathered(g *plan.Gather) (part, error) {
	s := &gatheredSource{rows: g.Rows, own: g.Own, dtype: g.DType, cols: 1, native: g.Native}
	for _, n := range g.Shape[1:] {
		s.cols *= int64(n)
	}
	for _, in := range g.Inputs {
		p, err := modelSource(in.Model, in.Pieces[0])
		if err != nil {
			return nil, err
		}
		s.parts = append(s.parts, p)
	}
	return s, nil
}

func (s *gatheredSource) elems() int64         { return int64(s.rows.Len()) * s.cols }
func (s *gatheredSource) DType() tensors.DType { return s.dtype }
func (s *gatheredSource) String() string {
	return s.parts[s.own].String() + ", in the order of the output's tokens"
}

// run is how many rows from row on, below end, are rows of the model's own file that follow each other.
func (s *gatheredSource) run(row, end int) (first, n int) {
	first = s.rows.Own(row)
	if first < 0 {
		return -1, 0
	}
	n = 1
	for row+n < end && s.rows.Own(row+n) == first+n {
		n++
	}
	return first, n
}

// Bytes gives elements [off, off+n): a view of the file where they are one run of it, else a copy in scratch.
func (s *gatheredSource) Bytes(off, n int64, scratch []byte) ([]byte, error) {
	if off < 0 || n < 0 || off+n > s.elems() {
		return nil, fmt.Errorf("%s: elements %d to %d are outside the tensor", s, off, off+n)
	}
	size := int64(s.dtype.Size())
	if n == 0 || s.cols == 0 {
		return scratch[:0], nil
	}
	if int64(len(scratch)) < n*size {
		scratch = make([]byte, n*size)
	}
	dst := scratch[:n*size]
	end := int((off + n + s.cols - 1) / s.cols)
	for at := off; at < off+n; {
		row := int(at / s.cols)
		within := at - int64(row)*s.cols
		first, rows := s.run(row, end)
		m := min(off+n-at, int64(max(rows, 1))*s.cols-within)
		to := dst[(at-off)*size : (at-off+m)*size]
		if first >= 0 {
			own := s.parts[s.own]
			if m == n && own.DType() == s.dtype {
				return own.Bytes(int64(first)*s.cols+within, n, scratch)
			}
			if err := s.copyRow(to, s.own, int64(first)*s.cols+within); err != nil {
				return nil, err
			}
		} else if err := s.other(to, row, within); err != nil {
			return nil, err
		}
		at += m
	}
	return dst, nil
}

// copyRow puts values of a part, from element off on, into dst.
func (s *gatheredSource) copyRow(dst []byte, which int, off int64) error {
	p := s.parts[which]
	n := int64(len(dst) / s.dtype.Size())
	if p.DType() == s.dtype {
		b, err := p.Bytes(off, n, dst)
		if err != nil {
			return err
		}
		copy(dst, b) // moves nothing where a source computes into dst
		return nil
	}
	buf := byteBuffers.Get().(*[]byte)
	defer byteBuffers.Put(buf)
	if need := int(n) * p.DType().Size(); cap(*buf) < need {
		*buf = make([]byte, need)
	}
	b, err := p.Bytes(off, n, (*buf)[:int(n)*p.DType().Size()])
	if err != nil {
		return err
	}
	return tensors.Convert(dst, s.dtype, b, p.DType())
}

// other puts a row that is not the model's own, from its element within on, into dst.
func (s *gatheredSource) other(dst []byte, row int, within int64) error {
	if s.rows.Padding(row) {
		s.once.Do(func() { s.mean, s.meanErr = s.meanRow() })
		size := int64(s.dtype.Size())
		if s.meanErr == nil {
			copy(dst, s.mean[within*size:])
		}
		return s.meanErr
	}
	from := s.rows.Common(row)
	switch len(from) {
	case 0:
		clear(dst)
		return nil
	case 1:
		return s.copyRow(dst, from[0].Input, int64(from[0].Row)*s.cols+within)
	}
	n := len(dst) / s.dtype.Size()
	sum, x := make([]float64, n), make([]float64, n)
	for _, o := range from {
		if err := readFloat64(s.parts[o.Input], x, int64(o.Row)*s.cols+within); err != nil {
			return err
		}
		for i, v := range x {
			sum[i] += v
		}
		if s.native {
			if err := encodeFloat64(dst, s.dtype, sum); err != nil {
				return err
			}
			if err := decodeFloat64(sum, dst, s.dtype); err != nil {
				return err
			}
		}
	}
	for i := range sum {
		sum[i] /= float64(len(from))
	}
	return encodeFloat64(dst, s.dtype, sum)
}

// meanRow is the mean of the rows that tokens have, summed in the order of the tokens.
func (s *gatheredSource) meanRow() ([]byte, error) {
	sum, x := make([]float64, s.cols), make([]float64, s.cols)
	b := make([]byte, s.cols*int64(s.dtype.Size()))
	for row := range s.rows.Len() {
		if s.rows.Padding(row) {
			continue
		}
		data, err := s.Bytes(int64(row)*s.cols, s.cols, b)
		if err != nil {
			return nil, err
		}
		if err := decodeFloat64(x, data, s.dtype); err != nil {
			return nil, err
		}
		for c, v := range x {
			sum[c] += v
		}
	}
	for c := range sum {
		sum[c] /= float64(s.rows.Tokens())
	}
	return b, encodeFloat64(b, s.dtype, sum)
}

// readFloat64 reads elements of a source from off on.
func readFloat64(src part, dst []float64, off int64) error {
	b, err := src.Bytes(off, int64(len(dst)), make([]byte, len(dst)*src.DType().Size()))
	if err != nil {
		return err
	}
	return decodeFloat64(dst, b, src.DType())
}

// decodeFloat64 gives values of any float dtype exactly.
func decodeFloat64(dst []float64, b []byte, dtype tensors.DType) error {
	wide := make([]byte, 8*len(dst))
	if err := tensors.Convert(wide, tensors.F64, b, dtype); err != nil {
		return err
	}
	for i := range dst {
		dst[i] = math.Float64frombits(binary.LittleEndian.Uint64(wide[8*i:]))
	}
	return nil
}

// encodeFloat64 writes values in a float dtype, rounded once.
func encodeFloat64(dst []byte, dtype tensors.DType, x []float64) error {
	wide := make([]byte, 8*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint64(wide[8*i:], math.Float64bits(v))
	}
	return tensors.Convert(dst, dtype, wide, tensors.F64)
}

// mostHints bounds how many runs of a chunk are announced: a permuted vocabulary has as many as rows, and each is a call to the system.
const mostHints = 32

// WillNeed announces the rows of a range, or where they are all over the file, once the whole of it: it is read in any case.
func (s *gatheredSource) WillNeed(off, n int64) {
	own := s.parts[s.own]
	var list [][2]int64
	if s.runs(off, n, mostHints, func(off, n int64) { list = append(list, [2]int64{off, n}) }) {
		for _, r := range list {
			own.WillNeed(r[0], r[1])
		}
		return
	}
	s.announced.Do(func() { own.WillNeed(0, own.elems()) })
}

// Release gives back what was read of the model's own file; the whole of it at the end of a tensor.
func (s *gatheredSource) Release(off, n int64) {
	own := s.parts[s.own]
	if off == 0 && n >= s.elems() {
		own.Release(0, own.elems())
		return
	}
	s.runs(off, n, mostHints, own.Release)
}

// runs calls do for the runs of the model's own rows in a range, at most so many; all says whether there are no more.
func (s *gatheredSource) runs(off, n int64, most int, do func(off, n int64)) (all bool) {
	if s.cols == 0 {
		return true
	}
	end := int(min((off+n+s.cols-1)/s.cols, int64(s.rows.Len())))
	for row := int(off / s.cols); row < end; {
		first, rows := s.run(row, end)
		if first >= 0 {
			if most == 0 {
				return false
			}
			do(int64(first)*s.cols, int64(rows)*s.cols)
			most--
		}
		row += max(rows, 1)
	}
	return true
}
