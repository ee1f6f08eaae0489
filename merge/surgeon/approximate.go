package surgeon

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/mergekit/mergekit/internal/linalg"
)

// An approximator makes the model's rows of tokens that the model lacks. It is safe for concurrent use.
type approximator interface {
	// rows sets out [len(ids), width] to the rows of the donor's tokens ids.
	rows(out []float32, ids []int32) error
}

// site is one matrix of the model, and what is known about it when tokens are approximated.
type site struct {
	ctx          context.Context
	o            *Options
	name         string
	head         bool
	model, donor *subject
	marks        *landmarks
	failed       atomic.Int64 // tokens about which nothing was known, left at zero
}

// newApproximator prepares the method.
func (s *site) newApproximator() (approximator, error) {
	fromDonor := func() error {
		if err := s.marks.measure(); err != nil {
			return err
		}
		if len(s.marks.inDonor) == 0 {
			return &Error{File: s.donor.dir, Where: s.name, Msg: "no token of the donor is one of the model, so nothing tells how the two spaces lie to each other", Hint: "use subword or mean"}
		}
		return nil
	}
	switch s.o.Method {
	case "zero":
		return constant(make([]float32, s.marks.model.width)), nil
	case "mean":
		return s.mean()
	case "randn":
		return &drawn{s: s}, nil
	case "john_hewitt":
		return s.gaussian()
	case "subword":
		return &spelled{s}, nil
	}
	if err := fromDonor(); err != nil {
		return nil, err
	}
	switch s.o.Method {
	case "common_interpolation":
		return &interpolation{s}, nil
	case "omp":
		return &pursuit{s}, nil
	case "mp_rope":
		return s.turningPursuit()
	case "landmark_pca":
		return s.procrustes()
	case "stb":
		return s.tokenBasis()
	}
	return nil, fmt.Errorf("no method %s", s.o.Method)
}

// known splits tokens into those that have a row in the donor's matrix, by their places, and others, which are left at zero.
func (s *site) known(ids []int32) []int {
	var out []int
	for i, id := range ids {
		if int(id) < s.marks.donor.n {
			out = append(out, i)
		}
	}
	s.failed.Add(int64(len(ids) - len(out)))
	return out
}

// targets decodes the donor's rows of those tokens that have one.
func (s *site) targets(ids []int32) (at []int, x []float32, err error) {
	at = s.known(ids)
	some := make([]int32, len(at))
	for k, i := range at {
		some[k] = ids[i]
	}
	x = make([]float32, len(at)*s.marks.donor.width)
	return at, x, s.marks.donor.gather(x, some)
}

// put rounds a row, if it is one: what is no number is left at zero and counted.
func (s *site) put(out []float32, i int, row []float64) {
	if !finite(row) {
		s.failed.Add(1)
		return
	}
	to := out[i*len(row):][:len(row)]
	for j, v := range row {
		to[j] = float32(v)
	}
}

// constant gives every token one row.
type constant []float32

func (c constant) rows(out []float32, ids []int32) error {
	for i := range ids {
		copy(out[i*len(c):], c)
	}
	return nil
}

// moments are the mean of the model's rows that have tokens, and with square their covariance, [width, width].
func (s *site) moments(square bool) (mean, covariance []float64, err error) {
	r := s.marks.model
	d := r.width
	mean = make([]float64, d)
	if square {
		covariance = make([]float64, d*d)
	}
	var ids []int32
	for id, key := range s.model.words.key {
		if key != "" && id < r.n {
			ids = append(ids, int32(id))
		}
	}
	if len(ids) == 0 {
		return nil, nil, &Error{File: s.model.dir, Where: s.name, Msg: "has no row for any token of its own vocabulary", Hint: "check that tokenizer and weights belong together"}
	}
	buf, wide := make([]float32, blockRows*d), make([]float64, blockRows*d)
	for from := 0; from < len(ids); from += blockRows {
		some := ids[from:min(from+blockRows, len(ids))]
		n := len(some)
		if err := r.gather(buf[:n*d], some); err != nil {
			return nil, nil, err
		}
		for i, v := range buf[:n*d] {
			wide[i] = float64(v)
			mean[i%d] += float64(v)
		}
		if square {
			linalg.AddGram(covariance, 1, linalg.Of64(wide[:n*d], n, d).T(), s.o.Threads)
		}
	}
	for j := range mean {
		mean[j] /= float64(len(ids))
	}
	for i := range covariance {
		covariance[i] = covariance[i]/float64(len(ids)) - mean[i/d]*mean[i%d]
	}
	if !finite(mean) || !finite(covariance) {
		return nil, nil, &Error{File: s.model.dir, Where: s.name, Msg: "holds NaN or infinite values, so its rows have no mean", Hint: "use omp or subword"}
	}
	return mean, covariance, nil
}

