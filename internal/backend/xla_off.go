//go:build !cgo || !linux

package backend

import (
	"errors"

	"github.com/gomlx/compute"
)

// noXLA is empty where plugins can be loaded, else it says why not.
const noXLA = "this binary was built without cgo, or not for Linux; build it there with CGO_ENABLED=1"

// openXLA loads the plugin at an absolute path, which this build cannot do.
func openXLA(string) (compute.Backend, error) { return nil, errors.New(noXLA) }
