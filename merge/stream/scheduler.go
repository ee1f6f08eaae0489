package stream

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// pass is one kernel's way over one tensor, cut into units.
type pass struct {
	job   int // order: earlier jobs go first
	units int
	do    func(w *worker, unit int) error

	next, done int
	err        error
	finished   chan struct{}
}

// scheduler hands the units of active passes to workers, earliest job first.
type scheduler struct {
	engine  *Engine
	ctx     context.Context
	mu      sync.Mutex
	wake    *sync.Cond
	active  []*pass
	stopped bool // no new units
	closed  bool // no new passes will come
}

// run executes a pass and waits for it.
func (s *scheduler) run(p *pass) error {
	if p.units == 0 {
		return nil
	}
	p.finished = make(chan struct{})
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return s.cause()
	}
	at := len(s.active)
	for at > 0 && s.active[at-1].job > p.job {
		at--
	}
	s.active = append(s.active, nil)
	copy(s.active[at+1:], s.active[at:])
	s.active[at] = p
	s.mu.Unlock()
	s.wake.Broadcast()
	select {
	case <-p.finished:
	case <-s.ctx.Done():
		// Units in flight still use the pass's memory: wait until the workers let go of it.
		s.mu.Lock()
		for p.done < p.next {
			s.wake.Wait()
		}
		s.mu.Unlock()
		if p.err != nil {
			return p.err
		}
		return s.cause()
	}
	return p.err
}

func (s *scheduler) cause() error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	return errStopped
}

// finish lets the workers go.
func (s *scheduler) finish() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wake.Broadcast()
}

// take returns the next unit, waiting for one; ok is false when there will be none.
func (s *scheduler) take() (p *pass, unit int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.closed {
			return nil, 0, false
		}
		if !s.stopped && len(s.active) > 0 {
			p := s.active[0]
			unit := p.next
			p.next++
			if p.next == p.units {
				s.active = s.active[1:]
			}
			return p, unit, true
		}
		s.wake.Wait()
	}
}

// complete records the end of a unit.
func (s *scheduler) complete(p *pass, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.done++
	if err != nil && p.err == nil {
		p.err = err
		if p.next < p.units { // give up the rest
			p.units = p.next
			for i, q := range s.active {
				if q == p {
					s.active = append(s.active[:i], s.active[i+1:]...)
					break
				}
			}
		}
	}
	if p.done == p.units {
		close(p.finished)
	}
	s.wake.Broadcast()
}

// work is a worker's life.
func (s *scheduler) work() {
	debug.SetPanicOnFault(true) // a mapped file that shrinks under us is an error, not a crash
	w := newWorker(s.engine)
	defer w.close()
	for {
		p, unit, ok := s.take()
		if !ok {
			return
		}
		s.complete(p, s.guard(w, p, unit))
	}
}

func (s *scheduler) guard(w *worker, p *pass, unit int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if f, ok := r.(interface{ Addr() uintptr }); ok {
				err = fmt.Errorf("reading a mapped input failed at address %#x: the file was truncated or its disk failed during the merge; restore it and use --resume", f.Addr())
				return
			}
			err = fmt.Errorf("internal error: %v\n%s", r, debug.Stack())
		}
	}()
	return p.do(w, unit)
}
