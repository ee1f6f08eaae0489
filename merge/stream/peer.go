package stream

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/mergekit/mergekit/merge/method"
)

// mersenne is MT19937 (Matsumoto and Nishimura, 1998), the generator behind the peer's CPU random numbers, seeded by
// init_genrand with the low 32 bits of the seed.
type mersenne struct {
	state [624]uint32
	index int
}

func newMersenne(seed uint64) *mersenne {
	m := &mersenne{index: 624}
	m.state[0] = uint32(seed)
	for i := 1; i < 624; i++ {
		p := m.state[i-1]
		m.state[i] = 1812433253*(p^p>>30) + uint32(i)
	}
	return m
}

// twist replaces the state by the next 624 words.
func (m *mersenne) twist() {
	mix := func(a, b uint32) uint32 {
		y := a&0x80000000 | b&0x7fffffff
		return y>>1 ^ -(b&1)&0x9908b0df
	}
	s := &m.state
	for i := 0; i < 227; i++ {
		s[i] = s[i+397] ^ mix(s[i], s[i+1])
	}
	for i := 227; i < 623; i++ {
		s[i] = s[i-227] ^ mix(s[i], s[i+1])
	}
	s[623] = s[396] ^ mix(s[623], s[0])
	m.index = 0
}

// next returns the next 32-bit output.
func (m *mersenne) next() uint32 {
	if m.index == 624 {
		m.twist()
	}
	y := m.state[m.index]
	m.index++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

// skip drops n outputs.
func (m *mersenne) skip(n int64) {
	for n > 0 {
		if m.index == 624 {
			m.twist()
		}
		step := min(n, int64(624-m.index))
		m.index += int(step)
		n -= step
	}
}

// peerStreams are the positions of one job's draws in the peer's sequence.
type peerStreams struct {
	chunk  int64
	draws  []method.Draw
	starts [][]mersenne // per draw: the generator at each chunk's first element
}

// at finds the draws of an input.
func (p *peerStreams) at(input int) (draw int, err error) {
	if p != nil {
		for i, d := range p.draws {
			if d.Input == input {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("the method draws random values for input %d without having announced them", input)
}

func isPeerStream(name string) bool { return strings.HasPrefix(name, "peer.") }

// fill writes the raw outputs for elements from off on.
func (p *peerStreams) fill(name string, dst []uint32, off int64) error {
	var input int
	if _, err := fmt.Sscanf(name, "peer.%d", &input); err != nil {
		return err
	}
	d, err := p.at(input)
	if err != nil {
		return err
	}
	for len(dst) > 0 {
		c := off / p.chunk
		m := p.starts[d][c] // a copy: other units read the same start
		m.skip(off - c*p.chunk)
		n := min(int64(len(dst)), (c+1)*p.chunk-off)
		for i := range dst[:n] {
			dst[i] = m.next()
		}
		dst, off = dst[n:], off+n
	}
	return nil
}

// sample draws integers below n with replacement, as the peer does: outputs modulo n, two outputs each from 2^28 on.
func (p *peerStreams) sample(count int, n int64) ([]int64, error) {
	d, err := p.at(-1)
	if err != nil {
		return nil, err
	}
	m := p.starts[d][0]
	out := make([]int64, count)
	for i := range out {
		if n < 1<<28 {
			out[i] = int64(m.next()) % n
		} else {
			hi := uint64(m.next())
			out[i] = int64((hi<<32 | uint64(m.next())) % uint64(n))
		}
	}
	return out, nil
}

// peerFeeder walks the peer's one sequence over all jobs in order, no further ahead than jobs have started, and notes the
// generator's state wherever a chunk begins: 2.5 kB a chunk, dropped with the job.
type peerFeeder struct {
	mu    sync.Mutex
	moved *sync.Cond
	jobs  []*Job
	next  int
	gen   *mersenne
	chunk int64
	ready map[*Job]*peerStreams
}

func newPeerFeeder(_ context.Context, e *Engine, jobs []*Job) *peerFeeder {
	f := &peerFeeder{jobs: jobs, chunk: e.chunk, ready: map[*Job]*peerStreams{}}
	f.moved = sync.NewCond(&f.mu)
	return f
}

func drawsOf(j *Job) []method.Draw {
	if j.Method == nil || j.Method.Draws == nil || j.Task.RNG != method.Peer {
		return nil
	}
	return j.Method.Draws(&j.Task)
}

// wait returns the streams of a job, walking the sequence up to it.
func (f *peerFeeder) wait(job *Job) (*peerStreams, error) {
	if job.Method == nil || job.Method.Draws == nil || job.Task.RNG != method.Peer {
		return nil, nil
	}
	if len(drawsOf(job)) == 0 { // nothing of the sequence is this job's, and jobs that wait for theirs may have walked past it
		return &peerStreams{chunk: f.chunk}, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.ready[job] == nil {
		if f.next == len(f.jobs) {
			return nil, fmt.Errorf("%s: not in the list of jobs", job.Task.Name)
		}
		j := f.jobs[f.next]
		f.next++
		draws := drawsOf(j)
		if len(draws) == 0 {
			continue
		}
		if f.gen == nil {
			f.gen = newMersenne(j.Task.Seed)
		}
		p := &peerStreams{chunk: f.chunk, draws: draws, starts: make([][]mersenne, len(draws))}
		for d, draw := range draws {
			if draw.Wide {
				return nil, fmt.Errorf("%s: the peer's generator is not reproduced for float64 probabilities; set dtype: float32 or use --rng counter", j.Task.Name)
			}
			for off := int64(0); off < draw.Count; off += f.chunk {
				if !j.Done && (off == 0 || draw.Input >= 0) {
					p.starts[d] = append(p.starts[d], *f.gen)
				}
				f.gen.skip(min(f.chunk, draw.Count-off))
			}
		}
		f.ready[j] = p
	}
	return f.ready[job], nil
}

func (f *peerFeeder) release(job *Job) {
	f.mu.Lock()
	delete(f.ready, job)
	f.mu.Unlock()
}
