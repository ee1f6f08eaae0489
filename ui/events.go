package ui

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// How often a page hears of progress, and how often at least it hears anything.
const (
	tellEvery  = 200 * time.Millisecond
	aliveEvery = 15 * time.Second
)

// events is a response of server-sent events.
type events struct {
	w  http.ResponseWriter
	rc *http.ResponseController
	mu sync.Mutex
}

func newEvents(w http.ResponseWriter) *events {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	e := &events{w: w, rc: http.NewResponseController(w)}
	_ = e.rc.Flush()
	return e
}

// send writes an event. A page that has gone ends the request's context, so that errors need no attention.
func (e *events) send(name string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		name, b = "failed", []byte(`{"error":"a figure is too large to be shown"}`)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprintf(e.w, "event: %s\ndata: %s\n\n", name, b)
	_ = e.rc.Flush()
}

// alive keeps the connection from looking dead.
func (e *events) alive() {
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprint(e.w, ":\n\n")
	_ = e.rc.Flush()
}

// told makes a handler of a long work that belongs to the page: "progress" events, then one that is "done" or "failed". It ends when
// the page closes.
func told(work func(ctx context.Context, r *http.Request, told func(done, total int64)) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := newEvents(w)
		v, err := work(r.Context(), r, func(done, total int64) { e.send("progress", map[string]int64{"done": done, "total": total}) })
		switch {
		case r.Context().Err() != nil:
		case err != nil:
			e.send("failed", map[string]string{"error": err.Error()})
		default:
			e.send("done", v)
		}
	})
}

// meter counts bytes and tells of them now and then.
type meter struct {
	mu    sync.Mutex
	done  int64
	total int64
	last  time.Time
	told  func(done, total int64)
}

func newMeter(total int64, told func(done, total int64)) *meter {
	return &meter{total: total, told: told}
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	if now := time.Now(); now.Sub(m.last) >= tellEvery {
		m.last = now
		m.told(m.done, m.total)
	}
}
