//go:build cgo && linux

package backend

import (
	"os"
	"strings"

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
	if kind, _ := kindOfPath(path); kind == XLACUDA {
		if err := os.Setenv("XLA_FLAGS", withFlags(os.Getenv("XLA_FLAGS"), cudaFlags)); err != nil {
			return nil, err
		}
	}
	// The default on CUDA rounds float32 factors to 10 bits of mantissa.
	b, err := xla.New(path + ",tf32=false")
	if err == nil {
		compilecache.Install(path)
	}
	return b, err
}

// cudaFlags are what XLA is told before its plugin for CUDA is loaded. Without Triton it takes products from cuBLAS and need not time
// thousands of kernels of its own: a model compiles in seconds, not in minutes, and runs as fast (docs/benchmarks.md). Deterministic
// kernels cost nothing that could be measured, and give the same bits in each run.
var cudaFlags = []string{"--xla_gpu_enable_triton_gemm=false", "--xla_gpu_deterministic_ops=true"}

// withFlags adds flags to those that the user has set, which win.
func withFlags(set string, flags []string) string {
	for _, f := range flags {
		name, _, _ := strings.Cut(f, "=")
		if !strings.Contains(set, name) {
			set = strings.TrimSpace(set + " " + f)
		}
	}
	return set
}
