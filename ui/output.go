package ui

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// outputView is what a merge has written beside the weights.
type outputView struct {
	Path       string          `json:"path"`
	Exists     bool            `json:"exists"`
	Partial    bool            `json:"partial"` // an interrupted merge waits to be resumed
	Card       string          `json:"card,omitempty"`
	Recipe     string          `json:"recipe,omitempty"`
	Provenance json.RawMessage `json:"provenance,omitempty"`
	Reports    []Entry         `json:"reports"`
}

// Bounds of files that are shown.
const (
	maxText   = 1 << 20
	maxRecord = 8 << 20
	maxReport = 64 << 20
)

// getOutput shows an output that is there, or what is in the way of one.
func (s *Server) getOutput(r *http.Request) (any, error) {
	v := &outputView{Path: r.FormValue("path"), Reports: []Entry{}}
	dir, err := s.folder.find(v.Path)
	if errors.Is(err, fs.ErrNotExist) {
		if dir, err = s.folder.place(v.Path); err == nil {
			v.Partial = interrupted(dir)
		}
		return v, err
	}
	if err != nil {
		return nil, err
	}
	v.Path, v.Exists, v.Partial = s.folder.name(dir), true, interrupted(dir)
	text := func(name string, most int64) string {
		if s.folder.inside(dir, name) != nil {
			return ""
		}
		b, err := readStart(filepath.Join(dir, name), most)
		if err != nil {
			return ""
		}
		return string(b)
	}
	v.Card, v.Recipe = text("README.md", maxText), text("mergekit_config.yml", maxText)
	if record := text("mergekit_provenance.json", maxRecord); json.Valid([]byte(record)) {
		v.Provenance = json.RawMessage(record)
	}
	for _, place := range slices.Compact([]string{dir, filepath.Dir(dir)}) {
		if !within(s.folder.root, place) {
			continue
		}
		list, _, err := s.folder.browse(place)
		if err != nil {
			continue
		}
		for _, e := range list {
			if e.Kind == KindReport {
				v.Reports = append(v.Reports, e)
			}
		}
	}
	return v, nil
}

// reportPolicy is that of pages that merges have written: no script at all, and styles of their own.
const reportPolicy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

// serveReport serves a report for the page's frame, or for a tab of its own.
func (s *Server) serveReport(w http.ResponseWriter, r *http.Request) {
	file, err := s.folder.find(r.PathValue("path"))
	if err == nil && !isReport(file) {
		err = &PathError{Path: r.PathValue("path"), Msg: "is no report of a merge"}
	}
	if err != nil {
		http.Error(w, err.Error(), statusOf(err))
		return
	}
	f, err := os.Open(file)
	if err != nil {
		http.Error(w, cause(err), http.StatusNotFound)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxReport {
		http.Error(w, strings.TrimSpace(s.folder.name(file)+" is too large to be a report"), http.StatusForbidden)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", reportPolicy)
	h.Set("X-Frame-Options", "SAMEORIGIN")
	h.Del("Cross-Origin-Opener-Policy") // a document in a sandbox has no origin to share
	h.Set("Content-Type", "text/html; charset=utf-8")
	http.ServeContent(w, r, "", st.ModTime(), f)
}
