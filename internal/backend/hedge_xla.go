//go:build cgo

package backend

import (
	"os"

	"github.com/gomlx/compute"
	"github.com/gomlx/go-xla/compute/xla"
)

func init() {
	xla.EnableAutoInstall(false)
	openXLA = func() (compute.Backend, error) {
		home, _ := os.UserHomeDir()
		return compute.NewWithConfig("xla:" + home + "/.local/lib/go-xla/pjrt_c_api_cpu_plugin.so")
	}
}
