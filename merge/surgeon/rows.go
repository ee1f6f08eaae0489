package surgeon

import (
	"math"

	"github.com/mergekit/mergekit/tensors"
)

// rows are the rows of a matrix in a file, decoded when they are asked for.
type rows struct {
	view     tensors.View
	n, width int
}

func openRows(c *tensors.Checkpoint, name string) (*rows, error) {
	v, err := c.View(name)
	if err != nil {
		return nil, err
	}
	return &rows{v, v.Shape[0], v.Shape[1]}, nil
}

// read decodes row i into w.
func (r *rows) read(w []float32, i int) error {
	size := r.width * r.view.DType.Size()
	return tensors.DecodeFloat32(w, r.view.Data[i*size:(i+1)*size], r.view.DType)
}

// gather decodes some rows, one below the other. Runs of ids are decoded at once.
func (r *rows) gather(w []float32, ids []int32) error {
	size := r.width * r.view.DType.Size()
	for k := 0; k < len(ids); {
		run := 1
		for k+run < len(ids) && ids[k+run] == ids[k]+int32(run) {
			run++
		}
		from := int(ids[k]) * size
		if err := tensors.DecodeFloat32(w[k*r.width:(k+run)*r.width], r.view.Data[from:from+run*size], r.view.DType); err != nil {
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

// measure sums the squares of the donor's landmarks.
func (l *landmarks) measure() error {
	l.norms = make([]float64, len(l.inDonor))
	buf := make([]float32, blockRows*l.donor.width)
	return l.blocks(buf, func(from int, block []float32, n int) {
		for i := range n {
			l.norms[from+i] = squares(block[i*l.donor.width:][:l.donor.width])
		}
	})
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
