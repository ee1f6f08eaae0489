package ui

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mergekit/mergekit/merge"
	"github.com/mergekit/mergekit/merge/plan"
)

//go:embed page
var pageFiles embed.FS

// Options of a server.
type Options struct {
	Dir string
	// Merge says how runs merge, and what looks at tensors: backend, threads, memory, version. What a run asks for itself, such as what
	// it replaces, is set by the page.
	Merge merge.Options
	// Say hears how runs ended; may be nil.
	Say func(message string)
	// Fetch brings models that are not on this machine for a run, and tells of it; nil: they are refused.
	Fetch func(ctx context.Context, tell Fetching) plan.Fetch
	// Cached finds models that were brought before. It asks nobody; nil: only directories are found.
	Cached plan.Fetch
}

// Fetching hears of models that are brought.
type Fetching struct {
	Started func(what string, total int64)
	Moved   func(n int64)
}

// Server is the page's server.
type Server struct {
	o        Options
	folder   *folder
	guard    *guard
	listener net.Listener
	runs     *runner
	saving   sync.Mutex
	plans    chan struct{} // room for plans that are made at once
	base     context.Context
}

// Listen opens the port on the loopback address; 0 takes any that is free. Serve answers.
func Listen(port int, o Options) (*Server, error) {
	f, err := openFolder(o.Dir)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("port %d: %w; give another one, or 0 for any that is free", port, err)
	}
	const plansAtOnce = 2
	s := &Server{o: o, folder: f, listener: l, plans: make(chan struct{}, plansAtOnce), base: context.Background()}
	s.runs = newRunner(s)
	s.guard = newGuard(l.Addr().(*net.TCPAddr).Port, s.routes())
	return s, nil
}

// Dir is the real path of the directory that the page shows.
func (s *Server) Dir() string { return s.folder.root }

// URL is the address to open.
func (s *Server) URL() string { return s.address(s.guard.key) }

// Launch is an address that is good for one visit in the next minute: it may be seen by other users of the machine.
func (s *Server) Launch() string { return s.address(s.guard.launch()) }

func (s *Server) address(key string) string {
	return fmt.Sprintf("http://127.0.0.1:%d/?key=%s", s.guard.port, url.QueryEscape(key))
}

// Serve answers requests until the context ends. A run that is under way is then interrupted as by Ctrl-C, and Serve waits until it has
// stopped; interrupted says so.
func (s *Server) Serve(ctx context.Context) (interrupted bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s.base = ctx
	h := &http.Server{Handler: s.guard, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, ErrorLog: log.New(discard{}, "", 0)}
	done := make(chan error, 1)
	go func() { done <- h.Serve(s.listener) }()
	select {
	case err = <-done:
	case <-ctx.Done():
	}
	stop() // ends streams of events, too
	interrupted = s.runs.wait()
	const patience = 2 * time.Second
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_ = h.Shutdown(late) // what is still open then is closed with the program
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return interrupted, err
}

// discard drops what net/http says about broken connections: a page that closes is no fault.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// routes are the handlers behind the guard.
func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	page, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the embedded directory is there
	}
	m.Handle("GET /", http.FileServerFS(page))
	m.Handle("GET /api/session", answer(s.getSession))
	m.Handle("GET /api/browse", answer(s.getBrowse))
	m.Handle("GET /api/models", answer(func(*http.Request) (any, error) { return s.folder.models(), nil }))
	m.Handle("GET /api/methods", answer(s.getMethods))
	m.Handle("GET /api/checkpoint", answer(s.getCheckpoint))
	m.Handle("GET /api/statistics", answer(s.getStatistics))
	m.Handle("GET /api/compare", told(s.compare))
	m.Handle("GET /api/recipe", answer(s.getRecipe))
	m.Handle("PUT /api/recipe", answer(s.putRecipe))
	m.Handle("POST /api/check", answer(s.postCheck))
	m.Handle("POST /api/complete", answer(s.postComplete))
	m.Handle("GET /api/run", http.HandlerFunc(s.runs.watch))
	m.Handle("POST /api/run", answer(s.runs.post))
	m.Handle("DELETE /api/run", answer(s.runs.cancel))
	m.Handle("GET /api/output", answer(s.getOutput))
	m.Handle("GET /report/{path...}", http.HandlerFunc(s.serveReport))
	return m
}

func (s *Server) getSession(*http.Request) (any, error) {
	return map[string]any{"dir": s.folder.root, "version": s.o.Merge.Version}, nil
}

func (s *Server) getBrowse(r *http.Request) (any, error) {
	dir, err := s.folder.find(r.FormValue("path"))
	if err != nil {
		return nil, err
	}
	list, more, err := s.folder.browse(dir)
	return map[string]any{"path": s.folder.name(dir), "entries": orEmpty(list), "more": more}, err
}

// orEmpty is a list that JSON writes as one.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// statusError is an error with an HTTP status of its own.
type statusError struct {
	status int
	error
}

func (e statusError) Unwrap() error { return e.error }

// maxBody bounds what a request may bring: a recipe and a little more.
const maxBody = 2 << 20

// answer makes a handler of a function that returns what to say as JSON.
func answer(f func(r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := f(r)
		if r.Context().Err() != nil {
			return // nobody listens
		}
		status := http.StatusOK
		if err != nil {
			status, v = statusOf(err), map[string]any{"error": err.Error()}
		}
		b, err := json.Marshal(v)
		if err != nil {
			status, b = http.StatusInternalServerError, []byte(`{"error":"a figure is too large to be shown"}`)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(b)
	})
}

func statusOf(err error) int {
	var own statusError
	var place *PathError
	var size *http.MaxBytesError
	switch {
	case errors.As(err, &own):
		return own.status
	case errors.As(err, &size):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, fs.ErrNotExist):
		return http.StatusNotFound
	case errors.As(err, &place):
		return http.StatusForbidden
	}
	return http.StatusUnprocessableEntity
}

// body reads what a request brings.
func body[T any](r *http.Request) (v T, err error) {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); kind != "application/json" {
		return v, statusError{http.StatusUnsupportedMediaType, errors.New("the request brings no JSON")}
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		var size *http.MaxBytesError
		if errors.As(err, &size) {
			return v, err
		}
		return v, statusError{http.StatusBadRequest, fmt.Errorf("the request cannot be read: %w", err)}
	}
	return v, nil
}
