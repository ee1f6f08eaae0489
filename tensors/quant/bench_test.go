package quant

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mergekit/mergekit/tensors"
)

func one(name string, dtype tensors.DType, shape ...int) tensors.Info {
	return tensors.Info{Name: name, DType: dtype, Shape: shape}
}

// BenchmarkSchemes reads a matrix of 2048 by 4096 in the pieces in which a merge reads it; bytes are of the weight.
func BenchmarkSchemes(b *testing.B) {
	const n, k = 2048, 4096
	for _, c := range []struct {
		name, config string
		parts        []tensors.Info
	}{
		{"fp8 blocks", `{"quant_method":"fp8","weight_block_size":[128,128]}`, []tensors.Info{one("a.weight", tensors.F8E4M3, n, k), one("a.weight_scale_inv", tensors.F32, n/128, k/128)}},
		{"int8 rows", `{"quant_method":"compressed-tensors","format":"int-quantized"}`, []tensors.Info{one("a.weight", tensors.I8, n, k), one("a.weight_scale", tensors.BF16, n, 1)}},
		{"int4 groups", `{"quant_method":"compressed-tensors","format":"pack-quantized","config_groups":{"g":{"weights":{"num_bits":4,"group_size":128}}}}`,
			[]tensors.Info{one("a.weight_packed", tensors.I32, n, k/8), one("a.weight_scale", tensors.BF16, n, k/128), one("a.weight_shape", tensors.I64, 2)}},
		{"gptq", `{"quant_method":"gptq","bits":4,"group_size":128}`, []tensors.Info{one("a.qweight", tensors.I32, k/8, n), one("a.qzeros", tensors.I32, k/128, n/8), one("a.scales", tensors.F16, k/128, n)}},
		{"awq", `{"quant_method":"awq","bits":4,"group_size":128}`, []tensors.Info{one("a.qweight", tensors.I32, k, n/8), one("a.qzeros", tensors.I32, k/128, n/8), one("a.scales", tensors.F16, k/128, n)}},
		{"nvfp4", `{"quant_method":"compressed-tensors","format":"nvfp4-pack-quantized"}`, []tensors.Info{one("a.weight_packed", tensors.U8, n, k/2), one("a.weight_scale", tensors.F8E4M3, n, k/16)}},
		{"mxfp4 across", `{"quant_method":"mxfp4"}`, []tensors.Info{one("a_blocks", tensors.U8, 2, n/2, k/32, 16), one("a_scales", tensors.U8, 2, n/2, k/32)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "model.safetensors")
			data := make([][]byte, len(c.parts))
			for i, p := range c.parts {
				data[i] = make([]byte, p.Bytes())
				for j := range data[i] {
					data[i][j] = byte(j * 7 % 61)
				}
				if p.Name == "a.weight_shape" {
					le.PutUint64(data[i], n)
					le.PutUint64(data[i][8:], k)
				}
			}
			if err := tensors.SaveFile(path, c.parts, data, nil); err != nil {
				b.Fatal(err)
			}
			defer func() { _ = os.Remove(path) }()
			ckpt, err := tensors.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			defer ckpt.Close()
			q, err := ParseConfig([]byte(c.config))
			if err != nil {
				b.Fatal(err)
			}
			if made, err := Apply(ckpt, q, tensors.BF16); err != nil || made != 1 {
				b.Fatal(made, err)
			}
			r, err := ckpt.Reader(ckpt.Names()[0])
			if err != nil {
				b.Fatal(err)
			}
			total := r.Info.Bytes()
			if total != 2*n*k {
				b.Fatal(fmt.Errorf("%d bytes", total))
			}
			b.SetBytes(total)
			piece := make([]byte, 1<<20)
			for b.Loop() {
				for off := int64(0); off < total; off += int64(len(piece)) {
					if _, err := r.Bytes(off, int64(len(piece)), piece); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
