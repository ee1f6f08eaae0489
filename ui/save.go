package ui

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/mergekit/mergekit/internal/report"
)

// isRecipeName says whether a file may be a recipe by its name.
func isRecipeName(file string) bool {
	ext := strings.ToLower(filepath.Ext(file))
	return ext == ".yml" || ext == ".yaml"
}

// digest identifies a text, so that nothing is written over what the page has not seen.
func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

type saveRequest struct {
	Path string `json:"path"`
	Text string `json:"text"`
	Was  string `json:"was"` // digest of what the file holds and the page has shown; "": there is no such file
}

// putRecipe writes a recipe. It replaces nothing but the text that the page has shown.
func (s *Server) putRecipe(r *http.Request) (any, error) {
	q, err := body[saveRequest](r)
	if err != nil {
		return nil, err
	}
	file, err := s.folder.place(q.Path)
	if err != nil {
		return nil, err
	}
	if !isRecipeName(file) {
		return nil, &PathError{Path: q.Path, Msg: "is no name for a recipe; let it end in .yml or .yaml"}
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	now, err := s.readRecipe(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && q.Was != "":
		return nil, statusError{http.StatusConflict, errors.New(q.Path + " is not there any more; save it under this or another name as a new file")}
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case q.Was == "":
		return nil, statusError{http.StatusConflict, errors.New(q.Path + " exists; choose another name, or open it")}
	case q.Was != digest(now):
		return nil, statusError{http.StatusConflict, errors.New(q.Path + " was changed by another program or page since it was opened; open it again, or save under another name")}
	}
	write := func(w io.Writer) error { _, err := io.WriteString(w, q.Text); return err }
	if q.Was != "" {
		err = report.Save(file, write)
	} else {
		err = create(file, write)
	}
	if err != nil {
		return nil, &PathError{Path: q.Path, Msg: "cannot be written", Err: err}
	}
	return map[string]any{"path": s.folder.name(file), "digest": digest([]byte(q.Text))}, nil
}

// create makes a file that was not there, whole or not at all.
func create(file string, write func(w io.Writer) error) error {
	dir, err := os.MkdirTemp(filepath.Dir(file), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	temporary := filepath.Join(dir, "recipe")
	if err := report.Save(temporary, write); err != nil {
		return err
	}
	return os.Link(temporary, file) // fails where another program has been faster
}
