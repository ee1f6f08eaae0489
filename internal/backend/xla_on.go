//go:build cgo && linux

package backend

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"

	"github.com/mergekit/mergekit/internal/backend/compilecache"
)

// noXLA is empty where plugins can be loaded, else it says why not.
const noXLA = ""

// openXLA loads the plugin at an absolute path.
func openXLA(path string) (compute.Backend, error) {
	// Without this, go-xla may download a plugin on its own, unpinned.
	xla.EnableAutoInstall(false)
	// The default on CUDA rounds float32 factors to 10 bits of mantissa.
	b, err := xla.New(path + ",tf32=false")
	if err == nil {
		compilecache.Install(path)
	}
	return b, err
}
