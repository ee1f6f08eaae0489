package convert

import (
	"context"

	"github.com/mergekit/mergekit/tensors"
)

type Options struct {
	DType         *tensors.DType
	ShardBytes    int64
	Force, Resume bool
	Progress      func(int64)
}
type Report struct {
	Tensors  int
	Bytes    int64
	Warnings []string
}

func FromGGUF(ctx context.Context, src, out string, o Options) (*Report, error)    { return nil, nil }
func Safetensors(ctx context.Context, src, out string, o Options) (*Report, error) { return nil, nil }
