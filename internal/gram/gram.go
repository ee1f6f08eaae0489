// Package gram computes the inner products that matching and least squares are made of: AᵀB and ABᵀ of matrices with very many
// rows or columns, and plain products.
//
// Products are float32 over blocks of BlockRows rows, sums over blocks are float64: the error of a sum stays that of one block,
// however long the matrices are. On the Go backend all bits are the same whatever the number of threads; on XLA, graphs of padded
// shapes compute the products, so that few of them compile.
package gram

import (
	"fmt"
	"runtime"
	"strings"
	"sync"

	"github.com/gomlx/compute"

	"github.com/mergekit/mergekit/internal/linalg"
)

// BlockRows is how many products are summed in float32 before the sum goes on in float64.
const BlockRows = 512

// partElems bounds the float32 block of a sum that is computed at a time.
const partElems = 16 << 20

// Engine computes products on one backend. Its methods may be called from several goroutines.
type Engine struct {
	threads int
	graphs  *graphs // nil: linalg computes
}

// New returns an engine. An XLA backend runs graphs; for any other backend, and for none, internal/linalg computes, which is
// several times as fast as GoMLX's own Go backend. threads is for linalg; 0 is one per processor.
func New(b compute.Backend, threads int) *Engine {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	e := &Engine{threads: threads}
	if b != nil && strings.Contains(strings.ToLower(b.Name()), "xla") {
		e.graphs = newGraphs(b)
	}
	return e
}

// Threads is how many goroutines a product may use.
func (e *Engine) Threads() int { return e.threads }

// Serial is the same engine for callers that run several products at once: each on one thread.
func (e *Engine) Serial() *Engine { return &Engine{threads: 1, graphs: e.graphs} }

// Close frees what graphs hold on the backend.
func (e *Engine) Close() {
	if e.graphs != nil {
		e.graphs.close()
	}
}

// Inner adds aᵀb to sum [p, q]: a is [n, p], b [n, q], all row-major.
func (e *Engine) Inner(sum []float64, a, b []float32, n, p, q int) error {
	if err := lengths("inner product", len(sum), p*q, len(a), n*p, len(b), n*q); err != nil {
		return err
	}
	return e.add(sum, linalg.Of(a, n, p), linalg.Of(b, n, q))
}

// Outer adds abᵀ to sum [p, q]: a is [p, n], b [q, n], all row-major.
func (e *Engine) Outer(sum []float64, a, b []float32, p, q, n int) error {
	if err := lengths("outer product", len(sum), p*q, len(a), p*n, len(b), q*n); err != nil {
		return err
	}
	return e.add(sum, linalg.Of(a, p, n).T(), linalg.Of(b, q, n).T())
}

// Multiply sets dst [n, m] to a·b: a is [n, k], b [k, m].
func (e *Engine) Multiply(dst, a, b []float32, n, k, m int) error {
	if err := lengths("product", len(dst), n*m, len(a), n*k, len(b), k*m); err != nil {
		return err
	}
	if e.graphs != nil {
		return e.graphs.multiply(dst, linalg.Of(a, n, k), linalg.Of(b, k, m))
	}
	linalg.Product(dst, linalg.Of(a, n, k), linalg.Of(b, k, m), false, e.threads)
	return nil
}

func lengths(what string, pairs ...int) error {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] != pairs[i+1] {
			return fmt.Errorf("%s: operand %d has %d values instead of %d", what, i/2, pairs[i], pairs[i+1])
		}
	}
	return nil
}

// add adds aᵀb, a [n, p] and b [n, q].
func (e *Engine) add(sum []float64, a, b linalg.Matrix) error {
	n, p, q := a.Rows, a.Cols, b.Cols
	if p == 0 || q == 0 || n == 0 {
		return nil
	}
	if e.graphs != nil {
		return e.graphs.inner(sum, a, b)
	}
	rows := min(p, max(1, partElems/q))
	part := make([]float32, rows*q)
	for i := 0; i < p; i += rows {
		h := min(rows, p-i)
		for k := 0; k < n; k += BlockRows {
			d := min(BlockRows, n-k)
			linalg.Product(part[:h*q], a.Cut(k, k+d, i, i+h).T(), b.Cut(k, k+d, 0, q), false, e.threads)
			accumulate(sum[i*q:][:h*q], part, e.threads)
		}
	}
	return nil
}

// accumulate adds part to sum; an element has one adder, so that threads change no bits.
func accumulate(sum []float64, part []float32, threads int) {
	const worth = 1 << 17
	threads = max(1, min(threads, len(sum)/worth))
	if threads == 1 {
		for i, x := range part[:len(sum)] {
			sum[i] += float64(x)
		}
		return
	}
	var wait sync.WaitGroup
	for t := range threads {
		from, to := len(sum)*t/threads, len(sum)*(t+1)/threads
		wait.Go(func() {
			s := sum[from:to]
			for i, x := range part[from:to] {
				s[i] += float64(x)
			}
		})
	}
	wait.Wait()
}
