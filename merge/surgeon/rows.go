package surgeon

import (
	"errors"
	"math"

	"github.com/mergekit/mergekit/tensors"
)

// rows are the rows of a matrix in a file, decoded when they are asked for.
type rows struct {
	*tensors.Reader
	n, width int
	size     int // bytes of a row
}

func openRows(c *tensors.Checkpoint, name string) (*rows, error) {
	r, err := c.Reader(name)
	if err != nil {
		return nil, err
	}
	return &rows{r, r.Shape[0], r.Shape[1], r.Shape[1] * r.DType.Size()}, nil
}

// raw are the bytes of n rows from row i on.
func (r *rows) raw(i, n int) ([]byte, error) {
	return r.Bytes(int64(i)*int64(r.size), int64(n)*int64(r.size), nil)
}

// read decodes row i into w.
func (r *rows) read(w []float32, i int) error {
	raw, err := r.raw(i, 1)
	if err != nil {
		return err
	}
	return tensors.DecodeFloat32(w, raw, r.DType)
}

// gather decodes some rows, one below the other. Runs of ids are decoded at once.
func (r *rows) gather(w []float32, ids []int32) error {
	for k := 0; k < len(ids); {
		run := 1
		for k+run < len(ids) && ids[k+run] == ids[k]+int32(run) {
			run++
		}
		raw, err := r.raw(int(ids[k]), run)
		if err != nil {
			return err
		}
		if err := tensors.DecodeFloat32(w[k*r.width:(k+run)*r.width], raw, r.DType); err != nil {
			return err
		}
		k += run
	}
	return nil
}

// landmarks are the tokens that both models have: their rows in the donor's matrix and in the model's.
type landmarks struct {
	donor, model   *rows
	inDonor, inOwn []int32 // row numbers, side by side, in the order of the donor's
	norms          []float64
}

// blockRows is how many landmarks are decoded at a time.
const blockRows = 256

// blocks decodes the donor's landmarks block by block. buf has room for blockRows of them.
func (l *landmarks) blocks(buf []float32, do func(from int, block []float32, n int)) error {
	for from := 0; from < len(l.inDonor); from += blockRows {
		ids := l.inDonor[from:min(from+blockRows, len(l.inDonor))]
		block := buf[:len(ids)*l.donor.width]
		if err := l.donor.gather(block, ids); err != nil {
			return err
		}
		do(from, block, len(ids))
	}
	return nil
}

// measure sums the squares of the donor's landmarks, and drops those that are no numbers, there or in the model.
func (l *landmarks) measure() error {
	norms := make([]float64, len(l.inDonor))
	buf, own := make([]float32, blockRows*l.donor.width), make([]float32, blockRows*l.model.width)
	var failed error
	err := l.blocks(buf, func(from int, block []float32, n int) {
		if err := l.model.gather(own[:n*l.model.width], l.inOwn[from:from+n]); err != nil {
			failed = err
			return
		}
		for i := range n {
			norms[from+i] = squares(block[i*l.donor.width:][:l.donor.width])
			if there := squares(own[i*l.model.width:][:l.model.width]); there-there != 0 {
				norms[from+i] = there
			}
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	k := 0
	for i, v := range norms {
		if v-v == 0 {
			l.inDonor[k], l.inOwn[k], norms[k] = l.inDonor[i], l.inOwn[i], v
			k++
		}
	}
	l.inDonor, l.inOwn, l.norms = l.inDonor[:k], l.inOwn[:k], norms[:k]
	return nil
}

func squares(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

// combine adds up the model's rows of some landmarks, or of its tokens, with weights.
func combine(out []float64, r *rows, ids []int32, weights []float64, buf []float32) error {
	clear(out)
	for k, id := range ids {
		if err := r.read(buf, int(id)); err != nil {
			return err
		}
		for j, v := range buf {
			out[j] += weights[k] * float64(v)
		}
	}
	return nil
}

func finite(x []float64) bool {
	for _, v := range x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}
