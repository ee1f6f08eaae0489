package fakehub

import (
	"net/http"
)

// uploads is what has been sent to the hub so far.
type uploads struct{}

func newUploads() uploads { return uploads{} }

func (h *Hub) upload(w http.ResponseWriter, r *http.Request, elements []string) bool { return false }

func (h *Hub) storeUpload(w http.ResponseWriter, r *http.Request) bool { return false }
