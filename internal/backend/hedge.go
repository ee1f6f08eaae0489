package backend

import (
	"context"
	"fmt"
	"net/http"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend"

	"github.com/mergekit/mergekit/internal/backend/block"
)

type Kind string
type Status struct {
	Kind      Kind
	Available bool
	Detail    string
	Fastest   bool
	Path      string
}

const Cgo = false

func SIMD() string   { return block.Vector() }
func List() []Status { return nil }
func Open(choice string) (compute.Backend, Status, error) {
	switch choice {
	case "xla:cpu":
		if openXLA != nil {
			b, err := openXLA()
			return b, Status{Kind: "xla:cpu"}, err
		}
	case "gomlx":
		b, err := compute.NewWithConfig("go:ops_sequential")
		return b, Status{Kind: "gomlx"}, err
	case "auto", "go":
		return block.New(), Status{Kind: "go", Detail: block.New().Description()}, nil
	}
	return nil, Status{}, fmt.Errorf("no backend %s", choice)
}

type Installer struct {
	Index, Dir string
	Client     *http.Client
	Progress   func(done, total int64)
}

func (in *Installer) Install(ctx context.Context, what string) (string, error) { return "", nil }

var openXLA func() (compute.Backend, error)