func (s *site) mean() (approximator, error) {
	m, _, err := s.moments(false)
	if err != nil {
		return nil, err
	}
	row := make(constant, len(m))
	for i, v := range m {
		row[i] = float32(v)
	}
	return row, nil
}

// drawn gives every token a row of its own at random: a standard normal one, or one of the normal distribution with the mean and covariance
// of the model's rows.
type drawn struct {
	s    *site
	mean []float64
	root []float64 // covariance = rootᵀ·root, nil for a standard normal row
}

// gaussian fits the model's rows. Hewitt, 2021, "Initializing New Word Embeddings for Pretrained Language Models".
func (s *site) gaussian() (approximator, error) {
	mean, covariance, err := s.moments(true)
	if err != nil {
		return nil, err
	}
	values, vectors, err := linalg.Eigen(covariance, len(mean), s.o.Threads)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	for i, v := range values {
		f := math.Sqrt(max(v, 0))
		for j := range mean {
			vectors[i*len(mean)+j] *= f
		}
	}
	return &drawn{s, mean, vectors}, nil
}

func (g *drawn) rows(out []float32, ids []int32) error {
	d := g.s.marks.model.width
	z, row := make([]float32, d), make([]float64, d)
	for i, id := range ids {
		g.s.normal(z, "row", id)
		if g.root == nil {
			copy(out[i*d:], z)
			continue
		}
		copy(row, g.mean)
		for k, f := range z {
			for j, v := range g.root[k*d:][:d] {
				row[j] += float64(f) * v
			}
		}
		g.s.put(out, i, row)
	}
	return nil
}

// normal fills z with the random numbers of one token at this site, whatever else was drawn.
func (s *site) normal(z []float32, what string, id int32) {
	linalg.Normal(z, s.o.Seed, fmt.Sprintf("tokensurgeon %s %s %d", what, s.name, id))
}

// spelled makes a token's row of the rows of the model's tokens that spell its text.
type spelled struct{ s *site }

func (p *spelled) rows(out []float32, ids []int32) error {
	d := p.s.marks.model.width
	row, buf := make([]float64, d), make([]float32, d)
	for i, id := range ids {
		pieces := p.s.model.words.spell(p.s.donor.words, int(id), p.s.marks.model.n)
		if len(pieces) == 0 {
			p.s.failed.Add(1)
			continue
		}
		if err := combine(row, p.s.marks.model, pieces, pieceWeights(p.s.o.Subword, len(pieces), p.s.head), buf); err != nil {
			return err
		}
		p.s.put(out, i, row)
	}
	return nil
}

// pieceWeights are the weights of n pieces in order. An embedding says what has been read, so its first pieces weigh most in a weighted mean,
// and its last piece stands for the token alone; a head says what comes, and there it is the other way round.
func pieceWeights(how string, n int, head bool) []float64 {
	w := make([]float64, n)
	for i := range w {
		switch how {
		case "mean":
			w[i] = 1 / float64(n)
		case "sum":
			w[i] = 1
		case "weighted_mean":
			w[i] = float64(n - i)
			if head {
				w[i] = float64(i + 1)
			}
			w[i] /= float64(n*(n+1)) / 2
		}
	}
	if how == "first_last" {
		if head {
			w[0] = 1
		} else {
			w[n-1] = 1
		}
	}
	return w
}
